/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack-resize.c - how a stack becomes larger.
 *
 * The top is asked, and asks those below it (xd_resize()), since it alone knows
 * what their growing means for it.  What each of them says is only noted here;
 * limits, which lanes read, change in stack_settle().  A disk never shrinks: a
 * guest that has seen its size may have data at the end.
 */
#include "config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "worker/stack.h"

static int refuse(struct xd_disk *disk, int err, const char *fmt, ...)
	PRINTF(3, 4);

static int refuse(struct xd_disk *disk, int err, const char *fmt, ...)
{
	cleanup_free char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	xd_error(disk, "%s", text ? text : strerror(-err));
	return err;
}

/* 0: the disk may be asked to become that large. */
static int check_wish(struct xd_disk *disk, uint64_t size)
{
	const struct xd_limits *limits = &disk->limits;

	if (size < limits->size)
		return refuse(disk, -EPERM,
			      "from %" PRIu64 " to %" PRIu64
			      " bytes it would shrink, which a disk in use "
			      "must not",
			      limits->size, size);
	if (size > INT64_MAX || size % limits->sector_size)
		return refuse(disk, -EINVAL,
			      "%" PRIu64
			      " bytes is no multiple of the sector size, %u",
			      size, limits->sector_size);
	if (size > limits->size && !disk->backend->resize)
		return refuse(disk, -EOPNOTSUPP,
			      "has the size that its expression says");
	return 0;
}

/* A module's word; not our bug if it is wrong, so no assert. */
static int take_size(struct xd_disk *disk, uint64_t size)
{
	const struct xd_limits *limits = &disk->limits;

	if (size < limits->size || size > INT64_MAX ||
	    size % limits->sector_size)
		return refuse(disk, -EINVAL,
			      "its resize() gave a wrong size, %" PRIu64, size);
	if (size > limits->size)
		host_disk_of(disk)->next_size = size;
	return 0;
}

int xd_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	const struct xd_backend *backend = disk->backend;
	uint64_t now = disk->limits.size;
	int r = size ? check_wish(disk, size) : 0;

	if (r < 0)
		return r;
	if (size == now)
		size = 0; /* no wish, then */
	if (backend->resize)
		r = backend->resize(disk, size, &now);
	if (r < 0 && !host_disk_of(disk)->stack->why[0])
		xd_error(disk, "%s", strerror(-r));
	if (r == 0)
		r = take_size(disk, now);
	if (r < 0)
		return r;
	*ret_size = now;
	return 0;
}

/* --- For the worker ------------------------------------------------------- */

static struct host_disk *top_of(struct stack *stack)
{
	return &stack->disks[stack->nr_disks - 1];
}

int stack_resize(struct stack *stack, uint64_t size, char *ret_why)
{
	uint64_t now;
	int r;

	stack->why[0] = '\0';
	r = xd_resize(&top_of(stack)->disk, size, &now);
	if (r < 0)
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", stack->why);
	return r;
}

bool stack_unsettled(const struct stack *stack)
{
	for (unsigned int i = 0; i < stack->nr_disks; i++)
		if (stack->disks[i].next_size)
			return true;
	return false;
}

/* Bottom first: what is below a disk is never smaller than it says. */
void stack_settle(struct stack *stack)
{
	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		struct host_disk *hd = &stack->disks[i];

		if (!hd->next_size)
			continue;
		hd->disk.limits.size = hd->next_size;
		hd->next_size = 0;
		if (hd->disk.backend->resized)
			hd->disk.backend->resized(&hd->disk);
	}
	stack->limits.size = top_of(stack)->disk.limits.size;
}

bool stack_may_grow(const struct stack *stack)
{
	for (unsigned int i = 0; i < stack->nr_disks; i++)
		if (stack->disks[i].disk.backend->flags & XD_MAY_GROW)
			return true;
	return false;
}
