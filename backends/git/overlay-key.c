/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "overlay-key.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 40 /* of the branch's name in that of the folder */

/* FNV-1a, and a byte that is in no path behind each text. */
static uint64_t hash(uint64_t h, const char *text)
{
	for (const char *p = text; *p; p++)
		h = (h ^ (unsigned char)*p) * 0x100000001b3u;
	return (h ^ 0xff) * 0x100000001b3u;
}

void overlay_key(const char *repo, const char *branch,
		 char ret[OVERLAY_KEY_MAX])
{
	uint64_t h = hash(hash(0xcbf29ce484222325u, repo), branch);
	char name[NAME_BYTES + 1];
	size_t n = 0;

	for (; branch[n] && n < NAME_BYTES; n++) {
		unsigned char c = (unsigned char)branch[n];

		name[n] = isalnum(c) || (n > 0 && strchr("._-", c)) ? (char)c :
								      '_';
	}
	name[n] = '\0';
	(void)snprintf(ret, OVERLAY_KEY_MAX, "git/%s-%016" PRIx64, name, h);
}

void uuid_print(const uint8_t uuid[16], char ret[UUID_TEXT])
{
	size_t n = 0;

	for (unsigned int i = 0; i < 16; i++)
		n += (size_t)snprintf(
			ret + n, UUID_TEXT - n, "%s%02x",
			i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			uuid[i]);
}
