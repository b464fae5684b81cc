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
	offer("--json", typed);
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
	offer("--run-dir", typed);
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

static bool is_of(json_t *item, const char *dom)
{
	const char *name = json_string_value(json_object_get(item, "domain"));
	char id[24];

	snprintf(id, sizeof(id), "%lld",
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

/* Does this word take the next one as its argument?  v is NULL before the
 * verb. */
static bool takes_next(const struct verb *v, const char *word)
{
	if (strcmp(word, "--run-dir") == 0)
		return true;
	for (int i = 0; v && i < MAX_OPTIONS && v->options[i].name; i++) {
		const struct verb_option *option = &v->options[i];
		const char letter[] = { '-', option_letter(v, i), '\0' };

		if (option->arg && letter[1] && strcmp(word, letter) == 0)
			return true;
		if (option->arg && strncmp(word, "--", 2) == 0 &&
		    strcmp(word + 2, option->name) == 0)
			return true;
	}
	return false;
}

static const struct verb *find_verb(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (!v->hidden && strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

enum status verb_complete(const struct invocation *call)
{
	int last = call->nr_args - 1;
	const char *typed = last < 0 ? "" : call->args[last];
	struct invocation asked = *call; /* of which daemon */
	const struct verb *v = NULL;
	const char *first = NULL;
	int arguments = 0;

	for (int i = 0; i < last; i++) {
		const char *word = call->args[i];

		if (takes_next(v, word)) {
			if (++i >= last)
				return STATUS_DONE; /* the shell has files */
			if (strcmp(word, "--run-dir") == 0)
				asked.run_dir = call->args[i];
		} else if (word[0] != '-' && !v) {
			v = find_verb(word);
			if (!v)
				return STATUS_DONE;
		} else if (word[0] != '-') {
			first = first ? first : word;
			arguments++;
		}
	}
	if (!v)
		offer_verbs(typed);
	else if (typed[0] == '-')
		offer_options(v, typed);
	else
		offer_argument(&asked, v, arguments, first, typed);
	return STATUS_DONE;
}
