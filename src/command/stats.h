/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stats.h - what a disk's counters say, for people.
 */
#ifndef XENDISK_COMMAND_STATS_H
#define XENDISK_COMMAND_STATS_H

#include <jansson.h>

/* The counters of one disk (DiskStats) in lines on stdout, over all its rings:
 * both histograms, then how many requests there were. */
void stats_print_histograms(json_t *disk);

#endif
