/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "repo-settings.h"

#include <git2.h>
#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "disk-format.h"
#include "repo.h"

/*
 * Chunks are not compared with each other when git packs (bigFileThreshold, half a
 * chunk: trees still are), which takes minutes and saves little; what is pushed
 * goes out as it is.  Nothing is collected or unpacked behind our back, and what
 * git says is written is on the disk.
 */
static const struct {
	const char *name;
	const char *value; /* NULL: half a chunk */
} settings[] = {
	{ "core.bigFileThreshold", NULL },
	{ "core.fsync", "all" },
	{ "gc.auto", "0" },
	{ "gc.bigPackThreshold", "2g" },
	{ "pack.window", "0" },
	{ "receive.denyNonFastForwards", "true" },
	{ "receive.unpackLimit", "1" },
	{ "fetch.unpackLimit", "1" },
};

static const char *wanted(unsigned int i, uint32_t chunk, char *buf,
			  size_t size)
{
	if (settings[i].value)
		return settings[i].value;
	/* Trees of 256 entries have less than 8 KiB. */
	(void)snprintf(buf, size, "%" PRIu32,
		       chunk ? chunk / 2 : (64u << 10) / 2);
	return buf;
}

static int open_config(git_config **ret, git_repository *repo, char *ret_why)
{
	git_config *all;
	int r;

	if (git_repository_config(&all, repo) < 0)
		return repo_why(ret_why, -EIO, "its configuration", "");
	r = git_config_open_level(ret, all, GIT_CONFIG_LEVEL_LOCAL);
	git_config_free(all);
	return r < 0 ? repo_why(ret_why, -EIO, "its configuration", "") : 0;
}

int repo_settings_write(git_repository *repo, uint32_t chunk, char *ret_why)
{
	git_config *config;
	char buf[16];
	int r = open_config(&config, repo, ret_why);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < ARRAY_SIZE(settings) && r == 0; i++)
		if (git_config_set_string(config, settings[i].name,
					  wanted(i, chunk, buf, sizeof(buf))) <
		    0)
			r = repo_why(ret_why, -EIO, settings[i].name, "");
	git_config_free(config);
	return r;
}

int repo_settings_compare(git_repository *repo, uint32_t chunk,
			  void (*fn)(void *ctx, const char *name,
				     const char *wanted, const char *found),
			  void *ctx, char *ret_why)
{
	git_config *config;
	char buf[16];
	int r = open_config(&config, repo, ret_why);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		const char *want = wanted(i, chunk, buf, sizeof(buf));
		git_config_entry *entry = NULL;
		int found =
			git_config_get_entry(&entry, config, settings[i].name);

		if (found < 0 || strcmp(entry->value, want) != 0)
			fn(ctx, settings[i].name, want,
			   found < 0 ? NULL : entry->value);
		git_config_entry_free(entry);
	}
	git_config_free(config);
	return 0;
}
