/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * done() may call inquiries_add() again: so the list is in order before any done()
 * is called, and every loop looks at it anew.
 */
#include "config.h"

#include "broker/inquiry.h"

#include <string.h>
#include <utlist.h>

#include "broker/supervise.h"
#include "common/util.h"

#define MAX_WAITING 16

struct inquiry {
	struct inquiry *prev, *next;
	char *verb, *text;
	inquiry_fn done;
	void *ctx;
};

static void inquiry_free(struct inquiry *inquiry)
{
	if (!inquiry)
		return;
	free(inquiry->verb);
	free(inquiry->text);
	free(inquiry);
}

static struct inquiry *inquiry_new(const char *verb, const char *text,
				   inquiry_fn done, void *ctx)
{
	struct inquiry *inquiry = calloc(1, sizeof(*inquiry));

	if (!inquiry)
		return NULL;
	inquiry->verb = strdup(verb);
	inquiry->text = strdup(text);
	inquiry->done = done;
	inquiry->ctx = ctx;
	if (inquiry->verb && inquiry->text)
		return inquiry;
	inquiry_free(inquiry);
	return NULL;
}

static struct inquiry *take_first(struct inquiries *inquiries)
{
	struct inquiry *first = inquiries->list;

	DL_DELETE(inquiries->list, first);
	inquiries->nr--;
	return first;
}

static void tell(struct inquiry *inquiry, int err, const char *text)
{
	inquiry->done(inquiry->ctx, err, text);
	inquiry_free(inquiry);
}

/* Asks the worker the first one: 0, or -errno. */
static int ask(struct inquiries *inquiries, struct worker *worker)
{
	int r = worker_control(worker, inquiries->list->verb,
			       inquiries->list->text);

	inquiries->busy = r == 0;
	return r;
}

int inquiries_add(struct inquiries *inquiries, struct worker *worker,
		  const char *verb, const char *text, inquiry_fn done,
		  void *ctx)
{
	struct inquiry *inquiry;
	int r = 0;

	if (inquiries->nr >= MAX_WAITING)
		return -EBUSY;
	inquiry = inquiry_new(verb, text, done, ctx);
	if (!inquiry)
		return -ENOMEM;
	DL_APPEND(inquiries->list, inquiry);
	inquiries->nr++;
	if (!inquiries->busy && inquiries->nr == 1)
		r = ask(inquiries, worker);
	if (r < 0) {
		DL_DELETE(inquiries->list, inquiry);
		inquiries->nr--;
		inquiry_free(inquiry);
	}
	return r;
}

void inquiries_answered(struct inquiries *inquiries, struct worker *worker,
			int err, const char *text)
{
	struct inquiry *first;

	if (!inquiries->list)
		return;
	inquiries->busy = false;
	first = take_first(inquiries);
	/* The worker is not idle while somebody is told. */
	while (inquiries->list && !inquiries->busy) {
		int r = ask(inquiries, worker);

		if (r < 0)
			tell(take_first(inquiries), r, strerror(-r));
	}
	tell(first, err, text);
}

void inquiries_fail(struct inquiries *inquiries, int err, const char *why)
{
	struct inquiry *list = inquiries->list, *inquiry, *next;

	*inquiries = (struct inquiries){ .list = NULL };
	DL_FOREACH_SAFE(list, inquiry, next)
		tell(inquiry, err, why);
}
