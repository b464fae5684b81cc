/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git on the real stack, with the real committer: what a commit holds can be read
 * in any order, however git keeps it; what is written is over it, and outlives the
 * worker.
 */
#include "config.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "git-rig.h"

#define CHUNK	  (64u << 10)
#define SIZE	  (3u * 1024 * 1024 + 512) /* the last chunk is a short one */
#define READ_ONLY "git(@/r.git, rev=main)"
#define WRITABLE  "git(@/r.git, branch=main)"

/*
 * Two commits of a disk made by git itself: 1 MB that does not compress, 1 MB of
 * zeroes, text; in the second one each tenth chunk has changed a little.
 */
static const char make[] =
	"git config --global core.fsync none; git config --global gc.auto 0;"
	"git init -q -b main --bare r.git;"
	"head -c 1000000 /dev/urandom > image; truncate -s 2M image;"
	"seq 300000 | head -c 1049088 >> image;"
	"put() { n=0; printf 'commit refs/heads/main\\n' > in;"
	" printf 'committer a <a@example.org> 1741064768 +0000\\n' >> in;"
	" printf 'data 1\\nx%s\\nM 100644 inline disk\\ndata 70\\n' \"$1\" >> in;"
	" printf 'xendisk-git 1\\nsize 3146240\\nsector 512\\nchunk 65536\\n' >> in;"
	" printf 'levels 3\\nfeatures -\\n\\n' >> in;"
	" split -b 65536 -a 3 -d image chunk-;"
	" for f in chunk-*; do cmp -s -n $(stat -c %s $f) $f /dev/zero ||"
	" { printf 'M 100644 inline data/00/00/%02x\\ndata %d\\n'"
	" $n $(stat -c %s $f); cat $f; echo; } >> in; n=$((n + 1)); done;"
	" git -C r.git fast-import --quiet < in; }; "
	"put; cp image image.old;"
	"for i in 0 10 32 40; do printf changed |"
	" dd of=image bs=65536 seek=$i conv=notrunc status=none; done;"
	"put '\nfrom refs/heads/main^0';";

/* What is on the disk, as it should be. */
static unsigned char *image_of(struct rig *rig, const char *name)
{
	unsigned char *image = malloc(SIZE);
	cleanup_free char *path = xasprintf("%s/%s", rig->images, name);
	cleanup_file FILE *file = fopen(path, "r");

	assert_non_null(file);
	assert_int_equal(fread(image, 1, SIZE, file), SIZE);
	return image;
}

static void begin(struct rig *rig, bool uring)
{
	rig_new(rig, uring);
	git_shell(rig, make);
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

/* Returns how many sectors were read that are not as in the image, which
 * follows what is written. */
static unsigned int use_all_lanes(struct rig *rig, unsigned char *image,
				  unsigned int bursts)
{
	static uint64_t seed; /* another time: other data */
	struct lane_run runs[RIG_LANES];
	unsigned int wrong = 0;

	for (unsigned int i = 0; i < RIG_LANES; i++) {
		runs[i].model = (struct rig_model){ .rig = rig,
						    .lane = i,
						    .seed = ++seed,
						    .bursts = bursts,
						    .share = RIG_LANES,
						    .discard_zeroes = true,
						    .content = image };
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

static bool is_same(struct rig *rig, const unsigned char *image)
{
	unsigned char *buf = malloc(SIZE);
	bool same;

	assert_int_equal(rig_size(rig), SIZE);
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, 0, SIZE, buf), 0);
	same = memcmp(buf, image, SIZE) == 0;
	free(buf);
	return same;
}

static void a_commit_is_read(void **state)
{
	unsigned char *image, *old;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	old = image_of(&rig, "image.old");
	git_must(&rig, rig_open(&rig, RIG_LANES, READ_ONLY));
	assert_true(is_same(&rig, image));
	assert_int_equal(use_all_lanes(&rig, image, 20), 0);
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	git_must(&rig, rig_open(&rig, 1, "git(@/r.git, rev=main~1)"));
	assert_true(is_same(&rig, old));
	assert_false(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	free(old);
	rig_free(&rig);
}

/* As changes to others, loose, and after git gc has replaced all packs. */
static void git_keeps_it_as_it_likes(void **state)
{
	unsigned char *image;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	git_shell(&rig, "git -C r.git repack -adfq --window=50");
	git_must(&rig, rig_open(&rig, RIG_LANES, READ_ONLY));
	git_shell(&rig, "git -C r.git repack -adFq --depth=0;"
			"git -C r.git gc -q --prune=now");
	assert_int_equal(use_all_lanes(&rig, image, 20), 0);
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	git_shell(&rig, "mkdir p; mv r.git/objects/pack/* p; for p in p/*.pack;"
			" do git -C r.git unpack-objects -q < $p; done");
	git_must(&rig, rig_open(&rig, RIG_LANES, READ_ONLY));
	assert_true(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	rig_free(&rig);
}

/* Reads all of it; returns how many reads failed, by EIO, and checks the rest. */
static unsigned int count_errors(struct rig *rig, const unsigned char *image)
{
	unsigned char *buf = malloc(CHUNK);
	unsigned int errors = 0;

	for (uint64_t at = 0; at + CHUNK <= SIZE; at += CHUNK) {
		int r = rig_io(rig, 0, XD_READ, 0, at, CHUNK, buf);

		assert_true(r == 0 || r == -EIO);
		if (r == 0)
			assert_memory_equal(buf, image + at, CHUNK);
		errors += r != 0;
	}
	free(buf);
	return errors;
}

static void damage_is_an_error(void **state)
{
	unsigned char *image;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	git_shell(&rig,
		  "git -C r.git repack -adFq --depth=0; cd r.git/objects/pack;"
		  "chmod u+w *.pack; p=$(ls *.pack);"
		  "git show-index < ${p%.pack}.idx > /dev/null;"
		  "s=$(stat -c %s $p); for i in 20 30 40 50; do printf XXXX |"
		  " dd of=$p bs=1 seek=$((s * i / 100)) conv=notrunc"
		  " status=none; done");
	git_must(&rig, rig_open(&rig, 1, READ_ONLY));
	assert_in_range(count_errors(&rig, image), 1, 4);
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	rig_free(&rig);
}

static void a_branch_may_move(void **state)
{
	unsigned char *image;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	git_must(&rig, rig_open(&rig, 1, READ_ONLY));
	assert_true(is_same(&rig, image));
	git_shell(&rig, "git -C r.git update-ref refs/heads/main main~1");
	rig_die(&rig);
	git_must(&rig, rig_recover(&rig, 1, READ_ONLY));
	assert_true(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	git_must(&rig, rig_open(&rig, 1, READ_ONLY));
	assert_false(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	rig_free(&rig);
}

static void what_is_written(void **state)
{
	unsigned char *image;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	git_must(&rig, rig_open(&rig, RIG_LANES, WRITABLE));
	assert_true(is_same(&rig, image));
	assert_int_equal(use_all_lanes(&rig, image, 60), 0);
	assert_true(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	git_must(&rig, rig_open(&rig, RIG_LANES, WRITABLE));
	assert_true(is_same(&rig, image));
	assert_int_equal(use_all_lanes(&rig, image, 20), 0);
	/* Not flushed: it is the guest that goes on, not the machine. */
	rig_die(&rig);
	git_must(&rig, rig_recover(&rig, RIG_LANES, WRITABLE));
	assert_true(is_same(&rig, image));
	/* The comparison can fail. */
	image[SIZE - 1] ^= 1;
	assert_false(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	rig_free(&rig);
}

static void snapshots_are_commits(void **state)
{
	unsigned char *image, *then;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	then = malloc(SIZE);
	git_must(&rig, rig_open(&rig, RIG_LANES, WRITABLE));
	for (unsigned int i = 0; i < 8; i++) {
		assert_int_equal(use_all_lanes(&rig, image, 5), 0);
		git_snapshot(&rig);
		if (i == 3)
			memcpy(then, image, SIZE);
		assert_true(is_same(&rig, image));
	}
	assert_int_equal(rig_close(&rig), 0);
	git_shell(&rig, "git -C r.git fsck --full --strict;"
			"test $(git -C r.git rev-list --count main) = 10;"
			"test $(git -C r.git log -1 --format=%s main) = hello");
	git_must(&rig, rig_open(&rig, RIG_LANES, WRITABLE));
	assert_true(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	git_must(&rig, rig_open(&rig, 1, READ_ONLY));
	assert_true(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	git_must(&rig, rig_open(&rig, 1, "git(@/r.git, rev=main~4)"));
	assert_true(is_same(&rig, then));
	assert_false(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	free(then);
	rig_free(&rig);
}

/* Somebody moves the branch: nothing changes under a guest, whose worker may die;
 * but when nothing is dirty the next one to attach it sees that. */
static void a_branch_is_followed(void **state)
{
	unsigned char *image, *old;
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	image = image_of(&rig, "image");
	old = image_of(&rig, "image.old");
	git_must(&rig, rig_open(&rig, 1, WRITABLE));
	assert_true(is_same(&rig, image));
	git_shell(&rig, "git -C r.git update-ref refs/heads/main main~1");
	rig_die(&rig);
	git_must(&rig, rig_recover(&rig, 1, WRITABLE));
	assert_true(is_same(&rig, image));
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	git_must(&rig, rig_open(&rig, 1, WRITABLE));
	assert_true(is_same(&rig, old));
	memset(old, 0x5a, CHUNK);
	assert_int_equal(rig_io(&rig, 0, XD_WRITE, 0, 0, CHUNK, old), 0);
	assert_int_equal(rig_close(&rig), 0);
	rig_detach(&rig);
	/* Not when there is something that would be lost. */
	git_shell(&rig,
		  "git -C r.git update-ref refs/heads/main"
		  " $(git -C r.git commit-tree -p main -m x main^{tree})");
	git_must(&rig, rig_open(&rig, 1, WRITABLE));
	assert_true(is_same(&rig, old));
	assert_int_equal(rig_close(&rig), 0);
	free(image);
	free(old);
	rig_free(&rig);
}

static void what_is_asked_for_wrongly(void **state)
{
	static const struct {
		const char *expr;
		int err;
		const char *why;
	} asked[] = {
		{ "git(@/r.git, branch=none)", -ENOENT, "none" },
		{ "git(@/r.git, rev=none)", -ENOENT, "none" },
		{ "git(@/r.git, fork=new)", -EINVAL, "needs rev=" },
		{ "git(@/image, branch=main)", -ENOTDIR, "image" },
		{ "git(@/r.git, branch=-x)", -EINVAL, "-x" },
		{ "git(@/r.git, rev=text)", -EBADMSG, "disk" },
	};
	struct rig rig;

	begin(&rig, *(const bool *)*state);
	git_shell(&rig, "t=$(git -C r.git mktree < /dev/null);"
			"c=$(git -C r.git commit-tree -m x $t);"
			"git -C r.git update-ref refs/heads/text $c");
	for (unsigned int i = 0; i < ARRAY_SIZE(asked); i++) {
		assert_int_equal(rig_open(&rig, 1, asked[i].expr),
				 asked[i].err);
		if (!strstr(rig.why, asked[i].why))
			fail_msg("%s: %s", asked[i].expr, rig.why);
	}
	rig_free(&rig);
}

static bool with_uring[] = { true, false };

int main(void)
{
#define ON(test, i) cmocka_unit_test_prestate(test, &with_uring[i])
	const struct CMUnitTest tests[] = {
		ON(a_commit_is_read, 0),
		ON(a_commit_is_read, 1),
		ON(git_keeps_it_as_it_likes, 0),
		ON(damage_is_an_error, 0),
		ON(a_branch_may_move, 1),
		ON(what_is_written, 0),
		ON(what_is_written, 1),
		ON(snapshots_are_commits, 0),
		ON(a_branch_is_followed, 1),
		ON(what_is_asked_for_wrongly, 0),
	};

	if (!git_is_there())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
