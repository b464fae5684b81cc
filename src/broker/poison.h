/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * poison.h - storage whose flush has failed: remembered until an operator has
 * looked.
 *
 * A mark is a text file STATE_DIR/poison/HASH that names the storage (as
 * xd_identify() said), the time, the guest and the reason.  It survives detach,
 * restarts of the daemon and of the host.  All marks are in memory as well, so
 * looking one up does no I/O; writing goes through an errand, for the state
 * directory may lie on the very disk that is failing.  Broker thread only.
 */
#ifndef XENDISK_POISON_H
#define XENDISK_POISON_H

#include <stdint.h>

#include "broker/errand.h"

struct broker;
struct poison;

/* Makes the folder and reads the marks there.  Files that are no mark are
 * counted in *ret_bad and otherwise left alone. */
int poison_new(struct poison **ret, const char *state_dir,
	       unsigned int *ret_bad);
void poison_free(struct poison *poison);

/* "2026-11-23 12:00:00 UTC, guest 5/51728: fdatasync: I/O error", or NULL. */
const char *poison_find(const struct poison *poison, const char *identity);

typedef void (*poison_done_fn)(void *ctx, int err);

/*
 * Marks; done() is called when the mark is on stable storage.  guest and
 * reason are for people.  -EINVAL: identity is empty or is not one line.
 * In memory the mark holds at once, whatever becomes of the file.
 */
int poison_mark(struct broker *broker, const char *identity, const char *guest,
		const char *reason, poison_done_fn done, void *ctx);

/* Forgets.  -ENOENT: there is no mark. */
int poison_clear(struct broker *broker, const char *identity,
		 poison_done_fn done, void *ctx);

#endif
