/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * One thread makes the commits, one after the other, each on top of the one before
 * (struct commit_chain).  A commit has these steps, and after a death at any of
 * them the same layer is sent again, to the next committer:
 *
 *   1. packs	 the objects, with a ".keep" (layer-commit.c)
 *   2. pin	 refs/xendisk/base/.../GENERATION leads to the commit: from here on
 *		 it is known that this layer is in that commit, and nothing is
 *		 calculated a second time
 *   3. place	 the branch, or a reference beside it (commit-place.c)
 *   4. unkeep	 the ".keep" files go
 *   5. answer	 the packs' descriptors, COMMITTED
 *   6. thin	 interval snapshots that do not stay any more; packs
 *
 * RELEASE comes when the overlay has noted the commit; only then the pin of the
 * base before it goes, so that at each moment what the overlay may be found to
 * stand on is pinned.  The trailer Xendisk-Layer says the same as the pin to those
 * who have a copy of the repository without it.
 *
 * A layer that failed is the worker's to send again; those behind it are refused
 * until then, since they are nothing without it.
 *
 * No pack is ever removed that git has seen, unless all that is in it is in another
 * one of ours: while it has a ".keep", a repack leaves out whatever is in it, and
 * deletes the packs that had that before.  So when step 2 or 3 fails the packs stay,
 * and the same commit is taken from them when it is asked for again.
 */
#include "config.h"

#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "commit-place.h"
#include "commit-points.h"
#include "committer-private.h"
#include "common/util.h"
#include "layer-commit.h"
#include "pack-twins.h"
#include "pins.h"
#include "ref-lock.h"
#include "repo-confine.h"

#define THREADS_MAX 4

/* --- One layer ---------------------------------------------------------------- */

struct commit_run {
	struct committer *c;
	struct git_repository *repo;
	const struct cm_commit *ask;
	int data, map;
	struct commit_facts facts;
	struct layer_result result;
	struct cm_committed answer;
};

static unsigned int threads(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return (unsigned int)MIN(CPU_COUNT(&cpus), THREADS_MAX);
}

static void tell_progress(void *ctx, uint64_t done, uint64_t all)
{
	struct commit_run *run = ctx;
	struct cm_progress progress = {
		.h = { .seq = run->ask->h.seq },
		.generation = run->ask->generation,
		.done = done,
		.all = all,
	};

	(void)cm_send(run->c->sock, &progress.h, CM_PROGRESS, NULL, 0, false);
}

static void set_facts(struct commit_run *run)
{
	static const char *const messages[CM_NR_KINDS] = { "snapshot", "auto" };
	const struct cm_commit *ask = run->ask;
	struct commit_facts *facts = &run->facts;

	*facts = (struct commit_facts){
		.has_parent = true,
		.time = ask->time,
		.consistency = (enum consistency)ask->consistency,
		.has_dirty = true,
		.dirty = ask->dirty,
	};
	memcpy(facts->parent, run->c->chain.head, OID_BYTES);
	(void)refs_author(run->repo, facts->author);
	(void)snprintf(facts->message, sizeof(facts->message), "%s",
		       *ask->message ? ask->message : messages[ask->kind]);
	(void)snprintf(facts->domain, sizeof(facts->domain), "%s", ask->domain);
	(void)snprintf(facts->layer, sizeof(facts->layer), "%s/%" PRIu64,
		       run->c->chain.uuid, ask->generation);
}

/* Whoever has had the disk since may have committed the layer, and emptied it. */
static int check_layer(const struct commit_run *run, const struct layer *layer,
		       char *ret_why)
{
	uint64_t bytes = layer_sectors(layer) * LAYER_SECTOR;

	if (bytes == run->ask->dirty)
		return 0;
	return why(ret_why, -ESTALE,
		   "layer %" PRIu64 " has %" PRIu64 " bytes, and had %" PRIu64
		   " when it was frozen",
		   run->ask->generation, bytes, run->ask->dirty);
}

static int make_anew(struct commit_run *run, char *ret_why)
{
	const struct commit_chain *chain = &run->c->chain;
	struct layer *layer;
	struct layer_commit job = {
		.repo = run->repo,
		.pack_dir = run->c->pack_dir,
		.threads = threads(),
		.store_only = run->c->store_only,
		.data_fd = run->data,
		.size = run->ask->size,
		.base = chain->base,
		.facts = &run->facts,
		.progress = tell_progress,
		.ctx = run,
	};
	int r = layer_open_frozen(&layer, run->data, run->map,
				  chain->uuid_bytes, run->ask->generation,
				  run->ask->size, ret_why);

	if (r < 0)
		return r;
	job.layer = layer;
	r = check_layer(run, layer, ret_why);
	if (r == 0)
		r = layer_commit(&job, &run->result, ret_why);
	layer_close(layer);
	return r;
}

/* The packs stay; who asks for that layer again makes them once more, and drops these
 * (pack-twins.h). */
static void forget_made(struct commit_made *made)
{
	pack_names_free(&made->result.packs);
	made->is = false;
}

static bool is_made(const struct commit_run *run)
{
	const struct commit_made *made = &run->c->made;
	struct cm_commit ask = *run->ask;

	ask.h = made->ask.h;
	return made->is && memcmp(&made->ask, &ask, sizeof(ask)) == 0 &&
	       memcmp(&made->chain, &run->c->chain, sizeof(made->chain)) == 0;
}

static int make_commit(struct commit_run *run, char *ret_why)
{
	struct commit_made *made = &run->c->made;
	int r = 0;

	if (is_made(run)) {
		run->result = made->result;
		return 0;
	}
	forget_made(made);
	r = make_anew(run, ret_why);
	if (r < 0)
		return r;
	*made = (struct commit_made){ .is = true,
				      .ask = *run->ask,
				      .chain = run->c->chain,
				      .result = run->result };
	return 0;
}

/* Has it been committed before?  1: run->result is that commit. */
static int find_commit(struct commit_run *run, char *ret_why)
{
	struct committer *c = run->c;
	struct commit_facts found;
	char name[REF_NAME_MAX];
	uint8_t id[OID_BYTES];
	int r = pin_get(run->repo, c->chain.pins, run->ask->generation, id,
			ret_why);

	if (r == -ENOENT) {
		(void)snprintf(name, sizeof(name), REFS_HEADS "%s", c->branch);
		r = refs_read(run->repo, name, id, ret_why);
	}
	/* A branch that is not what it was, in any way, has been moved. */
	if (r == -ENOENT || r == -EBADMSG)
		return 0;
	if (r == 0)
		r = refs_commit(run->repo, id, &found, ret_why);
	if (r < 0 || strcmp(found.layer, run->facts.layer) != 0)
		return MIN(r, 0);
	memcpy(run->result.commit, id, OID_BYTES);
	memcpy(run->result.tree, found.tree, OID_BYTES);
	memcpy(run->facts.parent, found.parent, OID_BYTES);
	run->facts.has_parent = found.has_parent;
	run->answer.flags |= CM_AGAIN;
	return 1;
}

static int place(struct commit_run *run, char *ret_why)
{
	const struct commit_place where = {
		.branch = run->c->branch,
		.is_auto = run->ask->kind == CM_AUTO,
		.time = run->ask->time,
		.generation = run->ask->generation,
		.commit = run->result.commit,
		.parent = run->facts.has_parent ? run->facts.parent : NULL,
	};
	struct cm_committed *answer = &run->answer;
	bool diverged;
	int r = commit_place(run->repo, &where, answer->ref, &diverged,
			     ret_why);

	if (r < 0 || !diverged)
		return r;
	answer->flags |= CM_DIVERGED;
	/* Its name is beside this one: both of them may be too long. */
	(void)snprintf(
		answer->text, sizeof(answer->text),
		"somebody else has moved the branch %s, so this snapshot "
		"is beside it, in refs/xendisk/diverged/: git branch -f "
		"puts it back, and xendisk git rollback follows the branch",
		run->c->branch);
	return 0;
}

static int commit_layer(struct commit_run *run, char *ret_why)
{
	struct commit_chain *chain = &run->c->chain;
	int r;

	set_facts(run);
	r = find_commit(run, ret_why);
	if (r == 0)
		r = make_commit(run, ret_why);
	if (r >= 0)
		r = pin_set(run->repo, chain->pins, run->ask->generation,
			    run->result.commit, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(pinned);
	r = place(run, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(ref_updated);
	chain->generation = run->ask->generation;
	memcpy(chain->base, run->result.commit, OID_BYTES);
	if (run->ask->kind == CM_BRANCH)
		memcpy(chain->head, run->result.commit, OID_BYTES);
	return 0;
}

/* --- Its answer --------------------------------------------------------------- */

/* Those that are new; or all, when it is not known which they were. */
static int send_packs(const struct commit_run *run)
{
	const struct pack_names *packs = &run->result.packs;
	cleanup_free char(*names)[CM_PACK_NAME] =
		calloc(packs->nr + 1, sizeof(*names));

	if (!names || run->answer.flags & CM_AGAIN)
		return committer_send_packs(run->c, run->ask->h.seq, NULL, 0);
	for (unsigned int i = 0; i < packs->nr; i++)
		(void)snprintf(names[i], CM_PACK_NAME, "%s",
			       packs->packs[i].name);
	return committer_send_packs(run->c, run->ask->h.seq, names, packs->nr);
}

static void answer_committed(struct commit_run *run)
{
	const struct pack_totals *totals = &run->result.totals;
	struct cm_committed *answer = &run->answer;

	/* While ".keep" is there no repack has taken them away. */
	(void)send_packs(run);
	COMMIT_POINT(packs_sent);
	answer->h.seq = run->ask->h.seq;
	answer->generation = run->ask->generation;
	answer->kind = run->ask->kind;
	memcpy(answer->commit, run->result.commit, OID_BYTES);
	memcpy(answer->tree, run->result.tree, OID_BYTES);
	answer->chunks =
		totals->fates[PACK_STORED] + totals->fates[PACK_DEFLATED];
	answer->unchanged = totals->fates[PACK_SAME];
	answer->bytes = totals->packed;
	(void)cm_send(run->c->sock, &answer->h, CM_COMMITTED, NULL, 0, true);
	COMMIT_POINT(answered);
}

/* The commit stands, whatever becomes of this. */
static void tidy(struct commit_run *run)
{
	struct pack_names *packs = &run->c->made.result.packs;
	char reason[WHY_MAX];
	unsigned int removed;

	(void)pack_drop_twins(run->c->pack_dir, packs, reason);
	(void)pack_unkeep(run->c->pack_dir, packs, reason);
	forget_made(&run->c->made);
	if (run->ask->kind == CM_AUTO)
		(void)retention_thin(run->repo, run->c->branch, &run->c->keep,
				     &removed, reason);
	COMMIT_POINT(thinned);
	committer_consolidate(run->c);
}

/* What was not finished takes the space that the next one may need. */
static void give_up(struct commit_run *run)
{
	char reason[WHY_MAX];

	(void)pack_clean(run->c->pack_dir, NULL, reason);
}

/* --- What is asked ------------------------------------------------------------ */

/* Another committer of this disk may still be at it.  Ours until nothing waits any
 * more: then the disk may be another worker's, and so may the next layer. */
static int take_lock(struct committer *c, char *ret_why)
{
	int r;

	if (c->locked)
		return 0;
	do
		r = flock(c->lock_file, LOCK_EX);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return why(ret_why, -errno, "commit.lock: %s", strerror(errno));
	c->locked = true;
	ref_lock_note_in(c->lock_file);
	return 0;
}

static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static int check_commit(const struct committer *c, const struct commit_job *job,
			char *ret_why)
{
	const struct cm_commit *ask = &job->msg.commit;

	if (ask->kind >= CM_NR_KINDS ||
	    ask->consistency > CONSISTENCY_CLEAN_DETACH)
		return why(ret_why, -EINVAL, "COMMIT: no such kind");
	if (ask->size > CM_SIZE_MAX || ask->time < 0)
		return why(ret_why, -EINVAL, "COMMIT: no such size or time");
	if (!is_file(job->data) || !is_file(job->map))
		return why(ret_why, -EINVAL, "COMMIT: the layer is no file");
	if (ask->after != c->chain.generation ||
	    ask->generation <= c->chain.generation)
		return why(ret_why, -ESTALE,
			   "layer %" PRIu64 " on top of %" PRIu64
			   ": the last one here is %" PRIu64,
			   ask->generation, ask->after, c->chain.generation);
	return 0;
}

static int run_commit(struct committer *c, const struct commit_job *job,
		      char *ret_why)
{
	struct commit_run *run = calloc(1, sizeof(*run));
	int r;

	if (!run)
		return why(ret_why, -ENOMEM, "COMMIT: no memory");
	run->c = c;
	run->repo = c->commit_repo;
	run->ask = &job->msg.commit;
	run->data = job->data;
	run->map = job->map;
	r = check_commit(c, job, ret_why);
	if (r == 0)
		r = take_lock(c, ret_why);
	if (r == 0)
		r = commit_layer(run, ret_why);
	if (r == 0) {
		answer_committed(run);
		tidy(run);
	} else {
		give_up(run);
	}
	free(run);
	return r;
}

static int run_release(struct committer *c, const struct cm_release *ask,
		       char *ret_why)
{
	struct cm_header done = { .seq = ask->h.seq };
	char ignored[WHY_MAX];
	int r;

	if (ask->generation > c->chain.generation)
		return why(ret_why, -ESTALE,
			   "RELEASE: layer %" PRIu64 " is in no commit",
			   ask->generation);
	r = take_lock(c, ret_why);
	if (r < 0)
		return r;
	r = pin_release(c->commit_repo, c->chain.pins, ask->generation,
			ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(pins_released);
	/* Of one that was killed behind its answer; none else is needed now. */
	if (ask->generation == c->chain.generation)
		(void)pack_clean(c->pack_dir, NULL, ignored);
	return cm_send(c->sock, &done, CM_DONE, NULL, 0, true), 0;
}

/* --- The thread --------------------------------------------------------------- */

static void run_job(struct committer *c, struct commit_job *job)
{
	char reason[WHY_MAX] = "";
	int r;

	if (job->msg.h.type == CM_COMMIT)
		r = run_commit(c, job, reason);
	else
		r = run_release(c, &job->msg.release, reason);
	if (r < 0)
		committer_fail(c, job->msg.h.seq, r, reason);
}

static void free_job(struct commit_job *job)
{
	if (job->data >= 0)
		(void)close(job->data);
	if (job->map >= 0)
		(void)close(job->map);
	free(job);
}

/* Not for longer than the thread is at it. */
static struct commit_job *next_job(struct committer *c)
{
	struct commit_job *job;

	(void)pthread_mutex_lock(&c->lock);
	while (!c->first && !c->closing)
		(void)pthread_cond_wait(&c->news, &c->lock);
	job = c->first;
	if (job)
		c->first = job->next;
	(void)pthread_mutex_unlock(&c->lock);
	return job;
}

static void job_ended(struct committer *c)
{
	(void)pthread_mutex_lock(&c->lock);
	if (c->nr == 1 && c->locked) { /* before STAND may take it */
		ref_lock_note_in(-1);
		(void)flock(c->lock_file, LOCK_UN);
		c->locked = false;
	}
	c->nr--;
	(void)pthread_mutex_unlock(&c->lock);
}

static void *commit_thread(void *arg)
{
	struct committer *c = arg;
	struct commit_job *job;

	repo_stand_back();
	while ((job = next_job(c))) {
		run_job(c, job);
		free_job(job);
		job_ended(c);
	}
	return NULL;
}

void commit_ask(struct committer *c, const union cm_any *msg, const int *fds)
{
	struct commit_job *job = calloc(1, sizeof(*job));
	bool has_files = msg->h.type == CM_COMMIT;
	bool full;

	if (!job) {
		committer_fail(c, msg->h.seq, -ENOMEM, "no memory");
		for (int i = 0; has_files && i < 2; i++)
			(void)close(fds[i]);
		return;
	}
	job->msg = *msg;
	job->data = has_files ? fds[0] : -1;
	job->map = has_files ? fds[1] : -1;
	(void)pthread_mutex_lock(&c->lock);
	full = c->nr >= COMMITTER_JOBS;
	if (!full) {
		c->nr++;
		if (c->first)
			c->last->next = job;
		else
			c->first = job;
		c->last = job;
		(void)pthread_cond_signal(&c->news);
	}
	(void)pthread_mutex_unlock(&c->lock);
	if (!full)
		return;
	committer_fail(c, msg->h.seq, -EBUSY, "too much is waiting");
	free_job(job);
}

void commit_end(struct committer *c)
{
	if (!c->running)
		return;
	(void)pthread_mutex_lock(&c->lock);
	c->closing = true;
	(void)pthread_cond_signal(&c->news);
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_join(c->thread, NULL);
	c->running = false;
	forget_made(&c->made);
}

/* --- STAND -------------------------------------------------------------------- */

/* "8-4-4-4-12", lower case. */
static int parse_uuid(const char *text, uint8_t ret[16])
{
	static const char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	static const char digits[] = "0123456789abcdef";
	unsigned int n = 0;

	if (strlen(text) != sizeof(pattern) - 1)
		return -EINVAL;
	for (size_t i = 0; pattern[i]; i++) {
		const char *digit = strchr(digits, text[i]);

		if (pattern[i] == '-') {
			if (text[i] != '-')
				return -EINVAL;
			continue;
		}
		if (!digit)
			return -EINVAL;
		ret[n / 2] = (uint8_t)(ret[n / 2] << 4 | (digit - digits));
		n++;
	}
	return 0;
}

static int make_chain(const struct committer *c, const struct cm_stand *stand,
		      struct commit_chain *ret, char *ret_why)
{
	*ret = (struct commit_chain){ .generation = stand->generation };
	if (parse_uuid(stand->uuid, ret->uuid_bytes) < 0)
		return why(ret_why, -EINVAL, "STAND: that is no uuid");
	memcpy(ret->uuid, stand->uuid, sizeof(ret->uuid));
	memcpy(ret->base, stand->base, OID_BYTES);
	memcpy(ret->head, stand->head, OID_BYTES);
	return pin_folder(c->branch, ret->uuid, ret->pins, ret_why);
}

/* Its base first, and then those that it stood on before.  Nothing of ours is to be
 * committed meanwhile; what another committer may still be at is not waited for. */
static int set_pins(struct committer *c, const struct commit_chain *chain,
		    char *ret_why)
{
	bool ours = flock(c->lock_file, LOCK_EX | LOCK_NB) == 0;
	int r;

	if (ours)
		ref_lock_note_in(c->lock_file);
	r = pin_set(c->repo, chain->pins, chain->generation, chain->base,
		    ret_why);
	if (r == 0)
		r = pin_release(c->repo, chain->pins, chain->generation,
				ret_why);
	ref_lock_note_in(-1);
	if (ours)
		(void)flock(c->lock_file, LOCK_UN);
	return r;
}

int commit_stand(struct committer *c, const struct cm_stand *stand,
		 char *ret_why)
{
	struct commit_chain chain;
	bool idle;
	int r = make_chain(c, stand, &chain, ret_why);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&c->lock);
	idle = c->nr == 0;
	if (idle)
		c->chain = chain;
	(void)pthread_mutex_unlock(&c->lock);
	if (!idle)
		return why(ret_why, -EBUSY, "STAND: a commit is being made");
	r = set_pins(c, &chain, ret_why);
	if (r < 0 || c->running)
		return r;
	r = -pthread_create(&c->thread, NULL, commit_thread, c);
	if (r < 0)
		return why(ret_why, r, "STAND: %s", strerror(-r));
	c->running = true;
	return 0;
}

int commit_give_up(struct committer *c, const char *uuid, char *ret_why)
{
	char pins[REF_NAME_MAX];
	uint8_t ignored[16];
	bool idle;
	int r;

	if (parse_uuid(uuid, ignored) < 0)
		return why(ret_why, -EINVAL, "GIVE_UP: that is no uuid");
	(void)pthread_mutex_lock(&c->lock);
	idle = c->nr == 0;
	(void)pthread_mutex_unlock(&c->lock);
	if (!idle)
		return why(ret_why, -EBUSY, "GIVE_UP: a commit is being made");
	r = pin_folder(c->branch, uuid, pins, ret_why);
	return r < 0 ? r : pin_release(c->repo, pins, UINT64_MAX, ret_why);
}
