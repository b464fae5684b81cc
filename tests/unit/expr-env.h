/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * expr-env.h - backends with every kind of parameter and a few named disks, for
 * tests of expressions.
 */
#ifndef EXPR_ENV_H
#define EXPR_ENV_H

#include "common/expr.h"

int expr_env_make(void);
void expr_env_free(void);
extern const struct expr_env expr_env;

#endif
