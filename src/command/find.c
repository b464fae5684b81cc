/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* find.c - where the other programs of ours are. */
#include "config.h"

#include <string.h>

#include "command/command.h"

char *find_program(const char *name, const char *folder)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *beside, *slash;

	self[n < 0 ? 0 : n] = '\0';
	slash = strrchr(self, '/');
	if (slash) {
		*slash = '\0';
		beside = xasprintf("%s/%s", self, name);
		if (beside && access(beside, X_OK) == 0)
			return beside;
		free(beside);
	}
	return xasprintf("%s/%s", folder, name);
}
