/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

/* It needs <sys/socket.h>, and has it itself only in newer versions. */
#include <linux/vm_sockets.h>

#include "common/util.h"

#define DEFAULT_PORT 10809

/* Of one address of several. */
#define CONNECT_TIMEOUT_S 5

static const struct {
	const char *name;
	enum server_transport transport;
	bool tls;
} schemes[] = {
	{ "nbd", SERVER_TCP, false },
	{ "nbds", SERVER_TCP, true },
	{ "nbd+unix", SERVER_UNIX, false },
	{ "nbds+unix", SERVER_UNIX, true },
	{ "nbd+vsock", SERVER_VSOCK, false },
	{ "nbds+vsock", SERVER_VSOCK, true },
};

static int PRINTF(3, 4) fail(char *ret_why, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(ret_why, SERVER_TEXT_MAX, fmt, ap);
	va_end(ap);
	return err;
}

/* --- Parsing -------------------------------------------------------------- */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "%2f" becomes "/".  The result is a C string, so there is no %00. */
static int decode(const char *from, size_t n, char *to, size_t size,
		  const char *what, char *ret_why)
{
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		char c = from[i];

		if (c == '%') {
			int high = i + 2 < n ? hex(from[i + 1]) : -1;
			int low = high >= 0 ? hex(from[i + 2]) : -1;

			if (low < 0 || (high == 0 && low == 0))
				return fail(ret_why, -EINVAL,
					    "%s: a wrong %%-escape", what);
			c = (char)(high << 4 | low);
			i += 2;
		}
		/* It is shown to people. */
		if ((unsigned char)c < 0x20 || c == 0x7f)
			return fail(ret_why, -EINVAL,
				    "%s has a control character", what);
		if (used + 1 >= size)
			return fail(ret_why, -EINVAL,
				    "%s is longer than %zu bytes", what,
				    size - 1);
		to[used++] = c;
	}
	to[used] = '\0';
	return 0;
}

static int parse_port(const char *text, uint64_t max, uint32_t *ret,
		      char *ret_why)
{
	uint64_t port;

	if (parse_u64(text, max, &port) < 0 || port == 0)
		return fail(ret_why, -EINVAL, "\"%.32s\" is not a port", text);
	*ret = (uint32_t)port;
	return 0;
}

/* HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT. */
static int parse_tcp(const char *text, size_t n, struct server *ret,
		     char *ret_why)
{
	char word[sizeof(ret->host)];
	char *host = word, *port = NULL, *end;
	int r = decode(text, n, word, sizeof(word), "the host", ret_why);

	if (r < 0)
		return r;
	if (word[0] == '[') {
		end = strchr(word, ']');
		if (!end || (end[1] && end[1] != ':'))
			return fail(ret_why, -EINVAL,
				    "\"%.64s\" is not an address", word);
		host = word + 1;
		port = end[1] ? end + 2 : NULL;
		*end = '\0';
	} else if ((end = strchr(word, ':'))) {
		port = end + 1;
		*end = '\0';
	}
	if (!*host)
		return fail(ret_why, -EINVAL, "there is no host in it");
	(void)snprintf(ret->host, sizeof(ret->host), "%s", host);
	ret->port = DEFAULT_PORT;
	return port ? parse_port(port, UINT16_MAX, &ret->port, ret_why) : 0;
}

static int parse_vsock(const char *text, size_t n, struct server *ret,
		       char *ret_why)
{
	char word[32];
	char *port;
	int r = decode(text, n, word, sizeof(word), "the CID", ret_why);

	if (r < 0)
		return r;
	port = strchr(word, ':');
	if (port)
		*port++ = '\0';
	if (parse_u32(word, UINT32_MAX - 1, &ret->cid) < 0)
		return fail(ret_why, -EINVAL, "\"%s\" is not a vsock CID",
			    word);
	ret->port = DEFAULT_PORT;
	return port ? parse_port(port, UINT32_MAX - 1, &ret->port, ret_why) : 0;
}

/* [USER@]PLACE */
static int parse_authority(const char *text, size_t n, struct server *ret,
			   char *ret_why)
{
	const char *at = memchr(text, '@', n);
	int r = 0;

	if (at) {
		r = decode(text, (size_t)(at - text), ret->user,
			   sizeof(ret->user), "the user", ret_why);
		n -= (size_t)(at + 1 - text);
		text = at + 1;
	}
	if (r < 0)
		return r;
	if (ret->transport == SERVER_TCP)
		return parse_tcp(text, n, ret, ret_why);
	if (ret->transport == SERVER_VSOCK)
		return parse_vsock(text, n, ret, ret_why);
	return n ? fail(ret_why, -EINVAL,
			"a unix socket has no host: write "
			"nbd+unix:///EXPORT?socket=PATH") :
		   0;
}

static int take_query(const char *text, size_t n, struct server *ret,
		      char *ret_why)
{
	if (strncmp(text, "tls-", 4) == 0)
		return fail(ret_why, -EINVAL,
			    "%.*s: credentials come from the configuration "
			    "file: credentials=NAME",
			    (int)strcspn(text, "=&"), text);
	if (strncmp(text, "socket=", 7) != 0 || ret->transport != SERVER_UNIX)
		return fail(ret_why, -EINVAL, "\"%.*s\" means nothing here",
			    (int)MIN(strcspn(text, "=&"), 64u), text);
	return decode(text + 7, n - 7, ret->path, sizeof(ret->path),
		      "the path of the socket", ret_why);
}

/* socket=PATH&... */
static int parse_query(const char *text, struct server *ret, char *ret_why)
{
	while (*text) {
		size_t n = strcspn(text, "&");
		int r = n ? take_query(text, n, ret, ret_why) : 0;

		if (r < 0)
			return r;
		text += n + (text[n] == '&');
	}
	return 0;
}

static int parse_scheme(const char *uri, size_t n, struct server *ret,
			char *ret_why)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (strlen(schemes[i].name) != n ||
		    memcmp(schemes[i].name, uri, n) != 0)
			continue;
		ret->transport = schemes[i].transport;
		ret->tls = schemes[i].tls;
		return 0;
	}
	return fail(ret_why, -EINVAL, "\"%.*s\" is no kind of server",
		    (int)MIN(n, 64u), uri);
}

int server_parse(const char *uri, struct server *ret, char *ret_why)
{
	const char *place = strstr(uri, "://");
	const char *name, *query;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!place)
		return fail(ret_why, -EINVAL, "it is not a URI (nbd://...)");
	r = parse_scheme(uri, (size_t)(place - uri), ret, ret_why);
	if (r < 0)
		return r;
	place += 3;
	name = place + strcspn(place, "/?");
	query = name + strcspn(name, "?");
	r = parse_authority(place, (size_t)(name - place), ret, ret_why);
	if (r == 0 && *name == '/')
		r = decode(name + 1, (size_t)(query - name - 1),
			   ret->export_name, sizeof(ret->export_name),
			   "the name of the export", ret_why);
	if (r == 0 && *query)
		r = parse_query(query + 1, ret, ret_why);
	if (r == 0 && ret->transport == SERVER_UNIX && ret->path[0] != '/')
		return fail(ret_why, -EINVAL,
			    "it needs ?socket= with an absolute path");
	return r;
}

void server_print(const struct server *server, char *buf, size_t size)
{
	const char *colon = strchr(server->host, ':');

	switch (server->transport) {
	case SERVER_TCP:
		(void)snprintf(buf, size, "%s%s%s:%u", colon ? "[" : "",
			       server->host, colon ? "]" : "", server->port);
		return;
	case SERVER_UNIX:
		(void)snprintf(buf, size, "%s", server->path);
		return;
	case SERVER_VSOCK:
		(void)snprintf(buf, size, "vsock %u:%u", server->cid,
			       server->port);
		return;
	}
}

/* --- Connecting ----------------------------------------------------------- */

static int connect_to(const struct sockaddr *address, socklen_t length)
{
	const struct timeval limit = { .tv_sec = CONNECT_TIMEOUT_S };
	const struct timeval none = { .tv_sec = 0 };
	cleanup_close int fd =
		socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, address, length) < 0)
		return errno == EINPROGRESS || errno == EAGAIN ? -ETIMEDOUT :
								 -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	return TAKE_FD(fd);
}

/* Small requests at once; and a host that has lost its power is noticed when nothing
 * is under way, after half a minute; else see tcp_look().  TCP_USER_TIMEOUT
 * would also end a connection whose server is there and does not read: what that has
 * received it may do still, long after others have been told that it is done. */
static void tune_tcp(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 10 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 4 },
	};
	static const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].name,
				 &options[i].value, sizeof(int));
	/* A connection that is given up, or whose process dies, is at its end: else the
	 * kernel goes on to send what waits for a server that is slow, long after it has
	 * been sent again by another one, and others have written there since. */
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static int connect_tcp(const struct server *server, char *ret_why)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list, *ai;
	char port[8];
	int fd = -ENETUNREACH, r;

	(void)snprintf(port, sizeof(port), "%u", server->port);
	r = getaddrinfo(server->host, port, &hints, &list);
	if (r)
		return fail(ret_why, r == EAI_SYSTEM ? -errno : -ENXIO, "%s",
			    gai_strerror(r));
	for (ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = connect_to(ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	if (fd >= 0)
		tune_tcp(fd);
	return fd;
}

static int connect_unix(const struct server *server)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	/* A path that fills it needs no NUL. */
	memcpy(address.sun_path, server->path, sizeof(address.sun_path));
	return connect_to((const struct sockaddr *)&address, sizeof(address));
}

static int connect_vsock(const struct server *server)
{
	const struct sockaddr_vm address = { .svm_family = AF_VSOCK,
					     .svm_cid = server->cid,
					     .svm_port = server->port };

	return connect_to((const struct sockaddr *)&address, sizeof(address));
}

int server_connect(const struct server *server, char *ret_why)
{
	int fd = -EINVAL;

	ret_why[0] = '\0';
	switch (server->transport) {
	case SERVER_TCP:
		fd = connect_tcp(server, ret_why);
		break;
	case SERVER_UNIX:
		fd = connect_unix(server);
		break;
	case SERVER_VSOCK:
		fd = connect_vsock(server);
		break;
	}
	if (fd < 0 && !ret_why[0])
		(void)fail(ret_why, fd, "%s", strerror(-fd));
	return fd;
}
