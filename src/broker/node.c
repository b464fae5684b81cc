/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * node.c - the toolstack's half of the backend directory.
 */
#include <string.h>

#include "broker/node.h"
#include "common/msg.h"

#define SCRIPT "block-xendisk"

static const char *const kinds[NODE_NR_KINDS] = {
	[NODE_VBD] = "vbd",
	[NODE_VBD3] = "vbd3",
	[NODE_XENDISK] = "xendisk",
};

const char *node_kind_name(enum node_kind kind)
{
	return kinds[kind];
}

static int parse_kind(const char *name, enum node_kind *ret)
{
	for (int i = 0; i < NODE_NR_KINDS; i++) {
		if (strcmp(name, kinds[i]) == 0) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

int node_parse(const char *xenbus_path, struct node_address *ret)
{
	cleanup_free char *copy = strdup(xenbus_path);
	struct node_address at;
	char *part[4], *rest = copy;

	if (!copy)
		return -ENOMEM;
	for (unsigned int i = 0; i < ARRAY_SIZE(part); i++) {
		part[i] = strsep(&rest, "/");
		if (!part[i])
			return -EINVAL;
	}
	if (rest || strcmp(part[0], "backend") != 0 ||
	    parse_kind(part[1], &at.kind) < 0 ||
	    parse_u32(part[2], UINT32_MAX, &at.domid) < 0 ||
	    parse_u32(part[3], UINT32_MAX, &at.devid) < 0)
		return -EINVAL;
	*ret = at;
	return 0;
}

char *node_backend_path(const struct node_address *at, uint32_t backend_domid)
{
	return xasprintf("/local/domain/%u/backend/%s/%u/%u", backend_domid,
			 kinds[at->kind], at->domid, at->devid);
}

char *node_frontend_path(const struct node_address *at)
{
	return xasprintf("/local/domain/%u/device/vbd/%u", at->domid,
			 at->devid);
}

void node_print_error_dir(char buf[STORE_PATH_MAX],
			  const struct node_address *at, uint32_t backend_domid)
{
	(void)snprintf(buf, STORE_PATH_MAX,
		       "/local/domain/%u/error/backend/%s/%u/%u", backend_domid,
		       kinds[at->kind], at->domid, at->devid);
}

static bool is_our_script(const char *script)
{
	const char *slash = strrchr(script, '/');

	return strcmp(slash ? slash + 1 : script, SCRIPT) == 0;
}

int node_is_ours(struct store *store, const struct node_address *at,
		 const char *backend_path, bool *ret)
{
	cleanup_free char *script = NULL;
	cleanup_free char *frontend = NULL;
	int r = store_read(store, backend_path, "frontend", &frontend);

	if (r == 0)
		r = store_read(store, backend_path, "script", &script);
	if (r < 0 && r != -ENOENT)
		return r;
	if (!frontend)
		*ret = false; /* half made, or half removed */
	else if (script)
		*ret = is_our_script(script);
	else
		*ret = at->kind != NODE_VBD; /* else it is xen-blkback's */
	return 0;
}

/* The value, or fallback where there is none; NULL: it cannot be had. */
static char *value(struct store *store, const char *dir, const char *key,
		   const char *fallback)
{
	char *text = NULL;
	int r = store_read(store, dir, key, &text);

	return r == -ENOENT ? strdup(fallback) : text;
}

static bool has_value(struct store *store, const char *dir, const char *key,
		      const char *fallback, const char *wanted)
{
	cleanup_free char *text = value(store, dir, key, fallback);

	return text && strcmp(text, wanted) == 0;
}

/* libxl refers to frontends by their full path and by number; both must be
 * what the place of this directory says. */
static int check_frontend(struct store *store, const struct node_address *at,
			  const char *dir, char *why)
{
	cleanup_free char *own = node_frontend_path(at);
	uint32_t id;

	if (!own)
		return -ENOMEM;
	if (!has_value(store, dir, "frontend", "", own))
		return msg_why(why, -EINVAL, "frontend is not %s", own);
	if (store_read_u32(store, dir, "frontend-id", UINT32_MAX, &id) < 0 ||
	    id != at->domid)
		return msg_why(why, -EINVAL, "frontend-id is not %u",
			       at->domid);
	return 0;
}

static int read_mode(struct store *store, const char *dir, bool *ret_read_only,
		     char *why)
{
	cleanup_free char *mode = value(store, dir, "mode", "");

	if (mode && (mode[0] == 'w' || mode[0] == 'r')) {
		*ret_read_only = mode[0] == 'r';
		return 0;
	}
	return msg_why(why, -EINVAL, "mode is neither r nor w");
}

/* libxl puts the format in front of what backendtype=tap is given. */
static int read_target(struct store *store, const struct node_address *at,
		       const char *dir, char **ret, char *why)
{
	static const char format[] = "aio:";
	cleanup_free char *params = NULL;
	int r = store_read(store, dir, "params", &params);
	size_t skip = 0;

	if (r == 0 && at->kind == NODE_VBD3 &&
	    strncmp(params, format, strlen(format)) == 0)
		skip = strlen(format);
	if (r < 0 || params[skip] == '\0')
		return msg_why(why, r < 0 && r != -ENOENT ? r : -EINVAL,
			       "there is no target (params)");
	*ret = strdup(params + skip);
	return *ret ? 0 : -ENOMEM;
}

static uint32_t guest_proper(struct store *store, uint32_t domid)
{
	char dir[48];
	uint32_t target;

	(void)snprintf(dir, sizeof(dir), "/local/domain/%u", domid);
	if (store_read_u32(store, dir, "target", UINT32_MAX, &target) < 0)
		return domid;
	return target;
}

void node_vm(struct store *store, const struct node_address *at, char *ret,
	     size_t len)
{
	cleanup_free char *vm = NULL;
	char dir[48];
	const char *uuid;

	*ret = '\0';
	(void)snprintf(dir, sizeof(dir), "/local/domain/%u",
		       guest_proper(store, at->domid));
	if (store_read(store, dir, "vm", &vm) < 0)
		return;
	uuid = strrchr(vm, '/'); /* it is "/vm/UUID" */
	uuid = uuid ? uuid + 1 : vm;
	if (strlen(uuid) < len &&
	    strspn(uuid, "0123456789abcdefABCDEF-") == strlen(uuid))
		(void)snprintf(ret, len, "%s", uuid);
}

int node_read(struct store *store, const struct node_address *at,
	      const char *dir, struct node *ret, char *ret_why)
{
	struct node node = { 0 };
	cleanup_free char *vdev = value(store, dir, "dev", "");
	int r = check_frontend(store, at, dir, ret_why);

	if (r == 0)
		r = read_mode(store, dir, &node.read_only, ret_why);
	if (r == 0)
		r = read_target(store, at, dir, &node.target, ret_why);
	if (r < 0)
		return r;
	(void)snprintf(node.vdev, sizeof(node.vdev), "%s", vdev ? vdev : "");
	node.cdrom = has_value(store, dir, "device-type", "disk", "cdrom");
	node.removable = has_value(store, dir, "removable", "0", "1");
	node.discard = !has_value(store, dir, "discard-enable", "1", "0");
	*ret = node;
	return 0;
}

void node_clear(struct node *node)
{
	free(node->target);
	*node = (struct node){ 0 };
}
