/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export.h - where the NBD clients of a disk come in.
 *
 * The broker listens and accepts, and gives each client's socket to the disk's
 * worker, which does all the rest: nothing that a client says is read here.  So
 * the socket is there as long as the disk is, whatever becomes of its worker.
 * Broker thread only.
 */
#ifndef XENDISK_EXPORT_H
#define XENDISK_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

struct broker;
struct export;
struct target;

struct export_spec {
	const char *path; /* of a unix socket that only root may use */
	const char *tcp; /* "ADDR:PORT", in numbers; NULL: none */
	const char *name; /* that clients may ask for; or "" */
	uint32_t flags; /* MSG_CLIENT_READONLY, MSG_CLIENT_FORCE */
	/* What is served, or NULL: that is not there just now. */
	struct target *(*target)(void *ctx);
	void *ctx;
};

/* All texts are copied.  ret_why (MSG_TEXT_MAX bytes) says what is wrong. */
int export_new(struct export **ret, struct broker *broker,
	       const struct export_spec *spec, char *ret_why);
/* Clients that are there stay; no more are accepted. */
void export_free(struct export *export);

const char *export_path(const struct export *export);

/* RUNDIR/nbd/NAME.sock, to be freed; NULL: no memory. */
char *export_path_of(const char *run_dir, const char *name);

/* Removes the sockets of a broker that was killed: nobody listens there. */
void export_sweep(const char *run_dir);

#endif
