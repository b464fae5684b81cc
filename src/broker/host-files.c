/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>

#include "broker/host-private.h"
#include "broker/keep.h"
#include "broker/opener.h"
#include "broker/scratch.h"
#include "common/reopen.h"

/* A file that the expression names. */
struct grant {
	uint32_t layer;
	unsigned int number; /* of the parameter */
	char *param;
	char *path;
	bool read_only;
	bool temporary; /* to be emptied at detach */
	bool in_use; /* a guest may have written to it */
	bool is_seen; /* ... and this broker has seen to it from the start */
	int fd; /* O_PATH; -1: see err */
	int err;
};

/* Kept as long as the disk is attached, once a guest may have written to what
 * is temporary. */
#define USED "used"

/* --- OPEN ----------------------------------------------------------------- */

static struct grant *find_grant(struct host *host, uint32_t layer,
				const char *param)
{
	for (size_t i = 0; i < host->nr_grants; i++) {
		struct grant *grant = &host->grants[i];

		if (grant->layer == layer && strcmp(grant->param, param) == 0)
			return grant;
	}
	return NULL;
}

/* flags: it was opened so; O_RDONLY: it has not come to that. */
static void fail_open(struct host *host, const char *path, int err, int flags)
{
	char why[128] = "not below one of image-roots";

	if (err == -ETIMEDOUT)
		(void)snprintf(why, sizeof(why),
			       "no answer from its file system");
	else if (err != -EXDEV)
		reopen_explain(err, flags, why, sizeof(why));
	host_answer_error(host, err, "%s: %s", path, why);
}

static void reopened(void *ctx, struct errand_result *results)
{
	struct host *host = ctx;
	const struct grant *grant =
		find_grant(host, host->request.layer, host->request.name);

	host->opening = NULL;
	if (results[0].err)
		fail_open(host, grant->path, results[0].err,
			  (int)host->request.flags);
	else
		host_send_answer(host, 0, false, results[0].fd, "");
}

/* ... and what a guest wrote must not be there after a detach, whoever the
 * broker is by then, or if there is none: then the next one finds the file by its
 * name.  Without these notes only this one knows. */
static void note_use(struct host *host, struct grant *grant)
{
	cleanup_free char *name = NULL;
	bool kept;
	int fd;

	if (grant->temporary && !grant->in_use) {
		name = scratch_describe(grant->fd, grant->path);
		if (name)
			keep_note_scratch(host->broker->keep, &host->id,
					  (unsigned int)(grant - host->grants),
					  name);
		fd = keep_file(host->broker->keep, &host->id, MSG_LAYER_NONE,
			       USED, XD_KEEP_STATE, 1, 0, &kept);
		if (fd >= 0)
			(void)close(fd);
		grant->is_seen = true;
	}
	grant->in_use = true;
}

void host_serve_open(struct host *host)
{
	const struct msg_service *request = &host->request;
	struct grant *grant;
	int r;

	if (host->resolving)
		return; /* resolved() comes back here */
	grant = find_grant(host, request->layer, request->name);
	if (!grant) {
		host_answer_error(host, -EPERM,
				  "%s is no path of layer %" PRIu32,
				  request->name, request->layer);
		return;
	}
	r = grant->err;
	if (r == 0)
		r = opener_check_flags((int)request->flags, grant->read_only);
	if (r == 0)
		r = opener_reopen(&host->opening, host->broker, grant->fd,
				  (int)request->flags, reopened, host);
	if (r == 0 && host->is_open && (request->flags & O_ACCMODE) == O_RDWR)
		note_use(host, grant);
	if (r < 0)
		fail_open(host, grant->path, r, O_RDONLY);
}

/* What it is is looked at when it is opened. */
int host_files_path(struct host *host, uint32_t layer, unsigned int param)
{
	int r = -EPERM;

	for (size_t i = 0; i < host->nr_grants; i++) {
		const struct grant *grant = &host->grants[i];

		if (grant->layer != layer || grant->number != param)
			continue;
		r = grant->err;
		if (r == 0)
			r = fcntl(grant->fd, F_DUPFD_CLOEXEC, 0);
		if (r == -1)
			r = -errno;
		if (r >= 0)
			return r;
		fail_open(host, grant->path, r, O_RDONLY);
		return r;
	}
	host_answer_error(host, r, "no path of layer %" PRIu32, layer);
	return r;
}

/* --- Which files ------------------------------------------------------------- */

static int add_grant(struct host *host, const struct layer *layer, size_t i)
{
	size_t n = host->nr_grants;
	struct grant *grants = realloc(host->grants, (n + 1) * sizeof(*grants));

	if (!grants)
		return -ENOMEM;
	host->grants = grants;
	grants[n] = (struct grant){
		.layer = layer->index,
		.number = (unsigned int)i,
		.param = strdup(layer->info->params[i].name),
		.path = strdup(layer->values[i].text),
		.read_only = layer->read_only,
		.temporary = layer->temporary,
		.fd = -1,
		.err = -EIO,
	};
	host->nr_grants++;
	return grants[n].param && grants[n].path ? 0 : -ENOMEM;
}

static int collect_grants(struct host *host, const struct layer *layer)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < layer->info->nr_params; i++)
		if (layer->info->params[i].type == XD_PATH &&
		    layer->values[i].set)
			r = add_grant(host, layer, i);
	for (unsigned int i = 0; r == 0 && i < layer->nr_below; i++)
		r = collect_grants(host, layer->below[i]);
	return r;
}

static void resolved(void *ctx, struct errand_result *results)
{
	struct host *host = ctx;

	host->resolving = NULL;
	for (size_t i = 0; i < host->nr_grants; i++) {
		host->grants[i].err = results[i].err;
		host->grants[i].fd = TAKE_FD(results[i].fd);
	}
	if (host->busy && host->request.kind == MSG_SERVICE_OPEN)
		host_serve_open(host);
	else if (host->busy && host->request.kind == MSG_SERVICE_SPAWN)
		host_serve_spawn(host);
}

static int start_resolving(struct host *host)
{
	cleanup_free const char **paths =
		calloc(host->nr_grants, sizeof(*paths));

	if (!paths)
		return -ENOMEM;
	for (size_t i = 0; i < host->nr_grants; i++)
		paths[i] = host->grants[i].path;
	return opener_resolve(&host->resolving, host->broker, paths,
			      host->nr_grants, resolved, host);
}

/* Has every path been looked up, and found? */
static bool has_grants(const struct host *host)
{
	for (size_t i = 0; i < host->nr_grants; i++)
		if (host->grants[i].fd < 0)
			return false;
	return host->nr_grants > 0;
}

void host_files_drop(struct host *host)
{
	for (size_t i = 0; i < host->nr_grants; i++) {
		if (host->grants[i].fd >= 0)
			(void)close(host->grants[i].fd);
		free(host->grants[i].param);
		free(host->grants[i].path);
	}
	free(host->grants);
	host->grants = NULL;
	host->nr_grants = 0;
}

/* A path means the file that it named at first: a process that takes the place
 * of a dead one gets the very same. */
int host_files_prepare(struct host *host, const struct layer *root)
{
	int r;

	if (has_grants(host))
		return 0;
	host_files_drop(host);
	r = collect_grants(host, root);
	if (r == 0 && host->nr_grants)
		r = start_resolving(host);
	return r;
}

/* --- The life of a process ---------------------------------------------------- */

/* A guest of an earlier broker's has written, and may not come back before the
 * disk is detached. */
void host_files_remember_use(struct host *host)
{
	int fd = keep_read(host->broker->keep, host->id.domid, host->id.devid,
			   USED);

	if (fd < 0)
		return;
	(void)close(fd);
	for (size_t i = 0; i < host->nr_grants; i++)
		if (!host->grants[i].read_only)
			host->grants[i].in_use = true;
}

void host_files_adopt(struct host *host, bool used)
{
	for (size_t i = 0; i < host->nr_grants; i++)
		host->grants[i].in_use = used && !host->grants[i].read_only;
}

void host_files_end(struct host *host)
{
	errand_cancel(TAKE_PTR(host->resolving));
	errand_cancel(TAKE_PTR(host->opening));
}

/* What this broker has come to later is like what is found without one: the file may
 * have been written over or replaced in between.  keep_discard() sees to that, where
 * there is a note. */
void host_files_discard(struct host *host)
{
	struct keep *keep = host->broker->keep;
	uint32_t domid = host->id.domid, devid = host->id.devid;

	for (size_t i = 0; i < host->nr_grants; i++) {
		const struct grant *grant = &host->grants[i];
		unsigned int n = (unsigned int)i;

		if (!grant->temporary || !grant->in_use || grant->fd < 0)
			continue;
		if (grant->is_seen || !keep_is_noted(keep, domid, devid, n))
			scratch_empty(host->broker, grant->fd, grant->path,
				      keep_leave(keep, domid, devid, n));
	}
}
