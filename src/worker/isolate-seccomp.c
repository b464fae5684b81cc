/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate-seccomp.c - the system calls of an isolated worker.
 *
 * Three answers:
 *   allowed	what serving a disk takes, each beside its reason;
 *   EPERM	all else.  The kernel does nothing then, so an attacker gains
 *		nothing, while the C library, which now and then tries to open
 *		something and does without (malloc, syslog), must not cost a
 *		guest its disk;
 *   death	what only an attacker calls: a worker that does is not one any
 *		more, and its end stands in the audit log.
 *
 * Rules without arguments are answered by the kernel from a bitmap; the busy
 * ones (io_uring_enter, futex, read, write) are of that kind.
 */
#include "config.h"

#include "worker/isolate-seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xen/xen.h>
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>

#include "common/sanitized.h"
#include "common/util.h"
#include "worker/isolate-files.h"

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#endif

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, uint64_t)
#endif

bool isolate_relaxed(void)
{
	return SANITIZED || RUNNING_ON_VALGRIND;
}

/* A call, perhaps only with certain bits in one argument. */
struct rule {
	int call;
	bool conditional;
	unsigned int arg; /* from 0 */
	uint64_t mask;
	uint64_t value; /* what is left under the mask */
};

#define CALL(name)                         \
	{                                  \
		SCMP_SYS(name), 0, 0, 0, 0 \
	}
#define CALL_IF(name, arg, mask, value)             \
	{                                           \
		SCMP_SYS(name), 1, arg, mask, value \
	}
/* ioctl and fcntl: by what they are to do. */
#define IOCTL(number) CALL_IF(ioctl, 1, UINT32_MAX, (uint32_t)(number))
#define FCNTL(number) CALL_IF(fcntl, 1, UINT32_MAX, number)

static const struct rule allowed[] = {
	/* Data, where io_uring does not do it: event channels, wake-ups, the
	 * log, and the threads of engine-pool.c. */
	CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64),
	CALL(pwrite64), CALL(preadv), CALL(pwritev), CALL(preadv2),
	CALL(pwritev2), CALL(fsync), CALL(fdatasync), CALL(fallocate),
	CALL(lseek), /* SEEK_DATA: kept state, extents */
	CALL(close), CALL(io_uring_enter), CALL(poll), CALL(ppoll),

	/* The broker's socket, and the descriptors that come through it. */
	CALL(sendmsg), CALL(recvmsg), CALL(sendto), CALL(recvfrom),
	CALL(accept4), /* the next broker's */

	/* A server's socket: ends polls of it, and asks whether anybody is there
	 * (nbd-link.c).  A pair leads nowhere but into this process (nbd-tls.c). */
	CALL(shutdown), IOCTL(FIONREAD),
	CALL_IF(getsockopt, 1, UINT32_MAX, IPPROTO_TCP),
	CALL_IF(socketpair, 0, UINT32_MAX, AF_UNIX),

	/* What a descriptor is, asked by the descriptor: never by a path.
	 * With the flag a path that is not empty would still be looked up, but
	 * only looked up. */
	CALL(fstat), CALL(fstatfs),
	CALL_IF(newfstatat, 3, AT_EMPTY_PATH, AT_EMPTY_PATH),
	CALL_IF(statx, 2, AT_EMPTY_PATH, AT_EMPTY_PATH),

	/* Locks at connect. */
	CALL(flock), FCNTL(F_GETFL), FCNTL(F_SETFL), FCNTL(F_GETFD),
	FCNTL(F_SETFD), FCNTL(F_OFD_GETLK), FCNTL(F_OFD_SETLK),
	FCNTL(F_OFD_SETLKW), FCNTL(F_GETLK), /* the simulator's */
	FCNTL(F_SETLK), FCNTL(F_SETLKW), FCNTL(F_DUPFD_CLOEXEC),

	/* Grants (libxengnttab) and event channels (libxenevtchn), 4.17. */
	IOCTL(IOCTL_GNTDEV_MAP_GRANT_REF), IOCTL(IOCTL_GNTDEV_UNMAP_GRANT_REF),
	IOCTL(IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR),
	IOCTL(IOCTL_GNTDEV_SET_UNMAP_NOTIFY), IOCTL(IOCTL_GNTDEV_GRANT_COPY),
	IOCTL(IOCTL_EVTCHN_BIND_INTERDOMAIN), IOCTL(IOCTL_EVTCHN_UNBIND),
	IOCTL(IOCTL_EVTCHN_NOTIFY), IOCTL(IOCTL_EVTCHN_RESTRICT_DOMID),

	/* Is a block device still the one that was attached? */
	IOCTL(BLKGETSIZE64), IOCTL(BLKSSZGET), IOCTL(BLKPBSZGET),
	IOCTL(BLKGETDISKSEQ),

	/* Memory, but none that becomes code. */
	CALL_IF(mmap, 2, PROT_EXEC, 0), CALL_IF(mprotect, 2, PROT_EXEC, 0),
	CALL(munmap), CALL(mremap), CALL(madvise), CALL(brk),

	/* Threads: lanes start with their guest.  clone3 hides its flags in
	 * memory, so the C library is made to use clone: add_no_clone3(). */
	CALL_IF(clone, 0, CLONE_THREAD, CLONE_THREAD), CALL(futex),
	CALL(set_robust_list), CALL(rseq), CALL(membarrier), CALL(sched_yield),
	CALL(sched_getaffinity), CALL(gettid), CALL(getpid),
	CALL_IF(prctl, 0, UINT32_MAX, PR_SET_NAME), CALL(exit),
	CALL(exit_group),

	/* Signals: none is sent to others; abort() sends one to itself, see
	 * add_abort(). */
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn),
	CALL(sigaltstack), CALL(restart_syscall),

	/* Time and chance. */
	CALL(clock_gettime), CALL(clock_nanosleep), CALL(nanosleep),
	CALL(gettimeofday), CALL(getrandom),
	CALL_IF(prlimit64, 2, UINT64_MAX, 0), /* asks, sets nothing */
};

static const int deadly[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(io_uring_setup),
	SCMP_SYS(io_uring_register),
	SCMP_SYS(bpf),
	SCMP_SYS(userfaultfd),
	SCMP_SYS(perf_event_open),
	SCMP_SYS(init_module),
	SCMP_SYS(finit_module),
	SCMP_SYS(kexec_load),
	SCMP_SYS(kexec_file_load),
	SCMP_SYS(mount),
	SCMP_SYS(umount2),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
	SCMP_SYS(unshare),
	SCMP_SYS(setns),
	SCMP_SYS(setuid),
	SCMP_SYS(setresuid),
	SCMP_SYS(capset),
	SCMP_SYS(add_key),
	SCMP_SYS(keyctl),
	SCMP_SYS(request_key),
	SCMP_SYS(open_by_handle_at),
	SCMP_SYS(pidfd_getfd),
};

/* What sanitizers and valgrind do beside us: they map code, read /proc for
 * their reports, and look for leaks with a tracer of their own. */
static const struct rule of_sanitizers[] = {
	CALL(mmap),
	CALL(mprotect),
	CALL_IF(openat, 2, O_ACCMODE, 0),
	CALL_IF(open, 1, O_ACCMODE, 0),
	CALL(readlink),
	CALL(readlinkat),
	CALL(newfstatat),
	CALL(getdents),
	CALL(getdents64),
	CALL(clone),
	CALL(ptrace),
	CALL(wait4),
	CALL(prctl),
	CALL(kill),
	CALL(tgkill),
	CALL(tkill),
	CALL(pipe),
	CALL(pipe2),
	CALL(getppid),
	CALL(getuid),
	CALL(geteuid),
	CALL(getrlimit),
	CALL(prlimit64),
	CALL(sched_getparam),
	CALL(sysinfo),
	CALL(uname),
	CALL(arch_prctl),
	CALL(access),
	CALL(ioctl),
	CALL(rt_sigtimedwait),
	CALL(rt_sigpending),
	CALL(fcntl),
	CALL(dup),
};

static int add_rules(scmp_filter_ctx ctx, const struct rule *rules, size_t nr)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < nr; i++) {
		const struct rule *rule = &rules[i];
		const struct scmp_arg_cmp cmp = {
			.arg = rule->arg,
			.op = SCMP_CMP_MASKED_EQ,
			.datum_a = rule->mask,
			.datum_b = rule->value,
		};

		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, rule->call,
					   rule->conditional, &cmp);
	}
	return r;
}

static int add_deadly(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(deadly); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
	return r;
}

/* So that a failed assertion ends as one, and not in an endless loop. */
static int add_abort(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				SCMP_A0(SCMP_CMP_EQ, (uint64_t)getpid(), 0));
}

/* The C library takes this for an old kernel, and falls back to clone. */
static int add_no_clone3(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3),
				0);
}

/* Files that were lent are duplicated by the handler of the trap. */
static int add_traps(scmp_filter_ctx ctx)
{
	static const int traps[] = {
		SCMP_SYS(open),
		SCMP_SYS(openat),
		SCMP_SYS(access),
		SCMP_SYS(faccessat),
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(traps); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_TRAP, traps[i], 0);
	return r;
}

static int fill(scmp_filter_ctx ctx, bool relaxed)
{
	int r;

	r = add_rules(ctx, allowed, ARRAY_SIZE(allowed));
	if (r == 0 && isolate_lends_files() && !relaxed)
		r = add_traps(ctx);
	if (r == 0)
		r = add_no_clone3(ctx);
	if (r == 0 && relaxed)
		return add_rules(ctx, of_sanitizers, ARRAY_SIZE(of_sanitizers));
	if (r == 0)
		r = add_abort(ctx);
	return r == 0 ? add_deadly(ctx) : r;
}

int isolate_seccomp(bool relaxed)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A tree instead of a list, for the calls with arguments. */
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = fill(ctx, relaxed);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	/* The filter was made from a tree, which took more memory than an idle
	 * worker has otherwise; and there may be many. */
#ifdef HAVE_MALLOC_TRIM
	(void)malloc_trim(0);
#endif
	return r;
}
