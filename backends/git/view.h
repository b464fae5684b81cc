/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * view.h - what a disk consists of just now: layers, and a commit below them.
 *
 * A view never changes.  Whoever serves a request holds one from the front to the
 * end; a new one takes the place of the current one while others still use that.
 * What the new one does not have any more may be emptied only when nobody has the
 * old one: view->gone says so.
 */
#ifndef XENDISK_GIT_VIEW_H
#define XENDISK_GIT_VIEW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define VIEW_LAYERS 8u

struct base;
struct layer;

struct view {
	atomic_uint users;
	unsigned int nr;
	struct layer
		*layers[VIEW_LAYERS]; /* the newest first: it is written to */
	struct base *base; /* counted */
	/* By whoever was its last user, any thread, which must not wait; the
	 * view is freed by the callee, with view_free(). */
	void (*gone)(struct view *view);
	void *owner;
	struct view *next; /* belongs to the owner, once it is gone */
};

/* Where lanes look which view is the current one. */
struct view_slot {
	pthread_mutex_t lock;
	struct view *current;
	atomic_uint sequence; /* changes with every new one; begins at 1 */
};

/* With one user, the caller; takes one of base's users.  NULL: no memory. */
struct view *view_new(struct layer *const *layers, unsigned int nr,
		      struct base *base);
/* Nobody has it any more; gives back its base. */
void view_free(struct view *view);

static inline struct view *view_get(struct view *view)
{
	atomic_fetch_add_explicit(&view->users, 1, memory_order_relaxed);
	return view;
}
void view_put(struct view *view); /* NULL: nothing */

void view_slot_init(struct view_slot *slot);
void view_slot_destroy(struct view_slot *slot); /* gives back the current one */
/* Takes the view, NULL: there is none; the one before is given back. */
void view_slot_set(struct view_slot *slot, struct view *view);
/* The current one, used by the caller, or NULL; and which one it is. */
struct view *view_slot_get(struct view_slot *slot, unsigned int *ret_sequence);

#endif
