/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry on modules made for it (tests/unit/module.c, built several times). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker-fixture.h"
#include "broker/registry.h"
#include "common/util.h"

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

/* The module built as KIND becomes NAME.so in the fixture's folder. */
static void install(struct fixture *fixture, const char *kind, const char *name)
{
	cleanup_free char *cwd = getcwd(NULL, 0);
	cleanup_free char *built =
		xasprintf("%s/tests/unit/.libs/module-%s.so", cwd, kind);
	cleanup_free char *file = xasprintf("%s.so", name);

	assert_int_equal(access(built, R_OK), 0);
	assert_int_equal(symlink(built, fixture_path(fixture, file)), 0);
}

static struct registry *load(struct fixture *fixture)
{
	struct registry *registry;

	assert_int_equal(registry_load(&registry, fixture->dir), 0);
	return registry;
}

static void test_good(void **state)
{
	struct registry *registry;
	const struct backend_info *info;
	struct registry_entry entry;

	install(*state, "good", "good");
	registry = load(*state);
	info = registry_backend(registry, "good");
	assert_non_null(info);
	assert_string_equal(info->summary, "a backend for tests");
	assert_int_equal(info->nr_params, 3);
	assert_string_equal(info->params[0].name, "below");
	assert_int_equal(info->params[0].type, XD_DISK);
	assert_int_equal(info->params[0].flags, XD_POSITIONAL | XD_REQUIRED);
	assert_string_equal(info->params[1].preset, "4K");
	assert_null(info->params[1].choices);
	assert_string_equal(info->params[2].choices, "a|b");
	assert_ptr_equal(registry_scheme(registry, "good"), info);
	assert_ptr_equal(registry_scheme(registry, "goods"), info);
	assert_null(registry_scheme(registry, "goo"));
	assert_null(registry_backend(registry, "goods"));
	assert_true(registry_entry(registry, 1, &entry));
	assert_string_equal(entry.name, "disk");
	assert_false(registry_entry(registry, 2, &entry));
	registry_free(registry);
}

/* One bad module each: named, with a reason, and no harm to the good one. */
static void test_bad(void **state)
{
	static const struct {
		const char *kind;
		const char *reason;
	} bad[] = {
		{ "crash", "was killed by signal 6" },
		{ "empty", "it has no symbol xendisk_backend_v1" },
		{ "old", "another version" },
		{ "unresolved", "undefined symbol" },
	};
	struct registry *registry;
	struct registry_entry entry;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		install(*state, bad[i].kind, bad[i].kind);
	install(*state, "good", "good");
	install(*state, "good", "other");
	fixture_write(*state, "text.so", "not a module\n");
	fixture_write(*state, "README", "no module either\n");
	registry = load(*state);
	for (size_t i = 0; registry_entry(registry, i, &entry); i++)
		for (size_t j = 0; j < ARRAY_SIZE(bad); j++) {
			if (strcmp(entry.name, bad[j].kind) != 0)
				continue;
			assert_null(entry.info);
			assert_non_null(strstr(entry.error, bad[j].reason));
		}
	assert_true(registry_entry(registry, 4, &entry));
	assert_string_equal(entry.name, "other");
	assert_string_equal(entry.error, "it calls itself good");
	assert_true(registry_entry(registry, 5, &entry));
	assert_string_equal(entry.name, "text");
	assert_null(entry.info);
	assert_non_null(registry_backend(registry, "good"));
	assert_null(registry_backend(registry, "other"));
	registry_free(registry);
}

static void test_no_folder(void **state)
{
	struct registry *registry;

	assert_int_equal(registry_load(&registry,
				       fixture_path(*state, "absent")),
			 -ENOENT);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_folder, setup,
						teardown),
	};

	/* Whoever executes this program for its modules is told nothing. */
	if (argc > 1)
		return 1;
	(void)argv;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
