/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packs that are added by descriptor, while other threads look up and read; and
 * those that are no packs.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "common/util.h"
#include "odb.h"

#define PACKS	24u
#define OBJECTS 10u /* of each */
#define THREADS 3u

/* Pack number n has blobs "n 0\n" to "n 9\n". */
static const char make[] =
	"set -e; cd '%s'; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_DIR=r.git;"
	"git init -q --bare r.git; git config core.fsync none;"
	"for i in $(seq 0 %u); do for k in $(seq 0 9); do"
	" echo $i $k > $i-$k; done;"
	"git hash-object -w $(seq -f $i-%%g 0 9) > ids;"
	"git pack-objects -q p < ids > name; cat ids >> all;"
	"mv p-$(cat name).pack $i.pack; mv p-$(cat name).idx $i.idx; done";

struct fixture {
	char dir[64];
	uint8_t oid[PACKS * OBJECTS][OID_BYTES];
	struct odb *odb;
};

static const char *path_of(const struct fixture *f, const char *name)
{
	static char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return path;
}

static void read_ids(struct fixture *f)
{
	cleanup_file FILE *file = fopen(path_of(f, "all"), "r");
	char line[OID_HEX + 2];

	assert_non_null(file);
	for (unsigned int i = 0; i < PACKS * OBJECTS; i++) {
		assert_non_null(fgets(line, sizeof(line), file));
		for (unsigned int k = 0; k < OID_BYTES; k++) {
			unsigned int byte;

			assert_int_equal(sscanf(line + 2 * k, "%2x", &byte), 1);
			f->oid[i][k] = (uint8_t)byte;
		}
	}
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	cleanup_free char *command = NULL;

	assert_non_null(f);
	(void)snprintf(f->dir, sizeof(f->dir), "%s/odb-XXXXXX",
		       tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	command = xasprintf(make, f->dir, PACKS - 1);
	assert_int_equal(system(command), 0);
	read_ids(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	cleanup_free char *command = xasprintf("rm -r '%s'", f->dir);

	odb_close(f->odb);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static int open_part(const struct fixture *f, unsigned int n, const char *end)
{
	char name[32];
	int fd;

	(void)snprintf(name, sizeof(name), "%u.%s", n, end);
	fd = open(path_of(f, name), O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void add(struct fixture *f, unsigned int n)
{
	char name[32], reason[WHY_MAX] = "";

	(void)snprintf(name, sizeof(name), "pack-%u", n);
	if (odb_add(f->odb, name, open_part(f, n, "pack"),
		    open_part(f, n, "idx"), reason) < 0)
		fail_msg("%s", reason);
	assert_true(odb_has_pack(f->odb, name));
}

/* 0, -ENOENT, or something is wrong. */
static int look(struct fixture *f, struct reader *reader, struct cache *cache,
		unsigned int i)
{
	char text[32], reason[WHY_MAX];
	const struct object *object;
	struct place place;
	int r = odb_look_up(f->odb, f->oid[i], &place, reason);

	if (r < 0)
		return r;
	r = object_read(reader, place, &object);
	if (r < 0)
		return r;
	(void)snprintf(text, sizeof(text), "%u %u\n", i / OBJECTS, i % OBJECTS);
	if (object->type != OBJECT_BLOB || object->size != strlen(text) ||
	    memcmp(object->data, text, strlen(text)) != 0)
		r = -EBADMSG;
	cache_put(cache, object);
	return r;
}

struct looker {
	struct fixture *f;
	struct cache *cache;
	atomic_uint *added; /* packs */
	unsigned int found; /* in the last round */
	unsigned int wrong;
};

static void *run(void *arg)
{
	struct looker *looker = arg;
	struct reader *reader;
	unsigned int whole = 0; /* rounds with all packs there */

	if (reader_new(&reader, looker->f->odb, looker->cache) < 0)
		return NULL;
	while (whole < 2) {
		whole += atomic_load(looker->added) == PACKS;
		looker->found = 0;
		for (unsigned int i = 0; i < PACKS * OBJECTS; i++) {
			/* What was there before has to be found. */
			unsigned int added = atomic_load(looker->added);
			int r = look(looker->f, reader, looker->cache, i);

			looker->found += r == 0;
			looker->wrong += (r < 0 && r != -ENOENT) ||
					 (r == -ENOENT && i / OBJECTS < added);
		}
	}
	reader_free(reader);
	return NULL;
}

static void added_while_others_read(void **state)
{
	struct fixture *f = *state;
	struct looker lookers[THREADS];
	pthread_t threads[THREADS];
	char reason[WHY_MAX];
	atomic_uint added = 0;
	struct cache *cache;

	assert_int_equal(cache_new(&cache, 1000), 0);
	assert_int_equal(odb_new(&f->odb, reason), 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		lookers[i] = (struct looker){ f, cache, &added, 0, 0 };
		assert_int_equal(
			pthread_create(&threads[i], NULL, run, &lookers[i]), 0);
	}
	for (unsigned int i = 0; i < PACKS; i++) {
		add(f, i);
		atomic_store(&added, i + 1);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned int i = 0; i < THREADS; i++) {
		assert_int_equal(lookers[i].wrong, 0);
		assert_int_equal(lookers[i].found, PACKS * OBJECTS);
	}
	assert_int_equal(odb_packs_left(f->odb), ODB_MAX_PACKS - PACKS);
	cache_free(cache);
}

static void what_is_nowhere(void **state)
{
	struct fixture *f = *state;
	struct cache *cache;
	struct reader *reader;
	char reason[WHY_MAX];

	assert_int_equal(cache_new(&cache, 1000), 0);
	assert_int_equal(odb_new(&f->odb, reason), 0);
	assert_int_equal(reader_new(&reader, f->odb, cache), 0);
	assert_int_equal(look(f, reader, cache, 0), -ENOENT);
	add(f, 0);
	assert_int_equal(look(f, reader, cache, 0), 0);
	assert_int_equal(look(f, reader, cache, OBJECTS), -ENOENT);
	reader_free(reader);
	cache_free(cache);
}

/* Both descriptors are closed, whatever comes of it. */
static int add_files(struct fixture *f, const char *pack, const char *idx,
		     char *ret_why)
{
	int fds[2] = { open(path_of(f, pack), O_RDONLY | O_CLOEXEC), -1 };
	int r;

	fds[1] = open(path_of(f, idx), O_RDONLY | O_CLOEXEC);
	assert_true(fds[0] >= 0 && fds[1] >= 0);
	r = odb_add(f->odb, "pack-x", fds[0], fds[1], ret_why);
	if (r < 0) {
		assert_int_equal(fcntl(fds[0], F_GETFD), -1);
		assert_int_equal(fcntl(fds[1], F_GETFD), -1);
		assert_false(odb_has_pack(f->odb, "pack-x"));
	}
	return r;
}

static void what_is_no_pack(void **state)
{
	struct fixture *f = *state;
	cleanup_free char *command = xasprintf(
		"cd '%s'; head -c 1000 0.idx > short.idx; echo > no", f->dir);
	char reason[WHY_MAX] = "";

	assert_int_equal(system(command), 0);
	assert_int_equal(odb_new(&f->odb, reason), 0);
	assert_int_equal(add_files(f, "0.pack", "short.idx", reason), -EBADMSG);
	assert_non_null(strstr(reason, "pack-x.idx: it is too short"));
	assert_int_equal(add_files(f, "0.idx", "0.pack", reason), -EBADMSG);
	assert_int_equal(add_files(f, "no", "0.idx", reason), -EBADMSG);
	assert_non_null(strstr(reason, "pack-x.pack is no pack"));
	assert_int_equal(add_files(f, ".", "0.idx", reason), -EBADMSG);
	assert_int_equal(add_files(f, "0.pack", "0.idx", reason), 0);
}

static void too_many(void **state)
{
	struct fixture *f = *state;
	char reason[WHY_MAX] = "";
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	assert_int_equal(odb_new(&f->odb, reason), 0);
	for (unsigned int i = 0; i < ODB_MAX_PACKS; i++)
		assert_int_equal(odb_add(f->odb, "pack-y",
					 open_part(f, 0, "pack"),
					 open_part(f, 0, "idx"), reason),
				 0);
	assert_int_equal(odb_packs_left(f->odb), 0);
	assert_int_equal(add_files(f, "1.pack", "1.idx", reason), -EMFILE);
	assert_non_null(strstr(reason, "more than 400 packs"));
}

/* One that was opened by name, and settled, takes packs as well. */
static void added_to_a_settled_one(void **state)
{
	struct fixture *f = *state;
	cleanup_free char *command = xasprintf(
		"cd '%s'; mkdir -p objects/pack; for e in pack idx; do"
		" cp 0.$e objects/pack/pack-0.$e; done",
		f->dir);
	cleanup_close int objects = -1;
	struct reader *reader;
	struct cache *cache;
	char reason[WHY_MAX] = "";
	struct place place;

	assert_int_equal(system(command), 0);
	objects = open(path_of(f, "objects"), O_RDONLY | O_DIRECTORY);
	assert_int_equal(odb_open(&f->odb, objects, reason), 0);
	assert_int_equal(odb_find(f->odb, f->oid[0], &place, reason), 0);
	odb_settle(f->odb);
	assert_int_equal(cache_new(&cache, 1000), 0);
	assert_int_equal(reader_new(&reader, f->odb, cache), 0);
	add(f, 1);
	assert_int_equal(look(f, reader, cache, 1), 0);
	assert_int_equal(look(f, reader, cache, OBJECTS + 1), 0);
	assert_int_equal(look(f, reader, cache, 2 * OBJECTS), -ENOENT);
	reader_free(reader);
	cache_free(cache);
}

/* Git replaces packs while somebody goes through them. */
static void replaced_meanwhile(void **state)
{
	static const char prepare[] =
		"cd '%s'; mkdir -p objects/pack; for i in 0 1 2; do"
		" for e in pack idx; do cp $i.$e objects/pack/pack-$i.$e; done;"
		" done";
	static const char replace[] =
		"cd '%s'; export GIT_DIR=r.git;"
		"git pack-objects -q objects/pack/pack < all > name;"
		"rm -f objects/pack/pack-?.*";
	struct fixture *f = *state;
	cleanup_free char *before = xasprintf(prepare, f->dir);
	cleanup_free char *behind = xasprintf(replace, f->dir);
	cleanup_close int objects = -1;
	char reason[WHY_MAX] = "";
	struct place place;
	uint8_t none[OID_BYTES] = { 1 };

	assert_int_equal(system(before), 0);
	objects = open(path_of(f, "objects"), O_RDONLY | O_DIRECTORY);
	assert_int_equal(odb_open(&f->odb, objects, reason), 0);
	assert_int_equal(odb_find(f->odb, f->oid[0], &place, reason), 0);
	assert_int_equal(system(behind), 0);
	for (unsigned int i = 0; i < 4 * OBJECTS; i++)
		if (odb_find(f->odb, f->oid[i], &place, reason) < 0)
			fail_msg("%u: %s", i, reason);
	assert_int_equal(odb_find(f->odb, none, &place, reason), -ENOENT);
	assert_non_null(strstr(reason, "is not in the repository"));
	odb_settle(f->odb);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(added_while_others_read), TEST(what_is_nowhere),
		TEST(what_is_no_pack),	       TEST(too_many),
		TEST(added_to_a_settled_one),  TEST(replaced_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
