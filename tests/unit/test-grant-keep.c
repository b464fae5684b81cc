/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pages that stay mapped: each once, no more than may be, as long as they are used,
 * none afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/util.h"
#include "worker/grant-keep.h"
#include "worker/grant.h"

/* Maps in one test, at most. */
#define MANY   100000u
#define SECOND 1000000000ull
/* Unmapped at a time, at most. */
#define BURST 32u

static struct {
	unsigned int maps, unmaps, failing;
	uint32_t ref[MANY];
	char page[MANY]; /* its address is the page's */
	bool mapped[MANY];
} dev;

int grant_map(struct grant *grant, const uint32_t *refs, unsigned int count,
	      void **ret_pages)
{
	assert_ptr_equal(grant, &dev);
	assert_int_equal(count, 1);
	assert_true(dev.maps < MANY);
	if (dev.failing) {
		dev.failing--;
		dev.maps++;
		return -EINVAL;
	}
	dev.ref[dev.maps] = refs[0];
	dev.mapped[dev.maps] = true;
	*ret_pages = &dev.page[dev.maps++];
	return 0;
}

void grant_unmap(struct grant *grant, void *pages, unsigned int count)
{
	size_t i;

	assert_ptr_equal(grant, &dev);
	assert_int_equal(count, 1);
	if (!pages)
		return;
	i = (size_t)((char *)pages - dev.page);
	assert_true(i < MANY && dev.mapped[i]);
	dev.mapped[i] = false;
	dev.unmaps++;
}

static int setup(void **state)
{
	struct grant_keep *keep;

	memset(&dev, 0, sizeof(dev));
	assert_int_equal(grant_keep_new(&keep, (void *)&dev), 0);
	*state = keep;
	return 0;
}

/* The page that was mapped for it, or no page. */
static bool keeps(struct grant_keep *keep, uint32_t gref)
{
	char *page = grant_keep_page(keep, gref);

	if (page)
		assert_int_equal(dev.ref[page - dev.page], gref);
	return page;
}

static void once_each(void **state)
{
	static const uint32_t refs[] = { 0, 1, UINT32_MAX, 1u << 31, 8, 9 };

	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
			assert_true(keeps(*state, refs[i]));
	assert_int_equal(dev.maps, ARRAY_SIZE(refs));
	grant_keep_free(*state);
	assert_int_equal(dev.unmaps, ARRAY_SIZE(refs));
}

/* Whatever the references are: in a row, far apart, or all in one place (multiples
 * of the inverse of the hash's factor, whose products are 0, 1, 2 and so on). */
static void no_more_than_may_be(void **state)
{
	static const uint32_t steps[] = { 1, 1024, 0x144cbc89u };

	for (size_t s = 0; s < ARRAY_SIZE(steps); s++) {
		if (s > 0)
			(void)setup(state);
		for (int round = 0; round < 2; round++)
			for (uint32_t i = 0; i < 2 * GRANT_KEEP_MAX; i++)
				assert_int_equal(keeps(*state, i * steps[s]),
						 i < GRANT_KEEP_MAX);
		assert_int_equal(dev.maps, GRANT_KEEP_MAX);
		grant_keep_free(*state);
		assert_int_equal(dev.unmaps, GRANT_KEEP_MAX);
	}
}

static void what_fails_is_not_tried_for_ever(void **state)
{
	assert_true(keeps(*state, 7));
	dev.failing = UINT32_MAX;
	for (uint32_t i = 0; i < 100; i++)
		assert_false(keeps(*state, 100 + i));
	assert_int_equal(dev.maps, 1 + GRANT_KEEP_FAILURES);
	dev.failing = 0;
	assert_false(keeps(*state, 8));
	assert_true(keeps(*state, 7)); /* what is kept is kept */
	grant_keep_free(*state);
	assert_int_equal(dev.unmaps, 1);
}

static void a_failure_may_pass(void **state)
{
	dev.failing = GRANT_KEEP_FAILURES - 1;
	for (uint32_t i = 0; i < GRANT_KEEP_FAILURES - 1; i++)
		assert_false(keeps(*state, 5));
	assert_true(keeps(*state, 5));
	grant_keep_free(*state);
	assert_int_equal(dev.unmaps, 1);
}

/* --- Given back ----------------------------------------------------------- */

/* A lane does nothing for that time but what it is told to. */
static unsigned int idle(struct grant_keep *keep, uint64_t now, uint64_t until)
{
	unsigned int calls = 0;

	while (grant_keep_next(keep) <= until) {
		unsigned int before = dev.unmaps;

		assert_true(calls == 0 || grant_keep_next(keep) > now);
		now = MAX(now, grant_keep_next(keep));
		grant_keep_idle(keep, now);
		assert_true(dev.unmaps - before <= BURST);
		calls++;
	}
	return calls;
}

static void nothing_kept_nothing_to_do(void **state)
{
	assert_true(grant_keep_next(*state) == UINT64_MAX);
	grant_keep_idle(*state, SECOND);
	assert_true(grant_keep_next(*state) == UINT64_MAX);
	grant_keep_free(*state);
}

static void unused_for_a_minute(void **state)
{
	for (uint32_t i = 0; i < GRANT_KEEP_MAX; i++)
		assert_true(keeps(*state, i));
	(void)idle(*state, SECOND, 100 * SECOND);
	assert_int_equal(dev.unmaps, GRANT_KEEP_MAX);
	assert_true(grant_keep_next(*state) == UINT64_MAX);
	/* They may come back. */
	for (uint32_t i = 0; i < GRANT_KEEP_MAX; i++)
		assert_true(keeps(*state, i));
	assert_int_equal(dev.maps, 2 * GRANT_KEEP_MAX);
	grant_keep_free(*state);
	assert_int_equal(dev.unmaps, 2 * GRANT_KEEP_MAX);
}

static void not_before_a_minute(void **state)
{
	for (uint32_t i = 0; i < 100; i++)
		assert_true(keeps(*state, i));
	(void)idle(*state, 1000 * SECOND, 1059 * SECOND);
	assert_int_equal(dev.unmaps, 0);
	(void)idle(*state, 1059 * SECOND, 1061 * SECOND);
	assert_int_equal(dev.unmaps, 100);
	grant_keep_free(*state);
}

/* Xen has had no room, and has some now. */
static void failures_are_counted_anew(void **state)
{
	assert_true(keeps(*state, 1));
	dev.failing = UINT32_MAX;
	for (uint32_t i = 100; i < 200; i++)
		assert_false(keeps(*state, i));
	dev.failing = 0;
	(void)idle(*state, SECOND, 50 * SECOND);
	assert_int_equal(dev.unmaps, 0);
	assert_false(keeps(*state, 100));
	(void)idle(*state, 50 * SECOND, 200 * SECOND);
	assert_int_equal(dev.unmaps, 1);
	assert_true(keeps(*state, 100));
	grant_keep_free(*state);
}

/* A sleeping lane is woken a few times, not again and again. */
static void it_keeps_nobody_busy(void **state)
{
	for (uint32_t i = 0; i < GRANT_KEEP_MAX; i++)
		assert_true(keeps(*state, i));
	assert_true(idle(*state, SECOND, 1000 * SECOND) <=
		    GRANT_KEEP_MAX / BURST + 4);
	grant_keep_free(*state);
}

/* References that meet in few places, around the end of the table. */
#define REFS 200u

static uint32_t reference(uint32_t n)
{
	/* The product with the hash's factor begins with where it belongs. */
	uint32_t product = (n % 8 + 1020) << 22 | n;

	return product * 0x144cbc89u;
}

static void model_of_use(void **state)
{
	struct {
		uint64_t used;
		bool kept;
	} model[REFS] = { 0 };
	uint32_t random = 1, maps = 0;

	for (uint64_t now = SECOND; now < 20000 * SECOND; now += SECOND) {
		for (unsigned int i = 0; i < 3; i++) {
			uint32_t n;

			random = random * 1664525u + 1013904223u;
			n = (random >> 8) % REFS;
			assert_true(keeps(*state, reference(n)));
			maps += !model[n].kept;
			model[n].used = now;
			model[n].kept = true;
			assert_int_equal(dev.maps, maps);
		}
		(void)idle(*state, now, now + SECOND / 2);
		for (uint32_t i = 0; i < REFS; i++)
			model[i].kept = false;
		for (uint32_t i = 0; i < dev.maps; i++)
			for (uint32_t n = 0; dev.mapped[i] && n < REFS; n++)
				if (dev.ref[i] == reference(n))
					model[n].kept = true;
		for (uint32_t n = 0; n < REFS; n++)
			if (model[n].used)
				assert_true(model[n].kept ?
						    now - model[n].used <
							    91 * SECOND :
						    now - model[n].used >=
							    60 * SECOND);
	}
	assert_true(dev.unmaps > 1000);
	grant_keep_free(*state);
	assert_int_equal(dev.unmaps, dev.maps);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(once_each, setup),
		cmocka_unit_test_setup(no_more_than_may_be, setup),
		cmocka_unit_test_setup(what_fails_is_not_tried_for_ever, setup),
		cmocka_unit_test_setup(a_failure_may_pass, setup),
		cmocka_unit_test_setup(nothing_kept_nothing_to_do, setup),
		cmocka_unit_test_setup(unused_for_a_minute, setup),
		cmocka_unit_test_setup(not_before_a_minute, setup),
		cmocka_unit_test_setup(failures_are_counted_anew, setup),
		cmocka_unit_test_setup(it_keeps_nobody_busy, setup),
		cmocka_unit_test_setup(model_of_use, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
