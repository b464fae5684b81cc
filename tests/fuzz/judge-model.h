/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * judge-model.h - what a request says, read with the structs of Xen's header,
 * and which answers to it are right.  A second opinion to worker/blkif.c: it
 * shares no arithmetic with it.
 */
#ifndef XENDISK_JUDGE_MODEL_H
#define XENDISK_JUDGE_MODEL_H

#include "fuzz.h"
#include "worker/blkif.h"

/* Limits as a stack may have them. */
struct blkif_limits model_limits(struct input *in);

/* Aborts unless blkif_judge() was right about slot. */
void model_check_slot(const struct blkif_limits *limits,
		      enum blkif_layout layout, const uint8_t *slot,
		      const struct blkif_job *job);

/* The same for a list of segments and blkif_judge_indirect(); before: the job
 * as blkif_judge() left it. */
void model_check_list(const struct blkif_limits *limits,
		      const struct blkif_job *before, const uint8_t *list,
		      const struct blkif_job *job,
		      const struct blkif_segment *segments);

#endif
