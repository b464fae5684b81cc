/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pidfd.h - descriptors of processes (pidfd_open(2)), also where the C library has
 * no names for them: glibc before 2.36, musl.
 */
#ifndef XENDISK_PIDFD_H
#define XENDISK_PIDFD_H

#include "config.h"

#ifdef HAVE_SYS_PIDFD_H
#include <sys/pidfd.h>
#else
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* A descriptor (close-on-exec), or -1 and errno. */
static inline int pidfd_open(pid_t pid, unsigned int flags)
{
	return (int)syscall(SYS_pidfd_open, pid, flags);
}

/* 0, or -1 and errno. */
static inline int pidfd_send_signal(int pidfd, int sig, siginfo_t *info,
				    unsigned int flags)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, info, flags);
}
#endif

#endif
