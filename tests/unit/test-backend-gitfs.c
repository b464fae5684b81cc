/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gitfs on the real stack: in any order, from any lane, the same bytes; and what
 * becomes of a disk when its repository does not stay as it was.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <cmocka.h>

#include "common/util.h"
#include "rig.h"

#define CHUNK (64u << 10)

static const char disk[] = "gitfs(@/r.git, rev=main)";

static void shell(struct rig *rig, const char *script)
{
	cleanup_free char *command = xasprintf(
		"set -e; cd '%s'; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; %s",
		rig->images, script);

	assert_int_equal(system(command), 0);
}

/*
 * Files of all sizes: 11 MB of text, 5 MB that do not compress, 5 MB that are
 * stored as changes to 5 others, and many small ones.
 */
static const char make[] =
	"export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org"
	" GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org;"
	"git config --global core.fsync none; git config --global gc.auto 0;"
	"git init -q -b main w;"
	"seq 1500000 > w/big; seq 700000 > w/delta; mkdir w/d;"
	"head -c 5000000 /dev/urandom > w/noise;"
	"for i in $(seq 200); do seq $((i * 20)) > w/d/file-$i.txt; done;"
	"git -C w add -A; git -C w commit -qm 1;"
	"echo end >> w/delta; echo 2 > w/two; echo 2 >> w/d/file-7.txt;"
	"git -C w add -A; git -C w commit -qm 2;"
	"git clone -q --bare w r.git;"
	"git -C r.git repack -adfq";

struct image {
	unsigned char *bytes;
	uint64_t size;
};

/* All of it, from front to back. */
static struct image read_image(struct rig *rig)
{
	struct image image = { .size = rig_size(rig) };

	image.bytes = malloc(image.size);
	for (uint64_t at = 0; at < image.size; at += CHUNK)
		assert_int_equal(rig_io(rig, 0, XD_READ, 0, at,
					MIN(CHUNK, image.size - at),
					image.bytes + at),
				 0);
	return image;
}

static void open_disk(struct rig *rig, unsigned int lanes)
{
	if (rig_open(rig, lanes, disk) < 0)
		fail_msg("%s", rig->why);
}

static void new_disk(struct rig *rig, bool uring, unsigned int lanes)
{
	rig_new(rig, uring);
	shell(rig, make);
	open_disk(rig, lanes);
}

struct lane_run {
	struct rig_model model;
	pthread_t thread;
	unsigned int wrong;
};

static void *run_lane(void *arg)
{
	struct lane_run *run = arg;

	run->wrong = rig_model_run(&run->model);
	return NULL;
}

/* Returns how many sectors were read that are not as in the image. */
static unsigned int read_anywhere(struct rig *rig, struct image *image)
{
	struct lane_run runs[RIG_LANES];
	unsigned int wrong = 0;

	for (unsigned int i = 0; i < RIG_LANES; i++) {
		runs[i].model = (struct rig_model){ .rig = rig,
						    .lane = i,
						    .seed = i + 1,
						    .bursts = 8,
						    .content = image->bytes };
		assert_int_equal(pthread_create(&runs[i].thread, NULL, run_lane,
						&runs[i]),
				 0);
	}
	for (unsigned int i = 0; i < RIG_LANES; i++) {
		pthread_join(runs[i].thread, NULL);
		wrong += runs[i].wrong;
	}
	return wrong;
}

static void any_order_is_the_same(void **state)
{
	unsigned char *buf = malloc(CHUNK);
	struct image image;
	struct rig rig;

	rig_new(&rig, *(const bool *)*state);
	shell(&rig, make);
	open_disk(&rig, RIG_LANES);
	image = read_image(&rig);
	for (uint64_t at = image.size / CHUNK * CHUNK; at > 0;) {
		at -= CHUNK;
		assert_int_equal(rig_io(&rig, 0, XD_READ, 0, at, CHUNK, buf),
				 0);
		assert_memory_equal(buf, image.bytes + at, CHUNK);
	}
	assert_int_equal(rig_close(&rig), 0);
	open_disk(&rig, RIG_LANES); /* nothing in memory, no way back noted */
	assert_int_equal(read_anywhere(&rig, &image), 0);
	/* The comparison can fail. */
	for (uint64_t at = 0; at < image.size; at += 512)
		image.bytes[at] ^= 1;
	assert_int_not_equal(read_anywhere(&rig, &image), 0);
	assert_int_equal(rig_close(&rig), 0);
	free(image.bytes);
	free(buf);
	rig_free(&rig);
}

static bool is_same(struct rig *rig, const struct image *image)
{
	struct image now = read_image(rig);
	bool same = now.size == image->size &&
		    memcmp(now.bytes, image->bytes, now.size) == 0;

	free(now.bytes);
	return same;
}

static void keeps_what_it_is(bool uring, const char *expr)
{
	struct image image;
	struct rig rig;

	rig_new(&rig, uring);
	shell(&rig, make);
	assert_int_equal(rig_open(&rig, 1, expr), 0);
	image = read_image(&rig);
	shell(&rig, "git -C r.git update-ref refs/heads/main main~1");
	rig_die(&rig);
	assert_int_equal(rig_recover(&rig, 1, expr), 0);
	assert_true(is_same(&rig, &image));
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	assert_int_equal(rig_open(&rig, 1, expr), 0);
	assert_false(is_same(&rig, &image));
	assert_int_equal(rig_close(&rig), 0);
	free(image.bytes);
	rig_free(&rig);
}

static void a_branch_may_move(void **state)
{
	keeps_what_it_is(*(const bool *)*state, disk);
}

/* Also where the revision is a tree, and a folder of it. */
static void a_tree_may_move(void **state)
{
	keeps_what_it_is(*(const bool *)*state,
			 "gitfs(@/r.git, rev=\"main^{tree}:d\")");
}

static void packs_may_be_replaced(void **state)
{
	struct image image;
	struct rig rig;

	new_disk(&rig, *(const bool *)*state, 1);
	image = read_image(&rig);
	assert_int_equal(rig_close(&rig), 0);
	open_disk(&rig, 1);
	shell(&rig,
	      "git -C r.git repack -adfq; git -C r.git update-ref -d refs/heads/main;"
	      "git -C r.git repack -adq; git -C r.git prune --expire=now;"
	      "rm -rf r.git/objects");
	assert_true(is_same(&rig, &image));
	assert_int_equal(rig_close(&rig), 0);
	free(image.bytes);
	rig_free(&rig);
}

/* Reads all of it; returns how many reads failed, none of them otherwise than
 * by EIO. */
static unsigned int count_errors(struct rig *rig)
{
	unsigned char *buf = malloc(CHUNK);
	unsigned int errors = 0;

	for (uint64_t at = 0; at + CHUNK <= rig_size(rig); at += CHUNK) {
		int r = rig_io(rig, 0, XD_READ, 0, at, CHUNK, buf);

		assert_true(r == 0 || r == -EIO);
		errors += r != 0;
	}
	free(buf);
	return errors;
}

static void packs_may_be_cut(void **state)
{
	struct rig rig;

	new_disk(&rig, *(const bool *)*state, 1);
	shell(&rig, "chmod u+w r.git/objects/pack/*.pack;"
		    "truncate -s 100000 r.git/objects/pack/*.pack");
	assert_true(count_errors(&rig) > 100);
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* Loose objects take memory, and give it back. */
static void loose_objects_are_charged(void **state)
{
	struct image image;
	struct rig rig;

	new_disk(&rig, *(const bool *)*state, 1);
	image = read_image(&rig);
	assert_int_equal(rig_charge(&rig), 0);
	assert_int_equal(rig_close(&rig), 0);
	shell(&rig, "mkdir packs; mv r.git/objects/pack/* packs;"
		    "for p in packs/*.pack; do git -C r.git unpack-objects -q"
		    " < $p; done");
	open_disk(&rig, 1);
	assert_true(is_same(&rig, &image));
	assert_true(rig_charge(&rig) > 1000000);
	assert_int_equal(rig_close(&rig), 0);
	assert_int_equal(rig_charge(&rig), 0);
	rig_limit(&rig, 1000000, 0);
	assert_int_equal(rig_open(&rig, 1, disk), -ENOSPC);
	assert_non_null(strstr(rig.why, "mem-limit"));
	free(image.bytes);
	rig_free(&rig);
}

/* --- Written to ------------------------------------------------------------- */

#define WRITABLE "gitfs(@/r.git, rev=main, rw=yes, commit=edits, size=40M)"
#define BLOCK	 4096u
#define FREE_AT	 (20u << 20) /* where no file is */

static int put(struct rig *rig, uint32_t flags, uint64_t at, int byte)
{
	unsigned char buf[BLOCK];

	memset(buf, byte, BLOCK);
	return rig_io(rig, 0, XD_WRITE, flags, at, BLOCK, buf);
}

static bool is(struct rig *rig, uint64_t at, int byte)
{
	unsigned char buf[BLOCK];

	memset(buf, ~byte, BLOCK);
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, at, BLOCK, buf), 0);
	for (unsigned int i = 0; i < BLOCK; i++)
		if (buf[i] != byte)
			return false;
	return true;
}

static void open_writable(struct rig *rig, bool uring)
{
	rig_new(rig, uring);
	shell(rig, "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org"
		   " GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org;"
		   "git init -q -b main w; echo 1 > w/one; git -C w add -A;"
		   "git -C w commit -qm 1; git clone -q --bare w r.git");
	if (rig_open(rig, 1, WRITABLE) < 0)
		fail_msg("%s", rig->why);
}

/* It has been told that its writes are done, and flushes later, if at all. */
static void a_guest_outlives_its_worker(void **state)
{
	struct rig rig;

	open_writable(&rig, *(const bool *)*state);
	assert_int_equal(put(&rig, XD_FUA, FREE_AT, 0x11), 0);
	assert_int_equal(put(&rig, 0, FREE_AT + BLOCK, 0x22), 0);
	for (unsigned int i = 0; i < 2; i++) {
		rig_die(&rig);
		if (rig_recover(&rig, 1, WRITABLE) < 0)
			fail_msg("%s", rig.why);
		assert_true(is(&rig, FREE_AT, 0x11));
		assert_true(is(&rig, FREE_AT + BLOCK, 0x22));
		assert_true(is(&rig, FREE_AT + 2 * BLOCK, 0));
	}
	assert_int_equal(rig_close(&rig), 0);
	/* The guest's next session has the same disk. */
	if (rig_recover(&rig, 1, WRITABLE) < 0)
		fail_msg("%s", rig.why);
	assert_true(is(&rig, FREE_AT + BLOCK, 0x22));
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	/* All is in git, and it begins anew: nothing of that is remembered. */
	if (rig_open(&rig, 1, WRITABLE) < 0)
		fail_msg("%s", rig.why);
	assert_true(is(&rig, FREE_AT, 0));
	assert_true(is(&rig, FREE_AT + BLOCK, 0));
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* What the map of the layer is written by, in the backend, too. */
static atomic_int map_error; /* of the next call */

ssize_t pwritev(int fd, const struct iovec *iov, int nr, off_t at)
{
	int err = atomic_exchange(&map_error, 0);

	if (err == 0)
		return pwritev2(fd, iov, nr, at, 0);
	errno = err;
	return -1;
}

/* A disk is poisoned by a flush that fails, but by none that waits. */
static void no_space_for_the_map(void **state)
{
	struct rig rig;

	open_writable(&rig, *(const bool *)*state);
	assert_int_equal(put(&rig, 0, FREE_AT, 0x11), 0);
	map_error = ENOSPC;
	assert_int_equal(rig_io(&rig, 0, XD_FLUSH, 0, 0, 0, NULL), -EAGAIN);
	assert_int_equal(map_error, 0);
	assert_int_equal(rig_io(&rig, 0, XD_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(put(&rig, 0, FREE_AT + BLOCK, 0x22), 0);
	map_error = EIO;
	assert_int_equal(rig_io(&rig, 0, XD_FLUSH, 0, 0, 0, NULL), -EIO);
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

static bool with_uring[] = { true, false };

int main(void)
{
#define ON(test, i) cmocka_unit_test_prestate(test, &with_uring[i])
	const struct CMUnitTest tests[] = {
		ON(any_order_is_the_same, 0),
		ON(any_order_is_the_same, 1),
		ON(a_branch_may_move, 0),
		ON(packs_may_be_replaced, 1),
		ON(a_tree_may_move, 0),
		ON(packs_may_be_cut, 0),
		ON(packs_may_be_cut, 1),
		ON(loose_objects_are_charged, 0),
		ON(a_guest_outlives_its_worker, 0),
		ON(no_space_for_the_map, 0),
	};

	if (system("git --version > /dev/null 2>&1") != 0) {
		(void)puts("1..0 # SKIP git is not installed");
		return 0;
	}
	/* Who makes commits. */
	(void)setenv("XENDISK_LIBEXEC_DIR", BUILDDIR, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
