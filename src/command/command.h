/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * command.h - the verbs of xendisk(1).
 */
#ifndef XENDISK_COMMAND_H
#define XENDISK_COMMAND_H

#include "command/verbs.h"

enum status verb_attach(const struct invocation *call);
enum status verb_backends(const struct invocation *call);
enum status verb_check(const struct invocation *call);
enum status verb_complete(const struct invocation *call);
enum status verb_connect(const struct invocation *call);
enum status verb_detach(const struct invocation *call);
enum status verb_export(const struct invocation *call);
enum status verb_exports(const struct invocation *call);
enum status verb_git(const struct invocation *call);
enum status verb_hotplug(const struct invocation *call);
enum status verb_list(const struct invocation *call);
enum status verb_replug(const struct invocation *call);
enum status verb_resize(const struct invocation *call);
enum status verb_resume(const struct invocation *call);
enum status verb_serve(const struct invocation *call);
enum status verb_show(const struct invocation *call);
enum status verb_snapshot(const struct invocation *call);
enum status verb_stats(const struct invocation *call);
enum status verb_status(const struct invocation *call);
enum status verb_unexport(const struct invocation *call);
enum status verb_version(const struct invocation *call);

/* git.c: completion of "git ...", which the words begin with. */
enum status complete_git(const struct invocation *call);

/* A program of ours: beside this one in a build tree, else in folder.  NULL: no
 * memory. */
char *find_program(const char *name, const char *folder);

#endif
