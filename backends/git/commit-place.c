/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "commit-place.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "retention.h"

#define TRIES 8u /* somebody moves the branch while we look at it */

static int print_ref(char ret[REF_NAME_MAX], char *ret_why, int n)
{
	if (n >= 0 && (size_t)n < REF_NAME_MAX)
		return 0;
	return why(ret_why, -ENAMETOOLONG, "%.60s...: the name is too long",
		   ret);
}

/* 1: it leads there now; 0: it is another commit's. */
static int try_name(struct git_repository *repo,
		    const struct commit_place *place, const char *name,
		    char *ret_why)
{
	uint8_t there[OID_BYTES];
	int r = refs_read(repo, name, there, ret_why);

	if (r == -ENOENT)
		r = refs_update(repo, name, NULL, place->commit,
				"xendisk: snapshot", ret_why);
	else if (r == 0)
		return memcmp(there, place->commit, OID_BYTES) == 0;
	return r == 0 ? 1 : r == -ESTALE ? 0 : r;
}

static int place_beside(struct git_repository *repo,
			const struct commit_place *place, const char *folder,
			char ret_ref[REF_NAME_MAX], char *ret_why)
{
	char utc[UTC_TEXT];
	int r;

	(void)utc_print(place->time, utc);
	r = print_ref(ret_ref, ret_why,
		      snprintf(ret_ref, REF_NAME_MAX, "%s%s/%s", folder,
			       place->branch, utc));
	if (r == 0)
		r = try_name(repo, place, ret_ref, ret_why);
	if (r != 0)
		return MIN(r, 0);
	r = print_ref(ret_ref, ret_why,
		      snprintf(ret_ref, REF_NAME_MAX, "%s%s/%s-%" PRIu64,
			       folder, place->branch, utc, place->generation));
	if (r == 0)
		r = try_name(repo, place, ret_ref, ret_why);
	if (r != 0)
		return MIN(r, 0);
	return why(ret_why, -EEXIST, "%s: there is another commit", ret_ref);
}

/* Is it the head, or has somebody gone on from there? */
static bool is_in_history(struct git_repository *repo,
			  const uint8_t head[OID_BYTES],
			  const uint8_t commit[OID_BYTES])
{
	return memcmp(head, commit, OID_BYTES) == 0 ||
	       refs_comes_after(repo, head, commit);
}

/* 1: done; 0: somebody has moved it. */
static int place_on_branch(struct git_repository *repo,
			   const struct commit_place *place, const char *name,
			   char *ret_why)
{
	uint8_t head[OID_BYTES];
	int r = -ESTALE;

	for (unsigned int i = 0; i < TRIES && r == -ESTALE; i++) {
		r = refs_read(repo, name, head, ret_why);
		if (r == -EBADMSG)
			return 0;
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == 0 && is_in_history(repo, head, place->commit))
			return 1;
		if (r == 0 ? !place->parent ||
				     memcmp(head, place->parent, OID_BYTES) :
			     !!place->parent)
			return 0;
		r = refs_update(repo, name, place->parent, place->commit,
				"xendisk: snapshot", ret_why);
	}
	return r == -ESTALE ? 0 : r < 0 ? r : 1;
}

int commit_place(struct git_repository *repo, const struct commit_place *place,
		 char ret_ref[REF_NAME_MAX], bool *ret_diverged, char *ret_why)
{
	int r;

	*ret_diverged = false;
	if (place->is_auto)
		return place_beside(repo, place, REFS_AUTO, ret_ref, ret_why);
	r = print_ref(ret_ref, ret_why,
		      snprintf(ret_ref, REF_NAME_MAX, REFS_HEADS "%s",
			       place->branch));
	if (r == 0)
		r = place_on_branch(repo, place, ret_ref, ret_why);
	if (r != 0)
		return MIN(r, 0);
	*ret_diverged = true;
	return place_beside(repo, place, REFS_DIVERGED, ret_ref, ret_why);
}
