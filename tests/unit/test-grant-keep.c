/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pages that stay mapped: each once, no more than may be, none afterwards. */
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
#define MANY 3000u

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(once_each, setup),
		cmocka_unit_test_setup(no_more_than_may_be, setup),
		cmocka_unit_test_setup(what_fails_is_not_tried_for_ever, setup),
		cmocka_unit_test_setup(a_failure_may_pass, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
