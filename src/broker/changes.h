/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * changes.h - what the layers of an open disk show just now: xd_changed().
 *
 * At most one line and one commit for each layer, checked by supervise-ask.c.
 * Broker thread only.
 */
#ifndef XENDISK_CHANGES_H
#define XENDISK_CHANGES_H

#include <stdint.h>

struct change;

/* All 0: nothing is known. */
struct changes {
	struct change *list; /* by layer */
};

/* In place of what that layer showed before; without memory that stays. */
void changes_set(struct changes *changes, uint32_t layer, const char *commit,
		 const char *text);
void changes_clear(struct changes *changes);

/* The commit of the layer nearest to the guest; or "". */
const char *changes_commit(const struct changes *changes);
/* Notes as in OPENED, and behind them the lines of here; to be freed, NULL: no
 * memory. */
char *changes_notes(const struct changes *changes, const char *notes);

#endif
