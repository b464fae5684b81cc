/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack-control.c - what the operator wants of a stack's backends, and what they
 * tell him unasked.
 *
 * Filters do not pass on what is wanted: whoever has the member and is nearest to
 * the guest is meant, and takes care of what is below it.
 *
 * xd_changed() comes from any thread.  The broker is told under a lock, so that it
 * hears last what was said last, also when another one is just being told all.
 */
#include "config.h"

#include <stdarg.h>
#include <string.h>

#include "common/pairs.h"
#include "worker/services.h"
#include "worker/stack.h"

/* --- control() ------------------------------------------------------------ */

/* Layers are numbered from the root, each before those below it. */
static struct host_disk *topmost(struct stack *stack)
{
	struct host_disk *found = NULL;

	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		struct host_disk *hd = &stack->disks[i];

		if (hd->disk.backend->control &&
		    (!found || hd->layer->index < found->layer->index))
			found = hd;
	}
	return found;
}

int stack_control(struct stack *stack, const char *verb, const char *text,
		  char *ret_text, size_t size, char *ret_why)
{
	struct host_disk *hd = topmost(stack);
	int r;

	ret_why[0] = '\0';
	memset(ret_text, 0, size);
	if (!hd)
		return -EOPNOTSUPP;
	stack->why[0] = '\0';
	r = hd->disk.backend->control(&hd->disk, verb, text, ret_text, size);
	if (r < 0 && !stack->why[0])
		xd_error(&hd->disk, "%s: %s", verb, strerror(-r));
	if (r < 0)
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", stack->why);
	return MIN(r, 0);
}

int xd_pair(const char *text, const char *key, char *ret, size_t size)
{
	return pairs_get(text, key, ret, size);
}

int xd_add_pair(char *text, size_t size, const char *key, const char *fmt, ...)
{
	cleanup_free char *value = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&value, fmt, ap);
	va_end(ap);
	if (n < 0) {
		value = NULL;
		return -ENOMEM;
	}
	return pairs_add(text, size, key, value);
}

/* --- xd_changed() --------------------------------------------------------- */

/* With the lock.  Without a broker it is told to the next one. */
static void tell(struct host_disk *hd)
{
	struct msg_changed msg = hd->changed;

	(void)services_send(hd->stack->services, &msg, sizeof(msg),
			    MSG_CHANGED);
}

void xd_changed(struct xd_disk *disk, const char *commit, const char *fmt, ...)
{
	struct host_disk *hd = host_disk_of(disk);
	struct msg_changed now = { .layer = hd->layer->index };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(now.text, sizeof(now.text), fmt, ap);
	va_end(ap);
	for (char *p = now.text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	/* The broker ends a worker that says something else. */
	if (commit && msg_is_commit(commit))
		(void)snprintf(now.commit, sizeof(now.commit), "%s", commit);
	pthread_mutex_lock(&hd->stack->now_lock);
	if (!hd->is_changed || strcmp(now.text, hd->changed.text) != 0 ||
	    strcmp(now.commit, hd->changed.commit) != 0) {
		hd->is_changed = true;
		hd->changed = now;
		tell(hd);
	}
	pthread_mutex_unlock(&hd->stack->now_lock);
}

void stack_tell_changed(struct stack *stack)
{
	pthread_mutex_lock(&stack->now_lock);
	for (unsigned int i = 0; i < stack->nr_disks; i++)
		if (stack->disks[i].is_changed)
			tell(&stack->disks[i]);
	pthread_mutex_unlock(&stack->now_lock);
}
