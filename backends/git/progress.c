/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/util.h"
#include "git-tool.h"

#define EVERY_NS 200000000ull
#define SECOND	 1000000000ull
#define NARROW	 60 /* columns, without which there is no bar */

void progress_start(struct progress *progress, const char *what, uint64_t total)
{
	*progress = (struct progress){ .shown = isatty(STDERR_FILENO) == 1,
				       .what = what,
				       .total = total ? total : 1,
				       .start = now_ns() };
	progress->next = progress->start + EVERY_NS;
}

static unsigned int columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ?
		       size.ws_col :
		       80;
}

static void print_bar(unsigned int width, unsigned int full)
{
	fputs(" [", stderr);
	for (unsigned int i = 0; i < width; i++)
		fputc(i < full ? '#' : '.', stderr);
	fputc(']', stderr);
}

/* bytes: 0 when nobody knows them. */
static void show(struct progress *progress, uint64_t done, uint64_t now,
		 double bytes)
{
	double seconds = (double)(now - progress->start) / (double)SECOND;
	double share = (double)done / (double)progress->total;
	unsigned int width = columns();
	uint64_t left;

	fprintf(stderr, "\r\033[K%s", progress->what);
	if (width > NARROW) {
		width = MIN(width - NARROW, 40u);
		print_bar(width, (unsigned int)(share * width));
	}
	fprintf(stderr, " %3.0f %%", share * 100);
	if (bytes > 0)
		fprintf(stderr, "  %.0f MiB/s", bytes / seconds / (1 << 20));
	else
		fprintf(stderr, "  %.0f/s", (double)done / seconds);
	if (done > 0) {
		left = (uint64_t)((1 - share) / share * seconds);
		fprintf(stderr, "  %" PRIu64 ":%02" PRIu64 " left", left / 60,
			left % 60);
	}
	fflush(stderr);
}

static void show_now_and_then(struct progress *progress, uint64_t done,
			      double bytes)
{
	uint64_t now = progress->shown ? now_ns() : 0;

	if (now < progress->next || !progress->shown)
		return;
	progress->next = now + EVERY_NS;
	show(progress, MIN(done, progress->total), now, bytes);
}

void progress_show(struct progress *progress, uint64_t done)
{
	show_now_and_then(progress, done, (double)MAX(done, 1u));
}

void progress_share(struct progress *progress, uint64_t done, uint64_t bytes)
{
	show_now_and_then(progress, done, (double)bytes);
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
