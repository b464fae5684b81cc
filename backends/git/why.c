/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "why.h"

#include <stdarg.h>
#include <stdio.h>

int why(char *ret_why, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(ret_why, WHY_MAX, fmt, ap);
	va_end(ap);
	return err;
}
