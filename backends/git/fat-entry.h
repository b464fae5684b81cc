/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-entry.h - the entries of a folder on FAT, one after the other, as a guest
 * left them.  Pure.
 *
 * Facts are from Microsoft's "FAT: General Overview of On-Disk Format" 1.03.  A
 * long name counts if all its parts are there, in order, in front of the short
 * one whose sum they have; else it is passed over, as guests do it.
 */
#ifndef XENDISK_GIT_FAT_ENTRY_H
#define XENDISK_GIT_FAT_ENTRY_H

#include "names.h"

#define FAT_SLOT 32u /* bytes */

#define FAT_ATTR_LABEL	0x08
#define FAT_ATTR_FOLDER 0x10
#define FAT_ATTR_LONG	0x0f

struct fat_entry {
	/* As in git; of "." and ".." just that, of a label its text. */
	char name[NAME_BYTES_MAX];
	uint8_t short_name[SHORT_BYTES];
	uint8_t attributes;
	uint32_t cluster;
	uint32_t size; /* bytes */
};

/* A long name that has begun. */
struct fat_slots {
	uint16_t units[20 * 13];
	unsigned int left; /* parts that are still to come */
	unsigned int parts; /* of the name; 0: there is none */
	uint8_t sum; /* of the short name to which it belongs */
};

enum fat_slot_kind {
	FAT_SLOT_NONE, /* free, or part of a long name */
	FAT_SLOT_ENTRY,
	FAT_SLOT_END, /* there is nothing behind it */
};

/*
 * Takes the next slot of a folder; slots begins as all zero.  Returns enum
 * fat_slot_kind, or -EBADMSG and what is wrong.
 */
int fat_slots_take(struct fat_slots *slots, const uint8_t slot[FAT_SLOT],
		   struct fat_entry *ret, const char **ret_fault);

/* Of a short name, for the long one beside it. */
uint8_t fat_short_sum(const uint8_t name[SHORT_BYTES]);

static inline uint32_t get16(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get32(const uint8_t *p)
{
	return get16(p) | get16(p + 2) << 16;
}

#endif
