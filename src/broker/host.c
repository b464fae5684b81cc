/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/host.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <utlist.h>

#include "broker/broker.h"
#include "broker/connector.h"
#include "broker/keep.h"
#include "broker/opener.h"
#include "broker/poison.h"
#include "common/util.h"

/* A file that the expression names. */
struct grant {
	uint32_t layer;
	char *param;
	char *path;
	bool read_only;
	bool temporary; /* to be emptied at detach */
	bool in_use; /* a guest may have written to it */
	int fd; /* O_PATH; -1: see err */
	int err;
};

/* A server that the expression names, or credentials. */
struct peer {
	uint32_t layer;
	char *param;
	bool is_server;
	char *uri; /* or the name of the credentials */
};

/* A connection being made: the child ends with the process that asked. */
struct calling {
	struct calling *prev;
	struct calling *next;
	struct host *host;
	struct errand *errand;
};

/* More at a time is an attack: a lane makes one, and tries again later. */
#define MAX_CALLINGS 16

/* A poison mark being written or cleared; outlives the process that asked. */
struct marking {
	struct marking *prev;
	struct marking *next;
	struct host *host; /* NULL: nobody wants to know any more */
	bool clears; /* asked for by the operator, not by the process */
};

/* Kept as long as the disk is attached, once a guest may have written to what
 * is temporary. */
#define USED "used"

struct host {
	struct broker *broker;
	struct msg_identity id;
	uid_t uid;
	host_answer_fn answer;
	void *ctx;

	struct grant *grants;
	size_t nr_grants;
	struct errand *resolving; /* the grants are not there yet */
	struct errand *opening;
	struct peer *peers;
	size_t nr_peers;
	struct calling *callings;
	unsigned int nr_callings;

	bool busy; /* request below is not answered yet */
	struct msg_service request;

	uint64_t charge; /* bytes of the memory limit */
	bool is_open; /* what is opened for writing now is for a guest */
	uint32_t nr_identities;
	char identity[MSG_MAX_IDENTITIES][MSG_IDENTITY_MAX];

	struct marking *markings;
	unsigned int nr_clearing;
	int clear_err;
	void (*cleared)(void *ctx, int err);
};

/* --- Answers -------------------------------------------------------------- */

static void answer_seq(struct host *host, uint32_t seq, int result, bool kept,
		       int fd, const char *text)
{
	struct msg_service_done done = { .h.seq = seq,
					 .h.result = result,
					 .kept = kept };

	snprintf(done.text, sizeof(done.text), "%s", text);
	host->answer(host->ctx, &done, fd);
}

static void send_answer(struct host *host, int result, bool kept, int fd,
			const char *text)
{
	host->busy = false;
	answer_seq(host, host->request.h.seq, result, kept, fd, text);
}

static void answer_error(struct host *host, int err, const char *fmt, ...)
	PRINTF(3, 4);

static void answer_error(struct host *host, int err, const char *fmt, ...)
{
	char text[MSG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	send_answer(host, err, false, -1, text);
}

/* --- OPEN ----------------------------------------------------------------- */

static struct grant *find_grant(struct host *host, uint32_t layer,
				const char *param)
{
	for (size_t i = 0; i < host->nr_grants; i++) {
		struct grant *grant = &host->grants[i];

		if (grant->layer == layer && strcmp(grant->param, param) == 0)
			return grant;
	}
	return NULL;
}

static const char *explain_open(int err)
{
	switch (err) {
	case -EXDEV:
		return "not below one of image-roots";
	case -ENOTBLK:
		return "neither a file nor a block device";
	case -ETIMEDOUT:
		return "no answer from its file system";
	default:
		return strerror(-err);
	}
}

static void reopened(void *ctx, struct errand_result *results)
{
	struct host *host = ctx;
	const struct grant *grant =
		find_grant(host, host->request.layer, host->request.name);

	host->opening = NULL;
	if (results[0].err)
		answer_error(host, results[0].err, "%s: %s", grant->path,
			     explain_open(results[0].err));
	else
		send_answer(host, 0, false, results[0].fd, "");
}

/* ... and what a guest wrote must not be there after a detach, whoever the
 * broker is by then.  Without the file only this one knows. */
static void note_use(struct host *host, struct grant *grant)
{
	bool kept;
	int fd;

	if (grant->temporary && !grant->in_use) {
		fd = keep_file(host->broker->keep, &host->id, MSG_LAYER_NONE,
			       USED, XD_KEEP_STATE, 1, 0, &kept);
		if (fd >= 0)
			(void)close(fd);
	}
	grant->in_use = true;
}

static void serve_open(struct host *host)
{
	const struct msg_service *request = &host->request;
	struct grant *grant;
	int r;

	if (host->resolving)
		return; /* resolved() comes back here */
	grant = find_grant(host, request->layer, request->name);
	if (!grant) {
		answer_error(host, -EPERM, "%s is no path of layer %" PRIu32,
			     request->name, request->layer);
		return;
	}
	r = grant->err;
	if (r == 0)
		r = opener_check_flags((int)request->flags, grant->read_only);
	if (r == 0)
		r = opener_reopen(&host->opening, host->broker, grant->fd,
				  (int)request->flags, reopened, host);
	if (r == 0 && host->is_open && (request->flags & O_ACCMODE) == O_RDWR)
		note_use(host, grant);
	if (r < 0)
		answer_error(host, r, "%s: %s", grant->path, explain_open(r));
}

/* --- CONNECT -------------------------------------------------------------- */

static void end_calling(struct calling *calling)
{
	DL_DELETE(calling->host->callings, calling);
	calling->host->nr_callings--;
	free(calling);
}

/* The asker has heard by itself. */
static void called(void *ctx, struct errand_result *results)
{
	(void)results;
	end_calling(ctx);
}

static int start_calling(struct host *host, const char *uri, int *ret_pending)
{
	struct calling *calling;
	int r;

	if (host->nr_callings >= MAX_CALLINGS)
		return -EAGAIN;
	calling = calloc(1, sizeof(*calling));
	if (!calling)
		return -ENOMEM;
	calling->host = host;
	r = connector_start(&calling->errand, host->broker, uri, ret_pending,
			    called, calling);
	if (r < 0) {
		free(calling);
		return r;
	}
	DL_APPEND(host->callings, calling);
	host->nr_callings++;
	return 0;
}

/* What is granted by this name, or NULL, and that is answered. */
static const struct peer *find_peer(struct host *host)
{
	const struct msg_service *request = &host->request;

	for (size_t i = 0; i < host->nr_peers; i++) {
		const struct peer *peer = &host->peers[i];

		if (peer->layer == request->layer &&
		    strcmp(peer->param, request->name) == 0 &&
		    peer->is_server == (request->kind == MSG_SERVICE_CONNECT))
			return peer;
	}
	answer_error(host, -EPERM, "%s is not granted to layer %" PRIu32,
		     request->name, request->layer);
	return NULL;
}

static void serve_connect(struct host *host)
{
	const struct peer *peer = find_peer(host);
	cleanup_close int pending = -1;
	int r;

	if (!peer)
		return;
	r = start_calling(host, peer->uri, &pending);
	if (r < 0)
		answer_error(host, r, "%s: %s", peer->uri, strerror(-r));
	else
		send_answer(host, 0, false, pending, "");
}

static void serve_credential(struct host *host)
{
	const struct peer *peer = find_peer(host);
	char why[SETTINGS_TEXT_MAX];
	const char *value;
	int r;

	if (!peer)
		return;
	r = settings_credential(host->broker->settings, peer->uri,
				host->request.reason, &value, why);
	if (r == 0)
		send_answer(host, 0, false, -1, value);
	else
		answer_error(host, r, "%s", why);
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
		answer_error(host, fd, "kept state %s: %s", request->name,
			     strerror(-fd));
		return;
	}
	send_answer(host, 0, kept, fd, "");
	(void)close(fd);
}

static void serve_budget(struct host *host)
{
	int r = keep_charge(host->broker->keep, &host->charge,
			    host->request.amount);

	if (r == -ENOSPC)
		answer_error(host, r, "mem-limit is reached");
	else if (r < 0)
		answer_error(host, r, "returns memory that it does not have");
	else
		send_answer(host, 0, false, -1, "");
}

/* --- POISON --------------------------------------------------------------- */

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
		answer_error(host, err, "poison mark: %s", strerror(-err));
	else
		send_answer(host, 0, false, -1, "");
}

static bool names_own_storage(const struct host *host, const char *identity)
{
	for (uint32_t i = 0; i < host->nr_identities; i++)
		if (strcmp(host->identity[i], identity) == 0)
			return true;
	return false;
}

static void serve_poison(struct host *host)
{
	const struct msg_service *request = &host->request;
	struct marking *marking;
	char guest[96];
	int r = -ENOMEM;

	if (!names_own_storage(host, request->name)) {
		answer_error(host, -EPERM, "not storage of this disk");
		return;
	}
	snprintf(guest, sizeof(guest), "%" PRIu32 "/%" PRIu32 "%s%s",
		 host->id.domid, host->id.devid, host->id.vm[0] ? " " : "",
		 host->id.vm);
	marking = new_marking(host);
	if (marking)
		r = poison_mark(host->broker, request->name, guest,
				request->reason, marked, marking);
	if (r < 0) {
		if (marking)
			(void)end_marking(marking);
		answer_error(host, r, "poison mark: %s", strerror(-r));
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
		[MSG_SERVICE_OPEN] = serve_open,
		[MSG_SERVICE_KEEP] = serve_keep,
		[MSG_SERVICE_BUDGET] = serve_budget,
		[MSG_SERVICE_POISON] = serve_poison,
		[MSG_SERVICE_CONNECT] = serve_connect,
		[MSG_SERVICE_CREDENTIAL] = serve_credential,
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

/* --- The life of a process ------------------------------------------------ */

static void drop_grants(struct host *host)
{
	for (size_t i = 0; i < host->nr_grants; i++) {
		if (host->grants[i].fd >= 0)
			(void)close(host->grants[i].fd);
		free(host->grants[i].param);
		free(host->grants[i].path);
	}
	free(host->grants);
	host->grants = NULL;
	host->nr_grants = 0;
	for (size_t i = 0; i < host->nr_peers; i++) {
		free(host->peers[i].param);
		free(host->peers[i].uri);
	}
	free(host->peers);
	host->peers = NULL;
	host->nr_peers = 0;
}

static int add_peer(struct host *host, const struct layer *layer, size_t i)
{
	size_t n = host->nr_peers;
	struct peer *peers = realloc(host->peers, (n + 1) * sizeof(*peers));

	if (!peers)
		return -ENOMEM;
	host->peers = peers;
	peers[n] = (struct peer){
		.layer = layer->index,
		.param = strdup(layer->info->params[i].name),
		.is_server = layer->info->params[i].type == XD_SERVER,
		.uri = strdup(layer->values[i].text),
	};
	host->nr_peers++;
	return peers[n].param && peers[n].uri ? 0 : -ENOMEM;
}

static int add_grant(struct host *host, const struct layer *layer, size_t i)
{
	size_t n = host->nr_grants;
	struct grant *grants = realloc(host->grants, (n + 1) * sizeof(*grants));

	if (!grants)
		return -ENOMEM;
	host->grants = grants;
	grants[n] = (struct grant){
		.layer = layer->index,
		.param = strdup(layer->info->params[i].name),
		.path = strdup(layer->values[i].text),
		.read_only = layer->read_only,
		.temporary = layer->temporary,
		.fd = -1,
		.err = -EIO,
	};
	host->nr_grants++;
	return grants[n].param && grants[n].path ? 0 : -ENOMEM;
}

static int collect_grants(struct host *host, const struct layer *layer)
{
	for (size_t i = 0; i < layer->info->nr_params; i++) {
		int r = 0;

		if (layer->info->params[i].type == XD_PATH &&
		    layer->values[i].set)
			r = add_grant(host, layer, i);
		if ((layer->info->params[i].type == XD_SERVER ||
		     layer->info->params[i].type == XD_CREDENTIALS) &&
		    layer->values[i].set)
			r = add_peer(host, layer, i);
		if (r < 0)
			return r;
	}
	for (unsigned int i = 0; i < layer->nr_below; i++) {
		int r = collect_grants(host, layer->below[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static void resolved(void *ctx, struct errand_result *results)
{
	struct host *host = ctx;

	host->resolving = NULL;
	for (size_t i = 0; i < host->nr_grants; i++) {
		host->grants[i].err = results[i].err;
		host->grants[i].fd = TAKE_FD(results[i].fd);
	}
	if (host->busy && host->request.kind == MSG_SERVICE_OPEN)
		serve_open(host);
}

static int start_resolving(struct host *host)
{
	cleanup_free const char **paths =
		calloc(host->nr_grants, sizeof(*paths));

	if (!paths)
		return -ENOMEM;
	for (size_t i = 0; i < host->nr_grants; i++)
		paths[i] = host->grants[i].path;
	return opener_resolve(&host->resolving, host->broker, paths,
			      host->nr_grants, resolved, host);
}

static void recount(struct host *host)
{
	struct keep *keep = host->broker->keep;

	keep_recharge(keep, &host->charge,
		      keep_pages(keep, host->id.domid, host->id.devid));
}

/* A guest of an earlier broker's has written, and may not come back before the
 * disk is detached. */
static void remember_use(struct host *host)
{
	int fd = keep_read(host->broker->keep, host->id.domid, host->id.devid,
			   USED);

	if (fd < 0)
		return;
	(void)close(fd);
	for (size_t i = 0; i < host->nr_grants; i++)
		if (!host->grants[i].read_only)
			host->grants[i].in_use = true;
}

/* Has every path been looked up, and found? */
static bool has_grants(const struct host *host)
{
	for (size_t i = 0; i < host->nr_grants; i++)
		if (host->grants[i].fd < 0)
			return false;
	return host->nr_grants > 0;
}

/* A path means the file that it named at first: a process that takes the place
 * of a dead one gets the very same. */
static int prepare_grants(struct host *host, const struct layer *root)
{
	int r;

	if (has_grants(host))
		return 0;
	drop_grants(host);
	r = collect_grants(host, root);
	if (r == 0 && host->nr_grants)
		r = start_resolving(host);
	return r;
}

int host_begin(struct host *host, const struct layer *root,
	       const char *expression, uid_t uid)
{
	bool kept;
	int r;

	host_end(host);
	host->uid = uid;
	host->nr_identities = 0;
	r = keep_claim(host->broker->keep, &host->id, expression, &kept);
	if (r == 0)
		r = prepare_grants(host, root);
	if (r < 0)
		return r;
	remember_use(host);
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
	for (size_t i = 0; i < host->nr_grants; i++)
		host->grants[i].in_use = used && !host->grants[i].read_only;
	/* What its pages take is counted already; it cannot claim more than
	 * it could ask for. */
	if (budget > host->charge && budget <= INT64_MAX)
		(void)keep_charge(host->broker->keep, &host->charge,
				  (int64_t)(budget - host->charge));
}

static void let_go_of_markings(struct host *host, bool all)
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

void host_end(struct host *host)
{
	errand_cancel(host->resolving);
	errand_cancel(host->opening);
	host->resolving = NULL;
	host->opening = NULL;
	while (host->callings) {
		errand_cancel(host->callings->errand);
		end_calling(host->callings);
	}
	host->busy = false;
	let_go_of_markings(host, false);
	/* It may have taken more memory than it used. */
	if (host->charge)
		recount(host);
}

void host_discard_kept(struct host *host)
{
	for (size_t i = 0; i < host->nr_grants; i++)
		if (host->grants[i].temporary && host->grants[i].in_use)
			opener_empty(host->broker, host->grants[i].fd);
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
	let_go_of_markings(host, true);
	drop_grants(host);
	keep_recharge(host->broker->keep, &host->charge, 0);
	free(host);
}
