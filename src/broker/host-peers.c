/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <inttypes.h>
#include <utlist.h>

#include "broker/connector.h"
#include "broker/host-private.h"

/* A server that the expression names, or credentials. */
struct peer {
	uint32_t layer;
	char *param;
	bool is_server;
	char *uri; /* or the name of the credentials */
};

/* A connection being made: the child ends with the process that asked. */
struct calling {
	struct calling *prev;
	struct calling *next;
	struct host *host;
	struct errand *errand;
};

/* More at a time is an attack: a lane makes one, and tries again later. */
#define MAX_CALLINGS 16

/* --- CONNECT -------------------------------------------------------------- */

static void end_calling(struct calling *calling)
{
	DL_DELETE(calling->host->callings, calling);
	calling->host->nr_callings--;
	free(calling);
}

/* The asker has heard by itself. */
static void called(void *ctx, struct errand_result *results)
{
	(void)results;
	end_calling(ctx);
}

static int start_calling(struct host *host, const char *uri, int *ret_pending)
{
	struct calling *calling;
	int r;

	if (host->nr_callings >= MAX_CALLINGS)
		return -EAGAIN;
	calling = calloc(1, sizeof(*calling));
	if (!calling)
		return -ENOMEM;
	calling->host = host;
	r = connector_start(&calling->errand, host->broker, uri, ret_pending,
			    called, calling);
	if (r < 0) {
		free(calling);
		return r;
	}
	DL_APPEND(host->callings, calling);
	host->nr_callings++;
	return 0;
}

/* What is granted by this name, or NULL, and that is answered. */
static const struct peer *find_peer(struct host *host)
{
	const struct msg_service *request = &host->request;

	for (size_t i = 0; i < host->nr_peers; i++) {
		const struct peer *peer = &host->peers[i];

		if (peer->layer == request->layer &&
		    strcmp(peer->param, request->name) == 0 &&
		    peer->is_server == (request->kind == MSG_SERVICE_CONNECT))
			return peer;
	}
	host_answer_error(host, -EPERM, "%s is not granted to layer %" PRIu32,
			  request->name, request->layer);
	return NULL;
}

void host_serve_connect(struct host *host)
{
	const struct peer *peer = find_peer(host);
	cleanup_close int pending = -1;
	int r;

	if (!peer)
		return;
	r = start_calling(host, peer->uri, &pending);
	if (r < 0)
		host_answer_error(host, r, "%s: %s", peer->uri, strerror(-r));
	else
		host_send_answer(host, 0, false, pending, "");
}

void host_serve_credential(struct host *host)
{
	const struct peer *peer = find_peer(host);
	char why[SETTINGS_TEXT_MAX];
	const char *value;
	int r;

	if (!peer)
		return;
	r = settings_credential(host->broker->settings, peer->uri,
				host->request.reason, &value, why);
	if (r == 0)
		host_send_answer(host, 0, false, -1, value);
	else
		host_answer_error(host, r, "%s", why);
}

/* --- Which peers ------------------------------------------------------------- */

static int add_peer(struct host *host, const struct layer *layer, size_t i)
{
	size_t n = host->nr_peers;
	struct peer *peers = realloc(host->peers, (n + 1) * sizeof(*peers));

	if (!peers)
		return -ENOMEM;
	host->peers = peers;
	peers[n] = (struct peer){
		.layer = layer->index,
		.param = strdup(layer->info->params[i].name),
		.is_server = layer->info->params[i].type == XD_SERVER,
		.uri = strdup(layer->values[i].text),
	};
	host->nr_peers++;
	return peers[n].param && peers[n].uri ? 0 : -ENOMEM;
}

static int collect_peers(struct host *host, const struct layer *layer)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < layer->info->nr_params; i++)
		if ((layer->info->params[i].type == XD_SERVER ||
		     layer->info->params[i].type == XD_CREDENTIALS) &&
		    layer->values[i].set)
			r = add_peer(host, layer, i);
	for (unsigned int i = 0; r == 0 && i < layer->nr_below; i++)
		r = collect_peers(host, layer->below[i]);
	return r;
}

void host_peers_drop(struct host *host)
{
	for (size_t i = 0; i < host->nr_peers; i++) {
		free(host->peers[i].param);
		free(host->peers[i].uri);
	}
	free(host->peers);
	host->peers = NULL;
	host->nr_peers = 0;
}

/* They are the same each time, the expression being the same. */
int host_peers_prepare(struct host *host, const struct layer *root)
{
	host_peers_drop(host);
	return collect_peers(host, root);
}

void host_peers_end(struct host *host)
{
	while (host->callings) {
		errand_cancel(host->callings->errand);
		end_calling(host->callings);
	}
}
