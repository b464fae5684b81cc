/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "expr-env.h"

#include <string.h>

#include "common/util.h"

/* Backends with every kind of parameter, like those that we ship. */
static const struct xd_param raw_params[] = {
	{ "path", XD_PATH, XD_POSITIONAL | XD_REQUIRED, NULL, NULL, "image" },
	{ "cache", XD_ENUM, 0, "none|writeback|writethrough", NULL, "c" },
	{ "lock", XD_BOOL, 0, NULL, "yes", "l" },
	{ .type = XD_END }
};
static const struct xd_param mem_params[] = {
	{ "size", XD_SIZE,
	  XD_POSITIONAL | XD_WHOLE_SECTORS | XD_SIZE_OF_SIBLING, NULL, NULL,
	  "size" },
	{ .type = XD_END }
};
static const struct xd_param null_params[] = {
	{ "size", XD_SIZE, XD_POSITIONAL | XD_WHOLE_SECTORS, NULL, "1G", "s" },
	{ .type = XD_END }
};
static const struct xd_param cow_params[] = {
	{ "base", XD_DISK, XD_POSITIONAL | XD_REQUIRED | XD_READ_ONLY, NULL,
	  NULL, "base" },
	{ "top", XD_DISK, XD_POSITIONAL | XD_REQUIRED | XD_WRITTEN, NULL, NULL,
	  "top" },
	{ .type = XD_END }
};
static const struct xd_param wrap_params[] = {
	{ "x", XD_DISK, XD_POSITIONAL | XD_REQUIRED, NULL, NULL, "x" },
	{ "wait", XD_TIME, 0, NULL, NULL, "w" },
	{ "iops", XD_UINT, 0, NULL, NULL, "n" },
	{ .type = XD_END }
};
static const struct xd_param nbd_params[] = {
	{ "uri", XD_STRING, XD_POSITIONAL | XD_REQUIRED, NULL, NULL, "uri" },
	{ .type = XD_END }
};

static const struct xd_param kit_params[] = {
	{ "plugin", XD_STRING, XD_POSITIONAL | XD_REQUIRED | XD_WORD, NULL,
	  NULL, "p" },
	{ "parameters", XD_STRING, XD_POSITIONAL | XD_REPEATED | XD_WORD, NULL,
	  NULL, "w" },
	{ "filter", XD_STRING, XD_REPEATED | XD_WORD, NULL, NULL, "f" },
	{ "image", XD_PATH, 0, NULL, NULL, "i" },
	{ .type = XD_END }
};

static const struct xd_backend backends[] = {
	{ .name = "kit",
	  .summary = "",
	  .params = kit_params,
	  .server = "kit\0{?readonly}-r\0{!readonly}-w\0--filter={filter}\0"
		    "{plugin}\0{parameters}\0json:{{\"file\":\"{image}\"}}\0" },
	{ .name = "raw", .summary = "", .params = raw_params },
	{ .name = "mem", .summary = "", .params = mem_params },
	{ .name = "null", .summary = "", .params = null_params },
	{ .name = "cow", .summary = "", .params = cow_params },
	{ .name = "throttle", .summary = "", .params = wrap_params },
	{ .name = "readonly",
	  .summary = "",
	  .params = wrap_params,
	  .flags = XD_ALWAYS_READ_ONLY },
	{ .name = "nbd",
	  .summary = "",
	  .params = nbd_params,
	  .schemes = "nbd\0nbd+unix\0" },
};

static struct backend_info *infos[ARRAY_SIZE(backends)];

int expr_env_make(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		infos[i] = backend_info_new(&backends[i]);
		if (!infos[i])
			return -ENOMEM;
	}
	return 0;
}

void expr_env_free(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		backend_info_free(infos[i]);
}

static const struct backend_info *find_backend(void *ctx, const char *name)
{
	(void)ctx;
	for (size_t i = 0; i < ARRAY_SIZE(infos); i++)
		if (infos[i] && strcmp(infos[i]->name, name) == 0)
			return infos[i];
	return NULL;
}

static const struct backend_info *find_scheme(void *ctx, const char *scheme)
{
	for (size_t i = 0; i < ARRAY_SIZE(infos); i++)
		for (const char *s = infos[i]->schemes; s && *s;
		     s += strlen(s) + 1)
			if (strcmp(s, scheme) == 0)
				return infos[i];
	(void)ctx;
	return NULL;
}

static const char *find_named(void *ctx, const char *name)
{
	(void)ctx;
	if (strcmp(name, "web1") == 0)
		return "disk(/srv/web1.img, on-error=report)";
	if (strcmp(name, "loop") == 0)
		return "throttle(@loop)";
	if (strcmp(name, "bad") == 0)
		return "raw(srv)";
	if (strcmp(name, "alias") == 0)
		return "@web1";
	if (strcmp(name, "control") == 0)
		return "/srv/a\nb";
	if (strcmp(name, "deep") == 0)
		return "throttle(throttle(throttle(throttle(throttle(throttle("
		       "throttle(throttle(null))))))))";
	return NULL;
}

static const char *nth_backend(void *ctx, size_t n)
{
	(void)ctx;
	return n < ARRAY_SIZE(backends) ? backends[n].name : NULL;
}

static const char *nth_named(void *ctx, size_t n)
{
	static const char *const names[] = { "web1", "loop", "bad" };

	(void)ctx;
	return n < ARRAY_SIZE(names) ? names[n] : NULL;
}

const struct expr_env expr_env = { .backend = find_backend,
				   .scheme = find_scheme,
				   .named = find_named,
				   .nth_backend = nth_backend,
				   .nth_named = nth_named };
