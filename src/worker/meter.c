/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/meter.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "common/util.h"
#include "worker/services.h"

/* Another version of this program has counted other things.  Zeroes would need room
 * where there are holes now. */
static int forget_others(struct stats_file *stats, int fd)
{
	if (!stats->header.magic || (stats->header.magic == STATS_MAGIC &&
				     stats->header.version == STATS_VERSION))
		return 0;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      sizeof(*stats)) < 0) {
		if (errno != EOPNOTSUPP)
			return -errno;
		memset(stats, 0, sizeof(*stats));
	}
	return reserve_room(fd, 0, sizeof(stats->header));
}

int meter_open(struct stats_file **ret, int *ret_fd, struct services *services)
{
	cleanup_close int fd = -1;
	struct stats_file *stats;
	int r = services_keep(services, STATS_NAME, sizeof(*stats), &fd);

	if (r)
		return r;
	r = reserve_room(fd, 0, sizeof(stats->header));
	if (r)
		return r;
	stats = mmap(NULL, sizeof(*stats), PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	if (stats == MAP_FAILED)
		return -errno;
	r = forget_others(stats, fd);
	if (r) {
		meter_close(stats);
		return r;
	}
	stats->header.magic = STATS_MAGIC;
	stats->header.version = STATS_VERSION;
	*ret = stats;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void meter_close(struct stats_file *stats)
{
	if (stats)
		(void)munmap(stats, sizeof(*stats));
}

int meter_begin(struct stats_file *stats, int fd, unsigned int nr_rings)
{
	int r = reserve_room(fd, 0,
			     sizeof(stats->header) +
				     nr_rings * sizeof(stats->queue[0]));

	if (r)
		return r;
	if (stats->header.nr_queues < nr_rings)
		stats->header.nr_queues = nr_rings;
	return 0;
}

/* NULL: an operation that does not exist. */
static struct stats_op *find_op(struct stats_queue *queue, uint8_t op)
{
	switch (blkif_action(op)) {
	case BLKIF_READ:
		return &queue->read;
	case BLKIF_WRITE:
	case BLKIF_BARRIER:
		return &queue->write;
	case BLKIF_FLUSH:
		return &queue->flush;
	case BLKIF_DISCARD:
		return &queue->discard;
	case BLKIF_NR_ACTIONS:
		break;
	}
	return NULL;
}

void meter_answered(struct stats_queue *queue, const struct blkif_job *job,
		    int16_t status, uint64_t ns)
{
	struct stats_op *op = find_op(queue, job->op);

	if (!op)
		return;
	op->requests++;
	op->latency[stats_bucket(ns)]++;
	if (status != BLKIF_STATUS_OKAY) {
		op->errors++;
		return;
	}
	op->bytes += job->length;
	if (job->nr_segments > 0)
		queue->segments[job->nr_segments]++;
}
