/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export.c - where the NBD clients of a disk come in.
 *
 * Theory of operation
 *
 * A client that cannot be given to a worker just now (it is being started, or its
 * guest is to be connected again first) stays in the kernel's queue: the listener
 * sleeps for a moment and looks again.  The disk is asked for each time, since it
 * may have gone.
 */
#include "config.h"

#include "broker/export.h"

#include <dirent.h>
#include <event2/event.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "broker/broker.h"
#include "broker/target.h"
#include "common/tcp.h"
#include "common/util.h"

#define BACKLOG	      64
#define LOOK_AGAIN_MS 50
#define SOCKET_FLAGS  (SOCK_NONBLOCK | SOCK_CLOEXEC)

struct listener {
	struct export *export;
	int fd;
	struct event *readable;
	struct event *later;
};

struct export
{
	struct broker *broker;
	struct export_spec spec; /* its texts are below */
	char *path;
	char *name;
	struct listener local, tcp;
};

/* --- Clients -------------------------------------------------------------- */

static void look_later(struct listener *listener)
{
	struct timeval tv = { .tv_usec = LOOK_AGAIN_MS * 1000 };

	(void)event_del(listener->readable);
	(void)evtimer_add(listener->later, &tv);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;

	(void)fd;
	(void)what;
	(void)event_add(listener->readable, NULL);
}

static void on_client(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;
	const struct export_spec *spec = &listener->export->spec;
	struct target *target = spec->target(spec->ctx);
	cleanup_close int client = -1;

	(void)what;
	if (!target || !target_takes_clients(target)) {
		look_later(listener);
		return;
	}
	client = accept4(fd, NULL, NULL, SOCKET_FLAGS);
	if (client < 0) {
		/* No descriptors: the client will still be there. */
		if (errno != EAGAIN && errno != ECONNABORTED)
			look_later(listener);
		return;
	}
	tcp_watch_client(client);
	if (target_client(target, spec->name, spec->flags, client) < 0)
		look_later(listener);
}

/* --- Listening ------------------------------------------------------------ */

static int listen_unix(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCKET_FLAGS, 0);
	mode_t saved;
	int r;

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	/* The run directory is ours alone, so this is what a dead broker left. */
	(void)unlink(path);
	saved = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	(void)umask(saved);
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	return r < 0 ? r : TAKE_FD(fd);
}

/* "127.0.0.1:10809", "[::1]:10809": in numbers, since looking up a name would
 * keep the broker from all else. */
static int listen_tcp(const char *where)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE |
						    AI_NUMERICHOST |
						    AI_NUMERICSERV };
	cleanup_free char *host = strdup(where);
	char *colon = host ? strrchr(host, ':') : NULL;
	struct addrinfo *list;
	char *start = host;
	int fd;

	if (!host)
		return -ENOMEM;
	if (!colon || colon == host)
		return -EINVAL;
	*colon = '\0';
	if (host[0] == '[' && colon[-1] == ']') {
		colon[-1] = '\0';
		start++;
	}
	if (getaddrinfo(start, colon + 1, &hints, &list))
		return -EINVAL;
	fd = tcp_listen(list, SOCK_NONBLOCK);
	freeaddrinfo(list);
	return fd;
}

static int start(struct listener *listener, struct export *export)
{
	struct event_base *base = export->broker->base;

	listener->export = export;
	if (listener->fd < 0)
		return listener->fd;
	listener->readable = event_new(base, listener->fd, EV_READ | EV_PERSIST,
				       on_client, listener);
	listener->later = evtimer_new(base, on_later, listener);
	if (!listener->readable || !listener->later ||
	    event_add(listener->readable, NULL) < 0)
		return -ENOMEM;
	return 0;
}

static void stop(struct listener *listener)
{
	if (listener->readable)
		event_free(listener->readable);
	if (listener->later)
		event_free(listener->later);
	if (listener->fd >= 0)
		(void)close(listener->fd);
}

static int start_all(struct export *export, char *ret_why)
{
	const char *tcp = export->spec.tcp;
	int r;

	export->local.fd = listen_unix(export->path);
	r = start(&export->local, export);
	if (r < 0)
		return msg_why(ret_why, r, "%s: %s", export->path,
			       strerror(-r));
	if (!tcp)
		return 0;
	export->tcp.fd = listen_tcp(tcp);
	r = start(&export->tcp, export);
	if (r == -EINVAL)
		return msg_why(ret_why, r,
			       "%s: no address and port, in numbers", tcp);
	return r < 0 ? msg_why(ret_why, r, "%s: %s", tcp, strerror(-r)) : 0;
}

int export_new(struct export **ret, struct broker *broker,
	       const struct export_spec *spec, char *ret_why)
{
	struct export *export = calloc(1, sizeof(*export));
	int r = -ENOMEM;

	(void)snprintf(ret_why, MSG_TEXT_MAX, "no memory");
	if (!export)
		return -ENOMEM;
	export->broker = broker;
	export->local.fd = -1;
	export->tcp.fd = -1;
	export->path = strdup(spec->path);
	export->name = strdup(spec->name);
	export->spec = *spec;
	export->spec.name = export->name;
	if (export->path && export->name)
		r = start_all(export, ret_why);
	export->spec.path = NULL; /* the caller's */
	export->spec.tcp = NULL;
	if (r < 0) {
		export_free(export);
		return r;
	}
	*ret = export;
	return 0;
}

void export_free(struct export *export)
{
	if (!export)
		return;
	if (export->local.fd >= 0)
		(void)unlink(export->path);
	stop(&export->local);
	stop(&export->tcp);
	free(export->path);
	free(export->name);
	free(export);
}

const char *export_path(const struct export *export)
{
	return export->path;
}

char *export_path_of(const char *run_dir, const char *name)
{
	return xasprintf("%s/nbd/%s.sock", run_dir, name);
}

/* --- After another broker -------------------------------------------------- */

static bool is_socket_name(const char *name)
{
	size_t length = strlen(name);

	return length > 5 && strcmp(name + length - 5, ".sock") == 0;
}

void export_sweep(const char *run_dir)
{
	cleanup_free char *path = xasprintf("%s/nbd", run_dir);
	DIR *dir = path ? opendir(path) : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (is_socket_name(entry->d_name))
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		(void)closedir(dir);
}
