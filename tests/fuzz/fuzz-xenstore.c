/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-xenstore.c - what guest and toolstack write into xenstore.
 *
 * Input: lines KEY=VALUE.  A key that begins with "b/" is in the backend's
 * directory, with "d/" in the guest's, else in the frontend's.  What is
 * accepted is exactly what the keys say, each a canonical number in its range;
 * what is refused has a sentence and changes nothing; and a frontend that was
 * forgotten has no rings.
 */
#include "config.h"

#include "fuzz.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>

#include "broker/frontend.h"
#include "broker/node.h"
#include "fake-store.h"

#define LINES_MAX 128
#define GUEST	  "/local/domain/5"
#define FRONTEND  GUEST "/device/vbd/51728"
#define BACKEND	  "/local/domain/0/backend/vbd/5/51728"

/* --- The store ------------------------------------------------------------------------ */

/* xenstored takes no other paths. */
static bool is_path(const char *key)
{
	for (const char *p = key; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_@/", *p))
			return false;
	return *key && key[strlen(key) - 1] != '/' && !strstr(key, "//");
}

static void put_line(struct store *store, const char *line, size_t length)
{
	const char *equals = memchr(line, '=', length);
	char path[STORE_PATH_MAX], key[128];

	if (!equals || (size_t)(equals - line) >= sizeof(key))
		return;
	(void)snprintf(key, sizeof(key), "%.*s", (int)(equals - line), line);
	if (!is_path(key))
		return;
	if (strncmp(key, "b/", 2) == 0)
		(void)snprintf(path, sizeof(path), BACKEND "/%s", key + 2);
	else if (strncmp(key, "d/", 2) == 0)
		(void)snprintf(path, sizeof(path), GUEST "/%s", key + 2);
	else
		(void)snprintf(path, sizeof(path), FRONTEND "/%s", key);
	fake_set_bytes(store, path, equals + 1,
		       length - (size_t)(equals + 1 - line));
}

static void fill_store(struct store *store, const uint8_t *data, size_t size)
{
	const char *at = (const char *)data, *end = at + size;

	for (unsigned int i = 0; i < LINES_MAX && at < end; i++) {
		const char *next = memchr(at, '\n', (size_t)(end - at));

		next = next ? next : end;
		put_line(store, at, (size_t)(next - at));
		at = next + 1;
	}
}

/* --- The rings ------------------------------------------------------------------------- */

/* A second reading of a number: there, and spelled as printf() would. */
static bool says(struct store *store, const char *dir, const char *key,
		 uint32_t number)
{
	char path[STORE_PATH_MAX], text[16];
	const char *value;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, key);
	value = fake_get(store, path);
	(void)snprintf(text, sizeof(text), "%" PRIu32, number);
	return value && strcmp(value, text) == 0;
}

static bool is_absent(struct store *store, const char *key)
{
	char path[STORE_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", FRONTEND, key);
	return !fake_get(store, path);
}

static void check_abi(struct store *store, uint32_t abi)
{
	const char *name = fake_get(store, FRONTEND "/protocol");

	switch (abi) {
	case MSG_ABI_X86_32:
		HOLDS(name && strcmp(name, "x86_32-abi") == 0, "protocol");
		break;
	case MSG_ABI_X86_64:
		HOLDS(name && strcmp(name, "x86_64-abi") == 0, "protocol");
		break;
	default:
		HOLDS(abi == MSG_ABI_NATIVE, "%u", abi);
		HOLDS(!name || strcmp(name, "arm-abi") == 0, "protocol");
	}
}

static void check_pages(struct store *store, uint32_t pages)
{
	uint32_t order = 0;

	while (1u << order < pages)
		order++;
	HOLDS(1u << order == pages && pages <= 16, "%u pages", pages);
	HOLDS(says(store, FRONTEND, "ring-page-order", order) ||
		      (is_absent(store, "ring-page-order") &&
		       (says(store, FRONTEND, "num-ring-pages", pages) ||
			(pages == 1 && is_absent(store, "num-ring-pages")))),
	      "%u pages", pages);
}

static void check_ring(struct store *store, const struct msg_connect *connect,
		       uint32_t n)
{
	const struct msg_ring *ring = &connect->ring[n];
	char dir[STORE_PATH_MAX] = FRONTEND, key[16];

	if (connect->nr_rings > 1)
		(void)snprintf(dir, sizeof(dir), "%s/queue-%u", FRONTEND, n);
	HOLDS(ring->event_channel > 0 && ring->event_channel < 1u << 17,
	      "port %u", ring->event_channel);
	HOLDS(says(store, dir, "event-channel", ring->event_channel), "port %u",
	      ring->event_channel);
	HOLDS(ring->nr_refs == connect->ring[0].nr_refs, "ring %u", n);
	for (uint32_t i = 0; i < ring->nr_refs; i++) {
		(void)snprintf(key, sizeof(key), "ring-ref%u", i);
		HOLDS(says(store, dir, key, ring->ref[i]) ||
			      (ring->nr_refs == 1 &&
			       says(store, dir, "ring-ref", ring->ref[i])),
		      "page %u of ring %u", i, n);
	}
}

static void check_rings(struct store *store)
{
	struct msg_connect connect, before;
	char why[MSG_TEXT_MAX] = "";
	int r;

	memset(&connect, 0x5a, sizeof(connect));
	before = connect;
	r = frontend_rings(store, FRONTEND, &connect, why);
	if (r < 0) {
		HOLDS(r == -EINVAL, "%d", r);
		HOLDS(why[0], "a sentence");
		HOLDS(memcmp(&before, &connect, sizeof(before)) == 0,
		      "nothing is changed");
		return;
	}
	check_abi(store, connect.abi);
	HOLDS(connect.nr_rings >= 1 && connect.nr_rings <= XD_MAX_RINGS,
	      "%u rings", connect.nr_rings);
	HOLDS(says(store, FRONTEND, "multi-queue-num-queues",
		   connect.nr_rings) ||
		      (connect.nr_rings == 1 &&
		       is_absent(store, "multi-queue-num-queues")),
	      "%u rings", connect.nr_rings);
	HOLDS(connect.flags == before.flags &&
		      connect.discard == before.discard,
	      "not its business");
	check_pages(store, connect.ring[0].nr_refs);
	for (uint32_t i = 0; i < connect.nr_rings; i++)
		check_ring(store, &connect, i);
}

static void check_persistent(struct store *store)
{
	char why[MSG_TEXT_MAX] = "";
	bool persistent = true;
	int r = frontend_persistent(store, FRONTEND, &persistent, why);

	if (r < 0) {
		HOLDS(r == -EINVAL && persistent, "%d", r);
		HOLDS(why[0], "a sentence");
		return;
	}
	HOLDS(says(store, FRONTEND, "feature-persistent", persistent) ||
		      (!persistent && is_absent(store, "feature-persistent")),
	      "persistent %d", persistent);
}

static void check_forgotten(struct store *store)
{
	struct msg_connect connect;
	char why[MSG_TEXT_MAX];
	int state = -1;

	HOLDS(frontend_state(store, FRONTEND, &state) == 0, "a state");
	HOLDS(state >= 0 && state <= 8, "state %d", state);
	frontend_forget_rings(store, FRONTEND);
	HOLDS(frontend_rings(store, FRONTEND, &connect, why) == -EINVAL,
	      "no rings");
	HOLDS(strstr(why, "event-channel"), "%s", why);
	HOLDS(is_absent(store, "feature-persistent"), "no pages");
}

/* --- The backend's directory ------------------------------------------------------------ */

static void check_node(struct store *store, const struct node_address *at)
{
	const char *params = fake_get(store, BACKEND "/params");
	const char *mode = fake_get(store, BACKEND "/mode");
	const char *frontend = fake_get(store, BACKEND "/frontend");
	const char *cut = at->kind == NODE_VBD3 && params &&
					  strncmp(params, "aio:", 4) == 0 ?
				  params + 4 :
				  params;
	char why[MSG_TEXT_MAX] = "";
	struct node node = { .target = NULL };
	int r = node_read(store, at, BACKEND, &node, why);

	if (r < 0) {
		HOLDS(why[0], "a sentence");
		HOLDS(!node.target, "nothing is changed");
		return;
	}
	HOLDS(node.target[0] && strcmp(node.target, cut) == 0, "target %s",
	      node.target);
	HOLDS(node.read_only == (mode[0] == 'r'), "mode %s", mode);
	HOLDS(strcmp(frontend, FRONTEND) == 0, "frontend %s", frontend);
	HOLDS(says(store, BACKEND, "frontend-id", at->domid), "frontend-id");
	HOLDS(strnlen(node.vdev, sizeof(node.vdev)) < sizeof(node.vdev),
	      "vdev");
	node_clear(&node);
}

static void check_vm(struct store *store, const struct node_address *at)
{
	char vm[40];

	memset(vm, 'x', sizeof(vm));
	node_vm(store, at, vm, sizeof(vm));
	HOLDS(strnlen(vm, sizeof(vm)) < sizeof(vm), "it ends");
	for (const char *p = vm; *p; p++)
		HOLDS(isxdigit((unsigned char)*p) || *p == '-', "%s", vm);
}

/* The hotplug script's argument: what it means, means it. */
static void check_address(const uint8_t *data, size_t size)
{
	char text[64], again[64];
	struct node_address at;

	(void)snprintf(text, sizeof(text), "%.*s", (int)MIN(size, (size_t)60),
		       (const char *)data);
	if (node_parse(text, &at) < 0)
		return;
	(void)snprintf(again, sizeof(again), "backend/%s/%u/%u",
		       node_kind_name(at.kind), at.domid, at.devid);
	HOLDS(strcmp(text, again) == 0, "%s is not %s", text, again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct node_address at = { .domid = 5, .devid = 51728 };
	struct store *store;
	bool ours;

	check_address(data, size);
	if (store_open(&store) < 0)
		return 0;
	fill_store(store, data, size);
	for (at.kind = 0; at.kind < NODE_NR_KINDS; at.kind++) {
		check_node(store, &at);
		if (node_is_ours(store, &at, BACKEND, &ours) == 0)
			HOLDS(!ours || fake_get(store, BACKEND "/frontend"),
			      "half a node is nobody's");
	}
	check_vm(store, &at);
	check_rings(store);
	check_persistent(store);
	check_forgotten(store);
	store_close(store);
	return 0;
}
