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

static bool is_of(json_t *item, const char *dom)
{
	const char *name = json_string_value(json_object_get(item, "domain"));
	char id[24];

	(void)snprintf(
		id, sizeof(id), "%lld",
		(long long)json_integer_value(json_object_get(item, "domid")));
	return strcmp(dom, id) == 0 || (name && strcmp(dom, name) == 0);
}

/* The key of every element of the array that METHOD answers with; dom: of this
 * domain only. */
static void offer_reply(const struct invocation *call, const char *method,
			const char *array, const char *key, const char *dom,
			const char *typed)
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

		if (text && (!dom || is_of(item, dom)))
			offer(text, typed);
	}
	json_decref(reply);
}

/* The n-th word of the verb's synopsis says what belongs there; dom is the
 * first argument, if there is one. */
static void offer_argument(const struct invocation *call, const struct verb *v,
			   int n, const char *dom, const char *typed)
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
	if (strncmp(word, "DOM|", 4) == 0)
		word += 4;
	if (strncmp(word, "EXPORT", 6) == 0 || strncmp(word, "DISK", 4) == 0)
		offer_reply(call, "Exports", "exports", "name", NULL, typed);
	else if (strncmp(word, "VDEV", 4) == 0)
		offer_reply(call, "List", "disks", "vdev", dom, typed);
	else if (strncmp(word, "EXPR", 4) == 0 || strncmp(word, "NAME", 4) == 0)
		offer_reply(call, "Backends", "backends", "name", NULL, typed);
}

enum status verb_complete(const struct invocation *call)
{
	struct invocation asked = *call; /* of which daemon */
	struct typed typed;

	read_typed(call, &typed);
	if (typed.file)
		return STATUS_DONE;
	if (typed.run_dir)
		asked.run_dir = typed.run_dir;
	if (!typed.verb)
		offer_verbs(typed.last);
	else if (typed.verb->raw)
		return complete_git(call);
	else if (typed.last[0] == '-')
		offer_options(typed.verb, typed.last);
	else
		offer_argument(&asked, typed.verb, typed.arguments, typed.first,
			       typed.last);
	return STATUS_DONE;
}
