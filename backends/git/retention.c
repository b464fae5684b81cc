/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "retention.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

#include "common/util.h"

#define HOUR	  3600
#define DAY	  (24 * HOUR)
#define WEEK	  (7 * DAY)
#define COUNT_MAX 10000u
#define MONDAY	  (4 * DAY) /* 5 January 1970 */

static const struct {
	char letter;
	int64_t seconds, origin;
} units[] = {
	{ 'h', HOUR, 0 },
	{ 'd', DAY, 0 },
	{ 'w', WEEK, MONDAY },
};

/* --- The rules ---------------------------------------------------------------- */

static int parse_rule(const char *text, size_t n, struct keep_rule *ret)
{
	char digits[16];
	uint32_t count;

	if (n < 2 || n > sizeof(digits))
		return -EINVAL;
	(void)snprintf(digits, sizeof(digits), "%.*s", (int)n - 1, text);
	if (parse_u32(digits, COUNT_MAX, &count) < 0 || count == 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (units[i].letter != text[n - 1])
			continue;
		*ret = (struct keep_rule){ units[i].seconds, units[i].origin,
					   count };
		return 0;
	}
	return -EINVAL;
}

int keep_parse(const char *text, struct keep *ret, char *ret_why)
{
	struct keep keep = { 0 };

	for (const char *at = text; *at;) {
		size_t n = strcspn(at, ",");

		if (keep.nr == KEEP_RULES ||
		    parse_rule(at, n, &keep.rules[keep.nr]) < 0 ||
		    (at[n] == ',' && !at[n + 1]))
			return why(ret_why, -EINVAL,
				   "keep: \"%.40s\": up to %u of a number from "
				   "1 to %u and h, d or w, with commas between "
				   "them, are meant: 24h,7d,4w",
				   text, KEEP_RULES, COUNT_MAX);
		keep.nr++;
		at += n + (at[n] == ',');
	}
	*ret = keep;
	return 0;
}

/* Rounds down, also before the origin. */
static int64_t period(const struct keep_rule *rule, int64_t time)
{
	int64_t since = time - rule->origin;

	return since / rule->seconds - (since % rule->seconds < 0);
}

void keep_choose(const struct keep *keep, const int64_t *times, size_t nr,
		 bool *ret_keep)
{
	for (size_t i = 0; i < nr; i++)
		ret_keep[i] = keep->nr == 0 || i == 0;
	for (unsigned int k = 0; k < keep->nr; k++) {
		const struct keep_rule *rule = &keep->rules[k];
		uint32_t left = rule->count;

		for (size_t i = 0; i < nr && left > 0; i++) {
			if (i > 0 && period(rule, times[i]) ==
					     period(rule, times[i - 1]))
				continue;
			ret_keep[i] = true;
			left--;
		}
	}
}

/* --- Times as names ----------------------------------------------------------- */

const char *utc_print(int64_t time, char ret[UTC_TEXT])
{
	time_t t = (time_t)time;
	struct tm tm;

	if (!gmtime_r(&t, &tm) ||
	    strftime(ret, UTC_TEXT, "%Y%m%dT%H%M%SZ", &tm) != UTC_TEXT - 1)
		(void)snprintf(ret, UTC_TEXT, "00000000T000000Z");
	return ret;
}

int utc_parse(const char *text, int64_t *ret)
{
	static const char pattern[] = "99999999T999999Z";
	char again[UTC_TEXT];
	struct tm tm = { 0 };
	int64_t time;

	for (size_t i = 0; i < UTC_TEXT - 1; i++)
		if (pattern[i] == '9' ? !isdigit((unsigned char)text[i]) :
					text[i] != pattern[i])
			return -EINVAL;
	if (text[UTC_TEXT - 1] != '\0' && text[UTC_TEXT - 1] != '-')
		return -EINVAL;
	if (!strptime(text, "%Y%m%dT%H%M%SZ", &tm))
		return -EINVAL;
	time = timegm(&tm);
	/* The 31st of February is none. */
	if (strncmp(utc_print(time, again), text, UTC_TEXT - 1) != 0)
		return -EINVAL;
	*ret = time;
	return 0;
}

/* --- The references ----------------------------------------------------------- */

struct snapshot {
	char *name;
	uint8_t oid[OID_BYTES];
	int64_t time;
};

struct snapshots {
	size_t prefix; /* characters */
	struct snapshot *list;
	size_t nr;
};

static int collect(void *ctx, const char *name, const uint8_t oid[OID_BYTES])
{
	struct snapshots *all = ctx;
	struct snapshot *list;
	int64_t time;

	/* Somebody's own name is left alone. */
	if (utc_parse(name + all->prefix, &time) < 0)
		return 0;
	list = reallocarray(all->list, all->nr + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	all->list = list;
	list[all->nr] = (struct snapshot){ .name = strdup(name), .time = time };
	memcpy(list[all->nr].oid, oid, OID_BYTES);
	return list[all->nr].name ? (all->nr++, 0) : -ENOMEM;
}

static int newest_first(const void *a, const void *b)
{
	const struct snapshot *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? 1 : -1;
	return -strcmp(x->name, y->name);
}

/* One that was changed meanwhile stays. */
static int remove_snapshot(struct git_repository *repo,
			   const struct snapshot *snapshot, char *ret_why)
{
	int r = refs_update(repo, snapshot->name, snapshot->oid, NULL,
			    "xendisk: thinned", ret_why);

	return r == -ESTALE || r == -ENOENT ? 0 : r < 0 ? r : 1;
}

static int thin(struct git_repository *repo, const struct keep *keep,
		struct snapshots *all, unsigned int *ret_removed, char *ret_why)
{
	cleanup_free int64_t *times = calloc(all->nr + 1, sizeof(*times));
	cleanup_free bool *stays = calloc(all->nr + 1, sizeof(*stays));
	int r = 0;

	if (!times || !stays)
		return why(ret_why, -ENOMEM, "the snapshots: no memory");
	if (all->nr)
		qsort(all->list, all->nr, sizeof(*all->list), newest_first);
	for (size_t i = 0; i < all->nr; i++)
		times[i] = all->list[i].time;
	keep_choose(keep, times, all->nr, stays);
	for (size_t i = 0; r >= 0 && i < all->nr; i++) {
		r = stays[i] ? 0 :
			       remove_snapshot(repo, &all->list[i], ret_why);
		*ret_removed += r > 0;
	}
	return MIN(r, 0);
}

int retention_thin(struct git_repository *repo, const char *branch,
		   const struct keep *keep, unsigned int *ret_removed,
		   char *ret_why)
{
	char prefix[REF_NAME_MAX];
	struct snapshots all = { 0 };
	int r;

	*ret_removed = 0;
	if (keep->nr == 0)
		return 0;
	all.prefix = (size_t)snprintf(prefix, sizeof(prefix), REFS_AUTO "%s/",
				      branch);
	if (all.prefix >= sizeof(prefix))
		return why(ret_why, -ENAMETOOLONG, "%.60s...: too long",
			   branch);
	r = refs_each(repo, prefix, collect, &all, ret_why);
	if (r == 0)
		r = thin(repo, keep, &all, ret_removed, ret_why);
	for (size_t i = 0; i < all.nr; i++)
		free(all.list[i].name);
	free(all.list);
	return r;
}
