/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a worker, and what it may not do. */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "broker/poison.h"
#include "broker/supervise-private.h"
#include "supervise-fixture.h"

/* --- The fake worker --------------------------------------------------------- */

/* Asks for a file and puts its first bytes into notes. */
static void fake_open(char *notes, size_t size, uint32_t flags,
		      const char *name)
{
	struct msg_service msg = { .kind = MSG_SERVICE_OPEN, .flags = flags };
	const struct msg_service_done *done;
	ssize_t n;
	int fd;

	snprintf(msg.name, sizeof(msg.name), "%s", name);
	fake_say(&msg, sizeof(msg), MSG_SERVICE, 99);
	done = (const struct msg_service_done *)fake_hear(&fd);
	if (done->h.type != MSG_SERVICE_DONE || done->h.seq != 99)
		_exit(13);
	snprintf(notes, size, "%.200s", done->text);
	if (fd < 0)
		return;
	n = read(fd, notes, size - 1);
	notes[n < 0 ? 0 : n] = '\0';
	(void)close(fd);
}

/*
 * A worker that does not wait: the same question twice, then another.  The
 * first may be answered or not, the others are, once.
 */
static void fake_impatience(void)
{
	struct msg_service msg = { .kind = MSG_SERVICE_OPEN, .name = "file" };
	struct msg_service other = { .kind = MSG_SERVICE_BUDGET };
	unsigned int answers[4] = { 0 };

	fake_say(&msg, sizeof(msg), MSG_SERVICE, 1);
	fake_say(&msg, sizeof(msg), MSG_SERVICE, 2);
	fake_say(&other, sizeof(other), MSG_SERVICE, 3);
	while (!answers[2] || !answers[3]) {
		const struct msg_service_done *done;
		int fd;

		done = (const struct msg_service_done *)fake_hear(&fd);
		if (done->h.seq > 3 || answers[done->h.seq]++)
			_exit(15);
		if (done->h.seq == 2 && (done->h.result != 0 || fd < 0))
			_exit(16);
	}
}

static void fake_opened(uint32_t seq, const char *notes)
{
	struct msg_opened msg = {
		.limits = { .size = 1 << 20,
			    .sector_size = 512,
			    .physical_sector_size = 4096 },
		.max_rings = 4,
		.max_ring_order = 4,
		.nr_identities = 1,
		.identity = { STORAGE },
	};

	snprintf(msg.notes, sizeof(msg.notes), "%s", notes);
	fake_say(&msg, sizeof(msg), MSG_OPENED, seq);
}

/* A hundred messages that are well formed, mostly, and mean nothing. */
static void fake_random(unsigned int seed)
{
	static const struct {
		uint16_t type;
		size_t size;
	} shapes[] = {
		{ MSG_OPENED, sizeof(struct msg_opened) },
		{ MSG_SERVICE, sizeof(struct msg_service) },
		{ MSG_CONDITION, sizeof(struct msg_condition) },
		{ MSG_FAILED, sizeof(struct msg_text) },
		{ MSG_DISCONNECTED, sizeof(struct msg_text) },
		{ MSG_RESUMED, sizeof(struct msg_text) },
		{ MSG_BROKEN, sizeof(struct msg_text) },
		{ MSG_HELLO, sizeof(struct msg_hello) },
		{ MSG_CONNECTED, sizeof(struct msg_header) },
		{ MSG_CONNECT, sizeof(struct msg_connect) },
		{ MSG_RESIZED, sizeof(struct msg_text) },
		{ MSG_GREW, sizeof(struct msg_grew) },
		{ MSG_CLIENT_TAKEN, sizeof(struct msg_text) },
		{ MSG_CONTROLLED, sizeof(struct msg_controlled) },
		{ MSG_CHANGED, sizeof(struct msg_changed) },
	};

	srand(seed);
	for (int i = 0; i < 100; i++) {
		size_t shape = (size_t)rand() % ARRAY_SIZE(shapes);
		struct msg_header *header = (struct msg_header *)fake_buf;
		size_t length = shapes[shape].size;

		/* Enough zeroes that the texts end. */
		for (size_t j = 0; j < length; j++)
			fake_buf[j] = rand() % 16 ? (unsigned char)rand() : 0;
		*header = (struct msg_header){
			.type = shapes[shape].type,
			.version = MSG_VERSION,
			.length = (uint32_t)length,
			.seq = (uint32_t)rand() % 4,
			.result = rand() % 3 - 1,
		};
		if (shape == 1) {
			struct msg_service *service = (void *)fake_buf;

			service->kind = (uint32_t)rand() % 5;
			service->layer = (uint32_t)rand() % 2;
			service->size %= 1 << 20;
			service->keep %= 3;
		}
		if (send(fake_sock, fake_buf, length, MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(0);
}

/* One good message, again and again. */
static void fake_flood(void)
{
	struct msg_condition msg = { .kind = MSG_PAUSED, .set = 1 };

	fake_say(&msg, sizeof(msg), MSG_CONDITION, 0);
	while (send(fake_sock, &msg, sizeof(msg), MSG_NOSIGNAL) > 0)
		;
}

static void fake_rubbish(const char *how, uint32_t seq)
{
	struct msg_service service = { .kind = MSG_SERVICE_BUDGET };
	struct msg_condition condition = { .kind = MSG_NR_CONDITIONS };
	struct msg_header header = { .type = 0 };
	struct msg_opened opened = { .limits.size = 511 };

	if (strcmp(how, "bytes") == 0)
		(void)!write(fake_sock, "rubbish", 7);
	else if (strcmp(how, "descriptor") == 0)
		(void)msg_send(fake_sock, &service, sizeof(service),
			       MSG_SERVICE, 2);
	else if (strcmp(how, "limits") == 0)
		fake_say(&opened, sizeof(opened), MSG_OPENED, seq);
	else if (strcmp(how, "seq") == 0)
		fake_opened(seq + 1, "");
	else if (strcmp(how, "early") == 0)
		fake_say(&header, sizeof(header), MSG_CONNECTED, seq);
	else if (strcmp(how, "flood") == 0)
		fake_flood();
	else if (strcmp(how, "condition") == 0)
		fake_say(&condition, sizeof(condition), MSG_CONDITION, 0);
	else if (strcmp(how, "service") == 0) {
		service.kind = 77;
		fake_say(&service, sizeof(service), MSG_SERVICE, 0);
	}
	(void)pause();
}

/* A mark that it asked for before it knew of the resume, or after. */
static void fake_resumed(uint32_t seq, const char *behaviour)
{
	struct msg_service mark = { .kind = MSG_SERVICE_POISON,
				    .name = STORAGE,
				    .reason = "flush" };
	int fd;

	if (strcmp(behaviour, "late-mark") == 0)
		fake_say(&mark, sizeof(mark), MSG_SERVICE, 1);
	fake_say_text(MSG_RESUMED, seq, 0, "");
	if (strcmp(behaviour, "relapse") == 0)
		fake_say(&mark, sizeof(mark), MSG_SERVICE, 1);
	if (behaviour[0] == 'l' || behaviour[0] == 'r')
		(void)fake_hear(&fd);
}

/* Says what it is at, and ends when it is told something; anything. */
static void fake_finish(const char *behaviour)
{
	struct msg_changed msg = { .text = "half of it" };
	int fd;

	if (strcmp(behaviour, "finish") != 0)
		return;
	fake_say(&msg, sizeof(msg), MSG_CHANGED, 0);
	(void)fake_hear(&fd);
	fake_say(&msg, sizeof(msg), MSG_CHANGED, 0);
	(void)fake_hear(&fd);
}

static void fake_answer(const struct msg_header *header, const char *behaviour)
{
	struct msg_header plain = { .type = 0 };
	struct msg_grew grew = { .size = 0 };
	uint32_t seq = header->seq;
	char notes[256] = "";

	switch (header->type) {
	case MSG_OPEN:
		if (strcmp(behaviour, "fail") == 0 || getenv("FAKE_FAILS"))
			fake_say_text(MSG_FAILED, seq, -ENOENT,
				      "no such thing");
		else if (strcmp(behaviour, "crash") == 0)
			(void)raise(SIGKILL);
		else if (strncmp(behaviour, "random-", 7) == 0)
			fake_random((unsigned int)atoi(behaviour + 7));
		else if (strncmp(behaviour, "rubbish-", 8) == 0)
			fake_rubbish(behaviour + 8, seq);
		if (strcmp(behaviour, "read") == 0)
			fake_open(notes, sizeof(notes), O_RDONLY, "file");
		else if (strcmp(behaviour, "write") == 0)
			fake_open(notes, sizeof(notes), O_RDWR, "file");
		else if (strcmp(behaviour, "create") == 0)
			fake_open(notes, sizeof(notes), O_RDWR | O_CREAT,
				  "file");
		else if (strcmp(behaviour, "impatient") == 0)
			fake_impatience();
		else if (strcmp(behaviour, "ungranted") == 0)
			fake_open(notes, sizeof(notes), O_RDONLY, "behaviour");
		fake_opened(seq, notes);
		break;
	case MSG_CONNECT:
		if (strcmp(behaviour, "die") == 0)
			_exit(3);
		if (((const struct msg_connect *)header)->flags &
		    MSG_CONNECT_POISONED)
			fake_say_text(MSG_FAILED, seq, -EIO, "poisoned");
		else
			fake_say(&plain, sizeof(plain), MSG_CONNECTED, seq);
		break;
	case MSG_DISCONNECT:
		fake_finish(behaviour);
		fake_say_text(MSG_DISCONNECTED, seq, -EIO, "the last flush");
		break;
	case MSG_RESUME:
		fake_resumed(seq, behaviour);
		break;
	case MSG_RESIZE:
		grew.size = ((const struct msg_resize *)header)->size;
		fake_say(&grew, sizeof(grew), MSG_GREW, 0);
		fake_say_text(MSG_RESIZED, seq, 0, "");
		break;
	case MSG_CLOSE:
		_exit(0);
	default:
		_exit(14);
	}
}

static _Noreturn void fake_worker(void)
{
	struct msg_hello hello = { .id = { 5, 51728, 0, "vm" },
				   .pid = (uint32_t)getpid() };
	char behaviour[32] = "";
	int fd;

	fake_sock = atoi(getenv("XENDISK_WORKER_SOCKET"));
	fake_say(&hello, sizeof(hello), MSG_HELLO, 0);
	for (;;) {
		const struct msg_header *header = fake_hear(&fd);

		if (header->type == MSG_OPEN)
			sscanf(((const struct msg_open *)header)->expression,
			       "fake(%31[a-z0-9-]", behaviour);
		fake_answer(header, behaviour);
	}
}

/* --- The tests ------------------------------------------------------------------ */

static void test_life(void **state)
{
	struct msg_connect connect = { .nr_rings = 1 };
	struct seen *seen = start(state, "fake(good)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	assert_int_equal(worker_connect(seen->worker, &connect), -EINVAL);
	expect(seen, "connected", 0);
	assert_int_equal(worker_resume(seen->worker, false), 0);
	expect(seen, "resumed", 0);
	assert_int_equal(worker_disconnect(seen->worker), 0);
	expect(seen, "disconnected", -EIO);
	assert_string_equal(seen->text, "the last flush");
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "connected", 0);
	assert_int_equal(worker_restarts(seen->worker), 0);
}

static void run_shortly(struct fixture *fixture)
{
	struct timeval tick = { .tv_usec = 100000 };

	(void)event_base_loopexit(fixture->broker.base, &tick);
	(void)event_base_loop(fixture->broker.base, EVLOOP_ONCE);
}

/* When it will be killed, ms: good to one of them. */
static uint64_t end_of(struct worker *worker)
{
	struct timeval tv = { .tv_sec = 0 };

	assert_true(evtimer_pending(worker->timer, &tv));
	return (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000;
}

static void hear_change(struct seen *seen)
{
	unsigned int so_far = seen->changes;

	(void)usleep(50000);
	for (int i = 0; i < 300 && seen->changes == so_far; i++)
		run_shortly(seen->fixture);
	assert_int_equal(seen->changes, so_far + 1);
}

/* One that has something to finish has more time each time that it says so, but not
 * for ever.  (The limits themselves are too long for a test.) */
static void test_finishing(void **state)
{
	struct msg_connect connect = { .nr_rings = 1 };
	struct seen *seen = start(state, "fake(finish)");
	uint64_t end;

	expect(seen, "opened", 0);
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "connected", 0);
	assert_int_equal(worker_disconnect(seen->worker), 0);
	end = end_of(seen->worker);
	hear_change(seen);
	assert_true(end_of(seen->worker) > end + 10);
	end = end_of(seen->worker);
	seen->worker->asked_at -= 3601 * 1000000000ull;
	assert_int_equal(worker_resume(seen->worker, false), 0);
	hear_change(seen);
	assert_true(end_of(seen->worker) <= end + 10);
	assert_int_equal(worker_resize(seen->worker, 0), 0);
	expect(seen, "disconnected", -EIO);
}

static void test_command_line(void **state)
{
	struct seen *seen = start(state, "fake(good)");
	char path[64];
	char line[64] = "";
	FILE *file;

	expect(seen, "opened", 0);
	snprintf(path, sizeof(path), "/proc/%d/cmdline",
		 (int)worker_pid(seen->worker));
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fread(line, 1, sizeof(line), file), 26);
	fclose(file);
	assert_memory_equal(line, "xendiskd\0--worker\0005/51728", 26);
}

static void test_failed_open(void **state)
{
	struct seen *seen = start(state, "fake(fail)");

	expect(seen, "opened", -ENOENT);
	assert_string_equal(seen->text, "no such thing");
	assert_int_equal(worker_pid(seen->worker), 0);
	/* Nobody knows which marks that would be. */
	assert_int_equal(worker_resume(seen->worker, true), -ENOTCONN);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", -ENOENT);
}

static void test_crash_while_opening(void **state)
{
	struct seen *seen = start(state, "fake(crash)");

	expect(seen, "opened", -EIO);
	assert_non_null(strstr(seen->text, "signal 9"));
}

static void test_death_and_restart(void **state)
{
	struct msg_connect connect = { .nr_rings = 1 };
	struct seen *seen = start(state, "fake(die)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "died", 0);
	assert_string_equal(seen->text, "the worker exited with status 3");
	assert_int_equal(worker_pid(seen->worker), 0);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", 0);
	assert_int_equal(worker_restarts(seen->worker), 1);
}

static bool has_children(void)
{
	siginfo_t info;

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* RUNDIR is full: a process that cannot be noted is ended, and reaped. */
static void test_no_note(void **state)
{
	struct msg_connect connect = { .nr_rings = 1 };
	struct seen *seen = start(state, "fake(die)");
	const char *path;

	expect(seen, "opened", 0);
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "died", 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		; /* what earlier tests have left */
	path = fixture_path(seen->fixture, "workers/new");
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(worker_open(seen->worker), -EISDIR);
	assert_int_equal(worker_pid(seen->worker), 0);
	for (int i = 0; i < 50 && has_children(); i++)
		run_shortly(seen->fixture);
	assert_false(has_children());
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", 0);
}

static void test_rubbish(void **state)
{
	static const char *const kinds[] = { "bytes",	"descriptor",
					     "limits",	"seq",
					     "early",	"condition",
					     "service", "flood" };
	struct seen *seen = *state;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		start(state, "fake(rubbish-%s)", kinds[i]);
		expect(seen, "opened", -EIO);
		assert_non_null(strstr(seen->text, "the worker sent "));
		worker_free(TAKE_PTR(seen->worker));
	}
}

/* Whatever it says, it ends, and the broker does not. */
static void test_resize(void **state)
{
	struct seen *seen = start(state, "fake(good)");

	assert_int_equal(worker_resize(seen->worker, 0), -ENOTCONN);
	expect(seen, "opened", 0);
	assert_int_equal(worker_resize(seen->worker, 1 << 30), 0);
	assert_int_equal(worker_resize(seen->worker, 0), -EALREADY);
	expect(seen, "resized", 0);
	assert_int_equal(seen->size, 1 << 30);
	assert_int_equal(worker_resize(seen->worker, 1ull << 40), 0);
	expect(seen, "resized", 0);
	assert_int_equal(seen->size, 1ull << 40);
}

/* A worker that says that its disk is smaller, or of half a sector, would have
 * us tell its guest. */
static void test_wrong_size(void **state)
{
	static const uint64_t sizes[] = { 0,	      1,
					  512,	      (1 << 20) + 256,
					  1ull << 63, UINT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct seen *seen = start(state, "fake(good)");

		expect(seen, "opened", 0);
		assert_int_equal(worker_resize(seen->worker, sizes[i]), 0);
		expect(seen, "died", 0);
		assert_non_null(strstr(seen->text, "sent a wrong GREW"));
		assert_int_equal(seen->size, 0);
		worker_free(TAKE_PTR(seen->worker));
	}
}

static void test_random(void **state)
{
	struct seen *seen = *state;

	fixture_write(seen->fixture, "image", "content");
	for (int seed = 0; seed < 200; seed++) {
		start(state, "fake(random-%d, file=%s)", seed,
		      fixture_path(seen->fixture, "image"));
		seen->any = false;
		while (worker_pid(seen->worker)) {
			assert_true(fixture_run(seen->fixture, &seen->any));
			seen->any = false;
		}
		worker_free(TAKE_PTR(seen->worker));
	}
}

static void test_open_service(void **state)
{
	struct seen *seen = *state;

	fixture_write(seen->fixture, "image", "content");
	start(state, "fake(read, file=%s)",
	      fixture_path(seen->fixture, "image"));
	expect(seen, "opened", 0);
	assert_string_equal(seen->text, "content");
}

static void test_impatient(void **state)
{
	struct seen *seen = *state;

	fixture_write(seen->fixture, "image", "content");
	start(state, "fake(impatient, file=%s)",
	      fixture_path(seen->fixture, "image"));
	expect(seen, "opened", 0);
}

/* The very file that was there when the disk was attached. */
static void test_open_after_rename(void **state)
{
	struct seen *seen = *state;
	const char *path = fixture_path(seen->fixture, "image");

	fixture_write(seen->fixture, "image", "content");
	start(state, "fake(read, file=%s)", path);
	expect(seen, "opened", 0);
	assert_int_equal(unlink(path), 0);
	fixture_write(seen->fixture, "image", "another");
	(void)kill(worker_pid(seen->worker), SIGKILL);
	expect(seen, "died", 0);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", 0);
	assert_string_equal(seen->text, "content");
}

/* What was not there is looked for again. */
static void test_open_later(void **state)
{
	struct seen *seen = *state;

	start(state, "fake(read, file=%s)",
	      fixture_path(seen->fixture, "image"));
	expect(seen, "opened", 0);
	assert_non_null(strstr(seen->text, "No such file"));
	fixture_write(seen->fixture, "image", "content");
	(void)kill(worker_pid(seen->worker), SIGKILL);
	expect(seen, "died", 0);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", 0);
	assert_string_equal(seen->text, "content");
}

static void test_open_refusals(void **state)
{
	struct seen *seen = *state;
	const char *path = fixture_path(seen->fixture, "image");

	fixture_write(seen->fixture, "image", "content");
	start_as(state, true, "fake(write, file=%s)", path);
	expect(seen, "opened", 0);
	assert_non_null(strstr(seen->text, "Read-only"));
	worker_free(TAKE_PTR(seen->worker));

	start(state, "fake(create, file=%s)", path);
	expect(seen, "opened", 0);
	assert_non_null(strstr(seen->text, "Invalid argument"));
	worker_free(TAKE_PTR(seen->worker));

	start(state, "fake(ungranted, file=%s)", path);
	expect(seen, "opened", 0);
	assert_non_null(strstr(seen->text, "behaviour is no path"));
}

static void try_below_root(void **state, const char *name, const char *answer)
{
	struct seen *seen = *state;

	start(state, "fake(read, file=%s/root/%s)", seen->fixture->dir, name);
	expect(seen, "opened", 0);
	assert_non_null(strstr(seen->text, answer));
	worker_free(TAKE_PTR(seen->worker));
}

static void test_image_roots(void **state)
{
	struct seen *seen = *state;
	struct fixture *fixture = seen->fixture;
	char root[80];
	struct settings_root roots[] = { { .path = root } };

	snprintf(root, sizeof(root), "%s/root/", fixture->dir);
	assert_int_equal(mkdir(root, 0755), 0);
	fixture->settings.image_roots = roots;
	fixture->settings.nr_image_roots = 1;
	fixture_write(fixture, "secret", "secret");
	fixture_write(fixture, "root/image", "content");
	assert_int_equal(symlink("image", fixture_path(fixture, "root/link")),
			 0);
	assert_int_equal(
		symlink("../secret", fixture_path(fixture, "root/out")), 0);
	assert_int_equal(symlink("/etc", fixture_path(fixture, "root/etc")), 0);
	try_below_root(state, "image", "content");
	try_below_root(state, "link", "content");
	try_below_root(state, "out", "image-roots");
	try_below_root(state, "../secret", "image-roots");
	try_below_root(state, "etc/passwd", "image-roots");
	try_below_root(state, "../rootless", "image-roots");
	try_below_root(state, "absent", "No such file");
}

static void on_marked(void *ctx, int err)
{
	struct seen *seen = ctx;

	note(seen, "marked", err, "");
}

static void test_poison(void **state)
{
	struct msg_connect connect = { .nr_rings = 1 };
	struct seen *seen = *state;
	struct broker *broker = &seen->fixture->broker;

	assert_int_equal(poison_mark(broker, STORAGE, "9/9", "fsync", on_marked,
				     seen),
			 0);
	expect(seen, "marked", 0);
	start(state, "fake(good)");
	expect(seen, "opened", 0);
	assert_true(seen->poisoned);
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "connected", -EIO);
	assert_int_equal(worker_resume(seen->worker, true), 0);
	assert_int_equal(worker_resume(seen->worker, true), -EALREADY);
	expect(seen, "resumed", 0);
	assert_false(seen->poisoned);
	assert_null(poison_find(broker->poison, STORAGE));
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "connected", 0);
}

/* The storage is away, and the mark on it goes all the same. */
static void test_poison_without_process(void **state)
{
	struct msg_connect connect = { .nr_rings = 1 };
	struct seen *seen = start(state, "fake(good)");
	struct broker *broker = &seen->fixture->broker;

	expect(seen, "opened", 0);
	assert_int_equal(worker_connect(seen->worker, &connect), 0);
	expect(seen, "connected", 0);
	assert_int_equal(kill(worker_pid(seen->worker), SIGKILL), 0);
	expect(seen, "died", 0);
	assert_int_equal(poison_mark(broker, STORAGE, "9/9", "fsync", on_marked,
				     seen),
			 0);
	expect(seen, "marked", 0);
	(void)setenv("FAKE_FAILS", "1", 1);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", -ENOENT);
	assert_int_equal(worker_open(seen->worker), 0);
	(void)unsetenv("FAKE_FAILS");
	(void)usleep(
		300000); /* that it fails is told before the mark has gone */
	assert_int_equal(worker_resume(seen->worker, true), 0);
	expect(seen, "opened", -ENOENT);
	expect(seen, "resumed", 0);
	assert_null(poison_find(broker->poison, STORAGE));
}

/* As the next broker would find it; this one may be writing it yet. */
static bool mark_on_disk(const struct fixture *fixture)
{
	struct poison *poison;
	unsigned int bad;
	bool found;

	assert_int_equal(poison_new(&poison, fixture->dir, &bad), 0);
	found = poison_find(poison, STORAGE);
	poison_free(poison);
	return found;
}

/* What the worker asked for before it was told is accepted, too. */
static void test_late_mark(void **state)
{
	struct seen *seen = start(state, "fake(late-mark)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_resume(seen->worker, true), 0);
	expect(seen, "resumed", 0);
	assert_false(mark_on_disk(seen->fixture));
}

/* What fails afterwards is not. */
static void test_relapse(void **state)
{
	const struct timeval moment = { .tv_usec = 50000 };
	struct seen *seen = start(state, "fake(relapse)");
	struct broker *broker = &seen->fixture->broker;

	expect(seen, "opened", 0);
	assert_int_equal(worker_resume(seen->worker, true), 0);
	expect(seen, "resumed", 0);
	for (int i = 0; i < 200 && !mark_on_disk(seen->fixture); i++) {
		(void)event_base_loopexit(broker->base, &moment);
		(void)event_base_dispatch(broker->base);
	}
	assert_true(mark_on_disk(seen->fixture));
}

/* A broker that died: its worker is found by the next one and ended. */
static void test_orphan(void **state)
{
	struct seen *seen = start(state, "fake(good)");
	struct broker *broker = &seen->fixture->broker;
	struct supervisor *next;

	expect(seen, "opened", 0);
	assert_int_equal(supervisor_new(&next, broker), 0);
	supervisor_free(next);
	expect(seen, "died", 0);
	assert_non_null(strstr(seen->text, "signal 9"));
}

static void on_stopped(void *ctx)
{
	struct seen *seen = ctx;

	seen->stopped = true;
}

static void test_stop(void **state)
{
	struct seen *seen = start(state, "fake(good)");

	expect(seen, "opened", 0);
	supervisor_stop(seen->fixture->broker.supervisor, on_stopped, seen);
	assert_true(fixture_run(seen->fixture, &seen->stopped));
	assert_false(seen->any); /* its death is no event any more */
	assert_int_equal(worker_pid(seen->worker), 0);
	assert_int_equal(worker_open(seen->worker), -ESHUTDOWN);
}

#define TEST(name)                                             \
	cmocka_unit_test_setup_teardown(name, supervise_setup, \
					supervise_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_life),
		TEST(test_finishing),
		TEST(test_command_line),
		TEST(test_failed_open),
		TEST(test_crash_while_opening),
		TEST(test_death_and_restart),
		TEST(test_no_note),
		TEST(test_rubbish),
		TEST(test_resize),
		TEST(test_wrong_size),
		TEST(test_random),
		TEST(test_open_service),
		TEST(test_impatient),
		TEST(test_open_after_rename),
		TEST(test_open_later),
		TEST(test_open_refusals),
		TEST(test_image_roots),
		TEST(test_poison),
		TEST(test_poison_without_process),
		TEST(test_late_mark),
		TEST(test_relapse),
		TEST(test_orphan),
		TEST(test_stop),
	};

	if (argc > 1 && strcmp(argv[1], "--worker") == 0)
		fake_worker();
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
