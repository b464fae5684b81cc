/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spawn.h - starting a worker's process.
 *
 * It is this program again, or xendiskd-worker, which is smaller, as `xendiskd
 * --worker DOMID/DEVID`: the command line says no more, for that is what ps
 * shows.  The rest of what it must know is in its environment; worker/start.c
 * takes it from there:
 *
 *     XENDISK_WORKER_SOCKET          the descriptor of its end of the socket
 *     XENDISK_WORKER_LISTENER        ... of one where the next broker calls
 *     XENDISK_WORKER_BACKEND_DOMID   this domain
 *     XENDISK_WORKER_VM              the guest's UUID, or empty
 *     XENDISK_WORKER_UID             the user to become; 0: stay
 *     XENDISK_WORKER_BACKEND_DIR
 *     XENDISK_WORKER_STATE_DIR
 *     XENDISK_WORKER_LOG_LEVEL
 */
#ifndef XENDISK_SPAWN_H
#define XENDISK_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

#include "common/msg.h"

#define SPAWN_SOCKET   3
#define SPAWN_LISTENER 4

struct spawn_spec {
	const struct msg_identity *id;
	const char *backend_dir;
	const char *state_dir;
	uint32_t uid;
	int sock; /* stays the caller's, and so does */
	int listener;
};

int spawn_worker(const struct spawn_spec *spec, pid_t *ret);

#endif
