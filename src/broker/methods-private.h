/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * methods-private.h - what the files of methods share.
 *
 *	methods.c	   the table, and most of them
 *	methods-export.c   Export, Exports, Unexport
 *	methods-snapshot.c Snapshot, Status: what a disk's backends are asked
 */
#ifndef XENDISK_METHODS_PRIVATE_H
#define XENDISK_METHODS_PRIVATE_H

#include <stdint.h>

#include "broker/control.h"
#include "broker/vbd.h"

/* --- methods.c -------------------------------------------------------------- */

/* Answers with an error: "io.xendisk.Failed". */
void method_fail(struct call *call, const char *error, const char *message);
/* -errno of a disk's operation as one of our errors; why may be NULL or "". */
void method_fail_errno(struct call *call, int err, const char *why);
void method_wrong_parameter(struct call *call, const char *name);

/* NULL: it was not given. */
const char *method_text(const json_t *params, const char *name);
/* What xenstore calls it; NULL: nothing. */
char *method_domain_name(struct call *call, uint32_t domid);
/* The disk that domid and devid name; NULL when the call has been answered. */
struct vbd *method_disk(struct call *call, const json_t *params);

/* --- methods-export.c ------------------------------------------------------ */

/* advice: more that may help, "; ..." or "". */
void method_fail_no_export(struct call *call, const char *name,
			   const char *advice);
void method_export(struct call *call, const json_t *params);
void method_exports(struct call *call, const json_t *params);
void method_unexport(struct call *call, const json_t *params);

/* --- methods-snapshot.c ---------------------------------------------------- */

void method_snapshot(struct call *call, const json_t *params);
void method_status(struct call *call, const json_t *params);

#endif
