/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/errand.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "broker/broker.h"
#include "broker/child.h"
#include "common/fds.h"
#include "common/util.h"

#define NOT_COME 1 /* an err that no result has */

struct report {
	uint32_t index;
	int32_t err;
};

struct errand {
	struct errand_spec spec;
	pid_t pid;
	struct child *child; /* NULL: reaped */
	int sock;
	struct event *readable;
	struct event *timer;
	size_t nr_reported;
	struct errand_result results[];
};

/* --- In the child -------------------------------------------------------- */

void errand_report(uint32_t index, int err, int fd)
{
	struct report report = { .index = index, .err = err };

	(void)fds_send(ERRAND_SOCK, &report, sizeof(report), &fd, fd >= 0, 0);
}

/*
 * Keeps stdio, the socket and spec->fd.  What a stuck child held open, a lock
 * or a worker's socket, would otherwise outlive the broker.
 */
static void keep_only(int sock, int fd)
{
	int high_sock = fcntl(sock, F_DUPFD, 10);
	int high_fd = fd >= 0 ? fcntl(fd, F_DUPFD, 10) : -1;

	(void)dup2(high_sock, ERRAND_SOCK);
	if (high_fd >= 0)
		(void)dup2(high_fd, ERRAND_FD);
	else
		(void)close(ERRAND_FD);
	close_fds_from(ERRAND_FD + 1);
}

static _Noreturn void child_main(const struct errand_spec *spec, int sock)
{
	static const int reset[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP };
	sigset_t none;

	/* The handlers write to a pipe shared with the broker. */
	for (size_t i = 0; i < ARRAY_SIZE(reset); i++)
		(void)signal(reset[i], SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	keep_only(sock, spec->fd);
	spec->work(spec->arg);
	_exit(0);
}

/* --- In the broker ------------------------------------------------------- */

static void errand_free(struct errand *errand)
{
	if (errand->readable)
		event_free(errand->readable);
	if (errand->timer)
		event_free(errand->timer);
	if (errand->sock >= 0)
		(void)close(errand->sock);
	child_forget(errand->child);
	for (size_t i = 0; i < errand->spec.nr_results; i++)
		if (errand->results[i].fd >= 0)
			(void)close(errand->results[i].fd);
	free(errand);
}

void errand_cancel(struct errand *errand)
{
	if (!errand)
		return;
	if (errand->child)
		(void)kill(errand->pid, SIGKILL);
	errand_free(errand);
}

/* missing: of the results that have not come. */
static void finish(struct errand *errand, int missing)
{
	for (size_t i = 0; i < errand->spec.nr_results; i++)
		if (errand->results[i].err == NOT_COME)
			errand->results[i].err = missing;
	errand->spec.done(errand->spec.ctx, errand->results);
	errand_free(errand);
}

static void on_exit_of_child(void *ctx, int status)
{
	struct errand *errand = ctx;

	(void)status;
	errand->child = NULL;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct errand *errand = arg;

	(void)fd;
	(void)what;
	if (errand->child)
		(void)kill(errand->pid, SIGKILL);
	finish(errand, -ETIMEDOUT);
}

/* Returns false when there is nothing more to come. */
static bool take_report(struct errand *errand)
{
	struct errand_result *result;
	struct report report;
	unsigned int nr = 0;
	int fd = -1;
	ssize_t n = fds_receive(errand->sock, &report, sizeof(report), &fd, 1,
				&nr, MSG_DONTWAIT);

	if (n < 0)
		return n == -EAGAIN;
	if (n != sizeof(report) || report.index >= errand->spec.nr_results ||
	    (nr > 0 && errand->results[report.index].fd >= 0)) {
		fds_close(&fd, nr);
		return false;
	}
	result = &errand->results[report.index];
	result->err = report.err;
	if (nr > 0)
		result->fd = fd;
	return ++errand->nr_reported < errand->spec.nr_results;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct errand *errand = arg;

	(void)fd;
	(void)what;
	if (!take_report(errand))
		finish(errand, -EIO);
}

static int start_child(struct errand *errand, struct broker *broker,
		       int child_sock)
{
	sigset_t all;
	sigset_t old;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, &old);
	errand->pid = fork();
	if (errand->pid == 0)
		child_main(&errand->spec, child_sock);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (errand->pid < 0)
		return -errno;
	return child_watch(broker->children, errand->pid, on_exit_of_child,
			   errand, &errand->child);
}

static int hook_up(struct errand *errand, struct broker *broker)
{
	struct timeval timeout = { .tv_sec = errand->spec.timeout_s };

	errand->readable = event_new(broker->base, errand->sock,
				     EV_READ | EV_PERSIST, on_readable, errand);
	errand->timer = evtimer_new(broker->base, on_timeout, errand);
	if (!errand->readable || !errand->timer ||
	    event_add(errand->readable, NULL) < 0 ||
	    event_add(errand->timer, &timeout) < 0)
		return -ENOMEM;
	return 0;
}

int errand_start(struct errand **ret, struct broker *broker,
		 const struct errand_spec *spec)
{
	struct errand *errand;
	int pair[2];
	int r;

	errand =
		calloc(1, sizeof(*errand) + spec->nr_results *
						    sizeof(errand->results[0]));
	if (!errand)
		return -ENOMEM;
	errand->spec = *spec;
	for (size_t i = 0; i < spec->nr_results; i++)
		errand->results[i] = (struct errand_result){ NOT_COME, -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		r = -errno;
		free(errand);
		return r;
	}
	errand->sock = pair[0];
	r = start_child(errand, broker, pair[1]);
	(void)close(pair[1]);
	if (r == 0)
		r = hook_up(errand, broker);
	if (r < 0) {
		errand_cancel(errand);
		return r;
	}
	*ret = errand;
	return 0;
}
