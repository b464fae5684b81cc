/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fetch-trace.h - counts how often a program reads each byte of some memory.
 *
 * For code as it is shipped, which must not be changed to be counted: the memory
 * has no permissions, so each instruction that touches it faults.  The fault is
 * counted, the memory opened, the instruction run by itself with the CPU's trap
 * flag, and the memory closed again.  How many bytes an instruction reads is
 * decoded from its opcode; one that is not known is told, and never passed over.
 */
#ifndef FETCH_TRACE_H
#define FETCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#if !defined(__has_feature)
#define FETCH_TRACE 1
#elif !__has_feature(address_sanitizer)
#define FETCH_TRACE 1
#endif
#endif

#define FETCH_MAX (17u * 4096u)

struct fetch_trace {
	uint8_t *view; /* what the code under test is given */
	uint8_t *own; /* the same memory, not counted */
	size_t size;
	unsigned int reads[FETCH_MAX]; /* of each byte */
	unsigned int writes; /* instructions */
	unsigned int unknown; /* instructions that could not be decoded */
	uint8_t first_unknown[16]; /* their bytes */
};

extern struct fetch_trace fetch_trace;

/* Whole pages. */
void fetch_trace_start(size_t size);
void fetch_trace_stop(void);
/* Forgets the reads of some bytes. */
void fetch_trace_forget(size_t at, size_t length);

#endif
