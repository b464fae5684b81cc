/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate-files.h - files that a library insists on opening by name, again and
 * again, although the worker is isolated: keys for TLS.
 *
 * They are read before isolate(); to open one of these very paths for reading
 * afterwards gives what was in the file then.  All other paths are refused as
 * ever.
 */
#ifndef XENDISK_ISOLATE_FILES_H
#define XENDISK_ISOLATE_FILES_H

#include <stdbool.h>

/* Main thread, before isolate().  0 or -errno; -EFBIG: too long, or too many. */
int isolate_lend_file(const char *path);

/* Has one been lent? */
bool isolate_lends_files(void);

/* Part of isolate(), if so: answers the calls that the filter traps. */
int isolate_answer_traps(void);

#endif
