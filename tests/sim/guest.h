/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What guest.c and store.c share. */
#ifndef XENSIM_GUEST_H
#define XENSIM_GUEST_H

#include <limits.h>

#include "hv.h"

struct xensim {
	struct hv *hv;
	char store_path[PATH_MAX];
};

struct xensim_guest {
	struct xensim *machine;
	struct hv *hv;
	uint32_t slot;
	uint32_t domid;
	uint32_t generation;
	pthread_mutex_t lock; /* the list */
	struct xensim_events *events;
	char store_path[PATH_MAX];
};

#endif
