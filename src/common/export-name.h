/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * export-name.h - what the operator may call an export.
 */
#ifndef XENDISK_EXPORT_NAME_H
#define XENDISK_EXPORT_NAME_H

#include <stdbool.h>

/* Letters, digits, ".", "_" and "-", up to MSG_EXPORT_MAX of them: no path, no
 * option, no hidden file; and not what each disk has, DOMID-DEVID. */
bool is_export_name(const char *name);

#endif
