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

/* One SIGCHLD may stand for many deaths: ask for everybody. */
static void on_sigchld(evutil_socket_t sig, short what, void *arg)
{
	struct children *children = arg;
	struct child *child;
	struct child *next;

	(void)sig;
	(void)what;
	DL_FOREACH_SAFE(children->list, child, next) {
		int status;

		if (waitpid(child->pid, &status, WNOHANG) != child->pid)
			continue;
		DL_DELETE(children->list, child);
		/* fn may watch and forget others; it frees none of them. */
		if (child->fn)
			child->fn(child->ctx, status);
		free(child);
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
		snprintf(buf, len, "was killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, len, "exited with status %d",
			 WEXITSTATUS(status));
}
