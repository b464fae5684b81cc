/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake-store.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#define MAX_NODES   512
#define MAX_MARKS   16
#define MAX_WATCHES 4

struct node {
	char *path;
	char *value;
	size_t length;
	bool hidden;
};

struct store_mark {
	struct store *store;
	void (*changed)(void *ctx);
	void *ctx;
	bool dirty;
	unsigned int nr_watches;
	struct {
		char *path;
		bool (*wanted)(const char *below);
	} watches[MAX_WATCHES];
};

struct store {
	struct node nodes[MAX_NODES];
	unsigned int nr;
	struct store_mark *marks[MAX_MARKS];
	uint32_t ended;
	bool in_transaction;
	char *written[MAX_NODES]; /* in it */
	unsigned int nr_written;
	unsigned int transactions;
	void (*interfere)(void *ctx);
	void *interfere_ctx;
};

/* --- Nodes ---------------------------------------------------------------- */

static struct node *find(struct store *store, const char *path)
{
	for (unsigned int i = 0; i < store->nr; i++)
		if (strcmp(store->nodes[i].path, path) == 0)
			return &store->nodes[i];
	return NULL;
}

static void fire(struct store *store, const char *path)
{
	if (store->in_transaction) { /* only what is committed is seen */
		assert(store->nr_written < MAX_NODES);
		store->written[store->nr_written++] = strdup(path);
		return;
	}
	for (unsigned int i = 0; i < MAX_MARKS; i++) {
		struct store_mark *mark = store->marks[i];

		for (unsigned int w = 0; mark && w < mark->nr_watches; w++) {
			size_t n = strlen(mark->watches[w].path);
			const char *below = path + n;

			if (strncmp(path, mark->watches[w].path, n) != 0 ||
			    (*below && *below != '/'))
				continue;
			below += *below == '/';
			if (!mark->watches[w].wanted ||
			    mark->watches[w].wanted(below))
				mark->dirty = true;
		}
	}
}

static void set(struct store *store, const char *path, const char *value,
		size_t length)
{
	struct node *node = find(store, path);

	if (!node) {
		assert(store->nr < MAX_NODES);
		node = &store->nodes[store->nr++];
		*node = (struct node){ .path = strdup(path) };
	}
	free(node->value);
	node->value = calloc(1, length + 1);
	memcpy(node->value, value, length);
	node->length = length;
	fire(store, path);
}

static bool is_at_or_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (!path[n] || path[n] == '/');
}

static void free_node(struct node *node)
{
	free(node->path);
	free(node->value);
}

static void remove_tree(struct store *store, const char *dir)
{
	for (unsigned int i = store->nr; i-- > 0;) {
		if (!is_at_or_below(store->nodes[i].path, dir))
			continue;
		fire(store, store->nodes[i].path);
		free_node(&store->nodes[i]);
		store->nodes[i] = store->nodes[--store->nr];
	}
	fire(store, dir);
}

/* --- The other party ------------------------------------------------------ */

void fake_set_bytes(struct store *store, const char *path, const char *value,
		    size_t length)
{
	set(store, path, value, length);
}

void fake_set(struct store *store, const char *path, const char *value)
{
	fake_set_bytes(store, path, value, strlen(value));
}

void fake_remove(struct store *store, const char *path)
{
	remove_tree(store, path);
}

const char *fake_get(struct store *store, const char *path)
{
	struct node *node = find(store, path);

	return node ? node->value : NULL;
}

bool fake_is_hidden(struct store *store, const char *path)
{
	struct node *node = find(store, path);

	return node && node->hidden;
}

void fake_end_domain(struct store *store, uint32_t domid)
{
	store->ended = domid;
}

void fake_interfere(struct store *store, void (*fn)(void *ctx), void *ctx)
{
	store->interfere = fn;
	store->interfere_ctx = ctx;
}

unsigned int fake_transactions(const struct store *store)
{
	return store->transactions;
}

/* --- store.h -------------------------------------------------------------- */

int store_open(struct store **ret)
{
	*ret = calloc(1, sizeof(**ret));
	(*ret)->ended = UINT32_MAX;
	return 0;
}

void store_close(struct store *store)
{
	for (unsigned int i = 0; i < store->nr; i++)
		free_node(&store->nodes[i]);
	free(store);
}

static void join(char *path, const char *dir, const char *key)
{
	(void)snprintf(path, STORE_PATH_MAX, "%s%s%s", dir, key ? "/" : "",
		       key ? key : "");
}

static struct node *find_at(struct store *store, const char *dir,
			    const char *key)
{
	char path[STORE_PATH_MAX];

	join(path, dir, key);
	return find(store, path);
}

int store_read(struct store *store, const char *dir, const char *key,
	       char **ret)
{
	struct node *node = find_at(store, dir, key);

	if (!node)
		return -ENOENT;
	if (strlen(node->value) != node->length)
		return -EBADMSG;
	*ret = strdup(node->value);
	return 0;
}

int store_read_u32(struct store *store, const char *dir, const char *key,
		   uint32_t max, uint32_t *ret)
{
	cleanup_free char *text = NULL;
	int r = store_read(store, dir, key, &text);

	if (r < 0)
		return r;
	return parse_u32(text, max, ret) < 0 ? -EINVAL : 0;
}

int store_write(struct store *store, const char *dir, const char *key,
		const char *fmt, ...)
{
	char path[STORE_PATH_MAX], value[1024];
	va_list ap;

	join(path, dir, key);
	va_start(ap, fmt);
	(void)vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	set(store, path, value, strlen(value));
	return 0;
}

int store_remove(struct store *store, const char *dir, const char *key)
{
	char path[STORE_PATH_MAX];

	join(path, dir, key);
	remove_tree(store, path);
	return 0;
}

int store_remove_branch(struct store *store, const char *dir,
			unsigned int levels)
{
	(void)levels; /* there are no empty directories here */
	return store_remove(store, dir, NULL);
}

int store_list(struct store *store, const char *dir, char ***ret,
	       unsigned int *ret_nr)
{
	(void)store;
	(void)dir;
	*ret = calloc(1, sizeof(char *));
	*ret_nr = 0;
	return 0;
}

int store_hide(struct store *store, const char *dir, const char *key,
	       uint32_t owner)
{
	struct node *node = find_at(store, dir, key);

	(void)owner;
	if (!node)
		return -ENOENT;
	node->hidden = true;
	return 0;
}

int store_domain_alive(struct store *store, uint32_t domid, bool *ret)
{
	*ret = domid != store->ended;
	return 0;
}

/* Saves nodes' values, to take them back. */
static void copy_nodes(struct store *to, const struct store *from)
{
	to->nr = from->nr;
	for (unsigned int i = 0; i < from->nr; i++) {
		to->nodes[i] = from->nodes[i];
		to->nodes[i].path = strdup(from->nodes[i].path);
		to->nodes[i].value = calloc(1, from->nodes[i].length + 1);
		memcpy(to->nodes[i].value, from->nodes[i].value,
		       from->nodes[i].length);
	}
}

static void take_back(struct store *store, const struct store *saved)
{
	for (unsigned int i = 0; i < store->nr; i++)
		free_node(&store->nodes[i]);
	copy_nodes(store, saved);
}

static void end_transaction(struct store *store, bool commit)
{
	store->in_transaction = false;
	while (store->nr_written > 0) {
		char *path = store->written[--store->nr_written];

		if (commit)
			fire(store, path);
		free(path);
	}
}

static int try_once(struct store *store,
		    int (*body)(struct store *store, void *ctx), void *ctx)
{
	struct store *saved;
	int r;

	(void)store_open(&saved);
	store->transactions++;
	copy_nodes(saved, store);
	assert(!store->in_transaction);
	store->in_transaction = true;
	r = body(store, ctx);
	end_transaction(store, r == 0 && !store->interfere);
	if (r < 0 || store->interfere)
		take_back(store, saved);
	if (r == 0 && store->interfere) {
		store->interfere(store->interfere_ctx);
		r = -EAGAIN;
	}
	store_close(saved);
	return r;
}

int store_transact(struct store *store,
		   int (*body)(struct store *store, void *ctx), void *ctx)
{
	int r = -EAGAIN;

	for (int i = 0; i < 20 && r == -EAGAIN; i++)
		r = try_once(store, body, ctx);
	return r;
}

int store_mark_new(struct store_mark **ret, struct store *store,
		   void (*changed)(void *ctx), void *ctx)
{
	struct store_mark *mark = calloc(1, sizeof(*mark));
	unsigned int slot = 0;

	while (store->marks[slot])
		slot++;
	assert(slot < MAX_MARKS);
	mark->store = store;
	mark->changed = changed;
	mark->ctx = ctx;
	store->marks[slot] = mark;
	*ret = mark;
	return 0;
}

void store_mark_free(struct store_mark *mark)
{
	if (!mark)
		return;
	for (unsigned int i = 0; i < MAX_MARKS; i++)
		if (mark->store->marks[i] == mark)
			mark->store->marks[i] = NULL;
	for (unsigned int w = 0; w < mark->nr_watches; w++)
		free(mark->watches[w].path);
	free(mark);
}

void store_mark_set(struct store_mark *mark)
{
	mark->dirty = true;
}

int store_watch(struct store_mark *mark, const char *path,
		bool (*wanted)(const char *below))
{
	assert(mark->nr_watches < MAX_WATCHES);
	mark->watches[mark->nr_watches].path = strdup(path);
	mark->watches[mark->nr_watches++].wanted = wanted;
	mark->dirty = true;
	return 0;
}

int store_watch_roof(struct store_mark *mark, const char *path,
		     bool (*wanted)(const char *below))
{
	return store_watch(mark, path, wanted);
}

bool fake_take_mark(struct store_mark *mark)
{
	bool dirty = mark->dirty;

	mark->dirty = false;
	return dirty;
}

struct store_mark *fake_mark_of(struct store *store, void *ctx)
{
	for (unsigned int i = 0; i < MAX_MARKS; i++)
		if (store->marks[i] && store->marks[i]->ctx == ctx)
			return store->marks[i];
	return NULL;
}
