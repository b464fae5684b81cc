/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <string.h>

#include "common/expr.h"
#include "common/util.h"

/* Quotes are needed for what would end the word or look like an option. */
static void print_word(FILE *out, const char *word)
{
	if (word[0] != '\0' && !strpbrk(word, ",()\"?=& \t\\")) {
		fputs(word, out);
		return;
	}
	fputc('"', out);
	for (; *word; word++) {
		if (*word == '"' || *word == '\\')
			fputc('\\', out);
		fputc(*word, out);
	}
	fputc('"', out);
}

/* Once, or as often as it was given. */
static void print_values(FILE *out, const struct xd_param *param,
			 const char *text, const char *comma)
{
	do {
		fputs(comma, out);
		if (!(param->flags & XD_POSITIONAL))
			fprintf(out, "%s=", param->name);
		print_word(out, text);
		text += strlen(text) + 1;
		comma = ", ";
	} while ((param->flags & XD_REPEATED) && *text);
}

static void print_layer(FILE *out, const struct layer *layer)
{
	const char *comma = "";
	unsigned int disk = 0;

	fputs(layer->info->name, out);
	fputc('(', out);
	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];

		if (param->type == XD_DISK) {
			if (disk >= layer->nr_below)
				continue;
			fputs(comma, out);
			print_layer(out, layer->below[disk++]);
		} else {
			if (!layer->values[i].given)
				continue;
			print_values(out, param, layer->values[i].text, comma);
		}
		comma = ", ";
	}
	fputc(')', out);
}

char *expr_print(const struct layer *root)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bool failed;

	if (!out)
		return NULL;
	print_layer(out, root);
	failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(text);
		return NULL;
	}
	return text;
}
