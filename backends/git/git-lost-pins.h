/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-lost-pins.h - pins of overlays (pins.h) that are no more, for doctor.
 */
#ifndef XENDISK_GIT_LOST_PINS_H
#define XENDISK_GIT_LOST_PINS_H

#include "git-tool.h"

/*
 * Those of this host for which there is another overlay of the repository and branch
 * in the state directory: *ret has their names, a line each, to be freed.  Before root
 * becomes the owner of the repository (tool_open()), in a process without threads.
 * Says itself what is wrong.
 */
enum status lost_pins_find(const struct invocation *call, const char *state_dir,
			   char **ret);
/* Removes them; what is gone already is fine. */
int lost_pins_remove(struct git_repository *repo, const char *names,
		     char *ret_why);

#endif
