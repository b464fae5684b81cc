/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * orphans.h - workers that outlive their broker, and how the next one finds
 * them.
 *
 *     RUNDIR/workers/PID         who it is: a line with the time at which the
 *                                process started, since process ids are used
 *                                again, and struct orphan_note
 *     RUNDIR/workers/sock-SLOT   where it waits for the next broker.  SLOT is
 *                                that of its user id
 *
 * The folder is ours alone, so what a note says is what a broker knew: a worker
 * that has seen a guest cannot change it.  It is replaced as a whole.  The line
 * is understood by every version, what follows only by the same one.
 */
#ifndef XENDISK_ORPHANS_H
#define XENDISK_ORPHANS_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/msg.h"

struct orphan_note {
	uint32_t version; /* MSG_VERSION; this and the next are set here */
	uint32_t size; /* of this struct */
	uint32_t slot; /* of the user ids */
	uint32_t starts; /* of processes for this disk, up to this one */
	struct msg_identity id;
	bool read_only;
	bool used; /* a guest may have written */
	bool open; /* what follows is known */
	char expression[MSG_EXPR_MAX + 1];
	struct msg_opened opened;
};

/* Makes the folder and calls fn() for each process that is noted there and
 * lives; removes the notes of the dead. */
int orphans_each(const char *run_dir, void (*fn)(void *ctx, pid_t pid),
		 void *ctx);

int orphans_note(const char *run_dir, pid_t pid, struct orphan_note *note);
/* -ESRCH: that process is dead.  -EPROTO: another version's. */
int orphans_read(const char *run_dir, pid_t pid, struct orphan_note *ret);
void orphans_forget(const char *run_dir, pid_t pid);

/* When a living process started, in clock ticks.  -ESRCH: it is dead. */
int orphans_start_time(pid_t pid, uint64_t *ret);

/* The socket that a worker is given to listen on, and the way to it.  Both
 * return a descriptor or -errno. */
int orphans_listen(const char *run_dir, unsigned int slot);
int orphans_call(const char *run_dir, unsigned int slot);

#endif
