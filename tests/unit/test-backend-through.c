/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw, written through: the kernel tells once that it has lost writes, and of all that
 * were under way then none is answered as if it were durable.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <cmocka.h>

#include "common/util.h"
#include "rig.h"
#include "worker/engine.h"

#define MiB (1u << 20)

static unsigned char buf[MiB];
static pthread_t lane; /* the test's thread */

/* --- In place of the kernel ------------------------------------------------------------ */

static atomic_uint syncs; /* begun, of whatever kind */
static atomic_uint fails; /* which of them does */
static atomic_uint writes; /* that were made */
static atomic_bool sync_waits, write_waits;

static int end_sync(void)
{
	unsigned int nth = atomic_fetch_add(&syncs, 1) + 1;

	while (atomic_load(&sync_waits))
		usleep(1000);
	if (nth != atomic_load(&fails))
		return 0;
	errno = EIO;
	return -1;
}

int fdatasync(int fd)
{
	(void)fd;
	return end_sync();
}

/* A write that waits cannot be made by the lane. */
ssize_t pwritev2(int fd, const struct iovec *iov, int iovcnt, off_t at,
		 int flags)
{
	bool durable = flags & RWF_DSYNC || fcntl(fd, F_GETFL) & O_DSYNC;
	ssize_t n;

	if (atomic_load(&write_waits) && pthread_equal(pthread_self(), lane)) {
		errno = EAGAIN;
		return -1;
	}
	while (atomic_load(&write_waits))
		usleep(1000);
	n = syscall(SYS_pwritev2, fd, iov, iovcnt, at, 0, flags);
	if (n >= 0)
		atomic_fetch_add(&writes, 1);
	return n >= 0 && durable && end_sync() < 0 ? -1 : n;
}

/* --- What becomes of the requests -------------------------------------------------- */

static int setup(void **state)
{
	struct rig *rig = malloc(sizeof(*rig));

	rig_new(rig, false);
	(void)rig_file(rig, "image", MiB);
	lane = pthread_self();
	atomic_store(&fails, 0);
	if (rig_open(rig, 1, "raw(@/image, cache=writethrough)") < 0)
		fail_msg("%s", rig->why);
	atomic_store(&syncs, 0);
	atomic_store(&writes, 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_close(rig), 0);
	rig_free(rig);
	free(rig);
	return 0;
}

/* Two in a burst, at 0 and `second`; the first sync fails. */
static void two_of_a_burst(struct rig *rig, enum xd_op op, uint32_t flags,
			   uint64_t second)
{
	struct rig_op ops[2];

	atomic_store(&syncs, 0);
	atomic_store(&fails, 1);
	rig_start(rig, 0, &ops[0], op, flags, 0, 4096, buf);
	rig_start(rig, 0, &ops[1], XD_WRITE, 0, second, 4096, buf);
	rig_wait(rig, 0, ops, 2);
	assert_int_equal(ops[0].err, -EIO);
	assert_int_equal(ops[1].err, -EIO);
	assert_int_equal(rig_io(rig, 0, op, 0, 0, 4096, buf), 0);
}

static void all_of_a_burst_fail(void **state)
{
	struct rig *rig = *state;

	two_of_a_burst(rig, XD_WRITE, 0, MiB / 2);
	two_of_a_burst(rig, XD_WRITE, 0, 4096); /* one call for both */
	two_of_a_burst(rig, XD_WRITE, XD_FUA, MiB / 2);
	two_of_a_burst(rig, XD_ZERO, 0, MiB / 2);
	two_of_a_burst(rig, XD_ZERO, XD_FUA, MiB / 2);
}

static void start(struct rig *rig, struct rig_op *op, uint64_t offset)
{
	rig_start(rig, 0, op, XD_WRITE, 0, offset, 4096, buf);
	stack_kick(rig->top[0]);
	(void)engine_run(rig->engine[0], 0);
	while (stack_reap(rig->top[0]))
		;
}

/* While a sync runs one write is made, and another one is being made. */
static void all_that_are_under_way_fail(void **state)
{
	struct rig *rig = *state;
	struct rig_op ops[4];

	atomic_store(&fails, 1);
	atomic_store(&sync_waits, true);
	start(rig, &ops[0], 0);
	while (atomic_load(&syncs) == 0)
		(void)engine_run(rig->engine[0], 1000000);
	start(rig, &ops[1], MiB / 4);
	while (atomic_load(&writes) < 2)
		(void)engine_run(rig->engine[0], 1000000);
	atomic_store(&write_waits, true);
	start(rig, &ops[2], MiB / 2);
	atomic_store(&sync_waits, false);
	rig_wait(rig, 0, ops, 2);
	assert_int_equal(ops[0].err, -EIO);
	assert_int_equal(ops[1].err, -EIO);
	/* Nor does one begin before all of those have ended. */
	start(rig, &ops[3], 3 * MiB / 4);
	assert_true(ops[3].done);
	assert_int_equal(ops[3].err, -EIO);
	assert_false(ops[2].done);
	atomic_store(&write_waits, false);
	rig_wait(rig, 0, &ops[2], 1);
	assert_int_equal(ops[2].err, -EIO);
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, 0, 4096, buf), 0);
	assert_int_equal(atomic_load(&syncs), 2);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(all_of_a_burst_fail),
		TEST(all_that_are_under_way_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
