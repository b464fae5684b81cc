/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The child servers of a disk: SPAWN.  They outlive its processes. */
#include "config.h"

#include <inttypes.h>

#include "broker/host-private.h"
#include "broker/nursery.h"

/* One for each layer whose backend declares a server. */
struct ward {
	uint32_t layer;
	struct nursling *nursling;
};

static struct ward *find_ward(const struct host *host, uint32_t layer)
{
	for (size_t i = 0; i < host->nr_wards; i++)
		if (host->wards[i].layer == layer)
			return &host->wards[i];
	return NULL;
}

/* Until all its files are lent.  On failure it has been answered. */
static int lend_files(struct host *host, const struct ward *ward)
{
	int param;

	while ((param = nursling_wants(ward->nursling)) >= 0) {
		int fd =
			host_files_path(host, ward->layer, (unsigned int)param);

		if (fd < 0)
			return fd;
		nursling_lend(ward->nursling, fd);
	}
	return 0;
}

void host_serve_spawn(struct host *host)
{
	const struct msg_service *request = &host->request;
	const struct ward *ward = find_ward(host, request->layer);
	cleanup_close int pending = -1;
	int r;

	if (host->resolving)
		return; /* it comes back here */
	if (!ward) {
		host_answer_error(host, -EPERM,
				  "layer %" PRIu32 " has no server",
				  request->layer);
		return;
	}
	if (lend_files(host, ward) < 0)
		return;
	r = nursling_visit(ward->nursling, request->flags, &pending);
	if (r < 0)
		host_answer_error(host, r, "%s", strerror(-r));
	else
		host_send_answer(host, 0, false, pending, "");
}

static int add_ward(struct host *host, const struct layer *layer,
		    const char *expression)
{
	struct ward *wards =
		realloc(host->wards, (host->nr_wards + 1) * sizeof(*wards));
	struct program program;
	const struct nursling_spec spec = { .id = &host->id,
					    .layer = layer->index,
					    .read_only = layer->read_only,
					    .expression = expression,
					    .program = &program };
	int r;

	if (!wards)
		return -ENOMEM;
	host->wards = wards;
	wards[host->nr_wards] = (struct ward){ .layer = layer->index };
	r = program_new(&program, layer);
	if (r < 0)
		return r;
	r = nursling_new(&wards[host->nr_wards].nursling, host->broker->nursery,
			 &spec);
	if (r < 0)
		program_free(&program);
	else
		host->nr_wards++;
	return r;
}

static int collect_wards(struct host *host, const struct layer *layer,
			 const char *expression)
{
	int r = layer->info->server ? add_ward(host, layer, expression) : 0;

	for (unsigned int i = 0; r == 0 && i < layer->nr_below; i++)
		r = collect_wards(host, layer->below[i], expression);
	return r;
}

int host_children_prepare(struct host *host, const struct layer *root,
			  const char *expression)
{
	if (host->nr_wards)
		return 0;
	return collect_wards(host, root, expression);
}

void host_children_drop(struct host *host, bool discard)
{
	for (size_t i = 0; i < host->nr_wards; i++)
		nursling_drop(host->wards[i].nursling, discard);
	free(host->wards);
	host->wards = NULL;
	host->nr_wards = 0;
	if (discard && host->broker->nursery)
		nursery_discard(host->broker->nursery, host->id.domid,
				host->id.devid);
}
