/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The text of a lease, which comes from another host (lease.h). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"
#include "lease.h"

#define GOOD                                                      \
	"xendisk-lease 1\nholder 0123456789abcdef\nhost dom0-a\n" \
	"sequence 17\nexpires 1764100612\n"

static void there_and_back(void **state)
{
	char text[LEASE_TEXT];
	struct lease lease;

	(void)state;
	assert_int_equal(lease_parse(GOOD, strlen(GOOD), &lease), 0);
	assert_string_equal(lease.holder, "0123456789abcdef");
	assert_string_equal(lease.host, "dom0-a");
	assert_int_equal(lease.sequence, 17);
	assert_int_equal(lease.expires, 1764100612);
	assert_int_equal(lease_print(&lease, text), strlen(GOOD));
	assert_string_equal(text, GOOD);
}

static void refuses(void **state)
{
	static const char *const wrong[] = {
		"",
		"xendisk-lease 2\nholder 0123456789abcdef\nhost a\n"
		"sequence 1\nexpires 1\n",
		"xendisk-lease 1\nholder 0123456789abcde\nhost a\n"
		"sequence 1\nexpires 1\n",
		"xendisk-lease 1\nholder 0123456789ABCDEF\nhost a\n"
		"sequence 1\nexpires 1\n",
		"xendisk-lease 1\nholder 0123456789abcdef\nhost \033[2J\n"
		"sequence 1\nexpires 1\n",
		"xendisk-lease 1\nholder 0123456789abcdef\nhost \n"
		"sequence 1\nexpires 1\n",
		"xendisk-lease 1\nholder 0123456789abcdef\nhost a\n"
		"sequence -1\nexpires 1\n",
		/* It could not go up any more. */
		"xendisk-lease 1\nholder 0123456789abcdef\nhost a\n"
		"sequence 18446744073709551615\nexpires 1\n",
		"xendisk-lease 1\nholder 0123456789abcdef\nhost a\n"
		"sequence 1\nexpires 9223372036854775808\n",
		"xendisk-lease 1\nholder 0123456789abcdef\nhost a\n"
		"sequence 1\nexpires 1",
		"xendisk-lease 1\nholder 0123456789abcdef\nhost a\n"
		"sequence 1\nexpires 1\nmore 1\n",
		"xendisk-lease 1\nhost a\nholder 0123456789abcdef\n"
		"sequence 1\nexpires 1\n",
	};
	struct lease lease = { .sequence = 5 };
	char huge[2 * LEASE_TEXT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(lease_parse(wrong[i], strlen(wrong[i]),
					     &lease),
				 -EBADMSG);
	assert_int_equal(lease_parse(GOOD, strlen(GOOD) + 1, &lease), -EBADMSG);
	memset(huge, 'x', sizeof(huge));
	memcpy(huge, GOOD, strlen(GOOD));
	assert_int_equal(lease_parse(huge, sizeof(huge), &lease), -EBADMSG);
	assert_int_equal(lease.sequence, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
