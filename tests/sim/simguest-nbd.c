/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nbd verb: the guest's disk for ordinary programs.  fio, nbdcopy or
 * qemu-img on the socket are then "programs in the guest".
 *
 * Theory of operation
 *
 * A lane is a queue with a lock, guest buffers and a thread that takes the
 * answers.  A client's thread reads NBD requests; each becomes an order on one
 * lane, cut into blkif requests of at most a buffer.  The last of these to be
 * answered puts the order on the lane's list of finished ones, and the lane's
 * thread replies once it has let go of the lock, so that a client that reads
 * slowly holds up only replies.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "simguest.h"
#include "simio.h"
#include "simnbd.h"

#define CHUNK_PAGES 32u /* of a buffer: 128 KiB */
#define NR_CHUNKS   64u /* buffers of a lane */
#define MAX_REQUEST (32u << 20)
#define MAX_CLIENTS 64u

struct server;

struct client {
	struct server *server;
	struct lane *lane; /* NULL: nobody is here */
	int fd;
	pthread_t thread;
	pthread_mutex_t send_lock;
	unsigned int orders; /* not replied to yet, under the lane's lock */
	bool gone; /* atomic: the thread is at its end */
};

/* One NBD request. */
struct order {
	struct order *next; /* in the list of finished ones */
	struct client *client;
	struct simnbd_request nbd;
	uint8_t *data; /* of READ and WRITE */
	unsigned int pending; /* blkif requests; + 1 while being cut */
	int error;
};

/* One blkif request. */
struct chunk {
	struct simqueue_request req; /* first: its done() finds the chunk */
	struct chunk *next; /* in the list of free ones */
	struct simio_buffer buffer;
	struct lane *lane;
	struct order *order;
	uint64_t at; /* offset in the order, bytes */
	size_t size;
};

struct lane {
	struct server *server;
	struct simqueue *queue;
	pthread_t thread;
	pthread_mutex_t lock; /* covers all below, and the queue */
	pthread_cond_t changed;
	struct chunk chunks[NR_CHUNKS];
	struct chunk *free;
	struct order *finished;
	int failure;
};

struct server {
	struct simguest *guest;
	struct simnbd_export export;
	struct lane *lanes;
	unsigned int nr_lanes;
	struct client clients[MAX_CLIENTS];
	unsigned int turn; /* the lane of the next client */
	bool stop; /* atomic: all clients are gone */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

static bool stopped(const struct server *s)
{
	return __atomic_load_n(&s->stop, __ATOMIC_ACQUIRE);
}

/* --- Answers from the backend ------------------------------------------------- */

/* With the lane's lock held. */
static void finish_part(struct lane *lane, struct order *order)
{
	if (--order->pending > 0)
		return;
	order->next = lane->finished;
	lane->finished = order;
}

static void done(struct simqueue_request *req)
{
	struct chunk *chunk = (struct chunk *)req;
	struct order *order = chunk->order;

	if (req->status == BLKIF_RSP_EOPNOTSUPP)
		order->error = EOPNOTSUPP;
	else if (req->status != BLKIF_RSP_OKAY)
		order->error = EIO;
	else if (order->nbd.type == SIMNBD_READ)
		memcpy(order->data + chunk->at, chunk->buffer.pages,
		       chunk->size);
	chunk->next = chunk->lane->free;
	chunk->lane->free = chunk;
	finish_part(chunk->lane, order);
}

static void reply(struct order *order)
{
	struct client *client = order->client;
	size_t size = order->nbd.type == SIMNBD_READ && order->error == 0 ?
			      order->nbd.length :
			      0;

	pthread_mutex_lock(&client->send_lock);
	simnbd_reply(client->fd, order->nbd.cookie, order->error, order->data,
		     size);
	pthread_mutex_unlock(&client->send_lock);
	free(order->data);
	free(order);
}

/* Takes answers; then, without the lock, replies to what they finished. */
static int serve_lane(struct lane *lane)
{
	struct order *finished, *next;
	int r;

	pthread_mutex_lock(&lane->lock);
	r = simqueue_reap(lane->queue, 0);
	finished = lane->finished;
	lane->finished = NULL;
	pthread_cond_broadcast(&lane->changed);
	pthread_mutex_unlock(&lane->lock);
	for (; finished; finished = next) {
		struct client *client = finished->client;

		next = finished->next;
		reply(finished);
		pthread_mutex_lock(&lane->lock);
		client->orders--;
		pthread_cond_broadcast(&lane->changed);
		pthread_mutex_unlock(&lane->lock);
	}
	return r;
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	int r = 0;

	while ((r >= 0 || r == -EINTR) && !stopped(lane->server)) {
		r = serve_lane(lane);
		if (r == 0 || r == -EINTR)
			simqueue_wait(lane->queue, 200);
	}
	pthread_mutex_lock(&lane->lock);
	if (r < 0 && r != -EINTR)
		lane->failure = r;
	pthread_cond_broadcast(&lane->changed);
	pthread_mutex_unlock(&lane->lock);
	return NULL;
}

/* --- Requests of a client ------------------------------------------------------- */

/* A free chunk, with the lock held; NULL when the lane has failed. */
static struct chunk *take_chunk(struct lane *lane)
{
	struct chunk *chunk;

	while (!lane->failure &&
	       (!lane->free || simqueue_room(lane->queue) == 0)) {
		simqueue_push(lane->queue);
		pthread_cond_wait(&lane->changed, &lane->lock);
	}
	if (lane->failure)
		return NULL;
	chunk = lane->free;
	lane->free = chunk->next;
	return chunk;
}

static void build_transfer(struct chunk *chunk)
{
	struct order *order = chunk->order;
	uint64_t sector = (order->nbd.offset + chunk->at) / SIMABI_SECTOR;
	bool reading = order->nbd.type == SIMNBD_READ;

	simio_linear(&chunk->buffer, (unsigned int)chunk->size / SIMABI_SECTOR);
	if (order->nbd.type == SIMNBD_WRITE)
		memcpy(chunk->buffer.pages, order->data + chunk->at,
		       chunk->size);
	else if (!reading)
		memset(chunk->buffer.pages, 0, chunk->size);
	chunk->req = simio_request(reading ? BLKIF_OP_READ : BLKIF_OP_WRITE,
				   sector, &chunk->buffer);
}

/* What TRIM covers of whole granules; false when that is nothing. */
static bool build_trim(struct chunk *chunk)
{
	struct server *s = chunk->lane->server;
	const struct simfront_disk *disk = simfront_disk(s->guest->front);
	const struct simnbd_request *nbd = &chunk->order->nbd;
	uint64_t grain = disk->discard_granularity;
	uint64_t shift = disk->discard_alignment, first, end;

	if (nbd->offset + nbd->length < shift)
		return false;
	first = nbd->offset < shift ? 0 : nbd->offset - shift;
	first = (first + grain - 1) / grain * grain + shift;
	end = (nbd->offset + nbd->length - shift) / grain * grain + shift;
	if (end <= first)
		return false;
	chunk->req = (struct simqueue_request){
		.operation = BLKIF_OP_DISCARD,
		.sector = first / SIMABI_SECTOR,
		.nr_sectors = (end - first) / SIMABI_SECTOR,
	};
	return true;
}

static bool build(struct chunk *chunk)
{
	switch (chunk->order->nbd.type) {
	case SIMNBD_FLUSH:
		chunk->req = (struct simqueue_request){
			.operation = BLKIF_OP_FLUSH_DISKCACHE
		};
		return true;
	case SIMNBD_TRIM:
		return build_trim(chunk);
	default:
		build_transfer(chunk);
		return true;
	}
}

/* How much of an order from `at` on is one blkif request. */
static size_t part_of(const struct lane *lane, const struct order *order,
		      uint64_t at)
{
	size_t most = (size_t)lane->chunks[0].buffer.nr_pages * SIMABI_PAGE;
	uint64_t left = order->nbd.length - at;

	if (order->nbd.type == SIMNBD_FLUSH || order->nbd.type == SIMNBD_TRIM)
		return order->nbd.length; /* at most one request */
	return left < most ? (size_t)left : most;
}

/* Sends the part of the order at `at`, with the lock held. */
static void send_part(struct lane *lane, struct order *order, uint64_t at,
		      size_t size)
{
	struct chunk *chunk = take_chunk(lane);

	if (!chunk) {
		order->error = EIO;
		return;
	}
	chunk->order = order;
	chunk->at = at;
	chunk->size = size;
	order->pending++;
	if (build(chunk)) {
		chunk->req.done = done;
		if (simqueue_submit(lane->queue, &chunk->req) == 0)
			return;
		order->error = EIO;
	}
	chunk->next = lane->free;
	lane->free = chunk;
	order->pending--;
}

static void place_order(struct lane *lane, struct order *order)
{
	uint64_t at = 0;
	bool idle;

	pthread_mutex_lock(&lane->lock);
	order->client->orders++;
	order->pending = 1;
	do {
		size_t size = part_of(lane, order, at);

		send_part(lane, order, at, size);
		at += size;
	} while (at < order->nbd.length && order->error == 0);
	finish_part(lane, order);
	simqueue_push(lane->queue);
	/* An order of nothing: no answer will wake the lane's thread. */
	idle = lane->finished != NULL;
	pthread_mutex_unlock(&lane->lock);
	if (idle)
		simqueue_kick(lane->queue);
}

/* 0 or the errno to answer. */
static int judge(const struct server *s, const struct simnbd_request *nbd)
{
	bool has_data = nbd->type == SIMNBD_READ || nbd->type == SIMNBD_WRITE;
	bool changes = nbd->type == SIMNBD_WRITE || nbd->type == SIMNBD_TRIM ||
		       nbd->type == SIMNBD_WRITE_ZEROES;
	uint16_t flags = nbd->type == SIMNBD_WRITE_ZEROES ? SIMNBD_NO_HOLE : 0;

	if (nbd->type == SIMNBD_FLUSH)
		return s->export.flush ? 0 : EINVAL;
	if ((!has_data && !changes) || nbd->flags & ~flags ||
	    nbd->length == 0 || nbd->offset % s->export.block != 0 ||
	    nbd->length % s->export.block != 0)
		return EINVAL;
	if (nbd->offset > s->export.size ||
	    nbd->length > s->export.size - nbd->offset)
		return changes ? ENOSPC : EINVAL;
	if (changes && s->export.read_only)
		return EPERM;
	return 0;
}

static int take_order(struct client *client, struct order *order)
{
	int r = simnbd_read_request(client->fd, &order->nbd);

	if (r < 0)
		return r;
	if (order->nbd.type == SIMNBD_DISCONNECT)
		return -ECONNRESET;
	if (order->nbd.type == SIMNBD_FLUSH)
		order->nbd.length = 0;
	if (order->nbd.type == SIMNBD_READ || order->nbd.type == SIMNBD_WRITE) {
		if (order->nbd.length > MAX_REQUEST)
			return -EPROTO;
		order->data = malloc(order->nbd.length + 1);
		if (!order->data)
			return -ENOMEM;
	}
	if (order->nbd.type == SIMNBD_WRITE)
		r = simnbd_read(client->fd, order->data, order->nbd.length);
	return r;
}

/* A client's place is needed until the last reply is sent. */
static void await_replies(struct client *client)
{
	struct lane *lane = client->lane;

	pthread_mutex_lock(&lane->lock);
	while (client->orders > 0 && !lane->failure)
		pthread_cond_wait(&lane->changed, &lane->lock);
	pthread_mutex_unlock(&lane->lock);
}

static void *client_main(void *arg)
{
	struct client *client = arg;
	int r = simnbd_negotiate(client->fd, &client->server->export);

	while (r == 0) {
		struct order *order = calloc(1, sizeof(*order));

		if (!order)
			break;
		order->client = client;
		r = take_order(client, order);
		if (r < 0) {
			free(order->data);
			free(order);
			break;
		}
		order->error = judge(client->server, &order->nbd);
		if (order->error)
			reply(order);
		else
			place_order(client->lane, order);
	}
	await_replies(client);
	shutdown(client->fd, SHUT_RDWR); /* the client waits for it */
	__atomic_store_n(&client->gone, true, __ATOMIC_RELEASE);
	return NULL;
}

/* --- The server ----------------------------------------------------------------- */

static void init_export(struct server *s)
{
	const struct simfront_disk *disk = simfront_disk(s->guest->front);

	s->export = (struct simnbd_export){
		.size = simfront_sectors(s->guest->front) * SIMABI_SECTOR,
		.block = disk->sector_size,
		.largest = MAX_REQUEST,
		.read_only = disk->info & VDISK_READONLY,
		.flush = disk->flush,
		.trim = disk->discard && !(disk->info & VDISK_READONLY),
	};
}

static int init_lane(struct server *s, unsigned int index)
{
	struct lane *lane = &s->lanes[index];
	unsigned int pages = simguest_max_segments(s->guest);

	lane->server = s;
	lane->queue = simfront_queue(s->guest->front, index);
	pthread_mutex_init(&lane->lock, NULL);
	pthread_cond_init(&lane->changed, NULL);
	for (unsigned int i = 0; i < NR_CHUNKS; i++) {
		struct chunk *chunk = &lane->chunks[i];
		int r = simio_alloc(s->guest->front,
				    pages < CHUNK_PAGES ? pages : CHUNK_PAGES,
				    &chunk->buffer);

		if (r < 0)
			return r;
		chunk->lane = lane;
		chunk->next = lane->free;
		lane->free = chunk;
	}
	return -pthread_create(&lane->thread, NULL, lane_main, lane);
}

static int init_lanes(struct server *s)
{
	unsigned int queues = simfront_shape(s->guest->front)->queues;
	int r = 0;

	s->lanes = calloc(queues, sizeof(*s->lanes));
	if (!s->lanes)
		return -ENOMEM;
	while (r == 0 && s->nr_lanes < queues) {
		r = init_lane(s, s->nr_lanes);
		s->nr_lanes += r == 0;
	}
	return r;
}

/* Frees the place of a client that is at its end. */
static void bury(struct client *client)
{
	pthread_join(client->thread, NULL);
	close(client->fd);
	client->lane = NULL;
}

static struct client *find_place(struct server *s)
{
	for (unsigned int i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &s->clients[i];

		if (client->lane &&
		    __atomic_load_n(&client->gone, __ATOMIC_ACQUIRE))
			bury(client);
		if (!client->lane)
			return client;
	}
	return NULL;
}

static void admit(struct server *s, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct client *client = fd >= 0 ? find_place(s) : NULL;

	if (!client) {
		if (fd >= 0)
			close(fd);
		return;
	}
	*client = (struct client){
		.server = s,
		.lane = &s->lanes[s->turn++ % s->nr_lanes],
		.fd = fd,
		.send_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	if (pthread_create(&client->thread, NULL, client_main, client) != 0) {
		client->lane = NULL;
		close(fd);
	}
}

/* Lets clients finish what they have sent, and goes. */
static void stop_server(struct server *s)
{
	for (unsigned int i = 0; i < MAX_CLIENTS; i++)
		if (s->clients[i].lane)
			shutdown(s->clients[i].fd, SHUT_RD);
	for (unsigned int i = 0; i < MAX_CLIENTS; i++)
		if (s->clients[i].lane)
			bury(&s->clients[i]);
	__atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < s->nr_lanes; i++) {
		simqueue_kick(s->lanes[i].queue);
		pthread_join(s->lanes[i].thread, NULL);
		for (unsigned int c = 0; c < NR_CHUNKS; c++)
			simio_free(s->guest->front,
				   &s->lanes[i].chunks[c].buffer);
	}
}

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 16) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* Starts the command of --run; its pid, or -errno. */
static pid_t start_command(const char *command)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid > 0)
		return pid;
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static int exit_code(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return 128 + WTERMSIG(status);
}

static int failed_lane(const struct server *s)
{
	for (unsigned int i = 0; i < s->nr_lanes; i++)
		if (__atomic_load_n(&s->lanes[i].failure, __ATOMIC_ACQUIRE))
			return simguest_queue_failed(s->lanes[i].queue,
						     s->lanes[i].failure);
	return SIMGUEST_OK;
}

/* Until the command ends, a signal comes, or the backend closes the disk. */
static int serve(struct server *s, int listener, pid_t command)
{
	struct pollfd pfd = { .fd = listener, .events = POLLIN };
	int status, code = SIMGUEST_OK;

	while (!interrupted && !simfront_closing(s->guest->front)) {
		if (poll(&pfd, 1, 50) > 0)
			admit(s, listener);
		if (command > 0 && waitpid(command, &status, WNOHANG) > 0)
			return exit_code(status);
		code = failed_lane(s);
		if (code != SIMGUEST_OK)
			break;
	}
	if (command > 0) {
		kill(command, SIGTERM);
		waitpid(command, &status, 0);
		simguest_complain("nbd: the disk went before --run's command "
				  "had ended");
		code = SIMGUEST_FAULT;
	}
	return code;
}

static int run_server(struct simguest *guest, int listener, pid_t command)
{
	struct server *s = calloc(1, sizeof(*s));
	int code = SIMGUEST_FAULT;

	if (!s)
		return code;
	s->guest = guest;
	init_export(s);
	if (init_lanes(s) == 0)
		code = serve(s, listener, command);
	else
		simguest_complain("nbd: cannot start the lanes");
	stop_server(s);
	free(s->lanes);
	free(s);
	return code;
}

int simguest_nbd(struct simguest *guest, int argc, char **argv)
{
	const char *path = guest->opt.socket;
	char uri[200];
	pid_t command = 0;
	int code, listener;

	(void)argc;
	(void)argv;
	if (!path) {
		simguest_complain("nbd: --socket is needed");
		return SIMGUEST_USAGE;
	}
	listener = listen_on(path);
	if (listener < 0) {
		simguest_complain("nbd: %s: %s", path, strerror(-listener));
		return SIMGUEST_USAGE;
	}
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", path);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	setenv("uri", uri, 1);
	setenv("socket", path, 1);
	if (guest->opt.run)
		command = start_command(guest->opt.run);
	else
		puts(uri);
	fflush(stdout);
	if (command < 0) {
		simguest_complain("nbd: %s", strerror(-command));
		return SIMGUEST_FAULT;
	}
	code = run_server(guest, listener, command);
	close(listener);
	unlink(path);
	return code;
}
