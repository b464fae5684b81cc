/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated guest's command line: its options, verbs and exit codes. */
#ifndef SIMGUEST_H
#define SIMGUEST_H

#include "simfront.h"

enum simguest_exit {
	SIMGUEST_OK = 0,
	SIMGUEST_FAULT = 1, /* wrong data, or the protocol was broken */
	SIMGUEST_USAGE = 2,
	SIMGUEST_IO_ERROR = 3, /* the backend answered with an error */
};

struct simguest_range {
	uint64_t least, most;
};

/* Every option of every verb; simguest-options.c has their table. */
struct simguest_options {
	const char *abi, *ring_key;
	uint64_t order, queues, segments, timeout;
	bool no_indirect, persistent, stay;
	const char *cpu;

	uint64_t size, seconds, requests, depth, seed, reconnect;
	struct simguest_range bs;
	const char *ops, *persist;
	bool discard_zeroes, atomic_sectors, volatile_cache, power_cut;
	bool no_final_check, expect_errors;

	const char *gaps;
	const char *rw;
	bool json, gate, poll;

	const char *socket, *run;
	bool list;
};

struct simguest {
	struct simguest_options opt;
	uint32_t domid, devid;
	struct simfront *front;
};

/*
 * Takes the options out of argv and leaves the rest, in order, in argv[1] to
 * argv[n].  Returns n, or -1 after a message about the option that is wrong.
 */
int simguest_parse(struct simguest_options *ret_options, int argc, char **argv);

/* "4096", "64K", "1M", "2G"; false when it is no such number. */
bool simguest_parse_size(const char *text, uint64_t *ret_size);
/* "xvdb", "sda", "hda" or a number; false when it is none of these. */
bool simguest_parse_vdev(const char *text, uint32_t *ret_devid);

/* One line on stderr, "simguest: ...". */
__attribute__((format(printf, 1, 2))) void simguest_complain(const char *format,
							     ...);

/* The shape that the options ask for. */
struct simfront_shape simguest_shape(const struct simguest_options *options);
/* How many segments a request may have here; over 11 needs indirect ones. */
unsigned int simguest_max_segments(const struct simguest *guest);
bool simguest_may_indirect(const struct simguest *guest);

/*
 * Complains about a negative errno of a queue and returns the exit code (0 for
 * -ESHUTDOWN: that a domain is destroyed is nobody's fault).
 */
int simguest_queue_failed(const struct simqueue *queue, int r);

/*
 * The verbs, called when connected.  argv[0] is the verb.  Each returns an
 * exit code and has complained if that is not 0.
 */
int simguest_info(struct simguest *guest, int argc, char **argv);
int simguest_read(struct simguest *guest, int argc, char **argv);
int simguest_write(struct simguest *guest, int argc, char **argv);
int simguest_flush(struct simguest *guest, int argc, char **argv);
int simguest_discard(struct simguest *guest, int argc, char **argv);
int simguest_hold(struct simguest *guest, int argc, char **argv);
int simguest_script(struct simguest *guest, int argc, char **argv);
int simguest_verify(struct simguest *guest, int argc, char **argv);
int simguest_load(struct simguest *guest, int argc, char **argv);
int simguest_nbd(struct simguest *guest, int argc, char **argv);
int simguest_hostile(struct simguest *guest, int argc, char **argv);

/* --list: what simguest_hostile() knows. */
void simguest_list_hostile(void);

#endif
