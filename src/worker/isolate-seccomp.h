/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate-seccomp.h - the last stage of isolate(): which system calls remain.
 */
#ifndef XENDISK_ISOLATE_SECCOMP_H
#define XENDISK_ISOLATE_SECCOMP_H

#include <stdbool.h>

/* Does a sanitizer or valgrind run us, which need calls of their own? */
bool isolate_relaxed(void);

/* For all threads, for good.  0 or -errno. */
int isolate_seccomp(bool relaxed);

#endif
