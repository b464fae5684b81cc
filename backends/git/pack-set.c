/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The packs of one writer.  One that is full is sealed by a thread of its own, one
 * at a time, while the next one grows; all of them are published together.
 */
#include "config.h"

#include <signal.h>
#include <string.h>

#include "common/util.h"
#include "pack-private.h"

struct pack_set {
	int dir;
	uint64_t split;
	struct pack_file **files; /* the last one is being written */
	unsigned int nr, room;
	/* A full one, if sealing; its outcome once the thread has been joined */
	bool sealing;
	pthread_t sealer;
	struct pack_file *full;
	int seal_err;
	char seal_why[WHY_MAX];
};

int pack_thread(pthread_t *ret, void *(*run)(void *), void *ctx)
{
	sigset_t all, saved;
	int r;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &saved);
	r = -pthread_create(ret, NULL, run, ctx);
	(void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return r;
}

int pack_set_new(struct pack_set **ret, int dir, uint64_t split)
{
	struct pack_set *set = calloc(1, sizeof(*set));

	if (!set)
		return -ENOMEM;
	set->dir = dir;
	set->split = split;
	*ret = set;
	return 0;
}

void pack_set_free(struct pack_set *set)
{
	if (!set)
		return;
	if (set->sealing)
		(void)pthread_join(set->sealer, NULL);
	for (unsigned int i = 0; i < set->nr; i++)
		pack_file_free(set->files[i]);
	free(set->files);
	free(set);
}

/* --- Full ones ----------------------------------------------------------------- */

static void *seal(void *ctx)
{
	struct pack_set *set = ctx;

	set->seal_err = pack_file_seal(set->full, set->seal_why);
	return NULL;
}

/* Waits for the one that is being sealed, if any. */
static int sealed(struct pack_set *set, char *ret_why)
{
	if (!set->sealing)
		return 0;
	(void)pthread_join(set->sealer, NULL);
	set->sealing = false;
	return set->seal_err < 0 ?
		       why(ret_why, set->seal_err, "%s", set->seal_why) :
		       0;
}

static int begin_seal(struct pack_set *set, struct pack_file *file,
		      char *ret_why)
{
	int r = sealed(set, ret_why);

	if (r < 0)
		return r;
	set->full = file;
	r = pack_thread(&set->sealer, seal, set);
	if (r < 0)
		return why(ret_why, r, "no thread for a pack: %s",
			   strerror(-r));
	set->sealing = true;
	return 0;
}

/* --- The one that grows ---------------------------------------------------------- */

static int begin_pack(struct pack_set *set, char *ret_why)
{
	int r;

	if (set->nr == set->room) {
		unsigned int room = 2 * set->room + 4;
		void *more = realloc(set->files, room * sizeof(set->files[0]));

		if (!more)
			return why(ret_why, -ENOMEM, "no memory for a pack");
		set->files = more;
		set->room = room;
	}
	r = pack_file_new(&set->files[set->nr], set->dir, ret_why);
	if (r < 0)
		return r;
	set->nr++;
	return 0;
}

/* An object larger than the limit has a pack to itself. */
static bool fits(const struct pack_set *set, const struct pack_file *file,
		 uint64_t n)
{
	return file->nr == 0 || file->end + n + OID_BYTES <= set->split;
}

int pack_set_room(struct pack_set *set, uint64_t n, struct pack_file **ret,
		  char *ret_why)
{
	struct pack_file *last = set->nr > 0 ? set->files[set->nr - 1] : NULL;
	int r = 0;

	if (last && !fits(set, last, n)) {
		r = begin_seal(set, last, ret_why);
		last = NULL;
	}
	if (r == 0 && !last)
		r = begin_pack(set, ret_why);
	if (r == 0)
		*ret = set->files[set->nr - 1];
	return r;
}

int pack_set_publish(struct pack_set *set, const char *keep_text,
		     struct pack_names *ret, char *ret_why)
{
	int r = 0;

	if (set->nr > 0)
		r = pack_file_seal(set->files[set->nr - 1], ret_why);
	if (r == 0)
		r = sealed(set, ret_why);
	if (r < 0)
		return r;
	return packs_publish(set->files, set->nr, keep_text, ret, ret_why);
}
