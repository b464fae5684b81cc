/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A toolstack that takes libxl's steps (Xen 4.17, libxl_disk.c, libxl_device.c,
 * libxl_linux.c): the same keys, permissions, waits and hotplug calls, for
 * tests on a machine where there is no xl to run.
 */
#ifndef XENSIM_TOOLSTACK_H
#define XENSIM_TOOLSTACK_H

#include <stdbool.h>
#include <stdint.h>

#include "sim.h"

#define TOOLSTACK_KEYS 16

struct toolstack_disk {
	uint32_t domid;
	uint32_t backend_domid;
	const char *vdev; /* xvda, hda, sda, or a number */
	const char *params; /* as libxl writes it to the backend */
	const char *kind; /* vbd, vbd3, qdisk or any other */
	const char *script; /* NULL: none is run (4.17: always one for vbd) */
	bool readonly;
	bool force; /* detach: remove the keys whatever happens */
	int nr_keys;
	const char *keys[TOOLSTACK_KEYS]; /* more backend keys, NAME=VALUE */
};

/*
 * xl block-attach and block-detach; they report on stderr as xl does.  As with
 * libxl a failed attach leaves the device there: it must be detached.
 */
int toolstack_attach(struct xensim *m, const struct toolstack_disk *disk);
int toolstack_detach(struct xensim *m, const struct toolstack_disk *disk);

/* xl destroy: force every device off, remove the keys, destroy the domain. */
int toolstack_destroy(struct xensim *m, uint32_t domid);

#endif
