/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-files.c - which files of a disk are others in another commit, for diff.
 *
 * Theory of operation
 *
 * What is on a disk a guest has written, who may be hostile, and the libraries that
 * read it were not made for that.  So a child reads, which can open nothing but objects
 * of the repository, and writes what it finds as lines of JSON into a pipe.  If it
 * ends in any other way than by saying so, the list is not whole, and that is said.
 *
 * File systems of the two commits belong together when they are in the partition of
 * the same number.  Where one of them has none that is known, or another kind, all
 * files are new, or gone.
 */
#include "config.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "command/tables.h"
#include "common/confine.h"
#include "fs-compare.h"
#include "fs-find.h"
#include "git-tool.h"

#define LINE_BYTES (4u << 20) /* of the child; a path has less */
#define CPU_SECONDS \
	3600u /* of the child: more has only what goes on for ever */
/* Of the child, bytes: the trees of two million files have half of it.  Tests have
 * less: XENDISK_DIFF_MEMORY is read in its place. */
#define MEMORY (2ull << 30)

/* --- The child: what it writes ---------------------------------------------------- */

struct finder {
	FILE *out;
	struct commit_disk *disks[2]; /* before, after */
	struct fs_volume *a, *b; /* what is compared */
	char why[WHY_MAX];
};

/* Takes the reference. */
static int put(struct finder *f, json_t *line)
{
	int r = line ? json_dumpf(line, f->out, JSON_COMPACT) : -1;

	json_decref(line);
	if (r < 0 || fputc('\n', f->out) == EOF)
		return why(f->why, -EIO, "no memory, or nobody listens");
	return 0;
}

/* One with a long path in it may have been cut in the middle of a character, which
 * JSON does not take. */
static json_t *sentence(char *text)
{
	json_t *ret = json_string(text);

	for (char *p = text; !ret && *p; p++)
		if (*p & 0x80)
			*p = '?';
	return ret ? ret : json_string(text);
}

static const char *kind_of(uint16_t mode)
{
	return S_ISDIR(mode)  ? "folder" :
	       S_ISREG(mode)  ? "file" :
	       S_ISLNK(mode)  ? "link" :
	       S_ISCHR(mode)  ? "character device" :
	       S_ISBLK(mode)  ? "block device" :
	       S_ISFIFO(mode) ? "pipe" :
	       S_ISSOCK(mode) ? "socket" :
				"unknown";
}

static json_t *octal_of(const struct fs_node *node)
{
	return json_sprintf("%06o", (unsigned int)node->mode);
}

static json_t *owner_of(const struct fs_node *node)
{
	return json_sprintf("%u:%u", node->uid, node->gid);
}

/* "mode": [WAS, IS] */
static void set_pair(json_t *line, json_t *what, const char *key,
		     json_t *(*get)(const struct fs_node *node),
		     const struct fs_node *a, const struct fs_node *b)
{
	(void)json_array_append_new(what, json_string(key));
	(void)json_object_set_new(line, key,
				  json_pack("[o,o]", get(a), get(b)));
}

static int put_change(void *ctx, const struct fs_change *change)
{
	struct finder *f = ctx;
	bool is_gone = change->b == FS_NONE, is_new = change->a == FS_NONE;
	const struct fs_tree *tree = is_gone ? &f->a->tree : &f->b->tree;
	uint32_t at = is_gone ? change->a : change->b;
	cleanup_free char *path = fs_tree_path(tree, at);
	cleanup_free char *from =
		change->renamed ? fs_tree_path(&f->a->tree, change->a) : NULL;
	json_t *line = json_pack("{s:s,s:s}", "path", path ? path : "", "kind",
				 kind_of(tree->nodes[at].mode));
	json_t *what = json_array();
	const struct fs_node *a, *b;

	if (!path || (change->renamed && !from) || !line || !what)
		return why(f->why, -ENOMEM, "no memory");
	if (is_gone || is_new)
		(void)json_array_append_new(
			what, json_string(is_gone ? "removed" : "added"));
	if (from) {
		(void)json_array_append_new(what, json_string("renamed"));
		(void)json_object_set_new(line, "from", json_string(from));
	}
	if (change->content)
		(void)json_array_append_new(what, json_string("content"));
	if (change->mode || change->owner) {
		a = &f->a->tree.nodes[change->a];
		b = &f->b->tree.nodes[change->b];
		if (change->mode)
			set_pair(line, what, "mode", octal_of, a, b);
		if (change->owner)
			set_pair(line, what, "owner", owner_of, a, b);
	}
	(void)json_object_set_new(line, "what", what);
	return put(f, line);
}

/* --- The child: what it reads ------------------------------------------------------ */

/* One of two that are compared; ops: what it would be. */
static int read_side(struct finder *f, unsigned int side,
		     const struct fs_place *place, const struct fs_ops *ops,
		     struct fs_volume *ret)
{
	char reason[WHY_MAX];
	int r;

	*ret = (struct fs_volume){ .ops = ops, .disk = f->disks[side] };
	if (!place || place->ops != ops)
		return fs_volume_empty(ret, f->why);
	ret->partition = place->partition;
	ret->start = place->start;
	ret->size = place->size;
	r = fs_volume_read(ret, reason);
	return r < 0 ? why(f->why, r, "%s it cannot be read: %.450s",
			   side ? "after:" : "before:", reason) :
		       0;
}

static int compare_as(struct finder *f, const struct fs_place *a,
		      const struct fs_place *b, const struct fs_ops *ops)
{
	struct fs_volume before, after;
	int r;

	r = read_side(f, 0, a, ops, &before);
	if (r < 0) {
		fs_volume_free(&before);
		return r;
	}
	f->a = &before;
	f->b = &after;
	r = read_side(f, 1, b, ops, &after);
	if (r == 0 && (*before.note || *after.note))
		r = put(f, json_pack("{s:s}", "note",
				     *after.note ? after.note : before.note));
	if (r == 0)
		r = fs_compare(&before, &after, put_change, f, f->why);
	fs_volume_free(&before);
	fs_volume_free(&after);
	return r;
}

/* One kind of file system in a partition; the sentence is part of the answer. */
static int tell_place(struct finder *f, const struct fs_place *a,
		      const struct fs_place *b, const struct fs_ops *ops)
{
	int r = put(f,
		    json_pack("{s:i,s:s}", "partition",
			      (int)(a ? a : b)->partition, "type", ops->name));

	if (r < 0)
		return r;
	if (compare_as(f, a, b, ops) < 0)
		r = put(f, json_pack("{s:o}", "error", sentence(f->why)));
	return r;
}

static const struct fs_place *find_place(const struct fs_place *places, int nr,
					 unsigned int partition)
{
	for (int i = 0; i < nr; i++)
		if (places[i].partition == partition)
			return &places[i];
	return NULL;
}

static int tell_both(struct finder *f, const struct fs_place *a,
		     const struct fs_place *b)
{
	int r = 0;

	if (a && a->ops && (!b || a->ops != b->ops))
		r = tell_place(f, a, b, a->ops);
	if (r == 0 && b && b->ops)
		r = tell_place(f, a, b, b->ops);
	return r;
}

static int find_all(struct finder *f)
{
	static struct fs_place before[FS_MAX_PLACES], after[FS_MAX_PLACES];
	int nr_before = fs_find(f->disks[0], before, f->why), nr_after, r = 0;

	if (nr_before < 0)
		return nr_before;
	nr_after = fs_find(f->disks[1], after, f->why);
	if (nr_after < 0)
		return nr_after;
	for (int i = 0; i < nr_before && r == 0; i++)
		r = tell_both(f, &before[i],
			      find_place(after, nr_after, before[i].partition));
	for (int i = 0; i < nr_after && r == 0; i++)
		if (!find_place(before, nr_before, after[i].partition))
			r = tell_both(f, NULL, &after[i]);
	return r;
}

/* --- The child itself -------------------------------------------------------------- */

static uint64_t memory(void)
{
	const char *text = secure_getenv("XENDISK_DIFF_MEMORY");
	uint64_t bytes;

	return text && parse_u64(text, MEMORY, &bytes) == 0 ? bytes : MEMORY;
}

static int confine(const struct tool_repo *repo, char *ret_why)
{
	const struct confine_path objects = { repo->objects, CONFINE_READ };
	const struct rlimit time = { CPU_SECONDS, CPU_SECONDS };
	const struct rlimit none = { 0, 0 };
	int r;

	confine_ordinary();
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    setrlimit(RLIMIT_CPU, &time) < 0 ||
	    setrlimit(RLIMIT_CORE, &none) < 0)
		return why(ret_why, -errno, "giving up rights: %s",
			   strerror(errno));
	r = confine_memory(memory());
	if (r == 0)
		r = confine_paths(&objects, 1);
	return r < 0 ? why(ret_why, r, "giving up rights: %s", strerror(-r)) :
		       0;
}

static void child(const struct tool_repo *repo, struct chunk_map *a,
		  struct chunk_map *b, int out)
{
	struct finder f = { .out = fdopen(out, "w") };
	int r = confine(repo, f.why);

	(void)signal(SIGINT, SIG_DFL);
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGHUP, SIG_DFL);
	if (!f.out)
		_exit(1);
	if (r == 0 && (commit_disk_new(&f.disks[0], a, &repo->source) < 0 ||
		       commit_disk_new(&f.disks[1], b, &repo->source) < 0))
		r = why(f.why, -ENOMEM, "no memory");
	if (r == 0)
		r = find_all(&f);
	r = put(&f, r < 0 ? json_pack("{s:o}", "failed", sentence(f.why)) :
			    json_pack("{s:b}", "end", 1));
	commit_disk_free(f.disks[0]);
	commit_disk_free(f.disks[1]);
	_exit(r < 0 || fclose(f.out) != 0);
}

/* --- What it said ------------------------------------------------------------------ */

struct listener {
	const struct invocation *call;
	json_t *list; /* of file systems; NULL: lines are printed */
	json_t *changes; /* of the last one */
	char head[80]; /* of the last one, until it has been printed */
	const char *name; /* for errors */
	bool ended, failed;
};

static void begin_place(struct listener *l, json_t *line)
{
	int partition =
		(int)json_integer_value(json_object_get(line, "partition"));

	if (partition > 0)
		(void)snprintf(l->head, sizeof(l->head), "partition %d, %.40s",
			       partition, member_text(line, "type"));
	else
		(void)snprintf(l->head, sizeof(l->head), "%.40s",
			       member_text(line, "type"));
	if (!l->list)
		return;
	l->changes = json_array();
	(void)json_object_set_new(line, "changes", l->changes);
	(void)json_array_append(l->list, line);
}

static void print_head(struct listener *l)
{
	if (!*l->head)
		return;
	print_clean(stdout, l->head);
	puts(":");
	l->head[0] = '\0';
}

static void print_path(json_t *line)
{
	print_clean(stdout, member_text(line, "path"));
	if (strcmp(member_text(line, "kind"), "folder") == 0 &&
	    strcmp(member_text(line, "path"), "/") != 0)
		putchar('/');
}

/* "  WAS -> IS" of what has such values. */
static void print_pair(json_t *pair)
{
	const char *was = json_string_value(json_array_get(pair, 0));
	const char *is = json_string_value(json_array_get(pair, 1));

	if (!was || !is)
		return;
	fputs("  ", stdout);
	print_clean(stdout, was);
	fputs(" -> ", stdout);
	print_clean(stdout, is);
}

static void print_change(struct listener *l, json_t *line)
{
	json_t *what;
	size_t i;

	print_head(l);
	json_array_foreach(json_object_get(line, "what"), i, what)
	{
		const char *word = json_string_value(what);

		if (!word)
			continue;
		print_clean(stdout, word);
		printf("%*s", MAX(0, 9 - (int)strlen(word)), "");
		if (strcmp(word, "renamed") == 0) {
			print_clean(stdout, member_text(line, "from"));
			fputs(" -> ", stdout);
		}
		print_path(line);
		print_pair(json_object_get(line, word));
		putchar('\n');
	}
}

/* A sentence about a file system, for people on stderr; it stays in the JSON. */
static void tell(struct listener *l, json_t *line, const char *key)
{
	json_t *place = json_array_get(l->list, json_array_size(l->list) - 1);

	if (place)
		(void)json_object_update(place, line);
	else
		(void)tool_fail(l->call, -EBADMSG, *l->head ? l->head : l->name,
				member_text(line, key));
}

static void take_line(struct listener *l, json_t *line)
{
	if (json_object_get(line, "end")) {
		l->ended = true;
	} else if (json_object_get(line, "failed")) {
		(void)tool_fail(l->call, -EBADMSG, l->name,
				member_text(line, "failed"));
		l->failed = true;
	} else if (json_object_get(line, "type")) {
		begin_place(l, line);
	} else if (json_object_get(line, "path")) {
		if (l->list)
			(void)json_array_append(l->changes, line);
		else
			print_change(l, line);
	} else if (json_object_get(line, "note")) {
		tell(l, line, "note");
	} else if (json_object_get(line, "error")) {
		tell(l, line, "error");
	}
}

static void listen_to(struct listener *l, int fd)
{
	cleanup_file FILE *in = fdopen(fd, "r");
	cleanup_free char *text = malloc(LINE_BYTES);

	while (in && text && fgets(text, LINE_BYTES, in)) {
		json_t *line = json_loads(text, 0, NULL);
		bool makes_sense = json_is_object(line);

		if (makes_sense)
			take_line(l, line);
		json_decref(line);
		if (!makes_sense || l->ended || l->failed)
			break;
	}
}

static enum status end_of(struct listener *l, pid_t pid)
{
	char reason[WHY_MAX] = "it has ended too early";
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (l->failed)
		return STATUS_FAILED;
	if (l->ended)
		return STATUS_DONE;
	if (WIFSIGNALED(status))
		(void)snprintf(reason, sizeof(reason), "it ended by signal %d",
			       WTERMSIG(status));
	return tool_fail(l->call, -EIO, "reading the files", reason);
}

enum status tool_diff_files(const struct invocation *call,
			    const struct tool_repo *repo, struct chunk_map *a,
			    struct chunk_map *b, json_t *ret_list)
{
	struct listener l = { .call = call,
			      .list = ret_list,
			      .name = call->args[2] };
	int ends[2];
	pid_t pid;

	fflush(stdout);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return tool_fail(call, -errno, "a pipe", strerror(errno));
	pid = fork();
	if (pid == 0) {
		(void)close(ends[0]);
		child(repo, a, b, ends[1]);
	}
	(void)close(ends[1]);
	if (pid < 0) {
		(void)close(ends[0]);
		return tool_fail(call, -EAGAIN, "a process", strerror(errno));
	}
	listen_to(&l, ends[0]);
	return end_of(&l, pid);
}
