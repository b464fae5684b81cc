/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-settings.c - any bytes as the configuration file.
 *
 * Input: the main file and, after a NUL, one of the folder.  Refused: a sentence
 * that begins with the file's name and a line.  Accepted: names, folders and
 * sizes are what they have to be; loaded again they are the same.
 */
#define _GNU_SOURCE
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/settings.h"
#include "common/util.h"

#define NAME "xendiskd.conf"

static char main_file[64], folder_file[96];

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_folder(void)
{
	*strrchr(main_file, '/') = '\0';
	(void)nftw(main_file, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void fuzz_leave(void)
{
	remove_folder();
}

static void make_folder(void)
{
	char path[64] = "/dev/shm/xendisk-fuzz-XXXXXX";

	HOLDS(mkdtemp(path), "%s: %s", path, strerror(errno));
	(void)snprintf(main_file, sizeof(main_file), "%.32s/" NAME, path);
	(void)snprintf(folder_file, sizeof(folder_file), "%s.d", main_file);
	HOLDS(mkdir(folder_file, 0700) == 0, "%s", folder_file);
	(void)snprintf(folder_file, sizeof(folder_file), "%s.d/a.conf",
		       main_file);
	(void)atexit(remove_folder);
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	HOLDS(fd >= 0 && write(fd, data, size) == (ssize_t)size, "%s", path);
	(void)close(fd);
}

/* "PATH:LINE", of one of the two files. */
static void check_place(const char *text)
{
	size_t n = strlen(main_file);
	char *end;

	HOLDS(strncmp(text, main_file, n) == 0, "%s", text);
	if (strncmp(text, folder_file, strlen(folder_file)) == 0)
		n = strlen(folder_file);
	HOLDS(text[n] == ':', "%s", text);
	(void)strtoul(text + n + 1, &end, 10);
	HOLDS(end > text + n + 1, "%s", text);
}

static void check_disk(const struct settings *settings,
		       const struct settings_disk *disk)
{
	HOLDS(disk->name[0] && !strpbrk(disk->name, "/@(), \t\n\"="), "%s",
	      disk->name);
	HOLDS(disk->expr, "%s", disk->name);
	check_place(disk->where);
	/* So no two have the same name. */
	HOLDS(settings_disk(settings, disk->name) == disk->expr, "%s",
	      disk->name);
}

static void check_settings(const struct settings *settings)
{
	for (size_t i = 0; i < settings->nr_disks; i++)
		check_disk(settings, &settings->disks[i]);
	for (size_t i = 0; i < settings->nr_image_roots; i++)
		HOLDS(settings->image_roots[i].path[0] == '/', "%s",
		      settings->image_roots[i].path);
	HOLDS(!settings_disk(settings, ""), "no disk without a name");
}

static void check_same(const struct settings *a, const struct settings *b)
{
	HOLDS(a->nr_disks == b->nr_disks &&
		      a->nr_image_roots == b->nr_image_roots &&
		      a->mem_limit == b->mem_limit &&
		      a->persistent_grants == b->persistent_grants,
	      "the same again");
	for (size_t i = 0; i < a->nr_disks; i++)
		HOLDS(strcmp(a->disks[i].expr, b->disks[i].expr) == 0, "%s",
		      a->disks[i].name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n = size ? strnlen((const char *)data, size) : 0;
	struct settings *settings = NULL, *again = NULL;
	char why[SETTINGS_TEXT_MAX];
	int r;

	if (!main_file[0])
		make_folder();
	write_file(main_file, data, n);
	write_file(folder_file, data + MIN(n + 1, size),
		   size - MIN(n + 1, size));
	memset(why, 'x', sizeof(why));
	r = settings_load(main_file, true, &settings, why);
	HOLDS(strnlen(why, sizeof(why)) < sizeof(why), "it ends");
	if (r < 0) {
		HOLDS(r == -EINVAL, "%d: %s", r, why);
		HOLDS(!settings, "nothing is taken over");
		check_place(why);
		return 0;
	}
	check_settings(settings);
	HOLDS(settings_load(main_file, true, &again, why) == 0, "%s", why);
	check_same(settings, again);
	settings_free(again);
	settings_free(settings);
	return 0;
}
