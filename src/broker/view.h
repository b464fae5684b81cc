/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * view.h - disks, stacks and backends as the control socket shows them.
 *
 * The types of io.xendisk.varlink, in its words.  All return new references,
 * NULL when there is no memory.
 */
#ifndef XENDISK_VIEW_H
#define XENDISK_VIEW_H

#include <jansson.h>

#include "broker/registry.h"
#include "common/expr.h"

struct broker;
struct exports_view;
struct vbd;

/* What somebody has exported. */
json_t *view_export(struct broker *broker, const struct exports_view *view);

json_t *view_disk(struct broker *broker, const struct vbd *vbd);
/* notes: lines "INDEX NAME text", or "". */
json_t *view_layer(const struct layer *layer, const char *notes);
/* The stack of a disk; JSON null when its expression is no longer understood. */
json_t *view_stack(struct broker *broker, const struct vbd *vbd);
json_t *view_backend(const struct registry_entry *entry);
/* What xenstore has on one side of a disk. */
json_t *view_keys(struct broker *broker, const char *dir, bool frontend);

#endif
