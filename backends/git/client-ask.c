/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client-ask.c - what the committer is asked, and its answers.
 *
 * Before the thread is there, each question is followed by its answer, and nobody
 * else reads from the socket.  Later on other threads leave theirs (struct ask) in
 * a list, and sleep until client.c's thread has the answer.
 */
#include "config.h"

#include "client.h"

#include <poll.h>
#include <string.h>

#include "common/fds.h"
#include "common/util.h"
#include "overlay-key.h"

#define ANSWER_MS 25000 /* a worker has 30 s to open its disk */
#define ASK_S	  30

/* An object that a thread waits for. */
struct ask {
	struct ask *next;
	uint8_t oid[OID_BYTES];
	uint32_t seq; /* 0: it is to be sent */
	bool done;
	int err;
	enum object_type type;
	uint64_t size;
	int fd;
	char why[WHY_MAX];
};

uint32_t client_seq(struct client *client)
{
	return __atomic_add_fetch(&client->seq, 1, __ATOMIC_RELAXED);
}

/* --- Packs ----------------------------------------------------------------------- */

/* What does not fit is asked for, object by object. */
void client_add_packs(struct client *client, struct store *store,
		      const struct cm_pack *msg, int *fds, unsigned int nr_fds)
{
	char reason[WHY_MAX] = "";

	for (unsigned int i = 0; i < msg->nr && 2 * i + 1 < nr_fds; i++) {
		if (odb_has_pack(store->odb, msg->name[i]))
			continue;
		if (odb_add(store->odb, msg->name[i], TAKE_FD(fds[2 * i + 1]),
			    TAKE_FD(fds[2 * i]), reason) < 0)
			(void)snprintf(client->note, sizeof(client->note), "%s",
				       reason);
	}
	fds_close(fds, nr_fds);
}

/* --- A question, and its answer: before the thread is there ------------------------- */

int client_receive(struct client *client, union cm_any *ret, int *fds,
		   unsigned int *ret_nr, char *ret_why)
{
	struct pollfd poll_fd = { .fd = client->sock, .events = POLLIN };
	int r;

	do
		r = poll(&poll_fd, 1, ANSWER_MS);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return why(ret_why, -ETIMEDOUT,
			   "the committer does not answer within %u s",
			   ANSWER_MS / 1000);
	r = r < 0 ? -errno : cm_receive(client->sock, ret, fds, ret_nr);
	return r < 0 ? why(ret_why, r, "the committer: %s",
			   r == -ECONNRESET ? "it has ended" : strerror(-r)) :
		       0;
}

/* Until the answer to seq comes; what else does is of earlier ones. */
static int answer(struct client *client, uint32_t seq, enum cm_type type,
		  union cm_any *ret, int *fds, unsigned int *ret_nr,
		  char *ret_why)
{
	for (;;) {
		int r = client_receive(client, ret, fds, ret_nr, ret_why);

		if (r < 0)
			return r;
		if (ret->h.type == CM_BEGIN)
			return why(ret_why, -EIO, "the committer has died");
		if (ret->h.seq != seq) {
			fds_close(fds, *ret_nr);
			continue;
		}
		if (ret->h.type == type)
			return 0;
		fds_close(fds, *ret_nr);
		if (ret->h.type != CM_FAILED)
			return why(ret_why, -EPROTO, "the committer answers %s",
				   cm_name(ret->h.type));
		return why(ret_why, ret->h.result < 0 ? ret->h.result : -EIO,
			   "%s", ret->failed.text);
	}
}

int client_send(struct client *client, struct cm_header *msg, enum cm_type type,
		char *ret_why)
{
	int r;

	msg->seq = client_seq(client);
	r = cm_send(client->sock, msg, type, NULL, 0, true);
	return r < 0 ? why(ret_why, r, "the committer: %s", strerror(-r)) : 0;
}

int client_ask_open(struct client *client, struct cm_header *msg,
		    enum cm_type type, struct cm_opened *ret, char *ret_why)
{
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r = client_send(client, msg, type, ret_why);

	if (r < 0)
		return r;
	r = answer(client, msg->seq, CM_OPENED, &any, fds, &nr, ret_why);
	if (r < 0)
		return r;
	fds_close(fds, nr);
	*ret = any.opened;
	return 0;
}

int client_ask_packs(struct client *client, char *ret_why)
{
	struct cm_header msg = { .type = CM_PACKS };
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r = client_send(client, &msg, CM_PACKS, ret_why);

	if (r < 0)
		return r;
	do {
		r = answer(client, msg.seq, CM_PACK, &any, fds, &nr, ret_why);
		if (r < 0)
			return r;
		client_add_packs(client, client->store, &any.pack, fds, nr);
	} while (any.pack.left > 0);
	return 0;
}

static int ask_object(struct client *client, const uint8_t oid[OID_BYTES],
		      enum object_type *ret_type, uint64_t *ret_size,
		      int *ret_fd, char *ret_why)
{
	struct cm_object msg = { .h.type = CM_OBJECT };
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r;

	memcpy(msg.oid, oid, OID_BYTES);
	r = client_send(client, &msg.h, CM_OBJECT, ret_why);
	if (r < 0)
		return r;
	r = answer(client, msg.h.seq, CM_OBJECT_IS, &any, fds, &nr, ret_why);
	if (r < 0)
		return r;
	*ret_type = any.object_is.type;
	*ret_size = any.object_is.size;
	*ret_fd = TAKE_FD(fds[0]);
	fds_close(fds, nr);
	return 0;
}

/* --- Questions of other threads -------------------------------------------------------- */

/* Takes it out of the list, or leaves a list without it as it is. */
static void unlink_ask(struct client *client, const struct ask *ask)
{
	for (struct ask **p = &client->asks; *p; p = &(*p)->next)
		if (*p == ask) {
			*p = ask->next;
			return;
		}
}

/* With ask_lock. */
static int wait_for(struct client *client, struct ask *ask)
{
	struct timespec until;
	int r = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ASK_S;
	client_wake(client);
	while (r == 0 && !ask->done && !client->away)
		r = -pthread_cond_timedwait(&client->answered,
					    &client->ask_lock, &until);
	unlink_ask(client, ask);
	if (ask->done)
		return ask->err;
	/* The request is held, and comes again. */
	return client->away ?
		       why(ask->why, -EIO, "the committer has ended") :
		       why(ask->why, -EAGAIN, "the committer does not answer");
}

int client_ask(void *ctx, const uint8_t oid[OID_BYTES],
	       enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
	       char *ret_why)
{
	struct client *client = ctx;
	struct ask ask = { .fd = -1 };
	int r;

	memcpy(ask.oid, oid, OID_BYTES);
	pthread_mutex_lock(&client->ask_lock);
	ask.next = client->asks;
	client->asks = &ask;
	r = wait_for(client, &ask);
	pthread_mutex_unlock(&client->ask_lock);
	if (r < 0) {
		if (ask.fd >= 0)
			(void)close(ask.fd);
		return why(ret_why, r, "%.400s", ask.why);
	}
	*ret_type = ask.type;
	*ret_size = ask.size;
	*ret_fd = ask.fd;
	return 0;
}

/* Of the thread that has the socket, or will have it. */
int client_own_ask(void *ctx, const uint8_t oid[OID_BYTES],
		   enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
		   char *ret_why)
{
	struct client *client = ctx;

	return client->running ?
		       client_ask_meanwhile(client, oid, ret_type, ret_size,
					    ret_fd, ret_why) :
		       ask_object(client, oid, ret_type, ret_size, ret_fd,
				  ret_why);
}

void client_send_asks(struct client *client)
{
	pthread_mutex_lock(&client->ask_lock);
	for (struct ask *ask = client->asks; ask; ask = ask->next) {
		struct cm_object msg = { .h.seq = client_seq(client) };

		if (ask->seq || ask->done)
			continue;
		memcpy(msg.oid, ask->oid, OID_BYTES);
		/* When it is gone, that will be seen. */
		if (cm_send(client->sock, &msg.h, CM_OBJECT, NULL, 0, true) ==
		    0)
			ask->seq = msg.h.seq;
	}
	pthread_mutex_unlock(&client->ask_lock);
}

void client_send_asks_again(struct client *client)
{
	pthread_mutex_lock(&client->ask_lock);
	for (struct ask *ask = client->asks; ask; ask = ask->next)
		ask->seq = 0;
	pthread_mutex_unlock(&client->ask_lock);
	client_send_asks(client);
}

/* False: nobody has asked that. */
bool client_take_answer(struct client *client, const union cm_any *msg,
			int *fds)
{
	struct ask *ask;

	pthread_mutex_lock(&client->ask_lock);
	for (ask = client->asks; ask; ask = ask->next)
		if (ask->seq == msg->h.seq && !ask->done)
			break;
	if (ask && msg->h.type == CM_OBJECT_IS) {
		ask->type = msg->object_is.type;
		ask->size = msg->object_is.size;
		ask->fd = TAKE_FD(fds[0]);
	} else if (ask) {
		ask->err = why(ask->why,
			       msg->h.result < 0 ? msg->h.result : -EIO, "%s",
			       msg->failed.text);
	}
	if (ask) {
		ask->done = true;
		pthread_cond_broadcast(&client->answered);
	}
	pthread_mutex_unlock(&client->ask_lock);
	return ask;
}

/* --- STAND, GIVE_UP --------------------------------------------------------------------- */

void client_fill_stand(struct client *client, struct cm_stand *msg)
{
	*msg = (struct cm_stand){ .generation = client->generation };
	uuid_print(client->facts.uuid, msg->uuid);
	memcpy(msg->base, client->facts.base, OID_BYTES);
	memcpy(msg->head, client->facts.head, OID_BYTES);
}

int client_give_up(struct client *client, char *ret_why)
{
	struct cm_give_up msg = { .h.type = CM_GIVE_UP };
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r;

	uuid_print(overlay_facts(client->overlay)->uuid, msg.uuid);
	r = client_send(client, &msg.h, CM_GIVE_UP, ret_why);
	if (r < 0)
		return r;
	return answer(client, msg.h.seq, CM_DONE, &any, fds, &nr, ret_why);
}
