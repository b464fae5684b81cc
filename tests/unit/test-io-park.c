/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NBD clients that are cut off, and clients while lanes end and begin again:
 * io-client.c, with neither sockets nor sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "io-fixture.h"
#include "nbd/session.h"
#include "worker/conn.h"
#include "worker/io-client.h"

/* --- In place of conn.c and nbd/ ------------------------------------------ */

struct conn {
	const struct nbd_session_events *events;
	void *ctx;
	bool lost, told, over;
};

static struct conn conns[2];
static unsigned int nr_conns;
static uint64_t answered[CLIENT_IOS_MAX + 4]; /* offsets, in that order */
static unsigned int nr_answered;
static unsigned int nr_dropped; /* commands */
static int answer; /* what each is to be answered */

int conn_new(struct conn **ret, struct engine *engine, int fd,
	     const struct nbd_credentials *credentials,
	     const struct nbd_session_events *events, void *ctx,
	     uint64_t timeout_ns)
{
	(void)engine;
	(void)fd;
	(void)credentials;
	(void)timeout_ns;
	assert_true(nr_conns < ARRAY_SIZE(conns));
	*ret = &conns[nr_conns++];
	**ret = (struct conn){ .events = events, .ctx = ctx };
	return 0;
}

void conn_free(struct conn *conn)
{
	(void)conn;
}

void conn_move(struct conn *conn, struct engine *engine)
{
	(void)conn;
	(void)engine;
}

bool conn_pump(struct conn *conn)
{
	(void)conn;
	return false;
}

const struct nbd_session *conn_lost(struct conn *conn)
{
	bool first = conn->lost && !conn->told;

	conn->told |= first;
	return first ? (const void *)conn : NULL;
}

bool conn_is_over(const struct conn *conn)
{
	return conn->over;
}

void conn_abandon(struct conn *conn)
{
	conn->over = true;
}

int nbd_command_error(const struct nbd_command *command, int err)
{
	(void)command;
	return err;
}

bool nbd_command_extent(struct nbd_command *command, uint64_t length,
			uint32_t state)
{
	(void)command;
	(void)length;
	(void)state;
	return true;
}

void nbd_command_done(struct nbd_command *command, int err, const char *why)
{
	(void)why;
	if (err == -ESHUTDOWN) {
		nr_dropped++;
	} else {
		assert_int_equal(err, answer);
		assert_true(nr_answered < ARRAY_SIZE(answered));
		answered[nr_answered++] = command->offset;
	}
	free(command->buffer);
	free(command);
}

/* --- Two clients ---------------------------------------------------------- */

static _Atomic(unsigned int) nr_clients;
static uint16_t flags; /* of the commands that are sent */

static int start(void **state)
{
	const struct client_spec spec = { .fd = -1, .name = "" };

	(void)state;
	nr_conns = 0;
	nr_answered = 0;
	nr_dropped = 0;
	answer = 0;
	flags = 0;
	fix_start();
	clients_init(&fix.lane);
	for (unsigned int i = 0; i < ARRAY_SIZE(conns); i++) {
		struct client *client;

		assert_int_equal(client_new(&client, &spec, &fix.limits,
					    &nr_clients),
				 0);
		client_give(&fix.lane, client);
		fix_run();
	}
	return 0;
}

static int stop(void **state)
{
	struct client *parked = NULL;

	(void)state;
	clients_park(&fix.lane, &parked);
	clients_end(&parked);
	assert_int_equal(atomic_load(&nr_clients), 0);
	fix_stop();
	return 0;
}

static void send_command(const struct conn *conn, enum nbd_cmd type,
			 uint64_t offset, uint8_t value)
{
	struct nbd_command *command = calloc(1, conn->events->command_size);

	assert_non_null(command);
	command->type = type;
	command->flags = flags;
	command->offset = offset;
	if (type == NBD_CMD_WRITE) {
		command->length = 4096;
		command->buffer = malloc(4096);
		assert_non_null(command->buffer);
		memset(command->buffer, value, 4096);
	}
	conn->events->submit(conn->ctx, command);
	fix_run();
}

static void send_write(const struct conn *conn, uint64_t offset, uint8_t value)
{
	send_command(conn, NBD_CMD_WRITE, offset, value);
}

/* As use.c does when a guest comes or goes. */
static void begin_again(void)
{
	struct client *parked = NULL, *client;

	clients_park(&fix.lane, &parked);
	memset(&fix.lane.clients, 0, sizeof(fix.lane.clients));
	memset(&fix.lane.hold, 0, sizeof(fix.lane.hold));
	memset(&fix.lane.want_begun, 0, sizeof(fix.lane.want_begun));
	atomic_store(&fix.disk.stop, false);
	clients_init(&fix.lane);
	while ((client = clients_pop(&parked)))
		clients_unpark(&fix.lane, client);
	fix_run();
}

/* The first write is there, as far as a read can tell, and not answered; the second
 * one may be of somebody who has read it. */
static void test_order(void **state)
{
	(void)state;
	send_write(&conns[0], 8192, 1);
	send_write(&conns[1], 8192 + 512, 2);
	send_write(&conns[1], 65536, 3);
	assert_int_equal(fix.nr_queue, 2);
	fix_complete(1, 0);
	assert_int_equal(nr_answered, 1);
	atomic_store(&fix.disk.stop, true);
	fix_complete(0, -ECANCELED);
	assert_int_equal(nr_answered, 1);
	begin_again();
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	fix_complete(0, 0);
	assert_int_equal(nr_answered, 3);
	assert_int_equal(answered[1], 8192);
	assert_int_equal(fix.store[8192], 1);
	assert_int_equal(fix.store[8192 + 512], 2);
}

/* Once more before it has its range again. */
static void test_order_twice(void **state)
{
	(void)state;
	send_write(&conns[0], 8192, 1);
	send_write(&conns[1], 8192 + 512, 2);
	for (unsigned int i = 0; i < 3; i++) {
		atomic_store(&fix.disk.stop, true);
		fix_complete(0, -ECANCELED);
		begin_again();
	}
	fix_complete(0, 0);
	fix_complete(0, 0);
	assert_int_equal(answered[0], 8192);
	assert_int_equal(fix.store[8192 + 512], 2);
}

/* --- One is cut off ------------------------------------------------------- */

static void cut(struct conn *conn)
{
	conn->lost = true;
	fix_run();
}

/* What had its range is done, what waited behind it is not, and who comes back waits
 * for no more than that. */
static void test_cut(void **state)
{
	(void)state;
	send_write(&conns[0], 8192, 1);
	send_write(&conns[0], 8192, 2);
	send_write(&conns[0], 8192, 3);
	assert_int_equal(fix.nr_queue, 1);
	cut(&conns[0]);
	assert_int_equal(nr_dropped, 2);
	assert_int_equal(nr_answered, 0);
	send_write(&conns[1], 8192, 4);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(fix.store[8192], 1);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(nr_answered, 2);
	assert_int_equal(fix.nr_queue, 0);
	assert_int_equal(fix.store[8192], 4);
	assert_int_equal(fix.lane.clients.nr_begun, 0);
	assert_int_equal(fix.lane.clients.bytes, 0);
}

/* More than a lane executes at a time: the others had not begun, whatever they were.
 * Neighbours' stay, in their order. */
static void test_cut_waiting(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < CLIENT_IOS_MAX; i++)
		send_write(&conns[i % 2], i * 8192, 1);
	send_write(&conns[0], 4096, 2);
	send_write(&conns[1], 8192 + 4096, 3);
	send_write(&conns[0], 4096, 4);
	send_write(&conns[1], 16384 + 4096, 5);
	cut(&conns[0]);
	assert_int_equal(nr_dropped, 2);
	while (fix.nr_queue > 0)
		fix_complete(0, 0);
	assert_int_equal(nr_answered, CLIENT_IOS_MAX + 2);
	assert_int_equal(answered[CLIENT_IOS_MAX], 8192 + 4096);
	assert_int_equal(answered[CLIENT_IOS_MAX + 1], 16384 + 4096);
	assert_int_equal(fix.store[4096], 0);
	assert_int_equal(fix.lane.clients.nr_begun, 0);
	assert_int_equal(fix.lane.clients.bytes, 0);
}

/* One that is held had begun: it is tried again, and done. */
static void test_cut_held(void **state)
{
	(void)state;
	send_write(&conns[0], 8192, 1);
	send_write(&conns[0], 8192, 2);
	fix_complete(0, -ENOSPC);
	assert_int_equal(fix.nr_queue, 0);
	cut(&conns[0]);
	assert_int_equal(nr_dropped, 1);
	send_write(&conns[1], 8192, 3);
	assert_int_equal(fix.nr_queue, 0);
	atomic_store(&fix.lane.resume, true);
	fix_run();
	fix_complete(0, 0);
	fix_complete(0, 0);
	assert_int_equal(nr_answered, 2);
	assert_int_equal(fix.store[8192], 3);
	assert_int_equal(atomic_load(&fix.disk.nr_held), 0);
}

static void test_cut_flush(void **state)
{
	(void)state;
	send_command(&conns[0], NBD_CMD_FLUSH, 0, 0);
	send_command(&conns[0], NBD_CMD_FLUSH, 0, 0);
	assert_int_equal(fix.nr_queue, 1);
	cut(&conns[0]);
	assert_int_equal(nr_dropped, 0);
	fix_complete(0, 0);
	fix_complete(0, 0);
	assert_int_equal(nr_answered, 2);
	assert_int_equal(fix.nr_queue, 0);
}

/* Before what had begun has its range again: that is done. */
static void test_cut_parked(void **state)
{
	(void)state;
	send_write(&conns[0], 8192, 1);
	send_write(&conns[0], 8192, 2);
	send_write(&conns[1], 8192, 3);
	atomic_store(&fix.disk.stop, true);
	fix_complete(0, -ECANCELED);
	conns[0].lost = true;
	begin_again();
	assert_int_equal(nr_dropped, 1);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(fix.store[8192], 1);
	fix_complete(0, 0);
	assert_int_equal(fix.nr_queue, 0);
	assert_int_equal(fix.store[8192], 3);
}

/* Some wait for what had begun to have its range. */
static void test_cut_before_begun(void **state)
{
	(void)state;
	atomic_store(&fix.disk.nr_begun, 1);
	send_write(&conns[0], 8192, 1);
	send_write(&conns[1], 8192, 2);
	send_write(&conns[0], 8192, 3);
	cut(&conns[0]);
	assert_int_equal(nr_dropped, 2);
	atomic_store(&fix.disk.nr_begun, 0);
	io_poke(&fix.lane);
	fix_run();
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(fix.nr_queue, 0);
	assert_int_equal(fix.store[8192], 2);
	assert_int_equal(fix.lane.clients.nr_begun, 0);
}

/* --- FUA ------------------------------------------------------------------ */

/* The kernel tells of a lost write once, and it need not be the one that is being made
 * durable: so it is a flush that fails, and the disk is poisoned. */
static void test_fua(void **state)
{
	(void)state;
	fix.limits.flush = true;
	fix.limits.fua = true;
	flags = NBD_CMD_FLAG_FUA;
	send_write(&conns[0], 8192, 1);
	assert_int_equal(fix.nr_queue, 1);
	assert_int_equal(fix.queue[0]->op, XD_WRITE);
	assert_int_equal(fix.queue[0]->flags, 0);
	fix_complete(0, 0);
	assert_int_equal(nr_answered, 0);
	assert_int_equal(fix.nr_queue, 1);
	assert_int_equal(fix.queue[0]->op, XD_FLUSH);
	answer = -EIO;
	fix_complete(0, -EIO);
	assert_int_equal(nr_answered, 1);
	assert_int_equal(fix_count(FIX_MARK), 1);
	assert_int_equal(atomic_load(&fix.disk.poison), IO_POISONED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cut, start, stop),
		cmocka_unit_test_setup_teardown(test_cut_waiting, start, stop),
		cmocka_unit_test_setup_teardown(test_cut_held, start, stop),
		cmocka_unit_test_setup_teardown(test_cut_flush, start, stop),
		cmocka_unit_test_setup_teardown(test_cut_parked, start, stop),
		cmocka_unit_test_setup_teardown(test_cut_before_begun, start,
						stop),
		cmocka_unit_test_setup_teardown(test_fua, start, stop),
		cmocka_unit_test_setup_teardown(test_order, start, stop),
		cmocka_unit_test_setup_teardown(test_order_twice, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
