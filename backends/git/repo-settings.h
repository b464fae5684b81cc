/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo-settings.h - how a repository of disks is configured, so that git is quick
 * and careful with it.  `init` writes this, `doctor` compares.
 */
#ifndef XENDISK_GIT_REPO_SETTINGS_H
#define XENDISK_GIT_REPO_SETTINGS_H

#include <stdint.h>

#include "why.h"

struct git_repository;

/* Bytes of the smallest chunk of its disks; 0: as for the default ones. */
int repo_settings_write(struct git_repository *repo, uint32_t chunk,
			char *ret_why);
/* Calls fn with each setting that is another one, and with what it is (NULL:
 * not there). */
int repo_settings_compare(struct git_repository *repo, uint32_t chunk,
			  void (*fn)(void *ctx, const char *name,
				     const char *wanted, const char *found),
			  void *ctx, char *ret_why);

#endif
