/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Each client has one call at a time: bytes that come before it has taken its
 * answer stay in the input buffer.  A client is dropped, with a line in the
 * log, when
 *   - it is neither root nor our own user;
 *   - a message is longer than MESSAGE_MAX, or is not complete REQUEST_S
 *     seconds after it began, or is not a call in JSON;
 *   - it has not taken an answer within ANSWER_S seconds;
 *   - it has been silent for IDLE_S seconds without a call that waits.
 *
 * At most TALKING_MAX clients are here whose calls are not waiting.  The next one
 * takes the place of the one that has been silent for longest; when all are in
 * the middle of something, which has its time limit, it stays in the kernel's
 * queue.  A call that waits for a slow disk does not count there (xl may attach
 * many disks at once), only towards CLIENTS_MAX.
 */
#include "config.h"

#include "broker/control.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <utlist.h>

#include "broker/broker.h"
#include "broker/methods.h"
#include "common/log.h"
#include "common/util.h"

#define MESSAGE_MAX 65536
#define TALKING_MAX 16
#define CLIENTS_MAX 512
#define REQUEST_S   5
#define ANSWER_S    5
#define IDLE_S	    60
#define REST_MS	    100

struct client {
	struct client *prev;
	struct client *next;
	struct control *control;
	struct bufferevent *bev;
	struct event *timer; /* REQUEST_S or IDLE_S */
	bool in_request; /* the timer is for a message that has begun */
	struct call *waiting;
	bool dispatching; /* the call is answered from within its method */
	bool half_closed; /* it only waits for answers to what it has sent */
	const char *gone; /* why it is to be dropped; NULL: it is not */
};

struct call {
	struct control *control;
	struct client *client; /* NULL: it has gone */
	bool oneway;
};

struct control {
	struct broker *broker;
	struct event *listener;
	struct event *rest; /* a timer: nobody can be accepted just now */
	char *path;
	struct client *clients; /* the one that was silent for longest first */
	unsigned int nr_clients;
	unsigned int nr_waiting;
	bool stopped;
};

/* --- Clients come and go -------------------------------------------------- */

/* Is there an answer that must go out first? */
static bool busy(struct client *client)
{
	return client->waiting ||
	       evbuffer_get_length(bufferevent_get_output(client->bev)) > 0;
}

static bool is_silent(struct client *client)
{
	return !busy(client) && !client->in_request &&
	       evbuffer_get_length(bufferevent_get_input(client->bev)) == 0;
}

static struct client *longest_silent(struct control *control)
{
	struct client *client;

	DL_FOREACH(control->clients, client)
		if (is_silent(client))
			return client;
	return NULL;
}

static bool is_crowded(const struct control *control)
{
	return control->nr_clients - control->nr_waiting >= TALKING_MAX;
}

/* Listens as long as there is room for one more, or somebody to make room. */
static void set_listening(struct control *control)
{
	bool room = control->nr_clients < CLIENTS_MAX &&
		    (!is_crowded(control) || longest_silent(control));

	if (control->listener && room && !control->stopped)
		(void)event_add(control->listener, NULL);
	else if (control->listener)
		(void)event_del(control->listener);
}

static void drop_client(struct client *client, const char *why)
{
	struct control *control = client->control;

	if (why)
		log_warning("control socket: client dropped: %s", why);
	DL_DELETE(control->clients, client);
	control->nr_clients--;
	if (client->waiting) {
		client->waiting->client = NULL;
		control->nr_waiting--;
	}
	bufferevent_free(client->bev);
	event_free(client->timer);
	free(client);
	set_listening(control);
}

static void start_timer(struct client *client)
{
	struct timeval tv = { .tv_sec = client->in_request ? REQUEST_S :
							     IDLE_S };

	(void)evtimer_add(client->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;

	(void)fd;
	(void)what;
	drop_client(client, client->in_request ?
				    "its request did not end in time" :
				    "silent for too long");
}

/* --- Answers -------------------------------------------------------------- */

struct broker *call_broker(struct call *call)
{
	return call->control->broker;
}

static int send_object(struct client *client, const json_t *object)
{
	cleanup_free char *text = json_dumps(object, JSON_COMPACT);

	if (!text)
		return -ENOMEM;
	/* With the NUL that ends a message. */
	return bufferevent_write(client->bev, text, strlen(text) + 1) < 0 ?
		       -ENOMEM :
		       0;
}

/* Reads what the client has sent meanwhile: from the event loop, since whoever
 * answers is not to meet the next call in the middle of what it is doing. */
static void read_later(struct client *client)
{
	bufferevent_trigger(client->bev, EV_WRITE,
			    BEV_TRIG_IGNORE_WATERMARKS |
				    BEV_TRIG_DEFER_CALLBACKS);
}

/* Ends the call; object may be NULL when there is no memory. */
static void finish_call(struct call *call, json_t *object)
{
	struct client *client = call->client;
	bool oneway = call->oneway;

	free(call);
	if (client) {
		client->waiting = NULL;
		client->control->nr_waiting--;
		if (!oneway && (!object || send_object(client, object) < 0))
			client->gone = "no memory for its answer";
	}
	json_decref(object);
	/* read_calls() itself goes on when the answer came from within. */
	if (client && !client->dispatching)
		read_later(client);
}

void call_reply(struct call *call, json_t *parameters)
{
	finish_call(call, parameters ?
				  json_pack("{s:o}", "parameters", parameters) :
				  NULL);
}

void call_error(struct call *call, const char *error, json_t *parameters)
{
	finish_call(call, parameters ? json_pack("{s:s, s:o}", "error", error,
						 "parameters", parameters) :
				       NULL);
}

/* --- Calls ---------------------------------------------------------------- */

/* The members of a call.  Returns what is wrong, or NULL. */
static const char *read_call(const json_t *object, const char **ret_method,
			     const json_t **ret_params, bool *ret_oneway)
{
	const json_t *method = json_object_get(object, "method");
	const json_t *params = json_object_get(object, "parameters");

	if (!json_is_object(object))
		return "its request is not a JSON object";
	if (!json_is_string(method))
		return "its request names no method";
	if (params && !json_is_object(params) && !json_is_null(params))
		return "its parameters are not a JSON object";
	*ret_method = json_string_value(method);
	*ret_params = json_is_object(params) ? params : NULL;
	*ret_oneway = json_is_true(json_object_get(object, "oneway"));
	return NULL;
}

/* The first member that Varlink does not know, or that we cannot do. */
static const char *unknown_member(const json_t *object)
{
	static const char *const known[] = { "method", "parameters", "oneway",
					     "more" };
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		bool found = false;

		for (size_t i = 0; i < ARRAY_SIZE(known); i++)
			found = found || strcmp(key, known[i]) == 0;
		if (!found)
			return key;
	}
	return NULL;
}

static void start_call(struct client *client, const json_t *object)
{
	struct call *call = calloc(1, sizeof(*call));
	const json_t *params = NULL;
	const char *method = NULL;
	const char *unknown;

	if (!call) {
		client->gone = "no memory";
		return;
	}
	client->gone = read_call(object, &method, &params, &call->oneway);
	if (client->gone) {
		free(call);
		return;
	}
	call->control = client->control;
	call->client = client;
	client->waiting = call;
	client->control->nr_waiting++;
	unknown = unknown_member(object);
	if (unknown)
		call_error(call, "org.varlink.service.InvalidParameter",
			   json_pack("{s:s}", "parameter", unknown));
	else
		methods_dispatch(call, method, params);
}

/* Takes one message out of the buffer: its length without the NUL, or -1. */
static ssize_t find_message(struct evbuffer *input)
{
	struct evbuffer_ptr end = evbuffer_search(input, "", 1, NULL);

	return end.pos;
}

static void take_message(struct client *client, struct evbuffer *input,
			 size_t length)
{
	const char *text =
		(const char *)evbuffer_pullup(input, (ev_ssize_t)length + 1);
	json_t *object =
		text ? json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL) :
		       NULL;

	(void)evbuffer_drain(input, length + 1);
	client->dispatching = true;
	if (object)
		start_call(client, object);
	else
		client->gone = "its request is not JSON";
	client->dispatching = false;
	json_decref(object);
}

/* Has it said that it sends no more, and got all its answers? */
static bool has_all(struct client *client)
{
	return client->half_closed && !client->waiting &&
	       evbuffer_get_length(bufferevent_get_output(client->bev)) == 0;
}

/* As many calls as are there, as long as the answers are taken.  The client may
 * be gone afterwards. */
static void read_calls(struct client *client)
{
	struct evbuffer *input = bufferevent_get_input(client->bev);
	ssize_t length = -1;

	while (!client->gone && !busy(client) &&
	       (length = find_message(input)) >= 0 && length <= MESSAGE_MAX)
		take_message(client, input, (size_t)length);
	if (!client->gone && !busy(client) &&
	    (length > MESSAGE_MAX || evbuffer_get_length(input) > MESSAGE_MAX))
		client->gone = "its request is too long";
	if (client->gone || has_all(client)) {
		drop_client(client, client->gone);
		return;
	}
	if (!busy(client) && !client->half_closed)
		(void)bufferevent_enable(client->bev, EV_READ);
	if (busy(client)) {
		(void)evtimer_del(client->timer);
		client->in_request = false;
	} else if (evbuffer_get_length(input) == 0) {
		client->in_request = false;
		start_timer(client);
		DL_DELETE(client->control->clients, client);
		DL_APPEND(client->control->clients, client);
	} else if (!client->in_request) {
		client->in_request = true;
		start_timer(client);
	}
	set_listening(client->control);
}

static void on_input(struct bufferevent *bev, void *arg)
{
	struct client *client = arg;

	if (!busy(client))
		read_calls(client);
	else if (evbuffer_get_length(bufferevent_get_input(bev)) > MESSAGE_MAX)
		/* libevent would call us again and again over a full buffer. */
		(void)bufferevent_disable(bev, EV_READ);
}

/* All answers so far are in the kernel's hands. */
static void on_output(struct bufferevent *bev, void *arg)
{
	(void)bev;
	read_calls(arg);
}

static void on_trouble(struct bufferevent *bev, short what, void *arg)
{
	struct client *client = arg;

	(void)bev;
	if (what & BEV_EVENT_EOF) {
		client->half_closed = true;
		if (!has_all(client))
			return;
	}
	drop_client(client, what & BEV_EVENT_TIMEOUT ?
				    "it does not take its answers" :
				    NULL);
}

/* --- Listening ------------------------------------------------------------ */

static bool may_connect(int fd)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0)
		return false;
	return cred.uid == 0 || cred.uid == geteuid();
}

static int add_client(struct control *control, int fd)
{
	struct timeval answer = { .tv_sec = ANSWER_S };
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		return -ENOMEM;
	client->control = control;
	client->timer = evtimer_new(control->broker->base, on_timer, client);
	if (client->timer)
		client->bev = bufferevent_socket_new(control->broker->base, fd,
						     BEV_OPT_CLOSE_ON_FREE);
	if (!client->bev) {
		if (client->timer)
			event_free(client->timer);
		free(client);
		return -ENOMEM;
	}
	DL_APPEND(control->clients, client);
	control->nr_clients++;
	bufferevent_setcb(client->bev, on_input, on_output, on_trouble, client);
	/* One byte more than the longest message, so that it shows. */
	bufferevent_setwatermark(client->bev, EV_READ, 0, MESSAGE_MAX + 1);
	(void)bufferevent_set_timeouts(client->bev, NULL, &answer);
	(void)bufferevent_enable(client->bev, EV_READ | EV_WRITE);
	start_timer(client);
	return 0;
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	set_listening(arg);
}

/* Without descriptors the client stays in the queue, of which the loop would be told
 * again and again. */
static void rest(struct control *control)
{
	const struct timeval tv = { .tv_usec = REST_MS * 1000 };

	if (evtimer_add(control->rest, &tv) == 0)
		(void)event_del(control->listener);
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct control *control = arg;
	int sock = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *silent;

	(void)what;
	if (sock < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED)
			rest(control);
		return;
	}
	silent = is_crowded(control) ? longest_silent(control) : NULL;
	if (silent)
		drop_client(silent, "silent, and another one needs its place");
	if (!may_connect(sock) || add_client(control, sock) < 0) {
		log_warning("control socket: client refused");
		(void)close(sock);
	}
	set_listening(control);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_close int fd = -1;
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The lock of the run directory is ours, so this is a dead one's. */
	(void)unlink(path);
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	(void)umask(mask);
	if (r < 0 || listen(fd, 128) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int control_start(struct control **ret, struct broker *broker)
{
	struct control *control = calloc(1, sizeof(*control));
	int fd = -ENOMEM;

	if (!control)
		return -ENOMEM;
	control->broker = broker;
	control->path = xasprintf("%s/control.sock", broker->options.run_dir);
	if (control->path)
		fd = listen_at(control->path);
	if (fd < 0) {
		free(control->path);
		free(control);
		return fd;
	}
	control->listener = event_new(broker->base, fd, EV_READ | EV_PERSIST,
				      on_connect, control);
	control->rest = evtimer_new(broker->base, on_rested, control);
	if (!control->listener || !control->rest) {
		if (!control->listener)
			(void)close(fd);
		control_free(control);
		return -ENOMEM;
	}
	set_listening(control);
	*ret = control;
	return 0;
}

void control_stop(struct control *control)
{
	struct client *client;
	struct client *next;

	control->stopped = true;
	DL_FOREACH_SAFE(control->clients, client, next)
		drop_client(client, NULL);
	set_listening(control);
}

void control_free(struct control *control)
{
	if (!control)
		return;
	control_stop(control);
	if (control->listener) {
		(void)close(event_get_fd(control->listener));
		event_free(control->listener);
		(void)unlink(control->path);
	}
	if (control->rest)
		event_free(control->rest);
	free(control->path);
	free(control);
}
