/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * errand.h - what may block for ever, done by a forked child.
 *
 * An open on a dead NFS server or a FUSE mount, an fsync of the state
 * directory: a child does it and sends the results back, descriptors too; one
 * that does not come back in time is killed.  Broker thread only.
 */
#ifndef XENDISK_ERRAND_H
#define XENDISK_ERRAND_H

#include <stddef.h>
#include <stdint.h>

struct broker;
struct errand;

struct errand_result {
	/* 0 or -errno; -ETIMEDOUT: it did not come back in time; -EIO: the
	 * child died. */
	int err;
	int fd; /* or -1; taken with TAKE_FD(), else closed after done() */
};

/* The numbers that descriptors have in the child; all others are closed. */
#define ERRAND_SOCK 3
#define ERRAND_FD   4

struct errand_spec {
	/* In the child.  Async-signal-safe functions only: the parent has
	 * other threads.  Reports each result once, then returns. */
	void (*work)(const void *arg);
	const void *arg; /* as it is at the fork */
	int fd; /* becomes ERRAND_FD; -1: none */
	size_t nr_results;
	unsigned int timeout_s;
	/* From the event loop; the errand is over and freed after it. */
	void (*done)(void *ctx, struct errand_result *results);
	void *ctx;
};

int errand_start(struct errand **ret, struct broker *broker,
		 const struct errand_spec *spec);
/* Kills the child; done() is not called. */
void errand_cancel(struct errand *errand);

/* In the child.  fd: -1 for none. */
void errand_report(uint32_t index, int err, int fd);

#endif
