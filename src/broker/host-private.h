/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host-private.h - host services, for the files that make them up.
 *
 *	host.c		requests, kept state and memory, the life of a process
 *	host-files.c	the files that the expression names
 *	host-peers.c	servers and credentials
 *	host-children.c	the servers that belong to the disk
 *	host-poison.c	marks on storage whose flush has failed
 */
#ifndef XENDISK_HOST_PRIVATE_H
#define XENDISK_HOST_PRIVATE_H

#include <string.h>

#include "broker/broker.h"
#include "broker/errand.h"
#include "broker/host.h"
#include "common/util.h"

struct grant;
struct peer;
struct calling;
struct marking;
struct ward;

struct host {
	struct broker *broker;
	struct msg_identity id;
	uid_t uid;
	host_answer_fn answer;
	void *ctx;

	struct grant *grants;
	size_t nr_grants;
	struct errand *resolving; /* the grants are not there yet */
	struct errand *opening;
	struct peer *peers;
	size_t nr_peers;
	struct calling *callings;
	unsigned int nr_callings;
	struct ward *wards;
	size_t nr_wards;

	bool busy; /* request below is not answered yet */
	struct msg_service request;

	uint64_t charge; /* bytes of the memory limit */
	bool is_open; /* what is opened for writing now is for a guest */
	uint32_t nr_identities;
	char identity[MSG_MAX_IDENTITIES][MSG_IDENTITY_MAX];

	struct marking *markings;
	unsigned int nr_clearing;
	int clear_err;
	void (*cleared)(void *ctx, int err);
};

/* --- host.c: the answer to host->request ----------------------------------- */

/* fd stays the caller's. */
void host_send_answer(struct host *host, int result, bool kept, int fd,
		      const char *text);
void host_answer_error(struct host *host, int err, const char *fmt, ...)
	PRINTF(3, 4);

/* --- host-files.c ----------------------------------------------------------- */

void host_serve_open(struct host *host);
/* A new O_PATH descriptor of what that parameter of a layer, by its number, names.
 * On failure the request has been answered. */
int host_files_path(struct host *host, uint32_t layer, unsigned int param);
/* The files of the first process's expression, looked up in the background; those
 * of the ones after it are the same. */
int host_files_prepare(struct host *host, const struct layer *root);
/* A guest of an earlier broker's has written, if it noted so. */
void host_files_remember_use(struct host *host);
void host_files_adopt(struct host *host, bool used);
/* What was temporary, and used, is emptied. */
void host_files_discard(struct host *host);
/* The process is gone. */
void host_files_end(struct host *host);
void host_files_drop(struct host *host);

/* --- host-peers.c ----------------------------------------------------------- */

void host_serve_connect(struct host *host);
void host_serve_credential(struct host *host);
int host_peers_prepare(struct host *host, const struct layer *root);
void host_peers_end(struct host *host);
void host_peers_drop(struct host *host);

/* --- host-children.c -------------------------------------------------------- */

void host_serve_spawn(struct host *host);
/* Finds those of an earlier broker; starts none. */
int host_children_prepare(struct host *host, const struct layer *root,
			  const char *expression);
/* discard: the disk is detached. */
void host_children_drop(struct host *host, bool discard);

/* --- host-poison.c ---------------------------------------------------------- */

void host_serve_poison(struct host *host);
/* Nobody wants to hear of marks any more; all: of those being cleared neither. */
void host_poison_let_go(struct host *host, bool all);

#endif
