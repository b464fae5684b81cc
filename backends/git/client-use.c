/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client-use.c - the overlay is locked, and is what the disk consists of.
 *
 * While a guest is connected; and for a moment when something is wanted of a disk
 * that has none (client_visit(), client_leave()), on the main thread, as coming and
 * going are: so never both.  In between the overlay is anybody's, and what is found
 * later may be another commit, or larger.
 */
#include "config.h"

#include "client.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define TRIES 3u /* while another worker lets go of the overlay */

/* --- The branch ---------------------------------------------------------------- */

/* Somebody has moved it since the overlay knew it last.  Not under a guest that
 * goes on with another worker; nor when somebody has served the disk since we were
 * told where the branch is: that is older than what we have. */
static bool has_moved(const struct client *client,
		      const struct overlay_facts *facts)
{
	return !client->stood && !client->git->live.kept &&
	       memcmp(facts->head, client->found_head, OID_BYTES) == 0 &&
	       memcmp(facts->head, client->opened.commit, OID_BYTES) != 0;
}

/* What the disk is, is a commit of the branch that was; not one beside it, which
 * has what no branch has. */
static bool stands_on_branch(const struct overlay_facts *facts)
{
	return !facts->diverged &&
	       memcmp(facts->base, facts->head, OID_BYTES) == 0;
}

static int check_size(const struct client *client, uint64_t size, char *ret_why)
{
	uint64_t told = client->git->disk->limits.size; /* 0: nothing yet */

	if (size >= told)
		return 0;
	return why(ret_why, -EINVAL,
		   "the disk has %" PRIu64
		   " bytes by now, fewer than the %" PRIu64
		   " that it was attached with: attach it anew",
		   size, told);
}

/* Nothing would be lost by it: the disk is what the branch is now. */
static int follow(struct client *client, struct overlay_facts facts,
		  char *ret_why)
{
	int r = check_size(client, client->opened.size, ret_why);

	if (r == 0)
		r = client_give_up(client, ret_why);
	if (r < 0)
		return r;
	facts.size = facts.base_size = client->opened.size;
	facts.chunk = client->opened.chunk;
	memcpy(facts.base, client->opened.commit, OID_BYTES);
	memcpy(facts.head, client->opened.commit, OID_BYTES);
	return overlay_restart(client->overlay, &facts, ret_why);
}

static int follow_branch(struct client *client, char *ret_why)
{
	const struct overlay_facts *facts = overlay_facts(client->overlay);
	bool empty = overlay_is_empty(client->overlay);

	if (!has_moved(client, facts))
		return 0;
	if (empty && stands_on_branch(facts))
		return follow(client, *facts, ret_why);
	(void)snprintf(client->note, sizeof(client->note),
		       "somebody has moved the branch %s, and this disk does "
		       "not follow, since %s: xendisk git rollback follows it",
		       client->open.branch,
		       !empty	       ? "something is in no commit yet" :
		       facts->diverged ? "its last snapshot is not on it" :
					 "an interval snapshot is newer");
	return 0;
}

int client_follow(struct client *client, char *ret_why)
{
	char ignored[WHY_MAX];
	int r;

	if (!has_moved(client, &client->facts))
		return 0;
	/* Whoever has it locked serves what it is.  And what is wrong with it is
	 * said when a guest comes. */
	if (overlay_lock(client->overlay, &client->facts, false, ignored) < 0)
		return 0;
	r = follow_branch(client, ret_why);
	client->facts = *overlay_facts(client->overlay);
	(void)overlay_unlock(client->overlay, ignored);
	return r;
}

/* --- A guest comes and goes ------------------------------------------------------- */

static int lock(struct client *client, bool recover, char *ret_why)
{
	int r = -ESTALE;

	/* What was found is what is wanted: the base is opened afterwards. */
	for (unsigned int i = 0; i < TRIES && r == -ESTALE; i++)
		r = overlay_lock(client->overlay, &client->facts, recover,
				 ret_why);
	return r;
}

/* What was written last and not flushed is known from kept state. */
static int recall(struct client *client, char *ret_why)
{
	struct live *live = &client->git->live;
	uint64_t size = overlay_facts(client->overlay)->size;
	int r = live_recover(live, overlay_active(client->overlay), size);

	if (r < 0)
		return why(ret_why, r, "what was written last is not known: %s",
			   strerror(-r));
	r = follow_branch(client, ret_why);
	size = overlay_facts(client->overlay)->size;
	/* It may be another layer now. */
	if (r == 0 &&
	    live_recover(live, overlay_active(client->overlay), size) < 0)
		r = why(ret_why, -EIO, "kept state cannot be written");
	return r == 0 ? overlay_tidy(client->overlay, ret_why) : r;
}

static int stand(struct client *client, char *ret_why)
{
	const struct overlay_facts *facts = overlay_facts(client->overlay);
	struct cm_opened opened;
	struct cm_stand msg;
	int r;

	if (client->stood) {
		if (memcmp(facts->base, base_commit(client->base), OID_BYTES) ==
		    0)
			return 0;
		return why(ret_why, -ESTALE,
			   "another worker has served this disk meanwhile: "
			   "attach it anew");
	}
	client->facts = *facts;
	client->generation = facts->base_gen;
	client_fill_stand(client, &msg);
	r = client_ask_open(client, &msg.h, CM_STAND, &opened, ret_why);
	if (r == 0 &&
	    memcmp(opened.commit, base_commit(client->base), OID_BYTES) != 0)
		r = client_open_base(client, &opened, ret_why);
	if (r == 0 && base_disk(client->base)->size != facts->base_size)
		r = why(ret_why, -EINVAL,
			"the commit that the overlay stands on has another "
			"size");
	client->stood = r == 0;
	return r;
}

static int activate(struct client *client, bool recover, char *ret_why)
{
	int r = lock(client, recover, ret_why);

	if (r < 0)
		return r;
	r = check_size(client, client->facts.size, ret_why);
	if (r == 0)
		r = recall(client, ret_why);
	if (r == 0)
		r = stand(client, ret_why);
	if (r == 0)
		r = client_set_view(client);
	if (r == -ENOMEM)
		(void)why(ret_why, r, "the disk: no memory");
	if (r < 0) {
		char ignored[WHY_MAX];

		(void)overlay_unlock(client->overlay, ignored);
		return r;
	}
	client->active = true;
	if (*client->note)
		client_show(client);
	client->next_auto = client->interval ? now_ns() + client->interval : 0;
	client->retry_at = client->retry_after = 0;
	return 0;
}

int client_activate(struct client *client, bool recover, char *ret_why)
{
	int r = 0;

	pthread_mutex_lock(&client->mutex);
	client->at_rest = false;
	if (client->overlay)
		r = activate(client, recover, ret_why);
	else if (!client->git->views.current)
		r = client_set_view(client);
	pthread_mutex_unlock(&client->mutex);
	if (r == 0)
		r = client_run(client);
	if (r == 0)
		client_wake(client);
	return r;
}

static int deactivate(struct client *client, char *ret_why)
{
	client_look(client);
	client->active = false;
	client->nr_dropped = 0; /* the next lock empties them */
	view_slot_set(&client->git->views, NULL);
	return overlay_unlock(client->overlay, ret_why);
}

int client_deactivate(struct client *client, char *ret_why)
{
	struct snapshot_info info = { .kind = CM_BRANCH,
				      .consistency = CONSISTENCY_CLEAN_DETACH };
	uint64_t gen;
	int r = 0, end;

	if (!client->overlay)
		return 0;
	pthread_mutex_lock(&client->mutex);
	if (client->snapshot_at_end && overlay_is_dirty(client->overlay))
		r = client_freeze(client, &info, &gen, ret_why);
	end = deactivate(client, ret_why);
	client->at_rest = end == 0;
	pthread_mutex_unlock(&client->mutex);
	return r < 0 ? r : end;
}

/* --- Nobody is there -------------------------------------------------------------- */

int client_visit(struct client *client, char *ret_why)
{
	/* No fence: what a dead worker has left under way is -EBUSY. */
	return activate(client, false, ret_why);
}

void client_leave(struct client *client)
{
	char ignored[WHY_MAX];

	/* What could not be made durable is remembered (overlay.h). */
	(void)deactivate(client, ignored);
}

static bool is_there(const struct client *client)
{
	static const uint8_t none[sizeof(client->facts.uuid)];

	return memcmp(client->facts.uuid, none, sizeof(none)) != 0;
}

/* One that is not there is not made. */
int client_peek(struct client *client, char *ret_why)
{
	struct overlay_facts facts = client->facts;
	int r = is_there(client) ? -ESTALE : -ENOENT;

	for (unsigned int i = 0; i < TRIES && r == -ESTALE; i++)
		r = overlay_lock(client->overlay, &facts, false, ret_why);
	return r;
}

void client_unpeek(struct client *client)
{
	char ignored[WHY_MAX];

	(void)overlay_unlock(client->overlay, ignored);
}

/* --- It becomes larger ------------------------------------------------------------- */

/* Chunks have numbers of so many digits; and there is what a committer takes. */
static uint64_t largest(const struct client *client)
{
	const struct git_disk *disk = base_disk(client->base);

	return MIN((uint64_t)disk->chunk << 8 * disk->levels, CM_SIZE_MAX);
}

/* What is known of what was written first: it may be larger than the disk. */
static int grow_to(struct client *client, uint64_t size, char *ret_why)
{
	struct git *git = client->git;
	int r = live_grow(&git->live, git->disk, size);

	if (r < 0)
		return r; /* live_grow() has said why */
	r = overlay_grow(client->overlay, size, ret_why);
	client->facts = *overlay_facts(client->overlay);
	return r;
}

static int grow(struct client *client, uint64_t size, char *ret_why)
{
	bool visits = !client->active;
	int r = visits ? client_visit(client, ret_why) : 0;

	if (r < 0)
		return r;
	if (size > largest(client))
		r = why(ret_why, -EFBIG,
			"%" PRIu64
			" bytes in chunks of %u KiB: it has room for "
			"%" PRIu64,
			size, base_disk(client->base)->chunk >> 10,
			largest(client));
	else
		r = grow_to(client, size, ret_why);
	if (visits)
		client_leave(client);
	return r;
}

/* While nobody has it locked another worker may make it larger: what is found when
 * it is locked again is what the guest is told, so it is asked for then. */
static int look(struct client *client, char *ret_why)
{
	uint64_t told = client->git->disk->limits.size;

	if (!client->active || client->facts.size <= told)
		return 0;
	return grow_to(client, client->facts.size, ret_why);
}

int client_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	struct client *client = ((struct git *)disk->data)->client;
	char reason[WHY_MAX] = "";
	int r;

	if (!client->overlay) {
		if (size > 0)
			xd_error(disk, "it is read-only, and has the size that "
				       "its commit says");
		*ret_size = disk->limits.size;
		return size > 0 ? -EROFS : 0;
	}
	pthread_mutex_lock(&client->mutex);
	r = size > 0 ? grow(client, size, reason) : look(client, reason);
	if (r == 0)
		*ret_size =
			MAX(client->active || size > 0 ? client->facts.size : 0,
			    disk->limits.size);
	pthread_mutex_unlock(&client->mutex);
	if (r < 0 && *reason)
		xd_error(disk, "%s", reason);
	return r;
}

/* Not with the mutex: a snapshot that waits for lanes has it, and they stand
 * still. */
void client_resized(struct xd_disk *disk)
{
	struct git *git = disk->data;

	if (!git->client->overlay)
		return;
	overlay_grown(git->client->overlay);
	live_grown(&git->live);
}
