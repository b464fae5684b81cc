/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "serve/listen.h"

#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/tcp.h"
#include "common/util.h"
#include "serve/complain.h"

#define BACKLOG		64
#define FIRST_PASSED_FD 3 /* sd_listen_fds(3) */

/* A socket that was passed may be another process's as well, which takes a client that
 * we were told of: who accepts here must not wait for the next one then. */
static int add(struct listeners *listeners, int fd)
{
	if (listeners->nr == LISTEN_MAX)
		return -ENOSPC;
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	listeners->fd[listeners->nr++] = fd;
	return 0;
}

/* --- Unix ----------------------------------------------------------------- */

/* Does anybody listen there?  Perhaps without taking those who wait already. */
static bool is_alive(const struct sockaddr_un *addr)
{
	cleanup_close int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 && (connect(fd, (const struct sockaddr *)addr,
				   sizeof(*addr)) == 0 ||
			   errno == EAGAIN);
}

static int bind_unix(int fd, const struct sockaddr_un *addr)
{
	mode_t saved = umask(0177);
	int r = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ?
			-errno :
			0;

	(void)umask(saved);
	return r;
}

static int open_unix(const char *path, int *ret)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	r = bind_unix(fd, &addr);
	if (r == -EADDRINUSE && stat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return -ENOTSOCK;
		if (!is_alive(&addr)) {
			(void)unlink(path);
			r = bind_unix(fd, &addr);
		}
	}
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r == 0)
		*ret = TAKE_FD(fd);
	return r;
}

/* In a URI a space is "%20", and so on. */
static void make_unix_uri(struct listeners *listeners, const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~/";
	char *to = listeners->uri, *end = to + sizeof(listeners->uri);

	to += snprintf(to, sizeof(listeners->uri), "nbd+unix:///?socket=");
	for (; *path && end - to > 4; path++)
		to += snprintf(to, (size_t)(end - to),
			       strchr(plain, *path) ? "%c" : "%%%02X",
			       (unsigned char)*path);
}

int listen_unix(struct listeners *listeners, const char *path)
{
	int fd = -1;
	int r = open_unix(path, &fd);

	if (r < 0) {
		complain("%s: %s", path,
			 r == -ENOTSOCK ? "it is there already, and is no "
					  "socket: another path is needed" :
					  strerror(-r));
		return r;
	}
	listeners->path = strdup(path);
	make_unix_uri(listeners, path);
	return add(listeners, fd);
}

/* --- TCP ------------------------------------------------------------------ */

/* "[::1]:10809", "host:10809", "10809". */
static int split(const char *where, char **ret_host, char **ret_port)
{
	const char *colon = strrchr(where, ':');
	const char *host = where;
	size_t length = colon ? (size_t)(colon - where) : 0;

	if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
		host++;
		length -= 2;
	}
	*ret_host = length ? strndup(host, length) : strdup("127.0.0.1");
	*ret_port = strdup(colon ? colon + 1 : where);
	return *ret_host && *ret_port ? 0 : -ENOMEM;
}

static int add_addresses(struct listeners *listeners, const char *where,
			 const struct addrinfo *list)
{
	int r = 0;

	for (const struct addrinfo *i = list; !r && i; i = i->ai_next) {
		int fd = tcp_listen(i, 0);

		r = fd < 0 ? fd : add(listeners, fd);
	}
	if (r < 0)
		complain("%s: %s", where, strerror(-r));
	return r;
}

int listen_tcp(struct listeners *listeners, const char *where)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE };
	cleanup_free char *host = NULL;
	cleanup_free char *port = NULL;
	struct addrinfo *list;
	bool is_v6;
	int r = split(where, &host, &port);

	if (r < 0)
		return r;
	r = getaddrinfo(host, port, &hints, &list);
	if (r) {
		complain("%s: %s", where, gai_strerror(r));
		return -EINVAL;
	}
	r = add_addresses(listeners, where, list);
	freeaddrinfo(list);
	is_v6 = strchr(host, ':');
	(void)snprintf(listeners->uri, sizeof(listeners->uri),
		       "nbd://%s%s%s:%s", is_v6 ? "[" : "", host,
		       is_v6 ? "]" : "", port);
	return r;
}

/* --- Passed by systemd ---------------------------------------------------- */

static int take_passed(struct listeners *listeners, int fd)
{
	socklen_t length = sizeof(int);
	int listens = 0, r = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) < 0 ||
	    !listens)
		r = -EINVAL;
	else if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		r = -errno;
	if (r == -EINVAL)
		complain("LISTEN_FDS: descriptor %d is no socket that listens",
			 fd);
	return r < 0 ? r : add(listeners, fd);
}

/* Without libsystemd, which is optional: two environment variables and
 * descriptors from 3 on. */
int listen_passed(struct listeners *listeners)
{
	const char *pid = getenv("LISTEN_PID");
	const char *fds = getenv("LISTEN_FDS");
	uint32_t for_pid, nr;
	int r = 0;

	if (!pid || !fds || parse_u32(pid, UINT32_MAX, &for_pid) < 0 ||
	    for_pid != (uint32_t)getpid())
		return 0;
	if (parse_u32(fds, LISTEN_MAX, &nr) < 0) {
		complain("LISTEN_FDS=%.32s: no number up to %d", fds,
			 LISTEN_MAX);
		return -EINVAL;
	}
	for (uint32_t i = 0; r == 0 && i < nr; i++)
		r = take_passed(listeners, FIRST_PASSED_FD + (int)i);
	(void)snprintf(listeners->uri, sizeof(listeners->uri), "%s",
		       "(passed sockets)");
	return r;
}

/* "nbd://" becomes "nbds://", "nbd+unix://" "nbds+unix://". */
void listen_secured(struct listeners *listeners)
{
	char *at = listeners->uri + 3;

	if (strncmp(listeners->uri, "nbd", 3) != 0)
		return;
	memmove(at + 1, at, strlen(at) + 1);
	*at = 's';
}

void listen_close(struct listeners *listeners)
{
	while (listeners->nr > 0)
		(void)close(listeners->fd[--listeners->nr]);
	if (listeners->path)
		(void)unlink(listeners->path);
	free(listeners->path);
	listeners->path = NULL;
}
