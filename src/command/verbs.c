/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verbs.c - a table of verbs is parser, help, completion and main(). */
#include "config.h"

#include "command/verbs.h"

#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>

#include "common/suggest.h"

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

/* The short form of the nth option, 0: none. */
static char option_letter(const struct verb *verb, int n)
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

/* --- Help --------------------------------------------------------------------- */

/* All that must be given; what need not be is an OPTION. */
static char *usage(const struct verb *v)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bool more = false;

	if (!out)
		return NULL;
	fprintf(out, "usage: %s %s%s%s", program.name, v->name,
		*v->synopsis ? " " : "", v->synopsis);
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++) {
		const struct verb_option *o = &v->options[i];

		if (v->required && strcmp(o->name, v->required) == 0)
			fprintf(out, " --%s %s", o->name, o->arg);
		else
			more = true;
	}
	fputs(more ? " [OPTION]..." : "", out);
	return fclose(out) == 0 ? text : NULL;
}

static void print_verbs(void)
{
	int width = 0;

	printf("usage: %s%s VERB [...]\n\n", program.name,
	       program.run_dir ? " [--run-dir DIR]" : "");
	for (const struct verb *v = verbs; v->name; v++)
		width = MAX(width, v->hidden ? 0 : (int)strlen(v->synopsis));
	for (const struct verb *v = verbs; v->name; v++)
		if (!v->hidden)
			printf("  %-8s %-*s  %s\n", v->name, width, v->synopsis,
			       v->summary);
	putchar('\n');
	if (program.run_dir)
		printf("  --run-dir DIR  of the daemon (%s, or "
		       "XENDISK_RUN_DIR)\n",
		       program.run_dir);
	printf("  --json         print JSON (verbs that read)\n"
	       "  --help         print the verbs; after a verb, its options\n"
	       "  --version      print the version\n\n"
	       "%s\n",
	       program.about);
}

/* "-m, --message TEXT"; its length. */
static int print_option(char *buf, size_t size, const struct verb *v, int n)
{
	const char letter[] = { '-', option_letter(v, n), ',', ' ', '\0' };
	const struct verb_option *o = &v->options[n];

	return snprintf(buf, size, "%s--%s%s%s", letter[1] ? letter : "",
			o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static void print_verb(const struct verb *v)
{
	cleanup_free char *line = usage(v);
	char left[40];
	int width = 0;

	printf("%s\n%s\n", line ? line : "", v->summary);
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++)
		width = MAX(width, print_option(left, sizeof(left), v, i));
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++) {
		(void)print_option(left, sizeof(left), v, i);
		printf("  %-*s  %s\n", width, left, v->options[i].help);
	}
}

/* --- Options ------------------------------------------------------------------- */

/* Values of long options; below them are letters. */
#define FIRST_LONG 256

/* The options that every verb takes, behind its own. */
enum { OPT_JSON = MAX_OPTIONS, OPT_HELP, OPT_RUN_DIR, NR_OPTIONS };

/* Those with a letter, for getopt_long(). */
static void fill_letters(const struct verb *v, char *letters)
{
	*letters++ = ':';
	*letters++ = 'h';
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
	if (c == 'h')
		return OPT_HELP;
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
	opts[n++] = (struct option){ "help", 0, NULL, OPT_HELP + FIRST_LONG };
	if (program.run_dir)
		opts[n++] = (struct option){ "run-dir", 1, NULL,
					     OPT_RUN_DIR + FIRST_LONG };
	opts[n] = (struct option){ NULL, 0, NULL, 0 };
}

/* Of the verb, or before it. */
static const char *suggest_option(struct suggest *s, const struct verb *v)
{
	for (int i = 0; v && i < MAX_OPTIONS && v->options[i].name; i++)
		suggest_add(s, v->options[i].name);
	suggest_add(s, "json");
	suggest_add(s, "help");
	if (program.run_dir)
		suggest_add(s, "run-dir");
	if (!v)
		suggest_add(s, "version");
	return s->best[0] ? s->best : NULL;
}

static enum status no_option(const struct verb *v, const char *word)
{
	cleanup_free char *typed = strndup(word + 2, strcspn(word + 2, "="));
	struct suggest s = { .typed = typed ? typed : "" };
	const char *meant = suggest_option(&s, v);
	const char *verb = v ? v->name : "";

	if (meant)
		return fail(STATUS_USAGE,
			    "%s%s%s%s: there is no such option; did you mean "
			    "\"--%s\"?",
			    v ? program.prefix : program.alone, verb,
			    v ? ": " : "", word, meant);
	return fail(STATUS_USAGE,
		    "%s%s%s%s: there is no such option; see %s %s%s--help",
		    v ? program.prefix : program.alone, verb, v ? ": " : "",
		    word, program.name, verb, v ? " " : "");
}

/* What getopt_long() has answered c to; a letter may be one of several in a
 * word that it has not done with. */
static enum status bad_option(int c, char **argv, const struct verb *v)
{
	const char letter[] = { '-', (char)optopt, '\0' };
	bool is_letter = optopt > 0 && optopt < FIRST_LONG;
	const char *word = is_letter ? letter : argv[optind - 1];

	if (c != ':' && optopt < FIRST_LONG)
		return no_option(v, word);
	return fail(STATUS_USAGE, "%s%s%s%s: %s",
		    v ? program.prefix : program.alone, v ? v->name : "",
		    v ? ": " : "", word,
		    c == ':' ? "an argument is missing" :
			       "it takes no argument");
}

/* 0, or the status with which all is over in *ret_status.  argv[0] is the verb. */
static int verb_options(struct invocation *call, int argc, char **argv,
			enum status *ret_status)
{
	struct option opts[NR_OPTIONS + 1];
	char letters[2 * MAX_OPTIONS + 3];
	const struct verb *v = call->verb;
	int c;

	fill_long_options(v, opts);
	fill_letters(v, letters);
	opterr = 0;
	optind = 0; /* glibc: start over, with another table */
	*ret_status = STATUS_DONE;
	while ((c = getopt_long(argc, argv, letters, opts, NULL)) != -1) {
		if (c == '?' || c == ':') {
			*ret_status = bad_option(c, argv, v);
			return -EINVAL;
		}
		c = option_number(v, c);
		if (c == OPT_HELP) {
			print_verb(v);
			return -ECANCELED;
		}
		if (c == OPT_JSON) {
			call->json = true;
		} else if (c == OPT_RUN_DIR) {
			call->run_dir = optarg;
		} else if (call->values[c] && v->once) {
			*ret_status = fail(STATUS_USAGE,
					   "%s%s: --%s: it is given twice",
					   program.prefix, v->name,
					   v->options[c].name);
			return -EINVAL;
		} else {
			call->values[c] = optarg ? optarg : "";
		}
	}
	return 0;
}

static enum status run_verb(struct invocation *call, int argc, char **argv)
{
	const struct verb *v = call->verb;
	cleanup_free char *line = NULL;
	enum status status;

	optind = 1;
	if (!v->raw && verb_options(call, argc, argv, &status) < 0)
		return status;
	call->args = argv + optind;
	call->nr_args = argc - optind;
	if (call->nr_args < v->min_args)
		return fail(STATUS_USAGE, "%s%s: %s", program.prefix, v->name,
			    (line = usage(v)) ? line : "no memory");
	if (call->nr_args > v->max_args)
		return fail(STATUS_USAGE, "%s%s: %s: one argument too many",
			    program.prefix, v->name, call->args[v->max_args]);
	return v->run(call);
}

/* The options before the verb; returns its index, or 0 with *ret_status. */
static int global_options(int argc, char **argv, struct invocation *call,
			  enum status *ret_status)
{
	static const struct option opts[] = {
		{ "json", 0, NULL, FIRST_LONG + 'j' },
		{ "version", 0, NULL, FIRST_LONG + 'V' },
		{ "help", 0, NULL, FIRST_LONG + 'h' },
		{ "run-dir", 1, NULL, FIRST_LONG + 'r' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	opterr = 0;
	*ret_status = STATUS_DONE;
	while ((c = getopt_long(argc, argv, "+:h", opts, NULL)) != -1) {
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
		case 'h':
			print_verbs();
			return 0;
		default:
			*ret_status = bad_option(c, argv, NULL);
			return 0;
		}
	}
	if (optind < argc)
		return optind;
	*ret_status = fail(STATUS_USAGE, "%swhich verb? See %s --help",
			   program.alone, program.name);
	return 0;
}

static const struct verb *find_verb(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

static enum status no_verb(const char *name)
{
	struct suggest s = { .typed = name };
	const char *text;

	for (const struct verb *v = verbs; v->name; v++)
		if (!v->hidden)
			suggest_add(&s, v->name);
	text = suggest_text(&s, NULL);
	if (*text)
		return fail(STATUS_USAGE, "%s%s: there is no such verb%s",
			    program.alone, name, text);
	return fail(STATUS_USAGE, "%s%s: there is no such verb; see %s --help",
		    program.alone, name, program.name);
}

/* "help" and "help VERB", as many programs have it. */
static enum status print_help(const char *name)
{
	const struct verb *v = name ? find_verb(name) : NULL;

	if (name && !v)
		return no_verb(name);
	if (v)
		print_verb(v);
	else
		print_verbs();
	return STATUS_DONE;
}

int main(int argc, char **argv)
{
	struct invocation call = { .run_dir = getenv("XENDISK_RUN_DIR") };
	enum status status;
	int at;

	/* So that tables show names of files as they are. */
	(void)setlocale(LC_CTYPE, "");
	at = global_options(argc, argv, &call, &status);
	if (at == 0)
		return status;
	if (!call.run_dir || !*call.run_dir)
		call.run_dir = program.run_dir;
	call.verb = find_verb(argv[at]);
	if (!call.verb && strcmp(argv[at], "help") == 0)
		return print_help(argv[at + 1]);
	if (!call.verb)
		return print_help(argv[at]);
	status = run_verb(&call, argc - at, argv + at);
	if (fflush(stdout) != 0 || ferror(stdout))
		status = fail(STATUS_FAILED, "stdout: %m");
	return status;
}

/* --- Completion ---------------------------------------------------------------- */

void offer(const char *candidate, const char *word)
{
	if (strncmp(candidate, word, strlen(word)) == 0)
		puts(candidate);
}

void offer_verbs(const char *word)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (!v->hidden)
			offer(v->name, word);
	if (program.run_dir)
		offer("--run-dir", word);
	offer("--json", word);
	offer("--help", word);
	offer("--version", word);
}

void offer_options(const struct verb *v, const char *word)
{
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++) {
		cleanup_free char *text = xasprintf("--%s", v->options[i].name);

		if (text)
			offer(text, word);
	}
	offer("--json", word);
	if (program.run_dir)
		offer("--run-dir", word);
	offer("--help", word);
}

/* Does this word take the next one as its argument?  v is NULL before the
 * verb. */
static bool takes_next(const struct verb *v, const char *word)
{
	if (program.run_dir && strcmp(word, "--run-dir") == 0)
		return true;
	for (int i = 0; v && i < MAX_OPTIONS && v->options[i].name; i++) {
		const char letter[] = { '-', option_letter(v, i), '\0' };

		if (v->options[i].arg &&
		    ((strncmp(word, "--", 2) == 0 &&
		      strcmp(word + 2, v->options[i].name) == 0) ||
		     (letter[1] && strcmp(word, letter) == 0)))
			return true;
	}
	return false;
}

void read_typed(const struct invocation *call, struct typed *ret)
{
	int last = call->nr_args - 1;

	*ret = (struct typed){ .last = last < 0 ? "" : call->args[last] };
	for (int i = 0; i < last && !ret->file; i++) {
		const char *word = call->args[i];

		if (takes_next(ret->verb, word)) {
			if (++i >= last)
				ret->file = true;
			else if (strcmp(word, "--run-dir") == 0)
				ret->run_dir = call->args[i];
		} else if (word[0] != '-' && !ret->verb) {
			ret->verb = find_verb(word);
			/* What it is nobody knows. */
			ret->file = !ret->verb || ret->verb->hidden;
			if (ret->verb && ret->verb->raw)
				return;
		} else if (word[0] != '-') {
			ret->first = ret->first ? ret->first : word;
			ret->arguments++;
		}
	}
}
