/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz.h - what the fuzzers share.
 *
 * A fuzzer is one function that takes bytes as somebody hostile would send
 * them, gives them to the product, and checks what came out against what the
 * product promises.  libFuzzer or AFL++ call it with inputs that they make up,
 * replay.c with those that are kept in corpus/.
 */
#ifndef XENDISK_FUZZ_H
#define XENDISK_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of a fuzzer that has files: removes them, once a promise is broken. */
void fuzz_leave(void) __attribute__((weak));

static inline _Noreturn void fuzz_found(void)
{
	if (fuzz_leave)
		fuzz_leave();
	abort();
}

/* A promise; if it is broken, this input has found a bug. */
#define HOLDS(condition, ...)                                                  \
	do {                                                                   \
		if (!(condition)) {                                            \
			(void)fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, \
				      __LINE__, #condition);                   \
			(void)fprintf(stderr, __VA_ARGS__);                    \
			(void)fputc('\n', stderr);                             \
			fuzz_found();                                          \
		}                                                              \
	} while (0)

/* --- Reading an input -------------------------------------------------------- */

struct input {
	const uint8_t *at;
	size_t left;
};

/* As many bytes as there are; the rest of to is 0. */
static inline void input_bytes(struct input *in, void *to, size_t size)
{
	size_t n = size < in->left ? size : in->left;

	memset(to, 0, size);
	if (n)
		memcpy(to, in->at, n);
	in->at += n;
	in->left -= n;
}

#define INPUT_NUMBER(bits)                                           \
	static inline uint##bits##_t input_u##bits(struct input *in) \
	{                                                            \
		uint##bits##_t value;                                \
                                                                     \
		input_bytes(in, &value, sizeof(value));              \
		return value;                                        \
	}
INPUT_NUMBER(8)
INPUT_NUMBER(16)
INPUT_NUMBER(32)
INPUT_NUMBER(64)
#undef INPUT_NUMBER

/* --- Faults ------------------------------------------------------------------ */

/*
 * A fuzzer's negative controls: a program with a faults-NAME.c in it can put a
 * fault into the product (the linker's --wrap), and the corpus must find it.
 * The list ends with NULL.
 */
extern const char *const fuzz_faults[] __attribute__((weak));
extern int fuzz_fault; /* which; -1: none */

#endif
