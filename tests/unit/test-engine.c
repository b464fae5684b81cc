/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Both engines: the same tests, the state says which. */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/util.h"
#include "worker/engine-ops.h"

#define MS	1000000ull
#define ENTRIES 4 /* few, so that the queue overflows */

struct fixture {
	struct engine *engine;
	int fd;
};

/* One call and what became of it. */
struct probe {
	struct xd_sys sys;
	struct engine *engine;
	unsigned int done;
	int64_t res;
	unsigned int *order, turn;
	struct probe *then; /* started by done() */
};

static void probe_done(struct xd_sys *sys, int64_t res)
{
	struct probe *probe = container_of(sys, struct probe, sys);

	probe->done++;
	probe->res = res;
	if (probe->order)
		probe->turn = ++*probe->order;
	if (probe->then)
		engine_sys(probe->engine, &probe->then->sys);
}

static void start(struct engine *engine, struct probe *probe)
{
	probe->engine = engine;
	probe->sys.done = probe_done;
	engine_sys(engine, &probe->sys);
}

static void finish(struct engine *engine, struct probe *probe)
{
	unsigned int before = probe->done;

	while (probe->done == before)
		assert_true(engine_run(engine, UINT64_MAX) >= 0);
	assert_int_equal(probe->done, before + 1);
}

static int64_t call(struct engine *engine, struct xd_sys sys)
{
	struct probe probe = { .sys = sys };

	start(engine, &probe);
	assert_int_equal(probe.done, 0); /* never from within */
	finish(engine, &probe);
	return probe.res;
}

static int setup(void **state, bool uring)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(engine_new(&f->engine, ENTRIES, uring), 0);
	if (uring && !engine_is_uring(f->engine))
		print_message("# no io_uring here: threads once more\n");
	f->fd = memfd_create("engine", MFD_CLOEXEC);
	assert_true(f->fd >= 0);
	assert_int_equal(ftruncate(f->fd, 1 << 20), 0);
	*state = f;
	return 0;
}

static int setup_uring(void **state)
{
	return setup(state, true);
}

static int setup_threads(void **state)
{
	return setup(state, false);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	engine_free(f->engine);
	close(f->fd);
	free(f);
	return 0;
}

static void test_read_write(void **state)
{
	struct fixture *f = *state;
	char a[] = "first", b[] = "second", back[12] = "";
	struct iovec out[] = { { a, 5 }, { b, 6 } };
	struct iovec in = { back, 11 };
	struct xd_sys sys = { .op = XD_SYS_WRITEV,
			      .fd = f->fd,
			      .iov = out,
			      .iovcnt = 2,
			      .offset = 4096 };

	assert_int_equal(call(f->engine, sys), 11);
	sys.op = XD_SYS_READV;
	sys.iov = &in;
	sys.iovcnt = 1;
	assert_int_equal(call(f->engine, sys), 11);
	assert_string_equal(back, "firstsecond");
	sys.offset = (1 << 20) - 4;
	assert_int_equal(call(f->engine, sys), 4); /* the file's end */
}

static void test_other_calls(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct xd_sys sys = { .op = XD_SYS_FALLOCATE,
			      .fd = f->fd,
			      .offset = 8192,
			      .length = 4096 };

	assert_int_equal(call(f->engine, sys), 0);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_blocks, 8);
	sys.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	assert_int_equal(call(f->engine, sys), 0);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	sys = (struct xd_sys){ .op = XD_SYS_FDATASYNC, .fd = f->fd };
	assert_int_equal(call(f->engine, sys), 0);
}

/* No other call in the engine, others beside it, and many at once. */
static void test_seek(void **state)
{
	enum { NR = 100 };
	struct fixture *f = *state;
	struct probe *probe = calloc(NR, sizeof(*probe));
	unsigned int order = 0;
	struct xd_sys sys;

	assert_non_null(probe);
	assert_int_equal(pwrite(f->fd, "x", 1, 65536), 1);
	sys = (struct xd_sys){ .op = XD_SYS_SEEK,
			       .fd = f->fd,
			       .flags = SEEK_DATA };
	assert_int_equal(call(f->engine, sys), 65536);
	sys.offset = 65536;
	sys.flags = SEEK_HOLE;
	assert_int_equal(call(f->engine, sys), 65536 + 4096);
	sys.flags = SEEK_DATA;
	sys.offset = 1 << 20;
	assert_int_equal(call(f->engine, sys), -ENXIO);
	for (unsigned int i = 0; i < NR; i++) {
		probe[i].sys = sys;
		probe[i].sys.offset = i % 3 ? 4096 : 1 << 20;
		if (i % 3 == 2)
			probe[i].sys = (struct xd_sys){ .op = XD_SYS_FDATASYNC,
							.fd = f->fd };
		probe[i].order = &order;
		start(f->engine, &probe[i]);
	}
	while (order < NR)
		assert_true(engine_run(f->engine, UINT64_MAX) >= 0);
	for (unsigned int i = 0; i < NR; i++)
		assert_int_equal(probe[i].res, i % 3 == 2 ? 0 :
					       i % 3	  ? 65536 :
							    -ENXIO);
	free(probe);
}

/* One that is under way when the engine ends is waited for. */
static void test_seek_cancelled(void **state)
{
	struct fixture *f = *state;
	struct probe probe = {
		.sys = { .op = XD_SYS_SEEK, .fd = f->fd, .flags = SEEK_HOLE }
	};

	start(f->engine, &probe);
	engine_cancel(f->engine);
	assert_int_equal(probe.done, 1);
	assert_int_equal(probe.res, 0);
}

static void test_errors(void **state)
{
	struct fixture *f = *state;
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct xd_sys sys = { .fd = -1, .iov = &iov, .iovcnt = 1 };
	const enum xd_sys_op ops[] = { XD_SYS_READV, XD_SYS_WRITEV,
				       XD_SYS_FDATASYNC, XD_SYS_FALLOCATE,
				       XD_SYS_SEEK };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		sys.op = ops[i];
		sys.length = 1;
		assert_int_equal(call(f->engine, sys), -EBADF);
	}
	sys.op = XD_SYS_READV;
	sys.fd = f->fd;
	sys.flags = 1 << 30; /* no such RWF_ flag */
	assert_int_equal(call(f->engine, sys), -EOPNOTSUPP);
}

/* Far more calls than the kernel's queue takes, some of them polls. */
static void test_more_than_entries(void **state)
{
	enum { NR = 1000 };
	struct fixture *f = *state;
	struct probe *probe = calloc(NR, sizeof(*probe));
	struct iovec *iov = calloc(NR, sizeof(*iov));
	uint32_t *word = calloc(NR, sizeof(*word));
	unsigned int order = 0, i;
	uint32_t back;

	assert_true(probe && iov && word);
	for (i = 0; i < NR; i++) {
		word[i] = i * 2654435761u;
		iov[i] = (struct iovec){ &word[i], sizeof(word[i]) };
		probe[i].sys = (struct xd_sys){ .op = XD_SYS_WRITEV,
						.fd = f->fd,
						.iov = &iov[i],
						.iovcnt = 1,
						.offset = i * 4 };
		if (i % 7 == 0)
			probe[i].sys.op = XD_SYS_POLL;
		if (i % 7 == 0)
			probe[i].sys.flags = POLLOUT;
		probe[i].order = &order;
		start(f->engine, &probe[i]);
	}
	while (order < NR)
		assert_true(engine_run(f->engine, UINT64_MAX) >= 0);
	assert_int_equal(engine_run(f->engine, 0), 0);
	for (i = 0; i < NR; i++) {
		assert_int_equal(probe[i].done, 1);
		if (i % 7 == 0)
			continue;
		assert_int_equal(probe[i].res, 4);
		assert_int_equal(pread_all(f->fd, &back, 4, i * 4), 0);
		assert_int_equal(back, word[i]);
	}
	free(probe);
	free(iov);
	free(word);
}

static void test_poll(void **state)
{
	struct fixture *f = *state;
	struct probe in = { 0 }, hup = { 0 };
	int fds[2], other[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pipe(other), 0);
	in.sys = (struct xd_sys){ .op = XD_SYS_POLL,
				  .fd = fds[0],
				  .flags = POLLIN };
	hup.sys = (struct xd_sys){ .op = XD_SYS_POLL,
				   .fd = other[0],
				   .flags = POLLIN };
	start(f->engine, &in);
	start(f->engine, &hup);
	assert_int_equal(engine_run(f->engine, 10 * MS), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	finish(f->engine, &in);
	assert_int_equal(in.res, POLLIN);
	assert_int_equal(hup.done, 0);
	start(f->engine, &in); /* the byte is still there */
	finish(f->engine, &in);
	close(other[1]);
	finish(f->engine, &hup);
	assert_true(hup.res & POLLHUP);
	close(other[0]);
	close(fds[0]);
	close(fds[1]);
}

/* Polls wait in one place while they are alone, in another while calls are
 * under way: they notice the same in both, and when moved. */
static void test_poll_moves(void **state)
{
	struct fixture *f = *state;
	struct probe poll = { 0 }, sync = { 0 };
	int fds[2];
	char byte;

	assert_int_equal(pipe(fds), 0);
	poll.sys = (struct xd_sys){ .op = XD_SYS_POLL,
				    .fd = fds[0],
				    .flags = POLLIN };
	sync.sys = (struct xd_sys){ .op = XD_SYS_FDATASYNC, .fd = f->fd };
	for (unsigned int i = 0; i < 8; i++) {
		start(f->engine, &poll);
		if (i & 1)
			assert_int_equal(engine_run(f->engine, MS), 0);
		if (i & 2) {
			start(f->engine, &sync);
			finish(f->engine, &sync);
		}
		if (i & 4)
			assert_int_equal(engine_run(f->engine, 0), 0);
		assert_int_equal(poll.done, i);
		assert_int_equal(write(fds[1], "x", 1), 1);
		finish(f->engine, &poll);
		assert_int_equal(poll.res, POLLIN);
		assert_int_equal(read(fds[0], &byte, 1), 1);
		engine_wake(f->engine);
		assert_int_equal(engine_run(f->engine, UINT64_MAX), 0);
	}
	start(f->engine, &poll);
	engine_cancel(f->engine); /* never looked at */
	assert_int_equal(poll.res, -ECANCELED);
	close(fds[0]);
	close(fds[1]);
}

/* Each lane of a disk that is disconnected waits for this. */
static void test_cancel_is_quick(void **state)
{
	struct fixture *f = *state;
	struct probe poll = { 0 };
	uint64_t begin, least = UINT64_MAX;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	poll.sys = (struct xd_sys){ .op = XD_SYS_POLL,
				    .fd = fds[0],
				    .flags = POLLIN };
	for (unsigned int i = 0; i < 5; i++) {
		start(f->engine, &poll);
		assert_int_equal(engine_run(f->engine, MS), 0);
		begin = now_ns();
		engine_cancel(f->engine);
		least = MIN(least, now_ns() - begin);
		assert_int_equal(poll.done, i + 1);
		assert_int_equal(poll.res, -ECANCELED);
	}
	assert_in_range(least, 0, 50 * MS);
	close(fds[0]);
	close(fds[1]);
}

static void test_dropped_timer(void **state)
{
	struct fixture *f = *state;
	struct probe dropped = { 0 }, later = { 0 };

	dropped.sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 1000000 };
	later.sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 5000000 };
	start(f->engine, &dropped);
	start(f->engine, &later);
	engine_drop_timer(f->engine, &dropped.sys);
	finish(f->engine, &later);
	assert_int_equal(dropped.done, 0);
}

static void test_timers(void **state)
{
	struct fixture *f = *state;
	unsigned int order = 0;
	struct probe late = { .order = &order }, soon = { .order = &order },
		     never = { .order = &order };
	uint64_t begin = now_ns();

	late.sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 40 * MS };
	soon.sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 20 * MS };
	never.sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = UINT64_MAX };
	start(f->engine, &never);
	start(f->engine, &late);
	start(f->engine, &soon);
	finish(f->engine, &late);
	assert_true(now_ns() - begin >= 40 * MS);
	assert_int_equal(soon.turn, 1);
	assert_int_equal(late.turn, 2);
	assert_int_equal(soon.res, 0);
	assert_int_equal(never.done, 0);
	engine_cancel(f->engine);
	assert_int_equal(never.res, -ECANCELED);
}

static void test_wait(void **state)
{
	struct fixture *f = *state;
	uint64_t begin = now_ns();

	assert_int_equal(engine_run(f->engine, 0), 0);
	assert_int_equal(engine_run(f->engine, 30 * MS), 0);
	assert_true(now_ns() - begin >= 30 * MS);
}

static void *wake_later(void *engine)
{
	usleep(20000);
	engine_wake(engine);
	return NULL;
}

static void test_wake(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	engine_wake(f->engine); /* before */
	assert_int_equal(engine_run(f->engine, UINT64_MAX), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_create(&thread, NULL, wake_later,
						f->engine),
				 0);
		assert_int_equal(engine_run(f->engine, UINT64_MAX), 0);
		pthread_join(thread, NULL);
	}
	/* All used up: it waits again. */
	test_wait(state);
}

static void test_chain(void **state)
{
	struct fixture *f = *state;
	char text[] = "chain";
	struct iovec iov = { text, 5 };
	struct probe sync = { .engine = f->engine };
	struct probe write = { .engine = f->engine, .then = &sync };

	sync.sys = (struct xd_sys){ .op = XD_SYS_FDATASYNC,
				    .fd = f->fd,
				    .done = probe_done };
	write.sys = (struct xd_sys){
		.op = XD_SYS_WRITEV, .fd = f->fd, .iov = &iov, .iovcnt = 1
	};
	start(f->engine, &write);
	finish(f->engine, &sync);
	assert_int_equal(write.res, 5);
	assert_int_equal(sync.res, 0);
}

static void *start_elsewhere(void *arg)
{
	struct probe *probe = arg;

	start(probe->engine, probe);
	(void)engine_run(probe->engine, 0);
	return NULL;
}

/* io_uring ends the polls of a thread that exits: nobody is to notice. */
static void test_poll_of_dead_thread(void **state)
{
	const struct fixture *f = *state;
	struct probe poll = { .engine = f->engine };
	pthread_t thread;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	poll.sys = (struct xd_sys){ .op = XD_SYS_POLL,
				    .fd = fds[0],
				    .flags = POLLIN };
	assert_int_equal(pthread_create(&thread, NULL, start_elsewhere, &poll),
			 0);
	pthread_join(thread, NULL);
	(void)engine_run(f->engine, 20 * MS);
	assert_int_equal(poll.done, 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	finish(f->engine, &poll);
	assert_int_equal(poll.res, POLLIN);
	close(fds[0]);
	close(fds[1]);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct probe poll[3 * ENTRIES] = { 0 }, timer = { 0 }, write = { 0 };
	char text[] = "kept";
	struct iovec iov = { text, 4 };
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	write.sys = (struct xd_sys){
		.op = XD_SYS_WRITEV, .fd = f->fd, .iov = &iov, .iovcnt = 1
	};
	timer.sys =
		(struct xd_sys){ .op = XD_SYS_TIMER, .length = 3600000 * MS };
	for (size_t i = 0; i < ARRAY_SIZE(poll); i++) {
		poll[i].sys = (struct xd_sys){ .op = XD_SYS_POLL,
					       .fd = fds[0],
					       .flags = POLLIN };
		start(f->engine, &poll[i]);
	}
	assert_int_equal(engine_run(f->engine, 0), 0);
	start(f->engine, &timer);
	start(f->engine, &write);
	engine_cancel(f->engine);
	assert_int_equal(write.res, 4);
	assert_int_equal(timer.res, -ECANCELED);
	for (size_t i = 0; i < ARRAY_SIZE(poll); i++) {
		assert_int_equal(poll[i].done, 1);
		assert_int_equal(poll[i].res, -ECANCELED);
	}
	close(fds[0]);
	close(fds[1]);
	test_read_write(state); /* it is still good */
}

static void *run_all(void *state)
{
	test_read_write(&state);
	test_more_than_entries(&state);
	test_poll(&state);
	return NULL;
}

/* A lane's thread ends, the next lane's takes its engine over. */
static void test_another_thread(void **state)
{
	struct fixture *f = *state;
	struct probe poll = { 0 };
	pthread_t thread;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	poll.sys = (struct xd_sys){ .op = XD_SYS_POLL,
				    .fd = fds[0],
				    .flags = POLLIN };
	test_read_write(state);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&thread, NULL, run_all, f), 0);
		pthread_join(thread, NULL);
	}
	start(f->engine, &poll);
	engine_cancel(f->engine);
	assert_int_equal(poll.done, 1);
	close(fds[0]);
	close(fds[1]);
}

static void test_choice(void **state)
{
	struct engine *engine;

	(void)state;
	setenv("XENDISK_ENGINE", "threads", 1);
	assert_int_equal(engine_new(&engine, ENTRIES, true), 0);
	assert_false(engine_is_uring(engine));
	engine_free(engine);
	setenv("XENDISK_ENGINE", "uring", 1);
	if (engine_new(&engine, ENTRIES, false) == 0) {
		assert_true(engine_is_uring(engine));
		engine_free(engine);
	}
	unsetenv("XENDISK_ENGINE");
	assert_int_equal(engine_new(&engine, ENTRIES, false), 0);
	assert_false(engine_is_uring(engine));
	engine_free(engine);
}

struct broken {
	struct engine engine;
	int err;
	unsigned int runs;
};

static int run_in_vain(struct engine *engine, uint64_t wait_ns)
{
	struct broken *broken = container_of(engine, struct broken, engine);

	(void)wait_ns;
	broken->runs++;
	return broken->err;
}

/* An error that lasts costs no CPU, and keeps no timer from its end. */
static void test_lasting_error(void **state)
{
	const struct engine_ops ops = { .run = run_in_vain };
	struct broken broken = { .engine.ops = &ops, .err = -EBADF };
	struct probe timer = { 0 };
	uint64_t began = now_ns();

	(void)state;
	timer.sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 20 * MS };
	start(&broken.engine, &timer);
	while (!timer.done)
		assert_int_equal(engine_run(&broken.engine, UINT64_MAX),
				 -EBADF);
	assert_true(broken.runs <= (now_ns() - began) / MS);
	broken.err = -EAGAIN;
	began = now_ns();
	assert_int_equal(engine_run(&broken.engine, UINT64_MAX), 0);
	assert_true(now_ns() - began >= MS);
}

#define BOTH(f)                                                 \
	{ #f "_uring", f, setup_uring, teardown, NULL },        \
	{                                                       \
#f "_threads", f, setup_threads, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_read_write),
		BOTH(test_other_calls),
		BOTH(test_seek),
		BOTH(test_seek_cancelled),
		BOTH(test_errors),
		BOTH(test_more_than_entries),
		BOTH(test_poll),
		BOTH(test_poll_moves),
		BOTH(test_cancel_is_quick),
		BOTH(test_dropped_timer),
		BOTH(test_timers),
		BOTH(test_wait),
		BOTH(test_wake),
		BOTH(test_chain),
		BOTH(test_cancel),
		BOTH(test_poll_of_dead_thread),
		BOTH(test_another_thread),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_lasting_error),
	};

	unsetenv("XENDISK_ENGINE");
	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
