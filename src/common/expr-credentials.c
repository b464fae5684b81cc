/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/expr-credentials.h"

#include <string.h>

#include "common/expr-check.h"
#include "common/server.h"

struct wanted {
	const char *server; /* NULL: it names none */
	const char *credentials; /* NULL: none are given */
	bool may_have; /* it has a parameter for them */
};

static struct wanted find_wanted(const struct layer *layer)
{
	struct wanted wanted = { 0 };

	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct expr_value *value = &layer->values[i];
		const char *text = value->set ? value->text : NULL;

		if (layer->info->params[i].type == XD_SERVER) {
			wanted.server = text;
		} else if (layer->info->params[i].type == XD_CREDENTIALS) {
			wanted.credentials = text;
			wanted.may_have = true;
		}
	}
	return wanted;
}

/* A certificate is made out to a name. */
static bool lacks_hostname(const struct settings *settings,
			   const struct wanted *wanted,
			   const struct server *server)
{
	const struct settings_credentials *found =
		settings_credentials(settings, wanted->credentials);

	return found && found->certs && !found->hostname && !server->host[0];
}

/* The reason that the layer's backend would have, NULL: it is content. */
static const char *fault_of(const struct layer *layer,
			    const struct settings *settings, char *buf,
			    size_t size)
{
	const struct wanted wanted = find_wanted(layer);
	char why[SETTINGS_TEXT_MAX];
	struct server server;
	const char *value;

	if (!wanted.may_have)
		return NULL;
	if (wanted.credentials &&
	    settings_credential(settings, wanted.credentials, "psk", &value,
				why) == -ENOENT) {
		(void)snprintf(buf, size, "%s", why);
		return buf;
	}
	if (!wanted.server || server_parse(wanted.server, &server, why) < 0)
		return NULL;
	if (server.tls && !wanted.credentials)
		return "TLS needs credentials=NAME, with pre-shared keys or "
		       "certificates";
	if (!server.tls && wanted.credentials)
		return "credentials are for TLS: nbds://...";
	if (server.tls && lacks_hostname(settings, &wanted, &server))
		return "a certificate is made out to a name: the credentials "
		       "need a hostname here";
	return NULL;
}

int expr_check_credentials(const struct layer *root,
			   const struct settings *settings,
			   struct expr_error *ret_error)
{
	char buf[SETTINGS_TEXT_MAX];
	const char *fault = fault_of(root, settings, buf, sizeof(buf));
	int r = 0;

	if (fault)
		return expr_fail(ret_error, root->position, "%s: %.200s",
				 root->info->name, fault);
	for (unsigned int i = 0; r == 0 && i < root->nr_below; i++)
		r = expr_check_credentials(root->below[i], settings, ret_error);
	return r;
}
