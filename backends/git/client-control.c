/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client-control.c - what the operator wants of a git disk, and is told of it:
 * snapshot and status (control() of xendisk-backend.h), and the line that is shown
 * meanwhile.
 *
 * Main thread, but for client_show(); with client->mutex.
 */
#include "config.h"

#include "client.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util.h"

void client_show(struct client *client)
{
	char id[OID_HEX + 1];
	uint64_t bytes;
	unsigned int pending;

	if (client->active) {
		oid_hex(overlay_facts(client->overlay)->base, id);
		pending = client_count_layers(client, LAYER_FROZEN, &bytes);
	} else if (client->nr_late > 0) {
		oid_hex(client->late[client->nr_late - 1].commit, id);
		pending =
			client->nr_sent - MIN(client->nr_sent, client->nr_late);
	} else {
		return; /* nobody has been there */
	}
	xd_changed(client->git->disk, id, "commit %s, %u pending%s%s%s%s", id,
		   pending, *client->failed ? "; not committed: " : "",
		   client->failed, *client->note ? "; " : "", client->note);
}

/* --- Status --------------------------------------------------------------- */

static void add(char *text, size_t size, const char *key, const char *value)
{
	(void)xd_add_pair(text, size, key, "%s", value);
}

static void add_number(char *text, size_t size, const char *key, uint64_t value)
{
	(void)xd_add_pair(text, size, key, "%" PRIu64, value);
}

static void add_id(char *text, size_t size, const char *key,
		   const uint8_t oid[OID_BYTES])
{
	char id[OID_HEX + 1];

	oid_hex(oid, id);
	add(text, size, key, id);
}

/* Bytes that all layers take. */
static uint64_t space_of(const struct client *client)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n = overlay_layers(client->overlay, layers);
	uint64_t bytes = 0;
	struct stat st;

	for (unsigned int i = 0; i < n; i++)
		if (fstat(layer_data_fd(layers[i].layer), &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

static int pending_status(const struct client *client, char *text, size_t size)
{
	add(text, size, "state", *client->failed ? "failed" : "pending");
	if (*client->failed)
		add(text, size, "why", client->failed);
	return 0;
}

static int snapshot_status(struct client *client, uint64_t gen, char *text,
			   size_t size)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n =
		client->active ? overlay_layers(client->overlay, layers) : 0;
	const struct client_result *result = client_find_result(client, gen);

	/* It was taken while no guest was there, or the guest has gone since. */
	if (!result && !client->active && gen > client->generation &&
	    gen <= client->frozen)
		return pending_status(client, text, size);

	if (result) {
		add(text, size, "state", "committed");
		add_id(text, size, "commit", result->commit);
		add(text, size, "ref", result->ref);
		return 0;
	}
	for (unsigned int i = 0; i < n; i++) {
		if (layers[i].generation != gen)
			continue;
		if (layers[i].state == LAYER_CLEAN) {
			add(text, size, "state", "committed");
			add_id(text, size, "commit", layers[i].commit);
			return 0;
		}
		if (layers[i].state != LAYER_FROZEN)
			break;
		return pending_status(client, text, size);
	}
	xd_error(client->git->disk,
		 "of a snapshot %" PRIu64 " nothing is known (any more)", gen);
	return -ENOENT;
}

/* It has become a commit while nobody had the overlay, which is still to be told. */
static bool is_late(const struct client *client, uint64_t gen)
{
	for (unsigned int i = 0; i < client->nr_late; i++)
		if (client->late[i].generation == gen)
			return true;
	return false;
}

/* What is in no commit yet, in bytes and snapshots. */
static void add_uncommitted(const struct client *client, char *text,
			    size_t size)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n = overlay_layers(client->overlay, layers);
	uint64_t dirty = 0, pending = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (layers[i].state == LAYER_CLEAN ||
		    is_late(client, layers[i].generation))
			continue;
		pending += layers[i].state == LAYER_FROZEN;
		dirty += layer_sectors(layers[i].layer) * LAYER_SECTOR;
	}
	add_number(text, size, "dirty", dirty);
	add_number(text, size, "pending", pending);
	add_number(text, size, "space", space_of(client));
}

/* The overlay, which another worker may have; then only it knows. */
static void add_overlay(struct client *client, char *text, size_t size)
{
	char ignored[WHY_MAX];
	int r = 0;

	if (!client->overlay)
		return;
	if (!client->active)
		r = client_peek(client, ignored);
	if (r == -ENOENT) { /* nothing was ever written */
		add_id(text, size, "head", client->facts.head);
		add_number(text, size, "dirty", 0);
		add_number(text, size, "pending", 0);
		add_number(text, size, "space", 0);
	}
	if (r < 0)
		return;
	add_id(text, size, "head",
	       client->nr_late > 0 ? client->late[client->nr_late - 1].commit :
				     overlay_facts(client->overlay)->head);
	add_uncommitted(client, text, size);
	if (!client->active)
		client_unpeek(client);
}

static int status(struct client *client, const char *asked, char *text,
		  size_t size)
{
	char value[32];
	uint64_t gen;

	if (client->open.branch[0])
		add(text, size, "branch", client->open.branch);
	/* Of a snapshot that was taken with no guest there we know by its answer. */
	add_id(text, size, "base",
	       client->active || client->nr_late == 0 ?
		       base_commit(client->base) :
		       client->late[client->nr_late - 1].commit);
	add_overlay(client, text, size);
	if (*client->failed)
		add(text, size, "failed", client->failed);
	if (*client->note)
		add(text, size, "note", client->note);
	if (xd_pair(asked, "id", value, sizeof(value)) < 0)
		return 0;
	if (parse_u64(value, UINT64_MAX, &gen) < 0) {
		xd_error(client->git->disk, "id: \"%s\" is no number", value);
		return -EINVAL;
	}
	return snapshot_status(client, gen, text, size);
}

/* --- Snapshot ------------------------------------------------------------- */

/* Between guests, or before the first: nothing is being written. */
static int freeze_alone(struct client *client, struct snapshot_info *info,
			uint64_t *ret_gen, char *ret_why)
{
	int r = client_visit(client, ret_why);

	if (r < 0)
		return r;
	if (client->at_rest)
		info->consistency = CONSISTENCY_CLEAN_DETACH;
	r = client_freeze(client, info, ret_gen, ret_why);
	client_leave(client);
	return r;
}

static int snapshot(struct client *client, const char *asked, char *text,
		    size_t size)
{
	struct snapshot_info info = { .kind = CM_BRANCH,
				      .consistency = CONSISTENCY_CRASH };
	struct xd_disk *disk = client->git->disk;
	char reason[WHY_MAX] = "", how[16] = "";
	uint64_t gen;
	int r = xd_pair(asked, "message", info.message, sizeof(info.message));

	if (r == -ENAMETOOLONG) {
		xd_error(disk, "message: it has more than %zu bytes",
			 sizeof(info.message) - 1);
		return r;
	}
	(void)xd_pair(asked, "domain", info.domain, sizeof(info.domain));
	(void)xd_pair(asked, "consistency", how, sizeof(how));
	if (strcmp(how, "fs-frozen") == 0)
		info.consistency = CONSISTENCY_FS_FROZEN;
	if (!client->overlay)
		r = why(reason, -EROFS, "the disk is only read");
	else if (client->away)
		r = why(reason, -EIO, "%s", client->failed);
	else if (client->active)
		r = client_freeze(client, &info, &gen, reason);
	else
		r = freeze_alone(client, &info, &gen, reason);
	if (r < 0) {
		xd_error(disk, "%s", reason);
		return r;
	}
	add_number(text, size, "id", gen);
	return 0;
}

int client_control(struct xd_disk *disk, const char *verb, const char *text,
		   char *ret_text, size_t size)
{
	struct git *git = disk->data;
	struct client *client = git->client;
	int r = -EOPNOTSUPP;

	pthread_mutex_lock(&client->mutex);
	if (strcmp(verb, "snapshot") == 0)
		r = snapshot(client, text, ret_text, size);
	else if (strcmp(verb, "status") == 0)
		r = status(client, text, ret_text, size);
	pthread_mutex_unlock(&client->mutex);
	/* Whoever was there first, the committer's answers are to be heard. */
	if (client->stood)
		(void)client_run(client);
	client_wake(client);
	return r;
}
