/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image-roots.h - are the folders there that images may be in?
 *
 * One that is not is a mistake in the configuration, or a file system that has not been
 * mounted yet: a warning, and nothing else.  A child looks, since it may be on a server
 * that is away.
 */
#ifndef XENDISK_IMAGE_ROOTS_H
#define XENDISK_IMAGE_ROOTS_H

struct broker;

/* Broker thread.  Warns later, from the event loop.  0: nothing that fails here keeps
 * the daemon from serving. */
int image_roots_look(struct broker *broker);
/* Also when nobody looks. */
void image_roots_stop(struct broker *broker);

#endif
