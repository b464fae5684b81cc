/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.c - from an expression to an export.
 *
 * The expression is parsed twice: here, for @names and URIs and for the paths
 * in it, and by the stack, which gets the canonical form and opens it.
 */
#include "config.h"

#include "serve/disk.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>

#include "common/expr.h"
#include "common/settings.h"
#include "serve/complain.h"
#include "serve/host.h"
#include "serve/private.h"
#include "worker/module.h"

/* --- Understanding it ----------------------------------------------------- */

struct reading {
	const struct serve_context *context;
	struct modules *modules;
	struct settings *settings;
	char name[NAME_MAX + 1]; /* of nth_backend() */
};

static const struct backend_info *find_backend(void *ctx, const char *name)
{
	const struct reading *reading = ctx;

	return modules_info(reading->modules, name);
}

static bool has_scheme(const struct backend_info *info, const char *scheme)
{
	for (const char *s = info->schemes; s && *s; s += strlen(s) + 1)
		if (strcmp(s, scheme) == 0)
			return true;
	return false;
}

/* Only a module knows which schemes are its own. */
static const struct backend_info *find_scheme(void *ctx, const char *scheme)
{
	const struct reading *reading = ctx;
	const struct backend_info *found = NULL;
	DIR *dir = opendir(reading->context->backend_dir);
	struct dirent *entry;

	while (dir && !found && (entry = readdir(dir))) {
		cleanup_free char *name = strdup(entry->d_name);
		char *dot = name ? strrchr(name, '.') : NULL;

		if (!dot || strcmp(dot, ".so") != 0)
			continue;
		*dot = '\0';
		found = modules_info(reading->modules, name);
		if (found && !has_scheme(found, scheme))
			found = NULL;
	}
	if (dir)
		(void)closedir(dir);
	return found;
}

static const char *find_named(void *ctx, const char *name)
{
	const struct reading *reading = ctx;

	return settings_disk(reading->settings, name);
}

static int is_module(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && dot > entry->d_name && strcmp(dot, ".so") == 0;
}

static const char *nth_backend(void *ctx, size_t n)
{
	struct reading *reading = ctx;
	struct dirent **files;
	int nr = scandir(reading->context->backend_dir, &files, is_module,
			 alphasort);

	reading->name[0] = '\0';
	for (int i = 0; i < nr; i++) {
		if ((size_t)i == n)
			(void)snprintf(reading->name, sizeof(reading->name),
				       "%.*s",
				       (int)strlen(files[i]->d_name) - 3,
				       files[i]->d_name);
		free(files[i]);
	}
	if (nr >= 0)
		free(files);
	return reading->name[0] ? reading->name : NULL;
}

static const char *nth_named(void *ctx, size_t n)
{
	const struct reading *reading = ctx;
	const struct settings *settings = reading->settings;

	return n < settings->nr_disks ? settings->disks[n].name : NULL;
}

static int begin_reading(struct reading *reading,
			 const struct serve_context *context)
{
	bool given = context->config[0] != '\0';
	char why[SETTINGS_TEXT_MAX];
	int r;

	reading->context = context;
	r = settings_load(given ? context->config : SETTINGS_PATH, given,
			  &reading->settings, why);
	if (r < 0) {
		complain("%s", why);
		return r;
	}
	if (access(context->backend_dir, R_OK | X_OK) < 0) {
		r = -errno;
		complain("backends in %s: %s", context->backend_dir,
			 strerror(-r));
		return r;
	}
	reading->modules = modules_new(context->backend_dir);
	return reading->modules ? 0 : -ENOMEM;
}

static void end_reading(struct reading *reading)
{
	modules_free(reading->modules);
	settings_free(reading->settings);
}

/* The canonical form, and a host for its paths. */
static int understand(struct serve_disk *disk,
		      const struct serve_context *context,
		      const char *expression, char **ret_canonical)
{
	struct reading reading = { 0 };
	const struct expr_env env = { .ctx = &reading,
				      .backend = find_backend,
				      .scheme = find_scheme,
				      .named = find_named,
				      .nth_backend = nth_backend,
				      .nth_named = nth_named };
	struct expr_error error;
	struct layer *root = NULL;
	int r = begin_reading(&reading, context);

	if (r == 0) {
		r = expr_parse(expression, context->readonly, &env, &root,
			       &error);
		if (r == -EINVAL)
			complain("%s: at byte %zu: %s", expression,
				 error.position, error.message);
	}
	if (r == 0) {
		*ret_canonical = expr_print(root);
		r = *ret_canonical ? 0 : -ENOMEM;
	}
	if (r == 0)
		r = local_host_new(&disk->host, root, context->backend_dir,
				   context->isolated,
				   TAKE_PTR(reading.settings), &disk->services);
	expr_free(root);
	end_reading(&reading);
	return r;
}

/* --- Opening it ----------------------------------------------------------- */

static void fill_export(struct serve_disk *disk)
{
	const struct xd_limits *limits = disk->limits;

	disk->export = (struct nbd_export){
		.name = disk->name,
		.description = disk->description,
		.size = limits->size,
		.minimum_block = limits->sector_size,
		.preferred_block = MAX(limits->physical_sector_size, 4096),
		.memory_alignment = limits->memory_alignment,
		.readonly = limits->readonly,
		.flush = true, /* where it is not needed it costs nothing */
		.fua = true,
		.trim = limits->discard_granularity,
		.zero = limits->zero,
		.multi_conn = true,
		.owner = disk,
	};
}

/* What a name in the configuration stands for may be a secret, and is not told. */
static int describe(struct serve_disk *disk, const char *expression)
{
	disk->description =
		strdup(strchr(expression, '@') ? expression : disk->canonical);
	return disk->description ? 0 : -ENOMEM;
}

static int open_stack(struct serve_disk *disk,
		      const struct serve_context *context)
{
	const struct stack_spec spec = {
		.expression = disk->canonical,
		.read_only = context->readonly,
		.backend_dir = context->backend_dir,
		.state_dir = context->state_dir,
	};
	char why[MSG_TEXT_MAX] = "";
	int r = stack_open(&disk->stack, &spec, disk->services, why);

	if (r == 0)
		r = stack_activate(disk->stack, false, why);
	if (r < 0)
		complain("%s", why);
	return r;
}

int serve_disk_open(struct serve_disk **ret,
		    const struct serve_context *context, const char *name,
		    const char *expression)
{
	struct serve_disk *disk = calloc(1, sizeof(*disk));
	int r = -ENOMEM;

	if (!disk)
		return -ENOMEM;
	disk->name = strdup(name);
	if (disk->name)
		r = range_table_new(&disk->ranges,
				    SERVE_MAX_LANES * SERVE_MAX_WRITES, true);
	if (r == 0)
		r = understand(disk, context, expression, &disk->canonical);
	if (r == 0)
		r = describe(disk, expression);
	if (r == 0)
		r = open_stack(disk, context);
	if (r < 0) {
		serve_disk_close(disk);
		return r;
	}
	disk->limits = stack_limits(disk->stack);
	fill_export(disk);
	*ret = disk;
	return 0;
}

void serve_disk_close(struct serve_disk *disk)
{
	char why[MSG_TEXT_MAX] = "";

	if (!disk)
		return;
	if (disk->stack && stack_deactivate(disk->stack, why) < 0)
		complain("%s: %s", disk->name, why);
	stack_close(disk->stack);
	services_free(disk->services);
	local_host_free(disk->host);
	range_table_free(disk->ranges);
	free(disk->description);
	free(disk->canonical);
	free(disk->name);
	free(disk);
}

const struct nbd_export *serve_disk_export(const struct serve_disk *disk)
{
	return &disk->export;
}

unsigned int serve_disk_channels(const struct serve_disk *disk)
{
	return disk->limits->max_channels;
}

/* --- Channels ------------------------------------------------------------- */

int serve_channel_open(struct serve_channel **ret, struct serve_disk *disk,
		       struct engine *engine, unsigned int lane)
{
	struct serve_channel *channel = calloc(1, sizeof(*channel));
	char why[MSG_TEXT_MAX] = "";
	int r;

	if (!channel)
		return -ENOMEM;
	r = stack_channel_open(disk->stack, engine, lane, &channel->top, why);
	if (r < 0) {
		complain("%s: %s", disk->name, why);
		free(channel);
		return r;
	}
	channel->disk = disk;
	channel->engine = engine;
	channel->lane = lane;
	disk->channels[lane] = channel;
	*ret = channel;
	return 0;
}

struct last_flush {
	bool done;
	int err;
};

static void last_done(struct xd_request *req, int err)
{
	struct last_flush *last = req->owner;

	last->err = err;
	last->done = true;
}

void serve_channel_stop(struct serve_channel *channel)
{
	serve_end_waiting(channel);
	stack_stop(channel->top);
}

static int flush_last(struct serve_channel *channel)
{
	struct last_flush last = { .done = false };
	struct xd_request req = { .op = XD_FLUSH,
				  .done = last_done,
				  .owner = &last };

	/* Again: what told it so for the commands ended with them. */
	serve_channel_stop(channel);
	xd_submit(channel->top, &req);
	stack_kick(channel->top);
	while (!last.done)
		if (!stack_reap(channel->top))
			(void)engine_run(channel->engine, UINT64_MAX);
	return last.err;
}

int serve_channel_close(struct serve_channel *channel, bool last)
{
	int r = 0;

	if (!channel)
		return 0;
	if (last && !channel->disk->limits->readonly)
		r = flush_last(channel);
	if (r < 0)
		complain("%s: the last flush failed: %s", channel->disk->name,
			 strerror(-r));
	stack_channel_close(channel->top);
	channel->disk->channels[channel->lane] = NULL;
	free(channel);
	return r;
}
