/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The configuration: what is taken over, and where errors are said to be. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/settings.h"
#include "common/util.h"

static char folder[] = "/tmp/xendisk-settings.XXXXXX";
static char main_file[sizeof(folder) + 16];
static char extra_file[sizeof(folder) + 64];

static int make_folder(void **state)
{
	char sub[sizeof(folder) + 64];

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	sprintf(main_file, "%s/main.conf", folder);
	snprintf(sub, sizeof(sub), "%s/main.conf.d", folder);
	snprintf(extra_file, sizeof(extra_file), "%s/main.conf.d/10-more.conf",
		 folder);
	return mkdir(sub, 0700);
}

static int remove_folder(void **state)
{
	char sub[sizeof(folder) + 64];

	(void)state;
	unlink(main_file);
	unlink(extra_file);
	snprintf(sub, sizeof(sub), "%s/main.conf.d", folder);
	rmdir(sub);
	return rmdir(folder);
}

static void put(const char *path, const char *text)
{
	cleanup_file FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
}

static void test_good(void **state)
{
	const char *value;
	struct settings *settings;
	char why[SETTINGS_TEXT_MAX];

	(void)state;
	unlink(main_file);
	assert_int_equal(settings_load(main_file, true, &settings, why),
			 -ENOENT);
	assert_non_null(strstr(why, "/main.conf: No such file or directory"));
	assert_int_equal(settings_load(main_file, false, &settings, why), 0);
	assert_int_equal(settings->nr_disks, 0);
	assert_false(settings->persistent_grants);
	settings_free(settings);

	put(main_file, "# disks\n"
		       "disk \"web1\" {\n"
		       "  expr = \"/srv/web 1.img\"\n"
		       "  on-error = \"report\"\n"
		       "}\n"
		       "image-roots = {\"/srv\",\n"
		       "  \"/var/lib/xen/images\"}\n"
		       "credentials \"store\" {\n"
		       "  psk = \"/etc/keys\" user = \"alice\"\n"
		       "}\n"
		       "credentials \"cloud\" { certs = \"/etc/pki\" }\n"
		       "mem-limit = \"4G\"\n"
		       "persistent-grants = no\n");
	put(extra_file, "disk scratch { expr = \"mem(64M)\" }\n"
			"disk quick { expr = \"/q\" poll-max-us = 0\n"
			"  on-error = hold }\n"
			"persistent-grants = yes\n");
	if (settings_load(main_file, true, &settings, why) != 0)
		fail_msg("%s", why);
	assert_string_equal(settings_disk(settings, "web1"),
			    "disk(\"/srv/web 1.img\", on-error=report)");
	assert_string_equal(settings_disk(settings, "scratch"), "mem(64M)");
	assert_string_equal(settings_disk(settings, "quick"),
			    "disk(\"/q\", on-error=hold, poll-max-us=0)");
	assert_null(settings_disk(settings, "other"));
	assert_null(settings_credentials(settings, "web1"));
	assert_string_equal(settings_credentials(settings, "store")->psk,
			    "/etc/keys");
	assert_string_equal(settings_credentials(settings, "store")->user,
			    "alice");
	assert_int_equal(settings_credential(settings, "cloud", "certs", &value,
					     why),
			 0);
	assert_string_equal(value, "/etc/pki");
	assert_int_equal(settings_credential(settings, "cloud", "hostname",
					     &value, why),
			 -ENODATA);
	assert_int_equal(settings_credential(settings, "web1", "psk", &value,
					     why),
			 -ENOENT);
	assert_non_null(strstr(why,
			       "no credentials \"web1\" in the configuration; "
			       "known: "));
	assert_int_equal(settings_credential(settings, "clod", "psk", &value,
					     why),
			 -ENOENT);
	assert_non_null(strstr(why, "; did you mean \"cloud\"?"));
	assert_int_equal(settings->nr_image_roots, 2);
	assert_string_equal(settings->image_roots[1].path,
			    "/var/lib/xen/images");
	if (!strstr(settings->image_roots[1].where, "/main.conf:7"))
		fail_msg("%s", settings->image_roots[1].where);
	assert_int_equal(settings->mem_limit, 4ull << 30);
	assert_true(settings->persistent_grants); /* the last one counts */
	settings_free(settings);
	unlink(extra_file);
}

static const struct {
	const char *text;
	const char *message;
} bad[] = {
	{ "disk \"a\" {\n}\n", ":2: disk \"a\" has no expr" },
	{ "mem-limit = \"lots\"\n", ":1: mem-limit: \"lots\" is not a size" },
	{ "\nimage-roots = {\"srv\"}\n", ":2: image-roots: \"srv\" is not" },
	{ "persistent-grants = sometimes\n",
	  ":1: invalid boolean value for option 'persistent-grants'" },
	{ "disk \"a\" {\n expr = \"/a\"\n poll-max-us = 1ms\n}\n",
	  ":3: invalid integer value for option" },
	{ "\n\ncolour = \"red\"\n", ":3: no such option 'colour'; known: " },
	{ "# a\n// b\n/* c\n */ mem-limit = \"1G\" # d\n\ncolour = \"red\"\n",
	  ":6: no such option 'colour'" },
	{ "disk \"a\" { # of web1's\n  expr = \"/a#b\" // c\n exrp = \"/b\"\n}\n",
	  ":3: no such option 'exrp'" },
	{ "image-root = {\"/srv\"}\n",
	  ":1: no such option 'image-root'; did you mean \"image-roots\"?" },
	{ "disk \"a\" {\n exrp = \"/a\" }\n",
	  ":2: no such option 'exrp'; did you mean \"expr\"?" },
	{ "disk \"a\" { expr = \"/a\" on-error = \"explode\" }\n",
	  "\"explode\" is neither hold nor report" },
	{ "credentials \"a\" {\n  psk = \"keys\"\n}\n",
	  ":3: credentials \"a\": psk is no absolute path" },
	{ "credentials \"a\" { psk = \"/keys\" }\n",
	  "credentials \"a\": user is missing" },
	{ "credentials \"a\" { user = \"me\" }\n", "neither psk nor certs" },
	{ "credentials \"a\" { certs = \"pki\" }\n",
	  "certs is no absolute path" },
	{ "credentials \"a\" { psk = \"/k\" certs = \"/c\" user = \"me\" }\n",
	  "not both" },
	{ "credentials \"a\" { certs = \"/c\" user = \"me\" }\n",
	  "user is for psk" },
	{ "credentials \"a\" { psk = \"/k\" user = \"me\" hostname = \"h\" }\n",
	  "hostname is for certs" },
	{ "disk \"a b\" { expr = \"/a\" }\n", "a name has letters" },
	{ "disk \"a\" { expr = \"/a\" }\ndisk \"a\" { expr = \"/b\" }\n",
	  "duplicate title 'a'" },
	{ "disk \"a\" { expr = \"/a\"\ndisk \"b\" { expr = \"/b\" }\n",
	  ":2: no such option 'disk'" },
	{ "disk \"a\" {\n  expr = \"/a\"\n", "\"}\" is missing at the end" },
	{ "disk \"a\" {\n  expr = \"/srv/${VM}.img\"\n}\n",
	  ":2: ${VM}: variables are not put in" },
	{ "/*\n*/ disk a { expr = nbd://h/e } disk b { expr = ${HOME} }\n",
	  ":2: ${HOME}: variables" },
	{ "disk a { expr = 'it\\'s' }\nmem-limit = \"\\\\${SIZE:-4G}\"\n",
	  ":2: ${SIZE:-4G}: variables" },
};

/* Where it is no variable. */
static void test_dollars(void **state)
{
	struct settings *settings;
	char why[SETTINGS_TEXT_MAX];

	(void)state;
	unlink(extra_file);
	put(main_file, "# \"${A}\"\n"
		       "// '${B}\n"
		       "/* ${C}\n"
		       " * \" */\n"
		       "disk \"quoted\" { expr = \"/a/\\${D}\" } # ${E}\n"
		       "disk \"single\" { expr = '/b/${F}\\'s' }\n"
		       "disk \"other\" { expr = \"/c/$G{}\" }\n");
	if (settings_load(main_file, true, &settings, why) != 0)
		fail_msg("%s", why);
	assert_string_equal(settings_disk(settings, "quoted"), "/a/${D}");
	assert_string_equal(settings_disk(settings, "single"), "/b/${F}'s");
	assert_string_equal(settings_disk(settings, "other"), "/c/$G{}");
	settings_free(settings);
}

static void test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct settings *settings = NULL;
		char why[SETTINGS_TEXT_MAX];

		put(main_file, bad[i].text);
		if (settings_load(main_file, true, &settings, why) == 0)
			fail_msg("%s was accepted", bad[i].text);
		assert_null(settings);
		if (!strstr(why, bad[i].message) ||
		    strncmp(why, folder, strlen(folder)) != 0)
			fail_msg("%s gave: %s", bad[i].text, why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_dollars),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
