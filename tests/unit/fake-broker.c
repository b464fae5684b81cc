/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fake-broker.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "common/expr.h"
#include "common/server.h"
#include "common/util.h"
#include "worker/module.h"

#define MAX_GRANTS 64

struct grant {
	uint32_t layer;
	char name[64];
	char path[256];
	int fd; /* O_PATH, or -errno */
};

struct fake_broker {
	struct fake_broker_state state;
	char dir[64];
	struct grant grants[MAX_GRANTS];
	unsigned int nr_grants;
	int sock; /* -1: no worker */
	pthread_t thread;
	sem_t runs;
};

struct fake_broker *fake_broker_new(void)
{
	struct fake_broker *broker = calloc(1, sizeof(*broker));

	assert(broker);
	/* On a tmpfs, as the real one's, where there is one. */
	snprintf(broker->dir, sizeof(broker->dir), "%s/xendisk-keep-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert(mkdtemp(broker->dir));
	broker->state.budget = INT64_MAX;
	broker->sock = -1;
	return broker;
}

struct fake_broker_state *fake_broker_state(struct fake_broker *broker)
{
	return &broker->state;
}

const char *fake_broker_dir(const struct fake_broker *broker)
{
	return broker->dir;
}

/* --- Paths ----------------------------------------------------------------- */

static const struct backend_info *find_backend(void *ctx, const char *name)
{
	return modules_info(ctx, name);
}

static const struct backend_info *no_scheme(void *ctx, const char *scheme)
{
	(void)ctx;
	(void)scheme;
	return NULL;
}

static void grant_layer(struct fake_broker *broker, const struct layer *layer)
{
	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];
		struct grant *grant = &broker->grants[broker->nr_grants];

		if ((param->type != XD_PATH && param->type != XD_SERVER) ||
		    !layer->values[i].set)
			continue;
		assert(broker->nr_grants < MAX_GRANTS);
		grant->layer = layer->index;
		snprintf(grant->name, sizeof(grant->name), "%s", param->name);
		snprintf(grant->path, sizeof(grant->path), "%s",
			 layer->values[i].text);
		grant->fd = open(layer->values[i].text, O_PATH | O_CLOEXEC);
		if (grant->fd < 0)
			grant->fd = -errno;
		broker->nr_grants++;
	}
	for (unsigned int i = 0; i < layer->nr_below; i++)
		grant_layer(broker, layer->below[i]);
}

static void drop_grants(struct fake_broker *broker)
{
	while (broker->nr_grants > 0)
		if (broker->grants[--broker->nr_grants].fd >= 0)
			(void)close(broker->grants[broker->nr_grants].fd);
}

int fake_broker_grant(struct fake_broker *broker, const char *expression,
		      const char *backend_dir)
{
	struct modules *modules = modules_new(backend_dir);
	const struct expr_env env = { .ctx = modules,
				      .backend = find_backend,
				      .scheme = no_scheme };
	struct expr_error error;
	struct layer *root;
	int r;

	r = expr_parse(expression, false, &env, &root, &error);
	if (r == 0) {
		drop_grants(broker);
		grant_layer(broker, root);
		expr_free(root);
	}
	modules_free(modules);
	return r;
}

static int reopen(int path_fd, int flags)
{
	char path[64];
	int fd;

	if (path_fd < 0)
		return path_fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int serve_open(struct fake_broker *broker,
		      const struct msg_service *request, char *ret_text)
{
	int fd;

	for (unsigned int i = 0; i < broker->nr_grants; i++) {
		const struct grant *grant = &broker->grants[i];

		if (grant->layer != request->layer ||
		    strcmp(grant->name, request->name) != 0)
			continue;
		fd = reopen(grant->fd, (int)request->flags);
		if (fd < 0)
			snprintf(ret_text, MSG_TEXT_MAX, "%s: %s", grant->path,
				 strerror(-fd));
		return fd;
	}
	snprintf(ret_text, MSG_TEXT_MAX, "%.64s is not granted", request->name);
	return -EPERM;
}

/* As the real one, but the asker waits. */
static int serve_connect(struct fake_broker *broker,
			 const struct msg_service *request)
{
	struct msg_text reached = { .h.result = -EPERM };
	struct server server;
	int pair[2], fd;

	assert(socketpair(AF_UNIX,
			  SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			  pair) == 0);
	for (unsigned int i = 0; i < broker->nr_grants; i++) {
		const struct grant *grant = &broker->grants[i];

		if (grant->layer != request->layer ||
		    strcmp(grant->name, request->name) != 0)
			continue;
		assert(server_parse(grant->path, &server, reached.text) == 0);
		fd = server_connect(&server, reached.text);
		reached.h.result = MIN(fd, 0);
		assert(msg_send(pair[1], &reached, sizeof(reached), MSG_REACHED,
				fd) == 0);
		if (fd >= 0)
			(void)close(fd);
	}
	(void)close(pair[1]);
	return pair[0];
}

/* --- The other services ---------------------------------------------------- */

static int serve_keep(struct fake_broker *broker,
		      const struct msg_service *request, bool *ret_kept)
{
	cleanup_free char *path = xasprintf("%s/%u.%s", broker->dir,
					    request->layer, request->name);
	cleanup_close int fd = -1;
	struct stat st;

	assert(path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		if (fstat(fd, &st) < 0 ||
		    ((uint64_t)st.st_size < request->size &&
		     ftruncate(fd, (off_t)request->size) < 0))
			return -errno;
		*ret_kept = true;
		return TAKE_FD(fd);
	}
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)request->size) < 0)
		return -errno;
	*ret_kept = false;
	return TAKE_FD(fd);
}

static int serve_budget(struct fake_broker *broker, int64_t amount)
{
	if (amount > broker->state.budget)
		return -ENOSPC;
	broker->state.budget -= amount;
	return 0;
}

static void serve(struct fake_broker *broker, const struct msg_service *request)
{
	struct msg_service_done done = { .h.seq = request->h.seq };
	cleanup_close int fd = -1;
	bool kept = false;
	int r = 0;

	switch (request->kind) {
	case MSG_SERVICE_OPEN:
		r = fd = serve_open(broker, request, done.text);
		break;
	case MSG_SERVICE_CONNECT:
		r = fd = serve_connect(broker, request);
		break;
	case MSG_SERVICE_KEEP:
		r = fd = serve_keep(broker, request, &kept);
		break;
	case MSG_SERVICE_BUDGET:
		r = serve_budget(broker, request->amount);
		break;
	case MSG_SERVICE_POISON:
		memcpy(broker->state.poisoned, request->name,
		       sizeof(request->name));
		break;
	}
	broker->state.asked[request->kind]++;
	if (broker->state.delay_ns)
		usleep((useconds_t)(broker->state.delay_ns / 1000));
	done.h.result = MIN(r, 0);
	done.kept = kept;
	(void)msg_send(broker->sock, &done, sizeof(done), MSG_SERVICE_DONE, fd);
}

/* --- The thread ------------------------------------------------------------ */

static void *run(void *arg)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	const struct msg_header *header = (const void *)buf;
	struct fake_broker *broker = arg;
	size_t length;
	int fd;

	(void)sem_post(&broker->runs);
	while (msg_receive(broker->sock, buf, &length, &fd) == 0) {
		assert(fd < 0);
		if (header->type == MSG_SERVICE)
			serve(broker, (const void *)buf);
		else if (header->type == MSG_CONDITION)
			memcpy(broker->state.condition,
			       ((const struct msg_condition *)header)->reason,
			       sizeof(broker->state.condition));
		else if (header->type == MSG_CHANGED) {
			memcpy(&broker->state.changed, buf,
			       sizeof(broker->state.changed));
			broker->state.changes++;
		}
	}
	return NULL;
}

static void disconnect(struct fake_broker *broker)
{
	if (broker->sock < 0)
		return;
	fake_broker_hang_up(broker);
	pthread_join(broker->thread, NULL);
	(void)close(broker->sock);
	broker->sock = -1;
}

struct services *fake_broker_connect(struct fake_broker *broker)
{
	struct services *services;
	int pair[2];

	disconnect(broker);
	assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ==
	       0);
	broker->sock = pair[0];
	assert(services_new(&services, pair[1], -1) == 0);
	assert(sem_init(&broker->runs, 0, 0) == 0);
	assert(pthread_create(&broker->thread, NULL, run, broker) == 0);
	/* Who forks next would have the locks that a new thread holds. */
	while (sem_wait(&broker->runs) < 0)
		assert(errno == EINTR);
	(void)sem_destroy(&broker->runs);
	return services;
}

int fake_broker_send(struct fake_broker *broker, void *msg, size_t length,
		     enum msg_type type)
{
	return msg_send(broker->sock, msg, length, type, -1);
}

void fake_broker_hang_up(struct fake_broker *broker)
{
	(void)shutdown(broker->sock, SHUT_RDWR);
}

void fake_broker_free(struct fake_broker *broker)
{
	cleanup_free char *command = xasprintf("rm -rf %s", broker->dir);

	disconnect(broker);
	drop_grants(broker);
	assert(command && system(command) == 0);
	free(broker);
}
