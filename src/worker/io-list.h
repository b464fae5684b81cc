/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-list.h - requests that wait for the same thing, first in, first out.
 */
#ifndef XENDISK_IO_LIST_H
#define XENDISK_IO_LIST_H

struct io;

struct io_list {
	struct io *first, *last;
};

/* A request is in at most one list. */
void io_append(struct io_list *list, struct io *io);
/* NULL: empty. */
struct io *io_pop(struct io_list *list);
/* All of it; the list is empty then. */
struct io_list io_take_all(struct io_list *list);

#endif
