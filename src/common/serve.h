/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * serve.h - what `xendiskd --serve` and the broker, which starts it in front of an
 * export, say to each other.
 */
#ifndef XENDISK_COMMON_SERVE_H
#define XENDISK_COMMON_SERVE_H

/* A line that it writes, with --isolate, when it serves. */
#define SERVE_READY "serves"

#endif
