/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xendisk(1): the verbs and their options are one table; it makes the parser,
 * the help and the completion, and a test holds it against the man page.
 */
#include "config.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "command/command.h"

#define DEFAULT_RUN_DIR "/run/xendiskd"

const struct verb verbs[] = {
	{ .name = "attach",
	  .synopsis = "DOM EXPR",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "attach a disk to a domain; prints the vdev",
	  .options = { { "vdev", "VDEV", "xvdb, hda, ...; else the first free" },
		       { "readonly", NULL, "the guest may only read" },
		       { "direct", NULL, "write xenstore itself, without xl" } },
	  .run = verb_attach },
	{ .name = "detach",
	  .synopsis = "DOM VDEV",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "detach a disk; returns when it is gone",
	  .options = { { "force", NULL, "even if the guest will not let go" },
		       { "timeout", "S",
			 "seconds to wait for the guest (10)" } },
	  .run = verb_detach },
	{ .name = "connect",
	  .synopsis = "DOM [EXPR]",
	  .min_args = 1,
	  .max_args = 2,
	  .summary = "attach a disk until Ctrl-C; then print histograms",
	  .options = { { "path", "FILE", "an image, instead of EXPR" },
		       { "vdev", "VDEV", "xvdb, hda, ...; else the first free" },
		       { "readonly", NULL, "the guest may only read" } },
	  .run = verb_connect },
	{ .name = "list",
	  .synopsis = "[DOM]",
	  .max_args = 1,
	  .summary = "list the disks",
	  .run = verb_list },
	{ .name = "show",
	  .synopsis = "DOM VDEV",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "all about one disk: its stack and both sides in xenstore",
	  .run = verb_show },
	{ .name = "stats",
	  .synopsis = "[DOM VDEV]",
	  .max_args = 2,
	  .summary = "requests, latencies and histograms of the disks",
	  .run = verb_stats },
	{ .name = "check",
	  .synopsis = "EXPR",
	  .min_args = 1,
	  .max_args = 1,
	  .summary = "check a disk expression; opens nothing",
	  .options = { { "readonly", NULL,
			 "as it would be attached read-only" } },
	  .run = verb_check },
	{ .name = "backends",
	  .synopsis = "[NAME]",
	  .max_args = 1,
	  .summary = "list the backends, or one with its parameters",
	  .run = verb_backends },
	{ .name = "serve",
	  .synopsis = "[NAME=]EXPR...",
	  .min_args = 1,
	  .max_args = 64,
	  .summary = "an NBD server of disks; needs neither Xen nor the daemon",
	  .options = { { "socket", "PATH", "listen on a unix socket" },
		       { "tcp", "[ADDR:]PORT",
			 "listen on TCP; on 127.0.0.1 if no ADDR is given" },
		       { "readonly", NULL, "clients may only read" },
		       { "run", "COMMAND",
			 "serve it with $uri and $socket set, end with it" },
		       { "tls-certs", "DIR", "TLS with certificates" },
		       { "tls-psk", "FILE", "TLS with pre-shared keys" },
		       { "backend-dir", "DIR", "where the backends are" },
		       { "state-dir", "DIR", "where they keep their state" },
		       { "config", "FILE", "for @names" } },
	  .once = true,
	  .run = verb_serve },
	{ .name = "export",
	  .synopsis = "DOM|EXPR [VDEV]",
	  .min_args = 1,
	  .max_args = 2,
	  .summary = "serve a disk over NBD, by a name; prints the URI",
	  .options = { { "name", "NAME", "of the export; else export-N" },
		       { "tcp", "[ADDR:]PORT",
			 "on TCP, too; on 127.0.0.1 if no ADDR is given" },
		       { "tls-certs", "DIR", "TLS on TCP, with certificates" },
		       { "tls-psk", "FILE", "TLS on TCP, with shared keys" },
		       { "readonly", NULL, "clients may only read" },
		       { "force", NULL,
			 "they may write while a guest has the disk" } },
	  .run = verb_export },
	{ .name = "exports",
	  .synopsis = "",
	  .summary = "list what is exported",
	  .run = verb_exports },
	{ .name = "unexport",
	  .synopsis = "EXPORT",
	  .min_args = 1,
	  .max_args = 1,
	  .summary = "end an export",
	  .run = verb_unexport },
	{ .name = "resize",
	  .synopsis = "DOM VDEV [SIZE]",
	  .min_args = 2,
	  .max_args = 3,
	  .summary = "make a disk larger, or as large as its storage is now",
	  .run = verb_resize },
	{ .name = "resume",
	  .synopsis = "DOM VDEV",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "lift a pause, or clear a poison mark",
	  .options = { { "accept-loss", NULL,
			 "clear the mark that a failed flush left" } },
	  .run = verb_resume },
	{ .name = "snapshot",
	  .synopsis = "DOM|DISK [VDEV]",
	  .min_args = 1,
	  .max_args = 2,
	  .summary = "keep the disk as it is now, in its git repository",
	  .options = { { "message", "TEXT", "of the commit" },
		       { "wait", NULL, "until it is a commit; prints its id" } },
	  .letters = "m",
	  .run = verb_snapshot },
	{ .name = "status",
	  .synopsis = "DOM|DISK [VDEV]",
	  .min_args = 1,
	  .max_args = 2,
	  .summary = "what is not in a snapshot yet, and more of the kind",
	  .run = verb_status },
	{ .name = "version",
	  .synopsis = "",
	  .summary = "versions of command and daemon",
	  .run = verb_version },
	{ .name = "hotplug",
	  .synopsis = "add|remove",
	  .min_args = 1,
	  .max_args = 1,
	  .summary = "called by block-xendisk",
	  .run = verb_hotplug,
	  .hidden = true },
	{ .name = "complete",
	  .synopsis = "[WORD...]",
	  .max_args = 64,
	  .summary = "called by the shell's completion",
	  .run = verb_complete,
	  .hidden = true },
	{ .name = NULL },
};

enum status fail(enum status status, const char *fmt, ...)
{
	va_list ap;

	fputs("xendisk: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

char option_letter(const struct verb *verb, int n)
{
	return verb->letters && n < (int)strlen(verb->letters) ?
		       verb->letters[n] :
		       '\0';
}

const char *option(const struct invocation *call, const char *name)
{
	for (int i = 0; i < MAX_OPTIONS && call->verb->options[i].name; i++)
		if (strcmp(call->verb->options[i].name, name) == 0)
			return call->values[i];
	return NULL;
}

static void print_verbs(void)
{
	printf("usage: xendisk [--run-dir DIR] VERB [...]\n\n");
	for (const struct verb *v = verbs; v->name; v++)
		if (!v->hidden)
			printf("  %-8s %-12s  %s\n", v->name, v->synopsis,
			       v->summary);
	printf("\n"
	       "  --run-dir DIR  of the daemon (" DEFAULT_RUN_DIR
	       ", or XENDISK_RUN_DIR)\n"
	       "  --json         on every verb that reads: JSON\n"
	       "  --help         of a verb: its options\n"
	       "  --version\n\n"
	       "DOM is a domain id, a name or a UUID.  EXPR is a disk "
	       "expression, see xendisk-spec(7).\n");
}

static void print_verb(const struct verb *v)
{
	printf("usage: xendisk %s%s%s\n%s\n", v->name, *v->synopsis ? " " : "",
	       v->synopsis, v->summary);
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++) {
		const char letter[] = { '-', option_letter(v, i), ',', ' ',
					'\0' };
		char left[40];

		snprintf(left, sizeof(left), "%s--%s%s%s",
			 letter[1] ? letter : "", v->options[i].name,
			 v->options[i].arg ? " " : "",
			 v->options[i].arg ? v->options[i].arg : "");
		printf("  %-16s %s\n", left, v->options[i].help);
	}
}

/* Values of long options; below them are letters, which no option has. */
#define FIRST_LONG 256

/* The options that every verb takes, behind its own. */
enum { OPT_JSON = MAX_OPTIONS, OPT_RUN_DIR, OPT_HELP, NR_OPTIONS };

/* Those with a letter, for getopt_long(). */
static void fill_letters(const struct verb *v, char *letters)
{
	*letters++ = ':';
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++) {
		if (!option_letter(v, i))
			continue;
		*letters++ = option_letter(v, i);
		if (v->options[i].arg)
			*letters++ = ':';
	}
	*letters = '\0';
}

/* The number of the option that getopt_long() has answered c for. */
static int option_number(const struct verb *v, int c)
{
	int i = 0;

	if (c >= FIRST_LONG)
		return c - FIRST_LONG;
	while (option_letter(v, i) != c)
		i++;
	return i;
}

static void fill_long_options(const struct verb *v, struct option *opts)
{
	int n = 0;

	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++)
		opts[n++] = (struct option){ v->options[i].name,
					     v->options[i].arg != NULL, NULL,
					     i + FIRST_LONG };
	opts[n++] = (struct option){ "json", 0, NULL, OPT_JSON + FIRST_LONG };
	opts[n++] =
		(struct option){ "run-dir", 1, NULL, OPT_RUN_DIR + FIRST_LONG };
	opts[n++] = (struct option){ "help", 0, NULL, OPT_HELP + FIRST_LONG };
	opts[n] = (struct option){ NULL, 0, NULL, 0 };
}

/* What getopt_long() has answered c to; a letter may be one of several in a
 * word that it has not done with. */
static enum status bad_option(int c, char **argv, const char *verb)
{
	const char letter[] = { '-', (char)optopt, '\0' };
	bool is_letter = optopt > 0 && optopt < FIRST_LONG;

	return fail(STATUS_USAGE, "%s%s%s: %s", verb ? verb : "",
		    verb ? ": " : "", is_letter ? letter : argv[optind - 1],
		    c == ':'		 ? "an argument is missing" :
		    optopt >= FIRST_LONG ? "it takes no argument" :
					   "there is no such option");
}

/* argv[0] is the verb. */
static enum status run_verb(struct invocation *call, int argc, char **argv)
{
	struct option opts[NR_OPTIONS + 1];
	char letters[2 * MAX_OPTIONS + 2];
	const struct verb *v = call->verb;
	int c;

	fill_long_options(v, opts);
	fill_letters(v, letters);
	opterr = 0;
	optind = 0; /* glibc: start over, with another table */
	while ((c = getopt_long(argc, argv, letters, opts, NULL)) != -1) {
		if (c == '?' || c == ':')
			return bad_option(c, argv, v->name);
		c = option_number(v, c);
		if (c == OPT_HELP) {
			print_verb(v);
			return STATUS_DONE;
		}
		if (c == OPT_JSON)
			call->json = true;
		else if (c == OPT_RUN_DIR)
			call->run_dir = optarg;
		else if (call->values[c] && v->once)
			return fail(STATUS_USAGE, "%s: --%s: it is given twice",
				    v->name, v->options[c].name);
		else
			call->values[c] = optarg ? optarg : "";
	}
	call->args = argv + optind;
	call->nr_args = argc - optind;
	if (call->nr_args < v->min_args)
		return fail(STATUS_USAGE, "%s: usage: xendisk %s %s", v->name,
			    v->name, v->synopsis);
	if (call->nr_args > v->max_args)
		return fail(STATUS_USAGE, "%s: %s: one argument too many",
			    v->name, call->args[v->max_args]);
	return v->run(call);
}

/* The options before the verb; returns its index, or 0 with *ret_status. */
static int global_options(int argc, char **argv, struct invocation *call,
			  enum status *ret_status)
{
	static const struct option opts[] = {
		{ "json", 0, NULL, FIRST_LONG + 'j' },
		{ "run-dir", 1, NULL, FIRST_LONG + 'r' },
		{ "version", 0, NULL, FIRST_LONG + 'V' },
		{ "help", 0, NULL, FIRST_LONG + 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	opterr = 0;
	*ret_status = STATUS_DONE;
	while ((c = getopt_long(argc, argv, "+:", opts, NULL)) != -1) {
		switch (c) {
		case FIRST_LONG + 'j':
			call->json = true;
			break;
		case FIRST_LONG + 'r':
			call->run_dir = optarg;
			break;
		case FIRST_LONG + 'V':
			printf("xendisk %s\n", PACKAGE_VERSION);
			return 0;
		case FIRST_LONG + 'h':
			print_verbs();
			return 0;
		default:
			*ret_status = bad_option(c, argv, NULL);
			return 0;
		}
	}
	if (optind < argc)
		return optind;
	*ret_status = fail(STATUS_USAGE, "which verb? See xendisk --help");
	return 0;
}

int main(int argc, char **argv)
{
	struct invocation call = { .run_dir = getenv("XENDISK_RUN_DIR") };
	enum status status;
	int at = global_options(argc, argv, &call, &status);

	if (at == 0)
		return status;
	if (!call.run_dir || !*call.run_dir)
		call.run_dir = DEFAULT_RUN_DIR;
	for (const struct verb *v = verbs; v->name; v++) {
		if (strcmp(v->name, argv[at]) == 0) {
			call.verb = v;
			status = run_verb(&call, argc - at, argv + at);
			if (fflush(stdout) != 0 || ferror(stdout))
				status = fail(STATUS_FAILED, "stdout: %m");
			return status;
		}
	}
	return fail(STATUS_USAGE, "%s: there is no such verb", argv[at]);
}
