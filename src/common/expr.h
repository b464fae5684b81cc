/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * expr.h - disk expressions: text in, checked tree of layers out.
 *
 * The grammar is in xendisk-spec(7).  Parsing and type-checking are one pass
 * over the text and the parameter tables of the backends; nothing is opened.
 * Pure: no I/O of its own, any thread.
 */
#ifndef XENDISK_EXPR_H
#define XENDISK_EXPR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xendisk-backend.h"

#define EXPR_MAX_BYTES	4096
#define EXPR_MAX_LEVELS 16
#define EXPR_MAX_LAYERS 64

/* What is known of a backend without its code: a copy of its tables. */
struct backend_info {
	char *name;
	char *summary;
	char *schemes; /* as in struct xd_backend, or NULL */
	uint32_t flags;
	struct xd_param *params; /* own copies of the texts; ends with XD_END */
	unsigned int nr_params;
	char *server; /* as in struct xd_backend, or NULL */
};

struct backend_info *backend_info_new(const struct xd_backend *backend);
void backend_info_free(struct backend_info *info);

/* The wrapper disk(x, on-error=, flush-error=): no module, always there. */
const struct backend_info *expr_disk_info(void);

/* Where the parser looks names up. */
struct expr_env {
	void *ctx;
	/* A backend by name, or by URI scheme; NULL when there is none. */
	const struct backend_info *(*backend)(void *ctx, const char *name);
	const struct backend_info *(*scheme)(void *ctx, const char *scheme);
	/* Why a backend of that name is there but cannot be used; NULL: there is
	 * none.  May be unset. */
	const char *(*why_not)(void *ctx, const char *name);
	/* The text behind "@name"; NULL when there is none.  May be unset. */
	const char *(*named)(void *ctx, const char *name);
	/* What there is, for whoever typed another name: the nth backend and the nth
	 * "@name"; NULL past the last.  Valid until the next call.  May be unset. */
	const char *(*nth_backend)(void *ctx, size_t n);
	const char *(*nth_named)(void *ctx, size_t n);
};

struct expr_value {
	bool given; /* written in the expression: printed again */
	bool set; /* given, or preset */
	char *text; /* canonical; XD_REPEATED: all, as xd_arg_string() has it */
	uint64_t number; /* XD_SIZE, XD_TIME, XD_UINT, XD_BOOL */
};

struct layer {
	const struct backend_info *info; /* borrowed from the env */
	size_t position; /* byte where it stands in the text */
	unsigned int index; /* pre-order, from 0 at the root */
	unsigned int nr_below;
	struct layer **below;
	struct expr_value *values; /* one per entry of info->params */
	bool read_only; /* by what stands above it, or by what it is */
	bool temporary; /* XD_TEMPORARY: its own position, or one above */
};

struct expr_error {
	size_t position; /* byte in the text given, from 0 */
	char message[256];
};

/*
 * Parses and checks.  -EINVAL with *ret_error filled when the text is wrong;
 * -ENOMEM.  read_only: the whole disk is only read (mode=r).
 */
int expr_parse(const char *text, bool read_only, const struct expr_env *env,
	       struct layer **ret_root, struct expr_error *ret_error);
void expr_free(struct layer *root);

/* The canonical form: NAME(arg, option=value).  NULL: no memory. */
char *expr_print(const struct layer *root);

/* A value by the parameter's name; NULL when the table has no such name. */
const struct expr_value *expr_value(const struct layer *layer,
				    const char *name);

/* Can nothing ever be written to it, whatever the toolstack says? */
bool expr_always_read_only(const struct layer *layer);

#endif
