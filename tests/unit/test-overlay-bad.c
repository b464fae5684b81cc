/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The overlay of a git disk when things are not as they should be: files of another
 * disk, files that are damaged, calls that fail.
 */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <cmocka.h>

#include "../../backends/git/overlay-meta.h"
#include "common/util.h"
#include "overlay-fixture.h"

/* --- Calls that fail -------------------------------------------------------------- */

/* The n-th from now on; 0: none. */
static struct {
	int err;
	unsigned int write, sync, hole;
} failing;

static int fails(unsigned int *n)
{
	if (*n == 0 || --*n > 0)
		return 0;
	errno = failing.err;
	return -1;
}

ssize_t __real_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int nr, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t at);
int __real_fallocate(int fd, int mode, off_t at, off_t n);
int __wrap_fallocate(int fd, int mode, off_t at, off_t n);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at)
{
	return fails(&failing.write) ? -1 : __real_pwrite(fd, data, n, at);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t at)
{
	return fails(&failing.write) ? -1 : __real_pwritev(fd, iov, nr, at);
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t n)
{
	return fails(&failing.hole) ? -1 : __real_fallocate(fd, mode, at, n);
}

int __wrap_fdatasync(int fd)
{
	return fails(&failing.sync) ? -1 : __real_fdatasync(fd);
}

/* --- Helpers ----------------------------------------------------------------------- */

static struct ofix fix;

static int start(void **state)
{
	(void)state;
	memset(&failing, 0, sizeof(failing));
	ofix_new(&fix);
	assert_int_equal(ofix_start(&fix, false), 0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	memset(&failing, 0, sizeof(failing));
	ofix_free(&fix);
	return 0;
}

static int open_file(const char *name)
{
	int fd = openat(fix.dir, name, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* Flips a bit of a file. */
static void damage(const char *name, uint64_t at)
{
	int fd = open_file(name);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 4;
	assert_int_equal(__real_pwrite(fd, &byte, 1, (off_t)at), 1);
	(void)close(fd);
}

static void refused(int err, const char *names)
{
	assert_int_equal(ofix_start(&fix, true), err);
	if (!strstr(fix.why, names))
		fail_msg("\"%s\" says nothing of %s", fix.why, names);
}

/* --- Not ours, or damaged --------------------------------------------------------------- */

static void another_disk(void **state)
{
	struct overlay_of of = ofix_of;
	struct overlay *other;
	struct overlay_facts facts;
	bool found;

	(void)state;
	assert_int_equal(ofix_end(&fix), 0);
	of.branch = "mail";
	assert_int_equal(overlay_open(&other, fix.dir, &of, &found, &facts,
				      fix.why),
			 -EINVAL);
	assert_non_null(strstr(fix.why, "branch web"));
	assert_int_equal(ofix_open(&fix), 0);
	fix.facts.chunk *= 2;
	assert_int_equal(overlay_lock(fix.overlay, &fix.facts, false, fix.why),
			 -EINVAL);
	fix.facts.chunk /= 2;
	fix.facts.base[0] = 9;
	assert_int_equal(overlay_lock(fix.overlay, &fix.facts, false, fix.why),
			 -ESTALE);
	assert_int_equal(fix.facts.base[0], 0);
	assert_int_equal(overlay_lock(fix.overlay, &fix.facts, false, fix.why),
			 0);
}

static void a_torn_page(void **state)
{
	(void)state;
	ofix_write(&fix, 1, 11);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_write(&fix, 2, 22);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_kill(&fix);
	damage("map0", map_page_offset(0, PLACE_B) + 100);
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_non_null(strstr(overlay_repaired(fix.overlay), "map0"));
	assert_int_equal(ofix_read(&fix, 1), 11);
	assert_int_equal(ofix_read(&fix, 2), 1002);
	/* It was written again. */
	ofix_again(&fix);
	assert_string_equal(overlay_repaired(fix.overlay), "");
	assert_int_equal(ofix_read(&fix, 1), 11);
}

static void a_torn_first_page(void **state)
{
	(void)state;
	ofix_write(&fix, 1, 11);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_kill(&fix);
	damage("map0", map_page_offset(0, PLACE_A) + 100);
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_int_equal(ofix_read(&fix, 1), 1001);
	ofix_write(&fix, 1, 12);
	assert_int_equal(ofix_end(&fix), 0);
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_int_equal(ofix_read(&fix, 1), 12);
}

static void write_twice(void)
{
	ofix_write(&fix, 1, 11);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_write(&fix, 2, 22);
	assert_int_equal(ofix_flush(&fix), 0);
}

static void both_copies(void **state)
{
	(void)state;
	write_twice();
	ofix_kill(&fix);
	damage("map0", map_page_offset(0, PLACE_A) + 100);
	damage("map0", map_page_offset(0, PLACE_B) + 100);
	refused(-EBADMSG, "map0");
}

/* No crash can have done this. */
static void damaged_when_closed(void **state)
{
	(void)state;
	write_twice();
	assert_int_equal(ofix_end(&fix), 0);
	damage("map0", map_page_offset(0, PLACE_B) + 100);
	refused(-EBADMSG, "map0");
}

static void damaged_when_frozen(void **state)
{
	(void)state;
	write_twice();
	(void)ofix_freeze(&fix);
	ofix_kill(&fix);
	damage("map0", map_page_offset(0, PLACE_B) + 100);
	refused(-EBADMSG, "map0");
}

static void a_damaged_cache(void **state)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	struct stat st;

	(void)state;
	write_twice();
	ofix_committed(&fix, ofix_freeze(&fix));
	ofix_kill(&fix);
	damage("map0", map_page_offset(0, PLACE_B) + 100);
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_non_null(strstr(overlay_repaired(fix.overlay), "map0"));
	assert_int_equal(overlay_layers(fix.overlay, layers), 1);
	assert_int_equal(ofix_read(&fix, 1), 11);
	assert_int_equal(fstatat(fix.dir, "data0", &st, 0), 0);
	assert_int_equal(st.st_blocks, 0);
}

static void cut(const char *name)
{
	int fd = open_file(name);

	assert_int_equal(ftruncate(fd, 4096), 0);
	(void)close(fd);
}

static void cut_off(void **state)
{
	(void)state;
	write_twice();
	ofix_kill(&fix);
	cut("data0");
	refused(-EBADMSG, "data0");
}

static void a_cache_that_is_cut_off(void **state)
{
	(void)state;
	write_twice();
	ofix_committed(&fix, ofix_freeze(&fix));
	ofix_kill(&fix);
	cut("data0");
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_int_equal(ofix_read(&fix, 1), 11);
	/* The slot is as good as any other. */
	ofix_committed(&fix, ofix_freeze(&fix));
	ofix_write(&fix, OFIX_SECTORS - 1, 0);
	assert_int_equal(ofix_read(&fix, OFIX_SECTORS - 1), 0);
}

static void old_meta(const uint8_t bytes[META_FILE])
{
	int fd = open_file("meta");

	assert_int_equal(__real_pwrite(fd, bytes, META_FILE, 0), META_FILE);
	(void)close(fd);
}

/* The map knows of a layer that meta has not heard of. */
static void meta_of_another_time(void **state)
{
	static uint8_t bytes[META_FILE];
	int fd = open_file("meta");

	(void)state;
	assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	(void)close(fd);
	(void)ofix_freeze(&fix);
	write_twice();
	ofix_kill(&fix);
	old_meta(bytes);
	refused(-EBADMSG, "map1");
	memset(bytes, 0, sizeof(bytes));
	old_meta(bytes);
	refused(-EBADMSG, "meta");
}

static void meta_in_two_places(void **state)
{
	(void)state;
	write_twice();
	(void)ofix_freeze(&fix);
	ofix_kill(&fix);
	/* The newer one, of the freeze, is as if it had not been written. */
	damage("meta", 50);
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_int_equal(ofix_read(&fix, 1), 11);
	ofix_kill(&fix);
	damage("meta", 50);
	damage("meta", META_BYTES + 50);
	refused(-EBADMSG, "meta");
}

/* --- Calls that fail ----------------------------------------------------------------------- */

static void a_full_file_system(void **state)
{
	(void)state;
	ofix_write(&fix, 1, 11);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_write(&fix, 2, 22);
	failing.err = ENOSPC;
	failing.write = 1;
	assert_int_equal(ofix_flush(&fix), -ENOSPC);
	assert_int_equal(ofix_read(&fix, 2), 22);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 1), 11);
	assert_int_equal(ofix_read(&fix, 2), 22);
}

/* n: 1 the data's, 2 the map's. */
static void fdatasync_fails(unsigned int n)
{
	ofix_write(&fix, 2, 22);
	failing.err = EIO;
	failing.sync = n;
	assert_int_equal(ofix_flush(&fix), -EIO);
	assert_int_equal(ofix_flush(&fix), -EIO);
	failing.err = ENOSPC;
	assert_int_equal(ofix_flush(&fix), -EIO);
	assert_int_equal(ofix_end(&fix), -EIO);
}

static void the_data_is_not_durable(void **state)
{
	(void)state;
	fdatasync_fails(1);
}

static void the_map_is_not_durable(void **state)
{
	(void)state;
	fdatasync_fails(2);
}

static void meta_cannot_be_written(void **state)
{
	struct snapshot_info info = { 0 };
	uint64_t gen;

	(void)state;
	write_twice();
	failing.err = ENOSPC;
	failing.write = 1;
	assert_int_equal(overlay_freeze(fix.overlay, &info, &gen, fix.why),
			 -ENOSPC);
	assert_non_null(strstr(fix.why, "meta"));
	ofix_write(&fix, 3, 33);
	assert_int_equal(ofix_freeze(&fix), 1);
	assert_int_equal(ofix_read(&fix, 3), 33);
	/* Whether it is durable nobody knows: no more of it. */
	failing.err = EIO;
	failing.sync = 2;
	assert_int_equal(overlay_freeze(fix.overlay, &info, &gen, fix.why),
			 -EIO);
	assert_int_equal(overlay_freeze(fix.overlay, &info, &gen, fix.why),
			 -EIO);
	assert_int_equal(overlay_drop(fix.overlay, &gen, fix.why), -ENOENT);
	ofix_write(&fix, 4, 44);
	assert_int_equal(ofix_flush(&fix), -EIO);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 3), 33);
	ofix_write(&fix, 4, 44);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 4), 44);
}

/* No guest is told that something is durable after a failure that no guest has
 * heard of: what a snapshot's flush, or a lock, has met. */
static void a_failure_is_remembered(void **state)
{
	struct snapshot_info info = { 0 };
	uint64_t gen;

	(void)state;
	failing.err = EIO;
	for (unsigned int n = 1; n <= 3; n++) {
		ofix_write(&fix, n, n); /* data, map, and meta */
		failing.sync = n;
		assert_int_equal(overlay_freeze(fix.overlay, &info, &gen,
						fix.why),
				 -EIO);
		assert_int_equal(overlay_unlock(fix.overlay, fix.why), -EIO);
		assert_int_equal(overlay_lock(fix.overlay, &fix.facts, false,
					      fix.why),
				 0);
		assert_int_equal(ofix_flush(&fix), -EIO);
		ofix_again(&fix);
		assert_int_equal(ofix_flush(&fix), 0);
	}
	assert_int_equal(overlay_unlock(fix.overlay, fix.why), 0);
	failing.sync = 1;
	assert_int_equal(overlay_lock(fix.overlay, &fix.facts, true, fix.why),
			 -EIO);
	assert_int_equal(overlay_lock(fix.overlay, &fix.facts, true, fix.why),
			 0);
	assert_int_equal(ofix_flush(&fix), -EIO);
	ofix_again(&fix);
	/* What a guest has heard of is not told again to the next one. */
	ofix_write(&fix, 5, 55);
	failing.sync = 1;
	assert_int_equal(ofix_flush(&fix), -EIO);
	assert_int_equal(overlay_unlock(fix.overlay, fix.why), -EIO);
	assert_int_equal(overlay_lock(fix.overlay, &fix.facts, false, fix.why),
			 0);
	assert_int_equal(ofix_flush(&fix), 0);
}

/* Each call that can fail while an overlay is made, taken over, frozen, grown: it
 * says so, and the next try finds all that was there. */
static int commit_all(void)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	uint8_t id[OID_BYTES];
	int err = 0;

	for (unsigned int n = overlay_layers(fix.overlay, layers);
	     n-- > 0 && err == 0;) {
		if (layers[n].state != LAYER_FROZEN)
			continue;
		ofix_commit(&fix, layers[n].generation, id);
		err = overlay_committed(fix.overlay, layers[n].generation, id,
					OVERLAY_ON_BRANCH, fix.why);
	}
	return err;
}

/* What a test does by itself does not fail. */
static void write_some(void)
{
	unsigned int n = failing.write;

	failing.write = 0;
	ofix_write(&fix, 7, 77);
	failing.write = n;
}

static int all_of_it(void)
{
	struct snapshot_info info = { 0 };
	uint64_t gen;
	int err = ofix_start(&fix, true);

	if (err < 0)
		return err;
	write_some();
	err = ofix_flush(&fix);
	if (err == 0)
		err = overlay_freeze(fix.overlay, &info, &gen, fix.why);
	if (err == 0)
		err = commit_all();
	while (err == 0)
		err = overlay_drop(fix.overlay, &gen, fix.why);
	err = err == -ENOENT ? 0 : err;
	if (err == 0)
		err = overlay_empty(fix.overlay, gen, fix.why);
	if (err == 0)
		err = overlay_grow(fix.overlay,
				   overlay_facts(fix.overlay)->size + 4096,
				   fix.why);
	if (err == 0)
		overlay_grown(fix.overlay);
	return err;
}

static void each_failure(unsigned int *counter)
{
	unsigned int n = 0, found = 0;

	ofix_kill(&fix);
	failing.err = ENOSPC;
	do {
		*counter = ++n;
		if (all_of_it() == -ENOSPC)
			found++;
		n = *counter ? 0 : n; /* not as many any more */
		*counter = 0;
		ofix_kill(&fix);
		assert_int_equal(ofix_start(&fix, true), 0);
		assert_int_equal(ofix_read(&fix, 1), 11);
		assert_int_equal(ofix_read(&fix, 2), 22);
		ofix_kill(&fix);
	} while (n > 0);
	print_message("%u failures\n", found);
	assert_true(found > 0);
}

static void each_write_fails(void **state)
{
	(void)state;
	write_twice();
	each_failure(&failing.write);
}

static void each_sync_fails(void **state)
{
	(void)state;
	write_twice();
	each_failure(&failing.sync);
}

static void each_hole_fails(void **state)
{
	(void)state;
	write_twice();
	each_failure(&failing.hole);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(another_disk),
		TEST(a_torn_page),
		TEST(a_torn_first_page),
		TEST(both_copies),
		TEST(damaged_when_closed),
		TEST(damaged_when_frozen),
		TEST(a_damaged_cache),
		TEST(cut_off),
		TEST(a_cache_that_is_cut_off),
		TEST(meta_of_another_time),
		TEST(meta_in_two_places),
		TEST(a_full_file_system),
		TEST(the_data_is_not_durable),
		TEST(the_map_is_not_durable),
		TEST(meta_cannot_be_written),
		TEST(a_failure_is_remembered),
		TEST(each_write_fails),
		TEST(each_sync_fails),
		TEST(each_hole_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
