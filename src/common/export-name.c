/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/export-name.h"

#include <string.h>

#include "common/msg.h"

bool is_export_name(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	size_t length = strlen(name);

	return length > 0 && length <= MSG_EXPORT_MAX && name[0] != '.' &&
	       name[0] != '-' && strspn(name, letters) == length &&
	       strspn(name, "0123456789-") < length;
}
