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

#include "broker/orphans.h"

struct broker;
struct process;
struct supervisor;

/* The status of a process that another broker has started is not known. */
#define PROCESS_STATUS_UNKNOWN (-1)

struct process_spec {
	struct orphan_note *note; /* its disk; process.c adds what it knows */
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

/* For the next broker.  To be written again when something of it changes. */
int process_note(const struct process *process, struct orphan_note *note);
/* A process for spec->note->id.domid and devid that a broker which died has
 * left; NULL: there is none.  spec's sockets are not used. */
struct process *process_claim(struct supervisor *supervisor,
			      const struct process_spec *spec);
/* Calls it: returns the socket, which is the caller's and becomes our_sock, and
 * what that broker knew; or -errno. */
int process_call(struct process *process, struct orphan_note *ret_note);

pid_t process_pid(const struct process *process);
uint32_t process_uid(const struct process *process); /* 0: ours */

/* The daemon is ending, see supervisor_stop(). */
bool supervisor_is_stopping(const struct supervisor *supervisor);

#endif
