/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-commit.c - the companion of a disk that is made of a tree and may be written:
 * `xendisk-git fat-commit`.
 *
 * Theory of operation
 *
 * It waits, and holds nothing but the repository.  Each question is answered by a
 * child, for what a guest has written is read there: one that dies of it is followed by
 * another when the worker asks again, as often as that wants (fat-commit.h).  The parent
 * looks into nothing.
 *
 * When it is asked for a commit it lays the base out once more, which gives the same
 * disk as in the worker, puts the layer that was written over it, and reads the FAT of
 * that, of which nothing is believed (fat-read.c).  What is sound becomes a tree
 * (fat-tree.c), in packs of our own, and a commit on the branch; all else an answer
 * that says what is wrong, and nothing was changed.
 *
 * A commit that was made, but whose answer nobody heard, is not made again: it is
 * the head of the branch, with that parent and that tree.
 *
 * A worker that does not wait any more may let a guest write, and the next one may
 * have emptied the layer; so what was read before the worker was there for the last
 * time may be committed, and nothing else.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "chunk-map.h" /* odb_source */
#include "commit-place.h"
#include "commit-points.h"
#include "common/fds.h"
#include "common/pidfd.h"
#include "common/util.h"
#include "fat-commit.h"
#include "fat-tree.h"
#include "lfs.h"
#include "overlay-map.h"
#include "pack-write.h"
#include "pins.h"
#include "ref-lock.h"
#include "repo-confine.h"
#include "repo.h"
#include "tree-disk.h"

#define GENERATION 1u /* of the pin: one base a time */

struct companion {
	struct git_repository *repo;
	int objects, packs; /* folders */
	struct fc_open open; /* branch "": it has not come yet */
};

/* One commit. */
struct work {
	const struct companion *c;
	const struct fc_commit *ask;
	struct revision rev; /* of the base, with the path */
	struct commit_facts parent;
	struct tree_disk disk;
	struct tree_reader *reader;
	struct layer *layer;
	int data;
	struct fat_volume *volume;
	struct pack_writer *pack;
	uint64_t said_at; /* ns: the last progress */
	struct fc_answer *answer;
	char *why;
};

/* --- The worker ------------------------------------------------------------------- */

/* Is it there? */
static int say_progress(struct work *w)
{
	int r = fc_progress(FC_FD_SOCKET);

	w->said_at = now_ns();
	return r < 0 ? why(w->why, r, "the worker waits no more") : 0;
}

/* Called by all that may take long. */
static int go_on(struct work *w)
{
	return now_ns() - w->said_at < FC_PROGRESS_EACH ? 0 : say_progress(w);
}

/* --- The disk as the guest left it --------------------------------------------------- */

static int read_disk(void *ctx, uint64_t offset, void *buf, size_t n)
{
	struct work *w = ctx;
	uint8_t *to = buf;
	int r = go_on(w);

	while (n > 0 && r == 0) {
		uint64_t sector = offset / LAYER_SECTOR;
		uint64_t end = DIV_ROUND_UP(offset + n, LAYER_SECTOR);
		bool written;
		uint64_t run = layer_run(w->layer, sector, end, &written);
		size_t part =
			(size_t)MIN(n, (sector + run) * LAYER_SECTOR - offset);

		r = written ? pread_all(w->data, to, part, offset) :
			      tree_reader_read(w->reader, offset, to, part);
		offset += part;
		to += part;
		n -= part;
	}
	return r;
}

static bool is_untouched(void *ctx, const struct fat_run *run,
			 uint32_t *ret_node)
{
	struct work *w = ctx;
	const struct layout *layout = w->disk.layout;
	uint64_t first = run->offset / LAYER_SECTOR, from, to;
	uint64_t end = DIV_ROUND_UP(run->offset + run->length, LAYER_SECTOR);
	struct piece piece;

	if (layer_next(w->layer, first, end, &from, &to))
		return false;
	piece = layout->ops->find(layout, run->offset, run->length);
	*ret_node = piece.node;
	return piece.kind == PIECE_FILE && piece.at == 0;
}

/* --- Git ----------------------------------------------------------------------------- */

static int read_object(struct work *w, const uint8_t oid[OID_BYTES],
		       enum object_type type, size_t max, uint8_t **ret,
		       size_t *ret_n, char *ret_why)
{
	struct reader *reader = NULL;
	struct odb_source source = { w->disk.odb, NULL, w->disk.cache };
	int r = go_on(w);

	if (r < 0)
		return r;
	r = reader_new(&reader, w->disk.odb, w->disk.cache);
	if (r < 0)
		return why(ret_why, r, "there is not enough memory");
	source.reader = reader;
	r = odb_source_read(&source, oid, type, max, ret, ret_n, ret_why);
	reader_free(reader);
	return r;
}

static int read_tree(void *ctx, const uint8_t oid[OID_BYTES], uint8_t **ret,
		     size_t *ret_n, char *ret_why)
{
	return read_object(ctx, oid, OBJECT_TREE, ODB_MAX_WHOLE, ret, ret_n,
			   ret_why);
}

static int is_pointer(void *ctx, const uint8_t oid[OID_BYTES], uint64_t size,
		      char *ret_why)
{
	cleanup_free uint8_t *data = NULL;
	struct lfs_pointer pointer;
	size_t n;
	int r;

	if (size < LFS_POINTER_MIN || size > LFS_POINTER_MAX)
		return 0;
	r = read_object(ctx, oid, OBJECT_BLOB, LFS_POINTER_MAX, &data, &n,
			ret_why);
	return r < 0 ? r : lfs_is_pointer(data, n, &pointer);
}

static int put(void *ctx, enum object_type type, const void *data, size_t n,
	       uint8_t ret_oid[OID_BYTES], char *ret_why)
{
	struct work *w = ctx;
	int r = go_on(w);

	return r < 0 ? r : pack_add(w->pack, type, data, n, ret_oid, ret_why);
}

static void set_facts(const struct work *w, const uint8_t tree[OID_BYTES],
		      struct commit_facts *ret)
{
	const struct fc_commit *ask = w->ask;
	const struct fc_answer *a = w->answer;

	memcpy(ret->tree, tree, OID_BYTES);
	ret->has_parent = true;
	memcpy(ret->parent, ask->head, OID_BYTES);
	ret->time = ask->time;
	if (*ask->message)
		(void)snprintf(ret->message, sizeof(ret->message), "%s",
			       ask->message);
	else
		(void)snprintf(ret->message, sizeof(ret->message),
			       "xendisk: %u files added, %u changed, %u "
			       "removed",
			       a->added, a->changed, a->removed);
	(void)snprintf(ret->domain, sizeof(ret->domain), "%s", ask->domain);
	ret->consistency = (enum consistency)MIN(
		ask->consistency, (uint32_t)CONSISTENCY_CLEAN_DETACH);
	ret->has_dirty = true;
	ret->dirty = ask->dirty;
}

/* A branch that is not there begins at the base. */
static int begin_branch(const struct work *w)
{
	char name[REF_NAME_MAX];
	uint8_t head[OID_BYTES];
	int r;

	(void)snprintf(name, sizeof(name), REFS_HEADS "%s", w->c->open.branch);
	r = refs_read(w->c->repo, name, head, w->why);
	if (r != -ENOENT)
		return r;
	r = refs_update(w->c->repo, name, NULL, w->ask->head, "xendisk: begun",
			w->why);
	return r == -ESTALE ? 0 : r; /* somebody else has made it */
}

static int place_commit(struct work *w)
{
	const struct commit_place place = { .branch = w->c->open.branch,
					    .time = w->ask->time,
					    .generation = w->ask->generation,
					    .commit = w->answer->commit,
					    .parent = w->ask->head };
	bool diverged;
	int r = say_progress(w);

	if (r == 0)
		r = begin_branch(w);
	if (r == 0)
		r = commit_place(w->c->repo, &place, w->answer->ref, &diverged,
				 w->why);
	if (r == 0 && diverged)
		w->answer->flags |= FC_DIVERGED;
	return r;
}

static int publish(struct work *w, const uint8_t tree[OID_BYTES])
{
	struct commit_facts facts = { .has_parent = false };
	struct pack_names names = { .nr = 0 };
	cleanup_free char *text = NULL;
	size_t n;
	int r;

	refs_author(w->c->repo, facts.author);
	set_facts(w, tree, &facts);
	r = commit_text(&facts, &text, &n, w->why);
	if (r == 0)
		r = pack_add(w->pack, OBJECT_COMMIT, text, n, w->answer->commit,
			     w->why);
	if (r < 0)
		return r;
	COMMIT_POINT(commit_added);
	r = pack_writer_finish(w->pack, &names, w->why);
	if (r < 0)
		return r;
	COMMIT_POINT(published);
	r = place_commit(w);
	if (r == 0)
		COMMIT_POINT(ref_updated);
	if (r == 0)
		r = pack_unkeep(w->c->packs, &names, w->why);
	pack_names_free(&names);
	return r;
}

/* --- A commit ----------------------------------------------------------------------- */

static int lay_out(struct work *w)
{
	const struct fc_open *open = &w->c->open;
	struct layout_options options = {
		.label = open->label,
		.partition = (enum layout_partition)open->partition,
		.writable = true,
		.size = open->size,
	};
	cleanup_free char *about = revision_about(&w->rev);
	struct build_source source = { .time = w->rev.time,
				       .follow = open->follow,
				       .about = about };
	struct build_counts counts;
	int r;

	if (!about)
		return why(w->why, -ENOMEM, "there is not enough memory");
	memcpy(source.tree, w->rev.tree, OID_BYTES);
	memcpy(options.id, w->rev.id, OID_BYTES);
	r = tree_disk_make(&w->disk, w->c->objects, &source, &fat_ops, &options,
			   &counts, w->why);
	if (r == 0 && w->disk.layout->size != w->ask->size)
		r = why(w->why, -ESTALE,
			"the disk had another size when it was laid out");
	if (r == 0 && tree_reader_new(&w->reader, &w->disk) < 0)
		r = why(w->why, -ENOMEM, "there is not enough memory");
	return r;
}

static int look_up(struct work *w)
{
	char base[OID_HEX + 1], head[OID_HEX + 1];
	cleanup_free char *name = NULL;
	int r;

	oid_hex(w->ask->base, base);
	oid_hex(w->ask->head, head);
	name = *w->c->open.path ? xasprintf("%s:%s", base, w->c->open.path) :
				  strdup(base);
	if (!name)
		return why(w->why, -ENOMEM, "there is not enough memory");
	r = repo_look_up(w->c->repo, name, &w->rev, w->why);
	return r < 0 ? r : refs_resolve(w->c->repo, head, &w->parent, w->why);
}

static int open_pack(struct work *w)
{
	const struct pack_options options = { .dir = w->c->packs,
					      .keep_text =
						      "a commit of a disk "
						      "that is being made" };

	return pack_writer_new(&w->pack, &options, w->why);
}

static int make_tree(struct work *w, uint8_t ret[OID_BYTES])
{
	const struct fat_source source = { .read = read_disk, .ctx = w };
	const struct fat_tree_ops ops = { .read_tree = read_tree,
					  .untouched = is_untouched,
					  .put = put,
					  .is_pointer = w->c->open.lfs ?
								is_pointer :
								NULL,
					  .ctx = w };
	uint64_t start = w->c->open.partition == LAYOUT_BARE ?
				 0 :
				 (uint64_t)LAYOUT_PARTITION_AT * LAYOUT_SECTOR;
	struct fat_tree_counts counts;
	uint8_t tree[OID_BYTES];
	int r = fat_volume_read(&w->volume, &source, start, w->ask->size,
				w->why);

	if (r == 0)
		r = open_pack(w);
	if (r == 0)
		r = fat_tree_make(&w->disk.tree, w->rev.tree, w->volume, &ops,
				  tree, &counts, w->why);
	if (r < 0)
		return r;
	w->answer->added = counts.added;
	w->answer->changed = counts.changed;
	w->answer->removed = counts.removed;
	w->answer->read = counts.read;
	return fat_tree_graft(w->parent.tree, w->c->open.path, tree, &ops, ret,
			      w->why);
}

/* The worker, or we, died before the answer was heard. */
static bool was_made(struct work *w, const uint8_t tree[OID_BYTES])
{
	struct commit_facts head;
	uint8_t id[OID_BYTES];
	char reason[WHY_MAX];

	(void)snprintf(w->answer->ref, sizeof(w->answer->ref), REFS_HEADS "%s",
		       w->c->open.branch);
	if (refs_read(w->c->repo, w->answer->ref, id, reason) < 0 ||
	    refs_commit(w->c->repo, id, &head, reason) < 0 ||
	    !head.has_parent ||
	    memcmp(head.parent, w->ask->head, OID_BYTES) != 0 ||
	    memcmp(head.tree, tree, OID_BYTES) != 0)
		return false;
	memcpy(w->answer->commit, id, OID_BYTES);
	return true;
}

static int do_commit(struct work *w, int map)
{
	uint8_t tree[OID_BYTES];
	int r = layer_open_frozen(&w->layer, w->data, map, w->ask->uuid,
				  w->ask->generation, w->ask->size, w->why);

	if (r == 0)
		r = look_up(w);
	if (r == 0)
		r = lay_out(w);
	if (r == 0)
		r = make_tree(w, tree);
	if (r < 0)
		return r;
	COMMIT_POINT(trees_added);
	if (memcmp(tree, w->parent.tree, OID_BYTES) != 0)
		return was_made(w, tree) ? 0 : publish(w, tree);
	w->answer->flags |= FC_UNCHANGED;
	memcpy(w->answer->commit, w->ask->head, OID_BYTES);
	return 0;
}

static int on_commit(const struct companion *c, const struct fc_commit *ask,
		     const int fds[2], struct fc_answer *answer)
{
	struct work w = { .c = c,
			  .ask = ask,
			  .data = fds[0],
			  .answer = answer,
			  .why = answer->text };
	int r = *c->open.branch ? do_commit(&w, fds[1]) :
				  why(w.why, -EPROTO, "no branch was named");

	pack_writer_free(w.pack);
	fat_volume_free(w.volume);
	tree_reader_free(w.reader);
	tree_disk_free(&w.disk);
	layer_close(w.layer);
	return r;
}

/* --- Other questions --------------------------------------------------------------------- */

static int on_open(struct companion *c, const struct fc_open *open,
		   char *ret_why)
{
	int r = refs_check_branch(open->branch, ret_why);

	if (*c->open.branch || open->partition > LAYOUT_ESP)
		return why(ret_why, -EPROTO, "the branch was named before");
	if (r == 0)
		c->open = *open;
	return r;
}

static int name_pin(const struct companion *c, const uint8_t uuid[16],
		    char ret[REF_NAME_MAX], char *ret_why)
{
	char text[33];

	for (unsigned int i = 0; i < 16; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", uuid[i]);
	return pin_folder(c->open.branch, text, ret, ret_why);
}

static int on_stand(const struct companion *c, const struct fc_stand *stand,
		    char *ret_why)
{
	static const uint8_t none[sizeof(stand->old)];
	char folder[REF_NAME_MAX];
	int r = *c->open.branch ? name_pin(c, stand->uuid, folder, ret_why) :
				  why(ret_why, -EPROTO, "no branch was named");

	if (r == 0)
		r = pin_set(c->repo, folder, GENERATION, stand->base, ret_why);
	if (r == 0)
		COMMIT_POINT(pinned);
	if (r < 0 || memcmp(stand->old, none, sizeof(none)) == 0)
		return r;
	r = name_pin(c, stand->old, folder, ret_why);
	if (r == 0)
		r = pin_release(c->repo, folder, UINT64_MAX, ret_why);
	if (r == 0)
		COMMIT_POINT(pins_released);
	return r;
}

/* As the owner of the repository, and in it only. */
static int open_repository(struct companion *c, char *ret_why)
{
	int r = repo_become_owner(FC_FD_REPO, ret_why);

	if (r == 0)
		r = refs_open(&c->repo, FC_FD_REPO, ret_why);
	if (r < 0)
		return r;
	c->objects = openat(FC_FD_REPO, "objects",
			    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	c->packs = openat(FC_FD_REPO, "objects/pack",
			  O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (c->objects < 0 || c->packs < 0)
		return why(ret_why, -errno, "objects/pack: %s",
			   strerror(errno));
	r = repo_confine(FC_FD_REPO, ret_why);
	if (r == 0) /* what one that died has left */
		(void)pack_clean(c->packs, NULL, (char[WHY_MAX]){ "" });
	return r;
}

/* --- One question, in a child ------------------------------------------------------------ */

static int find_answer(struct companion *c, const union fc_any *ask,
		       const int fds[2], struct fc_answer *answer)
{
	int r = open_repository(c, answer->text);

	if (r < 0)
		return r;
	switch (ask->h.type) {
	case FC_OPEN:
		return on_open(c, &ask->open, answer->text);
	case FC_STAND:
		return on_stand(c, &ask->stand, answer->text);
	case FC_COMMIT:
		return on_commit(c, &ask->commit, fds, answer);
	default:
		return why(answer->text, -EPROTO, "that is no question");
	}
}

enum {
	ANSWERED, /* ... that it is done */
	NOBODY_THERE,
	REFUSED,
	NOT_STARTED = 127,
	NOT_STARTED_STATUS = NOT_STARTED << 8, /* as waitpid() has it */
};

/* What the last child had locked when it died.  -1: nobody knows. */
static int lock_notes = -1;

static int answer_one(const struct fc_open *open, const union fc_any *ask,
		      const int fds[2])
{
	struct companion c = { .open = *open };
	struct fc_answer answer = { .h.seq = ask->h.seq };
	int r;

	ref_lock_note_in(lock_notes);
	answer.result = find_answer(&c, ask, fds, &answer);
	refs_close(c.repo);
	r = fc_send(FC_FD_SOCKET, &answer.h, FC_ANSWER, NULL, 0);
	if (ask->h.type != FC_OPEN)
		COMMIT_POINT(answered);
	return r < 0 ? NOBODY_THERE : answer.result < 0 ? REFUSED : ANSWERED;
}

/* --- The parent ---------------------------------------------------------------------------- */

static void tell_death(const union fc_any *ask, int status)
{
	struct fc_answer answer = { .h.seq = ask->h.seq,
				    .result = -EIO,
				    .flags = FC_DIED };

	if (WIFSIGNALED(status))
		(void)why(answer.text, 0,
			  "the process that makes commits has died of signal "
			  "%d",
			  WTERMSIG(status));
	else
		(void)why(answer.text, 0,
			  "the process that makes commits has ended with "
			  "status %d",
			  WEXITSTATUS(status));
	(void)fc_send(FC_FD_SOCKET, &answer.h, FC_ANSWER, NULL, 0);
}

/* Until the child has ended; or the worker has gone, and the child hangs.  Linux
 * before 5.3 cannot wait for both. */
static void watch_child(pid_t pid)
{
	cleanup_close int child = pidfd_open(pid, 0);
	struct pollfd fds[] = { { .fd = child, .events = POLLIN },
				{ .fd = FC_FD_SOCKET /* POLLHUP */ } };
	int patience = (int)fc_silence_s() * 1000, r;

	if (child < 0)
		return;
	do
		r = poll(fds, 2, -1);
	while (r < 0 && errno == EINTR);
	if (r < 0 || fds[0].revents)
		return;
	do
		r = poll(fds, 1, patience);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		(void)kill(pid, SIGKILL);
}

/* Returns how the child has ended, as waitpid() tells it. */
static int run_child(const struct fc_open *open, const union fc_any *ask,
		     const int fds[2])
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(answer_one(open, ask, fds));
	if (pid < 0)
		return NOT_STARTED_STATUS;
	watch_child(pid);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return NOT_STARTED_STATUS;
	return status;
}

/* The branch is the first one that was named and found good. */
static int take_question(struct fc_open *open)
{
	union fc_any ask;
	int fds[2] = { -1, -1 };
	int r = fc_receive(FC_FD_SOCKET, &ask, fds), status;

	if (r < 0)
		return r;
	status = run_child(open, &ask, fds);
	fds_close(fds, ask.h.type == FC_COMMIT ? 2 : 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) > REFUSED)
		tell_death(&ask, status);
	else if (WEXITSTATUS(status) == ANSWERED && ask.h.type == FC_OPEN)
		*open = ask.open;
	return 0;
}

int fat_commit_main(void)
{
	struct fc_open open = { .branch = "" };
	int r;

	lock_notes = memfd_create("locks", MFD_CLOEXEC);
	do
		r = take_question(&open);
	while (r == 0);
	return r != -ECONNRESET;
}
