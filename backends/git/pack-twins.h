/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pack-twins.h - what a committer that was killed has published already, once
 * its successor has done the same.
 */
#ifndef XENDISK_GIT_PACK_TWINS_H
#define XENDISK_GIT_PACK_TWINS_H

#include "pack-write.h"

/*
 * Cleans as pack_clean() does, and removes those packs whose writers were dead and
 * of which each object is in the fresh ones, too, which still have their ".keep".
 * Nobody else would: no reference leads to them, or needs them, and a geometric
 * repack keeps whatever is in a pack.
 */
int pack_drop_twins(int dir, const struct pack_names *fresh, char *ret_why);

#endif
