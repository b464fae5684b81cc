/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * worker.h - a worker process: one guest's disk.
 */
#ifndef XENDISK_WORKER_H
#define XENDISK_WORKER_H

#include <stdint.h>

/* Everything a worker is told at its start (start.c). */
struct worker_options {
	uint32_t domid;
	uint32_t devid;
	uint32_t backend_domid;
	uint32_t uid; /* to become; 0: stay */
	const char *vm; /* UUID text, or "" */
	const char *backend_dir;
	const char *state_dir;
	int sock; /* to the broker */
	int listener; /* where the next broker calls */
};

/* The life of `xendiskd --worker DOMID/DEVID`; returns the exit status. */
int worker_main(const struct worker_options *options);

#endif
