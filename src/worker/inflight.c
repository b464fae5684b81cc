/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inflight.c - so that kill -9 loses nothing.
 *
 * Theory of operation
 *
 * On a blkif ring a response is written over a request before rsp_prod tells
 * the guest so.  A backend that dies in between leaves a ring from which the
 * request is gone and on which the response is not there: no order of answers
 * helps.  So each request is copied off the ring straight into this log, and
 * its entry becomes free again only after rsp_prod has passed its response.
 *
 * SIGKILL takes effect between two instructions: of the stores that a thread
 * makes in program order, a dead worker has made the first n.  (A power failure
 * kills the guest as well; the file is on tmpfs.)  So the order of the stores
 * is all that counts, and the compiler must keep it: each store that changes
 * what the log says is a release.  For any n this holds:
 *
 *   - an entry that is TAKEN and whose req_index is below req_cons has no
 *     answer that the guest can see;
 *   - one at or above req_cons is still intact on the ring: it is forgotten,
 *     and fetched again;
 *   - RESPONDING entries from cursor.rsp_prod on number the next responses
 *     without a hole.  Those below the ring's rsp_prod are published (the store
 *     to rsp_prod is the commit), the others have to be, with the status
 *     written here: the I/O is done;
 *   - what is taken and not published is req_cons - rsp_prod, exactly.
 *
 * The last one is what catches a log that was tampered with or torn.
 *
 * A request may stay in flight while any number of others pass it, so the
 * distance between req_index and req_cons has no limit, and the entries are
 * not in the order of the ring.
 */
#include "worker/inflight.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/crash.h"
#include "common/util.h"

#define INFLIGHT_MAGIC	 0x676f4c736b694458ull /* "XDiskLog" */
#define INFLIGHT_VERSION 1u

struct inflight_header {
	uint64_t magic; /* 0: nothing is in flight */
	uint32_t version;
	uint32_t entry_bytes;
	struct inflight_id id;
	uint32_t notes; /* of enum inflight_note */
};

#define CURSORS_BYTES (XD_MAX_RINGS * sizeof(struct inflight_cursor))
#define CURSORS_AT    (INFLIGHT_HEAD_BYTES - CURSORS_BYTES)

static_assert(sizeof(struct inflight_entry) == INFLIGHT_ENTRY_BYTES, "entry");
static_assert(sizeof(struct inflight_header) <= CURSORS_AT, "header");

struct inflight {
	int fd;
	uint8_t *map;
};

#define STORE(lvalue, value) \
	__atomic_store_n(&(lvalue), (value), __ATOMIC_RELEASE)

int inflight_open(struct inflight **ret, int fd)
{
	cleanup_close int owned = fd;
	cleanup_free struct inflight *log = calloc(1, sizeof(*log));
	struct stat st;
	void *map;

	if (!log)
		return -ENOMEM;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < INFLIGHT_BYTES)
		return -EPROTO;
	map = mmap(NULL, INFLIGHT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0);
	if (map == MAP_FAILED)
		return -errno;
	log->fd = TAKE_FD(owned);
	log->map = map;
	*ret = TAKE_PTR(log);
	return 0;
}

void inflight_free(struct inflight *log)
{
	if (!log)
		return;
	(void)munmap(log->map, INFLIGHT_BYTES);
	(void)close(log->fd);
	free(log);
}

static struct inflight_header *header(struct inflight *log)
{
	return (struct inflight_header *)(void *)log->map;
}

/* Where a ring's entries begin: at the same place whatever nr_slots is. */
static size_t entries_at(unsigned int ring)
{
	return INFLIGHT_HEAD_BYTES +
	       (size_t)ring * INFLIGHT_MAX_SLOTS * INFLIGHT_ENTRY_BYTES;
}

struct inflight_ring inflight_ring(struct inflight *log, unsigned int ring)
{
	uint8_t *cursors = log->map + CURSORS_AT;

	return (struct inflight_ring){
		.entries = (void *)(log->map + entries_at(ring)),
		.cursor = (struct inflight_cursor *)(void *)cursors + ring,
		.nr_slots = header(log)->id.nr_slots,
	};
}

int inflight_reserve(const struct inflight *log, unsigned int nr_rings,
		     uint32_t nr_slots)
{
	int r = reserve_room(log->fd, 0, INFLIGHT_HEAD_BYTES);

	for (unsigned int i = 0; r == 0 && i < nr_rings; i++)
		r = reserve_room(log->fd, entries_at(i),
				 (uint64_t)nr_slots * INFLIGHT_ENTRY_BYTES);
	return r;
}

void inflight_clear(struct inflight *log)
{
	STORE(header(log)->magic, 0);
}

void inflight_outlived(struct inflight *log, unsigned int nr_rings)
{
	for (unsigned int i = 0; i < nr_rings; i++) {
		struct inflight_ring ring = inflight_ring(log, i);

		for (uint32_t n = 0; n < ring.nr_slots; n++)
			STORE(ring.entries[n].tries, 0);
	}
}

bool inflight_left_failure(const struct inflight *log,
			   const struct inflight_id *id)
{
	struct inflight_header head;

	return pread_all(log->fd, &head, sizeof(head), 0) == 0 &&
	       head.magic == INFLIGHT_MAGIC &&
	       head.version == INFLIGHT_VERSION &&
	       head.id.storage == id->storage &&
	       head.notes & INFLIGHT_FLUSH_FAILED;
}

bool inflight_has_rings(const struct inflight *log)
{
	struct inflight_header head;

	/* What cannot be read may be anything. */
	return pread_all(log->fd, &head, sizeof(head), 0) < 0 ||
	       (head.magic == INFLIGHT_MAGIC && head.id.nr_rings > 0);
}

void inflight_start(struct inflight *log, const struct inflight_id *id,
		    const uint32_t *rsp_prod)
{
	struct inflight_header *head = header(log);
	bool failed = inflight_left_failure(log, id);
	struct inflight_id none = *id;

	none.nr_rings = 0;
	/* A worker that dies in here must not leave the failure forgotten.  Until the
	 * end this is a log without a ring. */
	if (failed)
		STORE(head->id.nr_rings, 0);
	else
		inflight_clear(log);
	atomic_signal_fence(memory_order_seq_cst);
	head->version = INFLIGHT_VERSION;
	head->entry_bytes = INFLIGHT_ENTRY_BYTES;
	head->id = none;
	head->notes = failed ? INFLIGHT_FLUSH_FAILED : 0;
	for (unsigned int i = 0; i < id->nr_rings; i++) {
		struct inflight_ring ring = inflight_ring(log, i);

		for (uint32_t n = 0; n < id->nr_slots; n++)
			ring.entries[n].state = INFLIGHT_FREE;
		ring.cursor->req_cons = rsp_prod[i];
		ring.cursor->rsp_prod = rsp_prod[i];
	}
	STORE(head->id.nr_rings, id->nr_rings);
	STORE(head->magic, INFLIGHT_MAGIC);
}

void inflight_note(struct inflight *log, enum inflight_note note, bool holds)
{
	uint32_t *notes = &header(log)->notes;

	if (holds)
		(void)__atomic_fetch_or(notes, note, __ATOMIC_SEQ_CST);
	else
		(void)__atomic_fetch_and(notes, ~(uint32_t)note,
					 __ATOMIC_SEQ_CST);
}

void inflight_take(struct inflight_ring *log, uint32_t entry,
		   uint32_t req_index)
{
	struct inflight_entry *e = &log->entries[entry];

	e->req_index = req_index;
	e->tries = 1;
	e->begun = 0;
	STORE(e->state, INFLIGHT_TAKEN);
}

void inflight_taken(struct inflight_ring *log, uint32_t req_cons)
{
	STORE(log->cursor->req_cons, req_cons);
}

void inflight_begin(struct inflight_ring *log, uint32_t entry)
{
	STORE(log->entries[entry].begun, 1);
}

void inflight_answer(struct inflight_ring *log, uint32_t entry,
		     uint32_t rsp_index, int16_t status)
{
	struct inflight_entry *e = &log->entries[entry];

	e->rsp_index = rsp_index;
	e->status = status;
	STORE(e->state, INFLIGHT_RESPONDING);
}

void inflight_published(struct inflight_ring *log, uint32_t rsp_prod)
{
	STORE(log->cursor->rsp_prod, rsp_prod);
}

void inflight_done(struct inflight_ring *log, uint32_t entry)
{
	STORE(log->entries[entry].state, INFLIGHT_FREE);
}

/* --- After a worker has died --------------------------------------------- */

static int check_header(const struct inflight_header *head,
			const struct inflight_id *id, char *ret_why)
{
	if (head->magic == 0)
		return msg_why(ret_why, -ENOENT, "nothing was in flight");
	if (head->magic != INFLIGHT_MAGIC)
		return msg_why(ret_why, -EPROTO,
			       "the in-flight log is not one");
	if (head->version != INFLIGHT_VERSION ||
	    head->entry_bytes != INFLIGHT_ENTRY_BYTES)
		return msg_why(ret_why, -EPROTO,
			       "the in-flight log has version %u, not %u",
			       head->version, INFLIGHT_VERSION);
	if (memcmp(&head->id, id, offsetof(struct inflight_id, storage)))
		return msg_why(
			ret_why, -ESTALE,
			"the in-flight log belongs to another connection");
	if (head->id.storage != id->storage)
		return msg_why(ret_why, -EXDEV,
			       "this is not the storage that the guest was "
			       "connected to: another file, or another device");
	return 0;
}

int inflight_load(const struct inflight *log, const struct inflight_id *id,
		  struct inflight_image **ret, char *ret_why)
{
	size_t bytes = (size_t)id->nr_slots * INFLIGHT_ENTRY_BYTES;
	cleanup_free struct inflight_image *image = NULL;
	struct inflight_header head;
	int r;

	r = pread_all(log->fd, &head, sizeof(head), 0);
	if (r)
		return msg_why(ret_why, r, "the in-flight log cannot be read");
	r = check_header(&head, id, ret_why);
	if (r)
		return r;
	image = calloc(1, sizeof(*image) + id->nr_rings * bytes);
	if (!image)
		return msg_why(ret_why, -ENOMEM, "no memory");
	image->notes = head.notes;
	r = pread_all(log->fd, image->cursor, sizeof(image->cursor),
		      CURSORS_AT);
	for (unsigned int i = 0; !r && i < id->nr_rings; i++)
		r = pread_all(log->fd,
			      image->entries + (size_t)i * id->nr_slots, bytes,
			      entries_at(i));
	if (r)
		return msg_why(ret_why, r, "the in-flight log cannot be read");
	*ret = TAKE_PTR(image);
	return 0;
}

/* Where each entry stands; counts, and fills in publish[]. */
static int sort_out(const struct inflight_entry *entries, uint32_t nr_slots,
		    const struct inflight_cursor *cursor, uint32_t rsp_prod,
		    struct inflight_plan *plan)
{
	uint32_t published = rsp_prod - cursor->rsp_prod;
	uint32_t responding = 0;
	uint64_t seen[INFLIGHT_MAX_SLOTS / 64] = { 0 };

	for (uint32_t i = 0; i < nr_slots; i++) {
		const struct inflight_entry *e = &entries[i];
		uint32_t d = e->rsp_index - cursor->rsp_prod;

		if (e->state > INFLIGHT_RESPONDING)
			return -EPROTO;
		if (e->state == INFLIGHT_TAKEN &&
		    e->req_index - cursor->req_cons >= nr_slots)
			plan->replay[plan->nr_replay++] = (uint16_t)i;
		if (e->state != INFLIGHT_RESPONDING || d >= nr_slots)
			continue;
		if (seen[d / 64] >> d % 64 & 1)
			return -EPROTO;
		seen[d / 64] |= 1ull << d % 64;
		responding++;
		if (d >= published) {
			plan->publish[d - published] = (uint16_t)i;
			plan->nr_publish++;
		}
	}
	if (published > responding)
		return -EPROTO;
	for (uint32_t d = 0; d < responding; d++)
		if (!(seen[d / 64] >> d % 64 & 1))
			return -EPROTO;
	return 0;
}

/* The oldest first: how far behind req_cons it is. */
static int sort_replay(const struct inflight_entry *entries,
		       struct inflight_plan *plan)
{
	uint16_t *list = plan->replay;

	/* Nearly sorted or short; at most 512. */
	for (uint32_t i = 1; i < plan->nr_replay; i++) {
		uint16_t entry = list[i];
		uint32_t age = plan->req_cons - entries[entry].req_index;
		uint32_t at = i;

		while (at > 0 &&
		       plan->req_cons - entries[list[at - 1]].req_index < age) {
			list[at] = list[at - 1];
			at--;
		}
		list[at] = entry;
	}
	for (uint32_t i = 1; i < plan->nr_replay; i++)
		if (entries[list[i]].req_index ==
		    entries[list[i - 1]].req_index)
			return -EPROTO;
	return 0;
}

int inflight_plan(const struct inflight_entry *entries, uint32_t nr_slots,
		  const struct inflight_cursor *cursor, uint32_t rsp_prod,
		  struct inflight_plan *ret)
{
	struct inflight_plan plan = { .req_cons = cursor->req_cons };
	int r;

	assert(nr_slots <= INFLIGHT_MAX_SLOTS);
	if (rsp_prod - cursor->rsp_prod > nr_slots)
		return -EPROTO;
	r = sort_out(entries, nr_slots, cursor, rsp_prod, &plan);
	if (r)
		return r;
	if (plan.nr_replay + plan.nr_publish != plan.req_cons - rsp_prod)
		return -EPROTO;
	r = sort_replay(entries, &plan);
	if (r)
		return r;
	*ret = plan;
	return 0;
}

void inflight_adopt(struct inflight_ring *log,
		    const struct inflight_entry *entries,
		    const struct inflight_plan *plan, uint32_t rsp_prod)
{
	uint64_t keep[INFLIGHT_MAX_SLOTS / 64] = { 0 };

	for (uint32_t i = 0; i < plan->nr_publish + plan->nr_replay; i++) {
		uint16_t entry = i < plan->nr_publish ?
					 plan->publish[i] :
					 plan->replay[i - plan->nr_publish];

		/* The same bytes over themselves, unless somebody changed them
		 * since they were checked. */
		log->entries[entry] = entries[entry];
		keep[entry / 64] |= 1ull << entry % 64;
		CRASH_POINT(entry_adopted);
	}
	log->cursor->req_cons = plan->req_cons;
	/* First: else a published entry would be missing below rsp_prod. */
	inflight_published(log, rsp_prod);
	CRASH_POINT(cursor_adopted);
	for (uint32_t i = 0; i < log->nr_slots; i++)
		if (!(keep[i / 64] >> i % 64 & 1))
			inflight_done(log, i);
}

bool inflight_try(struct inflight_ring *log, uint32_t entry)
{
	uint8_t tries = log->entries[entry].tries;

	if (tries >= INFLIGHT_MAX_TRIES)
		return false;
	STORE(log->entries[entry].tries, (uint8_t)(tries + 1));
	return true;
}
