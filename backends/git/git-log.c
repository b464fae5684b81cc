/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-log.c - the snapshots of a disk: the commits of its branch, and those beside
 * it, to which only a reference leads.
 *
 * With --number no more commits are read than that of the branch and of each kind of
 * reference, whatever there is; the references' names are times.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "command/tables.h"
#include "git-tool.h"

struct entry {
	char id[OID_HEX + 1];
	int64_t time;
	size_t order; /* in which it was found: newer ones first */
	bool has_dirty;
	uint64_t dirty;
	enum consistency consistency;
	char *ref;
	char *message;
	char *domain;
	char *author;
};

struct found {
	char *name;
	uint8_t oid[OID_BYTES];
};

struct log {
	struct entry *entries;
	size_t nr, room;
	size_t shown; /* of them, once they are sorted */
	size_t most; /* of each kind */
	size_t left; /* of the kind that is read now */
	const char *ref; /* of the branch */
	struct found *refs;
	size_t nr_refs, refs_room;
};

/* Room for one more. */
static int make_room(void *io_array, size_t nr, size_t *io_room, size_t size)
{
	size_t room = 2 * *io_room + 16;
	void *array;

	if (nr < *io_room)
		return 0;
	array = reallocarray(*(void **)io_array, room, size);
	if (!array)
		return -ENOMEM;
	*(void **)io_array = array;
	*io_room = room;
	return 0;
}

static int add_commit(struct log *log, const struct commit_facts *commit,
		      const char *ref)
{
	struct entry *entry;
	int r = make_room(&log->entries, log->nr, &log->room,
			  sizeof(*log->entries));

	if (r < 0)
		return r;
	entry = &log->entries[log->nr];
	*entry = (struct entry){ .time = commit->time,
				 .order = log->nr++,
				 .has_dirty = commit->has_dirty,
				 .dirty = commit->dirty,
				 .consistency = commit->consistency,
				 .ref = strdup(ref),
				 .message = strdup(commit->message),
				 .domain = strdup(commit->domain),
				 .author = strdup(commit->author) };
	oid_hex(commit->id, entry->id);
	return entry->ref && entry->message && entry->domain && entry->author ?
		       0 :
		       -ENOMEM;
}

/* 1: it is enough. */
static int add_of_branch(void *ctx, const struct commit_facts *commit)
{
	struct log *log = ctx;

	if (log->left == 0)
		return 1;
	log->left--;
	return add_commit(log, commit, log->ref);
}

static int add_ref(void *ctx, const char *name, const uint8_t oid[OID_BYTES])
{
	struct log *log = ctx;
	struct found *found;
	int r = make_room(&log->refs, log->nr_refs, &log->refs_room,
			  sizeof(*log->refs));

	if (r < 0)
		return r;
	found = &log->refs[log->nr_refs];
	found->name = strdup(name);
	memcpy(found->oid, oid, OID_BYTES);
	log->nr_refs += found->name != NULL;
	return found->name ? 0 : -ENOMEM;
}

static int latest_name_first(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return strcmp(y->name, x->name);
}

/* Those of refs/xendisk/KIND/DISK/. */
static int add_beside(struct tool_repo *repo, struct log *log,
		      const char *folder, const char *disk, char *ret_why)
{
	cleanup_free char *prefix = xasprintf("%s%s/", folder, disk);
	struct commit_facts commit;
	int r = prefix ? refs_each(repo->git, prefix, add_ref, log, ret_why) :
			 -ENOMEM;

	if (log->nr_refs > 1)
		qsort(log->refs, log->nr_refs, sizeof(*log->refs),
		      latest_name_first);
	for (size_t i = 0; i < MIN(log->nr_refs, log->most) && r == 0; i++) {
		r = refs_commit(repo->git, log->refs[i].oid, &commit, ret_why);
		if (r == 0)
			r = add_commit(log, &commit, log->refs[i].name);
	}
	while (log->nr_refs > 0)
		free(log->refs[--log->nr_refs].name);
	return r;
}

static int newest_first(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? 1 : -1;
	return x->order < y->order ? -1 : 1;
}

static int read_log(struct tool_repo *repo, const char *disk, struct log *log,
		    char *ret_why)
{
	uint8_t head[OID_BYTES];
	int r = refs_read(repo->git, log->ref, head, ret_why);

	log->left = log->most;
	if (r == -ENOENT)
		tool_suggest_branch(repo, disk, ret_why);
	if (r == 0)
		r = refs_history(repo->git, head, add_of_branch, log, ret_why);
	if (r >= 0)
		r = add_beside(repo, log, REFS_AUTO, disk, ret_why);
	if (r == 0)
		r = add_beside(repo, log, REFS_DIVERGED, disk, ret_why);
	if (r == -ENOMEM)
		return why(ret_why, r, "no memory");
	if (log->nr > 1)
		qsort(log->entries, log->nr, sizeof(*log->entries),
		      newest_first);
	log->shown = MIN(log->nr, log->most);
	return r;
}

/* --- Printing ------------------------------------------------------------------------ */

/* As people write it; the reference of the branch says nothing new. */
static const char *short_ref(const struct log *log, const struct entry *entry)
{
	static const char front[] = "refs/xendisk/";

	if (strcmp(entry->ref, log->ref) == 0)
		return "";
	return strncmp(entry->ref, front, strlen(front)) == 0 ?
		       entry->ref + strlen(front) :
		       entry->ref;
}

static int add_row(struct table *table, const struct log *log,
		   const struct entry *entry)
{
	char id[13], date[40] = "?", dirty[32] = "", message[81];
	time_t seconds = (time_t)entry->time;
	struct tm tm;

	(void)snprintf(id, sizeof(id), "%.12s", entry->id);
	(void)snprintf(message, sizeof(message), "%.*s",
		       (int)strcspn(entry->message, "\r\n"), entry->message);
	if (localtime_r(&seconds, &tm))
		(void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	if (entry->has_dirty)
		print_size(dirty, sizeof(dirty), entry->dirty);
	return table_add(table, (const char *const[]){
					id, date, dirty,
					consistency_names[entry->consistency],
					message, short_ref(log, entry) });
}

static enum status print_table(const struct log *log)
{
	static const struct column columns[] = {
		{ .title = "COMMIT" },
		{ .title = "DATE" },
		{ .title = "CHANGED", .right = true },
		{ .title = "STATE" },
		{ .title = "MESSAGE", .truncate = true },
		{ .title = "BESIDE THE BRANCH" },
	};
	struct table *table;
	int r = table_new(&table, columns, ARRAY_SIZE(columns));

	for (size_t i = 0; i < log->shown && r == 0; i++)
		r = add_row(table, log, &log->entries[i]);
	return r < 0 ? fail(STATUS_FAILED, "git log: no memory") :
		       table_print(table);
}

static enum status print_list(const struct log *log)
{
	json_t *list = json_array();

	for (size_t i = 0; i < log->shown; i++) {
		const struct entry *entry = &log->entries[i];
		json_t *item = json_pack("{s:s,s:I,s:s,s:s}", "commit",
					 entry->id, "time",
					 (json_int_t)entry->time, "ref",
					 entry->ref, "consistency",
					 consistency_names[entry->consistency]);

		if (entry->has_dirty)
			json_object_set_new(
				item, "dirty",
				json_integer((json_int_t)entry->dirty));
		/* Which need not be UTF-8, and are left out then. */
		json_object_set_new(item, "message",
				    json_string(entry->message));
		json_object_set_new(item, "domain", json_string(entry->domain));
		json_object_set_new(item, "author", json_string(entry->author));
		json_array_append_new(list, item);
	}
	return print_json(json_pack("{s:o}", "snapshots", list));
}

static void free_log(struct log *log)
{
	for (size_t i = 0; i < log->nr; i++) {
		free(log->entries[i].ref);
		free(log->entries[i].message);
		free(log->entries[i].domain);
		free(log->entries[i].author);
	}
	free(log->entries);
	free(log->refs);
}

enum status verb_log(const struct invocation *call)
{
	const char *disk = call->args[1];
	const char *number = option(call, "number");
	uint64_t most = SIZE_MAX;
	char ref[REF_NAME_MAX];
	char reason[WHY_MAX];
	struct log log = { .ref = ref };
	struct tool_repo repo;
	enum status status;
	int r;

	if (number && (parse_u64(number, UINT32_MAX, &most) < 0 || most == 0))
		return tool_usage(call, "--number: \"%s\" is none", number);
	if (refs_check_branch(disk, reason) < 0)
		return tool_usage(call, "%s", reason);
	(void)snprintf(ref, sizeof(ref), REFS_HEADS "%s", disk);
	log.most = most;
	status = tool_open(call, call->args[0], &repo);
	if (status != STATUS_DONE)
		return status;
	r = read_log(&repo, disk, &log, reason);
	if (r < 0)
		status = tool_fail(call, r, disk, reason);
	else
		status = call->json ? print_list(&log) : print_table(&log);
	free_log(&log);
	tool_close(&repo);
	return status;
}
