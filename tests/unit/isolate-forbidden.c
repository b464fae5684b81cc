/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate-forbidden.c - what an isolated process must not be able to do.
 *
 * The ring's restrictions are tried through the engine's own queue, hence the
 * include.
 */
#include "../../src/worker/engine-uring.c"

#include "isolate-actions.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>

int outcome(long r)
{
	return r < 0 ? -errno : 0;
}

static int do_open(void)
{
	return outcome(open("/etc/passwd", O_RDONLY));
}

static int do_create(void)
{
	int r = outcome(open("/tmp/xendisk-isolate", O_CREAT | O_RDWR, 0600));

	(void)unlink("/tmp/xendisk-isolate");
	return r;
}

static int do_stat(void)
{
	struct stat st;

	return outcome(stat("/etc/passwd", &st));
}

static int do_mem(void)
{
	return outcome(open("/proc/self/mem", O_RDWR));
}

static int do_unlink(void)
{
	int r = outcome(unlink("/tmp/xendisk-isolate"));

	return r == -ENOENT ? 0 : r;
}

static int do_mkdir(void)
{
	int r = outcome(mkdir("/tmp/xendisk-isolate.d", 0700));

	(void)rmdir("/tmp/xendisk-isolate.d");
	return r;
}

static int do_unix_socket(void)
{
	return outcome(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int do_inet_socket(void)
{
	return outcome(socket(AF_INET, SOCK_DGRAM, 0));
}

/* A socket that is there does not help either. */
static int do_connect(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNSPEC };

	return outcome(connect(have.sock, (struct sockaddr *)&address,
			       sizeof(address)));
}

static int do_bind(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	return outcome(bind(have.sock, (struct sockaddr *)&address,
			    sizeof(address.sun_family)));
}

static int do_exec(void)
{
	char *argv[] = { NULL, NULL }, name[] = "true";

	argv[0] = name;
	return outcome(execv("/bin/true", argv));
}

static int do_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		(void)waitpid(pid, NULL, 0);
	return outcome(pid);
}

static int do_unshare(void)
{
	return outcome(unshare(CLONE_FILES));
}

static int do_ptrace(void)
{
	return outcome(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int do_peek(void)
{
	char byte;
	struct iovec iov = { &byte, 1 };

	return outcome(process_vm_readv(getpid(), &iov, 1, &iov, 1, 0));
}

static int do_kill(void)
{
	return outcome(kill(have.parent, 0));
}

static int do_map_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

static int do_make_code(void)
{
	return outcome(mprotect(have.page, 4096, PROT_READ | PROT_EXEC));
}

static int do_memfd(void)
{
	return outcome(memfd_create("code", 0));
}

static int do_new_ring(void)
{
	struct io_uring_params params = { 0 };

	return outcome(syscall(__NR_io_uring_setup, 4, &params));
}

/* Does an operation on a ring; res as the kernel gives it. */
static int on_ring(struct io_uring *ring,
		   void (*prep)(struct io_uring_sqe *sqe))
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int res;

	prep(sqe);
	io_uring_submit(ring);
	if (io_uring_wait_cqe(ring, &cqe) < 0)
		return -EIO;
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return MIN(res, 0);
}

/* The engine's ring, or one as anybody could make it. */
static int try_ring(void (*prep)(struct io_uring_sqe *sqe))
{
	struct io_uring ring;

	if (have.isolated)
		return on_ring(&uring_of(have.uring)->ring, prep);
	if (io_uring_queue_init(4, &ring, 0) < 0)
		return -EIO;
	return on_ring(&ring, prep);
}

static void prep_open(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
}

static int do_ring_open(void)
{
	return try_ring(prep_open);
}

static void prep_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_socket(sqe, AF_UNIX, SOCK_STREAM, 0, 0);
}

static int do_ring_socket(void)
{
	return try_ring(prep_socket);
}

static void prep_unlink(struct io_uring_sqe *sqe)
{
	io_uring_prep_unlinkat(sqe, AT_FDCWD, "/tmp/xendisk-isolate", 0);
}

static int do_ring_unlink(void)
{
	int r = try_ring(prep_unlink);

	return r == -ENOENT ? 0 : r;
}

static int do_ring_register(void)
{
	struct io_uring ring;
	int fd = have.pipe[0];

	if (have.isolated)
		return ring_register(&uring_of(have.uring)->ring,
				     IORING_REGISTER_FILES, &fd, 1);
	if (io_uring_queue_init(4, &ring, 0) < 0)
		return -EIO;
	return ring_register(&ring, IORING_REGISTER_FILES, &fd, 1);
}

static int do_bpf(void)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY,
				.key_size = 4,
				.value_size = 4,
				.max_entries = 1 };

	return outcome(syscall(__NR_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static int do_become_root(void)
{
	return outcome(setuid(0));
}

static int do_dumpable(void)
{
	return outcome(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int do_raise_limit(void)
{
	struct rlimit limit = { 0, 0 };

	return outcome(setrlimit(RLIMIT_CORE, &limit));
}

static int do_other_ioctl(void)
{
	int n = 0;

	return outcome(ioctl(have.pipe[0], FIOASYNC, &n));
}

static int do_other_fcntl(void)
{
	return outcome(fcntl(have.pipe[0], F_SETPIPE_SZ, 8192));
}

/* A thread from before is under the filter too. */
void *early_thread(void *arg)
{
	static int r;
	char byte;

	(void)arg;
	r = -EIO;
	if (read(have.pipe[0], &byte, 1) == 1)
		r = do_open();
	return &r;
}

static int do_early_thread(void)
{
	void *r;

	if (write(have.pipe[1], "x", 1) != 1 ||
	    pthread_join(have.early, &r) != 0)
		return -EIO;
	return *(int *)r;
}

const struct action forbidden_actions[] = {
	{ "open a file", do_open, false },
	{ "create a file", do_create, false },
	{ "stat a path", do_stat, false },
	{ "open /proc/self/mem", do_mem, false },
	{ "unlink", do_unlink, false },
	{ "make a folder", do_mkdir, false },
	{ "make a unix socket", do_unix_socket, false },
	{ "make an internet socket", do_inet_socket, false },
	{ "connect a socket", do_connect, false },
	{ "bind a socket", do_bind, false },
	{ "exec", do_exec, true },
	{ "fork", do_fork, false },
	{ "unshare", do_unshare, true },
	{ "ptrace", do_ptrace, true },
	{ "read another's memory", do_peek, true },
	{ "signal the parent", do_kill, false },
	{ "map memory as code", do_map_code, false },
	{ "turn memory into code", do_make_code, false },
	{ "make a file in memory", do_memfd, false },
	{ "make a ring", do_new_ring, true },
	{ "open through the ring", do_ring_open, false },
	{ "make a socket through the ring", do_ring_socket, false },
	{ "unlink through the ring", do_ring_unlink, false },
	{ "register with the ring", do_ring_register, true },
	{ "load BPF", do_bpf, true },
	{ "become root", do_become_root, true },
	{ "become dumpable", do_dumpable, false },
	{ "set a limit", do_raise_limit, false },
	{ "another ioctl", do_other_ioctl, false },
	{ "another fcntl", do_other_fcntl, false },
	{ "open in a thread from before", do_early_thread, false },
};
const size_t nr_forbidden_actions = ARRAY_SIZE(forbidden_actions);
