/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Serves the example backend, from the folder given; see test-example.sh. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "rig.h"

static const char *backend_dir;
static char buf[65536];

static int setup(void **state)
{
	struct rig *rig = malloc(sizeof(*rig));

	rig_new(rig, true);
	rig->backend_dir = backend_dir;
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	free(*state);
	return 0;
}

static void each_sector_states_its_number(void **state)
{
	struct rig *rig = *state;
	char text[64];

	assert_int_equal(rig_open(rig, 2, "pattern(1G)"), 0);
	assert_true(stack_limits(rig->stack)->readonly);
	for (unsigned int start = 0; start < 2000000; start += 99991) {
		assert_int_equal(rig_io(rig, start % 2, XD_READ, 0,
					start * 512ull, sizeof(buf), buf),
				 0);
		for (unsigned int s = 0; s < sizeof(buf) / 512; s++) {
			snprintf(text, sizeof(text), "This is sector %u.\n",
				 start + s);
			assert_string_equal(buf + s * 512, text);
		}
	}
	assert_int_equal(rig_close(rig), 0);
}

static void delays_delay(void **state)
{
	struct rig *rig = *state;
	uint64_t before = now_ns();

	assert_int_equal(rig_open(rig, 1,
				  "pattern(1M, delay=50ms, open-delay=100ms)"),
			 0);
	assert_true(now_ns() - before >= 100000000);
	before = now_ns();
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, 0, 512, buf), 0);
	assert_true(now_ns() - before >= 50000000);
	assert_int_equal(rig_close(rig), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_sector_states_its_number,
						setup, teardown),
		cmocka_unit_test_setup_teardown(delays_delay, setup, teardown),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s BACKEND-DIR\n", argv[0]);
		return 2;
	}
	backend_dir = argv[1];
	return cmocka_run_group_tests_name("example", tests, NULL, NULL);
}
