/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * publish.c - the table of keys.
 *
 * Sectors are 512 bytes here whatever the disk's are (blkif.h, since 2024).
 * What is not offered is written as 0 and not left out: the directory may be
 * one that xen-blkback has filled before it was taken from it.
 */
#include <inttypes.h>

#include "broker/publish.h"
#include "common/msg.h"

#define VDISK_CDROM	0x1
#define VDISK_REMOVABLE 0x2
#define VDISK_READONLY	0x4

static uint64_t none(const struct publish *p)
{
	(void)p;
	return 0;
}

static uint64_t ring_page_order(const struct publish *p)
{
	(void)p;
	return XD_MAX_RING_ORDER;
}

static uint64_t ring_pages(const struct publish *p)
{
	(void)p;
	return XD_MAX_RING_PAGES;
}

static uint64_t queues(const struct publish *p)
{
	return p->queues;
}

static uint64_t segments(const struct publish *p)
{
	(void)p;
	return XD_MAX_SEGMENTS;
}

static uint64_t persistent(const struct publish *p)
{
	return p->persistent;
}

static uint64_t sectors(const struct publish *p)
{
	return p->limits->size / 512;
}

static uint64_t sector_size(const struct publish *p)
{
	return p->limits->sector_size;
}

static uint64_t physical_sector_size(const struct publish *p)
{
	return p->limits->physical_sector_size;
}

static bool is_read_only(const struct publish *p)
{
	return p->read_only || p->limits->readonly;
}

static uint64_t info(const struct publish *p)
{
	return (p->cdrom ? VDISK_CDROM : 0) |
	       (p->removable ? VDISK_REMOVABLE : 0) |
	       (is_read_only(p) ? VDISK_READONLY : 0);
}

static uint64_t flush(const struct publish *p)
{
	return p->limits->flush;
}

static uint64_t discard(const struct publish *p)
{
	return p->discard && p->limits->discard_granularity && !is_read_only(p);
}

static uint64_t discard_granularity(const struct publish *p)
{
	return p->limits->discard_granularity;
}

static uint64_t discard_alignment(const struct publish *p)
{
	return p->limits->discard_alignment;
}

static const struct key {
	const char *name;
	uint64_t (*value)(const struct publish *p);
	bool (*absent)(const struct publish *p); /* NULL: always there */
} transport[] = {
	{ .name = "max-ring-page-order", .value = ring_page_order },
	{ .name = "max-ring-pages", .value = ring_pages }, /* older spelling */
	{ .name = "multi-queue-max-queues", .value = queues },
	{ .name = "feature-max-indirect-segments", .value = segments },
	{ .name = "feature-persistent", .value = persistent },
};

static bool no_discard(const struct publish *p)
{
	return !discard(p);
}

static const struct key disk[] = {
	{ .name = "sector-size", .value = sector_size },
	{ .name = "physical-sector-size", .value = physical_sector_size },
	{ .name = "info", .value = info },
	{ .name = "feature-flush-cache", .value = flush },
	{ .name = "feature-barrier", .value = none },
	{ .name = "feature-discard", .value = discard },
	{ .name = "discard-granularity",
	  .value = discard_granularity,
	  .absent = no_discard },
	{ .name = "discard-alignment",
	  .value = discard_alignment,
	  .absent = no_discard },
	{ .name = "discard-secure", .value = none, .absent = no_discard },
};

static const struct key size[] = {
	{ .name = "sectors", .value = sectors },
};

static int write_keys(struct store *store, const char *dir,
		      const struct publish *p, const struct key *keys,
		      unsigned int nr)
{
	int r = 0;

	for (const struct key *key = keys; key < keys + nr && r == 0; key++) {
		if (key->absent && key->absent(p))
			r = store_remove(store, dir, key->name);
		else
			r = store_write(store, dir, key->name, "%" PRIu64,
					key->value(p));
	}
	return r;
}

int publish_transport(struct store *store, const char *dir,
		      const struct publish *publish)
{
	return write_keys(store, dir, publish, transport,
			  ARRAY_SIZE(transport));
}

int publish_size(struct store *store, const char *dir,
		 const struct publish *publish)
{
	return write_keys(store, dir, publish, size, ARRAY_SIZE(size));
}

int publish_disk(struct store *store, const char *dir,
		 const struct publish *publish)
{
	int r = publish_transport(store, dir, publish);

	if (r == 0)
		r = publish_size(store, dir, publish);
	return r < 0 ? r :
		       write_keys(store, dir, publish, disk, ARRAY_SIZE(disk));
}
