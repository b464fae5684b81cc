/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * front.h - TLS before an export.
 *
 * A worker is locked down and small, and knows no TLS.  So a process of its own
 * does: `xendiskd --serve`, as of `xendisk serve`, with the nbd backend on the
 * export's unix socket.  It is started again when it ends.  Broker thread only.
 */
#ifndef XENDISK_FRONT_H
#define XENDISK_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/promise.h"

struct broker;
struct front;

struct front_spec {
	const char *name; /* of the export */
	uint32_t domid, devid; /* of its disk: whose lines are counted */
	const char *path; /* of its socket */
	const char *tcp; /* "ADDR:PORT" */
	const char *tls_certs; /* a folder; or NULL, ... */
	const char *tls_psk; /* ... and then a file */
	bool readonly;
	bool patient; /* one that cannot serve is started again, without a
		       * word: another daemon's may still have the port */
};

/* All texts are copied.  told() is called once, from the event loop: 0 when it
 * serves, or -errno and a sentence when it ended first.  It may free the front. */
int front_new(struct front **ret, struct broker *broker,
	      const struct front_spec *spec, promise_fn told, void *ctx);
/* The process ends by itself, after a last flush. */
void front_free(struct front *front);

#endif
