/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo-config.c - libgit2's own parser says what a file includes, since nobody else
 * reads it in quite the same way.  So that it follows nothing, it is given a copy in
 * memory, in which the section has another name: a mark is put before "include".  The
 * mark is random; what is written to be taken for one is not.
 *
 * Conditions (includeIf) are not looked at: what would be included under another one
 * has to be a plain file, too.
 */
#include "config.h"

#include "repo-config.h"

#include <fcntl.h>
#include <git2.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/util.h"
#include "repo.h"

#define DEPTH_MOST 10u /* libgit2's */
#define FILES_MOST 256u
#define BYTES_MOST (1u << 20) /* of a file */
#define WORD	   "include"

struct look {
	char mark[sizeof("x0123456789abcdef")];
	const char *path; /* of the file that is looked at; NULL: of none */
	unsigned int depth, files;
	int error;
	char *why;
};

static int look_at(struct look *look, const char *path);

/* --- What it includes ------------------------------------------------------------- */

static bool is_include(const struct look *look, const char *name)
{
	const char *end = strrchr(name, '.');

	if (strncmp(name, look->mark, strlen(look->mark)) != 0)
		return false;
	name += strlen(look->mark);
	return strcmp(name, "include.path") == 0 ||
	       (strncmp(name, "includeif.", strlen("includeif.")) == 0 &&
		strcmp(end, ".path") == 0);
}

static void drop_marks(const struct look *look, char *io_text)
{
	size_t n = strlen(look->mark);

	for (char *p = strstr(io_text, look->mark); p;
	     p = strstr(p, look->mark))
		memmove(p, p + n, strlen(p + n) + 1);
}

/* Home is where libgit2 believes it to be. */
static char *below_home(const char *rest)
{
	git_buf home = { 0 };
	char *path = NULL;

	if (git_libgit2_opts(GIT_OPT_GET_SEARCH_PATH, GIT_CONFIG_LEVEL_GLOBAL,
			     &home) == 0)
		path = xasprintf("%s%s", home.ptr, rest);
	git_buf_dispose(&home);
	return path;
}

/* To be freed. */
static char *find_path(const char *from, const char *value)
{
	if (value[0] == '/')
		return strdup(value);
	if (strncmp(value, "~/", 2) == 0)
		return below_home(value + 1);
	return xasprintf("%.*s/%s", (int)(strrchr(from, '/') - from), from,
			 value);
}

/* Not 0: no more of them. */
static int follow(const git_config_entry *entry, void *ctx)
{
	struct look *look = ctx;
	cleanup_free char *value = NULL;
	cleanup_free char *path = NULL;

	if (!is_include(look, entry->name) || !entry->value)
		return 0;
	value = strdup(entry->value);
	if (value) {
		drop_marks(look, value);
		path = find_path(look->path, value);
	}
	look->error = path ? look_at(look, path) :
			     why(look->why, -ENOMEM, "no memory");
	return look->error;
}

/* --- The copy --------------------------------------------------------------------- */

static int write_copy(const struct look *look, FILE *to, const char *text,
		      size_t n)
{
	for (size_t i = 0; i < n; i++) {
		(void)putc_unlocked(text[i], to);
		if (text[i] == '[' &&
		    strncasecmp(text + i + 1, WORD, strlen(WORD)) == 0)
			(void)fputs(look->mark, to);
	}
	return fflush(to) == 0 ? 0 : -errno;
}

static FILE *open_copy(void)
{
	cleanup_close int fd = memfd_create("config", MFD_CLOEXEC);
	FILE *copy = fd < 0 ? NULL : fdopen(fd, "w");

	if (copy)
		(void)TAKE_FD(fd);
	return copy;
}

/* What libgit2 cannot read has a line, and is not called what the copy is. */
static int broken(const struct look *look)
{
	const git_error *e = git_error_last();
	const char *said = e && e->message ? e->message : "it fails";
	const char *in = strstr(said, " (in /proc/");
	const char *line = in ? strrchr(in, ':') : NULL;

	return why(look->why, -EINVAL, "%.200s: %.*s%s%.*s", look->path,
		   in ? (int)(in - said) : 200, said, line ? ", line " : "",
		   line ? (int)strspn(line + 1, "0123456789") : 0,
		   line ? line + 1 : "");
}

static int follow_all(struct look *look, const char *text, size_t n)
{
	cleanup_file FILE *copy = open_copy();
	int r = copy ? write_copy(look, copy, text, n) : -errno;
	git_config *config = NULL;
	char name[40];

	if (r < 0)
		return why(look->why, r, "a copy of %.200s: %s", look->path,
			   strerror(-r));
	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fileno(copy));
	if (git_config_open_ondisk(&config, name) < 0)
		return broken(look);
	look->error = 0;
	if (git_config_foreach(config, follow, look) < 0 && look->error == 0)
		look->error = broken(look);
	git_config_free(config);
	return look->error;
}

/* --- A file ----------------------------------------------------------------------- */

static int refuse(const struct look *look, int err, const char *path,
		  const char *fault)
{
	return look->path ? why(look->why, err,
				"%.200s includes %.200s, which is %s",
				look->path, path, fault) :
			    why(look->why, err, "%.200s is %s", path, fault);
}

/* Where nothing is wanted. */
static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* Not for reading: a FIFO would keep us, and a device may do what nobody wants.  1: it
 * is to be read. */
static int check(const struct look *look, int at, const char *path,
		 size_t *ret_bytes)
{
	struct stat st;

	if (fstat(at, &st) < 0 || is_null(&st))
		return 0;
	if (!S_ISREG(st.st_mode))
		return refuse(look, -EBADMSG, path, "no plain file");
	if ((uint64_t)st.st_size > BYTES_MOST)
		return refuse(look, -EFBIG, path, "too large");
	*ret_bytes = (size_t)st.st_size;
	return 1;
}

/* NULL, and *ret_r 0: there is none, or libgit2 cannot read it, either. */
static char *read_file(const struct look *look, const char *path,
		       size_t *ret_bytes, int *ret_r)
{
	cleanup_close int at = open(path, O_PATH | O_CLOEXEC);
	cleanup_close int fd = -1;
	char name[40], *text;

	*ret_r = at < 0 ? 0 : check(look, at, path, ret_bytes);
	if (*ret_r <= 0)
		return NULL;
	*ret_r = 0;
	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", at);
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	text = fd < 0 ? NULL : calloc(1, *ret_bytes + 1);
	if (!text || pread_all(fd, text, *ret_bytes, 0) == 0)
		return text;
	free(text);
	return NULL;
}

static int look_at(struct look *look, const char *path)
{
	const char *from = look->path;
	cleanup_free char *text = NULL;
	size_t n;
	int r;

	if (look->depth > DEPTH_MOST)
		return refuse(look, -ELOOP, path, "more than 10 deep");
	if (look->files++ > FILES_MOST)
		return refuse(look, -EFBIG, path, "one of more than 256 files");
	text = read_file(look, path, &n, &r);
	if (!text)
		return r;
	look->path = path;
	look->depth++;
	r = follow_all(look, text, n);
	look->depth--;
	look->path = from;
	return r;
}

/* Those of whoever we are: root is the owner of a repository while it is looked at. */
static int look_at_others(struct look *look)
{
	int (*const find[])(git_buf * ret) = { git_config_find_system,
					       git_config_find_xdg,
					       git_config_find_global };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(find) && r == 0; i++) {
		git_buf path = { 0 };

		if (find[i](&path) == 0)
			r = look_at(look, path.ptr);
		git_buf_dispose(&path);
	}
	return r;
}

int repo_check_config(int dir, char *ret_why)
{
	struct look look = { .why = ret_why };
	char link[40], path[PATH_MAX + sizeof("/config")];
	uint64_t random;
	ssize_t n;
	int r;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, path, PATH_MAX);
	if (n < 0 || n == PATH_MAX)
		return why(ret_why, n < 0 ? -errno : -ENAMETOOLONG,
			   "the path of the repository");
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return why(ret_why, -EIO, "no random numbers");
	(void)snprintf(look.mark, sizeof(look.mark), "x%016" PRIx64, random);
	memcpy(path + n, "/config", sizeof("/config"));
	r = look_at(&look, path);
	return r < 0 ? r : look_at_others(&look);
}
