/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pins.h - references that keep what is open from being collected.
 *
 *   refs/xendisk/base/BRANCH/HOST.UUID/GENERATION
 *	the commit of that layer of an overlay, from before it is published until
 *	the overlay stands on a later one, durably.  UUID: the first part of the
 *	overlay's.  So it also says whether a layer has been committed.
 *   refs/xendisk/open/HOST/NAMESPACE-PID-START
 *	a commit that a process reads: its PID namespace, its number, and when it
 *	started, so that the pins of those that were killed can be told.
 *
 * As refs.h: one thread a repository that is open; 0 or -errno and why.
 */
#ifndef XENDISK_GIT_PINS_H
#define XENDISK_GIT_PINS_H

#include "refs.h"

#define REFS_OPEN "refs/xendisk/open/"

#define PIN_HOST_MAX 65u /* bytes, with the NUL */

/* This host, as a part of a reference's name. */
void pin_host(char ret[PIN_HOST_MAX]);

/* "refs/xendisk/base/BRANCH/HOST.UUID/".  The uuid has at least 8 characters. */
int pin_folder(const char *branch, const char *uuid, char ret[REF_NAME_MAX],
	       char *ret_why);
/* Also if it is there already; -ESTALE: but with another commit. */
int pin_set(struct git_repository *repo, const char *folder,
	    uint64_t generation, const uint8_t commit[OID_BYTES],
	    char *ret_why);
/* -ENOENT: that layer has no commit. */
int pin_get(struct git_repository *repo, const char *folder,
	    uint64_t generation, uint8_t ret[OID_BYTES], char *ret_why);
/* Removes those of earlier generations. */
int pin_release(struct git_repository *repo, const char *folder,
		uint64_t before, char *ret_why);

/* For as long as this process lives, or until pin_close().  Removes pins of
 * processes of this host that are dead. */
int pin_open(struct git_repository *repo, const uint8_t commit[OID_BYTES],
	     char *ret_why);
int pin_close(struct git_repository *repo, char *ret_why);
/* Those of dead processes of this host, by itself; look: only counts them. */
int pin_clean(struct git_repository *repo, bool look, unsigned int *ret_nr,
	      char *ret_why);

#endif
