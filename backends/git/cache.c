/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cache.c - objects that were read, by their place.
 *
 * One list, the most recently used in front, and a table of chains over it.
 * What somebody uses is never freed, though it may leave the cache.  A lock
 * around all of it: nothing takes long in here.
 */
#include "config.h"

#include <pthread.h>
#include <utlist.h>

#include "common/util.h"
#include "odb.h"

#define BUCKET_BITS 14 /* small files, and the cache holds ten thousands */
#define OVERHEAD    (sizeof(struct object) + 32) /* and malloc()'s */

struct cache {
	pthread_mutex_t lock;
	uint64_t most; /* bytes */
	uint64_t bytes;
	struct object *used; /* the most recently used first */
	struct object *bucket[1u << BUCKET_BITS];
};

int cache_new(struct cache **ret, uint64_t bytes)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	pthread_mutex_init(&cache->lock, NULL);
	cache->most = bytes;
	*ret = cache;
	return 0;
}

struct object *object_new(enum object_type type, uint64_t size,
			  struct place place)
{
	struct object *object = NULL;

	if (size < SIZE_MAX - sizeof(*object) - 1)
		object = malloc(sizeof(*object) + (size_t)size + 1);
	if (object)
		*object = (struct object){ .type = type,
					   .size = size,
					   .data = object_bytes(object),
					   .place = place };
	return object;
}

static struct object **bucket_of(struct cache *cache, struct place place)
{
	uint64_t h =
		(place.at ^ (uint64_t)place.pack << 48) * 0x9e3779b97f4a7c15u;

	return &cache->bucket[h >> (64 - BUCKET_BITS)];
}

static bool is_at(const struct object *object, struct place place)
{
	return object->place.at == place.at && object->place.pack == place.pack;
}

/* With the lock.  The cache is a user, too. */
static void drop(struct object *object)
{
	if (--object->users == 0)
		free(object);
}

static void evict(struct cache *cache, struct object *object)
{
	struct object **p = bucket_of(cache, object->place);

	while (*p != object)
		p = &(*p)->chained;
	*p = object->chained;
	DL_DELETE(cache->used, object);
	cache->bytes -= object->size + OVERHEAD;
	drop(object);
}

static struct object *find(struct cache *cache, struct place place)
{
	struct object *object = *bucket_of(cache, place);

	while (object && !is_at(object, place))
		object = object->chained;
	return object;
}

const struct object *cache_get(struct cache *cache, struct place place)
{
	struct object *object;

	pthread_mutex_lock(&cache->lock);
	object = find(cache, place);
	if (object) {
		object->users++;
		DL_DELETE(cache->used, object);
		DL_PREPEND(cache->used, object);
	}
	pthread_mutex_unlock(&cache->lock);
	return object;
}

const struct object *cache_add(struct cache *cache, struct object *object)
{
	struct object **bucket = bucket_of(cache, object->place);
	struct object *other;

	pthread_mutex_lock(&cache->lock);
	/* Two may have read the same. */
	other = find(cache, object->place);
	if (other)
		evict(cache, other);
	while (cache->used &&
	       cache->bytes + object->size + OVERHEAD > cache->most)
		evict(cache, cache->used->prev);
	object->users = 2;
	object->chained = *bucket;
	*bucket = object;
	DL_PREPEND(cache->used, object);
	cache->bytes += object->size + OVERHEAD;
	pthread_mutex_unlock(&cache->lock);
	return object;
}

void cache_put(struct cache *cache, const struct object *object)
{
	if (!object)
		return;
	pthread_mutex_lock(&cache->lock);
	/* Users only read it, but it was made here. */
	drop((struct object *)(uintptr_t)object);
	pthread_mutex_unlock(&cache->lock);
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	while (cache->used)
		evict(cache, cache->used);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}
