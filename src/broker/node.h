/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * node.h - a disk's place in xenstore, and what the toolstack wrote there.
 */
#ifndef XENDISK_NODE_H
#define XENDISK_NODE_H

#include "broker/store.h"

/* backend/vbd, backend/vbd3, backend/xendisk */
enum node_kind { NODE_VBD, NODE_VBD3, NODE_XENDISK, NODE_NR_KINDS };
const char *node_kind_name(enum node_kind kind);

struct node_address {
	enum node_kind kind;
	uint32_t domid;
	uint32_t devid;
};

/* "backend/vbd/5/51728", as libxl gives it to hotplug scripts. */
int node_parse(const char *xenbus_path, struct node_address *ret);

/* Both paths are absolute; backend_domid is this domain.  The frontend's is
 * made here and not taken from xenstore: whoever can write the key would
 * otherwise choose what we read and remove. */
char *node_backend_path(const struct node_address *at, uint32_t backend_domid);
char *node_frontend_path(const struct node_address *at);
/* Where a backend says what is wrong with it, as the kernel's do: error/BACKEND, next
 * to backend/. */
void node_print_error_dir(char buf[STORE_PATH_MAX],
			  const struct node_address *at,
			  uint32_t backend_domid);

struct node {
	char *target; /* the expression */
	char vdev[32];
	bool read_only;
	bool cdrom;
	bool removable;
	bool discard;
};

/* Is it a whole node, and one for us to serve? */
int node_is_ours(struct store *store, const struct node_address *at,
		 const char *backend_path, bool *ret);

/* -EINVAL with a sentence in ret_why (MSG_TEXT_MAX bytes) when the toolstack
 * has written something that makes no sense. */
int node_read(struct store *store, const struct node_address *at,
	      const char *backend_path, struct node *ret, char *ret_why);
void node_clear(struct node *node);

/* The UUID of the guest, or "": of the guest proper when this is its stub
 * domain, which has the same disks. */
void node_vm(struct store *store, const struct node_address *at, char *ret,
	     size_t len);

#endif
