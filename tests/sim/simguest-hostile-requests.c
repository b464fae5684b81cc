/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that are wrong in one field, with wrong grants, or at random.
 *
 * The start of the disk holds a pattern that every refused request aims at, and
 * the guest's pages hold canaries: what was refused must change neither.
 */
#include "config.h"

#include "simguest-hostile.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PATTERN_SECTORS 1024u /* refused requests aim at these */
#define SCRATCH_SECTOR	2048u /* those that are in order, at these */
#define PATTERN		0x5a
#define CANARY		0xee
#define ROUNDS		3 /* each has its bad segment elsewhere */
#define ANY_STATUS	INT16_MAX

/* Which page a segment, or the list, is granted from. */
enum page {
	GOOD,
	ZERO, /* reference 0 */
	ENDED, /* a reference that was taken back */
	HUGE, /* 2^32 - 1 */
	READONLY,
	OTHER, /* granted to another domain */
	RING, /* the ring's own */
	LIST, /* the page of the list */
	SAME, /* all segments the same one */
	NR_PAGES
};

enum where { HERE, FROM_END, SCRATCH };

/* A segment is spoilt when it differs from the whole page. */
struct malformed {
	const char *what;
	int16_t status;
	uint8_t op;
	uint8_t inner; /* of an indirect request */
	uint16_t segments;
	uint8_t first, last; /* of one of them */
	enum where where;
	uint64_t sector;
	uint64_t sectors; /* discard */
	uint8_t flag;
	enum page data; /* of one segment */
	enum page list;
};

#define ERR	BLKIF_RSP_ERROR
#define UNSUPP	BLKIF_RSP_EOPNOTSUPP
#define OKAY	BLKIF_RSP_OKAY
#define RD	BLKIF_OP_READ
#define WR	BLKIF_OP_WRITE
#define BAR	BLKIF_OP_WRITE_BARRIER
#define FLU	BLKIF_OP_FLUSH_DISKCACHE
#define DIS	BLKIF_OP_DISCARD
#define INDIR	BLKIF_OP_INDIRECT
#define MAX_SEC UINT64_MAX

static const struct malformed table[] = {
	{ "read of no segment", ERR, RD, .segments = 0 },
	{ "write of no segment", ERR, WR, .segments = 0 },
	{ "read of 12 segments", ERR, RD, .segments = 12 },
	{ "write of 12 segments", ERR, WR, .segments = 12 },
	{ "read of 255 segments", ERR, RD, .segments = 255 },
	{ "write of 255 segments", ERR, WR, .segments = 255 },
	{ "barrier of 12 segments", ERR, BAR, .segments = 12 },
	{ "flush of 12 segments", ERR, FLU, .segments = 12 },
	{ "segment that ends before it begins", ERR, WR, .segments = 3,
	  .first = 5, .last = 4 },
	{ "segment from 7 to 0", ERR, RD, .segments = 11, .first = 7 },
	{ "segment that ends at sector 8", ERR, WR, .segments = 11, .last = 8 },
	{ "segment that ends at sector 255", ERR, RD, .segments = 1,
	  .last = 255 },
	{ "segment of sector 8 alone", ERR, WR, .segments = 2, .first = 8,
	  .last = 8 },
	{ "segment of sector 255 alone", ERR, RD, .segments = 2, .first = 255,
	  .last = 255 },
	{ "read at the end", ERR, RD, .segments = 1, .last = 7, FROM_END },
	{ "write over the end", ERR, WR, .segments = 1, .last = 7, FROM_END,
	  (uint64_t)-7 },
	{ "read far beyond the end", ERR, RD, .segments = 1, .last = 7,
	  .sector = 1ull << 40 },
	{ "write at sector 2^55, a byte offset of 0", ERR, WR, .segments = 1,
	  .last = 7, .sector = 1ull << 55 },
	{ "write at sector 2^63", ERR, WR, .segments = 1, .last = 7,
	  .sector = 1ull << 63 },
	{ "read at the last sector number", ERR, RD, .segments = 1, .last = 7,
	  .sector = MAX_SEC },
	{ "write that wraps around", ERR, WR, .segments = 11, .last = 7,
	  .sector = MAX_SEC - 3 },
	{ "discard over the end", ERR, DIS, .where = FROM_END,
	  .sector = (uint64_t)-8, .sectors = 9 },
	{ "discard of everything and more", ERR, DIS, .sectors = MAX_SEC },
	{ "discard that wraps around", ERR, DIS, .sector = MAX_SEC,
	  .sectors = 2 },
	{ "discard of 2^55 sectors", ERR, DIS, .sectors = 1ull << 55 },
	{ "secure discard", UNSUPP, DIS, .sectors = 8, .flag = 1 },
	{ "discard of nothing", ANY_STATUS, DIS, .sectors = 0 },
	{ "indirect request of no segment", ERR, INDIR, RD, .segments = 0 },
	{ "indirect request of 257 segments", ERR, INDIR, WR, .segments = 257 },
	{ "indirect request of 4097 segments", ERR, INDIR, RD,
	  .segments = 4097 },
	{ "indirect request of 65535 segments", ERR, INDIR, WR,
	  .segments = 65535 },
	{ "indirect request in an indirect one", ERR, INDIR, INDIR,
	  .segments = 8, .last = 7 },
	{ "indirect flush", ERR, INDIR, FLU, .segments = 8, .last = 7 },
	{ "indirect barrier", ERR, INDIR, BAR, .segments = 8, .last = 7 },
	{ "indirect discard", ERR, INDIR, DIS, .segments = 8, .last = 7 },
	{ "indirect operation 255", ERR, INDIR, 255, .segments = 8, .last = 7 },
	{ "indirect segment that ends before it begins", ERR, INDIR, WR,
	  .segments = 256, .first = 3, .last = 2 },
	{ "indirect segment that ends at sector 8", ERR, INDIR, RD,
	  .segments = 64, .last = 8 },
	{ "indirect write over the end", ERR, INDIR, WR, .segments = 256,
	  .last = 7, FROM_END, (uint64_t)-100 },
	{ "indirect write at 2^63", ERR, INDIR, WR, .segments = 256, .last = 7,
	  .sector = 1ull << 63 },
	{ "list with reference 0", ERR, INDIR, WR, .segments = 20, .last = 7,
	  .list = ZERO },
	{ "list that was taken back", ERR, INDIR, WR, .segments = 20, .last = 7,
	  .list = ENDED },
	{ "list with reference 2^32-1", ERR, INDIR, RD, .segments = 20,
	  .last = 7, .list = HUGE },
	{ "list of another domain", ERR, INDIR, WR, .segments = 20, .last = 7,
	  .list = OTHER },
	{ "list that is the ring", ANY_STATUS, INDIR, RD, .segments = 20,
	  .last = 7, .where = SCRATCH, .list = RING },
	{ "read-only list", OKAY, INDIR, WR, .segments = 20, .last = 7,
	  .where = SCRATCH, .list = READONLY },
	{ "page with reference 0", ERR, WR, .segments = 5, .last = 7,
	  .data = ZERO },
	{ "page that was taken back", ERR, WR, .segments = 11, .last = 7,
	  .data = ENDED },
	{ "page with reference 2^32-1", ERR, WR, .segments = 1, .last = 7,
	  .data = HUGE },
	{ "page of another domain", ERR, WR, .segments = 3, .last = 7,
	  .data = OTHER },
	{ "read to a page that was taken back", ERR, RD, .segments = 1,
	  .last = 7, .data = ENDED },
	{ "read to a read-only page", ERR, RD, .segments = 1, .last = 7,
	  .data = READONLY },
	{ "read to a page of another domain", ERR, RD, .segments = 1, .last = 7,
	  .data = OTHER },
	{ "indirect read to a read-only page", ERR, INDIR, RD, .segments = 1,
	  .last = 7, .data = READONLY },
	{ "indirect write from a page of another domain", ERR, INDIR, WR,
	  .segments = 100, .last = 7, .data = OTHER },
	{ "write from a read-only page", OKAY, WR, .segments = 4, .last = 7,
	  .where = SCRATCH, .data = READONLY },
	{ "write from the ring", OKAY, WR, .segments = 2, .last = 7,
	  .where = SCRATCH, .data = RING },
	{ "write from the list", OKAY, INDIR, WR, .segments = 9, .last = 7,
	  .where = SCRATCH, .data = LIST },
	{ "write from one page, 256 times", OKAY, INDIR, WR, .segments = 256,
	  .last = 7, .where = SCRATCH, .data = SAME },
	{ "read to the list that it came from", OKAY, INDIR, RD, .segments = 30,
	  .last = 7, .where = SCRATCH, .data = LIST },
};

struct refs {
	uint32_t data[HOSTILE_PAGES];
	uint32_t of[NR_PAGES];
	struct blkif_request_segment *list; /* a page */
};

static uint8_t *page(const struct hostile *h, unsigned int index)
{
	return h->pages + (size_t)index * SIMABI_PAGE;
}

static int make_refs(struct hostile *h, struct refs *refs)
{
	refs->list = xensim_alloc_pages(h->domain, 1);
	if (!refs->list)
		return hostile_fault("no guest memory");
	for (unsigned int i = 0; i < HOSTILE_PAGES; i++)
		refs->data[i] = hostile_grant(h, page(h, i), false);
	refs->of[GOOD] = hostile_grant(h, refs->list, false);
	refs->of[ZERO] = 0;
	refs->of[HUGE] = UINT32_MAX;
	refs->of[READONLY] = hostile_grant(h, refs->list, true);
	refs->of[OTHER] = hostile_grant_to(h, 4711, refs->list);
	refs->of[RING] = simqueue_ring_refs(h->queue)[0];
	refs->of[LIST] = refs->of[GOOD];
	refs->of[SAME] = refs->data[0];
	return SIMGUEST_OK;
}

/* One that nobody has taken since. */
static void end_one(struct hostile *h, struct refs *refs)
{
	uint32_t ref = 0;

	(void)xensim_grant(h->domain, h->backend_domid, h->pages, false, &ref);
	(void)xensim_grant_end(h->domain, ref);
	refs->of[ENDED] = ref;
}

/* --- One wrong field -------------------------------------------------------- */

static void describe_segments(struct hostile *h, const struct malformed *m,
			      const struct refs *refs,
			      struct blkif_request_segment *out,
			      unsigned int nr)
{
	unsigned int bad = nr ? hostile_random(h, nr) : 0;

	for (unsigned int i = 0; i < nr; i++)
		out[i] = (struct blkif_request_segment){
			.gref = m->data == SAME ? refs->of[SAME] :
						  refs->data[i],
			.last_sect = 7,
		};
	if (!nr)
		return;
	out[bad].first_sect = m->first;
	out[bad].last_sect = m->last;
	if (m->data != GOOD && m->data != SAME)
		out[bad].gref = m->data == READONLY ?
					hostile_grant(h, page(h, bad), true) :
					refs->of[m->data];
}

static uint64_t sector_of(const struct hostile *h, const struct malformed *m)
{
	switch (m->where) {
	case FROM_END:
		return h->sectors + m->sector;
	case SCRATCH:
		return SCRATCH_SECTOR;
	default:
		return m->sector;
	}
}

static void encode(struct hostile *h, const struct malformed *m,
		   const struct refs *refs, uint8_t *slot)
{
	struct blkif_request_segment direct[BLKIF_MAX_SEGMENTS_PER_REQUEST];
	bool indirect = m->op == INDIR;
	unsigned int most = indirect ? HOSTILE_PAGES :
				       BLKIF_MAX_SEGMENTS_PER_REQUEST;
	unsigned int nr = m->segments < most ? m->segments : most;
	struct simabi_request req = {
		.operation = m->op,
		.indirect_op = m->inner,
		.flag = m->flag,
		.nr_segments = m->segments,
		.handle = (uint16_t)simio_random(&h->random),
		.sector = sector_of(h, m),
		.nr_sectors = m->sectors,
		.segments = direct,
	};

	describe_segments(h, m, refs, indirect ? refs->list : direct, nr);
	/* What need not be looked at is as wrong as can be. */
	memset(req.indirect_grefs, 0xff, sizeof(req.indirect_grefs));
	req.indirect_grefs[0] = refs->of[m->list];
	simabi_encode(h->abi, &req, slot);
}

static bool canaries_alive(const struct hostile *h)
{
	return h->pages[0] == CANARY &&
	       memcmp(h->pages, h->pages + 1,
		      HOSTILE_PAGES * SIMABI_PAGE - 1) == 0;
}

static int send_one(struct hostile *h, const struct malformed *m,
		    struct refs *refs)
{
	struct simqueue_request req = { .operation = m->op == INDIR ? m->inner :
								      m->op };
	uint8_t slot[SIMABI_MAX_SLOT];
	int r;

	memset(h->pages, CANARY, HOSTILE_PAGES * SIMABI_PAGE);
	end_one(h, refs);
	encode(h, m, refs, slot);
	r = simio_sync_slot(h->queue, &req, slot, (int)h->guest->opt.timeout);
	h->count++;
	if (r < 0)
		return hostile_queue_fault(h, m->what, r);
	if (m->status != ANY_STATUS && req.status != m->status)
		return hostile_fault("%s: status %d, not %d", m->what,
				     req.status, m->status);
	if (req.status == OKAY || m->status == ANY_STATUS || canaries_alive(h))
		return SIMGUEST_OK;
	return hostile_fault("%s: refused, and written to the guest", m->what);
}

static int send_table(struct hostile *h, struct refs *refs)
{
	int code = SIMGUEST_OK;

	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < sizeof(table) / sizeof(table[0]) &&
				   code == SIMGUEST_OK;
		     i++)
			code = send_one(h, &table[i], refs);
	return code;
}

/* Every operation that there is not; who sends nothing else is slowed down. */
static int send_unknown(struct hostile *h, struct refs *refs)
{
	int code = SIMGUEST_OK;

	for (unsigned int op = 0; op < 256 && code == SIMGUEST_OK; op++) {
		struct malformed m = { "unknown operation", UNSUPP, (uint8_t)op,
				       .segments = 3, .last = 7 };

		if (op > INDIR || op == BLKIF_OP_RESERVED_1)
			code = send_one(h, &m, refs);
		if (op % 32 == 0 && code == SIMGUEST_OK)
			code = hostile_work(h);
	}
	return code;
}

/* --- The pattern -------------------------------------------------------------- */

/* Reads or writes the whole of it. */
static int pattern_io(struct hostile *h, uint8_t op)
{
	struct simqueue_segment segments[8];
	struct simqueue_request req = { .operation = op,
					.nr_segments = 8,
					.segments = segments };
	int r;

	for (unsigned int s = 0; s < PATTERN_SECTORS; s += 64) {
		for (unsigned int i = 0; i < 8; i++)
			segments[i] =
				(struct simqueue_segment){ page(h, s / 8 + i),
							   0, 7 };
		req.sector = s;
		r = simio_sync(h->queue, &req, (int)h->guest->opt.timeout);
		if (r < 0)
			return hostile_queue_fault(h, "the pattern", r);
		if (req.status != OKAY)
			return hostile_fault("the pattern: status %d",
					     req.status);
	}
	return SIMGUEST_OK;
}

static int write_pattern(struct hostile *h)
{
	memset(h->pages, PATTERN, PATTERN_SECTORS * SIMABI_SECTOR);
	return pattern_io(h, WR);
}

static int check_pattern(struct hostile *h)
{
	size_t size = PATTERN_SECTORS * SIMABI_SECTOR;
	int code;

	memset(h->pages, 0, size);
	code = pattern_io(h, RD);
	if (code != SIMGUEST_OK)
		return code;
	for (size_t i = 0; i < size; i++)
		if (h->pages[i] != PATTERN)
			return hostile_fault("a refused request has changed "
					     "byte %zu of the disk",
					     i);
	return SIMGUEST_OK;
}

static int run_requests(struct hostile *h)
{
	struct refs refs;
	int code = make_refs(h, &refs);

	if (code == SIMGUEST_OK)
		code = write_pattern(h);
	if (code == SIMGUEST_OK)
		code = send_table(h, &refs);
	if (code == SIMGUEST_OK)
		code = send_unknown(h, &refs);
	return code == SIMGUEST_OK ? check_pattern(h) : code;
}

/* --- At random ------------------------------------------------------------------ */

static void any_done(struct simqueue_request *req)
{
	(void)req;
}

void hostile_random_slot(struct hostile *h, const uint32_t *refs,
			 unsigned int nr_refs, uint8_t *slot)
{
	static const uint8_t ops[] = { RD, WR, BAR, FLU, DIS, INDIR, 4, 200 };
	unsigned int body = h->abi->body;

	for (unsigned int i = 0; i + 8 <= h->abi->slot; i += 4) {
		uint64_t random = simio_random(&h->random) >> 24;

		memcpy(slot + i, &random, 4);
	}
	if (hostile_random(h, 16) == 0)
		return;
	slot[0] = ops[hostile_random(h, sizeof(ops))];
	slot[1] = (uint8_t)hostile_random(h, 14);
	if (slot[0] == INDIR) {
		slot[1] = (uint8_t)hostile_random(h, 3);
		slot[3] = (uint8_t)hostile_random(h, 2);
	}
	for (unsigned int i = body; i + 8 <= h->abi->slot; i += 8) {
		memcpy(slot + i, &refs[hostile_random(h, nr_refs)], 4);
		slot[i + 4] &= 7;
		slot[i + 5] &= 15;
	}
	if (slot[0] == INDIR)
		memcpy(slot + body + 4, &refs[hostile_random(h, nr_refs)], 4);
	memset(slot + h->abi->sector + 3, 0, 5);
	slot[h->abi->sector + 2] &= 1;
}

/* As many as there is room for, and all answers to them. */
static int random_burst(struct hostile *h, const uint32_t *refs,
			unsigned int nr_refs, struct simqueue_request *reqs)
{
	unsigned int room = simqueue_room(h->queue);
	int r = 0;

	for (unsigned int i = 0; i < room && r >= 0; i++) {
		uint8_t slot[SIMABI_MAX_SLOT];

		hostile_random_slot(h, refs, nr_refs, slot);
		reqs[i].operation = slot[0] == INDIR ? slot[1] : slot[0];
		reqs[i].done = any_done;
		r = simqueue_submit_slot(h->queue, &reqs[i], slot);
		h->count++;
	}
	simqueue_push(h->queue);
	while (r >= 0 && simqueue_pending(h->queue) > 0) {
		r = simqueue_reap(h->queue, (int)h->guest->opt.timeout * 1000);
		if (r == 0)
			r = -ETIMEDOUT;
	}
	return r < 0 ? hostile_queue_fault(h, "random requests", r) :
		       SIMGUEST_OK;
}

static int run_random(struct hostile *h)
{
	static struct simqueue_request reqs[1024];
	uint32_t refs[64];
	int code;

	for (unsigned int i = 0; i < 64; i++)
		refs[i] = hostile_grant(h, page(h, i), i % 8 == 0);
	refs[3] = 0;
	refs[5] = UINT32_MAX;
	do {
		for (unsigned int i = 0; i < SIMABI_PAGE; i += 8) {
			uint64_t random = simio_random(&h->random);

			memcpy(page(h, 7) + i, &random, 8);
		}
		code = random_burst(h, refs, 64, reqs);
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

const struct hostile_case hostile_requests_cases[] = {
	{ "requests", HOSTILE_GOOD, run_requests, "requests",
	  "each field and each grant of a request wrong, one at a time" },
	{ "random", HOSTILE_GOOD, run_random, "requests",
	  "requests of random bytes, a ring full at a time" },
	{ 0 },
};
