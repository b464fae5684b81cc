/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ids are SHA-1 by OpenSSL, which uses what the processor has for it and is four
 * times as fast as git's, which looks for attacks as well.  Two chunks that
 * collide can only be made by who writes both; git itself refuses them when
 * they are fetched.
 */
#include "config.h"

#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

#include "common/util.h"
#include "pack-private.h"

struct hasher {
	EVP_MD *sha1;
	EVP_MD_CTX *state;
};

int hasher_new(struct hasher **ret)
{
	struct hasher *hasher = calloc(1, sizeof(*hasher));

	if (!hasher)
		return -ENOMEM;
	hasher->sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
	hasher->state = EVP_MD_CTX_new();
	if (!hasher->sha1 || !hasher->state) {
		hasher_free(hasher);
		return -ENOMEM;
	}
	*ret = hasher;
	return 0;
}

void hasher_free(struct hasher *hasher)
{
	if (!hasher)
		return;
	EVP_MD_CTX_free(hasher->state);
	EVP_MD_free(hasher->sha1);
	free(hasher);
}

int hasher_begin(struct hasher *hasher)
{
	return EVP_DigestInit_ex2(hasher->state, hasher->sha1, NULL) ? 0 : -EIO;
}

int hasher_add(struct hasher *hasher, const void *data, size_t n)
{
	return EVP_DigestUpdate(hasher->state, data, n) ? 0 : -EIO;
}

int hasher_end(struct hasher *hasher, uint8_t ret[OID_BYTES])
{
	return EVP_DigestFinal_ex(hasher->state, ret, NULL) ? 0 : -EIO;
}

int hasher_oid(struct hasher *hasher, enum object_type type, const void *data,
	       size_t n, uint8_t ret[OID_BYTES])
{
	static const char *const words[] = {
		[OBJECT_COMMIT] = "commit",
		[OBJECT_TREE] = "tree",
		[OBJECT_BLOB] = "blob",
		[OBJECT_TAG] = "tag",
	};
	char head[32]; /* with its NUL */
	int len = snprintf(head, sizeof(head), "%s %zu", words[type], n);
	int r = hasher_begin(hasher);

	if (r == 0)
		r = hasher_add(hasher, head, (size_t)len + 1);
	if (r == 0)
		r = hasher_add(hasher, data, n);
	return r < 0 ? r : hasher_end(hasher, ret);
}

/* --- Sets ------------------------------------------------------------------------ */

/* An import of a large disk has millions: 20 bytes each, and a table of numbers
 * with open addressing that is at most half full. */
struct oid_set {
	uint8_t (*ids)[OID_BYTES];
	uint32_t nr, room;
	uint32_t *table; /* number + 1; 0: free */
	uint32_t mask;
	uint64_t key; /* a guest chooses its chunks, and so their ids */
};

#define SET_FIRST 1024u /* a power of two */
#define SET_MAX	  (1u << 30)

int oid_set_new(struct oid_set **ret)
{
	struct oid_set *set = calloc(1, sizeof(*set));

	if (!set)
		return -ENOMEM;
	set->mask = 2 * SET_FIRST - 1;
	set->room = SET_FIRST;
	set->ids = malloc(set->room * sizeof(*set->ids));
	set->table = calloc(set->mask + 1, sizeof(*set->table));
	if (!set->ids || !set->table ||
	    getrandom(&set->key, sizeof(set->key), 0) !=
		    (ssize_t)sizeof(set->key)) {
		oid_set_free(set);
		return -ENOMEM;
	}
	*ret = set;
	return 0;
}

void oid_set_free(struct oid_set *set)
{
	if (!set)
		return;
	free(set->ids);
	free(set->table);
	free(set);
}

/* Where it is, or where it would be. */
static uint32_t *lookup(const struct oid_set *set, const uint8_t *oid)
{
	uint64_t h;
	uint32_t at;

	memcpy(&h, oid, sizeof(h));
	h = (h ^ set->key) * 0x9e3779b97f4a7c15u;
	h = (h ^ h >> 32) * (set->key | 1);
	for (at = (uint32_t)(h >> 32) & set->mask; set->table[at] != 0;
	     at = (at + 1) & set->mask)
		if (memcmp(set->ids[set->table[at] - 1], oid, OID_BYTES) == 0)
			break;
	return &set->table[at];
}

static int grow(struct oid_set *set)
{
	uint8_t(*ids)[OID_BYTES];
	uint32_t *table;

	if (set->room == SET_MAX)
		return -ENOMEM;
	table = calloc(4 * (size_t)set->room, sizeof(*table));
	ids = realloc(set->ids, 2 * (size_t)set->room * sizeof(*ids));
	if (ids)
		set->ids = ids;
	if (!table || !ids) {
		free(table);
		return -ENOMEM;
	}
	free(set->table);
	set->table = table;
	set->room *= 2;
	set->mask = 2 * set->room - 1;
	for (uint32_t i = 0; i < set->nr; i++)
		*lookup(set, set->ids[i]) = i + 1;
	return 0;
}

int oid_set_add(struct oid_set *set, const uint8_t oid[OID_BYTES])
{
	uint32_t *slot = lookup(set, oid);

	if (*slot != 0)
		return 0;
	if (set->nr == set->room) {
		int r = grow(set);

		if (r < 0)
			return r;
		slot = lookup(set, oid);
	}
	memcpy(set->ids[set->nr], oid, OID_BYTES);
	*slot = ++set->nr;
	return 1;
}
