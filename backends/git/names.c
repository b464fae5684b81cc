/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "names.h"

#include <stdio.h>
#include <string.h>

#include "common/util.h"

#define PRIVATE	 0xf000u /* + a byte */
#define PER_SLOT 13 /* units in one entry of a long name */

/* --- Long names ----------------------------------------------------------- */

/* One character of UTF-8; returns its bytes, or 0 when there is none, or one
 * that is not the shortest form, a surrogate, or one of ours. */
static unsigned int decode(const unsigned char *p, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned int n = *p < 0x80	     ? 1 :
			 (*p & 0xe0) == 0xc0 ? 2 :
			 (*p & 0xf0) == 0xe0 ? 3 :
			 (*p & 0xf8) == 0xf0 ? 4 :
					       0;
	uint32_t c = n == 1 ? *p : *p & (0x7fu >> n);

	for (unsigned int i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (n == 0 || c < least[n] || c > 0x10ffff ||
	    (c >= 0xd800 && c < 0xe000) || (c >= PRIVATE && c <= PRIVATE + 255))
		return 0;
	*ret = c;
	return n;
}

static bool is_forbidden(uint32_t c)
{
	return c < 0x20 || c == 0x7f ||
	       (c < 0x80 && strchr("\\/:*?\"<>|", (int)c));
}

int name_units(const char *name, uint16_t ret[NAME_UNITS_MAX])
{
	const unsigned char *p = (const unsigned char *)name;
	int n = 0;

	while (*p) {
		uint32_t c;
		unsigned int bytes = decode(p, &c);
		bool wide;

		if (bytes == 0 || (bytes == 1 && is_forbidden(c)))
			c = PRIVATE + *p;
		/* Windows and Linux drop these at the end of a name. */
		if (!p[1] && (*p == '.' || *p == ' '))
			c = PRIVATE + *p;
		p += MAX(bytes, 1u);
		wide = c >= 0x10000;
		if (n + wide >= NAME_UNITS_MAX)
			return -ENAMETOOLONG;
		if (wide) {
			ret[n++] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
			c = 0xdc00 + ((c - 0x10000) & 0x3ff);
		}
		ret[n++] = (uint16_t)c;
	}
	return n;
}

/* The shortest form; returns its bytes. */
static unsigned int encode(uint32_t c, char *ret)
{
	static const uint8_t marks[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	unsigned int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (unsigned int i = n - 1; i > 0; i--, c >>= 6)
		ret[i] = (char)(0x80 | (c & 0x3f));
	ret[0] = (char)(marks[n] | c);
	return n;
}

/* Returns how many units the character takes, or 0: it is none. */
static int take_character(const uint16_t *units, int n, uint32_t *ret)
{
	uint32_t c = units[0];

	if (c >= 0xd800 && c < 0xdc00) {
		if (n < 2 || units[1] < 0xdc00 || units[1] >= 0xe000)
			return 0;
		*ret = 0x10000 + ((c - 0xd800) << 10) + (units[1] - 0xdc00u);
		return 2;
	}
	*ret = c;
	return c < 0xdc00 || c >= 0xe000;
}

int name_bytes(const uint16_t *units, int n, char ret[NAME_BYTES_MAX])
{
	char *p = ret;

	if (n < 1 || n > NAME_UNITS_MAX)
		return -EILSEQ;
	for (int i = 0, taken; i < n; i += taken) {
		uint32_t c;

		taken = take_character(units + i, n - i, &c);
		if (taken == 0)
			return -EILSEQ;
		if (c >= PRIVATE && c <= PRIVATE + 255)
			*p = (char)(c - PRIVATE);
		p += c >= PRIVATE && c <= PRIVATE + 255 ? 1 : encode(c, p);
		if (p[-1] == '\0' || p[-1] == '/')
			return -EILSEQ;
	}
	*p = '\0';
	return 0;
}

/* Runs of lower-case letters: upper case is `down` below; step 2 where the two
 * alternate, the upper case first. */
static const struct run {
	uint16_t first, last, down, step;
} runs[] = {
	{ 'a', 'z', 32, 1 },	  { 0xe0, 0xf6, 32, 1 },
	{ 0xf8, 0xfe, 32, 1 },	  { 0x101, 0x137, 1, 2 },
	{ 0x13a, 0x148, 1, 2 },	  { 0x14b, 0x177, 1, 2 },
	{ 0x17a, 0x17e, 1, 2 },	  { 0x3ac, 0x3ac, 38, 1 },
	{ 0x3ad, 0x3af, 37, 1 },  { 0x3b1, 0x3c1, 32, 1 },
	{ 0x3c3, 0x3cb, 32, 1 },  { 0x3cc, 0x3cc, 64, 1 },
	{ 0x3cd, 0x3ce, 63, 1 },  { 0x430, 0x44f, 32, 1 },
	{ 0x450, 0x45f, 80, 1 },  { 0x461, 0x481, 1, 2 },
	{ 0x48b, 0x4bf, 1, 2 },	  { 0x4d1, 0x52f, 1, 2 },
	{ 0x561, 0x586, 48, 1 },  { 0x1e01, 0x1e95, 1, 2 },
	{ 0x1ea1, 0x1eff, 1, 2 }, { 0xff41, 0xff5a, 32, 1 },
};

uint16_t name_fold(uint16_t unit)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(runs); i++) {
		const struct run *run = &runs[i];

		if (unit < run->first)
			return unit;
		if (unit <= run->last && (unit - run->first) % run->step == 0)
			return (uint16_t)(unit - run->down);
	}
	return unit;
}

/* --- Short names ---------------------------------------------------------- */

/* Not '~': it is kept for the names that are made up. */
static bool is_short_byte(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("$%'-_@!(){}^#&", c));
}

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

/* One part, of one case.  False: it needs a long name. */
static bool take_part(const char *p, size_t n, size_t room, uint8_t *ret,
		      bool *ret_lower)
{
	bool lower = false, upper_case = false;

	if (n == 0 || n > room)
		return false;
	memset(ret, ' ', room);
	for (size_t i = 0; i < n; i++) {
		if (!is_short_byte(upper(p[i])))
			return false;
		lower |= p[i] >= 'a' && p[i] <= 'z';
		upper_case |= p[i] >= 'A' && p[i] <= 'Z';
		ret[i] = (uint8_t)upper(p[i]);
	}
	*ret_lower = lower;
	return !(lower && upper_case);
}

bool name_is_short(const char *name, uint8_t ret[SHORT_BYTES],
		   uint8_t *ret_lower)
{
	const char *dot = strchr(name, '.');
	size_t base = dot ? (size_t)(dot - name) : strlen(name);
	bool lower_base, lower_ext = false;

	if (!take_part(name, base, 8, ret, &lower_base))
		return false;
	memset(ret + 8, ' ', 3);
	if (dot && !take_part(dot + 1, strlen(dot + 1), 3, ret + 8, &lower_ext))
		return false;
	*ret_lower =
		(uint8_t)((lower_base ? 0x08 : 0) | (lower_ext ? 0x10 : 0));
	return true;
}

/* Fills up to room bytes; what is not allowed is left out. */
static unsigned int squeeze(const char *p, const char *end, unsigned int room,
			    uint8_t *ret)
{
	unsigned int n = 0;

	for (; p < end && n < room; p++)
		if (is_short_byte(upper(*p)))
			ret[n++] = (uint8_t)upper(*p);
	return n;
}

void name_short(const char *name, uint32_t number, uint8_t ret[SHORT_BYTES])
{
	const char *dot = strrchr(name, '.');
	const char *end = dot && dot != name ? dot : name + strlen(name);
	char tail[16];
	unsigned int n, length;

	memset(ret, ' ', SHORT_BYTES);
	length = (unsigned int)snprintf(tail, sizeof(tail), "~%u", number);
	n = squeeze(name, end, 8 - MIN(length, 8u), ret);
	memcpy(ret + n, tail, MIN(length, 8 - n));
	if (dot && dot != name)
		(void)squeeze(dot + 1, dot + strlen(dot), 3, ret + 8);
}

uint32_t name_made_number(const char *name, uint8_t ret[SHORT_BYTES])
{
	const char *tilde = strchr(name, '~');
	const char *p = tilde ? tilde + 1 : "";
	uint32_t number = 0;

	memset(ret, ' ', SHORT_BYTES);
	if (!tilde || tilde - name > 6 || *p == '0')
		return 0;
	while (*p >= '0' && *p <= '9' && p - name < 8)
		number = number * 10 + (uint32_t)(*p++ - '0');
	for (int i = 0; i < p - name; i++)
		ret[i] = (uint8_t)upper(name[i]);
	if (*p == '.' && strlen(++p) <= 3)
		for (int i = 0; *p; p++)
			ret[8 + i++] = (uint8_t)upper(*p);
	return *p ? 0 : number;
}

int name_slots(const char *name)
{
	uint16_t units[NAME_UNITS_MAX];
	uint8_t bytes[SHORT_BYTES], lower;
	int n = name_is_short(name, bytes, &lower) ? 0 :
						     name_units(name, units);

	return n < 0 ? n : 1 + DIV_ROUND_UP(n, PER_SLOT);
}
