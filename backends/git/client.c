/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client.c - the worker's side of committer.h.
 *
 * Theory of operation
 *
 * In open(), before the worker is isolated, the committer is started and asked
 * what the disk is; each question is followed by its answer then.  When a guest
 * comes for the first time a thread takes over the socket, and until the disk is
 * closed nobody else reads from it.  Others leave their questions (struct ask) in
 * a list, and sleep until the thread has the answer.
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

#include "common/util.h"
#include "companion.h"

#define ANSWER_MS 25000 /* a worker has 30 s to open its disk */
#define ASK_S	  30
#define TRIES	  3u /* while another worker lets go of the overlay */

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

void client_wake(struct client *client)
{
	const uint64_t one = 1;

	(void)!write(client->wake, &one, sizeof(one));
}

uint32_t client_seq(struct client *client)
{
	return __atomic_add_fetch(&client->seq, 1, __ATOMIC_RELAXED);
}

static void close_all(int *fds, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		if (fds[i] >= 0)
			(void)close(TAKE_FD(fds[i]));
}

/* --- Packs ----------------------------------------------------------------------- */

/* What does not fit is asked for, object by object. */
static void add_packs(struct client *client, struct store *store,
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
	close_all(fds, nr_fds);
}

/* --- A question, and its answer: before the thread is there ------------------------- */

static int receive(struct client *client, union cm_any *ret, int *fds,
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
		int r = receive(client, ret, fds, ret_nr, ret_why);

		if (r < 0)
			return r;
		if (ret->h.type == CM_BEGIN)
			return why(ret_why, -EIO, "the committer has died");
		if (ret->h.seq != seq) {
			close_all(fds, *ret_nr);
			continue;
		}
		if (ret->h.type == type)
			return 0;
		close_all(fds, *ret_nr);
		if (ret->h.type != CM_FAILED)
			return why(ret_why, -EPROTO, "the committer answers %s",
				   cm_name(ret->h.type));
		return why(ret_why, ret->h.result < 0 ? ret->h.result : -EIO,
			   "%s", ret->failed.text);
	}
}

static int ask_open(struct client *client, struct cm_header *msg,
		    enum cm_type type, struct cm_opened *ret, char *ret_why)
{
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r;

	msg->seq = client_seq(client);
	r = cm_send(client->sock, msg, type, NULL, 0, true);
	if (r < 0)
		return why(ret_why, r, "the committer: %s", strerror(-r));
	r = answer(client, msg->seq, CM_OPENED, &any, fds, &nr, ret_why);
	if (r < 0)
		return r;
	close_all(fds, nr);
	*ret = any.opened;
	return 0;
}

static int ask_packs(struct client *client, char *ret_why)
{
	struct cm_header msg = { .seq = client_seq(client) };
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r = cm_send(client->sock, &msg, CM_PACKS, NULL, 0, true);

	if (r < 0)
		return why(ret_why, r, "the committer: %s", strerror(-r));
	do {
		r = answer(client, msg.seq, CM_PACK, &any, fds, &nr, ret_why);
		if (r < 0)
			return r;
		add_packs(client, client->store, &any.pack, fds, nr);
	} while (any.pack.left > 0);
	return 0;
}

static int ask_object(struct client *client, const uint8_t oid[OID_BYTES],
		      enum object_type *ret_type, uint64_t *ret_size,
		      int *ret_fd, char *ret_why)
{
	struct cm_object msg = { .h.seq = client_seq(client) };
	union cm_any any;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	int r;

	memcpy(msg.oid, oid, OID_BYTES);
	r = cm_send(client->sock, &msg.h, CM_OBJECT, NULL, 0, true);
	if (r < 0)
		return why(ret_why, r, "the committer: %s", strerror(-r));
	r = answer(client, msg.h.seq, CM_OBJECT_IS, &any, fds, &nr, ret_why);
	if (r < 0)
		return r;
	*ret_type = any.object_is.type;
	*ret_size = any.object_is.size;
	*ret_fd = TAKE_FD(fds[0]);
	close_all(fds, nr);
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
static int own_ask(void *ctx, const uint8_t oid[OID_BYTES],
		   enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
		   char *ret_why)
{
	struct client *client = ctx;

	if (client->running)
		return why(ret_why, -ENOENT, "it is in no pack");
	return ask_object(client, oid, ret_type, ret_size, ret_fd, ret_why);
}

static void send_asks(struct client *client)
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

static void send_asks_again(struct client *client)
{
	pthread_mutex_lock(&client->ask_lock);
	for (struct ask *ask = client->asks; ask; ask = ask->next)
		ask->seq = 0;
	pthread_mutex_unlock(&client->ask_lock);
	send_asks(client);
}

/* False: nobody has asked that. */
static bool take_answer(struct client *client, const union cm_any *msg,
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

/* --- The thread ------------------------------------------------------------------------ */

static void fill_stand(struct client *client, struct cm_stand *msg)
{
	const uint8_t *u = client->facts.uuid;

	*msg = (struct cm_stand){ .generation = client->generation };
	(void)snprintf(msg->uuid, sizeof(msg->uuid),
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		       "%02x%02x%02x%02x%02x%02x",
		       u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8],
		       u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	memcpy(msg->base, client->facts.base, OID_BYTES);
	memcpy(msg->head, client->facts.head, OID_BYTES);
}

/* A new committer is told what the one before knew.  Its answers tell nothing
 * new. */
static void begin_again(struct client *client)
{
	struct cm_open open = client->open;
	struct cm_stand stand;

	client->nr_sent = client->nr_late = 0;
	open.h.seq = client_seq(client);
	(void)cm_send(client->sock, &open.h, CM_OPEN, NULL, 0, true);
	if (client->stood) {
		fill_stand(client, &stand);
		stand.h.seq = client_seq(client);
		(void)cm_send(client->sock, &stand.h, CM_STAND, NULL, 0, true);
	}
	send_asks_again(client);
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
		add_packs(client, client->store, &msg->pack, fds, nr_fds);
		break;
	case CM_COMMITTED:
		if (of_commit)
			client_committed(client, &msg->committed);
		break;
	case CM_FAILED:
		if (of_commit)
			client_commit_failed(client, msg->failed.text);
		else
			(void)take_answer(client, msg, fds);
		break;
	case CM_OBJECT_IS:
		(void)take_answer(client, msg, fds);
		break;
	default: /* OPENED, PROGRESS, DONE */
		break;
	}
	close_all(fds, nr_fds);
}

static int receive_packs(struct client *client, struct store *store,
			 uint32_t seq, char *ret_why)
{
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr;
	bool more = true;

	while (more) {
		int r = receive(client, &msg, fds, &nr, ret_why);

		if (r < 0)
			return r;
		if (msg.h.type == CM_PACK && msg.h.seq == seq) {
			more = msg.pack.left > 0;
			add_packs(client, store, &msg.pack, fds, nr);
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

/*
 * Each snapshot brings a pack, and each pack takes two descriptors.  Before there
 * are too many, those are asked for that the repository has now, in which git gc
 * has made few of many.  Earlier bases keep the packs that they know.
 */
int client_renew_store(struct client *client, char *ret_why)
{
	struct cm_header ask = { .seq = client_seq(client) };
	struct store *store;
	int r = store_new(&store, GIT_CACHE, ret_why);

	if (r < 0)
		return r;
	r = cm_send(client->sock, &ask, CM_PACKS, NULL, 0, true);
	if (r < 0)
		(void)why(ret_why, r, "the committer: %s", strerror(-r));
	else
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
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr = 0;
	int r = cm_receive(client->sock, &msg, fds, &nr);

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
			send_asks(client);
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
static int open_base(struct client *client, const struct cm_opened *opened,
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
	const struct asker asker = { .ask = own_ask, .ctx = client };
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
	r = ask_open(client, &client->open.h, CM_OPEN, &client->opened,
		     ret_why);
	if (r == 0)
		r = ask_packs(client, ret_why);
	/* Of one that is written to, STAND says the base; but that it can be
	 * read is better known now. */
	return r < 0 ? r : open_base(client, &client->opened, ret_why);
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

/* --- A guest comes and goes ------------------------------------------------------------------ */

/* Nothing is in it, and the branch has moved: then so does the disk.  Not under a
 * guest that goes on with another worker; nor when somebody has served the disk
 * since we were told where the branch is: that is older than what we have. */
static int follow_branch(struct client *client, char *ret_why)
{
	struct overlay_facts facts = *overlay_facts(client->overlay);

	if (client->stood || client->git->live.kept ||
	    !overlay_is_empty(client->overlay) ||
	    memcmp(facts.head, client->found_head, OID_BYTES) != 0 ||
	    memcmp(facts.head, client->opened.commit, OID_BYTES) == 0)
		return 0;
	if (client->opened.size != facts.size)
		return why(ret_why, -EINVAL,
			   "the branch has been moved to a disk of another "
			   "size");
	memcpy(facts.base, client->opened.commit, OID_BYTES);
	memcpy(facts.head, client->opened.commit, OID_BYTES);
	return overlay_restart(client->overlay, &facts, ret_why);
}

static int lock(struct client *client, bool recover, char *ret_why)
{
	int r = -ESTALE;

	/* What was found is what is wanted: the base is opened afterwards. */
	for (unsigned int i = 0; i < TRIES && r == -ESTALE; i++)
		r = overlay_lock(client->overlay, &client->facts, recover,
				 ret_why);
	return r;
}

/* What was written last and not flushed is known from kept state. */
static int recall(struct client *client, char *ret_why)
{
	struct live *live = &client->git->live;
	int r = live_recover(live, overlay_active(client->overlay));

	if (r < 0)
		return why(ret_why, r, "what was written last is not known: %s",
			   strerror(-r));
	r = follow_branch(client, ret_why);
	/* It may be another layer now. */
	if (r == 0 && live_recover(live, overlay_active(client->overlay)) < 0)
		r = why(ret_why, -EIO, "kept state cannot be written");
	return r == 0 ? overlay_tidy(client->overlay, ret_why) : r;
}

static int stand(struct client *client, char *ret_why)
{
	const struct overlay_facts *facts = overlay_facts(client->overlay);
	struct cm_opened opened;
	struct cm_stand msg;
	int r;

	if (client->stood) {
		if (memcmp(facts->base, base_commit(client->base), OID_BYTES) ==
		    0)
			return 0;
		return why(ret_why, -ESTALE,
			   "another worker has served this disk meanwhile: "
			   "attach it anew");
	}
	client->facts = *facts;
	client->generation = facts->base_gen;
	fill_stand(client, &msg);
	r = ask_open(client, &msg.h, CM_STAND, &opened, ret_why);
	if (r == 0 &&
	    memcmp(opened.commit, base_commit(client->base), OID_BYTES) != 0)
		r = open_base(client, &opened, ret_why);
	if (r == 0 && base_disk(client->base)->size != facts->size)
		r = why(ret_why, -EINVAL,
			"the commit that the overlay stands on has another "
			"size");
	client->stood = r == 0;
	return r;
}

static int activate(struct client *client, bool recover, char *ret_why)
{
	int r = lock(client, recover, ret_why);

	if (r < 0)
		return r;
	r = recall(client, ret_why);
	if (r == 0)
		r = stand(client, ret_why);
	if (r == 0)
		r = client_set_view(client);
	if (r == -ENOMEM)
		(void)why(ret_why, r, "the disk: no memory");
	if (r < 0) {
		char ignored[WHY_MAX];

		(void)overlay_unlock(client->overlay, ignored);
		return r;
	}
	client->active = true;
	client->next_auto = client->interval ? now_ns() + client->interval : 0;
	client->retry_at = client->retry_after = 0;
	return 0;
}

int client_activate(struct client *client, bool recover, char *ret_why)
{
	int r = 0;

	pthread_mutex_lock(&client->mutex);
	if (client->overlay)
		r = activate(client, recover, ret_why);
	else if (!client->git->views.current)
		r = client_set_view(client);
	pthread_mutex_unlock(&client->mutex);
	if (r == 0)
		r = client_run(client);
	if (r == 0)
		client_wake(client);
	return r;
}

int client_deactivate(struct client *client, char *ret_why)
{
	struct snapshot_info info = { .kind = CM_BRANCH,
				      .consistency = CONSISTENCY_CLEAN_DETACH };
	uint64_t gen;
	int r = 0, end;

	if (!client->overlay)
		return 0;
	pthread_mutex_lock(&client->mutex);
	if (client->snapshot_at_end &&
	    layer_sectors(overlay_active(client->overlay)) > 0)
		r = client_freeze(client, &info, &gen, ret_why);
	client_look(client);
	client->active = false;
	view_slot_set(&client->git->views, NULL);
	end = overlay_unlock(client->overlay, ret_why);
	pthread_mutex_unlock(&client->mutex);
	return r < 0 ? r : end;
}
