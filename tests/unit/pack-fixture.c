/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/util.h"
#include "pack-fixture.h"

/* --- Repositories ----------------------------------------------------------------- */

/* Nobody's settings; temporary repositories need not be durable. */
#define GIT_ENV                                                      \
	"GIT_CONFIG_NOSYSTEM=1 HOME=/nonexistent GIT_AUTHOR_NAME=a " \
	"GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=c "       \
	"GIT_COMMITTER_EMAIL=c@example.org "

static int run_text(const char *text)
{
	cleanup_free char *command =
		xasprintf("export %s; { %s\n} 2>&1", GIT_ENV, text);
	char out[4096];
	FILE *pipe;
	size_t n;
	int status;

	assert_non_null(command);
	(void)fflush(stdout);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	n = fread(out, 1, sizeof(out) - 1, pipe);
	out[n] = '\0';
	while (fread(out + n, 1, 1, pipe) == 1 && n < 1)
		;
	status = pclose(pipe);
	if (status != 0)
		print_message("%s: status %d\n%s\n", text, status, out);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool has_git(void)
{
	bool has = run_text("git --version") == 0;

	if (!has)
		puts("1..0 # SKIP git is not installed");
	return has;
}

static char *with_path(const struct repo *repo, const char *format)
{
	cleanup_free char *text = strdup("");
	const char *p;

	for (; (p = strstr(format, "%s")); format = p + 2) {
		char *more = xasprintf("%s%.*s%s", text, (int)(p - format),
				       format, repo->path);

		free(text);
		text = more;
	}
	return xasprintf("%s%s", text, format);
}

int repo_run(const struct repo *repo, const char *format)
{
	cleanup_free char *text = with_path(repo, format);

	return run_text(text);
}

void repo_make(struct repo *ret)
{
	const char *tmp = getenv("TMPDIR");
	cleanup_free char *packs = NULL;

	(void)snprintf(ret->path, sizeof(ret->path), "%s/pack-test.XXXXXX",
		       tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	assert_non_null(mkdtemp(ret->path));
	assert_int_equal(
		repo_run(ret, "git init -q --bare %s && git -C %s config "
			      "core.fsync none && git -C %s config gc.auto 0"),
		0);
	packs = xasprintf("%s/objects/pack", ret->path);
	ret->dir = open(packs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(ret->dir >= 0);
}

void repo_remove(struct repo *repo)
{
	(void)close(repo->dir);
	assert_int_equal(repo_run(repo, "rm -rf %s"), 0);
}

unsigned int repo_files(const struct repo *repo, const char *part)
{
	int fd = openat(repo->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fdopendir(fd);
	const struct dirent *entry;
	unsigned int n = 0;

	assert_non_null(list);
	while ((entry = readdir(list)))
		if (entry->d_name[0] != '.' && strstr(entry->d_name, part))
			n++;
	(void)closedir(list);
	return n;
}

int repo_fsck(const struct repo *repo)
{
	return repo_run(repo, "git -C %s fsck --full --strict --no-dangling");
}

int repo_judge(const struct repo *repo)
{
	return repo_run(repo, "cd %s/objects/pack && set -e\n"
			      "for i in *.idx; do\n"
			      "  [ -e $i ] || continue\n"
			      "  git index-pack --strict -o ../x.idx "
			      "${i%idx}pack\n"
			      "  cmp ../x.idx $i\n"
			      "  rm -f ../x.idx ../x.rev\n"
			      "  git verify-pack -v $i > ../x.txt\n"
			      "done\n"
			      "git fsck --full --strict --no-dangling\n");
}

/* --- Content ------------------------------------------------------------------- */

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

void fill(uint8_t *buf, size_t n, enum stuff stuff, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u + 0x1234567;

	memset(buf, 0, n);
	for (size_t i = 0; i < n && stuff != ZEROES; i++) {
		uint64_t x = next(&state);

		if (stuff == NOISE || (stuff == HALF && i % 512 < 256) ||
		    (stuff == RECORDS && i % 64 < 8))
			buf[i] = (uint8_t)(x >> 24);
		else
			buf[i] = "etaoin shrdlu\n"[(x >> 24) % 14];
	}
	/* So that short ones differ, and none is zero. */
	if (stuff != ZEROES)
		for (size_t i = 0; i < MIN(n, 4u); i++)
			buf[i] = (uint8_t)(seed >> (8 * i)) ^ 0x80;
}

/* --- Models -------------------------------------------------------------------- */

void model_add(struct model *model, const uint8_t oid[OID_BYTES],
	       enum object_type type, const void *data, size_t n)
{
	struct known *more =
		realloc(model->known, (model->nr + 1) * sizeof(*more));
	struct known *known;

	assert_non_null(more);
	model->known = more;
	known = &more[model->nr++];
	memcpy(known->oid, oid, OID_BYTES);
	known->type = type;
	known->data = malloc(n + 1);
	assert_non_null(known->data);
	memcpy(known->data, data, n);
	known->n = n;
}

void model_free(struct model *model)
{
	for (size_t i = 0; i < model->nr; i++)
		free(model->known[i].data);
	free(model->known);
	*model = (struct model){ 0 };
}

/* One object of git cat-file --batch: "ID TYPE SIZE", its bytes, a line feed. */
static bool is_next(FILE *out, const struct known *known)
{
	static const char *const words[] = { "", "commit", "tree", "blob",
					     "tag" };
	cleanup_free uint8_t *data = malloc(known->n + 1);
	char hex[OID_HEX + 1], line[128], want[128];

	oid_hex(known->oid, hex);
	(void)snprintf(want, sizeof(want), "%s %s %zu\n", hex,
		       words[known->type], known->n);
	if (!fgets(line, sizeof(line), out) || strcmp(line, want) != 0) {
		print_message("instead of %s", want);
		return false;
	}
	return fread(data, 1, known->n + 1, out) == known->n + 1 &&
	       memcmp(data, known->data, known->n) == 0 &&
	       data[known->n] == '\n';
}

size_t model_missing(const struct model *model, const struct repo *repo)
{
	cleanup_free char *ids = xasprintf("%s/ids", repo->path);
	cleanup_free char *all = xasprintf("%s/all", repo->path);
	size_t missing = 0;
	FILE *file = fopen(ids, "we");

	assert_non_null(file);
	for (size_t i = 0; i < model->nr; i++) {
		char hex[OID_HEX + 1];

		oid_hex(model->known[i].oid, hex);
		(void)fprintf(file, "%s\n", hex);
	}
	assert_int_equal(fclose(file), 0);
	assert_int_equal(
		repo_run(repo, "git -C %s cat-file --batch < %s/ids > %s/all"),
		0);
	file = fopen(all, "re");
	assert_non_null(file);
	for (size_t i = 0; i < model->nr; i++)
		if (!is_next(file, &model->known[i])) {
			/* What follows is out of step. */
			missing = model->nr - i;
			break;
		}
	(void)fclose(file);
	return missing;
}
