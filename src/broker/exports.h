/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * exports.h - disks that the operator has exported by name: `xendisk export`.
 *
 * An export is of a guest's disk, and ends with it, or of an expression that is
 * opened for it alone.  RUNDIR/exports/NAME says what it is, so that the next
 * daemon goes on with it.  Broker thread only.
 */
#ifndef XENDISK_EXPORTS_H
#define XENDISK_EXPORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/vbd.h"

/* The domain id of what is exported without a guest: no guest has it
 * (DOMID_INVALID, xen.h).  The devid counts the exports. */
#define EXPORTS_DOMID 0x7ff4u

struct broker;
struct exports;

/* What is to be exported: a disk or an expression. */
struct exports_spec {
	const char *name; /* NULL: one is chosen */
	const char *expression; /* NULL: the disk */
	uint32_t domid, devid; /* of the disk */
	const char *tcp; /* "ADDR:PORT", in numbers; or NULL */
	/* TLS on it: a folder of certificates, or a file of keys; or both
	 * NULL. */
	const char *tls_certs, *tls_psk;
	bool readonly;
	bool force; /* writable beside the guest */
};

/* What an export is, for its views; texts are borrowed. */
struct exports_view {
	const char *name;
	const char *expression;
	bool of_disk;
	uint32_t domid, devid; /* ... that one */
	const char *state; /* opening, open or failed */
	const char *path; /* of its socket */
	const char *tcp; /* or NULL */
	bool tls; /* ... with TLS */
	uint64_t size; /* 0: not known yet */
	bool readonly; /* in any case */
	bool force;
};

/* Goes on with what the daemon before has left.  Before xenstore is looked at. */
int exports_new(struct exports **ret, struct broker *broker);
void exports_free(struct exports *exports);

/* done is called once, now or later, with the export's name when err is 0 and a
 * sentence else. */
void exports_add(struct exports *exports, const struct exports_spec *spec,
		 vbd_done_fn done, void *ctx);
/* Also one that could not be taken up.  -ENOENT: there is none of that name. */
int exports_remove(struct exports *exports, const char *name);
/* A guest's disk has gone, and its exports with it. */
void exports_forget(struct exports *exports, uint32_t domid, uint32_t devid);

/* Xenstore is known: the same for those that went while no daemon ran. */
void exports_sweep(struct exports *exports,
		   bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		   void *ctx);

/* In the order in which they were made; return false to stop. */
void exports_each(struct exports *exports,
		  bool (*fn)(void *ctx, const struct exports_view *view),
		  void *ctx);

/* Asks the backends of an export by that name: see vbd_control().  -ENOENT: there
 * is none, and done is not called. */
int exports_control(struct exports *exports, const char *name, const char *verb,
		    const char *text, vbd_done_fn done, void *ctx);

/* Is that number one of an expression that is exported? */
bool exports_has(const struct exports *exports, uint32_t domid, uint32_t devid);

#endif
