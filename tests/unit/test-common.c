/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers, units, messages, and files that are opened again. */
#include "config.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/log.h"
#include "common/msg.h"
#include "common/reopen.h"
#include "common/stats.h"
#include "common/util.h"

static void test_numbers(void **state)
{
	static const char *const wrong[] = {
		"",   "-1",  "+1",  "01", "1 ",
		" 1", "0x1", "1.0", "a",  "18446744073709551616"
	};
	uint64_t v = 7;
	uint32_t w;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_true(parse_u64(wrong[i], UINT64_MAX, &v) < 0);
	assert_int_equal(v, 7);
	assert_int_equal(parse_u64("0", 0, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(parse_u64("18446744073709551615", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(parse_u32("17", 16, &w), -ERANGE);
	assert_int_equal(parse_u32("16", 16, &w), 0);
	assert_int_equal(w, 16);
}

static void test_units(void **state)
{
	char text[32];
	uint64_t v;

	(void)state;
	assert_int_equal(parse_size("4K", &v), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(parse_size("1T", &v), 0);
	assert_true(v == 1ull << 40);
	assert_int_equal(parse_size("16777216T", &v), -ERANGE);
	assert_int_equal(parse_size("4k", &v), -EINVAL);
	assert_int_equal(parse_time("250ms", &v), 0);
	assert_int_equal(v, 250000000);
	assert_int_equal(parse_time("5", &v), -EINVAL);
	print_size(text, sizeof(text), 3ull << 30);
	assert_string_equal(text, "3G");
	print_size(text, sizeof(text), 1000);
	assert_string_equal(text, "1000");
	print_size(text, sizeof(text), 0);
	assert_string_equal(text, "0");
	print_time(text, sizeof(text), 90000000000ull);
	assert_string_equal(text, "90s");
	print_time(text, sizeof(text), 0);
	assert_string_equal(text, "0ms");
}

static void test_messages(void **state)
{
	static union {
		struct msg_header h;
		struct msg_text text;
		struct msg_opened opened;
		char bytes[MSG_MAX];
	} m, in;
	size_t length;
	int sock[2];
	int pipefd[2];
	int fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock), 0);
	assert_int_equal(pipe(pipefd), 0);

	strcpy(m.text.text, "why not");
	m.h.seq = 5;
	assert_int_equal(msg_send(sock[0], &m, sizeof(m.text), MSG_FAILED,
				  pipefd[0]),
			 0);
	assert_int_equal(msg_receive(sock[1], &in, &length, &fd), 0);
	assert_int_equal(in.h.type, MSG_FAILED);
	assert_int_equal(in.h.seq, 5);
	assert_string_equal(in.text.text, "why not");
	assert_true(fd >= 0);
	close(fd);

	/* A text that does not end, a wrong length, an unknown type. */
	memset(m.text.text, 'x', sizeof(m.text.text));
	assert_int_equal(msg_send(sock[0], &m, sizeof(m.text), MSG_FAILED, -1),
			 0);
	assert_int_equal(msg_receive(sock[1], &in, &length, &fd), -EPROTO);
	assert_int_equal(msg_send(sock[0], &m, sizeof(m.h), MSG_FAILED, -1), 0);
	assert_int_equal(msg_receive(sock[1], &in, &length, &fd), -EPROTO);
	assert_int_equal(msg_send(sock[0], &m, sizeof(m.h), 999, -1), 0);
	assert_int_equal(msg_receive(sock[1], &in, &length, &fd), -EPROTO);
	memset(&m, 0, sizeof(m));
	m.opened.nr_identities = MSG_MAX_IDENTITIES + 1;
	assert_int_equal(
		msg_send(sock[0], &m, sizeof(m.opened), MSG_OPENED, -1), 0);
	assert_int_equal(msg_receive(sock[1], &in, &length, &fd), -EPROTO);

	close(sock[0]);
	assert_int_equal(msg_receive(sock[1], &in, &length, &fd), -ECONNRESET);
	assert_int_equal(msg_send(sock[1], &m, sizeof(m.h), MSG_CLOSE, -1),
			 -ECONNRESET);
	close(sock[1]);
	close(pipefd[0]);
	close(pipefd[1]);
}

/* Every latency is in the bucket that ends above it and no more than an eighth
 * (or the narrowest bucket) away. */
static void test_latency_buckets(void **state)
{
	unsigned int before = 0;

	(void)state;
	for (uint64_t ns = 1; ns < 60000000000ull; ns += ns / 97 + 1) {
		unsigned int bucket = stats_bucket(ns);
		uint64_t end = stats_bucket_end_ns(bucket);

		assert_true(bucket >= before && bucket < STATS_LATENCY);
		assert_true(end > ns);
		assert_true(end - ns <= MAX(ns / 8, STATS_UNIT_NS));
		assert_true(bucket == 0 ||
			    stats_bucket_end_ns(bucket - 1) <= ns);
		before = bucket;
	}
	assert_int_equal(stats_bucket(0), 0);
	assert_int_equal(stats_bucket(UINT64_MAX), STATS_LATENCY - 1);
}

static void test_quantiles(void **state)
{
	uint64_t latency[STATS_LATENCY] = { 0 };

	(void)state;
	assert_int_equal(stats_quantile_us(latency, 500), 0);
	latency[stats_bucket(7000)] = 989;
	latency[stats_bucket(500000)] = 10;
	latency[stats_bucket(9000000)] = 1;
	assert_in_range(stats_quantile_us(latency, 500), 7, 8);
	assert_in_range(stats_quantile_us(latency, 989), 7, 8);
	assert_in_range(stats_quantile_us(latency, 990), 500, 563);
	assert_in_range(stats_quantile_us(latency, 999), 500, 563);
	assert_in_range(stats_quantile_us(latency, 1000), 9000, 10125);
	/* A worker may have written anything. */
	memset(latency, 0xff, sizeof(latency));
	assert_true(stats_quantile_us(latency, 1) <=
		    stats_quantile_us(latency, 999));
}

/* A reader of the log that hangs stops nobody; it hears of what it missed. */
static void log_is_not_waited_for(void **state)
{
	static char buf[1 << 20];
	int before = dup(STDERR_FILENO), pipes[2];
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(dup2(pipes[1], STDERR_FILENO), STDERR_FILENO);
	log_init("test", LOG_LEVEL_INFO);
	(void)alarm(60); /* this is what would end it */
	for (int i = 0; i < 5000; i++)
		log_line(LOG_LEVEL_INFO, "line %d of many, each of them long",
			 i);
	(void)alarm(0);
	n = read(pipes[0], buf, sizeof(buf) - 1);
	assert_true(n > 0);
	buf[n] = '\0';
	assert_non_null(strstr(buf, "line 0 of many"));
	assert_null(strstr(buf, "line 4999 of many"));
	log_line(LOG_LEVEL_INFO, "at last");
	(void)dup2(before, STDERR_FILENO);
	(void)close(before);
	(void)close(pipes[1]);
	n = read(pipes[0], buf, sizeof(buf) - 1);
	(void)close(pipes[0]);
	assert_true(n > 0);
	buf[n] = '\0';
	assert_non_null(strstr(buf, "lines were left out"));
	assert_non_null(strstr(buf, "at last"));
}

/* The descriptor as only its name would be, O_PATH. */
static int named(int fd)
{
	cleanup_free char *path = xasprintf("/proc/self/fd/%d", fd);
	int named = open(path, O_PATH | O_CLOEXEC);

	assert_true(named >= 0);
	return named;
}

static int flags_of_reopened(int path_fd)
{
	cleanup_close int fd = reopen(path_fd, O_RDWR | O_NOFOLLOW);

	return fd < 0 ? fd : fcntl(fd, F_GETFL);
}

/* 0: who may not ask for it has the file all the same. */
static int reopen_of_another(int path_fd)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3
	};
	struct __user_cap_data_struct caps[2];
	int flags;

	if (syscall(SYS_capget, &header, caps) < 0)
		return 2;
	caps[0].effective &= ~(1u << CAP_FOWNER);
	if (syscall(SYS_capset, &header, caps) < 0)
		return 3;
	flags = flags_of_reopened(path_fd);
	return flags < 0 || flags & O_NOATIME;
}

static void test_reopen(void **state)
{
	cleanup_close int file = memfd_create("file", MFD_CLOEXEC);
	cleanup_close int file_path = named(file);
	cleanup_close int folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int again = -1;
	int pipes[2], status;
	pid_t pid;

	(void)state;
	assert_true(flags_of_reopened(file_path) & O_NOATIME);
	assert_int_equal(flags_of_reopened(-ENOENT), -ENOENT);
	assert_int_equal(reopen(folder, O_RDONLY), -EISDIR);
	again = reopen(folder, O_RDONLY | O_DIRECTORY);
	assert_true(again >= 0);
	assert_int_equal(pipe(pipes), 0);
	(void)close(pipes[1]);
	pipes[1] = named(pipes[0]);
	assert_int_equal(flags_of_reopened(pipes[1]), -ENOTBLK);
	(void)close(pipes[0]);
	(void)close(pipes[1]);
	if (geteuid() != 0)
		return; /* cannot give a file away */
	assert_int_equal(fchown(file, 12345, 12345), 0);
	pid = fork();
	if (pid == 0)
		_exit(reopen_of_another(file_path));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Who may not write is told how to read. */
static void test_reopen_explained(void **state)
{
	static const struct {
		int err, flags;
		const char *text;
	} cases[] = {
		{ -EROFS, O_RDWR,
		  "Read-only file system; to read it only: --readonly, or "
		  "readonly(...)" },
		{ -EACCES, O_RDWR | O_DIRECT,
		  "Permission denied; to read it only: --readonly, or "
		  "readonly(...)" },
		{ -EACCES, O_RDONLY, "Permission denied" },
		{ -ENOENT, O_RDWR, "No such file or directory" },
		{ -ENOTBLK, O_RDWR, "neither a file nor a block device" },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		reopen_explain(cases[i].err, cases[i].flags, text,
			       sizeof(text));
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_latency_buckets),
		cmocka_unit_test(test_quantiles),
		cmocka_unit_test(log_is_not_waited_for),
		cmocka_unit_test(test_reopen),
		cmocka_unit_test(test_reopen_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
