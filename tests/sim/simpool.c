/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "simpool.h"

#include <errno.h>
#include <stdlib.h>

struct simpool {
	struct xensim_guest *guest;
	uint32_t backend_domid;
	struct simpool_page *first, *last;
	struct simpool_page *made; /* all there are */
};

int simpool_new(struct xensim_guest *guest, uint32_t backend_domid,
		struct simpool **ret_pool)
{
	struct simpool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->guest = guest;
	pool->backend_domid = backend_domid;
	*ret_pool = pool;
	return 0;
}

static bool end_access(struct simpool *pool, struct simpool_page *page)
{
	if (page->granted)
		page->granted = xensim_grant_end(pool->guest, page->ref) ==
				-EBUSY;
	return !page->granted;
}

bool simpool_free(struct simpool *pool)
{
	struct simpool_page *page;
	bool ended = true;

	if (!pool)
		return true;
	while ((page = pool->made)) {
		pool->made = page->made_before;
		if (end_access(pool, page))
			xensim_free_pages(pool->guest, page->data, 1);
		else
			ended = false;
		free(page);
	}
	free(pool);
	return ended;
}

static int make_page(struct simpool *pool, struct simpool_page **ret_page)
{
	struct simpool_page *page = calloc(1, sizeof(*page));

	if (!page)
		return -ENOMEM;
	page->data = xensim_alloc_pages(pool->guest, 1);
	if (!page->data) {
		free(page);
		return -ENOMEM;
	}
	page->made_before = pool->made;
	pool->made = page;
	*ret_page = page;
	return 0;
}

int simpool_take(struct simpool *pool, struct simpool_page **ret_page)
{
	struct simpool_page *page = pool->first;
	int r = 0;

	if (page)
		pool->first = page->next;
	else
		r = make_page(pool, &page);
	if (r == 0 && !page->granted)
		r = xensim_grant(pool->guest, pool->backend_domid, page->data,
				 false, &page->ref);
	if (r < 0)
		return r;
	page->granted = true;
	*ret_page = page;
	return 0;
}

void simpool_put(struct simpool *pool, struct simpool_page *page)
{
	bool empty = !pool->first;

	if (!end_access(pool, page)) {
		page->next = pool->first;
		pool->first = page;
	} else if (!empty) {
		page->next = NULL;
		pool->last->next = page;
	} else {
		page->next = NULL;
		pool->first = page;
	}
	if (empty || !page->next)
		pool->last = page;
}
