/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "command/client.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* The daemon answers within this, or something is wrong with it. */
#define REPLY_MAX_BYTES (16u << 20)
#define CHECK_TIMEOUT_S 10

/* What to do about it. */
static const char *hint(int error)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		return "; is it running?";
	case EACCES:
	case EPERM:
		return "; only root may, and the user that it runs as";
	default:
		return "";
	}
}

static int connect_socket(const char *run_dir, char **ret_why)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n;

	if (fd < 0)
		return -errno;
	n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/control.sock",
		     run_dir);
	if (n < 0 || (size_t)n >= sizeof(addr.sun_path)) {
		*ret_why = xasprintf("%s: the path is too long", run_dir);
		return -ENAMETOOLONG;
	}
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int r = -errno;

		*ret_why = xasprintf("cannot reach xendiskd at %s: %s%s",
				     addr.sun_path, strerror(-r), hint(-r));
		return r;
	}
	return TAKE_FD(fd);
}

static int send_request(int fd, const char *method, json_t *params)
{
	json_t *request = json_pack("{s:o, s:o}", "method",
				    json_sprintf("io.xendisk.%s", method),
				    "parameters", params);
	cleanup_free char *text = NULL;
	size_t length;

	if (!request)
		return -ENOMEM;
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text)
		return -ENOMEM;
	length = strlen(text) + 1; /* the NUL ends the message */
	for (size_t done = 0; done < length;) {
		ssize_t n = send(fd, text + done, length - done, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static int wait_readable(int fd, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t now = now_ns();
	int n;

	if (now >= deadline_ns)
		return -ETIMEDOUT;
	n = poll(&p, 1, (int)((deadline_ns - now) / 1000000u) + 1);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n == 0 ? -ETIMEDOUT : 1;
}

/* Everything up to the NUL. */
static int receive_reply(int fd, unsigned int timeout_s, json_t **ret)
{
	uint64_t deadline = now_ns() + timeout_s * 1000000000ull;
	cleanup_free char *text = NULL;
	size_t have = 0;
	size_t room = 0;

	while (have == 0 || text[have - 1] != '\0') {
		ssize_t n;
		int r = wait_readable(fd, deadline);

		if (r < 0)
			return r;
		if (have == room) {
			char *more;

			room = room ? room * 2 : 16384;
			more = room <= REPLY_MAX_BYTES ? realloc(text, room) :
							 NULL;
			if (!more)
				return -EMSGSIZE;
			text = more;
		}
		n = recv(fd, text + have, room - have, 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ECONNRESET;
		have += n > 0 ? (size_t)n : 0;
	}
	*ret = json_loads(text, 0, NULL);
	return *ret ? 0 : -EPROTO;
}

static const struct {
	const char *error;
	enum status status;
} errors[] = {
	{ "io.xendisk.NoSuchDisk", STATUS_NOT_FOUND },
	{ "io.xendisk.NoSuchExport", STATUS_NOT_FOUND },
	{ "io.xendisk.Refused", STATUS_REFUSED },
	{ "io.xendisk.Failed", STATUS_FAILED },
};

/* What an error reply says, and which exit status it means. */
static enum status error_status(json_t *reply, const char *error,
				char **ret_why)
{
	const char *message = json_string_value(json_object_get(
		json_object_get(reply, "parameters"), "message"));

	*ret_why = strdup(message ? message : error);
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (strcmp(errors[i].error, error) == 0)
			return errors[i].status;
	return STATUS_FAILED;
}

int client_start(const struct invocation *call, const char *method,
		 json_t *params, char **ret_why)
{
	cleanup_close int fd = connect_socket(call->run_dir, ret_why);
	int r;

	if (!params)
		params = json_object();
	if (fd < 0) {
		json_decref(params);
		return fd;
	}
	r = send_request(fd, method, params);
	if (r < 0) {
		*ret_why =
			xasprintf("xendiskd cannot be asked: %s", strerror(-r));
		return r;
	}
	return TAKE_FD(fd);
}

enum status client_finish(int fd, unsigned int timeout_s, json_t **ret_reply,
			  char **ret_why)
{
	enum status status = STATUS_DONE;
	json_t *reply = NULL;
	const char *error;
	int r = receive_reply(fd, timeout_s, &reply);

	(void)close(fd);
	if (r < 0) {
		*ret_why =
			xasprintf("no answer from xendiskd: %s", strerror(-r));
		return STATUS_NO_DAEMON;
	}
	error = json_string_value(json_object_get(reply, "error"));
	if (error)
		status = error_status(reply, error, ret_why);
	else
		*ret_reply = json_incref(json_object_get(reply, "parameters"));
	json_decref(reply);
	if (status == STATUS_DONE && !json_is_object(*ret_reply)) {
		json_decref(*ret_reply);
		*ret_why = strdup("xendiskd gave an answer without parameters");
		return STATUS_FAILED;
	}
	return status;
}

enum status client_try(const struct invocation *call, const char *method,
		       json_t *params, unsigned int timeout_s,
		       json_t **ret_reply, char **ret_why)
{
	int fd = client_start(call, method, params, ret_why);

	if (fd < 0)
		return STATUS_NO_DAEMON;
	return client_finish(fd, timeout_s, ret_reply, ret_why);
}

enum status client_call(const struct invocation *call, const char *method,
			json_t *params, unsigned int timeout_s,
			json_t **ret_reply)
{
	cleanup_free char *why = NULL;
	enum status status =
		client_try(call, method, params, timeout_s, ret_reply, &why);

	if (status != STATUS_DONE)
		fail(status, "%s: %s", call->verb->name, why ? why : "?");
	return status;
}

enum status client_check(const struct invocation *call, const char *expr,
			 bool read_only, json_t **ret_reply)
{
	json_t *params = json_pack("{s:s, s:b}", "expression", expr, "readonly",
				   (int)read_only);

	if (!params)
		return fail(STATUS_USAGE, "%s: the expression is no UTF-8 text",
			    call->verb->name);
	return client_call(call, "Check", params, CHECK_TIMEOUT_S, ret_reply);
}
