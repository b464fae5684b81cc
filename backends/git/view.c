/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "view.h"

#include <assert.h>
#include <string.h>

#include "base.h"
#include "common/util.h"

struct view *view_new(struct layer *const *layers, unsigned int nr,
		      struct base *base)
{
	struct view *view = calloc(1, sizeof(*view));

	assert(nr <= VIEW_LAYERS);
	if (!view)
		return NULL;
	atomic_init(&view->users, 1);
	view->nr = nr;
	if (nr > 0)
		memcpy(view->layers, layers, nr * sizeof(*layers));
	view->base = base;
	return view;
}

void view_free(struct view *view)
{
	base_put(view->base);
	free(view);
}

void view_put(struct view *view)
{
	if (!view || atomic_fetch_sub_explicit(&view->users, 1,
					       memory_order_acq_rel) != 1)
		return;
	if (view->gone)
		view->gone(view);
	else
		view_free(view);
}

void view_slot_init(struct view_slot *slot)
{
	pthread_mutex_init(&slot->lock, NULL);
	slot->current = NULL;
	atomic_init(&slot->sequence, 0);
}

void view_slot_destroy(struct view_slot *slot)
{
	view_put(TAKE_PTR(slot->current));
	pthread_mutex_destroy(&slot->lock);
}

void view_slot_set(struct view_slot *slot, struct view *view)
{
	struct view *before;

	pthread_mutex_lock(&slot->lock);
	before = slot->current;
	slot->current = view;
	atomic_fetch_add(&slot->sequence, 1);
	pthread_mutex_unlock(&slot->lock);
	view_put(before);
}

struct view *view_slot_get(struct view_slot *slot, unsigned int *ret_sequence)
{
	struct view *view;

	pthread_mutex_lock(&slot->lock);
	view = slot->current ? view_get(slot->current) : NULL;
	*ret_sequence = atomic_load(&slot->sequence);
	pthread_mutex_unlock(&slot->lock);
	return view;
}
