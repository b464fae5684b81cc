/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * methods.h - what can be called over the control socket.
 */
#ifndef XENDISK_METHODS_H
#define XENDISK_METHODS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct call;

struct method_param {
	const char *name;
	json_type type; /* JSON_FALSE stands for a boolean */
	bool required;
};

#define METHOD_MAX_PARAMS 10

struct method {
	const char *name; /* with its interface: "io.xendisk.List" */
	struct method_param params[METHOD_MAX_PARAMS];
	/* params have been checked against the table; it is never NULL. */
	void (*run)(struct call *call, const json_t *params);
};

/* Ends with a method without a name. */
extern const struct method methods[];

/* Finds the method and checks the parameters (may be NULL: none); then runs it
 * or answers with an error of org.varlink.service. */
void methods_dispatch(struct call *call, const char *name,
		      const json_t *params);

#endif
