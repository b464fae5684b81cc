/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest can have us write: so much a second, and no line uncounted. */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/log.h"
#include "common/util.h"

#define THREADS 8
#define LINES	20000

static struct log_who who = { .domid = 5, .devid = 51712 };

static void *complain(void *arg)
{
	(void)arg;
	for (unsigned int i = 0; i < LINES; i++)
		log_guest(&who, LOG_LEVEL_ERROR, "nonsense");
	return NULL;
}

/* stderr is a file meanwhile; returns what was written, which is to be freed. */
static char *complain_all(void)
{
	int fd = memfd_create("log", MFD_CLOEXEC), saved = dup(STDERR_FILENO);
	pthread_t thread[THREADS];
	char *text;
	off_t size;

	/* Else two threads write at the same place: a memfd's offset has no lock. */
	assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&thread[i], NULL, complain, NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	/* The next second says what this one has left out. */
	(void)usleep(1000000);
	log_guest(&who, LOG_LEVEL_ERROR, "the last");
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	(void)close(saved);
	size = lseek(fd, 0, SEEK_END);
	text = calloc(1, (size_t)size + 1);
	assert_int_equal(pread(fd, text, (size_t)size, 0), size);
	(void)close(fd);
	return text;
}

static void test_lines_are_counted(void **state)
{
	uint64_t began = now_ns(), seconds;
	unsigned int written = 0, left_out = 0, n;
	cleanup_free char *text = NULL;
	char *rest, *line;

	(void)state;
	log_init("test-log", LOG_LEVEL_INFO);
	text = complain_all();
	seconds = (now_ns() - began) / 1000000000 + 2;
	for (line = strtok_r(text, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest)) {
		assert_non_null(strstr(line, "d5/51712: "));
		if (strstr(line, "nonsense"))
			written++;
		else if (sscanf(strstr(line, "51712: "), "51712: %u more", &n))
			left_out += n;
		else
			assert_non_null(strstr(line, "the last"));
	}
	assert_true(written <= 10 * seconds);
	assert_int_equal(written + left_out, THREADS * LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines_are_counted),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
