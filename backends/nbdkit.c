/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbdkit.c - a disk that a plugin of nbdkit makes, in a process of its own.
 *
 * The host starts it, and starts it again when it dies; here it is only said when
 * that would be wrong.  All else is what any NBD server gets (nbd.c).
 */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "nbd.h"

static const struct xd_param params[] = {
	{ "plugin", XD_STRING, XD_POSITIONAL | XD_REQUIRED | XD_WORD, NULL,
	  NULL, "name of the plugin" },
	{ "parameters", XD_STRING, XD_POSITIONAL | XD_REPEATED | XD_WORD, NULL,
	  NULL,
	  "what the plugin and its filters are told, in quotes: "
	  "\"key=value\"" },
	{ "filter", XD_STRING, XD_REPEATED | XD_WORD, NULL, NULL,
	  "name of a filter; the first is the outermost" },
	{ "restart", XD_BOOL, 0, NULL, NULL,
	  "is it started again when it dies?" },
	NBD_OPTIONS("check"),
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

/* What they are given is in their own memory, or a temporary file. */
static const char *const forgetful_plugins[] = { "memory", "data", "tmpdisk" };
static const char *const forgetful_filters[] = { "cow" };

static bool is_one_of(const char *const *words, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(words[i], word) == 0)
			return true;
	return false;
}

static bool forgets(const struct xd_disk *disk)
{
	const char *filter = xd_arg_string(disk, "filter");

	if (xd_arg_set(disk, "restart"))
		return !xd_arg_bool(disk, "restart");
	for (; filter && *filter; filter += strlen(filter) + 1)
		if (is_one_of(forgetful_filters, ARRAY_SIZE(forgetful_filters),
			      filter))
			return true;
	return is_one_of(forgetful_plugins, ARRAY_SIZE(forgetful_plugins),
			 xd_arg_string(disk, "plugin"));
}

static int prepare(struct nbd_disk *nbd)
{
	struct xd_disk *disk = nbd->disk;

	nbd->child = true;
	(void)snprintf(nbd->place, sizeof(nbd->place), "nbdkit %.200s",
		       xd_arg_string(disk, "plugin"));
	/* Nothing is lost where nothing was written. */
	if (!xd_readonly(disk) && forgets(disk))
		nbd->spawn_flags = XD_SPAWN_ONCE;
	return 0;
}

static int nbdkit_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	return nbd_open(disk, ret_limits, prepare);
}

XD_API const struct xd_backend xendisk_backend_v1 = {
	NBD_MEMBERS,
	.name = "nbdkit",
	.summary = "a plugin of nbdkit, in a process of its own",
	.params = params,
	.server = "nbdkit\0--foreground\0{?readonly}--readonly\0"
		  "--filter={filter}\0{plugin}\0{parameters}\0",
	.open = nbdkit_open,
};
