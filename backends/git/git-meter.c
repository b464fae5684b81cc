/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-meter.c - what git says of its progress becomes our bar.
 *
 * A line of it is "Writing objects:  45% (9/20), 12.00 MiB | 3.00 MiB/s", maybe behind
 * "remote: ", and ends with a carriage return until the stage is over.  The rate is our
 * own, since the stage began; git's is of the last seconds.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "command/tables.h"
#include "git-tool.h"

static uint64_t unit_bytes(const char *unit)
{
	static const struct {
		const char *name;
		unsigned int shift;
	} units[] = {
		{ "bytes", 0 }, { "KiB", 10 }, { "MiB", 20 }, { "GiB", 30 }
	};

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (strcmp(unit, units[i].name) == 0)
			return 1ull << units[i].shift;
	return 0;
}

/* The numbers behind the name of a stage. */
static bool parse_numbers(const char *text, uint64_t *ret_done,
			  uint64_t *ret_total, uint64_t *ret_bytes)
{
	unsigned int percent;
	char unit[8];
	double amount;
	int n = 0;

	if (sscanf(text, " %3u%% (%" SCNu64 "/%" SCNu64 ")%n", &percent,
		   ret_done, ret_total, &n) != 3 ||
	    n == 0)
		return false;
	*ret_bytes = 0;
	if (sscanf(text + n, ", %lf %7[a-zA-Z]", &amount, unit) == 2 &&
	    amount > 0)
		*ret_bytes = (uint64_t)(amount * (double)unit_bytes(unit));
	return true;
}

/* False: it is none of progress. */
static bool take_progress(struct meter *meter, const char *line)
{
	const char *colon = strrchr(line, ':');
	uint64_t done, total, bytes;
	size_t n;

	if (!colon || !parse_numbers(colon + 1, &done, &total, &bytes))
		return false;
	n = MIN((size_t)(colon - line), sizeof(meter->stage) - 1);
	if (strncmp(meter->stage, line, n) != 0 || meter->stage[n]) {
		memcpy(meter->stage, line, n);
		meter->stage[n] = '\0';
		progress_start(&meter->progress, meter->stage, total);
	}
	progress_share(&meter->progress, done, bytes);
	return true;
}

static void take_line(struct meter *meter, bool is_over)
{
	meter->line[meter->used] = '\0';
	/* "Enumerating objects: 5" has no end that is known. */
	if (!take_progress(meter, meter->line) && is_over && meter->used > 0 &&
	    meter->passes_on) {
		progress_end(&meter->progress);
		meter->stage[0] = '\0';
		print_clean(stderr, meter->line);
		fputc('\n', stderr);
	}
	meter->used = 0;
}

void meter_take(void *ctx, const char *text, size_t n)
{
	struct meter *meter = ctx;

	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n' || text[i] == '\r')
			take_line(meter, text[i] == '\n');
		else if (meter->used < sizeof(meter->line) - 1)
			meter->line[meter->used++] = text[i];
	}
}

void meter_end(struct meter *meter)
{
	take_line(meter, true);
	progress_end(&meter->progress);
}
