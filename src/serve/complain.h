/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* complain.h - what keeps the server from starting, in the command's own form:
 * "xendisk: serve: WHAT: WHY".  Main thread. */
#ifndef XENDISK_SERVE_COMPLAIN_H
#define XENDISK_SERVE_COMPLAIN_H

#include "common/util.h"

void complain(const char *fmt, ...) PRINTF(1, 2);

#endif
