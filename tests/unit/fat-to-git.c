/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-to-git - what a disk that may be written does with git, without a disk: for
 * test-fat-tree.sh.
 *
 *	fat-to-git lay REPO REVISION SIZE IMAGE	  writes the disk
 *	fat-to-git take REPO REVISION SIZE IMAGE  the tree that it should be now
 *
 * take says "CHANGE PATH" for each change, then "read FILES" and "tree ID".
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include <git2.h>

#include "../../backends/git/fat-tree.h"
#include "../../backends/git/repo.h"
#include "../../backends/git/tree-disk.h"
#include "common/util.h"

#define PIECE 65536u

struct job {
	int dir, image;
	struct revision rev;
	struct tree_disk disk;
	struct tree_reader *reader;
	git_odb *odb;
	char why[WHY_MAX];
};

static _Noreturn void fail(const struct job *job, const char *what)
{
	(void)fprintf(stderr, "%s: %s\n", what, job->why);
	exit(1);
}

/* --- The disk ---------------------------------------------------------------- */

static void lay_out(struct job *job, const char *rev, uint64_t size)
{
	struct layout_options options = { .label = "GITFS",
					  .writable = true,
					  .size = size };
	struct build_source source = { .follow = true, .about = "test\n" };
	struct build_counts counts;
	int objects = openat(job->dir, "objects", O_RDONLY | O_DIRECTORY);

	if (repo_resolve(job->dir, rev, &job->rev, job->why) < 0)
		fail(job, rev);
	memcpy(source.tree, job->rev.tree, OID_BYTES);
	memcpy(options.id, job->rev.id, OID_BYTES);
	source.time = job->rev.time;
	if (tree_disk_make(&job->disk, objects, &source, &fat_ops, &options,
			   &counts, job->why) < 0)
		fail(job, rev);
	(void)close(objects);
	if (tree_reader_new(&job->reader, &job->disk) < 0)
		fail(job, "reader");
}

static void lay(struct job *job)
{
	static const uint8_t zeroes[PIECE];
	uint64_t size = job->disk.layout->size;
	uint8_t buf[PIECE];

	if (ftruncate(job->image, (off_t)size) < 0)
		fail(job, "truncate");
	for (uint64_t at = 0; at < size; at += PIECE) {
		size_t n = (size_t)MIN(PIECE, size - at);

		if (tree_reader_read(job->reader, at, buf, n) < 0)
			fail(job, "read");
		if (memcmp(buf, zeroes, n) != 0 &&
		    pwrite_all(job->image, buf, n, at) < 0)
			fail(job, "write");
	}
}

/* --- What is on it now --------------------------------------------------------- */

static int read_image(void *ctx, uint64_t offset, void *buf, size_t n)
{
	return pread_all(((struct job *)ctx)->image, buf, n, offset);
}

static int read_tree(void *ctx, const uint8_t oid[OID_BYTES], uint8_t **ret,
		     size_t *ret_n, char *ret_why)
{
	struct job *job = ctx;
	git_odb_object *object;
	git_oid id;

	git_oid_fromraw(&id, oid);
	if (git_odb_read(&object, job->odb, &id) < 0)
		return why(ret_why, -ENOENT, "a tree is not there");
	*ret_n = git_odb_object_size(object);
	*ret = malloc(*ret_n + 1);
	memcpy(*ret, git_odb_object_data(object), *ret_n);
	git_odb_object_free(object);
	return 0;
}

static bool is_untouched(void *ctx, const struct fat_run *run,
			 uint32_t *ret_node)
{
	struct job *job = ctx;
	const struct layout *layout = job->disk.layout;
	struct piece piece =
		layout->ops->find(layout, run->offset, run->length);
	uint8_t now[4096], laid[4096];

	for (uint64_t at = 0; at < run->length; at += sizeof(now)) {
		size_t n = (size_t)MIN(run->length - at, sizeof(now));

		if (read_image(job, run->offset + at, now, n) < 0 ||
		    tree_reader_read(job->reader, run->offset + at, laid, n) <
			    0 ||
		    memcmp(now, laid, n) != 0)
			return false;
	}
	*ret_node = piece.node;
	return piece.kind == PIECE_FILE && piece.at == 0;
}

static int put(void *ctx, enum object_type type, const void *data, size_t n,
	       uint8_t ret_oid[OID_BYTES], char *ret_why)
{
	struct job *job = ctx;
	git_oid id;

	if (git_odb_write(&id, job->odb, data, n, (git_object_t)type) < 0)
		return why(ret_why, -EIO, "%s", git_error_last()->message);
	memcpy(ret_oid, id.id, OID_BYTES);
	return 0;
}

static void changed(void *ctx, enum fat_change change, const char *path)
{
	(void)ctx;
	(void)printf("%c\t%s\n", (char)change, path);
}

static void take(struct job *job)
{
	const struct fat_source source = { .read = read_image, .ctx = job };
	const struct fat_tree_ops ops = { .read_tree = read_tree,
					  .untouched = is_untouched,
					  .put = put,
					  .changed = changed,
					  .ctx = job };
	struct fat_tree_counts counts;
	struct fat_volume *volume;
	uint8_t tree[OID_BYTES];
	char hex[OID_HEX + 1];

	if (fat_volume_read(&volume, &source, 0, job->disk.layout->size,
			    job->why) < 0 ||
	    fat_tree_make(&job->disk.tree, job->rev.tree, volume, &ops, tree,
			  &counts, job->why) < 0)
		fail(job, "take");
	oid_hex(tree, hex);
	(void)printf("read %u\ntree %s\n", counts.read, hex);
	fat_volume_free(volume);
}

int main(int argc, char **argv)
{
	struct job job = { .why = "" };
	bool lays = argc == 6 && strcmp(argv[1], "lay") == 0;
	git_repository *repo;
	uint64_t size;

	if (argc != 6 || parse_size(argv[4], &size) < 0) {
		(void)fprintf(stderr, "wrong arguments\n");
		return 2;
	}
	(void)git_libgit2_init();
	job.dir = open(argv[2], O_RDONLY | O_DIRECTORY);
	job.image =
		open(argv[5], O_RDWR | (lays ? O_CREAT | O_TRUNC : 0), 0600);
	if (job.dir < 0 || job.image < 0 ||
	    git_repository_open(&repo, argv[2]) < 0 ||
	    git_repository_odb(&job.odb, repo) < 0)
		fail(&job, argv[2]);
	lay_out(&job, argv[3], size);
	if (lays)
		lay(&job);
	else
		take(&job);
	tree_reader_free(job.reader);
	tree_disk_free(&job.disk);
	git_odb_free(job.odb);
	git_repository_free(repo);
	return 0;
}
