/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "disk-format.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define MAGIC "xendisk-git 1"

static uint64_t most_chunks(unsigned int levels)
{
	return (uint64_t)1 << 8 * levels;
}

static int check(const struct git_disk *disk, int err, char *ret_why)
{
	if (disk->sector != 512 && disk->sector != 4096)
		return why(ret_why, err, "sectors have 512 or 4096 bytes");
	if (disk->size == 0 || disk->size % disk->sector != 0)
		return why(ret_why, err,
			   "the size has to be a multiple of %" PRIu32
			   ", and not 0",
			   disk->sector);
	if (disk->chunk < GIT_CHUNK_MIN || disk->chunk > GIT_CHUNK_MAX ||
	    !is_power_of_2(disk->chunk))
		return why(ret_why, err,
			   "chunks have 16K, 32K, ... or at most 1M");
	if (disk->levels < GIT_LEVELS_MIN || disk->levels > GIT_LEVELS_MAX)
		return why(ret_why, err, "there are %u or %u levels",
			   GIT_LEVELS_MIN, GIT_LEVELS_MAX);
	if ((disk->size - 1) / disk->chunk >= most_chunks(disk->levels))
		return why(ret_why, err,
			   "%" PRIu64
			   " bytes are too many for chunks of %" PRIu32
			   " in %u levels",
			   disk->size, disk->chunk, disk->levels);
	return 0;
}

/* Smaller ones would make small random writes cheaper and everything else
 * dearer; see xendisk-git(7). */
static uint32_t default_chunk(uint64_t size)
{
	if (size <= (uint64_t)512 << 30)
		return 64u << 10;
	if (size <= (uint64_t)4 << 40)
		return 256u << 10;
	return 1u << 20;
}

int git_disk_new(struct git_disk *ret, uint64_t size, uint32_t chunk,
		 char *ret_why)
{
	struct git_disk disk = { .size = size,
				 .sector = 512,
				 .chunk = chunk ? chunk : default_chunk(size),
				 .levels = GIT_LEVELS_MIN };
	int r;

	if (size && (size - 1) / disk.chunk >= most_chunks(disk.levels))
		disk.levels = GIT_LEVELS_MAX;
	r = check(&disk, -EINVAL, ret_why);
	if (r == 0)
		*ret = disk;
	return r;
}

/* Takes "KEY VALUE\n" off the text; returns the value, which ends with a NUL. */
static char *take_line(char **io_text, const char *key)
{
	char *value = *io_text;
	size_t n = strlen(key);
	char *end = strchr(value, '\n');

	if (!end || strncmp(value, key, n) != 0 || value[n] != ' ')
		return NULL;
	*end = '\0';
	*io_text = end + 1;
	return value + n + 1;
}

static bool take_number(char **io_text, const char *key, uint64_t max,
			uint64_t *ret)
{
	const char *value = take_line(io_text, key);

	return value && parse_u64(value, max, ret) == 0;
}

int git_disk_parse(const void *text, size_t n, struct git_disk *ret,
		   char *ret_why)
{
	uint64_t size, sector, chunk, levels;
	const char *features;
	struct git_disk disk;
	char copy[GIT_DISK_TEXT];
	char *p = copy;
	int r;

	if (n >= sizeof(copy) || memchr(text, '\0', n))
		return why(ret_why, -EBADMSG, "that is no disk of ours");
	memcpy(copy, text, n);
	copy[n] = '\0';
	if (strncmp(p, MAGIC "\n", sizeof(MAGIC)) != 0)
		return why(ret_why, -EBADMSG,
			   "it does not start with \"" MAGIC "\"");
	p += sizeof(MAGIC);
	if (!take_number(&p, "size", INT64_MAX, &size) ||
	    !take_number(&p, "sector", 4096, &sector) ||
	    !take_number(&p, "chunk", GIT_CHUNK_MAX, &chunk) ||
	    !take_number(&p, "levels", GIT_LEVELS_MAX, &levels))
		return why(ret_why, -EBADMSG,
			   "size, sector, chunk or levels is missing or is "
			   "too large");
	features = take_line(&p, "features");
	if (!features || *p)
		return why(ret_why, -EBADMSG,
			   "the last line has to be \"features ...\"");
	if (strcmp(features, "-") != 0)
		return why(ret_why, -ENOTSUP,
			   "it has features that this version does not know");
	disk = (struct git_disk){ size, (uint32_t)sector, (uint32_t)chunk,
				  (unsigned int)levels };
	r = check(&disk, -EBADMSG, ret_why);
	if (r == 0)
		*ret = disk;
	return r;
}

size_t git_disk_print(const struct git_disk *disk, char ret[GIT_DISK_TEXT])
{
	return (size_t)snprintf(ret, GIT_DISK_TEXT,
				MAGIC "\n"
				      "size %" PRIu64 "\n"
				      "sector %" PRIu32 "\n"
				      "chunk %" PRIu32 "\n"
				      "levels %u\n"
				      "features -\n",
				disk->size, disk->sector, disk->chunk,
				disk->levels);
}

const char *git_disk_path(const struct git_disk *disk, uint64_t chunk,
			  char ret[GIT_CHUNK_PATH])
{
	char *p = ret + snprintf(ret, GIT_CHUNK_PATH, GIT_DISK_DATA);

	for (unsigned int level = disk->levels; level-- > 0;)
		p += snprintf(p, GIT_CHUNK_PATH - (size_t)(p - ret), "/%02x",
			      (unsigned int)(chunk >> 8 * level & 0xff));
	return ret;
}
