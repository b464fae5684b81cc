/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * front.c - TLS before an export.
 *
 * Theory of operation
 *
 * The process serves for as long as its standard input is open (--isolate): that is a
 * pipe of ours, so it ends with the export, and also with a broker that is killed.
 * What it writes comes back through another pipe: first that it serves, or a sentence
 * why it cannot; what comes later goes to the log.  Once it serves it is locked down
 * (serve/serve.c), since anybody who reaches the port talks to GnuTLS in there.
 */
#include "config.h"

#include "broker/front.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/child.h"
#include "broker/users.h"
#include "common/log.h"
#include "common/msg.h"
#include "common/serve.h"
#include "common/util.h"

#define AGAIN_S	 1
#define MAX_ARGS 16
/* Of what it says: all that a pipe holds. */
#define MOST_AT_A_TIME 65536
/* In front of what it has to say. */
#define PREFIX "xendisk: serve: "

struct front {
	struct broker *broker;
	struct log_who who;
	char *name;
	char *argv[MAX_ARGS + 1];
	unsigned int argc;
	struct child *child; /* NULL: it does not run */
	int input; /* closed: it is to end */
	int output;
	struct event *readable;
	struct event *again;
	char line[MSG_TEXT_MAX]; /* the last one, or a part of it */
	size_t length;
	bool complete; /* it is a whole one */
	bool patient;
	struct promise told; /* that it serves */
};

/* --- What it says --------------------------------------------------------- */

static const char *sentence(const struct front *front)
{
	const char *line = front->line;

	if (strncmp(line, PREFIX, strlen(PREFIX)) == 0)
		line += strlen(PREFIX);
	return *line ? line : "its TLS server has ended";
}

/* True: the front may be gone. */
static bool take_line(struct front *front)
{
	if (strcmp(front->line, SERVE_READY) == 0) {
		front->line[0] = '\0';
		promise_keep(&front->told, 0, NULL);
		return true;
	}
	if (front->told.done)
		return false;
	/* Anybody who reaches the port can make it say something. */
	log_guest(&front->who, LOG_LEVEL_INFO, "export %s: %s", front->name,
		  sentence(front));
	/* It is said: not why the process ends, if it does. */
	front->line[0] = '\0';
	return false;
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
	struct front *front = arg;
	char c;

	(void)what;
	/* Not for as long as there is more: somebody may have taken it over. */
	for (unsigned int i = 0; i < MOST_AT_A_TIME; i++) {
		ssize_t n = read(fd, &c, 1);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			(void)event_del(front->readable);
		if (n <= 0)
			return;
		if (front->complete)
			front->length = 0;
		front->complete = c == '\n';
		if (!front->complete && front->length < sizeof(front->line) - 1)
			front->line[front->length++] = c;
		front->line[front->length] = '\0';
		if (front->complete && take_line(front))
			return;
	}
}

/* --- The process ---------------------------------------------------------- */

static void drop_process(struct front *front)
{
	child_forget(TAKE_PTR(front->child));
	if (front->readable)
		event_free(TAKE_PTR(front->readable));
	if (front->input >= 0)
		(void)close(TAKE_FD(front->input));
	if (front->output >= 0)
		(void)close(TAKE_FD(front->output));
}

static void start_again_later(struct front *front)
{
	const struct timeval tv = { .tv_sec = AGAIN_S };

	(void)evtimer_add(front->again, &tv);
}

static void on_exit_of_child(void *ctx, int status)
{
	struct front *front = ctx;

	(void)status;
	front->child = NULL;
	if (front->readable)
		on_output(front->output, 0, front); /* its last words */
	drop_process(front);
	if (front->told.done && !front->patient) {
		promise_keep(&front->told, -EIO, sentence(front));
		return;
	}
	log_error("export %s: %s; starting it again", front->name,
		  sentence(front));
	start_again_later(front);
}

static int spawn(const struct front *front, int input, int output, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF |
						POSIX_SPAWN_SETSID);
	r = -posix_spawn(ret, "/proc/self/exe", &actions, &attr, front->argv,
			 environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return r;
}

static int hear(struct front *front)
{
	front->length = 0;
	front->line[0] = '\0';
	front->complete = false;
	front->readable = event_new(front->broker->base, front->output,
				    EV_READ | EV_PERSIST, on_output, front);
	return front->readable && event_add(front->readable, NULL) == 0 ?
		       0 :
		       -ENOMEM;
}

static int start(struct front *front)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 };
	pid_t pid;
	int r = 0;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		r = -errno;
	if (r == 0)
		r = spawn(front, in[0], out[1], &pid);
	if (in[0] >= 0)
		(void)close(in[0]);
	if (out[1] >= 0)
		(void)close(out[1]);
	front->input = in[1];
	front->output = out[0];
	if (r == 0)
		r = child_watch(front->broker->children, pid, on_exit_of_child,
				front, &front->child);
	if (r == 0 && fcntl(front->output, F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	return r ? r : hear(front);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct front *front = arg;

	(void)fd;
	(void)what;
	if (start(front) == 0)
		return;
	drop_process(front);
	start_again_later(front);
}

/* --- Life ----------------------------------------------------------------- */

static void add(struct front *front, char *word)
{
	if (front->argc < MAX_ARGS)
		front->argv[front->argc++] = word;
	else
		free(word);
}

static void make_words(struct front *front, const struct front_spec *spec)
{
	const struct broker_options *options = &front->broker->options;

	add(front, strdup("xendiskd"));
	add(front, strdup("--serve"));
	add(front, strdup(options->backend_dir));
	add(front, strdup(options->state_dir));
	add(front, strdup(options->config ? options->config : ""));
	add(front, strdup("--tcp"));
	add(front, strdup(spec->tcp));
	add(front, strdup(spec->tls_psk ? "--tls-psk" : "--tls-certs"));
	add(front, strdup(spec->tls_psk ? spec->tls_psk : spec->tls_certs));
	add(front, strdup("--isolate"));
	add(front, xasprintf("%u", users_front()));
	if (spec->readonly)
		add(front, strdup("--readonly"));
	/* Others write to the disk as well: what they wrote is no loss.  And whoever
	 * is behind the socket keeps what it has answered. */
	add(front, xasprintf("%s=nbd(\"nbd+unix:///%s?socket=%s\", "
			     "unflushed=trust)",
			     spec->name, spec->name, spec->path));
}

static bool has_words(const struct front *front)
{
	for (unsigned int i = 0; i < front->argc; i++)
		if (!front->argv[i])
			return false;
	return true;
}

int front_new(struct front **ret, struct broker *broker,
	      const struct front_spec *spec, promise_fn told, void *ctx)
{
	struct front *front = calloc(1, sizeof(*front));
	int r = -ENOMEM;

	if (!front)
		return -ENOMEM;
	front->broker = broker;
	front->who.domid = spec->domid;
	front->who.devid = spec->devid;
	front->input = -1;
	front->output = -1;
	front->patient = spec->patient;
	front->told = (struct promise){ told, ctx };
	front->name = strdup(spec->name);
	front->again = evtimer_new(broker->base, on_again, front);
	make_words(front, spec);
	if (front->name && front->again && has_words(front))
		r = start(front);
	if (r < 0) {
		front_free(front);
		return r;
	}
	*ret = front;
	return 0;
}

void front_free(struct front *front)
{
	if (!front)
		return;
	drop_process(front);
	if (front->again)
		event_free(front->again);
	for (unsigned int i = 0; i < front->argc; i++)
		free(front->argv[i]);
	free(front->name);
	free(front);
}
