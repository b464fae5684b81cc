/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef XENSIM_SERVE_H
#define XENSIM_SERVE_H

#include "hv.h"

struct xs_handle;

/* Serve the machine for ever; returns only when it cannot begin. */
int serve(struct hv *hv, struct xs_handle *xs);

#endif
