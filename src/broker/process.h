/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * process.h - the processes of all workers: numbered, counted, ended.
 *
 * With root's rights each process has a user id of its own as long as it lives,
 * so that workers cannot trace or signal each other.  Broker thread only.
 */
#ifndef XENDISK_PROCESS_H
#define XENDISK_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/msg.h"

struct broker;
struct process;
struct supervisor;

struct process_spec {
	const struct msg_identity *id;
	int sock; /* becomes the process's end */
	int our_sock; /* borrowed: MSG_CLOSE goes there when the daemon ends */
	/* From the event loop, once, unless process_forget() comes first.
	 * status as waitpid() gives it. */
	void (*exited)(void *ctx, int status);
	void *ctx;
};

/* -EUSERS: as many as can be are running. */
int process_start(struct process **ret, struct supervisor *supervisor,
		  const struct process_spec *spec);
/* It may go on living, until it is reaped; our_sock is not used any more. */
void process_forget(struct process *process);
void process_kill(struct process *process);

pid_t process_pid(const struct process *process);
uint32_t process_uid(const struct process *process); /* 0: ours */

/* The daemon is ending, see supervisor_stop(). */
bool supervisor_is_stopping(const struct supervisor *supervisor);

#endif
