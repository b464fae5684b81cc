/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "serve/complain.h"

#include <stdarg.h>

void complain(const char *fmt, ...)
{
	va_list ap;

	fputs("xendisk: serve: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}
