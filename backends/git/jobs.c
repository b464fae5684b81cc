/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * jobs.c - threads that may wait for a disk, inflate, and ask the committer.
 *
 * A job is in one hand at a time: a lane's, the queue's, a thread's.  It comes back
 * to its lane, which an eventfd wakes.
 */
#include "config.h"

#include <signal.h>
#include <string.h>

#include "common/util.h"
#include "git.h"

void git_cursor_put(struct git_cursor *cursor, const uint8_t *bytes, uint64_t n)
{
	while (n > 0) {
		const struct iovec *iov = cursor->iov;
		size_t part = (size_t)MIN(n, iov->iov_len - cursor->skip);
		uint8_t *to = (uint8_t *)iov->iov_base + cursor->skip;

		if (bytes) {
			memcpy(to, bytes, part);
			bytes += part;
		} else {
			memset(to, 0, part);
		}
		n -= part;
		cursor->skip += part;
		if (cursor->skip == iov->iov_len) {
			cursor->iov++;
			cursor->skip = 0;
		}
	}
}

void git_jobs_init(struct git_jobs *jobs)
{
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->news, NULL);
}

void git_jobs_destroy(struct git_jobs *jobs)
{
	pthread_cond_destroy(&jobs->news);
	pthread_mutex_destroy(&jobs->lock);
}

static void give_back(struct git_job *job)
{
	const uint64_t one = 1;
	bool awake = job->lane->finished;

	job->next = job->lane->finished;
	job->lane->finished = job;
	/* Full means that it is awake, too. */
	if (!awake)
		(void)!write(job->lane->wake, &one, sizeof(one));
}

static void note_bad(struct git_jobs *jobs, const char *reason)
{
	pthread_mutex_lock(&jobs->lock);
	if (!*jobs->bad)
		(void)snprintf(jobs->bad, sizeof(jobs->bad), "%s", reason);
	pthread_mutex_unlock(&jobs->lock);
}

/* Where all of the chunk is to go, if that is one place. */
static uint8_t *whole_place(const struct git_job *job)
{
	const struct iovec *iov = job->to.iov;
	uint8_t *start;
	size_t have;

	if (job->from != 0 ||
	    job->length != git_disk_bytes(base_disk(job->base), job->chunk))
		return NULL;
	start = (uint8_t *)iov->iov_base + job->to.skip;
	have = iov->iov_len - job->to.skip;
	while (have < job->length) {
		iov++;
		if (iov->iov_base != start + have)
			return NULL;
		have += iov->iov_len;
	}
	return start;
}

static void carry_out(struct git_jobs *jobs, struct base_reader *reader,
		      struct git_job *job)
{
	const struct object *object = NULL;
	char reason[WHY_MAX] = "";
	int r = base_fetch(job->base, reader, job->chunk, whole_place(job),
			   &object, reason);

	job->err = MIN(r, 0);
	if (job->err == -EIO)
		note_bad(jobs, reason);
	job->put = r > 0 || (object && job->length > 0);
	if (r == 0 && job->put)
		git_cursor_put(&job->to, object->data + job->from, job->length);
	if (object)
		base_uncache(job->base, object);
}

struct thread_start {
	struct git_jobs *jobs;
	struct base_reader *reader;
};

static void *run(void *arg)
{
	struct thread_start start = *(struct thread_start *)arg;
	struct git_jobs *jobs = start.jobs;
	struct git_job *job;
	struct base *base;
	uint64_t chunk;

	free(arg);
	pthread_mutex_lock(&jobs->lock);
	while (!jobs->stop) {
		job = jobs->first;
		if (!job) {
			pthread_cond_wait(&jobs->news, &jobs->lock);
			continue;
		}
		jobs->first = job->next;
		pthread_mutex_unlock(&jobs->lock);
		carry_out(jobs, start.reader, job);
		base = base_get(job->base);
		chunk = job->chunk;
		pthread_mutex_lock(&jobs->lock);
		give_back(job);
		pthread_mutex_unlock(&jobs->lock);
		base_look_ahead(base, start.reader, chunk + 1);
		base_put(base);
		pthread_mutex_lock(&jobs->lock);
	}
	pthread_mutex_unlock(&jobs->lock);
	base_reader_free(start.reader);
	return NULL;
}

/* Signals are the main thread's. */
static int start_thread(struct git_jobs *jobs, struct thread_start *start)
{
	sigset_t all, saved;
	int r;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &saved);
	r = -pthread_create(&jobs->threads[jobs->nr], NULL, run, start);
	(void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (r == 0)
		jobs->nr++;
	return r;
}

int git_jobs_run(struct git *git)
{
	struct git_jobs *jobs = &git->jobs;
	int r = 0;

	jobs->stop = false;
	while (r == 0 && jobs->nr < GIT_THREADS) {
		struct thread_start *start = calloc(1, sizeof(*start));

		if (start)
			start->jobs = jobs;
		r = start ? base_reader_new(&start->reader, &jobs->asker) :
			    -ENOMEM;
		if (r == 0)
			r = start_thread(jobs, start);
		if (r < 0 && start) {
			base_reader_free(start->reader);
			free(start);
		}
	}
	if (r < 0)
		git_jobs_stop(git);
	return r;
}

void git_jobs_stop(struct git *git)
{
	struct git_jobs *jobs = &git->jobs;

	pthread_mutex_lock(&jobs->lock);
	jobs->stop = true;
	pthread_cond_broadcast(&jobs->news);
	pthread_mutex_unlock(&jobs->lock);
	while (jobs->nr > 0)
		(void)pthread_join(jobs->threads[--jobs->nr], NULL);
}

void git_job_start(struct git_job *job)
{
	struct git_jobs *jobs = &job->lane->git->jobs;

	job->next = NULL;
	pthread_mutex_lock(&jobs->lock);
	if (jobs->first)
		jobs->last->next = job;
	else
		jobs->first = job;
	jobs->last = job;
	pthread_cond_signal(&jobs->news);
	pthread_mutex_unlock(&jobs->lock);
}

void git_jobs_finish(struct git_lane *lane)
{
	struct git_jobs *jobs = &lane->git->jobs;
	struct git_job *job, *next;

	pthread_mutex_lock(&jobs->lock);
	job = TAKE_PTR(lane->finished);
	pthread_mutex_unlock(&jobs->lock);
	for (; job; job = next) {
		next = job->next;
		job->done(job);
	}
}
