/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * services.c - the worker's side of the socket to the broker.
 *
 * Any thread may be waiting: the main thread for its next order, others for
 * the answer to a service.  One of them at a time reads the socket (`reading`)
 * and puts what it got where it belongs: an answer that is waited for into
 * `answer`, orders into `inbox`, all else away.  The others sleep on `news`.
 * A reader gives the role back after each message, so none is stuck with it
 * when its own has come.
 *
 * One service is asked at a time, and the broker takes a second question for
 * an attack: who comes second waits, and that counts as part of its time.  A
 * question whose asker has given up stays the one outstanding until its answer
 * is there, which is then thrown away and its descriptor closed.
 *
 * Mustn't: send with the lock held, since the broker may be slow to read.
 *
 * A broker that dies makes the socket `lost`: all calls fail at once, and their
 * callers try again some time.  The main thread waits for the next broker, in
 * services_await().  The socket is replaced when none of the other threads has
 * anything to do with the old one any more (`users`), and they can use it only
 * after the new broker knows who this is.
 */
#include "config.h"

#include "worker/services.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <utlist.h>

#include "common/util.h"

/* How long a message that is no service waits for room in the socket. */
#define SEND_TIMEOUT_NS 1000000000ull
/* Without its own state a worker is of no use, so it can wait. */
#define KEEP_TIMEOUT_NS (10 * 1000000000ull)

struct order {
	struct order *prev, *next;
	size_t length;
	int fd; /* or -1 */
	unsigned char msg[] __attribute__((aligned(16)));
};

struct services {
	int sock; /* changed by the main thread, when there are no users */
	int listener;

	/* Taken before the other one: what holds is also what is told last. */
	pthread_mutex_t telling;
	struct msg_condition condition[MSG_NR_CONDITIONS];

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t news;
	unsigned int users; /* threads in services_call() and services_send() */
	uint64_t budget;
	bool reading;
	int lost; /* 0, or why the socket is of no use any more */
	uint32_t seq; /* of the last service asked */
	bool outstanding; /* the broker owes an answer to it */
	bool waited_for; /* somebody has asked and not taken the answer yet */
	struct msg_service_done answer; /* when !outstanding && waited_for */
	int answer_fd;
	struct order *inbox;
	struct order *spare; /* for one that comes when there is no memory */
};

int services_new(struct services **ret, int sock, int listener)
{
	pthread_condattr_t attr;
	struct services *s;

	/* poll() may be wrong about a socket, and waiting has its limits. */
	if (fcntl(sock, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->spare = malloc(sizeof(*s->spare) + MSG_MAX);
	if (!s->spare) {
		free(s);
		return -ENOMEM;
	}
	s->sock = sock;
	s->listener = listener;
	s->answer_fd = -1;
	pthread_mutex_init(&s->telling, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->news, &attr);
	pthread_condattr_destroy(&attr);
	*ret = s;
	return 0;
}

void services_free(struct services *s)
{
	struct order *order, *next;

	if (!s)
		return;
	DL_FOREACH_SAFE(s->inbox, order, next) {
		if (order->fd >= 0)
			(void)close(order->fd);
		free(order);
	}
	free(s->spare);
	if (s->answer_fd >= 0)
		(void)close(s->answer_fd);
	pthread_cond_destroy(&s->news);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->telling);
	(void)close(s->sock);
	if (s->listener >= 0)
		(void)close(s->listener);
	free(s);
}

/* --- Waiting -------------------------------------------------------------- */

static uint64_t deadline_in(uint64_t ns)
{
	uint64_t now = now_ns();

	return ns < UINT64_MAX - now ? now + ns : UINT64_MAX;
}

/* 0: the socket is ready for `events`; -ETIMEDOUT. */
static int wait_socket(const struct services *s, short events,
		       uint64_t deadline)
{
	struct pollfd pfd = { .fd = s->sock, .events = events };
	uint64_t now = now_ns();
	uint64_t left = deadline > now ? deadline - now : 0;
	struct timespec ts = { .tv_sec = (time_t)(left / 1000000000),
			       .tv_nsec = (long)(left % 1000000000) };
	int n;

	n = ppoll(&pfd, 1, deadline == UINT64_MAX ? NULL : &ts, NULL);
	if (n == 0)
		return -ETIMEDOUT;
	return n < 0 && errno != EINTR ? -errno : 0;
}

/* With the lock: sleeps until somebody has news. */
static int wait_news(struct services *s, uint64_t deadline)
{
	struct timespec ts = { .tv_sec = (time_t)(deadline / 1000000000),
			       .tv_nsec = (long)(deadline % 1000000000) };

	if (deadline == UINT64_MAX)
		return -pthread_cond_wait(&s->news, &s->lock);
	return -pthread_cond_timedwait(&s->news, &s->lock, &ts);
}

/* --- Reading -------------------------------------------------------------- */

/* Takes over fd, but not when it fails. */
static int keep_order(struct services *s, const void *buf, size_t length,
		      int fd)
{
	struct order *order = malloc(sizeof(*order) + length);

	/* The broker sends the next order when this one is answered. */
	if (!order)
		order = TAKE_PTR(s->spare);
	if (!order)
		return -ENOMEM;
	order->length = length;
	order->fd = fd;
	memcpy(order->msg, buf, length);
	DL_APPEND(s->inbox, order);
	return 0;
}

/* With the lock.  Takes over fd. */
static int sort_message(struct services *s, const void *buf, size_t length,
			int fd)
{
	const struct msg_header *header = buf;
	cleanup_close int not_wanted = fd;
	int r;

	if (header->type != MSG_SERVICE_DONE) {
		r = keep_order(s, buf, length, fd);
		if (r == 0)
			(void)TAKE_FD(not_wanted);
		return r;
	}
	if (!s->outstanding || header->seq != s->seq)
		return -EPROTO;
	s->outstanding = false;
	if (s->waited_for) {
		memcpy(&s->answer, buf, sizeof(s->answer));
		s->answer_fd = TAKE_FD(not_wanted);
	}
	return 0;
}

/* With the lock, which is open meanwhile: reads one message, or waits for
 * whoever is reading.  -ETIMEDOUT; s->lost tells of the socket's end. */
static int read_one(struct services *s, uint64_t deadline)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	size_t length;
	int fd, r;

	if (s->reading)
		return wait_news(s, deadline);
	s->reading = true;
	pthread_mutex_unlock(&s->lock);
	r = wait_socket(s, POLLIN, deadline);
	if (r == 0) {
		r = msg_receive(s->sock, buf, &length, &fd);
		if (r == -EAGAIN)
			r = -EINTR; /* as good as: once more */
	}
	pthread_mutex_lock(&s->lock);
	s->reading = false;
	if (r == 0)
		r = sort_message(s, buf, length, fd);
	if (r < 0 && r != -ETIMEDOUT && r != -EINTR)
		s->lost = r;
	pthread_cond_broadcast(&s->news);
	return r == -ETIMEDOUT ? r : 0;
}

int services_next(struct services *s, void *buf, size_t *ret_length,
		  int *ret_fd, uint64_t deadline_ns)
{
	struct order *order;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	while (!s->inbox && !s->lost && r == 0)
		r = read_one(s, deadline_ns);
	order = s->inbox;
	if (order) {
		DL_DELETE(s->inbox, order);
		memcpy(buf, order->msg, order->length);
		*ret_length = order->length;
		*ret_fd = order->fd;
		if (!s->spare)
			s->spare = malloc(sizeof(*s->spare) + MSG_MAX);
		free(order);
		r = 0;
	} else if (s->lost) {
		r = s->lost;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* --- Sending -------------------------------------------------------------- */

/* The kernel is short of memory; poll() knows nothing of that. */
static int wait_for_memory(uint64_t deadline)
{
	if (now_ns() >= deadline)
		return -ETIMEDOUT;
	(void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return 0;
}

static int send_before(struct services *s, void *msg, size_t length,
		       enum msg_type type, uint64_t deadline)
{
	int r;

	for (;;) {
		r = msg_send(s->sock, msg, length, type, -1);
		if (r == -EAGAIN)
			r = wait_socket(s, POLLOUT, deadline);
		else if (r == -ENOBUFS || r == -ENOMEM)
			r = wait_for_memory(deadline);
		else
			return r;
		if (r < 0)
			return r;
	}
}

/* With the lock. */
static void begin_use(struct services *s)
{
	s->users++;
}

static void end_use(struct services *s)
{
	s->users--;
	pthread_cond_broadcast(&s->news);
}

int services_send(struct services *s, void *msg, size_t length,
		  enum msg_type type)
{
	int r;

	pthread_mutex_lock(&s->lock);
	r = s->lost;
	if (r == 0)
		begin_use(s);
	pthread_mutex_unlock(&s->lock);
	if (r)
		return r;
	r = send_before(s, msg, length, type, deadline_in(SEND_TIMEOUT_NS));
	pthread_mutex_lock(&s->lock);
	end_use(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int services_tell(struct services *s, struct msg_condition *condition)
{
	int r;

	pthread_mutex_lock(&s->telling);
	s->condition[condition->kind] = *condition;
	r = services_send(s, condition, sizeof(*condition), MSG_CONDITION);
	pthread_mutex_unlock(&s->telling);
	return r;
}

/* With the lock: waits for this thread's turn to ask. */
static int begin_asking(struct services *s, uint64_t deadline)
{
	int r = 0;

	while ((s->outstanding || s->waited_for) && !s->lost && r == 0)
		r = s->outstanding ? read_one(s, deadline) :
				     wait_news(s, deadline);
	if (s->lost)
		return s->lost;
	if (s->outstanding || s->waited_for)
		return r;
	s->outstanding = true;
	s->waited_for = true;
	s->seq++;
	return 0;
}

/* With the lock, which is open meanwhile. */
static int ask(struct services *s, struct msg_service *request,
	       uint64_t deadline)
{
	int r;

	request->h.seq = s->seq;
	request->h.result = 0;
	pthread_mutex_unlock(&s->lock);
	r = send_before(s, request, sizeof(*request), MSG_SERVICE, deadline);
	pthread_mutex_lock(&s->lock);
	if (r < 0) {
		s->outstanding = false; /* it was never sent */
		return r;
	}
	while (r == 0 && s->outstanding && !s->lost)
		r = read_one(s, deadline);
	if (!s->outstanding)
		return 0;
	return s->lost ? s->lost : r;
}

/* With the lock. */
static int call(struct services *s, struct msg_service *request,
		struct msg_service_done *ret_done, int *ret_fd,
		uint64_t deadline)
{
	int r = begin_asking(s, deadline);

	if (r)
		return r;
	r = ask(s, request, deadline);
	s->waited_for = false;
	if (r)
		return r;
	*ret_done = s->answer;
	*ret_fd = TAKE_FD(s->answer_fd);
	r = s->answer.h.result;
	if (r == 0 && request->kind == MSG_SERVICE_BUDGET)
		s->budget += (uint64_t)request->amount;
	return r;
}

int services_call(struct services *s, struct msg_service *request,
		  struct msg_service_done *ret_done, int *ret_fd,
		  uint64_t timeout_ns)
{
	uint64_t deadline = deadline_in(timeout_ns);
	cleanup_close int fd = -1;
	int r;

	pthread_mutex_lock(&s->lock);
	begin_use(s);
	r = call(s, request, ret_done, &fd, deadline);
	end_use(s);
	pthread_mutex_unlock(&s->lock);
	if (ret_fd && r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

int services_keep(struct services *s, const char *name, uint64_t size,
		  int *ret_fd)
{
	struct msg_service request = { .kind = MSG_SERVICE_KEEP,
				       .layer = MSG_LAYER_NONE,
				       .keep = XD_KEEP_STATE,
				       .size = size };
	struct msg_service_done done;

	(void)snprintf(request.name, sizeof(request.name), "%s", name);
	return services_call(s, &request, &done, ret_fd, KEEP_TIMEOUT_NS);
}

uint64_t services_budget(struct services *s)
{
	uint64_t budget;

	pthread_mutex_lock(&s->lock);
	budget = s->budget;
	pthread_mutex_unlock(&s->lock);
	return budget;
}

/* --- Another broker ------------------------------------------------------- */

/* Waits without end; costs nothing meanwhile. */
static int accept_broker(const struct services *s)
{
	struct pollfd pfd = { .fd = s->listener, .events = POLLIN };
	int fd;

	for (;;) {
		if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
			return -errno;
		fd = accept4(s->listener, NULL, NULL,
			     SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			return fd;
		if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED)
			return -errno;
	}
}

/* All have noticed by themselves that the old one is lost. */
static void replace_socket(struct services *s, int sock)
{
	pthread_mutex_lock(&s->lock);
	while (s->users)
		(void)wait_news(s, UINT64_MAX);
	(void)close(s->sock);
	s->sock = sock;
	s->outstanding = false;
	pthread_mutex_unlock(&s->lock);
}

static void let_speak(struct services *s)
{
	pthread_mutex_lock(&s->lock);
	s->lost = 0;
	pthread_mutex_unlock(&s->lock);
}

int services_introduce(struct services *s, void *msg, size_t length,
		       enum msg_type type)
{
	return send_before(s, msg, length, type, deadline_in(SEND_TIMEOUT_NS));
}

/* What holds, told by nobody else meanwhile.  A broker that has gone again is
 * noticed by who reads. */
static void tell_conditions(struct services *s)
{
	for (int i = 0; i < MSG_NR_CONDITIONS; i++) {
		struct msg_condition msg = s->condition[i];

		if (msg.set)
			(void)services_introduce(s, &msg, sizeof(msg),
						 MSG_CONDITION);
	}
}

int services_await(struct services *s, int (*introduce)(void *ctx), void *ctx)
{
	int r;

	do {
		int sock = s->listener >= 0 ? accept_broker(s) : -ENOTCONN;

		if (sock < 0)
			return sock;
		replace_socket(s, sock);
		pthread_mutex_lock(&s->telling);
		r = introduce(ctx);
		if (r == 0) {
			let_speak(s);
			tell_conditions(s);
		}
		pthread_mutex_unlock(&s->telling);
	} while (r); /* that one is gone, too: the next */
	return 0;
}
