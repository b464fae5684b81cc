/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-conformance - does an NBD server do what the protocol document demands?
 *
 * One case for each sentence with a MUST that is for servers, and for many with
 * SHOULD; TAP on stdout.  What a server is known to do otherwise stands in a file
 * (--expect): such a case must fail, so that the file stays true.
 */
#include "config.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>

#include "cases.h"

#define MAX_EXPECTED 128

static const struct test_case *const suites[] = {
	handshake_cases,
	option_cases,
	request_cases,
	chunk_cases,
};

struct run {
	struct options options;
	const char *only; /* NULL: all */
	char *expected[MAX_EXPECTED]; /* NAME, or NAME? */
	unsigned int nr_expected;
	unsigned int nr, bad;
};

static int usage(int status)
{
	FILE *out = status ? stderr : stdout;

	(void)fprintf(
		out,
		"usage: nbd-conformance [OPTION...] URI\n"
		"       nbd-conformance --list\n\n"
		"URI is nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH.  "
		"The first 256 KiB\nof the export are overwritten.\n\n"
		"  --readonly      nothing is written; cases that would are "
		"skipped\n"
		"  --only PATTERN  cases that match the shell pattern\n"
		"  --expect FILE   cases that this server is known to fail: "
		"NAME and a reason;\n"
		"                  NAME? fails now and then\n"
		"  --timeout S     for what must come (10)\n"
		"  --list          the cases, and the sentences they are for\n");
	return status;
}

static int list(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
		for (const struct test_case *t = suites[i]; t->name; t++)
			printf("%s\t%s\t%s\t%s\n", t->name,
			       t->should ? "SHOULD" : "MUST", t->section,
			       t->says);
	return 0;
}

/* --- What is known of the server ------------------------------------------ */

static bool is_case(const char *name, size_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
		for (const struct test_case *t = suites[i]; t->name; t++)
			if (strlen(t->name) == length &&
			    strncmp(t->name, name, length) == 0)
				return true;
	return false;
}

static int read_expected(struct run *run, const char *path)
{
	cleanup_file FILE *f = fopen(path, "re");
	char line[512];

	if (!f) {
		(void)fprintf(stderr, "nbd-conformance: %s: %s\n", path,
			      strerror(errno));
		return -errno;
	}
	while (fgets(line, sizeof(line), f)) {
		size_t length = strcspn(line, " \t\n");
		size_t name = strcspn(line, "? \t\n");
		cleanup_free char *word = strndup(line, length);

		if (line[0] == '#' || length == 0)
			continue;
		if (!word || !is_case(line, name) ||
		    run->nr_expected == MAX_EXPECTED) {
			(void)fprintf(stderr,
				      "nbd-conformance: %s: no case \"%.*s\"\n",
				      path, (int)length, line);
			return -EINVAL;
		}
		run->expected[run->nr_expected++] = TAKE_PTR(word);
	}
	return 0;
}

enum expectation { MUST_PASS, MAY_FAIL, MUST_FAIL };

static enum expectation expectation(const struct run *run, const char *name)
{
	size_t length = strlen(name);

	for (unsigned int i = 0; i < run->nr_expected; i++) {
		const char *word = run->expected[i];

		if (strncmp(word, name, length) == 0 &&
		    (word[length] == '\0' || word[length] == '?'))
			return word[length] ? MAY_FAIL : MUST_FAIL;
	}
	return MUST_PASS;
}

/* --- Running -------------------------------------------------------------- */

static void one(struct run *run, const struct test_case *t)
{
	struct verdict verdict = client_run(&run->options, t->run);
	bool fails = verdict.kind == FAILED;
	enum expectation wanted = expectation(run, t->name);
	bool good = wanted == MAY_FAIL || fails == (wanted == MUST_FAIL);

	run->nr++;
	run->bad += !good;
	printf("%s %u - %s%s%s\n", good ? "ok" : "not ok", run->nr, t->name,
	       fails && good		       ? ": a known difference" :
	       verdict.kind == SKIPPED && good ? " # SKIP " :
						 "",
	       verdict.kind == SKIPPED && good ? verdict.why : "");
	if (good && !fails)
		return;
	printf("# %s: \"%s\" (%s)\n", t->section, t->says,
	       t->should ? "SHOULD" : "MUST");
	printf("# %s\n",
	       fails ? verdict.why : "was expected to fail, and does not");
}

static int run_all(struct run *run)
{
	for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
		for (const struct test_case *t = suites[i]; t->name; t++)
			if (!run->only || fnmatch(run->only, t->name, 0) == 0)
				one(run, t);
	printf("1..%u\n", run->nr);
	if (run->nr == 0)
		(void)fprintf(stderr, "nbd-conformance: %s: no such case\n",
			      run->only);
	return run->bad || run->nr == 0;
}

static int take_options(struct run *run, int argc, char **argv)
{
	static const struct option options[] = {
		{ "readonly", 0, NULL, 'r' }, { "only", 1, NULL, 'o' },
		{ "expect", 1, NULL, 'e' },   { "timeout", 1, NULL, 't' },
		{ "list", 0, NULL, 'l' },     { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	uint32_t seconds;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			run->options.readonly = true;
			break;
		case 'o':
			run->only = optarg;
			break;
		case 'e':
			if (read_expected(run, optarg) < 0)
				return 2;
			break;
		case 't':
			if (parse_u32(optarg, 3600, &seconds) < 0 || !seconds)
				return usage(2);
			run->options.timeout_ms = seconds * 1000;
			break;
		case 'l':
			exit(list());
		case 'h':
			exit(usage(0));
		default:
			return usage(2);
		}
	}
	return argc - optind == 1 ? 0 : usage(2);
}

int main(int argc, char **argv)
{
	struct run run = { .options.timeout_ms = 10000 };
	char why[SERVER_TEXT_MAX];
	int status = take_options(&run, argc, argv);

	if (status)
		return status;
	if (server_parse(argv[optind], &run.options.server, why) < 0) {
		(void)fprintf(stderr, "nbd-conformance: %s: %s\n", argv[optind],
			      why);
		return 2;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	status = run_all(&run);
	for (unsigned int i = 0; i < run.nr_expected; i++)
		free(run.expected[i]);
	return status;
}
