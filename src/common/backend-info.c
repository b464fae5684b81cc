/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/expr.h"

#include <string.h>

#include "common/util.h"

/* "a\0b\0" with the empty string at its end. */
static char *copy_list(const char *list)
{
	size_t size = 1;
	char *copy;

	for (const char *p = list; *p; p += strlen(p) + 1)
		size += strlen(p) + 1;
	copy = malloc(size);
	if (copy)
		memcpy(copy, list, size);
	return copy;
}

static bool copy_text(const char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return *to || !from;
}

static bool copy_param(struct xd_param *to, const struct xd_param *from)
{
	*to = (struct xd_param){ .type = from->type, .flags = from->flags };
	return copy_text(&to->name, from->name) &&
	       copy_text(&to->choices, from->choices) &&
	       copy_text(&to->preset, from->preset) &&
	       copy_text(&to->help, from->help);
}

struct backend_info *backend_info_new(const struct xd_backend *backend)
{
	struct backend_info *info = calloc(1, sizeof(*info));
	unsigned int count = 0;

	if (!info)
		return NULL;
	while (backend->params[count].type != XD_END)
		count++;
	info->name = strdup(backend->name);
	info->summary = strdup(backend->summary);
	info->flags = backend->flags;
	info->params = calloc(count + 1, sizeof(*info->params));
	if (backend->schemes)
		info->schemes = copy_list(backend->schemes);
	if (backend->server)
		info->server = copy_list(backend->server);
	if (!info->name || !info->summary || !info->params ||
	    (backend->schemes && !info->schemes) ||
	    (backend->server && !info->server))
		goto no_memory;
	for (unsigned int i = 0; i < count; i++) {
		/* Counted first: what is half copied is freed too. */
		info->nr_params++;
		if (!copy_param(&info->params[i], &backend->params[i]))
			goto no_memory;
	}
	return info;

no_memory:
	backend_info_free(info);
	return NULL;
}

/* The texts of a table are const for its readers; here they are our copies. */
static void free_text(const char *text)
{
	free((void *)(uintptr_t)text);
}

void backend_info_free(struct backend_info *info)
{
	if (!info)
		return;
	for (unsigned int i = 0; i < info->nr_params; i++) {
		free_text(info->params[i].name);
		free_text(info->params[i].choices);
		free_text(info->params[i].preset);
		free_text(info->params[i].help);
	}
	free(info->params);
	free(info->name);
	free(info->summary);
	free(info->schemes);
	free(info->server);
	free(info);
}

const struct backend_info *expr_disk_info(void)
{
	static char name[] = "disk";
	static char summary[] = "settings of a whole disk";
	static struct xd_param params[] = {
		{ "x", XD_DISK, XD_POSITIONAL | XD_REQUIRED, NULL, NULL,
		  "the disk" },
		{ "on-error", XD_ENUM, 0, "hold|report", "hold",
		  "no space, no server: hold requests, or report an error" },
		{ "flush-error", XD_ENUM, 0, "report|hold", "report",
		  "a failed flush: the guest sees EIO, or waits" },
		{ "poll-max-us", XD_UINT, 0, "10000", NULL,
		  "microseconds to look for a request before sleeping" },
		{ NULL, XD_END, 0, NULL, NULL, NULL },
	};
	static const struct backend_info info = { .name = name,
						  .summary = summary,
						  .params = params,
						  .nr_params = 4 };

	return &info;
}
