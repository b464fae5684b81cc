/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <inttypes.h>
#include <utlist.h>

#include "broker/host-private.h"
#include "broker/poison.h"

/* A poison mark being written or cleared; outlives the process that asked. */
struct marking {
	struct marking *prev;
	struct marking *next;
	struct host *host; /* NULL: nobody wants to know any more */
	bool clears; /* asked for by the operator, not by the process */
};

static struct marking *new_marking(struct host *host)
{
	struct marking *marking = calloc(1, sizeof(*marking));

	if (!marking)
		return NULL;
	marking->host = host;
	DL_APPEND(host->markings, marking);
	return marking;
}

/* Returns the host that still wants to know, or NULL. */
static struct host *end_marking(struct marking *marking)
{
	struct host *host = marking->host;

	if (host)
		DL_DELETE(host->markings, marking);
	free(marking);
	return host;
}

static void marked(void *ctx, int err)
{
	struct host *host = end_marking(ctx);

	if (!host)
		return;
	if (err)
		host_answer_error(host, err, "poison mark: %s", strerror(-err));
	else
		host_send_answer(host, 0, false, -1, "");
}

static bool names_own_storage(const struct host *host, const char *identity)
{
	for (uint32_t i = 0; i < host->nr_identities; i++)
		if (strcmp(host->identity[i], identity) == 0)
			return true;
	return false;
}

void host_serve_poison(struct host *host)
{
	const struct msg_service *request = &host->request;
	struct marking *marking;
	char guest[96];
	int r = -ENOMEM;

	if (!names_own_storage(host, request->name)) {
		host_answer_error(host, -EPERM, "not storage of this disk");
		return;
	}
	(void)snprintf(guest, sizeof(guest), "%" PRIu32 "/%" PRIu32 "%s%s",
		       host->id.domid, host->id.devid,
		       host->id.vm[0] ? " " : "", host->id.vm);
	marking = new_marking(host);
	if (marking)
		r = poison_mark(host->broker, request->name, guest,
				request->reason, marked, marking);
	if (r < 0) {
		if (marking)
			(void)end_marking(marking);
		host_answer_error(host, r, "poison mark: %s", strerror(-r));
	}
}

const char *host_poisoned(const struct host *host)
{
	for (uint32_t i = 0; i < host->nr_identities; i++) {
		const char *mark =
			poison_find(host->broker->poison, host->identity[i]);

		if (mark)
			return mark;
	}
	return NULL;
}

static void one_cleared(void *ctx, int err)
{
	struct host *host = end_marking(ctx);

	if (!host)
		return;
	if (err && !host->clear_err)
		host->clear_err = err;
	if (--host->nr_clearing == 0)
		host->cleared(host->ctx, host->clear_err);
}

bool host_knows_storage(const struct host *host)
{
	return host->nr_identities > 0;
}

unsigned int host_clear_poison(struct host *host,
			       void (*done)(void *ctx, int err))
{
	host->cleared = done;
	host->clear_err = 0;
	host->nr_clearing = 0;
	for (uint32_t i = 0; i < host->nr_identities; i++) {
		const char *identity = host->identity[i];
		struct marking *marking;
		int r = -ENOMEM;

		if (!poison_find(host->broker->poison, identity))
			continue;
		marking = new_marking(host);
		if (marking)
			r = poison_clear(host->broker, identity, one_cleared,
					 marking);
		if (r == 0) {
			marking->clears = true;
			host->nr_clearing++;
			continue;
		}
		host->clear_err = r;
		if (marking)
			(void)end_marking(marking);
	}
	return host->nr_clearing;
}

void host_poison_let_go(struct host *host, bool all)
{
	struct marking *marking;
	struct marking *next;

	DL_FOREACH_SAFE(host->markings, marking, next) {
		if (marking->clears && !all)
			continue;
		DL_DELETE(host->markings, marking);
		marking->host = NULL;
	}
}
