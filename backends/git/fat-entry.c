/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fat-entry.h"

#include <string.h>

#include "common/util.h"

#define PER_SLOT   13u
#define LAST_PART  0x40u
#define DELETED	   0xe5u
#define LOWER_BASE 0x08u
#define LOWER_EXT  0x10u

/* What a byte from 0x80 on is in a short name: code page 437, which is what Linux
 * takes unless it is told otherwise.  Who means another one writes long names. */
static const uint16_t code_page[128] = {
	0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea,
	0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6,
	0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc,
	0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa,
	0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc,
	0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561,
	0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b,
	0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
	0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568,
	0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518,
	0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df, 0x0393,
	0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4,
	0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320,
	0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2,
	0x25a0, 0x00a0,
};

static int fault(const char **ret_fault, const char *what)
{
	*ret_fault = what;
	return -EBADMSG;
}

uint8_t fat_short_sum(const uint8_t name[SHORT_BYTES])
{
	uint8_t sum = 0;

	for (unsigned int i = 0; i < SHORT_BYTES; i++)
		sum = (uint8_t)((sum << 7 | sum >> 1) + name[i]);
	return sum;
}

/* --- Long names --------------------------------------------------------------- */

static void take_part(struct fat_slots *slots, const uint8_t *slot)
{
	static const uint8_t places[PER_SLOT] = { 1,  3,  5,  7,  9,  14, 16,
						  18, 20, 22, 24, 28, 30 };
	unsigned int number = slot[0] & ~LAST_PART;

	if (slot[0] & LAST_PART) {
		slots->parts = number;
		slots->left = number;
		slots->sum = slot[13];
	}
	if (number == 0 || number != slots->left || slot[13] != slots->sum ||
	    number * PER_SLOT > ARRAY_SIZE(slots->units)) {
		slots->parts = 0;
		slots->left = 0;
		return;
	}
	slots->left--;
	for (unsigned int i = 0; i < PER_SLOT; i++)
		slots->units[slots->left * PER_SLOT + i] =
			(uint16_t)get16(slot + places[i]);
}

/* How many units the long name has that belongs to this short one; 0: there is
 * none. */
static unsigned int count_units(const struct fat_slots *slots,
				const uint8_t *short_name)
{
	unsigned int room = slots->parts * PER_SLOT, n = 0;

	if (slots->left > 0 || fat_short_sum(short_name) != slots->sum)
		return 0;
	while (n < room && slots->units[n] != 0)
		n++;
	return n;
}

/* --- Short names --------------------------------------------------------------- */

/* The part without the blanks behind it. */
static unsigned int part_length(const uint8_t *part, unsigned int room)
{
	while (room > 0 && part[room - 1] == ' ')
		room--;
	return room;
}

static bool is_allowed(uint8_t byte)
{
	return byte > ' ' && byte != 0x7f &&
	       !strchr("\"*+,./:;<=>?[\\]|", byte);
}

static uint16_t short_unit(uint8_t byte, bool lower)
{
	if (byte >= 0x80)
		return code_page[byte - 0x80];
	return lower && byte >= 'A' && byte <= 'Z' ? byte + 32u : byte;
}

/* Returns how many units; 0: it is no name. */
static int short_units(const uint8_t *name, uint8_t lower, uint16_t *ret)
{
	unsigned int base = part_length(name, 8);
	unsigned int ext = part_length(name + 8, 3);
	int n = 0;

	if (base == 0 || name[0] == ' ')
		return 0;
	for (unsigned int i = 0; i < 8 + ext; i++) {
		uint8_t byte = i == 0 && name[0] == 0x05 ? DELETED : name[i];

		if (i >= base && i < 8)
			continue;
		/* A blank within it is odd, but has been seen. */
		if (!is_allowed(byte) && byte != ' ')
			return 0;
		if (i == 8)
			ret[n++] = '.';
		ret[n++] = short_unit(byte,
				      lower & (i < 8 ? LOWER_BASE : LOWER_EXT));
	}
	return n;
}

/* --- Entries ---------------------------------------------------------------------- */

/* "." and "..", which are nothing else. */
static bool is_dots(const uint8_t *name)
{
	return memcmp(name, ".          ", SHORT_BYTES) == 0 ||
	       memcmp(name, "..         ", SHORT_BYTES) == 0;
}

static int take_name(const struct fat_slots *slots, const uint8_t *slot,
		     struct fat_entry *ret, const char **ret_fault)
{
	uint16_t units[NAME_UNITS_MAX];
	int n = short_units(slot, slot[12], units);
	unsigned int in_long = count_units(slots, slot);

	if (n == 0)
		return fault(ret_fault, "a short name that is none");
	if (in_long > NAME_UNITS_MAX)
		return fault(ret_fault, "a name of more than 255 characters");
	if (name_bytes(in_long ? slots->units : units,
		       in_long ? (int)in_long : n, ret->name) < 0)
		return fault(ret_fault,
			     "a name that is no UTF-16, or has \"/\" in it");
	if (strcmp(ret->name, ".") == 0 || strcmp(ret->name, "..") == 0)
		return fault(ret_fault, "a long name \".\" or \"..\"");
	return FAT_SLOT_ENTRY;
}

static int take_entry(const struct fat_slots *slots, const uint8_t *slot,
		      struct fat_entry *ret, const char **ret_fault)
{
	ret->attributes = slot[11];
	ret->cluster = get16(slot + 20) << 16 | get16(slot + 26);
	ret->size = get32(slot + 28);
	memcpy(ret->short_name, slot, SHORT_BYTES);
	if (ret->attributes & 0xc0)
		return fault(ret_fault, "an entry with unknown attributes");
	if ((ret->attributes & FAT_ATTR_LABEL) || is_dots(slot)) {
		(void)snprintf(ret->name, sizeof(ret->name), "%.*s",
			       (int)part_length(slot, SHORT_BYTES),
			       (const char *)slot);
		return FAT_SLOT_ENTRY;
	}
	return take_name(slots, slot, ret, ret_fault);
}

int fat_slots_take(struct fat_slots *slots, const uint8_t slot[FAT_SLOT],
		   struct fat_entry *ret, const char **ret_fault)
{
	int r = FAT_SLOT_NONE;

	if (slot[0] == 0)
		return FAT_SLOT_END;
	if (slot[0] != DELETED && (slot[11] & 0x3f) == FAT_ATTR_LONG) {
		take_part(slots, slot);
		return FAT_SLOT_NONE;
	}
	if (slot[0] != DELETED)
		r = take_entry(slots, slot, ret, ret_fault);
	slots->parts = 0;
	slots->left = 0;
	return r;
}
