/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-rollback.c - a disk becomes what it was, by one more commit.
 *
 * Nothing is lost: what the overlay has is committed first, here, as the committer
 * would do it and with the same pins, so that a death in between is as good as one of
 * the committer's.  Then a commit with the old tree goes onto the branch, and the
 * overlay begins anew on top of that; if we die before it does, it is empty, and
 * follows the branch when it is opened; or, if it stood beside the branch, stays there
 * until it is rolled back again.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "commit-place.h"
#include "committer.h"
#include "git-tool.h"
#include "layer-commit.h"
#include "overlay-key.h"
#include "overlay.h"
#include "pins.h"

#define STATE_DIR "/var/lib/xendisk"

struct rollback {
	struct tool_repo repo;
	const char *branch;
	char ref[REF_NAME_MAX]; /* the branch's */
	struct overlay *overlay; /* NULL: there is none */
	bool locked; /* it is */
	int lock; /* commit.lock */
	char uuid[UUID_TEXT];
	char pins[REF_NAME_MAX];
	char author[COMMIT_LINE_MAX];
	char reason[WHY_MAX];
};

/* --- What the overlay has ------------------------------------------------------------ */

/* As the committer finds and names it (commit.c), so that a layer is committed
 * once, whoever does it. */
static void set_facts(const struct rollback *back,
		      const struct overlay_layer *layer,
		      struct commit_facts *ret)
{
	const struct snapshot_info *info = &layer->info;

	*ret = (struct commit_facts){
		.has_parent = true,
		.time = info->time,
		.consistency = (enum consistency)info->consistency,
		.has_dirty = true,
		.dirty = info->dirty,
	};
	memcpy(ret->parent, overlay_facts(back->overlay)->head, OID_BYTES);
	memcpy(ret->author, back->author, sizeof(ret->author));
	(void)snprintf(ret->message, sizeof(ret->message), "%s",
		       *info->message ? info->message : "snapshot");
	(void)snprintf(ret->domain, sizeof(ret->domain), "%s", info->domain);
	(void)snprintf(ret->layer, sizeof(ret->layer), "%s/%" PRIu64,
		       back->uuid, layer->generation);
}

static int make_commit(struct rollback *back, const struct overlay_layer *layer,
		       const struct commit_facts *facts,
		       struct layer_result *ret)
{
	const struct overlay_facts *of = overlay_facts(back->overlay);
	struct layer *opened;
	struct layer_commit job = { .repo = back->repo.git,
				    .pack_dir = back->repo.packs,
				    .threads = tool_threads(),
				    .data_fd = layer->data_fd,
				    .size = layer->size,
				    .base = of->base,
				    .facts = facts };
	int r = layer_open_frozen(&opened, layer->data_fd, layer->map_fd,
				  of->uuid, layer->generation, layer->size,
				  back->reason);

	if (r < 0)
		return r;
	job.layer = opened;
	r = layer_commit(&job, ret, back->reason);
	layer_close(opened);
	return r;
}

/* Pin, then reference, then the overlay: what died after a step goes on there. */
static int publish(struct rollback *back, const struct overlay_layer *layer,
		   const struct commit_facts *facts, const uint8_t *commit)
{
	const bool is_auto = layer->info.kind == CM_AUTO;
	const struct commit_place place = { .branch = back->branch,
					    .is_auto = is_auto,
					    .time = layer->info.time,
					    .generation = layer->generation,
					    .commit = commit,
					    .parent = facts->parent };
	char ref[REF_NAME_MAX];
	bool diverged;
	int r = pin_set(back->repo.git, back->pins, layer->generation, commit,
			back->reason);

	if (r == 0)
		r = commit_place(back->repo.git, &place, ref, &diverged,
				 back->reason);
	return r < 0 ? r :
		       overlay_committed(back->overlay, layer->generation,
					 commit,
					 is_auto  ? OVERLAY_LEAF :
					 diverged ? OVERLAY_DIVERGED :
						    OVERLAY_ON_BRANCH,
					 back->reason);
}

static int commit_layer(struct rollback *back,
			const struct overlay_layer *layer)
{
	struct layer_result result = { .packs = { NULL, 0 } };
	struct commit_facts facts;
	char ignored[WHY_MAX];
	int r;

	set_facts(back, layer, &facts);
	r = pin_get(back->repo.git, back->pins, layer->generation,
		    result.commit, back->reason);
	if (r == -ENOENT)
		r = make_commit(back, layer, &facts, &result);
	if (r == 0)
		r = publish(back, layer, &facts, result.commit);
	(void)pack_unkeep(back->repo.packs, &result.packs, ignored);
	pack_names_free(&result.packs);
	return r;
}

static int commit_frozen(struct rollback *back)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int n = overlay_layers(back->overlay, layers);
	int r = 0;

	while (n-- > 0 && r == 0)
		if (layers[n].state == LAYER_FROZEN)
			r = commit_layer(back, &layers[n]);
	return r;
}

static int drop_clean(struct rollback *back)
{
	uint64_t generation;
	int r;

	while ((r = overlay_drop(back->overlay, &generation, back->reason)) ==
	       0) {
		r = overlay_empty(back->overlay, generation, back->reason);
		if (r < 0)
			return r;
	}
	return r == -ENOENT ? 0 : r;
}

static int save_overlay(struct rollback *back)
{
	struct snapshot_info info = { .kind = CM_BRANCH,
				      .consistency = CONSISTENCY_CRASH,
				      .time = time(NULL),
				      .message = "before a rollback" };
	uint64_t generation;
	int r = commit_frozen(back);

	if (r < 0 || overlay_is_empty(back->overlay))
		return r;
	r = drop_clean(back);
	if (r == 0)
		r = overlay_freeze(back->overlay, &info, &generation,
				   back->reason);
	return r < 0 ? r : commit_frozen(back);
}

/* --- The overlay ------------------------------------------------------------------------ */

/* The folder of the disk's overlay; -ENOENT: it has none. */
static int open_state(struct rollback *back, const char *state_dir,
		      char ret_repo[PATH_MAX])
{
	char link[32], key[OVERLAY_KEY_MAX];
	cleanup_free char *path = NULL;
	ssize_t n;
	int fd;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", back->repo.dir);
	n = readlink(link, ret_repo, PATH_MAX - 1);
	if (n < 0)
		return why(back->reason, -errno, "%s", strerror(errno));
	ret_repo[n] = '\0';
	overlay_key(ret_repo, back->branch, key);
	path = xasprintf("%s/%s", state_dir, key);
	fd = path ? open(path,
			 O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) :
		    -1;
	if (fd < 0)
		return why(back->reason, -errno, "%s/%s: %s", state_dir, key,
			   strerror(errno));
	return fd;
}

/* A committer that is still at the last snapshot holds it. */
static int lock_commits(struct rollback *back, int state)
{
	back->lock = openat(
		state, "commit.lock",
		O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (back->lock < 0)
		return why(back->reason, -errno, "commit.lock: %s",
			   strerror(errno));
	if (flock(back->lock, LOCK_EX | LOCK_NB) < 0)
		return why(back->reason, -EBUSY,
			   "a snapshot of it is still being committed");
	return 0;
}

static int lock_overlay(struct rollback *back, struct overlay_facts *facts)
{
	int r = -ESTALE;

	for (int i = 0; i < 3 && r == -ESTALE; i++)
		r = overlay_lock(back->overlay, facts, false, back->reason);
	if (r < 0)
		return r;
	back->locked = true;
	uuid_print(facts->uuid, back->uuid);
	return pin_folder(back->branch, back->uuid, back->pins, back->reason);
}

static int take_overlay(struct rollback *back, const char *state_dir)
{
	const struct overlay_of of = { .branch = back->branch,
				       .holder = "xendisk git rollback" };
	struct overlay_of mine = of;
	struct overlay_facts facts;
	cleanup_close int state = -1;
	char repo[PATH_MAX];
	bool found;
	int r = state = open_state(back, state_dir, repo);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	mine.repo = repo;
	r = lock_commits(back, state);
	if (r == 0)
		r = overlay_open(&back->overlay, state, &mine, &found, &facts,
				 back->reason);
	if (r < 0)
		return r;
	if (found)
		return lock_overlay(back, &facts);
	overlay_close(TAKE_PTR(back->overlay)); /* nothing was ever written */
	return 0;
}

/* It stands on that commit now, with nothing in it. */
static int restart(struct rollback *back, const uint8_t commit[OID_BYTES],
		   const struct git_disk *disk)
{
	struct overlay_facts facts;
	int r;

	if (!back->overlay)
		return 0;
	facts = *overlay_facts(back->overlay);
	facts.size = facts.base_size = disk->size;
	facts.chunk = disk->chunk;
	memcpy(facts.base, commit, OID_BYTES);
	memcpy(facts.head, commit, OID_BYTES);
	r = overlay_restart(back->overlay, &facts, back->reason);
	/* Those of the overlay that was. */
	return r < 0 ? r :
		       pin_release(back->repo.git, back->pins, UINT64_MAX,
				   back->reason);
}

/* --- The branch -------------------------------------------------------------------------- */

static int commit_old_tree(struct rollback *back,
			   const struct commit_facts *target, const char *text,
			   struct commit_facts *ret)
{
	const struct pack_options options = { .dir = back->repo.packs,
					      .keep_text = "xendisk git" };
	struct pack_writer *pack = NULL;
	char id[OID_HEX + 1];
	int r = refs_read(back->repo.git, back->ref, ret->parent, back->reason);

	if (r < 0)
		return r;
	oid_hex(target->id, id);
	ret->has_parent = true;
	ret->consistency = target->consistency;
	if (text)
		(void)snprintf(ret->message, sizeof(ret->message), "%s", text);
	else
		(void)snprintf(ret->message, sizeof(ret->message),
			       "back to %.12s", id);
	r = pack_writer_new(&pack, &options, back->reason);
	if (r == 0)
		r = tool_publish(&back->repo, pack, target->tree, ret,
				 back->ref, ret->parent, back->reason);
	pack_writer_free(pack);
	return r;
}

static enum status roll_back(const struct invocation *call,
			     struct rollback *back)
{
	struct commit_facts target, facts = { .has_parent = false };
	struct chunk_map *map = NULL;
	enum status status;
	int r;

	status = tool_revision(call, &back->repo, call->args[2], &target, &map);
	if (status != STATUS_DONE)
		return status;
	refs_author(back->repo.git, back->author);
	r = refs_read(back->repo.git, back->ref, facts.parent, back->reason);
	if (r == 0 && back->overlay)
		r = save_overlay(back);
	if (r == 0)
		r = commit_old_tree(back, &target, option(call, "message"),
				    &facts);
	if (r == 0)
		r = restart(back, facts.id, chunk_map_disk(map));
	chunk_map_free(map);
	return r < 0 ? tool_fail(call, r, back->branch, back->reason) :
		       tool_committed(call, &facts, back->ref);
}

static void let_go(struct rollback *back)
{
	char ignored[WHY_MAX];

	if (back->locked)
		(void)overlay_unlock(back->overlay, ignored);
	overlay_close(back->overlay);
	if (back->lock >= 0)
		(void)close(back->lock);
	tool_close(&back->repo);
}

/* The overlay is the daemon's, so it is opened before root becomes who owns the
 * repository. */
static enum status open_both(const struct invocation *call,
			     struct rollback *back)
{
	const char *state_dir = option(call, "state-dir");
	enum status status = tool_open_folder(call, call->args[0], &back->repo);
	int r;

	if (status != STATUS_DONE)
		return status;
	r = take_overlay(back, state_dir ? state_dir : STATE_DIR);
	if (r < 0)
		return tool_fail(call, r, back->branch, back->reason);
	return tool_open_rest(call, call->args[0], &back->repo);
}

enum status verb_rollback(const struct invocation *call)
{
	struct rollback back = { .branch = call->args[1], .lock = -1 };
	enum status status;

	if (refs_check_branch(back.branch, back.reason) < 0)
		return tool_usage(call, "%s", back.reason);
	(void)snprintf(back.ref, sizeof(back.ref), REFS_HEADS "%s",
		       back.branch);
	status = open_both(call, &back);
	if (status == STATUS_DONE)
		status = roll_back(call, &back);
	let_go(&back);
	return status;
}
