/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/host.h"

#include <stdarg.h>

#include "broker/host-private.h"
#include "broker/keep.h"

/* --- Answers -------------------------------------------------------------- */

static void answer_seq(struct host *host, uint32_t seq, int result, bool kept,
		       int fd, const char *text)
{
	struct msg_service_done done = { .h.seq = seq,
					 .h.result = result,
					 .kept = kept };

	(void)snprintf(done.text, sizeof(done.text), "%s", text);
	host->answer(host->ctx, &done, fd);
}

void host_send_answer(struct host *host, int result, bool kept, int fd,
		      const char *text)
{
	host->busy = false;
	answer_seq(host, host->request.h.seq, result, kept, fd, text);
}

void host_answer_error(struct host *host, int err, const char *fmt, ...)
{
	char text[MSG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	host_send_answer(host, err, false, -1, text);
}

/* --- KEEP and BUDGET ------------------------------------------------------ */

static void serve_keep(struct host *host)
{
	const struct msg_service *request = &host->request;
	bool kept = false;
	int fd = keep_file(host->broker->keep, &host->id, request->layer,
			   request->name, (enum xd_keep_kind)request->keep,
			   request->size, host->uid, &kept);

	if (fd < 0) {
		host_answer_error(host, fd, "kept state %s: %s", request->name,
				  strerror(-fd));
		return;
	}
	host_send_answer(host, 0, kept, fd, "");
	(void)close(fd);
}

static void serve_budget(struct host *host)
{
	int r = keep_charge(host->broker->keep, &host->charge,
			    host->request.amount);

	if (r == -ENOSPC)
		host_answer_error(host, r, "mem-limit is reached");
	else if (r < 0)
		host_answer_error(host, r,
				  "returns memory that it does not have");
	else
		host_send_answer(host, 0, false, -1, "");
}

/* --- Requests ------------------------------------------------------------- */

/* The worker has lost patience with its last question.  The same one again is
 * answered by what is under way; so however often it asks, one child runs. */
static void take_while_busy(struct host *host,
			    const struct msg_service *request)
{
	const struct msg_service *first = &host->request;

	if (request->kind == first->kind && request->layer == first->layer &&
	    request->flags == first->flags &&
	    strcmp(request->name, first->name) == 0)
		host->request.h.seq = request->h.seq;
	else
		answer_seq(host, request->h.seq, -EBUSY, false, -1,
			   "an earlier request is not over");
}

int host_request(struct host *host, const struct msg_service *request)
{
	static void (*const serve[])(struct host * host) = {
		[MSG_SERVICE_OPEN] = host_serve_open,
		[MSG_SERVICE_KEEP] = serve_keep,
		[MSG_SERVICE_BUDGET] = serve_budget,
		[MSG_SERVICE_POISON] = host_serve_poison,
		[MSG_SERVICE_CONNECT] = host_serve_connect,
		[MSG_SERVICE_CREDENTIAL] = host_serve_credential,
		[MSG_SERVICE_SPAWN] = host_serve_spawn,
	};

	if (request->kind >= ARRAY_SIZE(serve))
		return -EPROTO;
	if (host->busy) {
		take_while_busy(host, request);
		return 0;
	}
	host->request = *request;
	host->busy = true;
	serve[request->kind](host);
	return 0;
}

static void recount(struct host *host)
{
	struct keep *keep = host->broker->keep;

	keep_recharge(keep, &host->charge,
		      keep_pages(keep, host->id.domid, host->id.devid));
}

int host_begin(struct host *host, const struct layer *root,
	       const char *expression, uid_t uid)
{
	bool kept;
	int r;

	host_end(host);
	host->uid = uid;
	r = keep_claim(host->broker->keep, &host->id, expression, &kept);
	if (r == 0)
		r = host_files_prepare(host, root);
	if (r == 0)
		r = host_peers_prepare(host, root);
	if (r == 0)
		r = host_children_prepare(host, root, expression);
	if (r < 0)
		return r;
	host_files_remember_use(host);
	recount(host);
	return 0;
}

void host_identities(struct host *host, const struct msg_opened *opened)
{
	host->is_open = true;
	host->nr_identities = opened->nr_identities;
	memcpy(host->identity, opened->identity, sizeof(host->identity));
}

void host_adopt(struct host *host, const struct msg_opened *opened,
		uint64_t budget, bool used)
{
	host_identities(host, opened);
	host_files_adopt(host, used);
	/* What its pages take is counted already; it cannot claim more than
	 * it could ask for. */
	if (budget > host->charge && budget <= INT64_MAX)
		(void)keep_charge(host->broker->keep, &host->charge,
				  (int64_t)(budget - host->charge));
}

void host_end(struct host *host)
{
	host_files_end(host);
	host_peers_end(host);
	host->busy = false;
	host_poison_let_go(host, false);
	/* It may have taken more memory than it used. */
	if (host->charge)
		recount(host);
}

void host_discard_kept(struct host *host)
{
	host_files_discard(host);
	host_children_drop(host, true);
	keep_discard(host->broker->keep, host->id.domid, host->id.devid);
	keep_recharge(host->broker->keep, &host->charge, 0);
}

int host_new(struct host **ret, struct broker *broker,
	     const struct msg_identity *id, host_answer_fn answer, void *ctx)
{
	struct host *host = calloc(1, sizeof(*host));

	if (!host)
		return -ENOMEM;
	host->broker = broker;
	host->id = *id;
	host->answer = answer;
	host->ctx = ctx;
	*ret = host;
	return 0;
}

void host_free(struct host *host)
{
	if (!host)
		return;
	host_end(host);
	host_poison_let_go(host, true);
	host_files_drop(host);
	host_peers_drop(host);
	host_children_drop(host, false);
	keep_recharge(host->broker->keep, &host->charge, 0);
	free(host);
}
