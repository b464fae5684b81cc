/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * expr-credentials.h - does an expression name credentials that are configured, and
 * where TLS wants some?
 *
 * Not a part of parsing: a disk that a guest has is parsed again when the daemon
 * starts, and goes on with what its worker knows, whatever has become of the
 * configuration.
 */
#ifndef XENDISK_EXPR_CREDENTIALS_H
#define XENDISK_EXPR_CREDENTIALS_H

#include "common/expr.h"
#include "common/settings.h"

/* 0, or -EINVAL with *ret_error filled, as opening it would fail. */
int expr_check_credentials(const struct layer *root,
			   const struct settings *settings,
			   struct expr_error *ret_error);

#endif
