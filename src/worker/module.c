/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/module.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <utlist.h>

#include "common/util.h"

/* What version 1 had from its first day: a module that has less is broken. */
#define LEAST_SIZE offsetof(struct xd_backend, kick)

struct module {
	struct module *next;
	void *handle;
	struct xd_backend backend;
	struct backend_info *info;
};

struct modules {
	const char *dir;
	struct module *list;
	char error[512];
};

struct modules *modules_new(const char *dir)
{
	struct modules *modules = calloc(1, sizeof(*modules));

	if (modules)
		modules->dir = dir;
	return modules;
}

static void module_free(struct module *module)
{
	backend_info_free(module->info);
	if (module->handle)
		(void)dlclose(module->handle);
	free(module);
}

void modules_free(struct modules *modules)
{
	struct module *module, *next;

	if (!modules)
		return;
	LL_FOREACH_SAFE(modules->list, module, next)
		module_free(module);
	free(modules);
}

static void fail(struct modules *modules, const char *fmt, ...) PRINTF(2, 3);

static void fail(struct modules *modules, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(modules->error, sizeof(modules->error), fmt, ap);
	va_end(ap);
}

/* No slashes and no dots: a name must not lead out of the folder. */
static bool is_name(const char *name)
{
	if (!islower((unsigned char)*name))
		return false;
	while (islower((unsigned char)*name) || isdigit((unsigned char)*name) ||
	       *name == '-')
		name++;
	return *name == '\0';
}

/* NULL when the backend can be used as it is, else what is wrong with it. */
static const char *find_fault(const struct xd_backend *backend,
			      const char *name)
{
	if (!backend->name || strcmp(backend->name, name) != 0)
		return "its name is not that of its file";
	if (!backend->summary || !backend->params)
		return "summary or params is missing";
	if (!backend->open || !backend->close || !backend->submit)
		return "open, close or submit is missing";
	if (!backend->map != !backend->unmap)
		return "map and unmap go together";
	if (backend->resized && !backend->resize)
		return "resized without resize";
	return NULL;
}

/* A module may be older than this header, or newer: what both know counts. */
static bool copy_backend(struct modules *modules, struct module *module,
			 const char *name)
{
	const struct xd_backend *from =
		dlsym(module->handle, "xendisk_backend_v1");
	const char *fault;

	if (!from) {
		fail(modules, "%s/%s.so exports no xendisk_backend_v1",
		     modules->dir, name);
		return false;
	}
	if (from->version != XD_API_VERSION || from->size < LEAST_SIZE) {
		fail(modules,
		     "%s/%s.so is for version %u of the interface (%u bytes), "
		     "not %u",
		     modules->dir, name, from->version, from->size,
		     XD_API_VERSION);
		return false;
	}
	memcpy(&module->backend, from,
	       MIN(from->size, sizeof(module->backend)));
	fault = find_fault(&module->backend, name);
	if (fault)
		fail(modules, "%s/%s.so: %s", modules->dir, name, fault);
	return !fault;
}

static struct module *load(struct modules *modules, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s.so", modules->dir, name);
	struct module *module;

	if (!path || access(path, F_OK) < 0)
		return NULL; /* there is no such backend */
	module = calloc(1, sizeof(*module));
	if (!module)
		return NULL;
	module->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!module->handle) {
		fail(modules, "cannot load %s", dlerror());
		goto unusable;
	}
	if (!copy_backend(modules, module, name))
		goto unusable;
	module->info = backend_info_new(&module->backend);
	if (!module->info)
		goto unusable;
	LL_PREPEND(modules->list, module);
	return module;

unusable:
	module_free(module);
	return NULL;
}

const struct backend_info *modules_info(struct modules *modules,
					const char *name)
{
	struct module *module;

	LL_FOREACH(modules->list, module)
		if (strcmp(module->backend.name, name) == 0)
			return module->info;
	if (!is_name(name))
		return NULL;
	module = load(modules, name);
	return module ? module->info : NULL;
}

const struct xd_backend *modules_backend(const struct modules *modules,
					 const struct backend_info *info)
{
	struct module *module;

	LL_FOREACH(modules->list, module)
		if (module->info == info)
			return &module->backend;
	return NULL;
}

const char *modules_error(const struct modules *modules)
{
	return modules->error;
}
