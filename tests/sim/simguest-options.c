/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of options, and what is made of it: parser and --help. */
#include "config.h"

#include "simguest.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, NUMBER, RANGE, TEXT };

struct option_row {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct simguest_options */
	const char *value;
	const char *help;
};

#define ROW(name, kind, field, value, help)                                  \
	{                                                                    \
		name, kind, offsetof(struct simguest_options, field), value, \
			help                                                 \
	}

static const struct option_row rows[] = {
	ROW("abi", TEXT, abi, "ABI",
	    "native (no protocol key), x86_32, x86_64 or arm"),
	ROW("order", NUMBER, order, "N", "ring of 2^N pages, 0 to 4"),
	ROW("ring-key", TEXT, ring_key, "KEY",
	    "announce it by order (ring-page-order) or pages (num-ring-pages)"),
	ROW("queues", NUMBER, queues, "N", "1 to 16"),
	ROW("segments", NUMBER, segments, "N", "at most N in a request"),
	ROW("no-indirect", FLAG, no_indirect, NULL, "no indirect requests"),
	ROW("persistent", FLAG, persistent, NULL,
	    "persistent grants, if the backend offers them"),
	ROW("cpu", TEXT, cpu, "N", "run on this CPU only"),
	ROW("timeout", NUMBER, timeout, "SECONDS",
	    "for a step of the handshake, and for an answer"),
	ROW("stay", FLAG, stay, NULL,
	    "end without closing the disk, as a guest that stops"),
	ROW("size", NUMBER, size, "BYTES", "use the disk's first BYTES"),
	ROW("seconds", NUMBER, seconds, "N",
	    "how long verify, load and a hostile case run"),
	ROW("requests", NUMBER, requests, "N",
	    "verify: at most N per queue and connection"),
	ROW("depth", NUMBER, depth, "N", "requests in flight per queue"),
	ROW("bs", RANGE, bs, "MIN[-MAX]", "bytes of a request"),
	ROW("seed", NUMBER, seed, "N", "of all random choices"),
	ROW("ops", TEXT, ops, "LIST",
	    "verify: weights, as read=45,write=45,flush=5,barrier=5"),
	ROW("reconnect", NUMBER, reconnect, "N",
	    "verify: N times, each with other queues and ring order"),
	ROW("persist", TEXT, persist, "FILE",
	    "verify: go on with the model in FILE, and save it there"),
	ROW("discard-zeroes", FLAG, discard_zeroes, NULL,
	    "verify: discarded sectors must read as zeroes"),
	ROW("atomic-sectors", FLAG, atomic_sectors, NULL,
	    "verify: racing requests must not tear a sector"),
	ROW("volatile", FLAG, volatile_cache, NULL,
	    "verify: save what a power cut may bring back, too"),
	ROW("power-cut", FLAG, power_cut, NULL,
	    "verify: the power was cut since FILE was saved"),
	ROW("no-final-check", FLAG, no_final_check, NULL,
	    "verify: do not read everything at the end"),
	ROW("expect-errors", FLAG, expect_errors, NULL,
	    "verify: error answers are fine"),
	ROW("gaps", TEXT, gaps, "FILE",
	    "verify: the time between two answers, ms, where it is over 10"),
	ROW("rw", TEXT, rw, "MODE", "load: read, write, randread or randwrite"),
	ROW("json", FLAG, json, NULL, "load: the result as JSON"),
	ROW("gate", FLAG, gate, NULL,
	    "load: say \"ready\", and begin when stdin ends"),
	ROW("poll", FLAG, poll, NULL,
	    "load: look for answers all the time, never sleep"),
	ROW("socket", TEXT, socket, "PATH", "nbd: where to listen"),
	ROW("run", TEXT, run, "COMMAND",
	    "nbd: run it with $uri and $socket set, exit as it does"),
	ROW("list", FLAG, list, NULL, "hostile: the cases, and nothing else"),
};
#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

void simguest_complain(const char *format, ...)
{
	char text[600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "simguest: %s\n", text);
}

bool simguest_parse_size(const char *text, uint64_t *ret_size)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	unsigned long long value;
	unsigned int shift = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end != '\0') {
		suffix = strchr(suffixes, *end);
		if (!suffix || end[1] != '\0')
			return false;
		shift = 10 * (unsigned int)(suffix - suffixes + 1);
	}
	if (errno != 0 || value > UINT64_MAX >> shift)
		return false;
	*ret_size = value << shift;
	return true;
}

static bool parse_range(const char *text, struct simguest_range *ret)
{
	const char *dash = strchr(text, '-');
	char least[32];
	size_t len = dash ? (size_t)(dash - text) : strlen(text);

	if (len >= sizeof(least))
		return false;
	memcpy(least, text, len);
	least[len] = '\0';
	return simguest_parse_size(least, &ret->least) &&
	       simguest_parse_size(dash ? dash + 1 : least, &ret->most) &&
	       ret->least <= ret->most;
}

bool simguest_parse_vdev(const char *text, uint32_t *ret_devid)
{
	/* Majors and minors per disk, as libxl__device_disk_dev_number(). */
	static const struct {
		const char *prefix;
		uint32_t base, shift, disks;
	} buses[] = {
		{ "xvd", 202 << 8, 4, 16 },
		{ "sd", 8 << 8, 4, 16 },
		{ "hd", 3 << 8, 6, 2 },
	};
	uint64_t number;

	if (simguest_parse_size(text, &number) && number <= UINT32_MAX) {
		*ret_devid = (uint32_t)number;
		return true;
	}
	for (size_t i = 0; i < 3; i++) {
		size_t len = strlen(buses[i].prefix);
		uint32_t disk =
			(uint32_t)(text[len < strlen(text) ? len : 0] - 'a');

		if (strncmp(text, buses[i].prefix, len) != 0 ||
		    strlen(text) != len + 1 || disk >= 26)
			continue;
		*ret_devid = disk < buses[i].disks ?
				     buses[i].base | disk << buses[i].shift :
				     1u << 28 | disk << 8;
		return disk < buses[i].disks || i == 0;
	}
	return false;
}

static bool set(struct simguest_options *options, const struct option_row *row,
		const char *text)
{
	void *field = (char *)options + row->offset;

	switch (row->kind) {
	case FLAG:
		*(bool *)field = true;
		return true;
	case NUMBER:
		return simguest_parse_size(text, field);
	case RANGE:
		return parse_range(text, field);
	case TEXT:
		*(const char **)field = text;
		return true;
	}
	return false;
}

static bool check(const struct simguest_options *o)
{
	if (!simabi_by_name(o->abi))
		simguest_complain("--abi %s: no such ABI", o->abi);
	else if (strcmp(o->ring_key, "order") != 0 &&
		 strcmp(o->ring_key, "pages") != 0)
		simguest_complain("--ring-key %s: order or pages", o->ring_key);
	else if (o->order > SIMQUEUE_MAX_ORDER)
		simguest_complain("--order: 0 to %u", SIMQUEUE_MAX_ORDER);
	else if (o->queues < 1 || o->queues > SIMFRONT_MAX_QUEUES)
		simguest_complain("--queues: 1 to %u", SIMFRONT_MAX_QUEUES);
	else if (o->segments < 1 || o->segments > SIMQUEUE_MAX_SEGMENTS)
		simguest_complain("--segments: 1 to %u", SIMQUEUE_MAX_SEGMENTS);
	else if (o->depth < 1 || o->depth > 4096)
		simguest_complain("--depth: 1 to 4096");
	else if (o->bs.least == 0 || o->bs.least % SIMABI_SECTOR != 0 ||
		 o->bs.most % SIMABI_SECTOR != 0)
		simguest_complain("--bs: multiples of %u", SIMABI_SECTOR);
	else
		return true;
	return false;
}

static void set_defaults(struct simguest_options *o)
{
	*o = (struct simguest_options){
		.abi = "native",
		.ring_key = "order",
		.queues = 1,
		.segments = SIMQUEUE_MAX_SEGMENTS,
		.timeout = 30,
		.seconds = 3,
		.depth = 16,
		.seed = 1,
		.bs = { SIMABI_SECTOR, 128 * 1024 },
		.ops = "read=45,write=45,flush=5,discard=5",
		.rw = "randread",
	};
}

static void print_options(void)
{
	printf("usage: simguest DOMID VDEV VERB [ARGUMENT...] [OPTION...]\n\n"
	       "  info  read OFF LEN  write OFF [LEN]  flush  discard OFF LEN\n"
	       "  hold  script  verify  load  nbd  hostile [CASE]\n\n");
	for (size_t i = 0; i < NR_ROWS; i++)
		printf("  --%s%s%-*s %s\n", rows[i].name,
		       rows[i].value ? " " : "",
		       24 - (int)strlen(rows[i].name) - (rows[i].value ? 1 : 0),
		       rows[i].value ? rows[i].value : "", rows[i].help);
	printf("\nSizes take K, M, G, T.  Exit status: 0 done; 1 wrong data or "
	       "a broken protocol;\n2 wrong use; 3 the backend answered with "
	       "an error.\n");
}

int simguest_parse(struct simguest_options *ret_options, int argc, char **argv)
{
	struct option options[NR_ROWS + 2] = { { "help", 0, NULL, 'h' } };
	int index, c;

	set_defaults(ret_options);
	for (size_t i = 0; i < NR_ROWS; i++)
		options[i + 1] = (struct option){
			.name = rows[i].name,
			.has_arg = rows[i].kind == FLAG ? no_argument :
							  required_argument,
		};
	while ((c = getopt_long(argc, argv, "h", options, &index)) != -1) {
		if (c == 'h') {
			print_options();
			exit(SIMGUEST_OK);
		}
		if (c != 0)
			return -1; /* getopt has complained */
		if (!set(ret_options, &rows[index - 1], optarg)) {
			simguest_complain("--%s %s: not a number",
					  rows[index - 1].name, optarg);
			return -1;
		}
	}
	if (!check(ret_options))
		return -1;
	memmove(argv + 1, argv + optind,
		(size_t)(argc - optind + 1) * sizeof(*argv));
	return argc - optind;
}
