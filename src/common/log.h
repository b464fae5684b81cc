/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log.h - one line a message, to the journal with fields or to stderr.
 *
 * Only the code that knows the guest logs; libraries return errors.  A message
 * about a disk goes through log_disk(), which names it ("d5/51728: ...", and
 * in the journal the fields XENDISK_DOMID, XENDISK_DEVID and XENDISK_VDEV).
 * Whatever a guest can cause goes through log_guest(), which passes 10 lines a
 * second for each disk, and counts what it leaves out.  Any thread.
 */
#ifndef XENDISK_LOG_H
#define XENDISK_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/util.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};

/* Which disk is meant, and how many lines it has had lately. */
struct log_who {
	uint32_t domid;
	uint32_t devid;
	_Atomic(uint64_t) second; /* of the window below */
	_Atomic(uint32_t) lines;
	_Atomic(uint32_t) suppressed;
};

void log_init(const char *program, enum log_level level);
enum log_level log_get_level(void);
/* "error", "warning", "info", "debug"; -EINVAL for another word. */
int log_parse_level(const char *word, enum log_level *ret);
const char *log_level_word(enum log_level level);

void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
void log_disk(const struct log_who *who, enum log_level level, const char *fmt,
	      ...) PRINTF(3, 4);
void log_guest(struct log_who *who, enum log_level level, const char *fmt, ...)
	PRINTF(3, 4);

#define log_error(...)	 log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
