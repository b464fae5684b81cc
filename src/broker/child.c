/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/child.h"

#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <utlist.h>

#include "common/util.h"

struct child {
	struct child *prev;
	struct child *next;
	pid_t pid;
	child_exit_fn fn; /* NULL: forgotten */
	void *ctx;
};

struct children {
	struct child *list;
	struct event *sigchld;
};

/* Tells of it; fn may watch and forget others, and frees none of them. */
static void finish(struct children *children, struct child *child, int status)
{
	DL_DELETE(children->list, child);
	if (child->fn)
		child->fn(child->ctx, status);
	free(child);
}

static struct child *find_child(struct children *children, pid_t pid)
{
	struct child *child;

	DL_FOREACH(children->list, child)
		if (child->pid == pid)
			return child;
	return NULL;
}

static void ask_for_all(struct children *children)
{
	struct child *child;
	struct child *next;
	int status;

	DL_FOREACH_SAFE(children->list, child, next)
		if (waitpid(child->pid, &status, WNOHANG) == child->pid)
			finish(children, child, status);
}

/*
 * One SIGCHLD may stand for many deaths, and there may be many children: so the
 * kernel is asked for a dead one until there is none.  A dead child that is not
 * ours (a library's) is left alone; as it hides the others, each of ours is then
 * asked for by itself.
 */
static void on_sigchld(evutil_socket_t sig, short what, void *arg)
{
	struct children *children = arg;

	(void)sig;
	(void)what;
	for (;;) {
		siginfo_t info = { .si_pid = 0 };
		struct child *child;
		int status;

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		    info.si_pid == 0)
			return;
		child = find_child(children, info.si_pid);
		if (!child) {
			ask_for_all(children);
			return;
		}
		if (waitpid(child->pid, &status, WNOHANG) != child->pid)
			return;
		finish(children, child, status);
	}
}

int children_new(struct children **ret, struct event_base *base)
{
	struct children *children = calloc(1, sizeof(*children));

	if (!children)
		return -ENOMEM;
	children->sigchld = evsignal_new(base, SIGCHLD, on_sigchld, children);
	if (!children->sigchld || event_add(children->sigchld, NULL) < 0) {
		children_free(children);
		return -ENOMEM;
	}
	*ret = children;
	return 0;
}

void children_free(struct children *children)
{
	struct child *child;
	struct child *next;

	if (!children)
		return;
	if (children->sigchld)
		event_free(children->sigchld);
	DL_FOREACH_SAFE(children->list, child, next)
		free(child);
	free(children);
}

int child_watch(struct children *children, pid_t pid, child_exit_fn fn,
		void *ctx, struct child **ret)
{
	struct child *child = calloc(1, sizeof(*child));

	if (!child)
		return -ENOMEM;
	child->pid = pid;
	child->fn = fn;
	child->ctx = ctx;
	DL_APPEND(children->list, child);
	if (ret)
		*ret = child;
	return 0;
}

void child_forget(struct child *child)
{
	if (child)
		child->fn = NULL;
}

void child_explain(int status, char *buf, size_t len)
{
	if (WIFSIGNALED(status))
		(void)snprintf(buf, len, "was killed by signal %d (%s)",
			       WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		(void)snprintf(buf, len, "exited with status %d",
			       WEXITSTATUS(status));
}
