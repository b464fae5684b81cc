/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate-actions.h - what an isolated process tries, for test-isolate.c.
 */
#ifndef XENDISK_ISOLATE_ACTIONS_H
#define XENDISK_ISOLATE_ACTIONS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "worker/engine.h"
#include "worker/services.h"

/* What is open before isolate(). */
struct belongings {
	struct engine *uring, *threads;
	struct services *services;
	int file, sock, pipe[2];
	void *page;
	pthread_t early; /* a thread that is there before */
	pid_t parent;
	bool isolated;
};
extern struct belongings have;

/* killed: an attacker's call, which ends the process; else it is refused. */
struct action {
	const char *name;
	int (*act)(void); /* 0 or -errno */
	bool killed;
};

extern const struct action forbidden_actions[], needed_actions[];
extern const size_t nr_forbidden_actions, nr_needed_actions;

void *early_thread(void *arg);

/* 0 or -errno, from what a system call returned. */
int outcome(long r);

#endif
