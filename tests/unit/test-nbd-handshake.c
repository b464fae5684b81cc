/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the NBD server says to a client's options, right and wrong ones. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "nbd-fixture.h"

static struct nbd_fixture f;

static int set_up(void **state)
{
	(void)state;
	fixture_new(&f, NBD_TLS_NONE);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	fixture_free(&f);
	return 0;
}

static void accepted(uint32_t option)
{
	uint32_t length;

	(void)fixture_reply(&f, option, NBD_REP_ACK, &length);
	assert_int_equal(length, 0);
	assert_true(fixture_is_empty(&f));
}

static void test_flags(void **state)
{
	(void)state;
	fixture_greet(&f, 4); /* none that we offered */
	assert_int_equal(f.err, -EPROTO);
}

static void test_magic(void **state)
{
	const uint8_t wrong[NBD_OPTION_BYTES] = "IHAVEOPT";

	(void)state;
	fixture_greet(&f, 3);
	fixture_send(&f, wrong, 7);
	assert_int_equal(f.err, 0);
	fixture_send(&f, "X", 1);
	fixture_send(&f, wrong + 8, 8);
	assert_int_equal(f.err, -EPROTO);
}

static void test_unknown_option(void **state)
{
	static const uint32_t options[] = {
		0, 4, 12, 77, 0x7fffffff, 0xffffffff
	};

	(void)state;
	fixture_greet(&f, 3);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		fixture_option(&f, options[i], "what is this", 12);
		fixture_refused(&f, options[i], NBD_REP_ERR_UNSUP);
	}
}

static void test_long_option(void **state)
{
	static const uint8_t zeroes[100000];

	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_GO, zeroes, sizeof(zeroes));
	fixture_refused(&f, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
	fixture_option(&f, NBD_OPT_LIST, zeroes, 1);
	fixture_refused(&f, NBD_OPT_LIST, NBD_REP_ERR_INVALID);
}

static void test_list(void **state)
{
	uint32_t length;

	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_LIST, NULL, 0);
	for (unsigned int i = 0; i < f.nr_exports; i++) {
		const uint8_t *p = fixture_reply(&f, NBD_OPT_LIST,
						 NBD_REP_SERVER, &length);
		uint32_t name = nbd_get32(p);

		assert_int_equal(name, strlen(f.exports[i].name));
		assert_memory_equal(p + 4, f.exports[i].name, name);
		assert_int_equal(length - 4 - name,
				 strlen(f.exports[i].description));
	}
	accepted(NBD_OPT_LIST);
}

static void test_abort(void **state)
{
	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_ABORT, "bye", 3);
	accepted(NBD_OPT_ABORT);
	assert_true(nbd_session_ended(f.session));
}

static void test_export_name(void **state)
{
	const uint8_t *p;

	(void)state;
	fixture_greet(&f, 1);
	fixture_option(&f, NBD_OPT_EXPORT_NAME, "ro", 2);
	p = fixture_take(&f, 10 + NBD_ZEROES_BYTES);
	assert_true(nbd_get64(p) == FIXTURE_SIZE);
	assert_true(nbd_get16(p + 8) & NBD_FLAG_READ_ONLY);
	assert_false(nbd_get16(p + 8) & NBD_FLAG_SEND_DF);
	for (unsigned int i = 0; i < NBD_ZEROES_BYTES; i++)
		assert_int_equal(p[10 + i], 0);
	assert_ptr_equal(nbd_session_export(f.session), &f.exports[1]);
}

/* The default export, without zeroes, from a client that is not "fixed". */
static void test_export_name_old(void **state)
{
	(void)state;
	fixture_greet(&f, 2);
	fixture_option(&f, NBD_OPT_EXPORT_NAME, NULL, 0);
	(void)fixture_take(&f, 10);
	assert_true(fixture_is_empty(&f));
	assert_ptr_equal(nbd_session_export(f.session), &f.exports[0]);
}

static void test_export_name_unknown(void **state)
{
	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_EXPORT_NAME, "nothing", 7);
	assert_int_equal(f.err, -EPROTO);
	assert_true(fixture_is_empty(&f));
}

static void test_info(void **state)
{
	uint8_t buf[64], *p;
	const uint8_t *q;
	uint32_t length;

	(void)state;
	fixture_greet(&f, 3);
	p = nbd_put_bytes(nbd_put32(buf, 2), "4k", 2);
	p = nbd_put16(nbd_put16(p, 3), NBD_INFO_NAME);
	p = nbd_put16(nbd_put16(p, NBD_INFO_DESCRIPTION), 99);
	fixture_option(&f, NBD_OPT_INFO, buf, (uint32_t)(p - buf));
	q = fixture_reply(&f, NBD_OPT_INFO, NBD_REP_INFO, &length);
	assert_int_equal(length, 12);
	assert_int_equal(nbd_get16(q), NBD_INFO_EXPORT);
	q = fixture_reply(&f, NBD_OPT_INFO, NBD_REP_INFO, &length);
	assert_int_equal(length, 14);
	assert_int_equal(nbd_get16(q), NBD_INFO_BLOCK_SIZE);
	assert_int_equal(nbd_get32(q + 2), 4096);
	assert_int_equal(nbd_get32(q + 10), NBD_MAX_PAYLOAD);
	q = fixture_reply(&f, NBD_OPT_INFO, NBD_REP_INFO, &length);
	assert_int_equal(nbd_get16(q), NBD_INFO_NAME);
	assert_memory_equal(q + 2, "4k", 2);
	q = fixture_reply(&f, NBD_OPT_INFO, NBD_REP_INFO, &length);
	assert_int_equal(nbd_get16(q), NBD_INFO_DESCRIPTION);
	accepted(NBD_OPT_INFO);
	assert_null(nbd_session_export(f.session)); /* it only asked */
}

static void test_info_wrong(void **state)
{
	uint8_t buf[64];
	uint32_t length = fixture_info_data(buf, "nothing");

	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_GO, buf, length);
	fixture_refused(&f, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
	for (uint32_t n = 0; n < length; n++) {
		fixture_option(&f, NBD_OPT_INFO, buf, n);
		fixture_refused(&f, NBD_OPT_INFO, NBD_REP_ERR_INVALID);
	}
	(void)nbd_put32(buf, 0xfffffffe); /* longer than the option */
	fixture_option(&f, NBD_OPT_INFO, buf, length);
	fixture_refused(&f, NBD_OPT_INFO, NBD_REP_ERR_INVALID);
}

static void test_headers(void **state)
{
	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_STRUCTURED_REPLY, "x", 1);
	fixture_refused(&f, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
	fixture_option(&f, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	accepted(NBD_OPT_STRUCTURED_REPLY);
	fixture_option(&f, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	fixture_refused(&f, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
	fixture_option(&f, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
	accepted(NBD_OPT_EXTENDED_HEADERS);
	fixture_option(&f, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	fixture_refused(&f, NBD_OPT_STRUCTURED_REPLY,
			NBD_REP_ERR_EXT_HEADER_REQD);
}

static void context(uint32_t option, const char *query, bool found)
{
	uint8_t buf[128];
	uint32_t length;

	fixture_option(&f, option, buf, fixture_meta_data(buf, "ro", query));
	if (found) {
		const uint8_t *p = fixture_reply(&f, option,
						 NBD_REP_META_CONTEXT, &length);

		assert_int_equal(length, 4 + strlen("base:allocation"));
		assert_memory_equal(p + 4, "base:allocation", length - 4);
	}
	accepted(option);
}

static void test_contexts(void **state)
{
	uint8_t buf[128];
	uint32_t length = fixture_meta_data(buf, "ro", "base:allocation");

	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_SET_META_CONTEXT, buf, length);
	fixture_refused(&f, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
	fixture_option(&f, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	accepted(NBD_OPT_STRUCTURED_REPLY);
	context(NBD_OPT_LIST_META_CONTEXT, NULL, true);
	context(NBD_OPT_LIST_META_CONTEXT, "base:", true);
	context(NBD_OPT_LIST_META_CONTEXT, "qemu:dirty-bitmap:x", false);
	context(NBD_OPT_SET_META_CONTEXT, NULL, false);
	context(NBD_OPT_SET_META_CONTEXT, "base:", false);
	context(NBD_OPT_SET_META_CONTEXT, "base:allocation", true);
	for (uint32_t n = 0; n < length; n++) {
		fixture_option(&f, NBD_OPT_SET_META_CONTEXT, buf, n);
		fixture_refused(&f, NBD_OPT_SET_META_CONTEXT,
				NBD_REP_ERR_INVALID);
	}
	fixture_option(&f, NBD_OPT_SET_META_CONTEXT, buf,
		       fixture_meta_data(buf, "ro", "no namespace"));
	fixture_refused(&f, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
}

static void test_no_tls(void **state)
{
	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_STARTTLS, NULL, 0);
	fixture_refused(&f, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY);
}

static int set_up_tls(void **state)
{
	(void)state;
	fixture_new(&f, NBD_TLS_REQUIRED);
	return 0;
}

static void test_tls(void **state)
{
	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_LIST, NULL, 0);
	fixture_refused(&f, NBD_OPT_LIST, NBD_REP_ERR_TLS_REQD);
	fixture_option(&f, NBD_OPT_STARTTLS, NULL, 0);
	accepted(NBD_OPT_STARTTLS);
	assert_true(nbd_session_wants_tls(f.session));
	nbd_session_tls_started(f.session);
	fixture_option(&f, NBD_OPT_STARTTLS, NULL, 0);
	fixture_refused(&f, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID);
	fixture_option(&f, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	accepted(NBD_OPT_STRUCTURED_REPLY);
}

/* What an attacker puts behind STARTTLS, in the clear, is not obeyed later as
 * if it had come inside. */
static void test_tls_injection(void **state)
{
	uint8_t buf[2 * NBD_OPTION_BYTES], *p = buf;

	(void)state;
	fixture_greet(&f, 3);
	p = nbd_put32(nbd_put64(p, NBD_OPTION_MAGIC), NBD_OPT_STARTTLS);
	p = nbd_put32(p, 0);
	p = nbd_put32(nbd_put64(p, NBD_OPTION_MAGIC), NBD_OPT_LIST);
	(void)nbd_put32(p, 0);
	fixture_send(&f, buf, sizeof(buf));
	assert_int_equal(f.err, -EPROTO);
}

static void test_tls_export_name(void **state)
{
	(void)state;
	fixture_greet(&f, 3);
	fixture_option(&f, NBD_OPT_EXPORT_NAME, "disk", 4);
	assert_int_equal(f.err, -EPROTO);
}

#define T(name)	  cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TLS(name) cmocka_unit_test_setup_teardown(name, set_up_tls, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_flags),
		T(test_magic),
		T(test_unknown_option),
		T(test_long_option),
		T(test_list),
		T(test_abort),
		T(test_export_name),
		T(test_export_name_old),
		T(test_export_name_unknown),
		T(test_info),
		T(test_info_wrong),
		T(test_headers),
		T(test_contexts),
		T(test_no_tls),
		TLS(test_tls),
		TLS(test_tls_injection),
		TLS(test_tls_export_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
