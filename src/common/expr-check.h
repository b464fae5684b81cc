/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * expr-check.h - the half of the parser that knows types.
 *
 * Functions return 0, -ENOMEM, or -EINVAL with a message in *error (its
 * position is the caller's to set).
 */
#ifndef XENDISK_EXPR_CHECK_H
#define XENDISK_EXPR_CHECK_H

#include "common/expr.h"
#include "common/util.h"

int expr_fail(struct expr_error *error, size_t position, const char *fmt, ...)
	PRINTF(3, 4);

/* Turns a literal into the value of layer's parameter number param. */
int expr_check_literal(const struct layer *layer, unsigned int param,
		       const char *text, size_t position,
		       struct expr_error *error);

/* When all arguments are in: fills in presets; fails where a required one is
 * missing. */
int expr_check_complete(struct layer *layer, size_t end,
			struct expr_error *error);

/* Over the whole tree: gives layers their numbers (pre-order), finds out which are
 * read-only, and fails where one must not be. */
int expr_check_tree(struct layer *root, bool read_only,
		    struct expr_error *error);

#endif
