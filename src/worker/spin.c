/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/spin.h"

#include <sched.h>

#include "common/util.h"

/* An offer that is not taken is over before. */
#define TAKEN_NS 2000ull

/* The other thread of a core may have use for it. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* Returns when it ended. */
static uint64_t rest(uint64_t now, uint64_t ns)
{
	uint64_t until = now + ns;

	while (now < until) {
		relax();
		now = now_ns();
	}
	return now;
}

bool spin_look(struct spin *spin, const struct spin_how *how,
	       bool (*look)(void *ctx), void *ctx)
{
	uint64_t begin = now_ns(), now = begin, away = 0, others = 0;
	bool offer = spin->offer_first, good = false;

	spin->offer_first = false;
	do {
		for (unsigned int i = 0; !offer && i < how->looks && !good;
		     i++) {
			relax();
			good = look(ctx);
		}
		if (good)
			break;
		offer = false;
		(void)sched_yield();
		good = look(ctx);
		away = now_ns() - now;
		now += away;
		if (away > TAKEN_NS) {
			others += away;
			spin->offer_first = good;
		} else if (!good) {
			now = rest(now, how->rest_ns);
		}
	} while (!good && now - begin < how->most_ns);
	spin_used(spin, now - begin - others);
	if (away >= how->turn_ns)
		spin_taken(spin);
	else
		spin_tried(spin, good);
	return good;
}
