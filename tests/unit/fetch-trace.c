/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "fetch-trace.h"

#ifdef FETCH_TRACE

#include <assert.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG   0x100
#define FAULT_WRITE 2 /* in the page fault's error code */

struct fetch_trace fetch_trace;
static struct sigaction old_segv, old_trap;

/* --- How much an instruction touches ------------------------------------------------ */

struct access {
	unsigned int bytes; /* 0: not known */
	bool store; /* it only writes */
};

/* The prefixes that matter, and what is behind them. */
struct code {
	const uint8_t *at;
	bool operand16, repne, rep, wide, locked;
};

static struct code skip_prefixes(const uint8_t *at)
{
	struct code code = { .at = at };

	for (;; code.at++) {
		if (*code.at == 0x66)
			code.operand16 = true;
		else if (*code.at == 0xf2)
			code.repne = true;
		else if (*code.at == 0xf3)
			code.rep = true;
		else if (*code.at == 0xf0)
			code.locked = true;
		else
			break;
	}
	if ((*code.at & 0xf0) == 0x40)
		code.wide = *code.at++ & 8;
	return code;
}

static unsigned int operand(const struct code *code)
{
	return code->wide ? 8 : code->operand16 ? 2 : 4;
}

/* Behind 0F: moves with extension, and of vector registers. */
static struct access decode_0f(const struct code *code, uint8_t op,
			       unsigned int vector)
{
	unsigned int scalar = code->rep ? 4 : code->repne ? 8 : vector;

	switch (op) {
	case 0xb6:
	case 0xbe: /* movzx, movsx of a byte */
		return (struct access){ 1, false };
	case 0xb7:
	case 0xbf: /* ... of two */
		return (struct access){ 2, false };
	case 0x10: /* movups, movss, movsd */
		return (struct access){ scalar, false };
	case 0x11:
		return (struct access){ scalar, true };
	case 0x28:
	case 0x6f: /* movaps, movdqu */
		return (struct access){ vector, false };
	case 0x29:
	case 0x7f:
		return (struct access){ vector, true };
	case 0x12:
	case 0x16: /* movlps, movhps */
		return (struct access){ 8, false };
	case 0x13:
	case 0x17:
	case 0xd6: /* movq */
		return (struct access){ 8, true };
	case 0x6e: /* movd, movq */
		return (struct access){ code->wide ? 8 : 4, false };
	case 0x7e:
		return (struct access){ code->rep || code->wide ? 8 : 4,
					!code->rep };
	default:
		return (struct access){ 0, false };
	}
}

/* AVX has the same opcodes behind another prefix. */
static struct access decode_vex(const uint8_t *at)
{
	uint8_t last = at[0] == 0xc5 ? at[1] : at[2];
	struct code code = { .rep = (last & 3) == 2,
			     .repne = (last & 3) == 3,
			     .wide = at[0] == 0xc4 && last & 0x80 };

	if (at[0] == 0xc4 && (at[1] & 0x1f) != 1)
		return (struct access){ 0, false };
	return decode_0f(&code, at[0] == 0xc5 ? at[2] : at[3],
			 last & 4 ? 32 : 16);
}

static struct access decode_plain(const struct code *code)
{
	uint8_t op = code->at[0];

	/* add, or, adc, sbb, and, sub, xor, cmp; with memory as the second
	 * operand they read it, as the first they read it too. */
	if (op < 0x40 && (op & 7) < 4)
		return (struct access){ op & 1 ? operand(code) : 1, false };
	switch (op) {
	case 0x80:
	case 0x84:
	case 0x8a:
	case 0xa4: /* movsb */
	case 0xf6:
		return (struct access){ 1, false };
	case 0x81:
	case 0x83:
	case 0x85:
	case 0x8b:
	case 0xa5: /* movs */
	case 0xf7:
	case 0xff:
		return (struct access){ operand(code), false };
	case 0x63: /* movslq */
		return (struct access){ 4, false };
	case 0x88:
	case 0xc6:
		return (struct access){ 1, true };
	case 0x89:
	case 0xc7:
		return (struct access){ operand(code), true };
	default:
		return (struct access){ 0, false };
	}
}

static struct access decode(const uint8_t *at)
{
	struct code code = skip_prefixes(at);
	struct access access;

	if (code.at[0] == 0xc5 || code.at[0] == 0xc4)
		return decode_vex(code.at);
	if (code.at[0] == 0x0f)
		return decode_0f(&code, code.at[1], 16);
	access = decode_plain(&code);
	/* A locked one reads what it writes. */
	access.store = access.store && !code.locked;
	return access;
}

/* --- Faults and traps ---------------------------------------------------------------- */

static void protect(int how)
{
	(void)mprotect(fetch_trace.view, fetch_trace.size, how);
}

static void count(size_t at, const uint8_t *code, bool writes)
{
	struct access access = decode(code);

	if (access.bytes == 0) {
		if (fetch_trace.unknown++ == 0)
			memcpy(fetch_trace.first_unknown, code,
			       sizeof(fetch_trace.first_unknown));
		return;
	}
	fetch_trace.writes += writes;
	/* movs to this memory only writes to it. */
	if (access.store ||
	    (writes && (skip_prefixes(code).at[0] & 0xfe) == 0xa4))
		return;
	for (size_t i = at; i < at + access.bytes && i < fetch_trace.size; i++)
		fetch_trace.reads[i]++;
}

static void on_fault(int sig, siginfo_t *info, void *arg)
{
	ucontext_t *context = arg;
	greg_t *regs = context->uc_mcontext.gregs;
	uintptr_t at = (uintptr_t)info->si_addr;
	uintptr_t view = (uintptr_t)fetch_trace.view;

	if (at < view || at >= view + fetch_trace.size) {
		(void)sigaction(sig, &old_segv, NULL);
		return;
	}
	count(at - view, (const uint8_t *)(uintptr_t)regs[REG_RIP],
	      regs[REG_ERR] & FAULT_WRITE);
	protect(PROT_READ | PROT_WRITE);
	regs[REG_EFL] |= TRAP_FLAG;
}

static void on_trap(int sig, siginfo_t *info, void *arg)
{
	ucontext_t *context = arg;

	(void)sig;
	(void)info;
	context->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	protect(PROT_NONE);
}

void fetch_trace_start(size_t size)
{
	struct sigaction fault = { .sa_sigaction = on_fault,
				   .sa_flags = SA_SIGINFO };
	struct sigaction trap = { .sa_sigaction = on_trap,
				  .sa_flags = SA_SIGINFO };
	int fd = memfd_create("traced", MFD_CLOEXEC);

	assert(size <= FETCH_MAX);
	memset(&fetch_trace, 0, sizeof(fetch_trace));
	fetch_trace.size = size;
	assert(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	fetch_trace.own =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	fetch_trace.view = mmap(NULL, size, PROT_NONE, MAP_SHARED, fd, 0);
	assert(fetch_trace.own != MAP_FAILED && fetch_trace.view != MAP_FAILED);
	(void)close(fd);
	(void)sigaction(SIGSEGV, &fault, &old_segv);
	(void)sigaction(SIGTRAP, &trap, &old_trap);
}

void fetch_trace_stop(void)
{
	(void)sigaction(SIGSEGV, &old_segv, NULL);
	(void)sigaction(SIGTRAP, &old_trap, NULL);
	(void)munmap(fetch_trace.view, fetch_trace.size);
	(void)munmap(fetch_trace.own, fetch_trace.size);
}

void fetch_trace_forget(size_t at, size_t length)
{
	memset(&fetch_trace.reads[at], 0,
	       length * sizeof(fetch_trace.reads[0]));
}

#endif
