/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "command/tables.h"

#include <libsmartcols.h>
#include <string.h>
#include <unistd.h>

struct table {
	struct libscols_table *scols;
	const struct column *columns;
	unsigned int count;
};

#define NARROWEST 16u /* a column of whole words */

const char *member_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

long long member_number(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

int table_new(struct table **ret, const struct column *columns,
	      unsigned int count)
{
	struct table *table = calloc(1, sizeof(*table));

	scols_init_debug(0);
	if (!table)
		return -ENOMEM;
	table->scols = scols_new_table();
	table->columns = columns;
	table->count = count;
	if (!table->scols) {
		free(table);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < count; i++)
		scols_table_new_column(
			table->scols, columns[i].title, 0,
			(columns[i].right ? SCOLS_FL_RIGHT : 0) |
				(columns[i].truncate ? SCOLS_FL_TRUNC : 0) |
				(columns[i].wrap ? SCOLS_FL_WRAP : 0));
	*ret = table;
	return 0;
}

int table_add(struct table *table, const char *const *cells)
{
	struct libscols_line *line = scols_table_new_line(table->scols, NULL);

	if (!line)
		return -ENOMEM;
	for (unsigned int i = 0; i < table->count; i++) {
		int r = scols_line_set_data(line, i, cells[i] ? cells[i] : "");

		if (r < 0)
			return r;
	}
	return 0;
}

/* --- Words that go on in the next line ------------------------------------ */

static const char *cell_text(struct table *table, size_t line, unsigned int n)
{
	struct libscols_line *at = scols_table_get_line(table->scols, line);
	const char *text = scols_cell_get_data(scols_line_get_cell(at, n));

	return text ? text : "";
}

/* What the other columns leave of the terminal for the nth. */
static size_t room_for(struct table *table, unsigned int nth)
{
	size_t room = scols_table_get_termwidth(table->scols);
	size_t lines = scols_table_get_nlines(table->scols);

	for (unsigned int n = 0; n < table->count; n++) {
		size_t width = strlen(table->columns[n].title);

		for (size_t i = 0; i < lines; i++)
			width = MAX(width, strlen(cell_text(table, i, n)));
		if (n != nth)
			room -= MIN(room, width + 1);
	}
	return room;
}

/* libsmartcols by itself breaks lines within words. */
static void fold(char *text, size_t room)
{
	char *begin = text, *blank = NULL;

	for (char *p = text; *p; p++) {
		if (*p == ' ')
			blank = p;
		if ((size_t)(p - begin) >= room && blank) {
			*blank = '\n';
			begin = blank + 1;
			blank = NULL;
		}
	}
}

static void fold_column(struct table *table, unsigned int nth)
{
	size_t room = room_for(table, nth);
	struct libscols_column *column =
		scols_table_get_column(table->scols, nth);

	if (room < NARROWEST || !isatty(STDOUT_FILENO))
		return;
	for (size_t i = 0; i < scols_table_get_nlines(table->scols); i++) {
		cleanup_free char *text = strdup(cell_text(table, i, nth));

		if (!text)
			return;
		fold(text, room);
		(void)scols_line_set_data(scols_table_get_line(table->scols, i),
					  nth, text);
	}
	(void)scols_column_set_safechars(column, "\n");
	(void)scols_column_set_wrapfunc(column, scols_wrapnl_chunksize,
					scols_wrapnl_nextchunk, NULL);
}

/* libsmartcols prints nothing at all of a table without lines. */
static void print_titles(const struct table *table)
{
	for (unsigned int n = 0; n < table->count; n++)
		printf("%s%s", n ? " " : "", table->columns[n].title);
	putchar('\n');
}

enum status table_print(struct table *table)
{
	int r;

	if (scols_table_get_nlines(table->scols) == 0)
		print_titles(table);

	for (unsigned int n = 0; n < table->count; n++)
		if (table->columns[n].wrap)
			fold_column(table, n);
	r = scols_print_table(table->scols);
	scols_unref_table(table->scols);
	free(table);
	return r == 0 ? STATUS_DONE : fail(STATUS_FAILED, "stdout: %m");
}

void print_clean(FILE *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		/* U+0080 to U+009F, which are control characters as well. */
		bool c1 = c == 0xc2 && (unsigned char)text[1] < 0xa0;

		fputc(c < 0x20 || c == 0x7f || c1 ? '?' : c, out);
		text += c1 && text[1];
	}
}

void print_line(const char *text)
{
	print_clean(stdout, text);
	putchar('\n');
}

enum status print_json(json_t *value)
{
	int r = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

	json_decref(value);
	if (r < 0)
		return fail(STATUS_FAILED, "stdout: %m");
	putchar('\n');
	return STATUS_DONE;
}

/* "raw path=/srv/a.img cache=none" */
static char *layer_text(json_t *layer)
{
	const char *name = json_string_value(json_object_get(layer, "backend"));
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	const char *key;
	json_t *value;

	if (!out)
		return NULL;
	fputs(name ? name : "?", out);
	json_object_foreach(json_object_get(layer, "parameters"), key,
			    value) if (json_is_string(value))
		fprintf(out, "  %s=%s", key, json_string_value(value));
	return fclose(out) == 0 ? text : NULL;
}

static int add_layer(struct libscols_table *t, struct libscols_line *parent,
		     json_t *layer)
{
	cleanup_free char *text = layer_text(layer);
	struct libscols_line *line = scols_table_new_line(t, parent);
	json_t *item;
	size_t i;

	if (!text || !line || scols_line_set_data(line, 0, text) < 0)
		return -ENOMEM;
	json_array_foreach(json_object_get(layer, "notes"), i, item)
	{
		struct libscols_line *note = scols_table_new_line(t, line);

		if (!note || !json_is_string(item) ||
		    scols_line_set_data(note, 0, json_string_value(item)) < 0)
			return -ENOMEM;
	}
	json_array_foreach(json_object_get(layer, "below"), i, item)
	{
		int r = add_layer(t, line, item);

		if (r < 0)
			return r;
	}
	return 0;
}

enum status print_tree(json_t *layer)
{
	struct libscols_table *t;
	int r;

	scols_init_debug(0);
	t = scols_new_table();
	if (!t)
		return fail(STATUS_FAILED, "no memory");
	scols_table_enable_noheadings(t, 1);
	scols_table_new_column(t, "LAYER", 0, SCOLS_FL_TREE);
	r = add_layer(t, NULL, layer);
	if (r == 0)
		r = scols_print_table(t);
	scols_unref_table(t);
	return r == 0 ? STATUS_DONE : fail(STATUS_FAILED, "stdout: %m");
}
