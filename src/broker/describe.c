/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/describe.h"

#include <dlfcn.h>
#include <jansson.h>
#include <string.h>

#include "broker/registry.h"
#include "common/util.h"
#include "xendisk-backend.h"

#define SYMBOL "xendisk_backend_v1"

/* What version 1 had from its first day. */
#define SIZE_V1 offsetof(struct xd_backend, kick)

static int print(int out, json_t *object)
{
	int r = object ? json_dumpfd(object, out, JSON_COMPACT) : -1;

	json_decref(object);
	return r < 0 ? 1 : 0;
}

/* "a\0b\0" as an array; NULL is an empty one. */
static json_t *describe_list(const char *list)
{
	json_t *array = json_array();

	for (; list && *list; list += strlen(list) + 1)
		json_array_append_new(array, json_string(list));
	return array;
}

static json_t *describe_params(const struct xd_param *param)
{
	json_t *array = json_array();

	for (; param->type != XD_END; param++)
		json_array_append_new(
			array,
			json_pack("{s:s, s:i, s:i, s:s*, s:s*, s:s*}", "name",
				  param->name, "type", (int)param->type,
				  "flags", (int)param->flags, "choices",
				  param->choices, "preset", param->preset,
				  "help", param->help));
	return array;
}

/* Is the table one that we can read?  Returns what is wrong with it. */
static const char *complaint(const struct xd_backend *backend)
{
	if (backend->version != XD_API_VERSION)
		return "made for another version of xendisk-backend.h";
	if (backend->size < SIZE_V1)
		return "its struct xd_backend is too short";
	if (!backend->name || !backend->summary || !backend->params)
		return "it lacks a name, a summary or params";
	if (!backend->open || !backend->close || !backend->submit)
		return "it lacks open, close or submit";
	if (!backend->map != !backend->unmap)
		return "it has only one of map and unmap";
	return NULL;
}

int describe(const char *file, int out)
{
	void *module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	struct xd_backend all = { 0 };
	const struct xd_backend *backend;
	const char *why;

	if (!module)
		return print(out, json_pack("{s:s}", "error", dlerror()));
	backend = dlsym(module, SYMBOL);
	if (!backend)
		return print(out, json_pack("{s:s}", "error",
					    "it has no symbol " SYMBOL));
	/* A module may be older than this header: what it lacks is not set. */
	if (backend->version == XD_API_VERSION)
		memcpy(&all, backend, MIN(backend->size, sizeof(all)));
	else
		all.version = backend->version;
	why = complaint(&all);
	if (why)
		return print(out, json_pack("{s:s}", "error", why));
	return print(out, json_pack("{s:s, s:s, s:i, s:o, s:o, s:o}", "name",
				    all.name, "summary", all.summary, "flags",
				    (int)all.flags, "schemes",
				    describe_list(all.schemes), "params",
				    describe_params(all.params), "server",
				    describe_list(all.server)));
}
