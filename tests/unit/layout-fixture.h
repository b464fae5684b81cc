/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layout-fixture.h - trees of any shape, and the bytes of the disk that a layout
 * makes of one: for tests that read a file system back.
 */
#ifndef XENDISK_TESTS_LAYOUT_FIXTURE_H
#define XENDISK_TESTS_LAYOUT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../backends/git/layout.h"

/* Returns the node.  All children of a folder behind each other. */
uint32_t add(struct vtree *tree, uint32_t folder, enum vnode_kind kind,
	     const char *name, uint64_t size);
/* About so many nodes; the same for the same seed. */
void make_tree(struct vtree *tree, uint64_t from, uint32_t nodes);
/* A byte of a file. */
uint8_t content(uint32_t node, uint64_t at);

/* A byte of the disk that is read wrong; UINT64_MAX: none is. */
extern uint64_t spoiled;
void read_disk(const struct layout *layout, const struct vtree *tree,
	       uint64_t offset, uint8_t *ret, uint64_t n);

static inline uint32_t get16(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get32(const uint8_t *p)
{
	return get16(p) | get16(p + 2) << 16;
}

static inline uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

#endif
