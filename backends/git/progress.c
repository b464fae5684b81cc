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

void progress_show(struct progress *progress, uint64_t done)
{
	uint64_t now = progress->shown ? now_ns() : 0;
	double share, seconds, rate;
	unsigned int width;
	uint64_t left;

	if (now < progress->next || !progress->shown)
		return;
	progress->next = now + EVERY_NS;
	done = MIN(done, progress->total);
	share = (double)done / (double)progress->total;
	seconds = (double)(now - progress->start) / (double)SECOND;
	rate = (double)done / seconds;
	left = rate > 0 ? (uint64_t)((double)(progress->total - done) / rate) :
			  0;
	width = columns();
	fprintf(stderr, "\r\033[K%s", progress->what);
	if (width > NARROW) {
		width = MIN(width - NARROW, 40u);
		print_bar(width, (unsigned int)(share * width));
	}
	fprintf(stderr, " %3.0f %%  %.0f MiB/s", share * 100, rate / (1 << 20));
	if (rate > 0)
		fprintf(stderr, "  %" PRIu64 ":%02" PRIu64 " left", left / 60,
			left % 60);
	fflush(stderr);
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
