/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The disk of a commit does not change; what a guest writes is in an overlay
 * (overlay.h) of one layer, in the state folder of the branch.  When the guest has
 * gone, and when somebody asks for a snapshot, the companion (fat-commit.h) makes a
 * commit of both.  A FAT of which a commit can be made is one that nobody is
 * writing to, so writes wait meanwhile, and nothing has to be frozen.  What was
 * written and not flushed is noted in kept state (live.h): the guest outlives its
 * worker.
 *
 * The commit that the disk was laid out from stays its base until it is detached:
 * what comes later are further commits, each a child of the last.  When it
 * is attached again, what the overlay has is committed once more, which is nothing new
 * if all went well; then the overlay is emptied, and begins with the branch as it
 * is by then.  If there is no commit to be made, since the FAT is not sound, the
 * overlay stays, and so does its base: the guest gets what it had left there.
 */
#include "config.h"

#include "gitfs-write.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "common/util.h"
#include "companion.h"
#include "overlay-key.h"

#define CHUNK 65536u /* of no meaning here, but an overlay has one */

static int fails(struct write_back *w, int err, const char *reason)
{
	xd_error(w->gitfs->disk, "%s: %s",
		 xd_arg_string(w->gitfs->disk, "repo"), reason);
	return err;
}

/* --- What is shown meanwhile ------------------------------------------------------ */

/* Whoever waits for the disk to be detached is to know why; and to the broker it is
 * the sign that something goes on. */
static void tell_progress(void *ctx)
{
	struct write_back *w = ctx;
	char head[OID_HEX + 1];

	if (!w->since)
		return;
	oid_hex(overlay_facts(w->overlay)->head, head);
	xd_changed(w->gitfs->disk, head,
		   "a commit for branch %s is being made, %" PRIu64 " s so far",
		   w->open.branch, (now_ns() - w->since) / 1000000000);
}

/* --- The companion ---------------------------------------------------------------- */

static int ask_once(struct write_back *w, struct fc_header *msg,
		    enum fc_type type, const int *fds, unsigned int nr_fds,
		    const struct fc_patience *patience, struct fc_answer *ret)
{
	int r = -ECONNRESET;

	msg->seq = ++w->seq;
	if (w->sock >= 0)
		r = fc_send(w->sock, msg, type, fds, nr_fds);
	return r < 0 ? r : fc_wait(w->sock, msg->seq, patience, ret);
}

/* One who dies of it is followed by another. */
static int ask(struct write_back *w, struct fc_header *msg, enum fc_type type,
	       const int *fds, unsigned int nr_fds, struct fc_answer *ret)
{
	const struct fc_patience patience = {
		.until = w->ready ? UINT64_MAX :
				    now_ns() + FC_OPENING_S * 1000000000ull,
		.progress = tell_progress,
		.ctx = w,
	};
	int tries = 0, r;

	do
		r = ask_once(w, msg, type, fds, nr_fds, &patience, ret);
	while (r == 0 && ret->flags & FC_DIED && ++tries < FC_TRIES);
	if (r == 0)
		return ret->result;
	/* What it would say later is no answer to another question. */
	if (w->sock >= 0)
		(void)close(TAKE_FD(w->sock));
	*ret = (struct fc_answer){ .result = r };
	if (r == -ETIMEDOUT && !w->ready)
		(void)snprintf(ret->text, sizeof(ret->text),
			       "its commit takes too long for now: it is made "
			       "when this disk is detached");
	else
		(void)snprintf(ret->text, sizeof(ret->text),
			       "the process that makes commits does not answer "
			       "(%s): attach the disk anew",
			       strerror(-r));
	return r;
}

static int stand(struct write_back *w, const uint8_t old[16])
{
	struct fc_stand msg = { .h.type = FC_STAND };
	struct fc_answer answer;
	int r;

	memcpy(msg.uuid, w->facts.uuid, sizeof(msg.uuid));
	memcpy(msg.base, w->facts.base, OID_BYTES);
	if (old)
		memcpy(msg.old, old, sizeof(msg.old));
	r = ask(w, &msg.h, FC_STAND, NULL, 0, &answer);
	return r < 0 ? fails(w, r, answer.text) : 0;
}

/* All is durable, and nobody writes. */
static int commit(struct write_back *w, struct fc_commit *msg,
		  struct fc_answer *ret)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	const struct overlay_facts *facts = overlay_facts(w->overlay);
	char reason[WHY_MAX] = "";
	int fds[2], r;

	(void)overlay_layers(w->overlay, layers);
	fds[0] = layers[0].data_fd;
	fds[1] = layers[0].map_fd;
	memcpy(msg->uuid, facts->uuid, sizeof(msg->uuid));
	memcpy(msg->base, facts->base, OID_BYTES);
	memcpy(msg->head, facts->head, OID_BYTES);
	msg->generation = layers[0].generation;
	msg->size = facts->size;
	msg->time = time(NULL);
	msg->dirty = layer_sectors(layers[0].layer) * LAYER_SECTOR;
	w->since = now_ns();
	tell_progress(w);
	r = ask(w, &msg->h, FC_COMMIT, fds, 2, ret);
	w->since = 0;
	if (r < 0 || ret->flags & FC_UNCHANGED)
		return r;
	r = overlay_set_head(w->overlay, ret->commit, reason);
	if (r < 0)
		(void)snprintf(ret->text, sizeof(ret->text), "%s", reason);
	return r;
}

static void note(struct write_back *w, int err, const struct fc_answer *answer)
{
	char id[OID_HEX + 1];

	oid_hex(answer->commit, id);
	if (err < 0)
		xd_changed(w->gitfs->disk, NULL, "kept, not committed: %s",
			   answer->text);
	else if (answer->flags & FC_DIVERGED)
		xd_changed(w->gitfs->disk, id,
			   "branch %s was moved: commit %s is in %s",
			   w->open.branch, id, answer->ref);
	else
		xd_changed(w->gitfs->disk, id, "commit %s", id);
}

/* --- Opening ------------------------------------------------------------------------- */

static int take_text(struct write_back *w, const char *name, const char *text,
		     char *ret, size_t size)
{
	if (strlen(text) < size) {
		(void)snprintf(ret, size, "%s", text);
		return 0;
	}
	xd_error(w->gitfs->disk, "%s: it has more than %zu bytes", name,
		 size - 1);
	return -ENAMETOOLONG;
}

static int get_options(struct write_back *w)
{
	struct xd_disk *disk = w->gitfs->disk;
	const char *branch = xd_arg_string(disk, "commit");
	const char *path = strchr(xd_arg_string(disk, "rev"), ':');
	const char *links = xd_arg_string(disk, "symlinks");
	int r;

	if (!branch) {
		xd_error(disk, "rw: commit= says which branch gets what the "
			       "guest writes");
		return -EINVAL;
	}
	if (strcmp(xd_arg_string(disk, "format"), "fat") != 0) {
		xd_error(disk, "rw: only format=fat can be written to");
		return -EINVAL;
	}
	w->open.partition = gitfs_partition(disk);
	w->open.follow = !links || strcmp(links, "follow") == 0;
	w->open.lfs = xd_arg_bool(disk, "lfs");
	w->open.size = xd_arg_u64(disk, "size");
	r = take_text(w, "commit", branch, w->open.branch,
		      sizeof(w->open.branch));
	if (r == 0)
		r = take_text(w, "label", xd_arg_string(disk, "label"),
			      w->open.label, sizeof(w->open.label));
	if (r == 0)
		r = take_text(w, "rev", path ? path + 1 : "", w->open.path,
			      sizeof(w->open.path));
	return r;
}

static int start_companion(struct write_back *w, int dir)
{
	struct fc_answer answer;
	char reason[WHY_MAX] = "";
	int r;

	w->sock = companion_start("fat-commit", -1, dir, reason);
	if (w->sock < 0)
		return fails(w, w->sock, reason);
	r = ask(w, &w->open.h, FC_OPEN, NULL, 0, &answer);
	return r < 0 ? fails(w, r, answer.text) : 0;
}

static int open_overlay(struct write_back *w)
{
	char holder[32], reason[WHY_MAX] = "";
	const struct overlay_of of = { .repo = w->repo,
				       .branch = w->open.branch,
				       .holder = holder };
	int r;

	(void)snprintf(holder, sizeof(holder), "process %d", (int)getpid());
	r = overlay_open(&w->overlay, w->state, &of, &w->found, &w->facts,
			 reason);
	return r < 0 ? fails(w, r, reason) : 0;
}

static int real_path(struct write_back *w, int dir)
{
	char link[32];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, w->repo, sizeof(w->repo) - 1);
	if (n < 0)
		return fails(w, -errno, strerror(errno));
	w->repo[n] = '\0';
	return 0;
}

/* Another folder than that of a git disk of the same branch, which this is not. */
static int open_state(struct write_back *w)
{
	cleanup_free char *name = xasprintf("gitfs:%s", w->repo);
	char key[OVERLAY_KEY_MAX];

	if (!name)
		return -ENOMEM;
	overlay_key(name, w->open.branch, key);
	w->state = xd_state(w->gitfs->disk, key);
	return MIN(w->state, 0); /* xd_state() has said why */
}

int write_back_new(struct write_back **ret, struct gitfs *gitfs, int dir)
{
	struct write_back *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*ret = w;
	w->gitfs = gitfs;
	w->sock = -1;
	w->state = -1;
	w->live.fd = -1;
	pthread_mutex_init(&w->live.lock, NULL);
	r = get_options(w);
	if (r == 0)
		r = real_path(w, dir);
	if (r == 0)
		r = open_state(w);
	return r < 0 ? r : start_companion(w, dir);
}

void write_back_free(struct write_back *w)
{
	if (!w)
		return;
	overlay_close(w->overlay);
	live_close(&w->live);
	pthread_mutex_destroy(&w->live.lock);
	if (w->sock >= 0)
		(void)close(w->sock);
	if (w->state >= 0)
		(void)close(w->state);
	free(w);
}

/* The branch, or, as long as it is not there, the revision where it begins. */
static int resolve_branch(struct write_back *w, int dir, struct revision *ret)
{
	const char *rev = xd_arg_string(w->gitfs->disk, "rev");
	cleanup_free char *name = xasprintf(REFS_HEADS "%s%s%s", w->open.branch,
					    *w->open.path ? ":" : "",
					    w->open.path);
	char reason[WHY_MAX] = "";
	int r = name ? repo_resolve(dir, name, ret, reason) : -ENOMEM;

	if (r == -ENOENT)
		r = repo_resolve(dir, rev, ret, reason);
	if (r == 0 && !ret->has_commit)
		r = why(reason, -EINVAL,
			"%s: it is no commit, so there is no next one", rev);
	return r < 0 ? fails(w, r, *reason ? reason : strerror(-r)) : 0;
}

static int resolve_base(struct write_back *w, int dir, struct revision *ret)
{
	char base[OID_HEX + 1], reason[WHY_MAX] = "";
	cleanup_free char *name = NULL;
	int r;

	oid_hex(w->facts.base, base);
	name = xasprintf("%s%s%s", base, *w->open.path ? ":" : "",
			 w->open.path);
	r = name ? repo_resolve(dir, name, ret, reason) : -ENOMEM;
	return r < 0 ? fails(w, r, *reason ? reason : strerror(-r)) : 0;
}

/* Commits what was left there, if that does not take long: the disk is to open in any
 * case.  1: all is in git now, and the overlay is locked. */
static int settle(struct write_back *w, int dir)
{
	struct fc_commit msg = { .consistency = CONSISTENCY_CRASH };
	struct fc_answer answer = { .result = 0 };
	char reason[WHY_MAX] = "";
	int r = overlay_lock(w->overlay, &w->facts, false, reason);

	if (r == -EBUSY)
		return 0; /* who has it will do it */
	if (r < 0)
		return fails(w, r, reason);
	r = overlay_is_empty(w->overlay) ? 0 : commit(w, &msg, &answer);
	if (r == 0)
		return 1;
	xd_note(w->gitfs->disk, "what the last guest has left is kept: %s",
		answer.text);
	(void)overlay_unlock(w->overlay, reason);
	return w->sock < 0 ? start_companion(w, dir) : 0;
}

int write_back_base(struct write_back *w, int dir, bool again,
		    struct revision *ret)
{
	int r = open_overlay(w);

	if (r == 0 && w->found && !again)
		r = settle(w, dir);
	if (r < 0)
		return r;
	w->settled = r > 0;
	return w->found && !w->settled ? resolve_base(w, dir, ret) :
					 resolve_branch(w, dir, ret);
}

static void set_facts(struct write_back *w, const struct revision *base,
		      uint64_t size)
{
	w->facts = (struct overlay_facts){ .size = size,
					   .base_size = size,
					   .chunk = CHUNK };
	memcpy(w->facts.base, base->id, OID_BYTES);
	memcpy(w->facts.head, base->id, OID_BYTES);
}

/* Empty, and on another commit. */
static int restart(struct write_back *w)
{
	struct overlay_facts old = *overlay_facts(w->overlay);
	char reason[WHY_MAX] = "";
	int r = overlay_restart(w->overlay, &w->facts, reason);

	if (r < 0)
		return fails(w, r, reason);
	r = stand(w, old.uuid);
	if (overlay_unlock(w->overlay, reason) < 0 && r == 0)
		r = fails(w, -EIO, reason);
	return r;
}

int write_back_ready(struct write_back *w, const struct revision *base,
		     uint64_t size)
{
	int r = 0;

	if (w->found && !w->settled && w->facts.size != size)
		return fails(w, -EINVAL,
			     "size, label or other options are not those with "
			     "which a guest has written what is not committed "
			     "yet");
	if (!w->found || w->settled)
		set_facts(w, base, size);
	if (w->settled)
		r = restart(w);
	w->ready = true;
	if (r == 0)
		r = live_open(&w->live, w->gitfs->disk, w->facts.size);
	return r < 0 ? r :
		       xd_identify(w->gitfs->disk, "gitfs:%.300s branch %.190s",
				   w->repo, w->open.branch);
}

/* --- The guest -------------------------------------------------------------------------- */

int write_back_activate(struct write_back *w, bool recover)
{
	char reason[WHY_MAX] = "";
	int r = overlay_lock(w->overlay, &w->facts, recover, reason);

	if (r < 0)
		return fails(w, r, reason);
	/* What was written last and not flushed is known from kept state. */
	r = live_recover(&w->live, overlay_active(w->overlay), w->facts.size);
	r = r < 0 ? fails(w, r, "what was written last is not known") :
		    stand(w, NULL);
	if (r < 0) {
		(void)overlay_unlock(w->overlay, reason);
		return r;
	}
	w->layer = overlay_active(w->overlay);
	return 0;
}

int write_back_deactivate(struct write_back *w)
{
	struct fc_commit msg = { .consistency = CONSISTENCY_CLEAN_DETACH };
	struct fc_answer answer = { .result = 0 };
	char reason[WHY_MAX] = "";
	int r = layer_flush(w->layer), end;

	if (r < 0)
		(void)snprintf(answer.text, sizeof(answer.text), "flush: %s",
			       strerror(-r));
	else if (layer_sectors(w->layer) > 0)
		r = commit(w, &msg, &answer);
	if (r < 0 || layer_sectors(w->layer) > 0)
		note(w, r, &answer);
	if (r < 0)
		(void)fails(w, r, answer.text);
	w->layer = NULL;
	w->facts = *overlay_facts(w->overlay);
	end = overlay_unlock(w->overlay, reason);
	if (end < 0 && r == 0)
		r = fails(w, end, reason);
	return r;
}

/* --- The operator ------------------------------------------------------------------------- */

static int snapshot(struct write_back *w, const char *text, char *ret_text,
		    size_t size)
{
	struct fc_commit msg = { .consistency = CONSISTENCY_CRASH };
	struct fc_answer answer = { .result = 0 };
	int r;

	if (!w->layer) {
		xd_error(w->gitfs->disk,
			 "no guest is there: all is committed that can be");
		return -ENOTCONN;
	}
	(void)xd_pair(text, "message", msg.message, sizeof(msg.message));
	(void)xd_pair(text, "domain", msg.domain, sizeof(msg.domain));
	gitfs_hold(w->gitfs);
	r = layer_flush(w->layer);
	if (r < 0)
		(void)snprintf(answer.text, sizeof(answer.text), "flush: %s",
			       strerror(-r));
	else
		r = commit(w, &msg, &answer);
	gitfs_release(w->gitfs);
	note(w, r, &answer);
	if (r < 0)
		return fails(w, r, answer.text);
	w->last = answer;
	w->snapshots++;
	return xd_add_pair(ret_text, size, "id", "%" PRIu64, w->snapshots);
}

static int tell_snapshot(const struct write_back *w, const char *id,
			 char *ret_text, size_t size)
{
	char hex[OID_HEX + 1];
	uint64_t number;
	int r;

	if (parse_u64(id, UINT64_MAX, &number) < 0 || number != w->snapshots ||
	    number == 0) {
		xd_error(w->gitfs->disk, "there is no snapshot %.20s", id);
		return -ENOENT;
	}
	oid_hex(w->last.commit, hex);
	r = xd_add_pair(ret_text, size, "state", "committed");
	if (r == 0)
		r = xd_add_pair(ret_text, size, "commit", "%s", hex);
	if (r == 0 && *w->last.ref)
		r = xd_add_pair(ret_text, size, "ref", "%s", w->last.ref);
	return r;
}

static int tell(const struct write_back *w, const char *text, char *ret_text,
		size_t size)
{
	const struct overlay_facts *facts =
		w->layer ? overlay_facts(w->overlay) : &w->facts;
	uint64_t dirty = w->layer ? layer_sectors(w->layer) : 0;
	char base[OID_HEX + 1], head[OID_HEX + 1], id[32];
	int r;

	oid_hex(facts->base, base);
	oid_hex(facts->head, head);
	r = xd_add_pair(ret_text, size, "branch", "%s", w->open.branch);
	if (r == 0)
		r = xd_add_pair(ret_text, size, "head", "%s", head);
	if (r == 0)
		r = xd_add_pair(ret_text, size, "base", "%s", base);
	if (r == 0)
		r = xd_add_pair(ret_text, size, "dirty", "%" PRIu64,
				dirty * LAYER_SECTOR);
	if (r == 0 && xd_pair(text, "id", id, sizeof(id)) == 0)
		r = tell_snapshot(w, id, ret_text, size);
	return r;
}

int write_back_control(struct write_back *w, const char *verb, const char *text,
		       char *ret_text, size_t size)
{
	if (strcmp(verb, "snapshot") == 0)
		return snapshot(w, text, ret_text, size);
	if (strcmp(verb, "status") == 0)
		return tell(w, text, ret_text, size);
	return -EOPNOTSUPP;
}

/* --- Data ------------------------------------------------------------------------------------ */

uint64_t write_back_run(const struct write_back *w, uint64_t offset, uint64_t n,
			bool *ret_written)
{
	return LAYER_SECTOR * layer_run(w->layer, offset / LAYER_SECTOR,
					(offset + n) / LAYER_SECTOR,
					ret_written);
}

int write_back_read(const struct write_back *w, uint64_t offset, void *buf,
		    size_t n)
{
	return pread_all(layer_data_fd(w->layer), buf, n, offset);
}

/* It is in the data file: for the next worker first, then for whoever reads. */
static int mark(struct write_back *w, uint64_t first, uint64_t end)
{
	bool set;
	int r;

	if (layer_run(w->layer, first, end, &set) == end - first && set)
		return 0;
	r = live_mark(&w->live, first, end);
	return r < 0 ? r : layer_mark(w->layer, first, end);
}

static int write_data(struct write_back *w, const struct xd_request *req)
{
	uint64_t offset = req->offset;
	int r = 0;

	for (unsigned int i = 0; i < req->iovcnt && r == 0; i++) {
		r = pwrite_all(layer_data_fd(w->layer), req->iov[i].iov_base,
			       req->iov[i].iov_len, offset);
		offset += req->iov[i].iov_len;
	}
	return r < 0 ? r :
		       mark(w, req->offset / LAYER_SECTOR,
			    offset / LAYER_SECTOR);
}

/* No space for the map passes: the flush waits for it (-EAGAIN), as a write does.
 * After a failed fdatasync() nothing is tried again. */
static int flush(struct write_back *w, const struct xd_request *req)
{
	int r = layer_flush(w->layer);

	if ((r == -ENOSPC || r == -EDQUOT || r == -ENOMEM) &&
	    req->op == XD_FLUSH && layer_error(w->layer) == 0)
		return -EAGAIN;
	return r;
}

int write_back_change(struct write_back *w, const struct xd_request *req)
{
	int r = req->op == XD_WRITE ? write_data(w, req) : 0;

	if (r == 0 && (req->op == XD_FLUSH || req->flags & XD_FUA))
		r = flush(w, req);
	return r;
}
