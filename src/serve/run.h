/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* run.h - the command of `xendisk serve --run`. */
#ifndef XENDISK_SERVE_RUN_H
#define XENDISK_SERVE_RUN_H

#include <sys/types.h>

/*
 * Starts "sh -c COMMAND" with $uri and, unless path is NULL, $socket set, as
 * nbdkit's --run does, and with no signal blocked.  Any thread may call it while
 * others run.  0 or -errno; the process is the caller's to wait for.
 */
int run_command(const char *command, const char *uri, const char *path,
		pid_t *ret_pid);

#endif
