/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "vtree.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/util.h"
#include "names.h"

#define NAMES_MAX  (1u << 30)
#define LIST_MAX   (64 << 20) /* bytes of the list of names that are parted */
#define PATH_BYTES 8192 /* of a path in it; longer ones are cut */

/* --- Nodes ---------------------------------------------------------------- */

static int make_room(void **io_array, uint32_t *io_room, uint64_t needed,
		     size_t size)
{
	uint64_t room = MAX(*io_room, 1024u);
	void *array;

	if (needed <= *io_room)
		return 0;
	while (room < needed)
		room += room / 2;
	array = realloc(*io_array, room * size);
	if (!array)
		return -ENOMEM;
	*io_array = array;
	*io_room = (uint32_t)room;
	return 0;
}

int vtree_keep(struct vtree *tree, const void *bytes, size_t n,
	       uint32_t *ret_at)
{
	void *names = tree->names;
	int r;

	if (n >= NAMES_MAX - tree->names_used)
		return -E2BIG;
	r = make_room(&names, &tree->names_room, tree->names_used + n + 1, 1);
	tree->names = names;
	if (r < 0)
		return r;
	*ret_at = tree->names_used;
	memcpy(tree->names + tree->names_used, bytes, n);
	tree->names[tree->names_used + n] = '\0';
	tree->names_used += (uint32_t)n + 1;
	return 0;
}

int vtree_add(struct vtree *tree, uint32_t parent, enum vnode_kind kind,
	      const char *name, uint32_t *ret, char *ret_why)
{
	void *nodes = tree->nodes;
	uint32_t at;
	int r;

	if (tree->nr >= VTREE_MAX_NODES)
		return why(ret_why, -E2BIG,
			   "there are more than %u files and folders",
			   VTREE_MAX_NODES);
	r = make_room(&nodes, &tree->room, tree->nr + 1, sizeof(*tree->nodes));
	tree->nodes = nodes;
	if (r == 0)
		r = vtree_keep(tree, name, strlen(name), &at);
	if (r < 0)
		return why(ret_why, r, "the names: %s", strerror(-r));
	tree->nodes[tree->nr] = (struct vnode){ .name = at,
						.parent = parent,
						.kind = (uint8_t)kind };
	*ret = tree->nr++;
	return 0;
}

void vtree_free(struct vtree *tree)
{
	free(tree->nodes);
	free(tree->names);
	*tree = (struct vtree){ .nodes = NULL };
}

/* --- Paths for people ------------------------------------------------------ */

/* In front of what is there; false: there is no room. */
static bool prepend(char *buf, size_t *io_at, const char *text)
{
	size_t n = strlen(text);

	if (n + 3 > *io_at)
		return false;
	*io_at -= n;
	memcpy(buf + *io_at, text, n);
	return true;
}

static bool prepend_name(char *buf, size_t *io_at, const char *name)
{
	for (size_t i = strlen(name); i-- > 0;) {
		unsigned char c = (unsigned char)name[i];
		char text[8];

		(void)snprintf(text, sizeof(text),
			       c < 0x20 || c >= 0x7f ? "\\x%02x" : "%c", c);
		if (!prepend(buf, io_at, text))
			return false;
	}
	return prepend(buf, io_at, "/");
}

const char *vtree_path(const struct vtree *tree, uint32_t node, char *ret,
		       size_t size)
{
	size_t at = size - 1;
	bool fits = true;

	ret[at] = '\0';
	if (node == 0)
		fits = prepend(ret, &at, "/");
	for (; node != 0 && fits; node = tree->nodes[node].parent)
		fits = prepend_name(ret, &at, vtree_name(tree, node));
	if (!fits) {
		at -= 3;
		memcpy(ret + at, "...", 3);
	}
	memmove(ret, ret + at, size - at);
	return ret;
}

/* --- Names that FAT does not tell apart ------------------------------------- */

/*
 * A folder's names, folded, as numbers: sorted, equal ones are neighbours.  The
 * key of the hash is drawn anew each time, so that no repository can be made in
 * which different names share a number; what comes out does not depend on it.
 */
struct hashed {
	uint64_t hash;
	uint32_t node;
};

struct parting {
	struct vtree *tree;
	uint64_t key;
	struct hashed *all; /* of one folder */
	uint32_t room;
	uint32_t first, nr; /* children of it */
	uint32_t number; /* of the last name that was given in it */
	FILE *list;
};

static uint64_t hash_name(const struct parting *p, const char *name)
{
	uint16_t units[NAME_UNITS_MAX];
	int n = name_units(name, units);
	uint64_t h = p->key;

	for (int i = 0; i < n; i++) {
		h = (h ^ name_fold(units[i])) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h;
}

static bool same_name(const char *a, const char *b)
{
	uint16_t units_a[NAME_UNITS_MAX], units_b[NAME_UNITS_MAX];
	int n = name_units(a, units_a);

	if (name_units(b, units_b) != n)
		return false;
	for (int i = 0; i < n; i++)
		if (name_fold(units_a[i]) != name_fold(units_b[i]))
			return false;
	return true;
}

static int by_hash(const void *a, const void *b)
{
	const struct hashed *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->node < y->node ? -1 : x->node > y->node;
}

static bool is_taken(const struct parting *p, uint64_t hash, const char *name)
{
	const struct hashed *all = p->all;
	uint32_t low = 0, high = p->nr;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (all[mid].hash < hash)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < p->nr && all[low].hash == hash; low++)
		if (same_name(vtree_name(p->tree, all[low].node), name))
			return true;
	return false;
}

/* Is this name of a node spelled like the short name of one of its neighbours;
 * of the very one that has it? */
static bool is_alias(const struct parting *p, uint32_t node, const char *name,
		     bool any)
{
	uint8_t spelled[SHORT_BYTES], made[SHORT_BYTES], lower;
	uint32_t number = name_made_number(name, spelled);
	uint32_t owner = p->first + number - 1;

	if (number == 0 || number > p->nr || owner == node ||
	    name_is_short(vtree_name(p->tree, owner), made, &lower))
		return false;
	name_short(vtree_name(p->tree, owner), number, made);
	return any || memcmp(made, spelled, sizeof(made)) == 0;
}

static void add_number(const char *name, uint32_t number, char *ret,
		       size_t size)
{
	const char *dot = strrchr(name, '.');
	int base = dot && dot != name ? (int)(dot - name) : (int)strlen(name);

	(void)snprintf(ret, size, "%.*s~%u%s", base, name, number, name + base);
}

/* The next "NAME~N" that is free.  No number is used twice in a folder, so what
 * was given before is none of these names, and many of the same do not make it
 * slow. */
static int rename_node(struct parting *p, uint32_t node, char *ret_why)
{
	struct vtree *tree = p->tree;
	char name[PATH_BYTES], path[PATH_BYTES];
	uint16_t units[NAME_UNITS_MAX];
	uint32_t at;
	int r;

	do
		add_number(vtree_name(tree, node), ++p->number, name,
			   sizeof(name));
	while (is_taken(p, hash_name(p, name), name) ||
	       is_alias(p, node, name, false));
	vtree_path(tree, node, path, sizeof(path));
	if (name_units(name, units) < 0)
		return why(ret_why, -ENAMETOOLONG,
			   "%s is too long to be told apart from another name "
			   "in its folder",
			   path);
	r = vtree_keep(tree, name, strlen(name), &at);
	if (r < 0)
		return why(ret_why, r, "the names: %s", strerror(-r));
	tree->nodes[node].name = at;
	(void)fprintf(p->list, "%s is %s\n",
		      vtree_path(tree, node, name, sizeof(name)), path);
	if (ftello(p->list) > LIST_MAX)
		return why(ret_why, -E2BIG,
			   "too many names are the same but for their case");
	return 0;
}

/* Has an earlier node between first and i the same name? */
static bool is_repeated(const struct parting *p, uint32_t first, uint32_t i)
{
	const char *name = vtree_name(p->tree, p->all[i].node);

	for (; first < i; first++)
		if (p->all[first].hash == p->all[i].hash)
			return same_name(
				vtree_name(p->tree, p->all[first].node), name);
	return false;
}

/* In the order of the folder, not in that of the numbers, which is another one
 * each time. */
static int part_cases(struct parting *p, char *ret_why)
{
	cleanup_free bool *repeated = calloc(p->nr, sizeof(*repeated));
	uint32_t run = 0;
	int r = 0;

	if (!repeated)
		return why(ret_why, -ENOMEM, "the names: no memory");
	for (uint32_t i = 1; i < p->nr; i++) {
		if (p->all[i].hash != p->all[run].hash)
			run = i;
		else if (is_repeated(p, run, i))
			repeated[p->all[i].node - p->first] = true;
	}
	for (uint32_t i = 0; i < p->nr && r == 0; i++)
		if (repeated[i])
			r = rename_node(p, p->first + i, ret_why);
	return r;
}

/* How many were renamed, or -errno. */
static int part_aliases(struct parting *p, bool any, char *ret_why)
{
	int n = 0;

	for (uint32_t i = p->first; i < p->first + p->nr; i++) {
		int r;

		if (!is_alias(p, i, vtree_name(p->tree, i), any))
			continue;
		r = rename_node(p, i, ret_why);
		if (r < 0)
			return r;
		n++;
	}
	return n;
}

/* Its children, sorted by the number of their names. */
static int take_folder(struct parting *p, uint32_t folder, char *ret_why)
{
	void *all = p->all;
	int r;

	p->first = p->tree->nodes[folder].first;
	p->nr = p->tree->nodes[folder].nr;
	p->number = 0;
	r = make_room(&all, &p->room, p->nr, sizeof(*p->all));
	p->all = all;
	if (r < 0)
		return why(ret_why, r, "the names: %s", strerror(-r));
	for (uint32_t i = 0; i < p->nr; i++)
		p->all[i] = (struct hashed){
			hash_name(p, vtree_name(p->tree, p->first + i)),
			p->first + i
		};
	qsort(p->all, p->nr, sizeof(*p->all), by_hash);
	return 0;
}

static int part_folder(struct parting *p, uint32_t folder, char *ret_why)
{
	int r = take_folder(p, folder, ret_why);

	if (r < 0)
		return r;
	r = part_cases(p, ret_why);
	/* A new name has another short one, which may be the name of a third:
	 * if so, all that are spelled like one go, and that is the end of it. */
	if (r == 0)
		r = part_aliases(p, false, ret_why);
	if (r > 0)
		r = part_aliases(p, false, ret_why);
	if (r > 0)
		r = part_aliases(p, true, ret_why);
	return MIN(r, 0);
}

static int draw_key(struct parting *p, char *ret_why)
{
	return getrandom(&p->key, sizeof(p->key), 0) == sizeof(p->key) ?
		       0 :
		       why(ret_why, -EIO, "no random numbers");
}

int vtree_same_names(struct vtree *tree, uint32_t folder, uint32_t *ret_node,
		     char *ret_why)
{
	struct parting p = { .tree = tree };
	uint32_t run = 0;
	int r;

	if (tree->nodes[folder].nr < 2)
		return 0;
	r = draw_key(&p, ret_why);
	if (r == 0)
		r = take_folder(&p, folder, ret_why);
	for (uint32_t i = 1; i < p.nr && r == 0; i++) {
		if (p.all[i].hash != p.all[run].hash)
			run = i;
		else if (is_repeated(&p, run, i))
			r = 1;
		if (r > 0)
			*ret_node = p.all[i].node;
	}
	free(p.all);
	return r;
}

int vtree_part_names(struct vtree *tree, char **ret_list, char *ret_why)
{
	struct parting p = { .tree = tree };
	size_t bytes;
	int r = 0;

	r = draw_key(&p, ret_why);
	if (r < 0)
		return r;
	p.list = open_memstream(ret_list, &bytes);
	if (!p.list)
		return why(ret_why, -ENOMEM, "the names: no memory");
	for (uint32_t i = 0; i < tree->nr && r == 0; i++)
		if (tree->nodes[i].kind == VNODE_DIR && tree->nodes[i].nr > 1)
			r = part_folder(&p, i, ret_why);
	free(p.all);
	if (fclose(p.list) != 0 && r == 0)
		r = why(ret_why, -ENOMEM, "the names: no memory");
	if (r < 0)
		free(TAKE_PTR(*ret_list));
	return r;
}
