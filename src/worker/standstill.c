/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/standstill.h"

void standstill_init(struct standstill *still)
{
	atomic_store(&still->wanted, false);
	(void)pthread_mutex_init(&still->lock, NULL);
	(void)pthread_cond_init(&still->news, NULL);
	still->standing = 0;
}

void standstill_destroy(struct standstill *still)
{
	(void)pthread_cond_destroy(&still->news);
	(void)pthread_mutex_destroy(&still->lock);
}

static void set_wanted(struct standstill *still, bool wanted)
{
	(void)pthread_mutex_lock(&still->lock);
	atomic_store(&still->wanted, wanted);
	(void)pthread_cond_broadcast(&still->news);
	(void)pthread_mutex_unlock(&still->lock);
}

void standstill_want(struct standstill *still)
{
	set_wanted(still, true);
}

void standstill_wait(struct standstill *still, unsigned int nr)
{
	(void)pthread_mutex_lock(&still->lock);
	while (still->standing < nr)
		(void)pthread_cond_wait(&still->news, &still->lock);
	(void)pthread_mutex_unlock(&still->lock);
}

/* Returns when all have gone on: the next standstill counts from 0. */
void standstill_end(struct standstill *still)
{
	set_wanted(still, false);
	(void)pthread_mutex_lock(&still->lock);
	while (still->standing > 0)
		(void)pthread_cond_wait(&still->news, &still->lock);
	(void)pthread_mutex_unlock(&still->lock);
}

void standstill_stand(struct standstill *still)
{
	(void)pthread_mutex_lock(&still->lock);
	still->standing++;
	(void)pthread_cond_broadcast(&still->news);
	while (atomic_load(&still->wanted))
		(void)pthread_cond_wait(&still->news, &still->lock);
	still->standing--;
	(void)pthread_cond_broadcast(&still->news);
	(void)pthread_mutex_unlock(&still->lock);
}
