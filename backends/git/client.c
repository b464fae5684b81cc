/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client.c - the worker's side of committer.h.
 *
 * Theory of operation
 *
 * In open(), before the worker is isolated, the committer is started and asked
 * what the disk is; each question is followed by its answer then.  When a guest
 * comes for the first time a thread takes over the socket, and until the disk is
 * closed nobody else reads from it (client-ask.c).
 *
 * Should the committer die, it is started again by a parent that it has for that,
 * and says BEGIN: it is told once more what it has to know, and what was asked and
 * not answered is asked again.  When the socket ends it is gone for good: the disk
 * is served on, but nothing of it is committed before another worker comes.
 */
#include "config.h"

#include "client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/fds.h"
#include "common/util.h"
#include "companion.h"

void client_wake(struct client *client)
{
	const uint64_t one = 1;

	(void)!write(client->wake, &one, sizeof(one));
}

/* --- The thread ------------------------------------------------------------------------ */

/* A new committer is told what the one before knew.  Its answers tell nothing
 * new. */
static void begin_again(struct client *client)
{
	struct cm_open open = client->open;
	struct cm_stand stand;

	/* Sent again by the next who has the overlay. */
	if (!client->active && client->nr_sent > client->nr_late)
		(void)snprintf(
			client->failed, sizeof(client->failed),
			"the committer has died; it becomes a commit when "
			"a guest is there, or by the next snapshot");
	client->nr_sent = client->nr_late = 0;
	open.h.seq = client_seq(client);
	(void)cm_send(client->sock, &open.h, CM_OPEN, NULL, 0, true);
	if (client->stood) {
		client_fill_stand(client, &stand);
		stand.h.seq = client_seq(client);
		(void)cm_send(client->sock, &stand.h, CM_STAND, NULL, 0, true);
	}
	client_send_asks_again(client);
}

static bool is_sent(const struct client *client, uint32_t seq)
{
	for (unsigned int i = 0; i < client->nr_sent; i++)
		if (client->sent[i].seq == seq)
			return true;
	return false;
}

static void take_message(struct client *client, union cm_any *msg, int *fds,
			 unsigned int nr_fds)
{
	bool of_commit = is_sent(client, msg->h.seq);

	switch (msg->h.type) {
	case CM_BEGIN:
		begin_again(client);
		break;
	case CM_PACK:
		client_add_packs(client, client->store, &msg->pack, fds,
				 nr_fds);
		break;
	case CM_COMMITTED:
		if (of_commit)
			client_committed(client, &msg->committed);
		break;
	case CM_FAILED:
		if (of_commit)
			client_commit_failed(client, msg->failed.text);
		else
			(void)client_take_answer(client, msg, fds);
		break;
	case CM_OBJECT_IS:
		(void)client_take_answer(client, msg, fds);
		break;
	default: /* OPENED, PROGRESS, DONE */
		break;
	}
	fds_close(fds, nr_fds);
}

static int receive_packs(struct client *client, struct store *store,
			 uint32_t seq, char *ret_why)
{
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	bool more = true;

	while (more) {
		int r = client_receive(client, &msg, fds, &nr, ret_why);

		if (r < 0)
			return r;
		if (msg.h.type == CM_PACK && msg.h.seq == seq) {
			more = msg.pack.left > 0;
			client_add_packs(client, store, &msg.pack, fds, nr);
			continue;
		}
		/* All else goes on meanwhile. */
		take_message(client, &msg, fds, nr);
		if (msg.h.type == CM_BEGIN || msg.h.seq == seq)
			return why(ret_why, -EAGAIN,
				   "the committer has not sent its packs");
	}
	return 0;
}

int client_ask_meanwhile(struct client *client, const uint8_t oid[OID_BYTES],
			 enum object_type *ret_type, uint64_t *ret_size,
			 int *ret_fd, char *ret_why)
{
	struct cm_object ask = { .h.type = CM_OBJECT };
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r;

	memcpy(ask.oid, oid, OID_BYTES);
	r = client_send(client, &ask.h, CM_OBJECT, ret_why);
	if (r < 0)
		return r;
	do {
		r = client_receive(client, &msg, fds, &nr, ret_why);
		if (r < 0)
			return r;
		if (msg.h.type == CM_OBJECT_IS && msg.h.seq == ask.h.seq) {
			*ret_type = msg.object_is.type;
			*ret_size = msg.object_is.size;
			*ret_fd = fds[0];
			return 0;
		}
		/* All else goes on meanwhile. */
		take_message(client, &msg, fds, nr);
	} while (msg.h.type != CM_BEGIN && msg.h.seq != ask.h.seq);
	if (msg.h.type == CM_FAILED)
		return why(ret_why, msg.h.result < 0 ? msg.h.result : -EIO,
			   "%s", msg.failed.text);
	return why(ret_why, -EAGAIN, "the committer has died");
}

/*
 * Each snapshot brings a pack, and each pack takes two descriptors.  Before there
 * are too many, those are asked for that the repository has now, in which git gc
 * has made few of many.  Earlier bases keep the packs that they know.
 */
int client_renew_store(struct client *client, char *ret_why)
{
	struct cm_header ask = { .type = CM_PACKS };
	struct store *store;
	int r = store_new(&store, GIT_CACHE, ret_why);

	if (r < 0)
		return r;
	r = client_send(client, &ask, CM_PACKS, ret_why);
	if (r == 0)
		r = receive_packs(client, store, ask.seq, ret_why);
	if (r == 0) {
		store_put(client->store);
		client->store = store;
	} else {
		store_put(store);
	}
	return r;
}

static void lose_committer(struct client *client)
{
	client->nr_sent = 0;
	(void)snprintf(client->failed, sizeof(client->failed),
		       "the committer has ended; there is another one when the "
		       "disk is attached anew, or its worker is");
	pthread_mutex_lock(&client->ask_lock);
	client->away = true;
	pthread_cond_broadcast(&client->answered);
	pthread_mutex_unlock(&client->ask_lock);
	client_show(client);
}

static void read_messages(struct client *client)
{
	struct pollfd poll_fd = { .fd = client->sock, .events = POLLIN };
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr = 0;
	int r;

	/* Not if the main thread has heard it meanwhile: client_renew_store(). */
	if (poll(&poll_fd, 1, 0) <= 0)
		return;
	r = cm_receive(client->sock, &msg, fds, &nr);
	if (r == -EAGAIN || r == -EINTR)
		return;
	if (r < 0)
		lose_committer(client);
	else
		take_message(client, &msg, fds, nr);
}

static bool has_to_stop(struct client *client)
{
	bool stop;

	pthread_mutex_lock(&client->ask_lock);
	stop = client->stop;
	pthread_mutex_unlock(&client->ask_lock);
	return stop;
}

static void *run(void *arg)
{
	struct client *client = arg;
	struct pollfd fds[] = { { .fd = client->wake, .events = POLLIN },
				{ .fd = client->sock, .events = POLLIN } };
	uint64_t count;
	int timeout = 0;

	while (!has_to_stop(client)) {
		int r = poll(fds, client->away ? 1 : 2, timeout);

		pthread_mutex_lock(&client->mutex);
		if (r > 0 && fds[0].revents)
			(void)!read(client->wake, &count, sizeof(count));
		if (r > 0 && !client->away && fds[1].revents)
			read_messages(client);
		if (!client->away)
			client_send_asks(client);
		client_look(client);
		timeout = client_timeout(client);
		pthread_mutex_unlock(&client->mutex);
	}
	return NULL;
}

int client_run(struct client *client)
{
	sigset_t all, saved;
	int r;

	if (client->running)
		return 0;
	client->running = true;
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &saved);
	r = -pthread_create(&client->thread, NULL, run, client);
	(void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
	client->running = r == 0;
	return r;
}

static void stop_thread(struct client *client)
{
	pthread_mutex_lock(&client->ask_lock);
	client->stop = true;
	pthread_mutex_unlock(&client->ask_lock);
	client_wake(client);
	if (client->running)
		(void)pthread_join(client->thread, NULL);
	client->running = false;
}

/* --- Open and close ------------------------------------------------------------------------ */

/* The disk as it is in the commit that was opened. */
int client_open_base(struct client *client, const struct cm_opened *opened,
		     char *ret_why)
{
	struct base *base;
	int r = base_open(&base, client->store, client->reader, opened->commit,
			  opened->tree, ret_why);

	if (r < 0)
		return r;
	base_put(client->base);
	client->base = base;
	return 0;
}

static int begin(struct client *client, int state, int dir, char *ret_why)
{
	const struct asker asker = { .ask = client_own_ask, .ctx = client };
	int r;

	client->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (client->wake < 0)
		return why(ret_why, -errno, "eventfd: %s", strerror(errno));
	r = store_new(&client->store, GIT_CACHE, ret_why);
	if (r == 0 && base_reader_new(&client->reader, &asker) < 0)
		r = why(ret_why, -ENOMEM, "the disk: no memory");
	if (r < 0)
		return r;
	r = client->sock = companion_start("committer", state, dir, ret_why);
	if (r < 0)
		return r;
	r = client_ask_open(client, &client->open.h, CM_OPEN, &client->opened,
			    ret_why);
	if (r == 0)
		r = client_ask_packs(client, ret_why);
	/* Of one that is written to, STAND says the base; but that it can be
	 * read is better known now. */
	return r < 0 ? r : client_open_base(client, &client->opened, ret_why);
}

int client_new(struct client **ret, struct git *git, int state, int dir,
	       const struct cm_open *open, char *ret_why)
{
	struct client *client = calloc(1, sizeof(*client));
	pthread_condattr_t attr;
	int r;

	if (!client)
		return why(ret_why, -ENOMEM, "the disk: no memory");
	client->git = git;
	client->sock = client->wake = -1;
	client->open = *open;
	pthread_mutex_init(&client->mutex, NULL);
	pthread_mutex_init(&client->ask_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&client->answered, &attr);
	pthread_condattr_destroy(&attr);
	r = begin(client, state, dir, ret_why);
	if (r < 0)
		client_free(client);
	else
		*ret = client;
	return r;
}

void client_free(struct client *client)
{
	struct view *view;

	if (!client)
		return;
	stop_thread(client);
	while ((view = client->gone)) {
		client->gone = view->next;
		view_free(view);
	}
	overlay_close(client->overlay);
	base_put(client->base);
	base_reader_free(client->reader);
	store_put(client->store);
	if (client->sock >= 0)
		(void)close(client->sock);
	if (client->wake >= 0)
		(void)close(client->wake);
	pthread_cond_destroy(&client->answered);
	pthread_mutex_destroy(&client->ask_lock);
	pthread_mutex_destroy(&client->mutex);
	free(client);
}
