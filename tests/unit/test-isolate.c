/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An isolated process can still serve a disk, and nothing else.
 *
 * Each action runs in a child of its own, twice: once as it is, where it must
 * work (or the test would prove nothing), and once isolated.  The ring's
 * restrictions are tried through the engine's own queue, hence the include.
 */
#include "../../src/worker/engine-uring.c"

#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
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
#include <cmocka.h>

#include "common/msg.h"
#include "fake-broker.h"
#include "worker/isolate-seccomp.h"
#include "worker/isolate.h"

#define WORKER_UID 0x7d15ffffu /* not one that a daemon would give */

/* What is open before isolate(). */
static struct {
	struct engine *uring, *threads;
	struct services *services;
	int file, sock, pipe[2];
	void *page;
	pthread_t early; /* a thread that is there before */
	pid_t parent;
} have;

/* --- Things that must be denied: 0, or -errno ------------------------------- */

static int outcome(long r)
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
static int try_ring(void (*prep)(struct io_uring_sqe *sqe), bool isolated)
{
	struct io_uring ring;

	if (isolated)
		return on_ring(&uring_of(have.uring)->ring, prep);
	if (io_uring_queue_init(4, &ring, 0) < 0)
		return -EIO;
	return on_ring(&ring, prep);
}

static bool isolated;

static void prep_open(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
}

static int do_ring_open(void)
{
	return try_ring(prep_open, isolated);
}

static void prep_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_socket(sqe, AF_UNIX, SOCK_STREAM, 0, 0);
}

static int do_ring_socket(void)
{
	return try_ring(prep_socket, isolated);
}

static void prep_unlink(struct io_uring_sqe *sqe)
{
	io_uring_prep_unlinkat(sqe, AT_FDCWD, "/tmp/xendisk-isolate", 0);
}

static int do_ring_unlink(void)
{
	int r = try_ring(prep_unlink, isolated);

	return r == -ENOENT ? 0 : r;
}

static int do_ring_register(void)
{
	struct io_uring ring;
	int fd = have.pipe[0];

	if (isolated)
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
	int n;

	return outcome(ioctl(have.pipe[0], FIONREAD, &n));
}

static int do_other_fcntl(void)
{
	return outcome(fcntl(have.pipe[0], F_SETPIPE_SZ, 8192));
}

/* A thread from before is under the filter too. */
static void *early_thread(void *arg)
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

/* killed: an attacker's call, which ends the process; else it is refused. */
static const struct action {
	const char *name;
	int (*act)(void);
	bool killed;
} forbidden[] = {
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

/* --- Things that must work --------------------------------------------------- */

static bool finished;
static int64_t finished_res;

static void call_done(struct xd_sys *sys, int64_t res)
{
	(void)sys;
	finished = true;
	finished_res = res;
}

static int64_t call(struct engine *engine, struct xd_sys sys)
{
	finished = false;
	sys.done = call_done;
	engine_sys(engine, &sys);
	while (!finished)
		if (engine_run(engine, UINT64_MAX) < 0)
			return -EIO;
	return finished_res;
}

static bool use_engine(struct engine *engine)
{
	char text[] = "isolated", back[8];
	struct iovec out = { text, 8 }, in = { back, 8 };
	struct xd_sys sys = {
		.op = XD_SYS_WRITEV, .fd = have.file, .iov = &out, .iovcnt = 1
	};
	bool ok;

	ok = call(engine, sys) == 8;
	sys.op = XD_SYS_READV;
	sys.iov = &in;
	ok = ok && call(engine, sys) == 8 && memcmp(text, back, 8) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_FDATASYNC, .fd = have.file };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_FALLOCATE,
			       .fd = have.file,
			       .length = 8192 };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 1000000 };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_POLL,
			       .fd = have.pipe[1],
			       .flags = POLLOUT };
	ok = ok && call(engine, sys) == POLLOUT;
	engine_wake(engine);
	return ok && engine_run(engine, UINT64_MAX) == 0;
}

static int use_uring(void)
{
	return use_engine(have.uring) ? 0 : -EIO;
}

static int use_threads(void)
{
	return use_engine(have.threads) ? 0 : -EIO;
}

static void *lane(void *arg)
{
	(void)arg;
	(void)prctl(PR_SET_NAME, "lane");
	return use_engine(have.uring) && use_engine(have.threads) ? &have :
								    NULL;
}

static int use_a_lane(void)
{
	pthread_t thread;
	void *ok;

	for (int i = 0; i < 3; i++) {
		if (pthread_create(&thread, NULL, lane, NULL) != 0 ||
		    pthread_join(thread, &ok) != 0 || !ok)
			return -EIO;
	}
	return 0;
}

/* A descriptor comes from the broker, as raw gets its file at connect. */
static int use_services(void)
{
	struct msg_service request = { .kind = MSG_SERVICE_KEEP,
				       .layer = 1,
				       .size = 4096,
				       .name = "map" };
	struct msg_service_done done;
	struct statx stx;
	struct stat st;
	void *map;
	int fd, r;

	r = services_call(have.services, &request, &done, &fd, 5000000000);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0 || st.st_size != 4096 ||
	    statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0)
		return -errno;
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	memset(map, 1, 4096);
	if (lseek(fd, 0, SEEK_DATA) != 0 || munmap(map, 4096) < 0)
		return -errno;
	return outcome(close(fd));
}

static int use_locks(void)
{
	struct flock lock = { .l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = 100,
			      .l_len = 1 };

	if (flock(have.file, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	return outcome(fcntl(have.file, F_OFD_SETLK, &lock));
}

static int use_memory(void)
{
	char *p = malloc(64 << 20);

	if (!p)
		return -ENOMEM;
	memset(p, 1, 64 << 20);
	p = realloc(p, 128 << 20);
	free(p);
	return p ? 0 : -ENOMEM;
}

static int use_stderr(void)
{
	return fprintf(stderr, "%s", "") == 0 ? 0 : -EIO;
}

static const struct action needed[] = {
	{ "calls on io_uring", use_uring, false },
	{ "calls by threads", use_threads, false },
	{ "lanes", use_a_lane, false },
	{ "the broker", use_services, false },
	{ "locks", use_locks, false },
	{ "memory", use_memory, false },
	{ "a message", use_stderr, false },
};

/* --- Children ---------------------------------------------------------------- */

static struct fake_broker *broker;

static void prepare_child(void)
{
	int r;

	r = engine_new(&have.uring, 8, true);
	r = r ? r : engine_new(&have.threads, 8, false);
	have.file = memfd_create("isolate", 0);
	have.sock = socket(AF_UNIX, SOCK_DGRAM, 0);
	have.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r || have.file < 0 || have.sock < 0 || pipe(have.pipe) < 0 ||
	    ftruncate(have.file, 1 << 20) < 0 ||
	    pthread_create(&have.early, NULL, early_thread, NULL) != 0)
		_exit(99);
}

enum { AS_IT_IS, ISOLATED, ISOLATED_ELSEWHO };

/* Runs it; returns 0 or -errno, or -EOWNERDEAD for a death by SIGSYS. */
static int run(int (*act)(void), int how)
{
	char why[MSG_TEXT_MAX];
	int status;
	pid_t pid;

	have.parent = getpid();
	pid = fork();
	if (pid == 0) {
		prepare_child();
		isolated = how != AS_IT_IS;
		if (isolated &&
		    isolate(how == ISOLATED ? 0 : WORKER_UID, why) < 0) {
			fprintf(stderr, "%s\n", why);
			_exit(98);
		}
		_exit(-act());
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		return -WEXITSTATUS(status);
	return WTERMSIG(status) == SIGSYS ? -EOWNERDEAD : -WTERMSIG(status);
}

/* False: it cannot be done here anyway (in a container, say), which proves
 * nothing. */
static bool check_forbidden(const struct action *action, int how)
{
	int r = run(action->act, AS_IT_IS);
	bool denied;

	if (r < 0) {
		print_message("# %s: cannot be done anyway: %s\n", action->name,
			      strerror(-r));
		return false;
	}
	r = run(action->act, how);
	denied = action->killed ? r == -EOWNERDEAD :
				  r == -EPERM || r == -EACCES;
	if (!denied)
		print_error("%s: %s, and not %s\n", action->name, strerror(-r),
			    action->killed ? "killed" : "denied");
	assert_true(denied);
	return true;
}

static void check_all_forbidden(int how)
{
	unsigned int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++)
		n += check_forbidden(&forbidden[i], how);
	assert_true(n >= ARRAY_SIZE(forbidden) * 3 / 4);
}

/* cmocka's skip() is "not ok" in TAP. */
static bool not_here(bool so, const char *why)
{
	if (so)
		print_message("# skipped: %s\n", why);
	return so;
}

static void test_forbidden(void **state)
{
	int how = geteuid() == 0 ? ISOLATED_ELSEWHO : ISOLATED;

	(void)state;
	if (not_here(isolate_relaxed(), "for a sanitizer more is allowed"))
		return;
	check_all_forbidden(how);
}

/* As the daemon is where nobody is root, or where it cannot be helped. */
static void test_forbidden_same_user(void **state)
{
	(void)state;
	if (not_here(isolate_relaxed(), "for a sanitizer more is allowed") ||
	    not_here(geteuid() != 0, "only for root it makes a difference"))
		return;
	check_all_forbidden(ISOLATED);
}

static void check_needed(int how)
{
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		struct services *services = fake_broker_connect(broker);
		int r;

		have.services = services;
		r = run(needed[i].act, how);
		if (r < 0)
			print_error("%s: %s\n", needed[i].name, strerror(-r));
		assert_int_equal(r, 0);
		services_free(services);
	}
}

static void test_needed(void **state)
{
	(void)state;
	check_needed(AS_IT_IS);
	check_needed(ISOLATED);
	if (geteuid() == 0)
		check_needed(ISOLATED_ELSEWHO);
}

/* A failed assertion is SIGABRT, not a hang and not something else. */
static int do_abort(void)
{
	abort();
}

static void test_abort(void **state)
{
	(void)state;
	assert_int_equal(run(do_abort, ISOLATED), -SIGABRT);
}

/* The way out works: exit handlers, a sanitizer's search for leaks. */
static int do_exit(void)
{
	exit(0);
}

static void test_exit(void **state)
{
	(void)state;
	assert_int_equal(run(do_exit, ISOLATED), 0);
}

/* --- Who it is then ------------------------------------------------------------ */

static int wait_for_end(void)
{
	char byte;

	(void)!write(have.pipe[1], "x", 1);
	(void)!read(have.sock, &byte, 1);
	return 0;
}

static void status_line(pid_t pid, const char *key, char *value, size_t size)
{
	cleanup_free char *path = xasprintf("/proc/%d/status", pid);
	cleanup_file FILE *file = fopen(path, "re");
	char line[256];

	assert_non_null(file);
	value[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(value, size, "%s", line + strlen(key));
	}
}

static void check_status(pid_t pid)
{
	cleanup_free char *limits = xasprintf("grep -q 'core file size *0 ' "
					      "/proc/%d/limits",
					      pid);
	cleanup_free char *proc = xasprintf("/proc/%d/maps", pid);
	struct stat st;
	char value[256];

	status_line(pid, "Uid:\t", value, sizeof(value));
	assert_string_equal(value, "2098593791\t2098593791\t2098593791\t"
				   "2098593791");
	status_line(pid, "Groups:\t", value, sizeof(value));
	assert_string_equal(value, " ");
	status_line(pid, "CapPrm:\t", value, sizeof(value));
	assert_string_equal(value, "0000000000000000");
	status_line(pid, "CapEff:\t", value, sizeof(value));
	assert_string_equal(value, "0000000000000000");
	status_line(pid, "NoNewPrivs:\t", value, sizeof(value));
	assert_string_equal(value, "1");
	status_line(pid, "Seccomp:\t", value, sizeof(value));
	assert_string_equal(value, "2");
	assert_int_equal(system(limits), 0);
	if (isolate_relaxed())
		return;
	/* Not dumpable: its files in /proc are root's. */
	assert_int_equal(stat(proc, &st), 0);
	assert_int_equal(st.st_uid, 0);
}

static void test_identity(void **state)
{
	int ready[2], end[2], status;
	char why[MSG_TEXT_MAX], byte;
	pid_t pid;

	(void)state;
	if (not_here(geteuid() != 0, "only root can become another"))
		return;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(end), 0);
	pid = fork();
	if (pid == 0) {
		if (isolate(WORKER_UID, why) < 0)
			_exit(1);
		have.pipe[1] = ready[1];
		have.sock = end[0];
		close(end[1]);
		_exit(wait_for_end());
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	check_status(pid);
	for (int i = 0; i < 2; i++) {
		close(ready[i]);
		close(end[i]);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Asked for a user that it cannot become, it must not go on as it is. */
static void test_no_half_measures(void **state)
{
	char why[MSG_TEXT_MAX];
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && setresuid(1, 1, 1) < 0)
			_exit(2);
		_exit(isolate(WORKER_UID, why) == -EPERM &&
				      strstr(why, "user") ?
			      0 :
			      1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int group_setup(void **state)
{
	(void)state;
	broker = fake_broker_new();
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	fake_broker_free(broker);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_forbidden_same_user),
		cmocka_unit_test(test_needed),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_exit),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_no_half_measures),
	};

	return cmocka_run_group_tests_name("isolate", tests, group_setup,
					   group_teardown);
}
