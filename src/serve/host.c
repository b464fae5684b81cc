/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A request for a connection is answered at once with one end of a socket pair, as by
 * the broker, since it may come from a lane, which must not wait.  The connection is
 * made by another thread than the one that answers, one after the other: looking up a
 * name, a host that is far away and a server that starts take their time.
 */
#include "config.h"

#include "serve/host.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/reopen.h"
#include "common/server.h"
#include "common/settings.h"
#include "common/util.h"
#include "serve/child.h"
#include "serve/reach.h"

/* A file, a server or credentials that the expression names; or a server that it
 * needs. */
struct grant {
	struct grant *next;
	uint32_t layer;
	unsigned int number; /* of the parameter */
	struct serve_child *child; /* or NULL; then param is "" */
	char *param;
	char *path; /* or a URI, or a name */
	int fd; /* O_PATH; or -errno; -1: no path */
	int reach; /* the process that connects for us (reach.h); -1: none */
};

/* A connection that somebody waits for at the other end of sock. */
struct errand {
	struct errand *next;
	const struct grant *grant;
	bool once; /* a server of our own is not started again */
	int sock;
};

struct local_host {
	struct grant *grants;
	struct settings *settings;
	const char *backend_dir;
	bool isolated; /* it will be */
	int sock;
	pthread_t thread; /* answers */
	bool running;
	pthread_t caller; /* connects */
	bool calling;
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t news;
	struct errand *errands; /* the oldest in front */
	bool ending;
};

/* --- Files ---------------------------------------------------------------- */

static int add_grant(struct local_host *host, const struct layer *layer,
		     unsigned int i)
{
	const struct xd_param *param = &layer->info->params[i];
	struct grant *grant = calloc(1, sizeof(*grant));

	if (!grant)
		return -ENOMEM;
	grant->next = host->grants;
	host->grants = grant;
	grant->layer = layer->index;
	grant->number = i;
	grant->param = strdup(param->name);
	grant->path = strdup(layer->values[i].text);
	grant->fd = -1;
	grant->reach = -1;
	if (param->type == XD_SERVER && host->isolated) {
		grant->reach = reach_new(layer->values[i].text);
		if (grant->reach < 0)
			return grant->reach;
	}
	if (param->type == XD_PATH) {
		grant->fd = open(layer->values[i].text, O_PATH | O_CLOEXEC);
		if (grant->fd < 0)
			grant->fd = -errno;
	}
	return grant->param && grant->path ? 0 : -ENOMEM;
}

static int add_child(struct local_host *host, const struct layer *layer)
{
	struct grant *grant = calloc(1, sizeof(*grant));

	if (!grant)
		return -ENOMEM;
	grant->next = host->grants;
	host->grants = grant;
	grant->layer = layer->index;
	grant->param = strdup("");
	grant->fd = -1;
	grant->reach = -1;
	if (!grant->param)
		return -ENOMEM;
	return serve_child_new(&grant->child, layer, host->backend_dir);
}

static int add_grants(struct local_host *host, const struct layer *layer)
{
	int r = layer->info->server ? add_child(host, layer) : 0;

	for (unsigned int i = 0; !r && i < layer->info->nr_params; i++)
		if ((layer->info->params[i].type == XD_PATH ||
		     layer->info->params[i].type == XD_SERVER ||
		     layer->info->params[i].type == XD_CREDENTIALS) &&
		    layer->values[i].set)
			r = add_grant(host, layer, i);
	for (unsigned int i = 0; !r && i < layer->nr_below; i++)
		r = add_grants(host, layer->below[i]);
	return r;
}

static const struct grant *find_grant(const struct local_host *host,
				      const struct msg_service *request)
{
	const struct grant *grant = host->grants;

	while (grant && (grant->layer != request->layer ||
			 strcmp(grant->param, request->name) != 0))
		grant = grant->next;
	return grant;
}

static int serve_open(const struct local_host *host,
		      const struct msg_service *request, char *ret_text)
{
	const struct grant *grant = find_grant(host, request);
	char why[128];
	int fd;

	if (!grant)
		return -EPERM;
	fd = reopen(grant->fd, (int)request->flags);
	if (fd < 0) {
		reopen_explain(fd, (int)request->flags, why, sizeof(why));
		(void)snprintf(ret_text, MSG_TEXT_MAX, "%s: %s", grant->path,
			       why);
	}
	return fd;
}

/* *ret_text is the value, or why there is none. */
static int serve_credential(const struct local_host *host,
			    const struct msg_service *request, char *ret_text)
{
	const struct grant *grant = find_grant(host, request);
	char why[SETTINGS_TEXT_MAX];
	const char *value;
	int r;

	if (!grant)
		return -EPERM;
	r = settings_credential(host->settings, grant->path, request->reason,
				&value, why);
	(void)snprintf(ret_text, MSG_TEXT_MAX, "%s", r < 0 ? why : value);
	return r;
}

static int serve_keep(const struct msg_service *request)
{
	cleanup_close int fd = memfd_create("xendisk", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)request->size) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* --- Connections ---------------------------------------------------------- */

struct opening {
	const struct local_host *host;
	uint32_t layer;
};

/* By a descriptor of its own: what qemu-nbd locks is locked by nobody else. */
static int open_for_child(void *ctx, unsigned int param, int flags)
{
	const struct opening *opening = ctx;
	const struct grant *grant = opening->host->grants;

	while (grant && (grant->child || grant->layer != opening->layer ||
			 grant->number != param))
		grant = grant->next;
	return grant ? reopen(grant->fd, flags) : -EPERM;
}

static int call_server(const struct grant *grant, char *ret_why)
{
	struct server server;
	int r;

	if (grant->reach >= 0)
		return reach_call(grant->reach, ret_why);
	r = server_parse(grant->path, &server, ret_why);
	return r < 0 ? r : server_connect(&server, ret_why);
}

static void run_errand(const struct local_host *host, struct errand *errand)
{
	const struct grant *grant = errand->grant;
	struct opening opening = { .host = host, .layer = grant->layer };
	struct msg_text reached = { .h.result = 0 };
	cleanup_close int fd =
		grant->child ? serve_child_call(grant->child, errand->once,
						open_for_child, &opening,
						reached.text) :
			       call_server(grant, reached.text);

	reached.h.result = MIN(fd, 0);
	(void)msg_send(errand->sock, &reached, sizeof(reached), MSG_REACHED,
		       fd);
}

static void free_errand(struct errand *errand)
{
	(void)close(errand->sock);
	free(errand);
}

static struct errand *next_errand(struct local_host *host)
{
	struct errand *errand;

	(void)pthread_mutex_lock(&host->lock);
	while (!host->errands && !host->ending)
		(void)pthread_cond_wait(&host->news, &host->lock);
	errand = host->ending ? NULL : host->errands;
	if (errand)
		host->errands = errand->next;
	(void)pthread_mutex_unlock(&host->lock);
	return errand;
}

static void *run_errands(void *arg)
{
	struct local_host *host = arg;
	struct errand *errand;

	while ((errand = next_errand(host))) {
		run_errand(host, errand);
		free_errand(errand);
	}
	return NULL;
}

static void add_errand(struct local_host *host, struct errand *errand)
{
	struct errand **end = &host->errands;

	(void)pthread_mutex_lock(&host->lock);
	while (*end)
		end = &(*end)->next;
	*end = errand;
	(void)pthread_cond_signal(&host->news);
	(void)pthread_mutex_unlock(&host->lock);
}

/* The end of a socket pair through which the connection comes. */
static int serve_connection(struct local_host *host,
			    const struct msg_service *request)
{
	const struct grant *grant = find_grant(host, request);
	struct errand *errand;
	int pair[2], r;

	if (!grant || !!grant->child != (request->kind == MSG_SERVICE_SPAWN))
		return -EPERM;
	errand = calloc(1, sizeof(*errand));
	if (!errand)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, pair) < 0) {
		r = -errno;
		free(errand);
		return r;
	}
	errand->grant = grant;
	errand->once = request->flags & XD_SPAWN_ONCE;
	errand->sock = pair[1];
	add_errand(host, errand);
	return pair[0];
}

/* --- The threads ---------------------------------------------------------- */

static void answer(struct local_host *host, const struct msg_service *request)
{
	struct msg_service_done done = { .h.seq = request->h.seq };
	cleanup_close int fd = -1;
	int r = 0;

	switch ((enum msg_service_kind)request->kind) {
	case MSG_SERVICE_OPEN:
		r = fd = serve_open(host, request, done.text);
		break;
	case MSG_SERVICE_CONNECT:
	case MSG_SERVICE_SPAWN:
		r = fd = serve_connection(host, request);
		break;
	case MSG_SERVICE_CREDENTIAL:
		r = serve_credential(host, request, done.text);
		break;
	case MSG_SERVICE_KEEP:
		r = fd = serve_keep(request);
		break;
	case MSG_SERVICE_BUDGET:
	case MSG_SERVICE_POISON:
		break;
	default:
		r = -EOPNOTSUPP;
	}
	done.h.result = MIN(r, 0);
	(void)msg_send(host->sock, &done, sizeof(done), MSG_SERVICE_DONE, fd);
}

static void *run(void *arg)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	const struct msg_header *header = (const void *)buf;
	struct local_host *host = arg;
	size_t length;
	int fd;

	while (msg_receive(host->sock, buf, &length, &fd) == 0)
		if (header->type == MSG_SERVICE)
			answer(host, (const void *)buf);
	return NULL;
}

static int start(struct local_host *host, struct services **ret_services)
{
	int pair[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	host->sock = pair[0];
	r = services_new(ret_services, pair[1], -1);
	if (r < 0) {
		(void)close(pair[1]);
		return r;
	}
	r = -pthread_create(&host->caller, NULL, run_errands, host);
	host->calling = r == 0;
	if (r == 0)
		r = -pthread_create(&host->thread, NULL, run, host);
	host->running = r == 0;
	if (r < 0)
		services_free(TAKE_PTR(*ret_services));
	return r;
}

int local_host_new(struct local_host **ret, const struct layer *root,
		   const char *backend_dir, bool isolated,
		   struct settings *settings, struct services **ret_services)
{
	struct local_host *host = calloc(1, sizeof(*host));
	int r;

	if (!host) {
		settings_free(settings);
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&host->lock, NULL);
	(void)pthread_cond_init(&host->news, NULL);
	host->settings = settings;
	host->sock = -1;
	host->backend_dir = backend_dir;
	host->isolated = isolated;
	r = add_grants(host, root);
	if (!r)
		r = start(host, ret_services);
	if (r < 0) {
		local_host_free(host);
		return r;
	}
	*ret = host;
	return 0;
}

static void stop(struct local_host *host)
{
	struct errand *errand;

	if (host->running) {
		(void)shutdown(host->sock, SHUT_RDWR);
		(void)pthread_join(host->thread, NULL);
	}
	(void)pthread_mutex_lock(&host->lock);
	host->ending = true;
	(void)pthread_cond_signal(&host->news);
	(void)pthread_mutex_unlock(&host->lock);
	if (host->calling)
		(void)pthread_join(host->caller, NULL);
	while ((errand = host->errands)) {
		host->errands = errand->next;
		free_errand(errand);
	}
	(void)pthread_cond_destroy(&host->news);
	(void)pthread_mutex_destroy(&host->lock);
}

void local_host_free(struct local_host *host)
{
	struct grant *grant;

	if (!host)
		return;
	stop(host);
	if (host->sock >= 0)
		(void)close(host->sock);
	settings_free(host->settings);
	while ((grant = host->grants)) {
		host->grants = grant->next;
		serve_child_free(grant->child);
		if (grant->fd >= 0)
			(void)close(grant->fd);
		if (grant->reach >= 0)
			(void)close(grant->reach);
		free(grant->param);
		free(grant->path);
		free(grant);
	}
	free(host);
}
