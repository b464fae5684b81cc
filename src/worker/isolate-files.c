/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Where files are lent, the filter does not answer openat() with EPERM but
 * traps it: SIGSYS arrives in the thread that made the call.  The handler
 * compares the path with the list; for a lent one there are copies in memory,
 * made before, of which it duplicates one; any other is EPERM.  So nothing is
 * opened at all, and whoever has taken over the worker gets by it what it holds
 * anyway.  A duplicate shares the position of its copy, so there are as many as
 * can be read at a time, and they are given out in turn.
 *
 * In the handler: system calls only, and none that is trapped.  The list does
 * not change any more when it is installed.
 */
#include "config.h"

#include "worker/isolate-files.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "common/util.h"

#define MAX_FILES 16
#define MAX_BYTES 65536
#define COPIES	  16 /* more than there are lanes, each in one handshake */

static struct lent {
	char *path;
	int copies[COPIES];
	_Atomic(unsigned int) turn;
} files[MAX_FILES];
static unsigned int nr_files;

bool isolate_lends_files(void)
{
	return nr_files > 0;
}

static int make_copy(const void *content, size_t length)
{
	cleanup_close int fd =
		memfd_create("lent", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return -errno;
	r = pwrite_all(fd, content, length, 0);
	if (r == 0 && fcntl(fd, F_ADD_SEALS,
			    F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		r = -errno;
	return r < 0 ? r : TAKE_FD(fd);
}

static int make_copies(struct lent *file, const void *content, size_t length)
{
	for (unsigned int i = 0; i < COPIES; i++) {
		file->copies[i] = make_copy(content, length);
		if (file->copies[i] >= 0)
			continue;
		for (unsigned int j = 0; j < i; j++)
			(void)close(file->copies[j]);
		return file->copies[i];
	}
	return 0;
}

int isolate_lend_file(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	static char content[MAX_BYTES];
	cleanup_free char *name = strdup(path);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_size > MAX_BYTES || nr_files >= MAX_FILES)
		return -EFBIG;
	if (!name)
		return -ENOMEM;
	r = pread_all(fd, content, (size_t)st.st_size, 0);
	if (r == 0)
		r = make_copies(&files[nr_files], content, (size_t)st.st_size);
	explicit_bzero(content, sizeof(content));
	if (r == 0)
		files[nr_files++].path = TAKE_PTR(name);
	return r;
}

/* --- In the handler ------------------------------------------------------- */

static long duplicate(struct lent *file)
{
	unsigned int turn = atomic_fetch_add(&file->turn, 1) % COPIES;
	int fd = fcntl(file->copies[turn], F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)lseek(fd, 0, SEEK_SET);
	return fd;
}

static long answer(const char *path, bool opens)
{
	for (unsigned int i = 0; path && i < nr_files; i++)
		if (strcmp(files[i].path, path) == 0)
			return opens ? duplicate(&files[i]) : 0;
	return -EPERM;
}

#if defined(__x86_64__)
#define RESULT(uc)    ((uc)->uc_mcontext.gregs[REG_RAX])
#define ARGUMENT0(uc) ((uc)->uc_mcontext.gregs[REG_RDI])
#define ARGUMENT1(uc) ((uc)->uc_mcontext.gregs[REG_RSI])
#elif defined(__aarch64__)
#define RESULT(uc)    ((uc)->uc_mcontext.regs[0])
#define ARGUMENT0(uc) ((uc)->uc_mcontext.regs[0])
#define ARGUMENT1(uc) ((uc)->uc_mcontext.regs[1])
#else
#error "where are the arguments of a system call here?"
#endif

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	int saved = errno;
	long result = -EPERM;

	(void)sig;
	switch (info->si_syscall) {
#ifdef SYS_open
	case SYS_open:
		result = answer((const char *)ARGUMENT0(uc), true);
		break;
	case SYS_access:
		result = answer((const char *)ARGUMENT0(uc), false);
		break;
#endif
	case SYS_openat:
		result = answer((const char *)ARGUMENT1(uc), true);
		break;
	case SYS_faccessat:
		result = answer((const char *)ARGUMENT1(uc), false);
		break;
	}
	errno = saved;
	RESULT(uc) = (__typeof__(RESULT(uc)))result;
}

int isolate_answer_traps(void)
{
	struct sigaction action = { .sa_sigaction = on_trap,
				    .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&action.sa_mask);
	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}
