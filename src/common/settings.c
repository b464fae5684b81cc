/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Each file is parsed by libconfuse against one table of options and then
 * merged into the settings: lists grow, of a single value the last wins, a disk that
 * is named twice is an error.  libconfuse reports through a callback without a
 * context, so the first message is kept in a file-scope buffer; settings are
 * loaded by the main thread only.
 */
#include "config.h"

#include "common/settings.h"

#include <confuse.h>
#include <dirent.h>
#include <stdarg.h>
#include <string.h>

#include "common/suggest.h"
#include "common/util.h"

static char *first_error; /* SETTINGS_TEXT_MAX bytes, of the load going on */

/* The lines of the image roots of the file that is being read. */
static int *root_lines;

static void PRINTF(1, 2) keep_error(const char *fmt, ...)
{
	va_list ap;

	if (first_error[0] != '\0')
		return;
	va_start(ap, fmt);
	(void)vsnprintf(first_error, SETTINGS_TEXT_MAX, fmt, ap);
	va_end(ap);
}

static void on_error(cfg_t *cfg, const char *fmt, va_list ap) PRINTF(2, 0);

static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	struct suggest s = { 0 };
	char text[256];
	char word[64];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	if (cfg && sscanf(text, "no such option '%63[^']'", word) == 1) {
		s.typed = word;
		for (unsigned int i = 0; i < cfg_num(cfg); i++)
			suggest_add(&s, cfg_getnopt(cfg, i)->name);
	}
	keep_error("%s:%d: %s%s", cfg && cfg->filename ? cfg->filename : "?",
		   cfg ? cfg->line : 0, text,
		   s.typed ? suggest_text(&s, "; known: ") : "");
}

/* Validators run while the file is read, so that the line is known. */
static int check_size(cfg_t *cfg, cfg_opt_t *opt)
{
	uint64_t size;
	const char *text = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (text && parse_size(text, &size) == 0)
		return 0;
	cfg_error(cfg, "%s: \"%s\" is not a size (digits with K, M, G or T)",
		  opt->name, text ? text : "");
	return -1;
}

static int check_root(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned int nr = cfg_opt_size(opt);
	const char *text = cfg_opt_getnstr(opt, nr - 1);
	int *lines;

	if (!text || text[0] != '/') {
		cfg_error(cfg, "%s: \"%s\" is not an absolute folder",
			  opt->name, text ? text : "");
		return -1;
	}
	lines = reallocarray(root_lines, nr, sizeof(*lines));
	if (!lines)
		return -1;
	lines[nr - 1] = cfg->line;
	root_lines = lines;
	return 0;
}

static int check_choice(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *text = cfg_opt_getnstr(opt, 0);

	if (text && (strcmp(text, "hold") == 0 || strcmp(text, "report") == 0))
		return 0;
	cfg_error(cfg, "%s: \"%s\" is neither hold nor report", opt->name,
		  text ? text : "");
	return -1;
}

static int check_disk(cfg_t *cfg, cfg_opt_t *opt)
{
	cfg_t *disk = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
	const char *name = disk ? cfg_title(disk) : NULL;

	if (!name || name[0] == '\0' ||
	    name[strspn(name, "abcdefghijklmnopqrstuvwxyz"
			      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")]) {
		cfg_error(cfg,
			  "disk \"%s\": a name has letters, digits and "
			  "the signs . _ -",
			  name ? name : "");
		return -1;
	}
	if (cfg_getstr(disk, "expr"))
		return 0;
	cfg_error(cfg, "disk \"%s\" has no expr", name);
	return -1;
}

static int check_credentials(cfg_t *cfg, cfg_opt_t *opt)
{
	cfg_t *sec = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
	const char *psk = sec ? cfg_getstr(sec, "psk") : NULL;
	const char *user = sec ? cfg_getstr(sec, "user") : NULL;
	const char *certs = sec ? cfg_getstr(sec, "certs") : NULL;
	const char *fault = NULL;

	if (psk && certs)
		fault = "psk or certs, not both";
	else if (!psk && !certs)
		fault = "neither psk nor certs";
	else if (psk && psk[0] != '/')
		fault = "psk is no absolute path";
	else if (certs && certs[0] != '/')
		fault = "certs is no absolute path";
	else if (psk && !(user && user[0]))
		fault = "user is missing";
	else if (psk ? cfg_getstr(sec, "hostname") : user)
		fault = psk ? "hostname is for certs" : "user is for psk";
	if (!fault)
		return 0;
	cfg_error(cfg, "credentials \"%s\": %s", sec ? cfg_title(sec) : "",
		  fault);
	return -1;
}

/* --- Merging -------------------------------------------------------------- */

/* A bare path may hold any byte; inside parentheses it needs quotes.  NULL: no memory. */
static char *quote(const char *path)
{
	char *quoted = malloc(2 * strlen(path) + 3);
	char *q = quoted;

	if (!quoted)
		return NULL;
	*q++ = '"';
	for (; *path; path++) {
		if (*path == '"' || *path == '\\')
			*q++ = '\\';
		*q++ = *path;
	}
	*q++ = '"';
	*q = '\0';
	return quoted;
}

/* disk(EXPR, on-error=..., ...) when there is a setting.  What is wrong with one that
 * is no word from a list is found when the expression is read. */
static char *wrap(cfg_t *disk)
{
	const char *expr = cfg_getstr(disk, "expr");
	const char *on_err = cfg_getstr(disk, "on-error");
	const char *flush_err = cfg_getstr(disk, "flush-error");
	bool poll = cfg_size(disk, "poll-max-us") > 0;
	cleanup_free char *quoted = NULL;
	cleanup_free char *poll_us = NULL;

	if (!on_err && !flush_err && !poll)
		return strdup(expr);
	if (expr[0] == '/') {
		quoted = quote(expr);
		if (!quoted)
			return NULL;
		expr = quoted;
	}
	if (poll)
		poll_us = xasprintf(", poll-max-us=%ld",
				    cfg_getint(disk, "poll-max-us"));
	if (poll && !poll_us)
		return NULL;
	return xasprintf("disk(%s%s%s%s%s%s)", expr,
			 on_err ? ", on-error=" : "", on_err ? on_err : "",
			 flush_err ? ", flush-error=" : "",
			 flush_err ? flush_err : "", poll ? poll_us : "");
}

static int add_disk(struct settings *settings, const char *path, cfg_t *disk)
{
	struct settings_disk *disks;
	struct settings_disk added = { 0 };

	if (settings_disk(settings, cfg_title(disk))) {
		keep_error("%s:%d: disk \"%s\" is named twice", path,
			   disk->line, cfg_title(disk));
		return -EINVAL;
	}
	disks = reallocarray(settings->disks, settings->nr_disks + 1,
			     sizeof(*disks));
	if (!disks)
		return -ENOMEM;
	settings->disks = disks;
	added.name = strdup(cfg_title(disk));
	added.expr = wrap(disk);
	added.where = xasprintf("%s:%d", path, disk->line);
	disks[settings->nr_disks++] = added;
	return added.name && added.expr && added.where ? 0 : -ENOMEM;
}

/* Those of struct settings_credentials. */
static const struct {
	const char *name;
	size_t at;
} credential_settings[] = {
	{ "psk", offsetof(struct settings_credentials, psk) },
	{ "user", offsetof(struct settings_credentials, user) },
	{ "certs", offsetof(struct settings_credentials, certs) },
	{ "hostname", offsetof(struct settings_credentials, hostname) },
};

static char **credential_at(struct settings_credentials *credentials, size_t i)
{
	return (char **)(void *)((char *)credentials +
				 credential_settings[i].at);
}

static int add_credentials(struct settings *settings, const char *path,
			   cfg_t *sec)
{
	struct settings_credentials *list, added = { 0 };
	bool complete;

	if (settings_credentials(settings, cfg_title(sec))) {
		keep_error("%s:%d: credentials \"%s\" are named twice", path,
			   sec->line, cfg_title(sec));
		return -EINVAL;
	}
	list = reallocarray(settings->credentials, settings->nr_credentials + 1,
			    sizeof(*list));
	if (!list)
		return -ENOMEM;
	settings->credentials = list;
	added.name = strdup(cfg_title(sec));
	complete = added.name != NULL;
	for (size_t i = 0; i < ARRAY_SIZE(credential_settings); i++) {
		const char *value =
			cfg_getstr(sec, credential_settings[i].name);

		if (!value)
			continue;
		*credential_at(&added, i) = strdup(value);
		complete = complete && *credential_at(&added, i);
	}
	list[settings->nr_credentials++] = added;
	return complete ? 0 : -ENOMEM;
}

static int add_root(struct settings *settings, const char *root,
		    const char *path, int line)
{
	struct settings_root *roots = reallocarray(settings->image_roots,
						   settings->nr_image_roots + 1,
						   sizeof(*roots));
	struct settings_root added = { 0 };

	if (!roots)
		return -ENOMEM;
	settings->image_roots = roots;
	added.path = strdup(root);
	added.where = xasprintf("%s:%d", path, line);
	roots[settings->nr_image_roots++] = added;
	return added.path && added.where ? 0 : -ENOMEM;
}

static int merge(struct settings *settings, const char *path, cfg_t *cfg)
{
	const char *limit = cfg_getstr(cfg, "mem-limit");
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < cfg_size(cfg, "disk"); i++)
		r = add_disk(settings, path, cfg_getnsec(cfg, "disk", i));
	for (unsigned int i = 0; r == 0 && i < cfg_size(cfg, "credentials");
	     i++)
		r = add_credentials(settings, path,
				    cfg_getnsec(cfg, "credentials", i));
	for (unsigned int i = 0; r == 0 && i < cfg_size(cfg, "image-roots");
	     i++)
		r = add_root(settings, cfg_getnstr(cfg, "image-roots", i), path,
			     root_lines[i]);
	if (r == 0 && limit)
		r = parse_size(limit, &settings->mem_limit);
	if (cfg_size(cfg, "persistent-grants") > 0)
		settings->persistent_grants =
			cfg_getbool(cfg, "persistent-grants");
	return r;
}

static void on_silent_error(cfg_t *cfg, const char *fmt, va_list ap)
	PRINTF(2, 0);

static void on_silent_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	(void)cfg;
	(void)fmt;
	(void)ap;
}

/* With the end of a line at its end, and without NULs; NULL: errno says why. */
static char *read_text(const char *path)
{
	cleanup_file FILE *in = fopen(path, "re");
	char *text = NULL;
	size_t size;
	FILE *out = in ? open_memstream(&text, &size) : NULL;
	int c, err = 0;

	if (!out)
		return NULL;
	while ((c = fgetc(in)) != EOF)
		(void)fputc(c ? c : '?', out);
	if (ferror(in))
		err = errno;
	(void)fputc('\n', out);
	if (fclose(out) != 0)
		err = errno;
	if (!err)
		return text;
	free(text);
	errno = err;
	return NULL;
}

/* libconfuse takes the end of a file for the end of a section, too: a file that was
 * cut short would be good.  With one brace more it is not, unless one is missing. */
static bool is_unclosed(const char *text, cfg_opt_t *options)
{
	cleanup_free char *more = xasprintf("%s}\n", text);
	cfg_t *cfg = more ? cfg_init(options, CFGF_NONE) : NULL;
	bool unclosed;

	if (!cfg)
		return false;
	cfg_set_error_function(cfg, on_silent_error);
	unclosed = cfg_parse_buf(cfg, more) == CFG_SUCCESS;
	cfg_free(cfg);
	return unclosed;
}

/* The last byte of the comment that begins at p; NULL: none does. */
static char *skip_comment(char *p)
{
	char *end;

	if (strncmp(p, "/*", 2) == 0) {
		end = strstr(p + 2, "*/");
		return end ? end + 1 : p + strlen(p) - 1;
	}
	if (*p != '#' && strncmp(p, "//", 2) != 0)
		return NULL;
	return p + strcspn(p, "\n") - 1;
}

static void blank(char *p, const char *end)
{
	for (; p <= end; p++)
		if (*p != '\n')
			*p = ' ';
}

#define WORD_ENDS " \t\n\"'=+(){},#$"

/* Makes blanks of comments, in which libconfuse counts more lines than there are.  It
 * also puts variables of the environment into double quotes, and nothing for one that
 * is not set: returns the first, or NULL. */
static const char *blank_comments(char *text)
{
	const char *found = NULL;
	char quote = '\0';

	for (char *p = text, *end; *p; p++) {
		if (!found && quote != '\'' && strncmp(p, "${", 2) == 0)
			found = p;
		if (quote && *p == '\\' && p[1]) {
			p++;
		} else if (quote) {
			quote = *p == quote ? '\0' : quote;
		} else if (*p == '"' || *p == '\'') {
			quote = *p;
		} else if ((end = skip_comment(p))) {
			blank(p, end);
			p = end;
		} else if (!strchr(WORD_ENDS, *p)) {
			/* nbd://HOST has no comment in it. */
			p += strcspn(p + 1, WORD_ENDS);
		}
	}
	return found;
}

/* One and the same file would be other disks for the daemon, for a command of
 * another user, and after a mistake in a name. */
static int refuse_variable(const char *path, const char *text,
			   const char *found)
{
	unsigned int line = 1;

	for (const char *p = text; p < found; p++)
		line += *p == '\n';
	keep_error("%s:%u: %.*s: variables are not put in; write \\${ where it "
		   "is meant as it stands",
		   path, line, (int)MIN(strcspn(found, "}\n\"") + 1, 64u),
		   found);
	return -EINVAL;
}

static int parse(cfg_t *cfg, cfg_opt_t *options, const char *path,
		 const char *text)
{
	cleanup_file FILE *f =
		fmemopen((void *)(uintptr_t)text, strlen(text), "r");

	cfg->filename = strdup(path); /* for messages */
	if (!f || !cfg->filename)
		return -ENOMEM;
	if (cfg_parse_fp(cfg, f) != CFG_SUCCESS)
		/* libconfuse does not always say something. */
		keep_error("%s:%d: is not understood", path, cfg->line);
	else if (is_unclosed(text, options))
		keep_error("%s:%d: \"}\" is missing at the end", path,
			   cfg->line);
	else
		return 0;
	return -EINVAL;
}

static int load_file(struct settings *settings, const char *path)
{
	cfg_opt_t disk[] = {
		CFG_STR("expr", NULL, CFGF_NODEFAULT),
		CFG_STR("on-error", NULL, CFGF_NODEFAULT),
		CFG_STR("flush-error", NULL, CFGF_NODEFAULT),
		CFG_INT("poll-max-us", 0, CFGF_NODEFAULT),
		CFG_END(),
	};
	cfg_opt_t credentials[] = {
		CFG_STR("psk", NULL, CFGF_NODEFAULT),
		CFG_STR("user", NULL, CFGF_NODEFAULT),
		CFG_STR("certs", NULL, CFGF_NODEFAULT),
		CFG_STR("hostname", NULL, CFGF_NODEFAULT),
		CFG_END(),
	};
	cfg_opt_t options[] = {
		CFG_SEC("credentials", credentials,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("disk", disk,
			CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_STR_LIST("image-roots", NULL, CFGF_NODEFAULT),
		CFG_STR("mem-limit", NULL, CFGF_NODEFAULT),
		CFG_BOOL("persistent-grants", cfg_false, CFGF_NODEFAULT),
		CFG_END(),
	};
	cleanup_free char *text = read_text(path);
	const char *variable;
	cfg_t *cfg;
	int r;

	if (!text) {
		r = -errno;
		keep_error("%s: %s", path, strerror(-r));
		return r;
	}
	variable = blank_comments(text);
	if (variable)
		return refuse_variable(path, text, variable);
	cfg = cfg_init(options, CFGF_NONE);
	if (!cfg)
		return -ENOMEM;
	cfg_set_error_function(cfg, on_error);
	cfg_set_validate_func(cfg, "disk", check_disk);
	cfg_set_validate_func(cfg, "credentials", check_credentials);
	cfg_set_validate_func(cfg, "disk|on-error", check_choice);
	cfg_set_validate_func(cfg, "disk|flush-error", check_choice);
	cfg_set_validate_func(cfg, "image-roots", check_root);
	cfg_set_validate_func(cfg, "mem-limit", check_size);
	r = parse(cfg, options, path, text);
	if (r == 0)
		r = merge(settings, path, cfg);
	cfg_free(cfg);
	free(TAKE_PTR(root_lines));
	return r;
}

static int is_conf(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return entry->d_name[0] != '.' && n > 5 &&
	       strcmp(entry->d_name + n - 5, ".conf") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_folder(struct settings *settings, const char *folder)
{
	struct dirent **entries = NULL;
	int n = scandir(folder, &entries, is_conf, by_bytes);
	int r = 0;

	if (n < 0 && errno == ENOENT)
		return 0;
	if (n < 0) {
		r = -errno;
		keep_error("%s: %s", folder, strerror(errno));
		return r;
	}
	for (int i = 0; i < n; i++) {
		cleanup_free char *path =
			xasprintf("%s/%s", folder, entries[i]->d_name);

		if (r == 0)
			r = path ? load_file(settings, path) : -ENOMEM;
		free(entries[i]);
	}
	free(entries);
	return r;
}

int settings_load(const char *path, bool required, struct settings **ret,
		  char *ret_why)
{
	struct settings *settings = calloc(1, sizeof(*settings));
	cleanup_free char *folder = xasprintf("%s.d", path);
	int r = 0;

	ret_why[0] = '\0';
	if (!settings || !folder) {
		free(settings);
		return -ENOMEM;
	}
	first_error = ret_why;
	if (required || access(path, F_OK) == 0 || errno != ENOENT)
		r = load_file(settings, path);
	if (r == 0)
		r = load_folder(settings, folder);
	first_error = NULL;
	if (r < 0) {
		settings_free(settings);
		return r;
	}
	*ret = settings;
	return 0;
}

void settings_free(struct settings *settings)
{
	if (!settings)
		return;
	for (size_t i = 0; i < settings->nr_disks; i++) {
		free(settings->disks[i].name);
		free(settings->disks[i].expr);
		free(settings->disks[i].where);
	}
	for (size_t i = 0; i < settings->nr_image_roots; i++) {
		free(settings->image_roots[i].path);
		free(settings->image_roots[i].where);
	}
	for (size_t i = 0; i < settings->nr_credentials; i++) {
		free(settings->credentials[i].name);
		for (size_t k = 0; k < ARRAY_SIZE(credential_settings); k++)
			free(*credential_at(&settings->credentials[i], k));
	}
	free(settings->credentials);
	free(settings->disks);
	free(settings->image_roots);
	free(settings);
}

const char *settings_disk(const struct settings *settings, const char *name)
{
	for (size_t i = 0; i < settings->nr_disks; i++)
		if (strcmp(settings->disks[i].name, name) == 0)
			return settings->disks[i].expr;
	return NULL;
}

const struct settings_credentials *
settings_credentials(const struct settings *settings, const char *name)
{
	for (size_t i = 0; i < settings->nr_credentials; i++)
		if (strcmp(settings->credentials[i].name, name) == 0)
			return &settings->credentials[i];
	return NULL;
}

int settings_credential(const struct settings *settings, const char *name,
			const char *setting, const char **ret, char *ret_why)
{
	struct suggest s = { .typed = name };

	for (size_t i = 0; i < settings->nr_credentials; i++) {
		struct settings_credentials *found = &settings->credentials[i];

		if (strcmp(found->name, name) != 0)
			continue;
		*ret = NULL;
		for (size_t k = 0; k < ARRAY_SIZE(credential_settings); k++)
			if (strcmp(credential_settings[k].name, setting) == 0)
				*ret = *credential_at(found, k);
		if (*ret)
			return 0;
		(void)snprintf(ret_why, SETTINGS_TEXT_MAX, "%s is not set",
			       setting);
		return -ENODATA;
	}
	for (size_t i = 0; i < settings->nr_credentials; i++)
		suggest_add(&s, settings->credentials[i].name);
	(void)snprintf(ret_why, SETTINGS_TEXT_MAX,
		       "there are no credentials \"%s\" in the configuration%s",
		       name, suggest_text(&s, "; known: "));
	return -ENOENT;
}
