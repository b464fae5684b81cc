/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-rig.h - repositories beside a rig: git disks on the real stack, with the real
 * committer.
 */
#ifndef XENDISK_TEST_GIT_RIG_H
#define XENDISK_TEST_GIT_RIG_H

#include "rig.h"

/* Runs it in the folder of images, by sh -e, with git and xendisk-git ($tool) set
 * up, and eventually COMMAND..., which is tried for a minute; it must succeed. */
void git_shell(struct rig *rig, const char *script);
/* r is no error; rig->why is told otherwise. */
void git_must(struct rig *rig, int r);
/* Takes a snapshot and returns when it has become a commit. */
void git_snapshot(struct rig *rig);
/* Before the tests: false, and it has been said, when git is not installed. */
bool git_is_there(void);

#endif
