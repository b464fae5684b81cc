/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client-use.c - a guest comes and goes: the overlay is locked, and is what the
 * disk consists of from then on.
 */
#include "config.h"

#include "client.h"

#include <string.h>

#include "common/util.h"

#define TRIES 3u /* while another worker lets go of the overlay */

/* Nothing is in it, and the branch has moved: then so does the disk.  Not under a
 * guest that goes on with another worker; nor when somebody has served the disk
 * since we were told where the branch is: that is older than what we have. */
static int follow_branch(struct client *client, char *ret_why)
{
	struct overlay_facts facts = *overlay_facts(client->overlay);

	if (client->stood || client->git->live.kept ||
	    !overlay_is_empty(client->overlay) ||
	    memcmp(facts.head, client->found_head, OID_BYTES) != 0 ||
	    memcmp(facts.head, client->opened.commit, OID_BYTES) == 0)
		return 0;
	if (client->opened.size != facts.size)
		return why(ret_why, -EINVAL,
			   "the branch has been moved to a disk of another "
			   "size");
	memcpy(facts.base, client->opened.commit, OID_BYTES);
	memcpy(facts.head, client->opened.commit, OID_BYTES);
	return overlay_restart(client->overlay, &facts, ret_why);
}

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
	int r = live_recover(live, overlay_active(client->overlay));

	if (r < 0)
		return why(ret_why, r, "what was written last is not known: %s",
			   strerror(-r));
	r = follow_branch(client, ret_why);
	/* It may be another layer now. */
	if (r == 0 && live_recover(live, overlay_active(client->overlay)) < 0)
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
	if (r == 0 && base_disk(client->base)->size != facts->size)
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
	client->next_auto = client->interval ? now_ns() + client->interval : 0;
	client->retry_at = client->retry_after = 0;
	return 0;
}

int client_activate(struct client *client, bool recover, char *ret_why)
{
	int r = 0;

	pthread_mutex_lock(&client->mutex);
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

int client_deactivate(struct client *client, char *ret_why)
{
	struct snapshot_info info = { .kind = CM_BRANCH,
				      .consistency = CONSISTENCY_CLEAN_DETACH };
	uint64_t gen;
	int r = 0, end;

	if (!client->overlay)
		return 0;
	pthread_mutex_lock(&client->mutex);
	if (client->snapshot_at_end &&
	    layer_sectors(overlay_active(client->overlay)) > 0)
		r = client_freeze(client, &info, &gen, ret_why);
	client_look(client);
	client->active = false;
	view_slot_set(&client->git->views, NULL);
	end = overlay_unlock(client->overlay, ret_why);
	pthread_mutex_unlock(&client->mutex);
	return r < 0 ? r : end;
}
