/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Completion: the words typed so far, without "xendisk" and ended by the one
 * to be completed; candidates come out one a line.  The tables of main.c and
 * the daemon's answers are all it knows.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "command/client.h"
#include "command/store.h"

#define TIMEOUT_S 2

static void offer(const char *candidate, const char *typed)
{
	if (strncmp(candidate, typed, strlen(typed)) == 0)
		puts(candidate);
}

static void offer_verbs(const char *typed)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (!v->hidden)
			offer(v->name, typed);
	offer("--run-dir", typed);
	offer("--help", typed);
	offer("--version", typed);
}

static void offer_options(const struct verb *v, const char *typed)
{
	for (int i = 0; i < MAX_OPTIONS && v->options[i].name; i++) {
		cleanup_free char *text = xasprintf("--%s", v->options[i].name);

		if (text)
			offer(text, typed);
	}
	offer("--json", typed);
	offer("--help", typed);
}

static void offer_domains(const char *typed)
{
	struct xs_handle *store = xs_open(0);
	unsigned int count = 0;
	cleanup_free char **ids = NULL;

	if (!store)
		return;
	ids = xs_directory(store, XBT_NULL, "/local/domain", &count);
	for (unsigned int i = 0; i < count; i++) {
		cleanup_free char *name = store_read(
			store, XBT_NULL, "/local/domain/%s/name", ids[i]);

		offer(name ? name : ids[i], typed);
	}
	xs_close(store);
}

/* The key of every element of the array that METHOD answers with. */
static void offer_reply(const struct invocation *call, const char *method,
			const char *array, const char *key, const char *typed)
{
	cleanup_free char *why = NULL;
	json_t *reply = NULL;
	json_t *item;
	size_t i;

	if (client_try(call, method, NULL, TIMEOUT_S, &reply, &why) !=
	    STATUS_DONE)
		return;
	json_array_foreach(json_object_get(reply, array), i, item)
	{
		const char *text =
			json_string_value(json_object_get(item, key));

		if (text)
			offer(text, typed);
	}
	json_decref(reply);
}

/* The n-th word of the verb's synopsis says what belongs there. */
static void offer_argument(const struct invocation *call, const struct verb *v,
			   int n, const char *typed)
{
	const char *word = v->synopsis;

	for (int i = 0; i < n && word; i++) {
		word = strchr(word, ' ');
		word = word ? word + 1 : NULL;
	}
	if (!word)
		return;
	if (*word == '[')
		word++;
	if (strncmp(word, "DOM", 3) == 0)
		offer_domains(typed);
	else if (strncmp(word, "VDEV", 4) == 0)
		offer_reply(call, "List", "disks", "vdev", typed);
	else if (strncmp(word, "EXPR", 4) == 0 || strncmp(word, "NAME", 4) == 0)
		offer_reply(call, "Backends", "backends", "name", typed);
}

enum status verb_complete(const struct invocation *call)
{
	int last = call->nr_args - 1;
	const char *typed = last < 0 ? "" : call->args[last];
	int arguments = 0;

	if (last <= 0) {
		offer_verbs(typed);
		return STATUS_DONE;
	}
	for (const struct verb *v = verbs; v->name; v++) {
		if (strcmp(v->name, call->args[0]) != 0)
			continue;
		if (typed[0] == '-') {
			offer_options(v, typed);
			break;
		}
		for (int i = 1; i < last; i++)
			arguments += call->args[i][0] != '-';
		offer_argument(call, v, arguments, typed);
		break;
	}
	return STATUS_DONE;
}
