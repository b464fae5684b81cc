/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-client.c - NBD clients of a disk, beside its guest's rings.
 *
 * Theory of operation
 *
 * conn.c and nbd/ make commands out of a client's bytes; here a command becomes a
 * request (struct io) and goes the way that io.c describes.  Its data is in the
 * command's own buffer, so nothing is copied, and it needs no memory of the
 * lane's.
 *
 * In each round the clients are read once (take_clients()), and what is done is
 * answered at its end (answer_clients()).  A client that does not read its
 * replies, or does not go on with what it has begun, is left alone: its session
 * takes nothing more at its limits, nothing here waits for it, and the lane does
 * not block.  One that asks for all it may does not keep the guest from its disk:
 * no more than CLIENT_IOS_MAX requests and CLIENT_BYTES_MAX of data of a lane's
 * clients are executed at a time, in pieces, and between two rounds each client's
 * socket gets no more than conn.c's share.
 *
 * A client that is cut off comes back on another connection, and what it writes
 * there must not be overwritten by what it had not got an answer to here.  What has
 * its range by then is done to its end, and its new writes wait for that in the table;
 * all else is dropped (forget()), wherever it waits.
 *
 * Lanes end and begin again when the guest connects or leaves (use.c).  The
 * clients stay: they are parked meanwhile, and what they were waiting for begins
 * from its first step.  None of it was answered.  But a write that had its range
 * may have been read by another client, which then sent one of its own: those that
 * had begun go first, as they do after a worker has died (io.begun).
 *
 * Runs on the lane's thread, unless io-client.h says otherwise.
 */
#include "config.h"

#include "worker/io-client.h"

#include <string.h>
#include <utlist.h>

#include "common/log.h"
#include "nbd/session.h"
#include "worker/conn.h"

#define HANDSHAKE_TIMEOUT_NS (10 * 1000000000ull)
/* Of one BLOCK_STATUS. */
#define MAX_EXTENTS 256u

struct client_io {
	struct nbd_command command; /* first: made by the session */
	struct client_io *prev, *next; /* of the client's */
	struct client *client;
	struct xd_extents extents; /* BLOCK_STATUS */
	bool begun; /* it had its range when it was parked */
	struct io io;
};

struct client {
	struct client *prev, *next;
	struct io_lane *lane; /* NULL: it is parked */
	_Atomic(unsigned int) *nr;
	int fd; /* until there is conn */
	struct conn *conn;
	struct client_io *ios; /* that are not answered */
	char *name;
	struct nbd_export export;
};

static struct client_io *client_io_of(struct io *io)
{
	return container_of(io, struct client_io, io);
}

/* --- Requests ------------------------------------------------------------- */

/* What each command is; those that are not here are nothing to be done. */
static const struct {
	uint8_t op; /* enum xd_op */
	uint8_t steps;
} kinds[NBD_NR_CMDS] = {
	[NBD_CMD_READ] = { XD_READ, IO_STEP(IO_DATA) },
	[NBD_CMD_WRITE] = { XD_WRITE, IO_STEP(IO_LOCK) | IO_STEP(IO_DATA) },
	[NBD_CMD_TRIM] = { XD_DISCARD, IO_STEP(IO_LOCK) | IO_STEP(IO_DATA) },
	[NBD_CMD_WRITE_ZEROES] = { XD_ZERO,
				   IO_STEP(IO_LOCK) | IO_STEP(IO_DATA) },
	[NBD_CMD_FLUSH] = { XD_FLUSH, IO_STEP(IO_PREFLUSH) },
	[NBD_CMD_BLOCK_STATUS] = { XD_EXTENTS, IO_STEP(IO_DATA) },
};

/* A client may ask for FUA with each command.  It gets a flush, although the stack may
 * have FUA: the kernel tells of a lost write once, and to a write that is durable at
 * once as well as to a flush.  Who hears of it must be flush.c, which lets one sync
 * run at a time and poisons the disk, since it may have been anybody's write. */
static void add_fua(struct io *io)
{
	if (io->steps & IO_STEP(IO_LOCK))
		io->steps |= IO_STEP(IO_POSTFLUSH);
}

/* Answered with err: no step is left. */
static void refuse(struct io *io, int err)
{
	io->steps = 0;
	io->status = BLKIF_STATUS_ERROR;
	io->err = err;
}

static void prepare_extents(struct client_io *cio)
{
	bool one = cio->command.flags & NBD_CMD_FLAG_REQ_ONE;
	struct xd_extents *extents = &cio->extents;

	extents->max = one ? 1 : MAX_EXTENTS;
	if (!extents->extent)
		extents->extent =
			calloc(extents->max, sizeof(*extents->extent));
	cio->io.req.extents = extents;
	if (!extents->extent)
		refuse(&cio->io, -ENOMEM);
}

/* From the first step. */
static void prepare(struct client_io *cio)
{
	const struct nbd_command *command = &cio->command;
	struct io_lane *lane = cio->client->lane;
	struct io *io = &cio->io;

	memset(io, 0, sizeof(*io));
	io->lane = lane;
	io->client = true;
	io->offset = command->offset;
	io->length = command->length;
	io->buffer = command->buffer;
	io->op = kinds[command->type].op;
	io->steps = kinds[command->type].steps;
	if (command->flags & NBD_CMD_FLAG_NO_HOLE)
		io->flags |= XD_NO_HOLE;
	if (command->flags & NBD_CMD_FLAG_FUA)
		add_fua(io);
	if (command->flags & NBD_CMD_FLAG_FAST_ZERO) {
		io->flags |= XD_FAST;
		if (!lane->disk->limits->fast_zero)
			refuse(io, -EOPNOTSUPP);
	}
	if (command->type == NBD_CMD_BLOCK_STATUS)
		prepare_extents(cio);
}

/* Bytes of its data that may be under way at a time. */
static uint64_t weight(const struct io *io)
{
	return io->buffer ? MIN(io->length, IO_CLIENT_PIECE) : 0;
}

static bool has_room(const struct client_lane *clients)
{
	const struct io *io = clients->waiting.first;

	return io && clients->nr_begun < CLIENT_IOS_MAX &&
	       clients->bytes + weight(io) <= CLIENT_BYTES_MAX;
}

static void begin_waiting(struct io_lane *lane)
{
	struct client_lane *clients = &lane->clients;

	while (has_room(clients)) {
		struct io *io = io_pop(&clients->waiting);

		clients->nr_begun++;
		clients->bytes += weight(io);
		io_advance(io);
	}
}

static void on_command(void *ctx, struct nbd_command *command)
{
	struct client_io *cio =
		container_of(command, struct client_io, command);
	struct client *client = ctx;

	cio->client = client;
	DL_APPEND(client->ios, cio);
	prepare(cio);
	io_append(&client->lane->clients.waiting, &cio->io);
}

static const char *explain(const struct io_lane *lane, int err)
{
	if (err == -EIO && atomic_load(&lane->disk->poison) != IO_CLEAN)
		return "a flush has failed: the disk is poisoned";
	return NULL;
}

_Static_assert(XD_EXTENT_HOLE == NBD_STATE_HOLE &&
		       XD_EXTENT_ZERO == NBD_STATE_ZERO,
	       "the same bits");

/* Tells what is known, in spite of an error: a client that reads there will get
 * that error. */
static int tell_extents(struct client_io *cio, int err)
{
	const struct xd_extents *extents = &cio->extents;
	bool more = err == 0;

	if (!extents->extent)
		return err;
	for (unsigned int i = 0; more && i < extents->nr; i++)
		more = nbd_command_extent(&cio->command,
					  extents->extent[i].length,
					  extents->extent[i].flags);
	free(extents->extent);
	return 0;
}

/* The session may free it. */
static void answer(struct io *io)
{
	struct client_io *cio = client_io_of(io);
	struct io_lane *lane = io->lane;
	int err = io->status == BLKIF_STATUS_OKAY ? 0 : io->err;

	io_settle(io);
	io_unlock(io);
	lane->clients.nr_begun--;
	lane->clients.bytes -= weight(io);
	DL_DELETE(cio->client->ios, cio);
	if (cio->command.type == NBD_CMD_BLOCK_STATUS)
		err = tell_extents(cio, err);
	err = nbd_command_error(&cio->command, err);
	nbd_command_done(&cio->command, err, explain(lane, err));
}

/* --- Clients -------------------------------------------------------------- */

static const struct nbd_export *get_export(void *ctx, unsigned int index)
{
	const struct client *client = ctx;

	return index == 0 ? &client->export : NULL;
}

static const struct nbd_session_events events = {
	.export = get_export,
	.submit = on_command,
	.command_size = sizeof(struct client_io),
};

static void free_client(struct client *client)
{
	if (client->fd >= 0)
		(void)close(client->fd);
	conn_free(client->conn);
	free(client->name);
	atomic_fetch_sub(client->nr, 1);
	free(client);
}

static void drop(struct io_lane *lane, struct client *client)
{
	DL_DELETE(lane->clients.list, client);
	atomic_fetch_sub(&lane->clients.nr, 1);
	free_client(client);
}

static void welcome_one(struct io_lane *lane, struct client *client)
{
	int r = conn_new(&client->conn, lane->engine, client->fd, NULL, &events,
			 client, HANDSHAKE_TIMEOUT_NS);

	DL_APPEND(lane->clients.list, client);
	if (r == 0) {
		client->fd = -1; /* it is conn's */
		return;
	}
	log_guest(lane->disk->who, LOG_LEVEL_ERROR,
		  "an NBD client cannot be served: %s", strerror(-r));
	drop(lane, client);
}

static void welcome(struct io_lane *lane)
{
	struct client *newcomers, *client;

	(void)pthread_mutex_lock(&lane->clients.lock);
	newcomers = TAKE_PTR(lane->clients.newcomers);
	(void)pthread_mutex_unlock(&lane->clients.lock);
	while ((client = clients_pop(&newcomers)))
		welcome_one(lane, client);
}

/* Nobody waits for its reply any more. */
static void drop_command(struct client_io *cio)
{
	DL_DELETE(cio->client->ios, cio);
	free(cio->extents.extent);
	nbd_command_done(&cio->command, -ESHUTDOWN, NULL);
}

/* A request that begin_waiting() has begun, and that has not got its range. */
static void drop_begun(struct io *io)
{
	struct client_lane *clients = &io->lane->clients;

	io_unlock(io);
	clients->nr_begun--;
	clients->bytes -= weight(io);
	drop_command(client_io_of(io));
}

/* Drops the client's requests in the list, unless they have had their range. */
static void forget_in(struct io_list *list, const struct client *client,
		      void (*drop_one)(struct io *io))
{
	struct io_list all = io_take_all(list);
	struct io *io;

	while ((io = io_pop(&all)))
		if (io->client && !io->begun &&
		    client_io_of(io)->client == client)
			drop_one(io);
		else
			io_append(list, io);
}

static void drop_waiting(struct io *io)
{
	drop_command(client_io_of(io));
}

/* Its client is lost: what has not begun never does. */
static void forget(struct io_lane *lane, struct client *client)
{
	struct client_io *cio, *next;

	forget_in(&lane->clients.waiting, client, drop_waiting);
	forget_in(&lane->want_begun, client, drop_begun);
	DL_FOREACH_SAFE(client->ios, cio, next)
		if (cio->io.entered && !cio->io.locked && !cio->io.begun)
			drop_begun(&cio->io);
}

/* Moves the clients' bytes, both ways. */
static void pump(struct io_lane *lane)
{
	struct client *client, *next;

	DL_FOREACH_SAFE(lane->clients.list, client, next) {
		if (conn_pump(client->conn))
			lane->again = true;
		if (conn_lost(client->conn))
			forget(lane, client);
		if (conn_is_over(client->conn))
			drop(lane, client);
	}
}

static void take_clients(struct io_lane *lane)
{
	welcome(lane);
	pump(lane);
	begin_waiting(lane);
}

static void answer_clients(struct io_lane *lane)
{
	struct io_list answers = io_take_all(&lane->clients.answers);
	struct io *io;

	if (!answers.first)
		return;
	while ((io = io_pop(&answers)))
		answer(io);
	pump(lane);
	if (lane->clients.waiting.first)
		lane->again = true;
}

static const struct client_ops ops = {
	.take = take_clients,
	.answer = answer_clients,
};

/* --- Main thread ---------------------------------------------------------- */

static void fill_export(struct client *client, const struct xd_limits *limits,
			bool readonly)
{
	client->export = (struct nbd_export){
		.name = client->name,
		.size = limits->size,
		.minimum_block = limits->sector_size,
		.preferred_block = MAX(limits->physical_sector_size, 4096),
		.memory_alignment = limits->memory_alignment,
		.readonly = readonly || limits->readonly,
		.flush = true, /* where it is not needed it costs nothing */
		.fua = true,
		.trim = limits->discard_granularity,
		.zero = limits->zero,
		.multi_conn = true, /* all of them are behind one flush */
	};
}

int client_new(struct client **ret, const struct client_spec *spec,
	       const struct xd_limits *limits, _Atomic(unsigned int) *nr)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		return -ENOMEM;
	client->name = strdup(spec->name);
	if (!client->name) {
		free(client);
		return -ENOMEM;
	}
	client->fd = spec->fd;
	client->nr = nr;
	atomic_fetch_add(nr, 1);
	fill_export(client, limits, spec->readonly);
	*ret = client;
	return 0;
}

void client_give(struct io_lane *lane, struct client *client)
{
	client->lane = lane;
	(void)pthread_mutex_lock(&lane->clients.lock);
	DL_APPEND(lane->clients.newcomers, client);
	(void)pthread_mutex_unlock(&lane->clients.lock);
	atomic_fetch_add(&lane->clients.nr, 1);
	io_poke(lane);
}

void clients_resized(struct io_lane *lane)
{
	uint64_t size = lane->disk->limits->size;
	struct client *client;

	DL_FOREACH(lane->clients.list, client)
		client->export.size = size;
	(void)pthread_mutex_lock(&lane->clients.lock);
	DL_FOREACH(lane->clients.newcomers, client)
		client->export.size = size;
	(void)pthread_mutex_unlock(&lane->clients.lock);
}

void clients_init(struct io_lane *lane)
{
	lane->clients.ops = &ops;
	(void)pthread_mutex_init(&lane->clients.lock, NULL);
}

/* The client's requests let go of their ranges, and of all else that is the
 * disk's. */
static void park(struct client *client, struct client **io_list)
{
	struct client_io *cio;

	DL_FOREACH(client->ios, cio) {
		cio->begun = cio->io.locked || cio->io.begun;
		io_settle(&cio->io);
		io_unlock(&cio->io);
	}
	client->lane = NULL;
	DL_PREPEND(*io_list, client);
}

void clients_park(struct io_lane *lane, struct client **io_list)
{
	struct client_lane *clients = &lane->clients;
	struct client *client;

	DL_CONCAT(clients->list, clients->newcomers);
	clients->newcomers = NULL;
	while ((client = clients_pop(&clients->list)))
		park(client, io_list);
	atomic_store(&clients->nr, 0);
	(void)pthread_mutex_destroy(&clients->lock);
}

/* Begins again.  In front of what would wait for it, so that the limit of requests
 * that are executed does not keep it from its turn. */
static void resume(struct io_lane *lane, struct client_io *cio)
{
	struct io_list *waiting = &lane->clients.waiting;
	struct io_list others = *waiting;
	struct io *io = &cio->io;

	prepare(cio);
	if (!cio->begun) {
		io_append(waiting, io);
		return;
	}
	cio->begun = false;
	io->begun = true;
	atomic_fetch_add(&lane->disk->nr_begun, 1);
	waiting->first = NULL;
	io_append(waiting, io);
	if (others.first) {
		io->next = others.first;
		waiting->last = others.last;
	}
}

void clients_unpark(struct io_lane *lane, struct client *client)
{
	struct client_io *cio;

	if (!client->conn) {
		client_give(lane, client);
		return;
	}
	client->lane = lane;
	conn_move(client->conn, lane->engine);
	DL_FOREACH(client->ios, cio)
		resume(lane, cio);
	DL_APPEND(lane->clients.list, client);
	atomic_fetch_add(&lane->clients.nr, 1);
}

struct client *clients_pop(struct client **io_list)
{
	struct client *client = *io_list;

	if (client)
		DL_DELETE(*io_list, client);
	return client;
}

/* No lane will execute its commands any more. */
static void end_one(struct client *client)
{
	struct client_io *cio;

	if (client->conn)
		conn_abandon(client->conn);
	while ((cio = client->ios))
		drop_command(cio);
	free_client(client);
}

void clients_end(struct client **io_list)
{
	struct client *client;

	while ((client = clients_pop(io_list)))
		end_one(client);
}
