/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spin.h - does it pay to look for a moment, before sleeping, whether there is
 * something to do: a request on a ring, or from an NBD client?
 *
 * A guest that waits for its answer sends the next request some microseconds
 * later.  To sleep until then takes two wake-ups, his and ours, which cost more
 * than the wait.  But a guest that has nothing to send, or needs this CPU to send
 * it, is waited for in vain.  So a try is only made while more than two of three
 * are good; else the next sleeps go without, twice as many after each try that
 * fails.  And where others want the CPU the next sleeps go without as well: to
 * offer it is to stand behind them.  Once in a thousand tries that is a kernel
 * thread or an interrupt, and costs few sleeps; a neighbour that computes takes the
 * CPU again and again, and then it is twice as many each time.
 *
 * Who is waited for on this very CPU does nothing while we look.  So where an offer
 * was what helped last time, the next try begins with one.
 *
 * A lane whose CPU others can use better allows itself only a share of its time for
 * all tries together (spin_allowed()): a try that pays in time still costs more CPU
 * than sleeping.
 *
 * Pure, but for spin_look(): no time but what it is told.
 */
#ifndef XENDISK_SPIN_H
#define XENDISK_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define SPIN_CREDIT    8u
#define SPIN_SKIP      16u
#define SPIN_SKIP_MOST 1024u
/* So many good tries between two times that somebody else took the CPU: those had
 * nothing to do with each other. */
#define SPIN_SELDOM 1024u

/* Of a lane; zeroed at first. */
struct spin {
	unsigned int credit; /* a good try gives one, a bad one takes two */
	unsigned int skip; /* sleeps that go without */
	unsigned int last_skip;
	unsigned int good; /* tries, since the CPU was taken last */
	unsigned int taken_skip; /* what that cost */
	bool offer_first; /* it helped last time */
	int64_t allowed_ns; /* of tries; below 0: too much was used already */
	uint64_t asked_ns; /* when that was reckoned last */
};

static inline bool spin_wanted(struct spin *spin)
{
	if (spin->credit > 0 || spin->skip == 0)
		return true;
	spin->skip--;
	return false;
}

static inline void spin_tried(struct spin *spin, bool good)
{
	if (good) {
		if (spin->credit < SPIN_CREDIT)
			spin->credit++;
		spin->last_skip = 0;
		if (spin->good < SPIN_SELDOM)
			spin->good++;
		return;
	}
	spin->credit = spin->credit > 2 ? spin->credit - 2 : 0;
	if (spin->credit > 0)
		return;
	if (spin->last_skip == 0)
		spin->last_skip = SPIN_SKIP;
	else if (spin->last_skip < SPIN_SKIP_MOST)
		spin->last_skip *= 2;
	spin->skip = spin->last_skip;
}

/* Somebody else had the CPU meanwhile, for longer than a guest's turn. */
static inline void spin_taken(struct spin *spin)
{
	if (spin->taken_skip == 0 || spin->good >= SPIN_SELDOM)
		spin->taken_skip = SPIN_SKIP;
	else if (spin->taken_skip < SPIN_SKIP_MOST)
		spin->taken_skip *= 2;
	spin->good = 0;
	spin->credit = 0;
	spin->last_skip = spin->taken_skip;
	spin->skip = spin->taken_skip;
}

/* Not saved up for longer than this. */
#define SPIN_ALLOWED_MOST_NS 100000

/* Whether tries have had less than so much of the time until now, in percent. */
static inline bool spin_allowed(struct spin *spin, uint64_t now,
				unsigned int percent)
{
	uint64_t away = now - spin->asked_ns;

	spin->asked_ns = now;
	if (away >= SPIN_ALLOWED_MOST_NS)
		spin->allowed_ns = SPIN_ALLOWED_MOST_NS;
	else
		spin->allowed_ns += (int64_t)(away * percent / 100);
	if (spin->allowed_ns > SPIN_ALLOWED_MOST_NS)
		spin->allowed_ns = SPIN_ALLOWED_MOST_NS;
	return spin->allowed_ns > 0;
}

/* A try took so much CPU. */
static inline void spin_used(struct spin *spin, uint64_t ns)
{
	spin->allowed_ns -= (int64_t)ns;
}

/* How long a try may take where nobody has said so: SPIN_NS, or as long as SPIN_CALLS
 * of the quickest system calls where these are slow, up to SPIN_MOST_NS.  To fall
 * asleep and be woken costs a dozen of them, here and in the guest, and where they are
 * slow (an emulated machine, one inside another) the guest, too, takes that much longer
 * to ask again. */
#define SPIN_NS	     20000u
#define SPIN_CALLS   50u
#define SPIN_MOST_NS 3000000u

static inline uint64_t spin_default_ns(uint64_t call_ns)
{
	if (call_ns <= SPIN_NS / SPIN_CALLS)
		return SPIN_NS;
	if (call_ns >= SPIN_MOST_NS / SPIN_CALLS)
		return SPIN_MOST_NS;
	return call_ns * SPIN_CALLS;
}

struct spin_how {
	uint64_t most_ns; /* a try, at most */
	unsigned int looks; /* between two offers of the CPU to others */
	/* After an offer that nobody took: looks that cost more than a glance at
	 * memory slow down the one who is waited for. */
	uint64_t rest_ns;
	/* What the one who is waited for takes until there is something to do;
	 * an offer that takes longer was taken by somebody else. */
	uint64_t turn_ns;
};

/*
 * A try: asks look() for at most how->most_ns, until it says that there is something
 * to do; then that is what it returns.  Whoever else wants this CPU gets it now
 * and then; it may be the one who is waited for.
 */
bool spin_look(struct spin *spin, const struct spin_how *how,
	       bool (*look)(void *ctx), void *ctx);

#endif
