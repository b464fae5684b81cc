/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A read is cut where what lies on the disk changes: tables that are computed,
 * zeroes, folders, files.  The lane does as much of it as is in memory.  When it
 * comes to a file that is not, the job goes to a thread that may wait for a disk
 * and inflate, which finishes it; then it comes back to its lane, woken by an
 * eventfd.  Small files have two threads, large ones another: see gitfs.h.
 *
 * Where a guest may write, what it has written is in a file (gitfs-write.c), which
 * is read, written and flushed by threads, too.
 *
 * A job lives in its request's scratch.  Its buffers may be written by whoever
 * has the job.
 */
#include "config.h"

#include "gitfs.h"

#include <poll.h>
#include <string.h>

#include "common/util.h"
#include "gitfs-write.h"
#include "stream.h"

#define PIECE	65536u
#define FOLDERS UINT16_MAX /* the "pack" of folders in the cache */

struct lane {
	struct xd_channel *ch;
	struct gitfs *gitfs;
	int wake; /* borrowed */
	struct xd_sys poll;
	bool armed;
	bool ending; /* polls were cancelled: only a last flush may come */
	unsigned int waiting; /* jobs that threads have */
	struct gitfs_job *finished; /* gitfs->lock */
};

struct gitfs_job {
	struct gitfs_job *next;
	struct lane *lane;
	uint64_t done; /* bytes of the request */
	unsigned int iov; /* where the next byte goes */
	size_t in_iov;
	int err;
};

_Static_assert(sizeof(struct gitfs_job) <= XD_SCRATCH, "fits");

static struct gitfs_job *job_of(struct xd_request *req)
{
	return (struct gitfs_job *)(void *)req->scratch;
}

static struct xd_request *request_of(struct gitfs_job *job)
{
	return container_of((unsigned char *)job, struct xd_request, scratch);
}

/* --- Into the request's buffers ------------------------------------------------ */

/* Where the next bytes go, and how many of n have room there. */
static uint8_t *room_for(const struct gitfs_job *job, uint64_t n,
			 size_t *ret_part, const struct iovec *iov)
{
	*ret_part = (size_t)MIN(n, iov[job->iov].iov_len - job->in_iov);
	return (uint8_t *)iov[job->iov].iov_base + job->in_iov;
}

static void advance(struct gitfs_job *job, size_t n, const struct iovec *iov)
{
	job->done += n;
	job->in_iov += n;
	if (job->in_iov == iov[job->iov].iov_len) {
		job->iov++;
		job->in_iov = 0;
	}
}

/* bytes NULL: zeroes. */
static void put(struct gitfs_job *job, const uint8_t *bytes, uint64_t n)
{
	const struct iovec *iov = request_of(job)->iov;

	while (n > 0) {
		size_t part;
		uint8_t *to = room_for(job, n, &part, iov);

		if (bytes) {
			memcpy(to, bytes, part);
			bytes += part;
		} else {
			memset(to, 0, part);
		}
		n -= part;
		advance(job, part, iov);
	}
}

/* --- What needs no waiting ------------------------------------------------------- */

static void put_meta(const struct layout *layout, struct gitfs_job *job,
		     uint64_t offset, uint64_t n)
{
	const uint32_t unit = layout->ops->unit;
	uint8_t bytes[LAYOUT_UNIT_MAX];

	while (n > 0) {
		uint64_t at = offset % unit;
		uint64_t part = MIN(n, unit - at);

		layout->ops->meta(layout, offset / unit, bytes);
		put(job, bytes + at, part);
		offset += part;
		n -= part;
	}
}

static int put_folder(const struct gitfs *gitfs, struct gitfs_job *job,
		      const struct piece *piece)
{
	const struct layout *layout = gitfs->laid.layout;
	struct place place = { FOLDERS, piece->node };
	const struct object *folder = cache_get(gitfs->laid.cache, place);
	struct object *made;

	if (!folder) {
		made = object_new(0, gitfs->laid.tree.nodes[piece->node].size,
				  place);
		if (!made)
			return -ENOMEM;
		layout->ops->folder(layout, piece->node, object_bytes(made));
		folder = cache_add(gitfs->laid.cache, made);
	}
	put(job, folder->data + piece->at, piece->length);
	cache_put(gitfs->laid.cache, folder);
	return 0;
}

/* --- Files ------------------------------------------------------------------------ */

static struct place place_of(const struct vnode *node)
{
	return (struct place){ node->pack, node->at };
}

/* What was laid out by its header has to be that. */
static int put_object(const struct gitfs *gitfs, struct gitfs_job *job,
		      const struct piece *piece, const struct object *object)
{
	int r = 0;

	if (object->type == OBJECT_BLOB &&
	    object->size == gitfs->laid.tree.nodes[piece->node].size)
		put(job, object->data + piece->at, piece->length);
	else
		r = -EBADMSG;
	cache_put(gitfs->laid.cache, object);
	return r;
}

static int put_stream(struct gitfs_thread *thread, struct gitfs_job *job,
		      const struct piece *piece, const struct object_head *head)
{
	const struct gitfs *gitfs = thread->gitfs;
	const struct vnode *node = &gitfs->laid.tree.nodes[piece->node];
	cleanup_free uint8_t *buf = malloc(PIECE);
	int r = buf ? 0 : -ENOMEM;

	if (head->type != OBJECT_BLOB || head->size != node->size)
		return -EBADMSG;
	for (uint64_t at = 0; at < piece->length && r == 0; at += PIECE) {
		size_t n = (size_t)MIN(piece->length - at, PIECE);

		r = streams_read(thread->streams, place_of(node), head,
				 piece->at + at, buf, n, &gitfs->stop);
		if (r == 0)
			put(job, buf, n);
	}
	return r;
}

static int put_lfs(const struct gitfs *gitfs, struct gitfs_job *job,
		   const struct piece *piece)
{
	const struct vnode *node = &gitfs->laid.tree.nodes[piece->node];
	cleanup_free uint8_t *buf = malloc(PIECE);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < piece->length && r == 0; at += PIECE) {
		size_t n = (size_t)MIN(piece->length - at, PIECE);

		r = lfs_read(gitfs->lfs, node->at, piece->at + at, buf, n);
		if (r == 0)
			put(job, buf, n);
	}
	return r;
}

/* On a thread that may block. */
static int put_file(struct gitfs_thread *thread, struct gitfs_job *job,
		    const struct piece *piece)
{
	const struct gitfs *gitfs = thread->gitfs;
	struct place place = place_of(&gitfs->laid.tree.nodes[piece->node]);
	const struct object *object;
	struct object_head head;
	int r;

	if (thread->streams) {
		r = object_head(thread->reader, place, &head);
		if (r < 0)
			return r;
		if (head.type < OBJECT_OFS_DELTA)
			return put_stream(thread, job, piece, &head);
	}
	r = object_read(thread->reader, place, &object);
	return r < 0 ? r : put_object(gitfs, job, piece, object);
}

/* thread NULL: on the lane.  -EINPROGRESS: not here, see ret_queue. */
static int put_node(struct gitfs *gitfs, struct gitfs_thread *thread,
		    struct gitfs_job *job, const struct piece *piece,
		    enum gitfs_queue *ret_queue)
{
	const struct vnode *node = &gitfs->laid.tree.nodes[piece->node];
	const struct object *object;

	if (node->kind == VNODE_TEXT) {
		put(job,
		    (const uint8_t *)gitfs->laid.tree.names + node->at +
			    piece->at,
		    piece->length);
		return 0;
	}
	if (node->kind == VNODE_LFS) { /* nothing to inflate */
		*ret_queue = GITFS_SMALL;
		return thread && thread->queue == GITFS_SMALL ?
			       put_lfs(gitfs, job, piece) :
			       -EINPROGRESS;
	}
	*ret_queue = node->size > TREE_DISK_WHOLE ? GITFS_LARGE : GITFS_SMALL;
	object = cache_get(gitfs->laid.cache, place_of(node));
	if (object)
		return put_object(gitfs, job, piece, object);
	if (thread && thread->queue == *ret_queue)
		return put_file(thread, job, piece);
	return -EINPROGRESS;
}

/* What a guest has written: blocks, so only a thread does it. */
static int put_written(const struct gitfs *gitfs,
		       const struct gitfs_thread *thread, struct gitfs_job *job,
		       uint64_t offset, uint64_t n, enum gitfs_queue *ret_queue)
{
	const struct iovec *iov = request_of(job)->iov;
	int r = 0;

	*ret_queue = GITFS_SMALL;
	if (!thread)
		return -EINPROGRESS;
	while (n > 0 && r == 0) {
		size_t part;
		uint8_t *to = room_for(job, n, &part, iov);

		r = write_back_read(gitfs->write, offset, to, part);
		advance(job, part, iov);
		offset += part;
		n -= part;
	}
	return r;
}

/* Of that length, or of what is alike: was it written? */
static bool is_written(const struct gitfs *gitfs, uint64_t offset,
		       uint64_t *io_n)
{
	bool written = false;

	if (gitfs->write)
		*io_n = write_back_run(gitfs->write, offset, *io_n, &written);
	return written;
}

static int put_laid(struct gitfs *gitfs, struct gitfs_thread *thread,
		    struct gitfs_job *job, uint64_t offset, uint64_t n,
		    enum gitfs_queue *ret_queue)
{
	const struct layout *layout = gitfs->laid.layout;
	struct piece piece = layout->ops->find(layout, offset, n);

	switch (piece.kind) {
	case PIECE_META:
		put_meta(layout, job, offset, piece.length);
		return 0;
	case PIECE_ZERO:
		put(job, NULL, piece.length);
		return 0;
	case PIECE_FOLDER:
		return put_folder(gitfs, job, &piece);
	default:
		return put_node(gitfs, thread, job, &piece, ret_queue);
	}
}

/* As far as it goes. */
static int serve(struct gitfs *gitfs, struct gitfs_thread *thread,
		 struct gitfs_job *job, enum gitfs_queue *ret_queue)
{
	const struct xd_request *req = request_of(job);
	int r = 0;

	while (job->done < req->length && r == 0) {
		uint64_t offset = req->offset + job->done;
		uint64_t n = req->length - job->done;

		if (is_written(gitfs, offset, &n))
			r = put_written(gitfs, thread, job, offset, n,
					ret_queue);
		else
			r = put_laid(gitfs, thread, job, offset, n, ret_queue);
	}
	/* A guest that waits for memory is helped; for the rest there is no
	 * help. */
	return r == 0 || r == -EINPROGRESS || r == -ENOMEM ? r : -EIO;
}

/* --- Threads ------------------------------------------------------------------------ */

/* With the lock. */
static void enqueue(struct gitfs *gitfs, struct gitfs_job *job,
		    enum gitfs_queue queue)
{
	job->next = NULL;
	if (gitfs->first[queue])
		gitfs->last[queue]->next = job;
	else
		gitfs->first[queue] = job;
	gitfs->last[queue] = job;
	pthread_cond_broadcast(&gitfs->news);
}

static void give_back(struct gitfs_job *job)
{
	const uint64_t one = 1;

	job->next = job->lane->finished;
	job->lane->finished = job;
	/* Full means that it is awake. */
	(void)!write(job->lane->wake, &one, sizeof(one));
}

/* With the lock: the next one that this thread may do. */
static struct gitfs_job *take(struct gitfs_thread *thread)
{
	struct gitfs *gitfs = thread->gitfs;
	struct gitfs_job **first = &gitfs->first[thread->queue];
	struct gitfs_job *job = *first;

	if (thread->queue == GITFS_CHANGES) {
		if (gitfs->held)
			return NULL;
		gitfs->changing += !!job;
	}
	if (job)
		*first = job->next;
	return job;
}

/* With the lock: a change is done. */
static void end_change(struct gitfs *gitfs)
{
	if (--gitfs->changing == 0 && gitfs->held)
		pthread_cond_broadcast(&gitfs->news);
}

static void *run(void *arg)
{
	struct gitfs_thread *thread = arg;
	struct gitfs *gitfs = thread->gitfs;
	enum gitfs_queue queue = thread->queue;
	bool changes = queue == GITFS_CHANGES;
	struct gitfs_job *job;

	pthread_mutex_lock(&gitfs->lock);
	while (!atomic_load(&gitfs->stop)) {
		job = take(thread);
		if (!job) {
			pthread_cond_wait(&gitfs->news, &gitfs->lock);
			continue;
		}
		pthread_mutex_unlock(&gitfs->lock);
		job->err = changes ? write_back_change(gitfs->write,
						       request_of(job)) :
				     serve(gitfs, thread, job, &queue);
		pthread_mutex_lock(&gitfs->lock);
		if (changes)
			end_change(gitfs);
		if (job->err == -EINPROGRESS)
			enqueue(gitfs, job, queue);
		else
			give_back(job);
	}
	pthread_mutex_unlock(&gitfs->lock);
	return NULL;
}

void gitfs_hold(struct gitfs *gitfs)
{
	pthread_mutex_lock(&gitfs->lock);
	gitfs->held = true;
	while (gitfs->changing > 0)
		pthread_cond_wait(&gitfs->news, &gitfs->lock);
	pthread_mutex_unlock(&gitfs->lock);
}

void gitfs_release(struct gitfs *gitfs)
{
	pthread_mutex_lock(&gitfs->lock);
	gitfs->held = false;
	pthread_cond_broadcast(&gitfs->news);
	pthread_mutex_unlock(&gitfs->lock);
}

static void stop_threads(struct gitfs *gitfs)
{
	pthread_mutex_lock(&gitfs->lock);
	atomic_store(&gitfs->stop, true);
	pthread_cond_broadcast(&gitfs->news);
	pthread_mutex_unlock(&gitfs->lock);
	while (gitfs->nr_threads > 0) {
		struct gitfs_thread *thread =
			&gitfs->threads[--gitfs->nr_threads];

		(void)pthread_join(thread->thread, NULL);
		streams_free(TAKE_PTR(thread->streams));
		reader_free(TAKE_PTR(thread->reader));
	}
}

static int start_thread(struct gitfs *gitfs, enum gitfs_queue queue)
{
	struct gitfs_thread *thread = &gitfs->threads[gitfs->nr_threads];
	int r;

	*thread = (struct gitfs_thread){ .gitfs = gitfs, .queue = queue };
	r = reader_new(&thread->reader, gitfs->laid.odb, gitfs->laid.cache);
	if (r == 0 && queue == GITFS_LARGE)
		r = streams_new(&thread->streams, gitfs->laid.odb);
	if (r == 0)
		r = -pthread_create(&thread->thread, NULL, run, thread);
	if (r < 0) {
		streams_free(TAKE_PTR(thread->streams));
		reader_free(TAKE_PTR(thread->reader));
		return r;
	}
	gitfs->nr_threads++;
	return 0;
}

static int start_threads(struct gitfs *gitfs)
{
	static const enum gitfs_queue queues[GITFS_THREADS] = {
		GITFS_LARGE,   GITFS_SMALL,   GITFS_SMALL,
		GITFS_CHANGES, GITFS_CHANGES,
	};
	int r = 0;

	atomic_store(&gitfs->stop, false);
	for (unsigned int i = 0; i < GITFS_THREADS && r == 0; i++)
		if (gitfs->write || queues[i] != GITFS_CHANGES)
			r = start_thread(gitfs, queues[i]);
	if (r < 0)
		stop_threads(gitfs);
	return r;
}

/* --- The lane ------------------------------------------------------------------------ */

static void on_wake(struct xd_sys *sys, int64_t res);

static void arm(struct lane *lane)
{
	lane->poll = (struct xd_sys){ .op = XD_SYS_POLL,
				      .fd = lane->wake,
				      .flags = POLLIN,
				      .done = on_wake };
	lane->armed = true;
	xd_sys(lane->ch, &lane->poll);
}

static void complete_finished(struct lane *lane)
{
	struct gitfs_job *job, *next;

	pthread_mutex_lock(&lane->gitfs->lock);
	job = TAKE_PTR(lane->finished);
	pthread_mutex_unlock(&lane->gitfs->lock);
	for (; job; job = next) {
		next = job->next;
		lane->waiting--;
		xd_complete(request_of(job), job->err);
	}
}

static void on_wake(struct xd_sys *sys, int64_t res)
{
	struct lane *lane = container_of(sys, struct lane, poll);
	uint64_t count;

	lane->armed = false;
	lane->ending |= res == -ECANCELED; /* the channel closes */
	if (res != -ECANCELED) {
		(void)!read(lane->wake, &count, sizeof(count));
		complete_finished(lane);
	}
	if (!lane->ending || lane->waiting > 0)
		arm(lane);
}

void gitfs_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct gitfs *gitfs = ch->disk->data;
	struct gitfs_job *job = job_of(req);
	enum gitfs_queue queue = GITFS_CHANGES;
	int r = -EINPROGRESS;

	*job = (struct gitfs_job){ .lane = ch->data };
	if (req->op == XD_READ)
		r = serve(gitfs, NULL, job, &queue);
	if (r != -EINPROGRESS) {
		xd_complete(req, r);
		return;
	}
	job->lane->waiting++;
	if (!job->lane->armed)
		arm(job->lane);
	pthread_mutex_lock(&gitfs->lock);
	enqueue(gitfs, job, queue);
	pthread_mutex_unlock(&gitfs->lock);
}

int gitfs_channel_open(struct xd_channel *ch)
{
	struct gitfs *gitfs = ch->disk->data;
	struct lane *lane = calloc(1, sizeof(*lane));
	int r = 0;

	if (!lane)
		return -ENOMEM;
	if (gitfs->channels == 0)
		r = start_threads(gitfs);
	if (r < 0) {
		free(lane);
		return r;
	}
	gitfs->channels++;
	*lane = (struct lane){ .ch = ch,
			       .gitfs = gitfs,
			       .wake = gitfs->wake[ch->lane] };
	ch->data = lane;
	arm(lane);
	return 0;
}

/* No request is there any more. */
void gitfs_channel_close(struct xd_channel *ch)
{
	struct gitfs *gitfs = ch->disk->data;

	if (--gitfs->channels == 0)
		stop_threads(gitfs);
	free(ch->data);
}
