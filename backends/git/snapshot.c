/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot.c - layers are frozen, committed, and dropped.
 *
 * Theory of operation
 *
 *   active --freeze--> frozen --committed--> clean --drop--> dropped --> free
 *
 * A snapshot is acknowledged when its layer is frozen, durably; from then on it
 * is only a matter of time.  The oldest frozen layer is with the committer; when
 * its commit is there it becomes the base, and the layer, which nobody needs any
 * more, is kept for a while as a cache.  A layer is emptied when the last view
 * with it is gone: whoever gave it back left it in client->gone.
 *
 * After a failure the layer is sent again, later and later; writing goes on
 * meanwhile, and so do snapshots until there are too many.
 *
 * All of it with client->mutex, by the main thread or the client's.
 */
#include "config.h"

#include "client.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/crash.h"
#include "common/util.h"

#define DRAIN_MS      10000u
#define RETRY_NS      2000000000ull
#define RETRY_MOST_NS 300000000000ull
#define MAX_CLEAN     2u /* so that a slot is free for the next layer */
#define PACKS_SPARE   16u /* fewer: it is time for other ones */
#define NS_PER_MS     1000000ull

/* --- Views ---------------------------------------------------------------------- */

/* By any thread. */
static void view_gone(struct view *view)
{
	struct client *client = view->owner;

	pthread_mutex_lock(&client->ask_lock);
	view->next = client->gone;
	client->gone = view;
	pthread_mutex_unlock(&client->ask_lock);
	client_wake(client);
}

static bool view_has(const struct view *view, const struct layer *layer)
{
	for (unsigned int i = 0; i < view->nr; i++)
		if (view->layers[i] == layer)
			return true;
	return false;
}

static void forget_view(struct client *client, const struct view *view)
{
	for (unsigned int i = 0; i < client->nr_live; i++)
		if (client->live[i] == view) {
			client->live[i] = client->live[--client->nr_live];
			return;
		}
}

static bool is_used(const struct client *client, const struct layer *layer)
{
	for (unsigned int i = 0; i < client->nr_live; i++)
		if (view_has(client->live[i], layer))
			return true;
	return false;
}

static void empty_dropped(struct client *client)
{
	for (unsigned int i = 0; i < client->nr_dropped;) {
		struct overlay_layer *dropped = &client->dropped[i];
		char reason[WHY_MAX] = "";

		if (is_used(client, dropped->layer)) {
			i++;
			continue;
		}
		if (overlay_empty(client->overlay, dropped->generation,
				  reason) < 0)
			(void)snprintf(client->note, sizeof(client->note), "%s",
				       reason);
		CRASH_POINT(git_layer_emptied);
		*dropped = client->dropped[--client->nr_dropped];
	}
}

static void bury_views(struct client *client)
{
	struct view *view, *next;

	pthread_mutex_lock(&client->ask_lock);
	view = TAKE_PTR(client->gone);
	pthread_mutex_unlock(&client->ask_lock);
	for (; view; view = next) {
		next = view->next;
		forget_view(client, view);
		view_free(view);
	}
	if (client->active)
		empty_dropped(client);
}

int client_set_view(struct client *client)
{
	struct overlay_layer all[OVERLAY_SLOTS];
	struct layer *layers[VIEW_LAYERS];
	unsigned int n = 0;
	struct view *view;

	bury_views(client);
	if (client->overlay)
		n = overlay_layers(client->overlay, all);
	for (unsigned int i = 0; i < n; i++)
		layers[i] = all[i].layer;
	if (client->nr_live == CLIENT_VIEWS)
		return -EAGAIN;
	view = view_new(layers, n, base_get(client->base));
	if (!view) {
		base_put(client->base);
		return -ENOMEM;
	}
	view->gone = view_gone;
	view->owner = client;
	client->live[client->nr_live++] = view;
	view_slot_set(&client->git->views, view);
	return 0;
}

/* --- Freezing ---------------------------------------------------------------------- */

static int freeze(struct client *client, struct snapshot_info *info,
		  uint64_t *ret_gen, char *ret_why)
{
	int r;

	CRASH_POINT(git_gate_closed);
	r = overlay_freeze(client->overlay, info, ret_gen, ret_why);
	CRASH_POINT(git_frozen);
	if (r < 0)
		return r;
	client->frozen = *ret_gen;
	/* Nothing may be written to what is frozen: rather no worker than a wrong
	 * snapshot.  The next one finds all of it. */
	if (live_next(&client->git->live,
		      layer_generation(overlay_active(client->overlay))) < 0 ||
	    client_set_view(client) < 0)
		abort();
	return 0;
}

int client_freeze(struct client *client, struct snapshot_info *info,
		  uint64_t *ret_gen, char *ret_why)
{
	int r;

	info->time = (int64_t)time(NULL);
	/* Beforehand, what can be. */
	bury_views(client);
	if (client->nr_live >= CLIENT_VIEWS - 1)
		return why(ret_why, -EBUSY,
			   "reads of earlier snapshots have not ended yet");
	r = git_gate_close(client->git, DRAIN_MS);
	if (r < 0)
		return why(ret_why, r,
			   "what is being written has not ended within %u s",
			   DRAIN_MS / 1000);
	r = freeze(client, info, ret_gen, ret_why);
	git_gate_open(client->git);
	live_clean(&client->git->live);
	client_show(client);
	return r;
}

/* --- Committing ---------------------------------------------------------------------- */

unsigned int client_count_layers(const struct client *client,
				 enum layer_state state, uint64_t *ret_bytes)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n = overlay_layers(client->overlay, layers), found = 0;

	*ret_bytes = 0;
	for (unsigned int i = 0; i < n; i++) {
		if (layers[i].state != state)
			continue;
		found++;
		*ret_bytes += layer_sectors(layers[i].layer) * LAYER_SECTOR;
	}
	return found;
}

/* The oldest frozen one. */
static bool find_frozen(const struct client *client, struct overlay_layer *ret)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n = overlay_layers(client->overlay, layers);
	bool found = false;

	for (unsigned int i = 0; i < n; i++)
		if (layers[i].state == LAYER_FROZEN) {
			*ret = layers[i];
			found = true;
		}
	return found;
}

/* after: the generation below it.  False: not now. */
static bool send_layer(struct client *client, const struct overlay_layer *layer,
		       uint64_t after)
{
	const struct snapshot_info *info = &layer->info;
	struct cm_commit msg = {
		.h.seq = client_seq(client),
		.generation = layer->generation,
		.after = after,
		.size = layer->size,
		.dirty = info->dirty,
		.time = info->time,
		.kind = info->kind,
		.consistency = info->consistency,
	};

	(void)snprintf(msg.domain, sizeof(msg.domain), "%s", info->domain);
	(void)snprintf(msg.message, sizeof(msg.message), "%s", info->message);
	if (cm_send(client->sock, &msg.h, CM_COMMIT,
		    (const int[]){ layer->data_fd, layer->map_fd }, 2,
		    true) < 0)
		return false; /* the end of the socket will be seen */
	CRASH_POINT(git_commit_sent);
	client->sent[client->nr_sent++] =
		(struct client_sent){ layer->generation, msg.h.seq };
	return true;
}

/* All of them, so that they become commits even if this worker ends now. */
static void send_layers(struct client *client)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n = overlay_layers(client->overlay, layers);
	uint64_t after = client->generation;
	unsigned int i = 0;

	if (client->away || !client->stood || now_ns() < client->retry_at)
		return;
	/* The oldest one is the last.  Those that were sent come first. */
	while (n-- > 0 && client->nr_sent < OVERLAY_MAX_FROZEN) {
		if (layers[n].state != LAYER_FROZEN)
			continue;
		if (i++ >= MAX(client->nr_sent, client->nr_late) &&
		    !send_layer(client, &layers[n], after))
			return;
		after = layers[n].generation;
	}
}

static void retry_later(struct client *client, const char *reason)
{
	client->retry_after = client->retry_after ? MIN(2 * client->retry_after,
							RETRY_MOST_NS) :
						    RETRY_NS;
	client->retry_at = now_ns() + client->retry_after;
	(void)snprintf(client->failed, sizeof(client->failed), "%.*s",
		       WHY_MAX - 1, reason);
	client_show(client);
}

void client_commit_failed(struct client *client, const char *reason)
{
	client->nr_sent = 0; /* what comes after it is not committed, either */
	retry_later(client, reason);
}

/* Which chunks a layer has something of. */
struct touched {
	const struct layer *layer;
	uint64_t end; /* of the layer, sectors */
	uint64_t per_chunk; /* sectors */
};

static bool is_touched(void *ctx, uint64_t chunk)
{
	const struct touched *touched = ctx;
	uint64_t first = chunk * touched->per_chunk, ignored[2];

	return layer_next(touched->layer, first,
			  MIN(first + touched->per_chunk, touched->end),
			  &ignored[0], &ignored[1]);
}

/* What was committed, as a base; it knows what the one before knew of chunks that
 * are the same. */
static int new_base(struct client *client, const struct cm_committed *msg,
		    const struct overlay_layer *layer, struct base **ret,
		    char *ret_why)
{
	struct touched touched = { .layer = layer->layer,
				   .end = layer->size / LAYER_SECTOR };
	int r = base_open(ret, client->store, client->reader, msg->commit,
			  msg->tree, ret_why);

	if (r < 0)
		return r;
	touched.per_chunk = base_disk(*ret)->chunk / LAYER_SECTOR;
	base_inherit(*ret, client->base, is_touched, &touched);
	return 0;
}

const struct client_result *client_find_result(const struct client *client,
					       uint64_t gen)
{
	unsigned int n = MIN(client->nr_results, CLIENT_RESULTS);

	for (unsigned int i = 0; i < n; i++)
		if (client->results[i].generation == gen)
			return &client->results[i];
	return NULL;
}

static void note_result(struct client *client, const struct cm_committed *msg)
{
	struct client_result *result =
		&client->results[client->nr_results % CLIENT_RESULTS];

	/* One that was sent again is committed again. */
	if (client_find_result(client, msg->generation))
		return;
	client->nr_results++;
	*result = (struct client_result){ .generation = msg->generation };
	memcpy(result->commit, msg->commit, OID_BYTES);
	(void)snprintf(result->ref, sizeof(result->ref), "%s", msg->ref);
	if (msg->text[0])
		(void)snprintf(client->note, sizeof(client->note), "%.*s",
			       WHY_MAX - 1, msg->text);
}

/* Keeps no more clean layers than there is room for. */
static void drop_layers(struct client *client)
{
	char reason[WHY_MAX] = "";
	uint64_t bytes;

	for (;;) {
		struct overlay_layer layers[OVERLAY_SLOTS];
		unsigned int n = overlay_layers(client->overlay, layers);
		unsigned int clean =
			client_count_layers(client, LAYER_CLEAN, &bytes);

		if (clean == 0 ||
		    (clean <= MAX_CLEAN && bytes <= client->cache))
			break;
		/* The oldest one is the last. */
		if (overlay_drop(client->overlay, &layers[n - 1].generation,
				 reason) < 0)
			break;
		CRASH_POINT(git_layer_dropped);
		client->dropped[client->nr_dropped++] = layers[n - 1];
	}
	if (*reason)
		(void)snprintf(client->note, sizeof(client->note), "%s",
			       reason);
}

static void release(struct client *client)
{
	struct cm_release msg = { .h.seq = client_seq(client),
				  .generation = client->generation };

	(void)cm_send(client->sock, &msg.h, CM_RELEASE, NULL, 0, true);
}

static enum overlay_place place_of(const struct cm_committed *msg)
{
	if (msg->kind != CM_BRANCH)
		return OVERLAY_LEAF;
	return msg->flags & CM_DIVERGED ? OVERLAY_DIVERGED : OVERLAY_ON_BRANCH;
}

/* The overlay stands on it now, and so does the disk. */
static int stand_on(struct client *client, const struct cm_committed *msg,
		    char *ret_why)
{
	struct overlay_layer layer;
	struct base *base;
	int r = 0;

	if (!find_frozen(client, &layer) || layer.generation != msg->generation)
		return why(ret_why, -EPROTO,
			   "the committer has committed layer %" PRIu64
			   ", which is not the next one",
			   msg->generation);
	if (odb_packs_left(client->store->odb) < PACKS_SPARE)
		r = client_renew_store(client, ret_why);
	if (r == 0)
		r = new_base(client, msg, &layer, &base, ret_why);
	if (r < 0)
		return r;
	r = overlay_committed(client->overlay, layer.generation, msg->commit,
			      place_of(msg), ret_why);
	CRASH_POINT(git_committed);
	if (r < 0) {
		base_put(base);
		return r;
	}
	base_put(client->base);
	client->base = base;
	client->facts = *overlay_facts(client->overlay);
	client->generation = layer.generation;
	return 0;
}

static void forget_first(void *list, unsigned int *nr, size_t size)
{
	(*nr)--;
	memmove(list, (char *)list + size, *nr * size);
}

static void take_committed(struct client *client)
{
	const struct cm_committed *msg = &client->late[0];
	char reason[WHY_MAX] = "";

	if (stand_on(client, msg, reason) < 0) {
		retry_later(client, reason);
		return;
	}
	client->failed[0] = '\0';
	client->retry_at = client->retry_after = 0;
	if (client->nr_sent > 0 &&
	    client->sent[0].generation == msg->generation)
		forget_first(client->sent, &client->nr_sent,
			     sizeof(client->sent[0]));
	forget_first(client->late, &client->nr_late, sizeof(client->late[0]));
	drop_layers(client);
	/* Without memory the old view does as well, and layers stay. */
	(void)client_set_view(client);
	bury_views(client);
	release(client);
	client_show(client);
}

/* When no guest is there it stays in the list: the overlay is not ours. */
void client_committed(struct client *client, const struct cm_committed *msg)
{
	if (client->nr_late == OVERLAY_MAX_FROZEN)
		return;
	client->late[client->nr_late++] = *msg;
	note_result(client, msg);
	if (!client->active)
		client_show(client);
}

/* --- Now and then ------------------------------------------------------------------------ */

static void auto_snapshot(struct client *client)
{
	struct snapshot_info info = { .kind = CM_AUTO,
				      .consistency = CONSISTENCY_CRASH };
	uint64_t gen, now = now_ns();
	char reason[WHY_MAX] = "";

	if (!client->next_auto || now < client->next_auto)
		return;
	client->next_auto = now + client->interval;
	if (!overlay_is_dirty(client->overlay))
		return;
	if (client_freeze(client, &info, &gen, reason) < 0) {
		(void)snprintf(client->note, sizeof(client->note),
			       "no interval snapshot: %.400s", reason);
		client_show(client);
	}
}

void client_look(struct client *client)
{
	bury_views(client);
	if (!client->active)
		return;
	auto_snapshot(client);
	while (client->nr_late > 0 && now_ns() >= client->retry_at)
		take_committed(client);
	send_layers(client);
}

int client_timeout(const struct client *client)
{
	uint64_t now = now_ns(), at = UINT64_MAX;

	if (!client->active)
		return -1;
	if (client->next_auto)
		at = client->next_auto;
	if (client->retry_at > now)
		at = MIN(at, client->retry_at);
	if (at == UINT64_MAX)
		return -1;
	return at <= now ? 0 : (int)MIN((at - now) / NS_PER_MS + 1, 3600000ull);
}
