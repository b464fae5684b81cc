/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdev.h - names of virtual disks and their numbers (xen-vbd-interface(7)).
 */
#ifndef XENDISK_VDEV_H
#define XENDISK_VDEV_H

#include <stddef.h>
#include <stdint.h>

/* "xvdb", "xvdb3", "hda", "sda", "51728": -EINVAL for anything else. */
int vdev_parse(const char *text, uint32_t *ret_devid);

/* The name; the number itself when it has none. */
void vdev_print(char *buf, size_t len, uint32_t devid);

/* The number of xvda (0), xvdb (1), ... */
uint32_t vdev_xvd(uint32_t index);

#endif
