/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Questions and answers, while other messages and threads come between. */
#include "config.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "fake-broker.h"

#define MS 1000000ull

struct fixture {
	struct fake_broker *broker;
	struct fake_broker_state *seen;
	struct services *services;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->broker = fake_broker_new();
	f->seen = fake_broker_state(f->broker);
	f->services = fake_broker_connect(f->broker);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	services_free(f->services);
	fake_broker_free(f->broker);
	free(f);
	return 0;
}

static int budget(struct fixture *f, int64_t amount, uint64_t timeout_ns)
{
	struct msg_service request = { .kind = MSG_SERVICE_BUDGET,
				       .amount = amount };
	struct msg_service_done done;

	return services_call(f->services, &request, &done, NULL, timeout_ns);
}

static int keep(struct fixture *f, const char *name, int *ret_fd)
{
	struct msg_service request = { .kind = MSG_SERVICE_KEEP, .size = 4096 };
	struct msg_service_done done;

	snprintf(request.name, sizeof(request.name), "%s", name);
	return services_call(f->services, &request, &done, ret_fd, 5000 * MS);
}

static void resume(struct fixture *f, uint32_t accept_loss)
{
	struct msg_resume msg = { .accept_loss = accept_loss };

	assert_int_equal(
		fake_broker_send(f->broker, &msg, sizeof(msg), MSG_RESUME), 0);
}

static uint32_t next_resume(struct fixture *f)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	const struct msg_resume *msg = (const void *)buf;
	size_t length;
	int fd;

	assert_int_equal(
		services_next(f->services, buf, &length, &fd, UINT64_MAX), 0);
	assert_int_equal(msg->h.type, MSG_RESUME);
	assert_int_equal(length, sizeof(*msg));
	return msg->accept_loss;
}

static void test_answers(void **state)
{
	struct fixture *f = *state;
	int fd = -1, none = 7;

	f->seen->budget = 10;
	assert_int_equal(budget(f, 10, 5000 * MS), 0);
	assert_int_equal(budget(f, 1, 5000 * MS), -ENOSPC);
	assert_int_equal(budget(f, -4, 5000 * MS), 0);
	assert_int_equal(f->seen->budget, 4);
	assert_int_equal(keep(f, "log", &fd), 0);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(keep(f, "no/such/folder", &none), -ENOENT);
	assert_int_equal(none, 7);
}

/* Orders that come while an answer is waited for are not lost, nor do they
 * change places. */
static void test_orders_in_between(void **state)
{
	struct fixture *f = *state;

	for (uint32_t i = 0; i < 3; i++)
		resume(f, i);
	assert_int_equal(budget(f, 1, 5000 * MS), 0);
	resume(f, 3);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(next_resume(f), i);
}

/* The broker takes a second question for an attack, so the next one waits for
 * the answer that came too late for the first. */
static void test_late_answer(void **state)
{
	struct fixture *f = *state;
	uint64_t begin = now_ns();

	f->seen->delay_ns = 200 * MS;
	assert_int_equal(budget(f, 1, 20 * MS), -ETIMEDOUT);
	assert_true(now_ns() - begin < 150 * MS);
	assert_int_equal(budget(f, 1, 20 * MS), -ETIMEDOUT);
	assert_int_equal(f->seen->asked[MSG_SERVICE_BUDGET], 1);
	assert_int_equal(budget(f, 1, 5000 * MS), 0);
	assert_int_equal(f->seen->asked[MSG_SERVICE_BUDGET], 2);
	f->seen->delay_ns = 0;
	assert_int_equal(budget(f, 1, 5000 * MS), 0);
}

static void *main_thread(void *arg)
{
	return (void *)(uintptr_t)next_resume(arg);
}

static void *lane(void *arg)
{
	struct fixture *f = arg;
	int fd;

	for (int i = 0; i < 200; i++) {
		if (budget(f, 1, 5000 * MS) != 0)
			return NULL;
		if (keep(f, "log", &fd) != 0)
			return NULL;
		close(fd);
	}
	return f;
}

/* The main thread waits for orders, lanes ask. */
static void test_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t waits, asks[4];
	void *ret;

	f->seen->budget = 1000;
	assert_int_equal(pthread_create(&waits, NULL, main_thread, f), 0);
	for (size_t i = 0; i < ARRAY_SIZE(asks); i++)
		assert_int_equal(pthread_create(&asks[i], NULL, lane, f), 0);
	for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
		assert_int_equal(pthread_join(asks[i], &ret), 0);
		assert_non_null(ret);
	}
	assert_int_equal(f->seen->budget, 200);
	resume(f, 42);
	assert_int_equal(pthread_join(waits, &ret), 0);
	assert_int_equal((uintptr_t)ret, 42);
}

static void test_send(void **state)
{
	struct fixture *f = *state;
	struct msg_condition msg = { .kind = MSG_PAUSED, .set = 1 };

	/* More than a socket holds: it waits until the broker reads on. */
	for (int i = 0; i < 1000; i++)
		assert_int_equal(services_send(f->services, &msg, sizeof(msg),
					       MSG_CONDITION),
				 0);
}

/* Nothing comes: who waits goes on with something else, and misses nothing. */
static void test_deadline(void **state)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	struct fixture *f = *state;
	uint64_t before = now_ns();
	size_t length;
	int fd;

	assert_int_equal(services_next(f->services, buf, &length, &fd, 0),
			 -ETIMEDOUT);
	assert_int_equal(services_next(f->services, buf, &length, &fd,
				       before + 20 * MS),
			 -ETIMEDOUT);
	assert_true(now_ns() - before >= 20 * MS);
	resume(f, 3);
	assert_int_equal(budget(f, 1, 5000 * MS), 0);
	assert_int_equal(services_next(f->services, buf, &length, &fd, 0), 0);
	assert_int_equal(budget(f, 1, 5000 * MS), 0);
}

static void test_hang_up(void **state)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	struct fixture *f = *state;
	size_t length;
	int fd;

	resume(f, 5);
	fake_broker_hang_up(f->broker);
	assert_int_equal(next_resume(f), 5);
	assert_int_equal(services_next(f->services, buf, &length, &fd,
				       UINT64_MAX),
			 -ECONNRESET);
	assert_int_equal(budget(f, 1, 5000 * MS), -ECONNRESET);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_answers),	TEST(test_orders_in_between),
		TEST(test_late_answer), TEST(test_threads),
		TEST(test_send),	TEST(test_deadline),
		TEST(test_hang_up),
	};

	return cmocka_run_group_tests_name("services", tests, NULL, NULL);
}
