/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-doctor.c - what is not as it should be in a repository of disks.
 */
#include "config.h"

#include <fts.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "command/tables.h"
#include "git-lost-pins.h"
#include "git-tool.h"
#include "pack-write.h"
#include "pins.h"
#include "repo-settings.h"

/* Nobody holds the lock of a file for so long, seconds; refs.h has its own rule
 * for those that stand in our way. */
#define LOCK_OLD      3600
#define PACKS_MANY    100u
#define SETTINGS_MOST 16u /* more than there are */

struct doctor {
	struct tool_repo repo;
	bool fix;
	unsigned int found, left; /* faults; that are still there */
	json_t *list; /* NULL: lines are printed */
	uint32_t chunk; /* the smallest one */
	char *lost; /* pins; or NULL */
};

enum cure { NOTHING, CAN_FIX, FIXED };

static void tell(struct doctor *doctor, enum cure cure, const char *what,
		 const char *text)
{
	cleanup_free char *line = NULL;

	doctor->found++;
	doctor->left += cure != FIXED;
	if (doctor->list) {
		json_array_append_new(doctor->list,
				      json_pack("{s:s,s:s,s:b,s:b}", "what",
						what, "text", text, "fixed",
						cure == FIXED, "fixable",
						cure != NOTHING));
		return;
	}
	line = xasprintf("%s: %s%s", what, text,
			 cure == FIXED	 ? " (mended)" :
			 cure == CAN_FIX ? " (--fix mends it)" :
					   "");
	print_line(line ? line : what);
}

/* --- Branches ---------------------------------------------------------------------- */

static int look_at_branch(void *ctx, const char *name,
			  const uint8_t oid[OID_BYTES])
{
	struct doctor *doctor = ctx;
	struct chunk_map *map = NULL;
	struct commit_facts commit;
	char reason[WHY_MAX];
	int r = refs_commit(doctor->repo.git, oid, &commit, reason);

	if (r == 0)
		r = chunk_map_open(&map, &doctor->repo.source, commit.tree,
				   reason);
	if (r < 0) {
		tell(doctor, NOTHING, name + strlen(REFS_HEADS), reason);
		return 0;
	}
	if (doctor->chunk == 0 || chunk_map_disk(map)->chunk < doctor->chunk)
		doctor->chunk = chunk_map_disk(map)->chunk;
	chunk_map_free(map);
	return 0;
}

static int look_at_diverged(void *ctx, const char *name,
			    const uint8_t oid[OID_BYTES])
{
	(void)oid;
	tell(ctx, NOTHING, name,
	     "a snapshot that could not go onto its branch, which somebody "
	     "else had moved");
	return 0;
}

/* --- Settings ----------------------------------------------------------------------- */

/* What differs; it is told when it has been mended, or not. */
struct differing {
	struct {
		const char *name;
		char *text; /* or NULL: no memory */
	} list[SETTINGS_MOST];
	size_t nr;
};

static void look_at_setting(void *ctx, const char *name, const char *wanted,
			    const char *found)
{
	struct differing *d = ctx;

	if (d->nr == SETTINGS_MOST)
		return;
	d->list[d->nr].name = name;
	d->list[d->nr++].text = xasprintf("%s%.100s, not %s",
					  found ? "it is " : "it is not set",
					  found ? found : "", wanted);
}

static int look_at_settings(struct doctor *doctor, char *ret_why)
{
	struct differing d = { .nr = 0 };
	int r = repo_settings_compare(doctor->repo.git, doctor->chunk,
				      look_at_setting, &d, ret_why);

	if (r == 0 && doctor->fix && d.nr > 0)
		r = repo_settings_write(doctor->repo.git, doctor->chunk,
					ret_why);
	for (size_t i = 0; i < d.nr; i++) {
		tell(doctor, doctor->fix && r == 0 ? FIXED : CAN_FIX,
		     d.list[i].name, d.list[i].text ? d.list[i].text : "?");
		free(d.list[i].text);
	}
	return r;
}

/* --- Leftovers ---------------------------------------------------------------------- */

/* More of them make everything slower. */
static void look_at_number(struct doctor *doctor)
{
	uint64_t bytes, packs = tool_count_packs(&doctor->repo, &bytes);
	cleanup_free char *text = NULL;

	if (packs <= PACKS_MANY)
		return;
	text = xasprintf("%" PRIu64 " packs: xendisk git gc combines them",
			 packs);
	tell(doctor, NOTHING, "objects/pack", text ? text : "?");
}

/* "NR WHATs WHY", which a dead process has left, and --fix has removed. */
static void tell_left(struct doctor *doctor, const char *where, unsigned int nr,
		      const char *what, const char *reason)
{
	cleanup_free char *text = NULL;

	if (nr == 0)
		return;
	text = xasprintf("%u %s%s %s", nr, what, nr == 1 ? "" : "s", reason);
	tell(doctor, doctor->fix ? FIXED : CAN_FIX, where, text ? text : "?");
}

static int look_at_pins(struct doctor *doctor, char *ret_why)
{
	unsigned int nr = 0;
	int r = pin_clean(doctor->repo.git, !doctor->fix, &nr, ret_why);

	if (r == 0)
		tell_left(doctor, "refs/xendisk/open", nr, "commit",
			  "held for a dead process");
	return r;
}

static int look_at_lost_pins(struct doctor *doctor, char *ret_why)
{
	const char *names = doctor->lost ? doctor->lost : "";
	unsigned int nr = 0;
	int r = doctor->fix ?
			lost_pins_remove(doctor->repo.git, names, ret_why) :
			0;

	for (; *names; names++)
		nr += *names == '\n';
	if (r == 0)
		tell_left(doctor, "refs/xendisk/base", nr, "commit",
			  "held for an overlay that is no more");
	return r;
}

/* Of writers that were killed. */
static int look_at_packs(struct doctor *doctor, char *ret_why)
{
	unsigned int nr = 0;
	int r = doctor->fix ? pack_clean(doctor->repo.packs, &nr, ret_why) :
			      pack_clean_look(doctor->repo.packs, &nr, ret_why);

	if (r == 0)
		tell_left(doctor, "objects/pack", nr, "file",
			  "that a dead process has left behind");
	return r;
}

static bool is_lock(const FTSENT *entry)
{
	size_t n = entry->fts_namelen;

	return entry->fts_info == FTS_F && n > 5 &&
	       strcmp(entry->fts_name + n - 5, ".lock") == 0;
}

/* git never removes them, and what is locked stays as it is: references, or the
 * index of packs, so that no packs are combined any more. */
static int look_at_locks(struct doctor *doctor, char *ret_why)
{
	static const char *const places[] = { "refs", "objects/pack",
					      "packed-refs.lock" };
	char paths[ARRAY_SIZE(places)][64];
	char *roots[ARRAY_SIZE(places) + 1] = { NULL };
	const FTSENT *entry;
	size_t folder;
	FTS *tree;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		(void)snprintf(paths[i], sizeof(paths[i]),
			       "/proc/self/fd/%d/%s", doctor->repo.dir,
			       places[i]);
		roots[i] = paths[i];
	}
	folder = strlen(paths[0]) - strlen(places[0]);
	tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	if (!tree)
		return why(ret_why, -errno, "locks: %s", strerror(errno));
	while ((entry = fts_read(tree))) {
		bool fixed;

		if (!is_lock(entry) ||
		    time(NULL) - entry->fts_statp->st_mtime < LOCK_OLD)
			continue;
		fixed = doctor->fix && unlink(entry->fts_accpath) == 0;
		tell(doctor, fixed ? FIXED : CAN_FIX, entry->fts_path + folder,
		     "a lock that a dead process has left behind");
	}
	(void)fts_close(tree);
	return 0;
}

static int examine(struct doctor *doctor, char *ret_why)
{
	int r = tool_objects(&doctor->repo, ret_why);

	if (r == 0)
		r = refs_each(doctor->repo.git, REFS_HEADS, look_at_branch,
			      doctor, ret_why);
	if (r == 0)
		r = refs_each(doctor->repo.git, REFS_DIVERGED, look_at_diverged,
			      doctor, ret_why);
	if (r == 0)
		r = look_at_settings(doctor, ret_why);
	if (r == 0)
		r = look_at_pins(doctor, ret_why);
	if (r == 0)
		r = look_at_lost_pins(doctor, ret_why);
	if (r == 0)
		r = look_at_packs(doctor, ret_why);
	look_at_number(doctor);
	return r < 0 ? r : look_at_locks(doctor, ret_why);
}

static enum status report(const struct invocation *call, struct doctor *doctor)
{
	enum status status = STATUS_DONE;

	if (doctor->list)
		status = print_json(json_pack("{s:O}", "faults", doctor->list));
	else if (doctor->found == 0)
		puts("all is well");
	(void)call;
	return doctor->left > 0 && status == STATUS_DONE ? STATUS_FAILED :
							   status;
}

enum status verb_doctor(const struct invocation *call)
{
	struct doctor doctor = { .fix = option(call, "fix") != NULL };
	const char *state_dir = option(call, "state-dir");
	char reason[WHY_MAX];
	enum status status = STATUS_DONE;
	int r;

	if (state_dir)
		status = lost_pins_find(call, state_dir, &doctor.lost);
	if (status == STATUS_DONE)
		status = tool_open(call, call->args[0], &doctor.repo);
	if (status != STATUS_DONE) {
		free(doctor.lost);
		return status;
	}
	doctor.list = call->json ? json_array() : NULL;
	r = examine(&doctor, reason);
	status = r < 0 ? tool_fail(call, r, call->args[0], reason) :
			 report(call, &doctor);
	json_decref(doctor.list);
	free(doctor.lost);
	tool_close(&doctor.repo);
	return status;
}
