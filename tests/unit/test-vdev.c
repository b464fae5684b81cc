/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Virtual disk names against the numbers of xen-vbd-interface(7). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "common/vdev.h"

static const struct {
	const char *name;
	uint32_t devid;
} known[] = {
	{ "xvda", 51712 },     { "xvdb", 51728 },      { "xvda1", 51713 },
	{ "xvdp15", 51967 },   { "xvdq", 268439552 },  { "xvdq255", 268439807 },
	{ "xvdz", 268441856 }, { "xvdaa", 268442112 }, { "hda", 768 },
	{ "hdb", 832 },	       { "hdc", 5632 },	       { "hdd2", 5698 },
	{ "sda", 2048 },       { "sdp15", 2303 },
};

static const char *const wrong[] = { "",	"xvd",	     "xvda0",
				     "xvda01",	"xvdA",	     "xvda16",
				     "xvdq256", "hde",	     "hda64",
				     "sdq",	"vda",	     "xvdb ",
				     "-1",	"/dev/xvda", "xvdaaaaaaaaaaa" };

static void test_names(void **state)
{
	uint32_t devid;
	char name[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		assert_int_equal(vdev_parse(known[i].name, &devid), 0);
		assert_int_equal(devid, known[i].devid);
		vdev_print(name, sizeof(name), devid);
		assert_string_equal(name, known[i].name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (vdev_parse(wrong[i], &devid) == 0)
			fail_msg("\"%s\" was taken for %u", wrong[i], devid);
	assert_int_equal(vdev_parse("51728", &devid), 0);
	assert_int_equal(devid, 51728);
	vdev_print(name, sizeof(name), 4);
	assert_string_equal(name, "4");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_names) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
