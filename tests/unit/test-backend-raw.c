/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw: what it refuses, whom it keeps out, and what it does when the image is
 * not what it was.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "leave-out.h"
#include "common/util.h"
#include "rig.h"

#define MiB (1u << 20)

static unsigned char buf[MiB] __attribute__((aligned(4096)));
static unsigned char expected[MiB];

static int setup(void **state)
{
	struct rig *rig = malloc(sizeof(*rig));

	rig_new(rig, true);
	*state = rig;
	return 0;
}

static int setup_threads(void **state)
{
	(void)setup(state);
	((struct rig *)*state)->uring = false;
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	free(*state);
	return 0;
}

static void open_ok(struct rig *rig, const char *expression)
{
	if (rig_open(rig, 1, expression) < 0)
		fail_msg("%s: %s", expression, rig->why);
}

static void check_why(const struct rig *rig, const char *why)
{
	if (!strstr(rig->why, why))
		fail_msg("\"%s\" does not say \"%s\"", rig->why, why);
}

static void refused(struct rig *rig, const char *expression, int err,
		    const char *why)
{
	assert_int_equal(rig_open(rig, 1, expression), err);
	check_why(rig, why);
}

static void io_ok(struct rig *rig, enum xd_op op, uint32_t flags,
		  uint64_t offset, uint64_t length)
{
	assert_int_equal(rig_io(rig, 0, op, flags, offset, length, buf), 0);
}

static uint64_t allocated(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* --- What it refuses ----------------------------------------------------- */

static void wrong_images_are_refused(void **state)
{
	struct rig *rig = *state;

	refused(rig, "@/none", -ENOENT, "No such file");
	refused(rig, "/dev/null", -EINVAL, "neither a file nor a block device");
	assert_int_equal(mkfifo(rig_file(rig, "fifo", 0), 0600), 0);
	refused(rig, "@/fifo", -EINVAL, "neither a file nor a block device");
	(void)rig_file(rig, "odd", 1000);
	refused(rig, "@/odd", -EINVAL, "1000 bytes, is no multiple");
	(void)rig_file(rig, "small", 512);
	refused(rig, "raw(@/small, sector-size=4096)", -EINVAL,
		"no multiple of the sector size 4096");
	close(open(rig_file(rig, "empty", 0), O_CREAT | O_RDWR, 0600));
	refused(rig, "@/empty", -EINVAL, "is empty");
}

static void shrink_image(struct rig *rig)
{
	assert_int_equal(truncate(rig_file(rig, "image", 0), 4096), 0);
}

static void shrunk_image_is_refused(void **state)
{
	struct rig *rig = *state;

	(void)rig_file(rig, "image", MiB);
	rig->before_activate = shrink_image;
	refused(rig, "@/image", -EIO, "has shrunk");
}

static void limits_are_the_storages(void **state)
{
	struct rig *rig = *state;
	const struct xd_limits *limits;

	(void)rig_file(rig, "image", MiB);
	open_ok(rig, "@/image");
	limits = stack_limits(rig->stack);
	assert_int_equal(limits->size, MiB);
	assert_int_equal(limits->sector_size, 512);
	assert_true(limits->flush && limits->fua && limits->zero);
	assert_true(limits->discard_granularity >= 512);
	assert_false(limits->readonly || limits->is_volatile);
	assert_int_equal(rig_close(rig), 0);
	open_ok(rig, "raw(@/image, cache=writethrough, sector-size=4096, "
		     "discard=no)");
	limits = stack_limits(rig->stack);
	assert_int_equal(limits->sector_size, 4096);
	assert_int_equal(limits->physical_sector_size, 4096);
	assert_false(limits->flush);
	assert_int_equal(limits->discard_granularity, 0);
	assert_int_equal(rig_close(rig), 0);
	assert_int_equal(rig_open_read_only(rig, "@/image"), 0);
	limits = stack_limits(rig->stack);
	assert_true(limits->readonly);
	assert_int_equal(limits->discard_granularity, 0);
	assert_int_equal(rig_close(rig), 0);
}

/* --- Locks --------------------------------------------------------------- */

/* Opens a second stack on the first one's images. */
static int open_beside(struct rig *first, struct rig *second,
		       const char *expression, bool read_only)
{
	const char *at = strchr(expression, '@');
	cleanup_free char *text = xasprintf("%.*s%s%s", (int)(at - expression),
					    expression, first->images, at + 1);

	return read_only ? rig_open_read_only(second, text) :
			   rig_open(second, 1, text);
}

static void locks_keep_others_out(void **state)
{
	static const struct {
		const char *first, *second;
		bool first_ro, second_ro, fits;
	} cases[] = {
		{ "raw(@/image)", "raw(@/image)", false, false, false },
		{ "raw(@/image)", "raw(@/image)", false, true, false },
		{ "raw(@/image)", "raw(@/image)", true, false, false },
		{ "raw(@/image)", "raw(@/image)", true, true, true },
		{ "raw(@/image)", "raw(@/image, shared=yes)", false, false,
		  false },
		{ "raw(@/image, shared=yes)", "raw(@/image)", false, false,
		  false },
		{ "raw(@/image, shared=yes)", "raw(@/image, shared=yes)", false,
		  false, true },
		{ "raw(@/image, lock=no)", "raw(@/image)", false, false, true },
		{ "cow(@/image, mem)", "cow(@/image, mem)", false, false,
		  true },
		{ "cow(@/image, mem)", "raw(@/image)", false, false, false },
	};
	struct rig *rig = *state;

	(void)rig_file(rig, "image", MiB);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig other;
		int r;

		rig_new(&other, false);
		r = open_beside(rig, rig, cases[i].first, cases[i].first_ro);
		assert_int_equal(r, 0);
		r = open_beside(rig, &other, cases[i].second,
				cases[i].second_ro);
		if (r != (cases[i].fits ? 0 : -EBUSY))
			fail_msg("case %u: %d: %s", i, r, other.why);
		if (r < 0)
			check_why(&other, "is in use");
		rig_free(&other);
		assert_int_equal(rig_close(rig), 0);
		rig_detach(rig);
	}
}

/* A successor waits until the dead one's last request has let go. */
struct ghost {
	int fd;
	uint64_t until; /* ns */
};

static void *ghost_main(void *arg)
{
	struct ghost *ghost = arg;

	usleep(300000);
	ghost->until = now_ns();
	close(ghost->fd);
	return NULL;
}

static void recovery_waits_for_ghosts(void **state)
{
	struct rig *rig = *state;
	struct ghost ghost = { .fd = open(rig_file(rig, "image", MiB),
					  O_RDWR) };
	pthread_t thread;

	assert_int_equal(flock(ghost.fd, LOCK_EX), 0);
	refused(rig, "@/image", -EBUSY, "is in use");
	assert_int_equal(pthread_create(&thread, NULL, ghost_main, &ghost), 0);
	assert_int_equal(rig_recover(rig, 1, "@/image"), 0);
	assert_true(ghost.until != 0 && now_ns() >= ghost.until);
	pthread_join(thread, NULL);
	assert_int_equal(rig_close(rig), 0);
}

/* --- QEMU's tools -------------------------------------------------------- */

static bool have_qemu(void)
{
	return system("qemu-img --version >/dev/null 2>&1 && "
		      "qemu-io --version >/dev/null 2>&1") == 0;
}

/* Runs a shell command on the image, "$1"; its output is in buf. */
static int run(struct rig *rig, const char *command)
{
	cleanup_free char *line = xasprintf("set -- '%s/image'; exec 2>&1; %s",
					    rig->images, command);
	FILE *pipe = popen(line, "r");
	size_t n;
	int status;

	assert_non_null(pipe);
	n = fread(buf, 1, sizeof(buf) - 1, pipe);
	buf[n] = '\0';
	status = pclose(pipe);
	return WEXITSTATUS(status);
}

/* qemu-img info and map do not mind others, not even QEMU itself. */
static void qemu_sees_our_locks(void **state)
{
	static const char copy[] = "qemu-img convert -f raw -O raw \"$1\" "
				   "\"$1.copy\"";
	static const char write[] = "qemu-io -f raw -c 'write 0 512' \"$1\"";
	static const char look[] = "qemu-img map -f raw \"$1\"";
	struct rig *rig = *state;

	if (!have_qemu())
		LEAVE_OUT("QEMU's tools are not here");
	(void)rig_file(rig, "image", MiB);
	assert_int_equal(run(rig, copy), 0);
	assert_int_equal(run(rig, write), 0);
	open_ok(rig, "@/image");
	assert_int_not_equal(run(rig, copy), 0);
	assert_non_null(strstr((char *)buf, "Failed to get shared \"write\" "
					    "lock"));
	assert_int_not_equal(run(rig, write), 0);
	assert_non_null(strstr((char *)buf, "Failed to get \"write\" lock"));
	assert_int_equal(run(rig, look), 0);
	assert_int_equal(rig_close(rig), 0);
	assert_int_equal(run(rig, copy), 0);
	/* A reader keeps writers out, and no readers. */
	assert_int_equal(rig_open_read_only(rig, "@/image"), 0);
	assert_int_equal(run(rig, copy), 0);
	assert_int_not_equal(run(rig, write), 0);
	assert_non_null(strstr((char *)buf, "Failed to get \"write\" lock"));
	assert_int_equal(rig_close(rig), 0);
}

/* qemu-io with the image open, until its input ends. */
static FILE *qemu_io(struct rig *rig, const char *options)
{
	cleanup_free char *line =
		xasprintf("qemu-io -f raw %s '%s/image' >/dev/null 2>'%s/err'",
			  options, rig->images, rig->images);
	FILE *pipe = popen(line, "w");

	assert_non_null(pipe);
	fputs("read 0 512\n", pipe);
	fflush(pipe);
	/* Until its lock shows. */
	for (unsigned int i = 0; i < 100; i++) {
		struct flock lock = { .l_type = F_WRLCK,
				      .l_start = 100,
				      .l_len = 200 };
		cleanup_close int fd = open(rig_file(rig, "image", 0), O_RDWR);

		assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
		if (lock.l_type != F_UNLCK)
			break;
		usleep(50000);
	}
	return pipe;
}

static void we_see_qemus_locks(void **state)
{
	struct rig *rig = *state;
	FILE *pipe;

	if (!have_qemu())
		LEAVE_OUT("QEMU's tools are not here");
	(void)rig_file(rig, "image", MiB);
	pipe = qemu_io(rig, "");
	refused(rig, "@/image", -EBUSY, "is in use: QEMU or another program");
	assert_int_equal(rig_open_read_only(rig, "@/image"), -EBUSY);
	assert_int_equal(rig_open(rig, 1, "raw(@/image, lock=no)"), 0);
	assert_int_equal(rig_close(rig), 0);
	(void)pclose(pipe);
	/* It does not mind that what it reads changes. */
	pipe = qemu_io(rig, "-r");
	open_ok(rig, "@/image");
	assert_int_equal(rig_close(rig), 0);
	assert_int_equal(rig_open_read_only(rig, "@/image"), 0);
	assert_int_equal(rig_close(rig), 0);
	(void)pclose(pipe);
}

/* --- Data ---------------------------------------------------------------- */

static void discard_frees_and_zero_zeroes(void **state)
{
	static const char *const expressions[] = {
		"@/image", "raw(@/image, cache=writeback)",
		"raw(@/image, cache=writethrough)"
	};
	struct rig *rig = *state;
	const char *path = rig_file(rig, "image", MiB);

	for (unsigned int i = 0; i < ARRAY_SIZE(expressions); i++) {
		open_ok(rig, expressions[i]);
		memset(buf, 5, MiB);
		io_ok(rig, XD_WRITE, XD_FUA, 0, MiB);
		assert_true(allocated(path) >= MiB);
		io_ok(rig, XD_DISCARD, 0, 512, MiB / 2);
		assert_true(allocated(path) <= MiB - MiB / 2 + 8192);
		io_ok(rig, XD_ZERO, XD_FUA, 512, 256 * 1024);
		io_ok(rig, XD_ZERO, XD_NO_HOLE, 3 * MiB / 4, MiB / 4);
		assert_true(allocated(path) >= MiB / 4);
		io_ok(rig, XD_READ, 0, 0, MiB);
		assert_int_equal(buf[0], 5);
		memset(expected, 0, MiB);
		assert_memory_equal(buf + 512, expected, 256 * 1024);
		assert_memory_equal(buf + 3 * MiB / 4, expected, MiB / 4);
		assert_int_equal(buf[3 * MiB / 4 - 1], 5);
		assert_int_equal(rig_close(rig), 0);
	}
}

/* read() and pread() calls of this process so far. */
static uint64_t read_calls(void)
{
	cleanup_file FILE *f = fopen("/proc/self/io", "r");
	char line[128];
	unsigned long long n = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "syscr: %llu", &n) == 1)
			break;
	return n;
}

/* How many a burst of 16 reads takes, `step` apart. */
static uint64_t calls_of_burst(struct rig *rig, uint64_t step)
{
	struct rig_op ops[16];
	uint64_t before = read_calls();

	for (unsigned int i = 0; i < 16; i++)
		rig_start(rig, 0, &ops[i], XD_READ, 0, i * step, 4096,
			  buf + i * 4096);
	rig_wait(rig, 0, ops, 16);
	for (unsigned int i = 0; i < 16; i++)
		assert_int_equal(ops[i].err, 0);
	return read_calls() - before;
}

static void adjacent_requests_are_one_call(void **state)
{
	struct rig *rig = *state;
	uint64_t apart;

	(void)rig_file(rig, "image", MiB);
	open_ok(rig, "@/image");
	apart = calls_of_burst(rig, 8192);
	if (apart < 16)
		LEAVE_OUT("no account of system calls here");
	assert_in_range(calls_of_burst(rig, 4096), 1, apart - 12);
	assert_int_equal(rig_close(rig), 0);
}

/* The file ends in the midst of a run: only those beyond fail. */
static void an_error_meets_its_own_request(void **state)
{
	static const char *const expressions[] = {
		"@/image", "raw(@/image, cache=writeback)"
	};
	struct rig *rig = *state;

	for (unsigned int e = 0; e < ARRAY_SIZE(expressions); e++) {
		const char *path = rig_file(rig, "image", MiB);
		struct rig_op ops[4];

		open_ok(rig, expressions[e]);
		memset(buf, 3, MiB);
		io_ok(rig, XD_WRITE, 0, 0, MiB);
		assert_int_equal(truncate(path, 8192), 0);
		for (unsigned int i = 0; i < 4; i++)
			rig_start(rig, 0, &ops[i], XD_READ, 0, i * 4096, 4096,
				  buf + i * 4096);
		rig_wait(rig, 0, ops, 4);
		for (unsigned int i = 0; i < 4; i++)
			assert_int_equal(ops[i].err, i < 2 ? 0 : -EIO);
		assert_int_equal(rig_close(rig), 0);
	}
}

/* --- Block devices -------------------------------------------------------- */

static char loop[64]; /* "/dev/loop3", or empty */

/* Runs losetup; its output, without the end of the line, goes to loop. */
static void losetup(struct rig *rig, const char *options)
{
	cleanup_free char *line = xasprintf("losetup %s '%s/image' 2>/dev/null",
					    options, rig->images);
	FILE *pipe = popen(line, "r");

	assert_non_null(pipe);
	if (!fgets(loop, sizeof(loop), pipe))
		loop[0] = '\0';
	loop[strcspn(loop, "\n")] = '\0';
	(void)pclose(pipe);
}

static int setup_loop(void **state)
{
	(void)setup(state);
	(void)rig_file(*state, "image", MiB);
	if (geteuid() == 0)
		losetup(*state, "--show -f");
	return 0;
}

static int teardown_loop(void **state)
{
	cleanup_free char *line = xasprintf(
		"delpart %s 1 2>/dev/null; losetup -d %s", loop, loop);
	struct rig *rig = *state;

	if (rig->stack)
		rig_die(rig);
	if (loop[0])
		assert_int_equal(system(line), 0);
	loop[0] = '\0';
	return teardown(state);
}

static void devices_are_served(void **state)
{
	struct rig *rig = *state;
	struct rig other;
	const char *image = rig_file(rig, "image", 0);

	if (!loop[0])
		LEAVE_OUT("no loop device");
	open_ok(rig, loop);
	assert_int_equal(stack_limits(rig->stack)->size, MiB);
	memset(buf, 5, MiB);
	io_ok(rig, XD_WRITE, XD_FUA, 0, MiB);
	if (stack_limits(rig->stack)->discard_granularity) {
		io_ok(rig, XD_DISCARD, 0, 0, MiB / 2);
		assert_true(allocated(image) <= MiB / 2 + 8192);
	}
	io_ok(rig, XD_ZERO, 0, MiB / 2 + 512, 1024);
	io_ok(rig, XD_FLUSH, 0, 0, 0);
	io_ok(rig, XD_READ, 0, MiB / 2, 4096);
	memset(expected, 5, 4096);
	memset(expected + 512, 0, 1024);
	assert_memory_equal(buf, expected, 4096);

	rig_new(&other, true);
	assert_int_equal(rig_open(&other, 1, loop), -EBUSY);
	check_why(&other, "flock");
	rig_free(&other);
	assert_int_equal(rig_close(rig), 0);
}

/* As a mounted one is. */
static void claimed_devices_are_refused(void **state)
{
	struct rig *rig = *state;
	int fd;

	if (!loop[0])
		LEAVE_OUT("no loop device");
	fd = open(loop, O_RDONLY | O_EXCL);
	assert_true(fd >= 0);
	refused(rig, loop, -EBUSY, "it is mounted");
	assert_int_equal(rig_open_read_only(rig, loop), 0);
	assert_int_equal(rig_close(rig), 0);
	close(fd);
	open_ok(rig, loop);
	assert_true(open(loop, O_RDONLY | O_EXCL) < 0);
	assert_int_equal(rig_close(rig), 0);
}

static void exchange_device(struct rig *rig)
{
	cleanup_free char *line =
		xasprintf("losetup -d %s && losetup %s '%s/image'", loop, loop,
			  rig->images);

	assert_int_equal(system(line), 0);
}

static void another_device_of_the_name_is_refused(void **state)
{
	struct rig *rig = *state;

	if (!loop[0])
		LEAVE_OUT("no loop device");
	rig->before_activate = exchange_device;
	refused(rig, loop, -ESTALE, "is no longer what was attached");
}

static void set_device_size(struct rig *rig, uint64_t size)
{
	cleanup_free char *line = xasprintf("losetup -c %s", loop);

	assert_int_equal(truncate(rig_file(rig, "image", 0), (off_t)size), 0);
	assert_int_equal(system(line), 0);
}

/* By whoever made them; the disk follows. */
static void devices_grow(void **state)
{
	struct rig *rig = *state;

	if (!loop[0])
		LEAVE_OUT("no loop device");
	open_ok(rig, loop);
	assert_int_equal(rig_resize(rig, 2 * MiB), -EOPNOTSUPP);
	check_why(rig, "is a block device");
	set_device_size(rig, 2 * MiB);
	assert_int_equal(rig_resize(rig, 0), 0);
	assert_int_equal(rig_size(rig), 2 * MiB);
	memset(buf, 6, 8192);
	io_ok(rig, XD_WRITE, XD_FUA, 2 * MiB - 8192, 8192);
	memset(buf, 0, 8192);
	io_ok(rig, XD_READ, 0, 2 * MiB - 8192, 8192);
	memset(expected, 6, 8192);
	assert_memory_equal(buf, expected, 8192);
	/* One that shrinks is not followed. */
	set_device_size(rig, MiB);
	assert_int_equal(rig_resize(rig, 0), -EPERM);
	check_why(rig, "has shrunk to 1048576 bytes");
	assert_int_equal(rig_size(rig), 2 * MiB);
	for (enum xd_op op = XD_READ; op <= XD_WRITE; op++)
		assert_int_equal(rig_io(rig, 0, op, 0, MiB, 8192, buf), -EIO);
	io_ok(rig, XD_READ, 0, MiB - 8192, 8192);
	assert_int_equal(rig_close(rig), 0);
}

/* The node of a partition of the loop device that begins at sector 63, in the rig's
 * folder; NULL: it cannot be had. */
static char *odd_partition(struct rig *rig)
{
	cleanup_free char *node = xasprintf("%s/odd", rig->images);
	const char *name = strrchr(loop, '/') + 1;
	cleanup_free char *line =
		xasprintf("addpart %s 1 63 1984 2>/dev/null && "
			  "mknod '%s' b $(tr : ' ' < /sys/block/%s/%sp1/dev)",
			  loop, node, name, name);

	return system(line) == 0 ? TAKE_PTR(node) : NULL;
}

/* Whole sectors of 4096 never meet what the device can free; those of 512 do. */
static void pieces_between_sectors_are_not_discarded(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *node = loop[0] ? odd_partition(rig) : NULL;
	cleanup_free char *large =
		xasprintf("raw(%s, sector-size=4096)", node ? node : "");

	if (!node)
		LEAVE_OUT("no partition of a loop device");
	open_ok(rig, node);
	if (stack_limits(rig->stack)->discard_granularity)
		assert_int_equal(stack_limits(rig->stack)->discard_alignment,
				 512);
	assert_int_equal(rig_close(rig), 0);
	open_ok(rig, large);
	assert_int_equal(stack_limits(rig->stack)->discard_granularity, 0);
	assert_int_equal(rig_close(rig), 0);
}

#define LOOP(f) cmocka_unit_test_setup_teardown(f, setup_loop, teardown_loop)

/* --- A file system that fails on command --------------------------------- */

#ifdef FAILFS
static pid_t failfs;

static void failfs_start(struct rig *rig)
{
	cleanup_free char *mount = xasprintf("%s/fuse", rig->images);
	cleanup_free char *file = xasprintf("%s/fuse/image", rig->images);
	const char *image = rig_file(rig, "image", MiB);

	assert_int_equal(mkdir(mount, 0700), 0);
	failfs = fork();
	assert_true(failfs >= 0);
	if (failfs == 0) {
		execl(FAILFS, FAILFS, image, mount, (char *)NULL);
		_exit(127);
	}
	for (unsigned int i = 0; i < 100 && access(file, F_OK) < 0; i++) {
		if (waitpid(failfs, NULL, WNOHANG) != 0)
			break; /* cannot be mounted here */
		usleep(20000);
	}
	if (access(file, F_OK) < 0)
		failfs = 0;
}

static void failfs_stop(void)
{
	if (!failfs)
		return;
	assert_int_equal(kill(failfs, SIGTERM), 0);
	assert_int_equal(waitpid(failfs, NULL, 0), failfs);
}

static void failfs_say(struct rig *rig, const char *text)
{
	cleanup_free char *path = xasprintf("%s/fuse/control", rig->images);
	cleanup_close int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static int setup_failfs(void **state)
{
	(void)setup(state);
	failfs_start(*state);
	return 0;
}

static int teardown_failfs(void **state)
{
	struct rig *rig = *state;

	if (rig->stack)
		rig_die(rig);
	failfs_stop();
	return teardown(state);
}

static const char *const failfs_modes[] = {
	"@/fuse/image",
	"raw(@/fuse/image, cache=writeback)",
};

static void a_failed_flush_is_told(void **state)
{
	struct rig *rig = *state;

	if (!failfs)
		LEAVE_OUT("no FUSE");
	for (unsigned int i = 0; i < ARRAY_SIZE(failfs_modes); i++) {
		open_ok(rig, failfs_modes[i]);
		io_ok(rig, XD_WRITE, 0, 0, 65536);
		io_ok(rig, XD_FLUSH, 0, 0, 0);
		failfs_say(rig, "fsync 5");
		assert_int_equal(rig_io(rig, 0, XD_FLUSH, 0, 0, 0, NULL), -EIO);
		assert_int_equal(rig_close(rig), 0);
		/* What was lost before is no base to go on from. */
		refused(rig, failfs_modes[i], -EIO, "was lost");
		failfs_say(rig, "fsync 0");
	}
}

static void errors_of_the_storage_are_told(void **state)
{
	struct rig *rig = *state;

	if (!failfs)
		LEAVE_OUT("no FUSE");
	open_ok(rig, "@/fuse/image");
	failfs_say(rig, "write 28 1");
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, 0, 4096, buf), -ENOSPC);
	io_ok(rig, XD_WRITE, 0, 0, 4096);
	failfs_say(rig, "read 5 1");
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, 0, 4096, buf), -EIO);
	io_ok(rig, XD_READ, 0, 0, 4096);
	assert_int_equal(rig_close(rig), 0);
}

static void storage_without_holes_is_zeroed_by_hand(void **state)
{
	struct rig *rig = *state;

	if (!failfs)
		LEAVE_OUT("no FUSE");
	failfs_say(rig, "fallocate 95");
	open_ok(rig, "@/fuse/image");
	memset(buf, 7, MiB);
	io_ok(rig, XD_WRITE, 0, 0, MiB);
	assert_int_equal(rig_io(rig, 0, XD_DISCARD, 0, 0, MiB, NULL),
			 -EOPNOTSUPP);
	io_ok(rig, XD_ZERO, 0, 4096, MiB - 8192);
	io_ok(rig, XD_READ, 0, 0, MiB);
	memset(expected, 0, MiB);
	assert_memory_equal(buf + 4096, expected, MiB - 8192);
	assert_int_equal(buf[4095], 7);
	assert_int_equal(buf[MiB - 4096], 7);
	assert_int_equal(rig_close(rig), 0);
}

#define FAILFS_TEST(f) \
	cmocka_unit_test_setup_teardown(f, setup_failfs, teardown_failfs),
#else
#define FAILFS_TEST(f)
#endif

#define TEST(f)	   cmocka_unit_test_setup_teardown(f, setup, teardown)
#define THREADS(f) cmocka_unit_test_setup_teardown(f, setup_threads, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(wrong_images_are_refused),
		TEST(shrunk_image_is_refused),
		TEST(limits_are_the_storages),
		TEST(locks_keep_others_out),
		TEST(recovery_waits_for_ghosts),
		TEST(qemu_sees_our_locks),
		TEST(we_see_qemus_locks),
		TEST(discard_frees_and_zero_zeroes),
		THREADS(discard_frees_and_zero_zeroes),
		THREADS(adjacent_requests_are_one_call),
		TEST(an_error_meets_its_own_request),
		THREADS(an_error_meets_its_own_request),
		LOOP(devices_are_served),
		LOOP(claimed_devices_are_refused),
		LOOP(another_device_of_the_name_is_refused),
		LOOP(pieces_between_sectors_are_not_discarded),
		LOOP(devices_grow),
		FAILFS_TEST(a_failed_flush_is_told)
			FAILFS_TEST(errors_of_the_storage_are_told) FAILFS_TEST(
				storage_without_holes_is_zeroed_by_hand)
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("backend raw", tests, NULL, NULL);
}
