/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * listen.h - where clients come in.
 */
#ifndef XENDISK_SERVE_LISTEN_H
#define XENDISK_SERVE_LISTEN_H

#include <stddef.h>

#define LISTEN_MAX 16

struct listeners {
	int fd[LISTEN_MAX];
	unsigned int nr;
	char *path; /* of the unix socket that is ours to remove; or NULL */
	char uri[384]; /* of the last: that of a unix socket may all be %XX */
};

/* All say on stderr what is wrong.  -errno. */

/* A socket of mode 0600; one that a dead server left is replaced. */
int listen_unix(struct listeners *listeners, const char *path);
/* "[ADDR:]PORT"; without ADDR this machine only (127.0.0.1). */
int listen_tcp(struct listeners *listeners, const char *where);
/* Those that systemd has passed; 0: there are none. */
int listen_passed(struct listeners *listeners);
/* Clients have to use TLS: makes the URI say so. */
void listen_secured(struct listeners *listeners);
void listen_close(struct listeners *listeners);

#endif
