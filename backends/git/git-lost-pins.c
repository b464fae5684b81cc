/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * An overlay that begins anew (rollback) has another id, and the pins of the one that
 * was are released afterwards: a death in between leaves them, and nobody else knows
 * their names.
 *
 * An overlay is durable before it has a pin.  So the pins are listed first, by a child
 * that becomes the owner of the repository, and then the overlays, which are root's:
 * one that is made meanwhile is not taken for lost.
 *
 * There may be other state directories, of xendisk serve or of a machine that has the
 * same name, and their pins look the same.  rollback leaves an overlay of the branch
 * behind: a pin is lost only if there is one here, of this repository, with another id.
 */
#include "config.h"

#include "git-lost-pins.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "overlay-meta.h"
#include "pins.h"

#define ID_DIGITS 8u /* of an overlay, in the name of a pin */

struct search {
	const struct invocation *call;
	int list; /* file of names */
	char repo[PATH_MAX]; /* its path */
	char *ids; /* of the overlays: "deadbeef " each */
	char *folders; /* of pins of their branches: "\nrefs/.../web/\n" each */
	char reason[WHY_MAX];
};

/* --- Pins ----------------------------------------------------------------------- */

static int put_pin(void *ctx, const char *name, const uint8_t oid[OID_BYTES])
{
	const struct search *s = ctx;

	(void)oid;
	return dprintf(s->list, "%s\n", name) < 0 ? -errno : 0;
}

static enum status list_pins(void *ctx)
{
	struct search *s = ctx;
	struct tool_repo repo;
	enum status status = tool_open(s->call, s->call->args[0], &repo);
	int r;

	if (status != STATUS_DONE)
		return status;
	r = refs_each(repo.git, REFS_PINS, put_pin, s, s->reason);
	tool_close(&repo);
	return r < 0 ? tool_fail(s->call, r, s->call->args[0], s->reason) :
		       STATUS_DONE;
}

/* ".../HOST.ID/GENERATION" of this host: where its ID is, or NULL. */
static const char *find_id(const char *name, const char *host)
{
	const char *end = strrchr(name, '/'), *id;
	size_t n = strlen(host);

	if (!end || (size_t)(end - name) < n + ID_DIGITS + 2)
		return NULL;
	id = end - ID_DIGITS;
	return id[-1] == '.' && id[-(int)n - 2] == '/' &&
			       strncmp(id - n - 1, host, n) == 0 ?
		       id :
		       NULL;
}

/* --- Overlays ------------------------------------------------------------------- */

struct lists {
	FILE *ids, *folders; /* of struct search */
	const char *repo;
};

static void put_overlay(const struct lists *lists, const struct meta *meta)
{
	for (unsigned int i = 0; i < ID_DIGITS / 2; i++)
		fprintf(lists->ids, "%02x", meta->uuid[i]);
	fputc(' ', lists->ids);
	if (strncmp(meta->repo, lists->repo, sizeof(meta->repo)) == 0)
		fprintf(lists->folders, "\n" REFS_PINS "%.*s/\n",
			(int)sizeof(meta->branch), meta->branch);
}

static int look_at(const char *text, int folder, const char *name,
		   const struct lists *lists, char *ret_why)
{
	cleanup_free char *path = xasprintf("%s/meta", name);
	cleanup_close int fd = -1;
	char reason[WHY_MAX];
	struct meta meta;
	int r;

	if (!path)
		return why(ret_why, -ENOMEM, "no memory");
	fd = openat(folder, path,
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ?
			       0 :
			       why(ret_why, -errno, "%s/%s: %s", text, path,
				   strerror(errno));
	r = meta_read(fd, &meta, reason);
	if (r == -ENODATA) /* nothing was ever written */
		return 0;
	/* Whose pins are its own cannot be told. */
	if (r < 0)
		return why(ret_why, r, "%.100s/%.100s: %.200s", text, path,
			   reason);
	put_overlay(lists, &meta);
	return 0;
}

static int read_overlays(const char *text, const struct lists *lists,
			 char *ret_why)
{
	const struct dirent *entry;
	DIR *folder = opendir(text);
	int r = 0;

	if (!folder)
		return why(ret_why, -errno, "%s: %s", text, strerror(errno));
	while (r == 0 && (errno = 0, entry = readdir(folder)))
		if (entry->d_name[0] != '.')
			r = look_at(text, dirfd(folder), entry->d_name, lists,
				    ret_why);
	/* What has not been seen would be taken for lost. */
	if (r == 0 && errno)
		r = why(ret_why, -errno, "%s: %s", text, strerror(errno));
	(void)closedir(folder);
	return r;
}

static int list_overlays(struct search *s, const char *state_dir)
{
	cleanup_free char *text = xasprintf("%s/git", state_dir);
	size_t ids_size, folders_size;
	const struct lists lists = {
		.ids = open_memstream(&s->ids, &ids_size),
		.folders = open_memstream(&s->folders, &folders_size),
		.repo = s->repo,
	};
	int r = -ENOMEM;

	if (lists.ids && lists.folders && text)
		r = read_overlays(text, &lists, s->reason);
	if (lists.ids && fclose(lists.ids) != 0 && r == 0)
		r = -ENOMEM;
	if (lists.folders && fclose(lists.folders) != 0 && r == 0)
		r = -ENOMEM;
	return r;
}

/* --- Both ----------------------------------------------------------------------- */

static bool is_lost(const struct search *s, const char *name, const char *host)
{
	const char *id = find_id(name, host);
	char word[ID_DIGITS + 2], folder[REF_NAME_MAX + 2];

	if (!id)
		return false;
	(void)snprintf(word, sizeof(word), "%.*s ", (int)ID_DIGITS, id);
	(void)snprintf(folder, sizeof(folder), "\n%.*s\n",
		       (int)(id - name - strlen(host) - 1), name);
	return !strstr(s->ids, word) && strstr(s->folders, folder);
}

static int choose(struct search *s, FILE *list, char **ret)
{
	cleanup_free char *name = NULL;
	char host[PIN_HOST_MAX];
	size_t room = 0, size;
	FILE *lost = open_memstream(ret, &size);
	ssize_t n;

	if (!lost)
		return -ENOMEM;
	pin_host(host);
	while ((n = getline(&name, &room, list)) > 0) {
		name[n - 1] = '\0';
		if (is_lost(s, name, host))
			fprintf(lost, "%s\n", name);
	}
	return fclose(lost) == 0 ? 0 : -ENOMEM;
}

/* As an overlay has it. */
static enum status find_path(struct search *s)
{
	struct tool_repo repo;
	enum status status = tool_open_folder(s->call, s->call->args[0], &repo);
	char link[32];
	ssize_t n;

	if (status != STATUS_DONE)
		return status;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", repo.dir);
	n = readlink(link, s->repo, sizeof(s->repo) - 1);
	if (n < 0)
		status = tool_fail(s->call, -errno, s->call->args[0],
				   strerror(errno));
	tool_close(&repo);
	return status;
}

enum status lost_pins_find(const struct invocation *call, const char *state_dir,
			   char **ret)
{
	struct search s = { .call = call };
	enum status status;
	FILE *list;
	int r;

	s.list = memfd_create("pins", MFD_CLOEXEC);
	list = s.list < 0 ? NULL : fdopen(s.list, "r");
	if (!list)
		return tool_fail(call, -errno, "pins", strerror(errno));
	status = find_path(&s);
	if (status == STATUS_DONE)
		status = tool_in_child(call, list_pins, &s);
	if (status == STATUS_DONE) {
		r = list_overlays(&s, state_dir);
		rewind(list);
		if (r == 0)
			r = choose(&s, list, ret);
		if (r < 0)
			status = tool_fail(call, r, "the state directory",
					   *s.reason ? s.reason : strerror(-r));
	}
	free(s.ids);
	free(s.folders);
	(void)fclose(list);
	return status;
}

int lost_pins_remove(struct git_repository *repo, const char *names,
		     char *ret_why)
{
	int r = 0;

	while (*names && r == 0) {
		size_t n = strcspn(names, "\n");
		char name[REF_NAME_MAX];
		uint8_t oid[OID_BYTES];

		(void)snprintf(name, sizeof(name), "%.*s", (int)n, names);
		names += n + (names[n] == '\n');
		r = refs_read(repo, name, oid, ret_why);
		if (r == 0)
			r = refs_update(repo, name, oid, NULL,
					"xendisk: its overlay is no more",
					ret_why);
		if (r == -ENOENT || r == -ESTALE)
			r = 0;
	}
	return r;
}
