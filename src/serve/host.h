/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host.h - the services of xendisk-backend.h where there is no broker.
 *
 * A thread answers at the other end of a socket, as the broker does.  Files
 * are opened as the user who runs the server; kept state lives as long as the
 * process; memory has no limit of ours.
 */
#ifndef XENDISK_SERVE_HOST_H
#define XENDISK_SERVE_HOST_H

#include "common/expr.h"
#include "worker/services.h"

struct local_host;
struct settings;

/* root: for the paths in it.  backend_dir, borrowed: as for stack_open().  Takes
 * over the settings, where credentials are.  isolated: isolate() will follow; servers
 * are still reached, paths are not.  *ret_services is freed before the host. */
int local_host_new(struct local_host **ret, const struct layer *root,
		   const char *backend_dir, bool isolated,
		   struct settings *settings, struct services **ret_services);
void local_host_free(struct local_host *host);

#endif
