/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nbd backend on the real stack, against nbdkit: data, blocks, refusals,
 * and servers that go away.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/util.h"
#include "extents-check.h"

#define SIZE (4u << 20)

static unsigned char content[SIZE];

/* --- A server ------------------------------------------------------------------ */

struct server {
	struct rig *rig;
	char sock[160];
	const char *args;
	pid_t pid;
};

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* The socket's file comes before anybody listens. */
static bool is_listening(const char *path)
{
	FILE *f = fopen("/proc/net/unix", "re");
	char line[512], end[200];
	bool found = false;

	assert_non_null(f);
	(void)snprintf(end, sizeof(end), " %s\n", path);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, " 00010000 ") && strstr(line, end);
	(void)fclose(f);
	return found;
}

static void server_start(struct server *server)
{
	cleanup_free char *command = xasprintf("exec nbdkit -f -U %s %s",
					       server->sock, server->args);

	(void)unlink(server->sock);
	server->pid = fork();
	if (server->pid == 0) {
		(void)execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	for (int i = 0; i < 2000 && !is_listening(server->sock); i++)
		(void)usleep(5000);
	assert_true(is_listening(server->sock));
}

static void server_kill(struct server *server)
{
	assert_int_equal(kill(server->pid, SIGKILL), 0);
	assert_int_equal(waitpid(server->pid, NULL, 0), server->pid);
}

static void begin(struct server *server, struct rig *rig, const char *args)
{
	rig_new(rig, true);
	server->rig = rig;
	server->args = args;
	(void)snprintf(server->sock, sizeof(server->sock), "%s",
		       rig_file(rig, "sock", 0));
	server_start(server);
	memset(content, 0, SIZE);
}

static void end(struct server *server)
{
	rig_free(server->rig);
	server_kill(server);
}

#define URI "\"nbd+unix:///?socket=@/sock\""

/* --- Data ------------------------------------------------------------------------ */

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

static void start_lane(struct lane_run *run, struct rig *rig, unsigned int lane,
		       unsigned int lanes, unsigned int bursts)
{
	run->model = (struct rig_model){ .rig = rig,
					 .lane = lane,
					 .seed = 7 + lane,
					 .bursts = bursts,
					 .share = lanes,
					 .content = content };
	assert_int_equal(pthread_create(&run->thread, NULL, run_lane, run), 0);
}

static unsigned int end_lane(struct lane_run *run)
{
	pthread_join(run->thread, NULL);
	return run->wrong;
}

struct setting {
	const char *name;
	const char *expression;
	unsigned int lanes;
	const char *args;
};

static void data_is_kept(void **state)
{
	const struct setting *setting = *state;
	struct lane_run runs[RIG_LANES];
	struct server server;
	unsigned int wrong = 0;
	struct rig rig;

	begin(&server, &rig, setting->args);
	if (rig_open(&rig, setting->lanes, setting->expression) < 0)
		fail_msg("%s", rig.why);
	for (unsigned int i = 0; i < setting->lanes; i++)
		start_lane(&runs[i], &rig, i, setting->lanes, 60);
	for (unsigned int i = 0; i < setting->lanes; i++)
		wrong += end_lane(&runs[i]);
	assert_int_equal(wrong, 0);
	assert_int_equal(rig_io(&rig, 0, XD_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

/* --- Refusals ----------------------------------------------------------------------- */

struct refusal {
	const char *name;
	const char *expression;
	const char *why;
	const char *args;
};

static void is_refused(void **state)
{
	const struct refusal *refusal = *state;
	struct server server;
	struct rig rig;

	begin(&server, &rig, refusal->args);
	assert_true(rig_open(&rig, 1, refusal->expression) < 0);
	if (!strstr(rig.why, refusal->why))
		fail_msg("%s", rig.why);
	end(&server);
}

static void read_only_export(void **state)
{
	const char *args = "-r memory 4M";
	struct server server;
	struct rig rig;

	(void)state;
	begin(&server, &rig, args);
	assert_int_equal(rig_open(&rig, 1, "nbd(" URI ")"), 0);
	assert_true(stack_limits(rig.stack)->readonly);
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

/* --- Servers that go away ------------------------------------------------------------- */

static bool is_over(struct lane_run *run)
{
	return pthread_tryjoin_np(run->thread, NULL) == 0;
}

/* Kills and starts it again until the lane has done its work, which gets more
 * time each time: a busy machine is to get on, too.  Returns how often. */
static unsigned int harass(struct server *server, struct lane_run *run)
{
	unsigned int kills = 0;

	while (!is_over(run)) {
		(void)usleep(30000 + kills % 7 * 10000 + kills * 20000);
		server_kill(server);
		server_start(server);
		kills++;
	}
	return kills;
}

static unsigned int wrong_after_kills(const char *args, const char *expression)
{
	struct server server;
	struct lane_run run;
	struct rig rig;

	begin(&server, &rig, args);
	if (rig_open(&rig, 1, expression) < 0)
		fail_msg("%s", rig.why);
	start_lane(&run, &rig, 0, 1, 300);
	assert_true(harass(&server, &run) > 1);
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
	return run.wrong;
}

/* A server of files forgets nothing when it is killed ... */
static void killed_under_load(void **state)
{
	char path[] = "/tmp/xendisk-nbd-XXXXXX";
	int fd = mkstemp(path);
	cleanup_free char *args = xasprintf("file %s", path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	(void)close(fd);
	assert_int_equal(wrong_after_kills(args, "nbd(" URI ", fence=0s)"), 0);
	(void)unlink(path);
}

/* ... one of memory forgets all: the same test notices. */
static void forgetful_server(void **state)
{
	const char *args = "memory 4M";

	(void)state;
	assert_true(wrong_after_kills(args,
				      "nbd(" URI
				      ", fence=0s, unflushed=trust)") > 0);
}

/* A request waits while another server is there that cannot replace the first,
 * and goes on with the first one. */
static void shrunk(void **state)
{
	const char *large = "memory 4M";
	const char *small = "memory 2M";
	unsigned char buf[4096];
	struct server server;
	struct rig_op op;
	struct rig rig;

	(void)state;
	begin(&server, &rig, large);
	assert_int_equal(rig_open(&rig, 1, "nbd(" URI ")"), 0);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), 0);
	server_kill(&server);
	server.args = small;
	server_start(&server);
	rig_start(&rig, 0, &op, XD_READ, 0, 0, 4096, buf);
	for (int i = 0; i < 20; i++) {
		assert_true(engine_run(rig.engine[0], 50000000) >= 0);
		(void)stack_reap(rig.top[0]);
	}
	assert_false(op.done);
	assert_non_null(strstr(fake_broker_state(rig.broker)->condition,
			       "shrunk from 4194304 to 2097152"));
	server_kill(&server);
	server.args = large;
	server_start(&server);
	rig_wait(&rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

static void gives_up(void **state)
{
	const char *args = "memory 4M";
	unsigned char buf[4096];
	struct server server;
	struct rig rig;

	(void)state;
	begin(&server, &rig, args);
	assert_int_equal(rig_open(&rig, 1, "nbd(" URI ", give-up=100ms)"), 0);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), 0);
	server_kill(&server);
	(void)unlink(server.sock);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), -EAGAIN);
	server_start(&server);
	while (rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf) == -EAGAIN)
		assert_true(engine_run(rig.engine[0], 50000000) >= 0);
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

/* --- A connection that breaks while the server lives on --------------------------------- */

/* Between client and server; cut() breaks the client's side only. */
struct relay {
	int listener;
	int client, server; /* -1: none */
	char to[160];
	pthread_t thread;
	_Atomic(bool) cut, stop;
};

static int unix_socket(const char *path, bool listens)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (!listens) {
		assert_int_equal(connect(fd, (struct sockaddr *)&address,
					 sizeof(address)),
				 0);
		return fd;
	}
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)),
			 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static bool pass_on(int from, int to)
{
	char buf[65536];
	ssize_t n = read(from, buf, sizeof(buf));

	return n > 0 && write(to, buf, (size_t)n) == n;
}

static void *relay_run(void *arg)
{
	struct relay *relay = arg;
	struct pollfd fds[3] = { { .events = POLLIN },
				 { .events = POLLIN },
				 { .events = POLLIN } };

	while (!relay->stop) {
		if (relay->client >= 0 && atomic_exchange(&relay->cut, false)) {
			(void)close(relay->client);
			/* The server's side stays open. */
			relay->client = relay->server = -1;
		}
		fds[0].fd = relay->client < 0 ? relay->listener : -1;
		fds[1].fd = relay->client;
		fds[2].fd = relay->server;
		(void)poll(fds, 3, 5);
		if (fds[0].fd >= 0 && fds[0].revents) {
			relay->client = accept(relay->listener, NULL, NULL);
			relay->server = unix_socket(relay->to, false);
			continue;
		}
		if ((fds[1].fd >= 0 && fds[1].revents &&
		     !pass_on(relay->client, relay->server)) ||
		    (fds[2].fd >= 0 && fds[2].revents &&
		     !pass_on(relay->server, relay->client))) {
			(void)close(relay->client);
			(void)close(relay->server);
			relay->client = relay->server = -1;
		}
	}
	return NULL;
}

/* A server, and a relay at "sock" before it. */
static void start_behind(struct server *server, struct relay *relay,
			 struct rig *rig, const char *args)
{
	server->rig = rig;
	server->args = args;
	(void)snprintf(server->sock, sizeof(server->sock), "%s",
		       rig_file(rig, "server", 0));
	server_start(server);
	*relay = (struct relay){ .client = -1, .server = -1 };
	(void)snprintf(relay->to, sizeof(relay->to), "%s", server->sock);
	relay->listener = unix_socket(rig_file(rig, "sock", 0), true);
	assert_int_equal(pthread_create(&relay->thread, NULL, relay_run, relay),
			 0);
}

static void end_relay(struct relay *relay)
{
	relay->stop = true;
	pthread_join(relay->thread, NULL);
	(void)close(relay->listener);
}

/* Once there is a file "slow", the next write waits for a file "go". */
static const char slow_server[] =
	"#!/bin/sh\n"
	"cd \"${0%/*}\" || exit 1\n"
	"case $1 in\n"
	"thread_model) echo parallel ;;\n"
	"get_size) echo 65536 ;;\n"
	"can_write) exit 0 ;;\n"
	"pread) dd if=data skip=$4 count=$3 iflag=skip_bytes,count_bytes "
	"status=none ;;\n"
	"pwrite) cat > in.$$\n"
	"	if mv slow taken 2>/dev/null; then slept=1\n"
	"		while [ ! -e go ]; do sleep 0.05; done; fi\n"
	"	dd if=in.$$ of=data seek=$4 oflag=seek_bytes conv=notrunc "
	"status=none\n"
	"	[ -z \"$slept\" ] || touch late ;;\n"
	"*) exit 2 ;;\n"
	"esac\n";

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);

	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
}

static void run_until(struct rig *rig, const char *file)
{
	while (!exists(file)) {
		assert_true(engine_run(rig->engine[0], 10000000) >= 0);
		(void)stack_reap(rig->top[0]);
	}
}

static void run_for(struct rig *rig, unsigned int rounds)
{
	while (rounds-- > 0) {
		assert_true(engine_run(rig->engine[0], 10000000) >= 0);
		(void)stack_reap(rig->top[0]);
	}
}

/* Writes A, breaks the connection before the slow server has done it, writes B
 * to the same place when A is answered.  Returns what is there when the server
 * has also done what came by the broken connection: before B if that waits,
 * else after it. */
static char content_after_break(const char *expression, bool waits)
{
	cleanup_free char *args = NULL;
	unsigned char buf[4096];
	struct server server;
	struct relay relay;
	struct rig_op op;
	struct rig rig;

	rig_new(&rig, true);
	write_file(rig_file(&rig, "script", 0), slow_server);
	(void)rig_file(&rig, "data", 65536);
	args = xasprintf("sh %s", rig_file(&rig, "script", 0));
	start_behind(&server, &relay, &rig, args);
	if (rig_open(&rig, 1, expression) < 0)
		fail_msg("%s", rig.why);
	write_file(rig_file(&rig, "slow", 0), "");
	memset(buf, 'A', sizeof(buf));
	rig_start(&rig, 0, &op, XD_WRITE, 0, 0, 4096, buf);
	run_until(&rig, rig_file(&rig, "taken", 0));
	relay.cut = true;
	rig_wait(&rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	memset(buf, 'B', sizeof(buf));
	rig_start(&rig, 0, &op, XD_WRITE, 0, 0, 4096, buf);
	if (waits) {
		run_for(&rig, 20);
		assert_false(op.done);
	} else {
		rig_wait(&rig, 0, &op, 1);
	}
	write_file(rig_file(&rig, "go", 0), "");
	rig_wait(&rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	run_until(&rig, rig_file(&rig, "late", 0));
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), 0);
	assert_int_equal(rig_close(&rig), 0);
	end_relay(&relay);
	end(&server);
	/* It went in pieces, and any of them was the slow one. */
	return memchr(buf, 'A', sizeof(buf)) ? 'A' : 'B';
}

static void fence(void **state)
{
	(void)state;
	assert_int_equal(content_after_break("nbd(" URI ", fence=5s)", true),
			 'B');
}

/* ... and this is what it is for. */
static void no_fence(void **state)
{
	(void)state;
	assert_int_equal(content_after_break("nbd(" URI ", fence=0s)", false),
			 'A');
}

/* Connections break in the middle of requests and replies, again and again. */
static void cut_under_load(void **state)
{
	cleanup_free char *args = NULL;
	struct server server;
	struct lane_run run;
	struct relay relay;
	unsigned int cuts = 0;
	struct rig rig;

	(void)state;
	rig_new(&rig, true);
	args = xasprintf("file %s", rig_file(&rig, "image", SIZE));
	start_behind(&server, &relay, &rig, args);
	memset(content, 0, SIZE);
	if (rig_open(&rig, 1, "nbd(" URI ", fence=2s)") < 0)
		fail_msg("%s", rig.why);
	start_lane(&run, &rig, 0, 1, 100);
	while (!is_over(&run)) {
		(void)usleep(20000 + cuts * 7919 % 30000 + cuts * 10000);
		relay.cut = true;
		cuts++;
	}
	assert_true(cuts > 3);
	assert_int_equal(run.wrong, 0);
	assert_int_equal(rig_close(&rig), 0);
	end_relay(&relay);
	end(&server);
}

/* The connection that is there does not know; another one is made. */
static void grows(void **state)
{
	cleanup_free char *args = NULL;
	unsigned char buf[4096];
	struct server server;
	struct rig rig;

	(void)state;
	rig_new(&rig, true);
	args = xasprintf("file %s", rig_file(&rig, "image", SIZE));
	server.rig = &rig;
	server.args = args;
	(void)snprintf(server.sock, sizeof(server.sock), "%s",
		       rig_file(&rig, "sock", 0));
	server_start(&server);
	assert_int_equal(rig_open(&rig, 1, "nbd(" URI ")"), 0);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), 0);
	assert_int_equal(stack_resize(rig.stack, 0, rig.why), 0);
	assert_false(stack_unsettled(rig.stack));
	(void)rig_file(&rig, "image", SIZE + (2 << 20));
	assert_int_equal(stack_resize(rig.stack, 0, rig.why), 0);
	assert_true(stack_unsettled(rig.stack));
	stack_settle(rig.stack);
	assert_int_equal(stack_limits(rig.stack)->size, SIZE + (2 << 20));
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, SIZE + 4096, 4096, buf),
			 0);
	assert_true(stack_resize(rig.stack, 2 * SIZE, rig.why) < 0);
	assert_non_null(strstr(rig.why, "6291456 bytes"));
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

/* A part of a block is fetched, to be written back, when the connection is given up. */
static void fetched_at_the_end(void **state)
{
	unsigned char buf[4096], part[512];
	cleanup_free char *args = NULL;
	struct rig_op ops[2];
	struct server server;
	struct rig rig;

	(void)state;
	rig_new(&rig, true);
	args = xasprintf(
		"--filter=blocksize-policy file %s blocksize-minimum=4096",
		rig_file(&rig, "image", SIZE));
	server.rig = &rig;
	server.args = args;
	(void)snprintf(server.sock, sizeof(server.sock), "%s",
		       rig_file(&rig, "sock", 0));
	server_start(&server);
	assert_int_equal(rig_open(&rig, 1, "nbd(" URI ")"), 0);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), 0);
	(void)rig_file(&rig, "image", SIZE + (2 << 20));
	assert_int_equal(stack_resize(rig.stack, 0, rig.why), 0);
	stack_settle(rig.stack);
	memset(part, 0x5a, sizeof(part));
	rig_start(&rig, 0, &ops[0], XD_WRITE, 0, 512, sizeof(part), part);
	(void)usleep(200000); /* the block is there, and not taken yet */
	rig_start(&rig, 0, &ops[1], XD_READ, 0, SIZE + 4096, 4096, buf);
	rig_wait(&rig, 0, ops, 2);
	assert_int_equal(ops[0].err, 0);
	assert_int_equal(ops[1].err, 0);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, 4096, buf), 0);
	assert_memory_equal(buf + 512, part, sizeof(part));
	assert_int_equal(buf[511] | buf[1024], 0);
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

/* --- Where data is --------------------------------------------------------------- */

/* 32 KiB at 1 MiB, and asked again when the server has forgotten them. */
static void extents(void **state)
{
	static unsigned char buf[32 << 10];
	const struct setting *setting = *state;
	struct server server;
	struct rig rig;

	begin(&server, &rig, setting->args);
	if (rig_open(&rig, 1, "nbd(" URI ", fence=0s, unflushed=trust)") < 0)
		fail_msg("%s", rig.why);
	memset(buf, 0x31, sizeof(buf));
	assert_int_equal(
		rig_io(&rig, 0, XD_WRITE, 0, 1 << 20, sizeof(buf), buf), 0);
	assert_string_equal(extents_map(&rig), setting->expression);
	server_kill(&server);
	server_start(&server);
	memset(content, 0, SIZE);
	assert_int_equal(extents_model(&rig, content, false, 11) > 0,
			 setting->expression[2] == 'h');
	assert_int_equal(rig_close(&rig), 0);
	end(&server);
}

int main(void)
{
	/* What extents_map() says of them. */
	static struct setting maps[] = {
		{ "extents", "0:hz 1048576:d 1081344:hz", 1, "memory 4M" },
		{ "extents, large blocks", "0:hz 1048576:d 1081344:hz", 1,
		  "--filter=blocksize-policy memory 4M blocksize-minimum=8192 blocksize-maximum=65536 blocksize-preferred=8192 blocksize-error-policy=error" },
		{ "extents that the server does not tell", "0:d", 1,
		  "--filter=noextents memory 4M" },
	};
	static struct setting settings[] = {
		{ "data", "nbd(" URI ")", 1, "memory 4M" },
		{ "data, lanes", "nbd(" URI ")", 3, "memory 4M" },
		{ "data, 4096", "nbd(" URI ", sector-size=4096)", 1,
		  "--filter=blocksize-policy memory 4M blocksize-minimum=4096 blocksize-error-policy=error" },
		{ "data, large blocks", "nbd(" URI ")", 1,
		  "--filter=blocksize-policy memory 4M blocksize-minimum=8192 blocksize-maximum=65536 blocksize-preferred=8192 blocksize-error-policy=error" },
	};
	static struct refusal refusals[] = {
		{ "rmw=no", "nbd(" URI ", rmw=no)", "blocks of 4096 bytes",
		  "--filter=blocksize-policy memory 4M blocksize-minimum=4096" },
		{ "odd size", "nbd(" URI ")",
		  "no multiple of the sector size 512", "memory 1000" },
		{ "empty", "nbd(" URI ")", "empty", "null 0" },
		{ "nobody", "nbd(\"nbd+unix:///?socket=@/other\")",
		  "/other: No such file", "memory 4M" },
		{ "no such export", "nbd(\"nbd+unix:///x?socket=@/sock\")", "x",
		  "--filter=exportname memory 4M exportname=y exportname-strict=true" },
		{ "no TLS", "nbd(\"nbds+unix:///?socket=@/sock\")", "TLS",
		  "memory 4M" },
	};
	struct CMUnitTest tests[32] = {
		cmocka_unit_test(read_only_export),
		cmocka_unit_test(killed_under_load),
		cmocka_unit_test(forgetful_server),
		cmocka_unit_test(shrunk),
		cmocka_unit_test(gives_up),
		cmocka_unit_test(fence),
		cmocka_unit_test(no_fence),
		cmocka_unit_test(cut_under_load),
		cmocka_unit_test(grows),
		cmocka_unit_test(fetched_at_the_end),
	};
	size_t n = 10;

	if (system("nbdkit --version >/dev/null 2>&1") != 0) {
		printf("1..0 # SKIP nbdkit is not installed\n");
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		tests[n++] =
			(struct CMUnitTest){ .name = settings[i].name,
					     .test_func = data_is_kept,
					     .initial_state = &settings[i] };
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++)
		tests[n++] = (struct CMUnitTest){ .name = maps[i].name,
						  .test_func = extents,
						  .initial_state = &maps[i] };
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		tests[n++] =
			(struct CMUnitTest){ .name = refusals[i].name,
					     .test_func = is_refused,
					     .initial_state = &refusals[i] };
	return _cmocka_run_group_tests("nbd", tests, n, NULL, NULL);
}
