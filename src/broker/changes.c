/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/changes.h"

#include <inttypes.h>
#include <utlist.h>

#include "common/msg.h"
#include "common/util.h"

struct change {
	struct change *next;
	uint32_t layer;
	char commit[MSG_COMMIT_MAX];
	char text[MSG_TEXT_MAX];
};

static int by_layer(const struct change *a, const struct change *b)
{
	return a->layer < b->layer ? -1 : a->layer > b->layer;
}

void changes_set(struct changes *changes, uint32_t layer, const char *commit,
		 const char *text)
{
	struct change *change;

	LL_SEARCH_SCALAR(changes->list, change, layer, layer);
	if (!change) {
		change = calloc(1, sizeof(*change));
		if (!change)
			return;
		change->layer = layer;
		LL_INSERT_INORDER(changes->list, change, by_layer);
	}
	(void)snprintf(change->commit, sizeof(change->commit), "%s", commit);
	(void)snprintf(change->text, sizeof(change->text), "%s", text);
}

void changes_clear(struct changes *changes)
{
	struct change *change, *next;

	LL_FOREACH_SAFE(changes->list, change, next)
		free(change);
	changes->list = NULL;
}

const char *changes_commit(const struct changes *changes)
{
	const struct change *change;

	LL_FOREACH(changes->list, change)
		if (change->commit[0])
			return change->commit;
	return "";
}

char *changes_notes(const struct changes *changes, const char *notes)
{
	const struct change *change;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fputs(notes, out);
	LL_FOREACH(changes->list, change)
		if (change->text[0])
			fprintf(out, "%" PRIu32 " now %s\n", change->layer,
				change->text);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}
