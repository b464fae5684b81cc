/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export-name.h - what the operator may call an export.
 */
#ifndef XENDISK_EXPORT_NAME_H
#define XENDISK_EXPORT_NAME_H

#include <stdbool.h>

/* Letters, digits, ".", "_" and "-", up to MSG_EXPORT_MAX of them, so no path; not
 * beginning with "-" (an option) or "." (a hidden file); and not only digits and
 * "-", since DOMID-DEVID is the name of a disk's own socket. */
bool is_export_name(const char *name);

#endif
