/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stats.c - reads what a worker counts.
 *
 * The file is the worker's, who may write anything into it at any time, cut it
 * off included: it is read by pread(), a queue at a time, and whatever the
 * numbers are they are told as numbers that JSON can hold.
 */
#include "common/stats.h"

#include "broker/broker.h"
#include "broker/keep.h"
#include "broker/stats.h"
#include "broker/vbd.h"
#include "common/util.h"

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)MIN(value, (uint64_t)INT64_MAX));
}

static json_t *view_op(const struct stats_op *op)
{
	return json_pack("{s:o, s:o, s:o, s:{s:o, s:o, s:o}}", "requests",
			 number(op->requests), "bytes", number(op->bytes),
			 "errors", number(op->errors), "latency_us", "p50",
			 number(stats_quantile_us(op->latency, 500)), "p99",
			 number(stats_quantile_us(op->latency, 990)), "p999",
			 number(stats_quantile_us(op->latency, 999)));
}

/* {"1": 12, "2": 3}: what never came is left out. */
static json_t *view_histogram(const uint64_t *counts, unsigned int nr)
{
	json_t *object = json_object();
	char value[16];

	for (unsigned int i = 0; i < nr; i++) {
		if (counts[i] == 0)
			continue;
		(void)snprintf(value, sizeof(value), "%u", i);
		(void)json_object_set_new(object, value, number(counts[i]));
	}
	return object;
}

static json_t *view_queue(const struct stats_queue *queue, unsigned int index)
{
	json_t *object = json_pack("{s:I}", "queue", (json_int_t)index);

#define STATS_OP(name) \
	(void)json_object_set_new(object, #name, view_op(&queue->name));
#define STATS_COUNT(name) \
	(void)json_object_set_new(object, #name, number(queue->name));
#define STATS_HISTOGRAM(name, count)             \
	(void)json_object_set_new(object, #name, \
				  view_histogram(queue->name, count));
#include "common/stats.def"
	return object;
}

static int view_queues(int fd, json_t *array)
{
	cleanup_free struct stats_queue *queue =
		aligned_alloc(_Alignof(struct stats_queue), sizeof(*queue));
	struct stats_header header;
	int r = queue ? pread_all(fd, &header, sizeof(header), 0) : -ENOMEM;

	if (r < 0)
		return r;
	if (header.magic == 0)
		return 0; /* just made */
	if (header.magic != STATS_MAGIC || header.version != STATS_VERSION ||
	    header.nr_queues > XD_MAX_RINGS)
		return -EPROTO;
	for (unsigned int i = 0; i < header.nr_queues; i++) {
		r = pread_all(fd, queue, sizeof(*queue),
			      offsetof(struct stats_file, queue) +
				      i * sizeof(*queue));
		if (r < 0)
			return r;
		(void)json_array_append_new(array, view_queue(queue, i));
	}
	return 0;
}

int stats_view(struct broker *broker, const struct vbd *vbd, json_t **ret)
{
	const struct node_address *at = vbd_address(vbd);
	json_t *queues = json_array();
	cleanup_close int fd =
		keep_read(broker->keep, at->domid, at->devid, STATS_NAME);
	int r = fd;

	if (fd >= 0)
		r = view_queues(fd, queues);
	if (r < 0 && r != -ENOENT) {
		json_decref(queues);
		return r == -ENODATA ? -EPROTO : r;
	}
	*ret = json_pack("{s:I, s:I, s:o}", "domid", (json_int_t)at->domid,
			 "devid", (json_int_t)at->devid, "queues", queues);
	return *ret ? 0 : -ENOMEM;
}
