/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export, exports and unexport: disks over NBD. */
#include "config.h"

#include <arpa/inet.h>
#include <string.h>

#include "command/client.h"
#include "command/device.h"
#include "command/tables.h"
#include "common/export-name.h"

#define TIMEOUT_S	 10
#define EXPORT_TIMEOUT_S 45 /* an expression is opened first */

/* --- What is asked for ---------------------------------------------------- */

/* "PORT" is "127.0.0.1:PORT".  NULL: it is no address and port. */
static char *tcp_place(const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	bool brackets = length > 2 && text[0] == '[' && text[length - 1] == ']';
	cleanup_free char *host = brackets ? strndup(text + 1, length - 2) :
				  length   ? strndup(text, length) :
					     strdup("127.0.0.1");
	unsigned char address[sizeof(struct in6_addr)];
	uint32_t port;

	if (!host || (colon && length == 0) ||
	    parse_u32(colon ? colon + 1 : text, 65535, &port) < 0 ||
	    port == 0 ||
	    inet_pton(brackets ? AF_INET6 : AF_INET, host, address) != 1)
		return NULL;
	return xasprintf(brackets ? "[%s]:%u" : "%s:%u", host, port);
}

/* The daemon has another current folder.  NULL: no memory. */
static char *absolute(const char *path)
{
	cleanup_free char *here = path[0] == '/' ? strdup("") : getcwd(NULL, 0);

	return here ? xasprintf("%s%s%s", here, *here ? "/" : "", path) : NULL;
}

static enum status add_tls(const struct invocation *call, json_t *params)
{
	const char *certs = option(call, "tls-certs");
	const char *psk = option(call, "tls-psk");
	cleanup_free char *path = NULL;

	if (!certs && !psk)
		return STATUS_DONE;
	if (certs && psk)
		return fail(STATUS_USAGE,
			    "export: --tls-certs or --tls-psk, not both");
	if (!option(call, "tcp"))
		return fail(STATUS_USAGE, "export: %s: only with --tcp",
			    certs ? "--tls-certs" : "--tls-psk");
	path = absolute(certs ? certs : psk);
	if (!path ||
	    json_object_set_new(params, certs ? "tls_certs" : "tls_psk",
				json_string(path)) < 0)
		return fail(STATUS_USAGE, "export: %s: not UTF-8 text",
			    certs ? "--tls-certs" : "--tls-psk");
	return STATUS_DONE;
}

static enum status add_options(const struct invocation *call, json_t *params)
{
	const char *name = option(call, "name");
	const char *tcp = option(call, "tcp");
	cleanup_free char *place = tcp ? tcp_place(tcp) : NULL;
	bool readonly = option(call, "readonly");
	bool force = option(call, "force");

	if (name && !is_export_name(name))
		return fail(STATUS_USAGE,
			    "export: --name: \"%s\" is no name of an export: "
			    "letters, digits, \".\", \"_\" and \"-\", not as "
			    "5-51728",
			    name);
	if (tcp && !place)
		return fail(STATUS_USAGE,
			    "export: --tcp: \"%s\" is no ADDR:PORT in numbers",
			    tcp);
	if (readonly && force)
		return fail(STATUS_USAGE, "export: --force: it is for writing, "
					  "with --readonly there is none");
	if (name)
		json_object_set_new(params, "name", json_string(name));
	if (place)
		json_object_set_new(params, "tcp", json_string(place));
	json_object_set_new(params, "readonly", json_boolean(readonly));
	json_object_set_new(params, "force", json_boolean(force));
	return add_tls(call, params);
}

/* DOM VDEV, or EXPR. */
static enum status what(const struct invocation *call, json_t **ret)
{
	if (call->nr_args == 2)
		return device_params(call, ret);
	if (option(call, "force"))
		return fail(STATUS_USAGE,
			    "export: --force: an expression has no guest");
	*ret = json_pack("{s:s}", "expression", call->args[0]);
	return *ret ? STATUS_DONE :
		      fail(STATUS_USAGE, "export: EXPR: not UTF-8 text");
}

/* A domain without its disk looks like a backend that there is not. */
static bool is_domain_alone(const struct invocation *call, const char *why)
{
	return call->nr_args == 1 && !strpbrk(call->args[0], "/:@(") &&
	       strstr(why, "there is no backend") && strstr(why, "; known: ");
}

enum status verb_export(const struct invocation *call)
{
	json_t *params = NULL;
	json_t *reply = NULL;
	cleanup_free char *why = NULL;
	enum status status = what(call, &params);

	if (status == STATUS_DONE)
		status = add_options(call, params);
	if (status != STATUS_DONE) {
		json_decref(params);
		return status;
	}
	status = client_try(call, "Export", params, EXPORT_TIMEOUT_S, &reply,
			    &why);
	if (status != STATUS_DONE && why && is_domain_alone(call, why)) {
		/* Which backends there are does not help him. */
		why[strcspn(why, ";")] = '\0';
		return fail(status, "export: %s; a guest's disk is DOM VDEV",
			    why);
	}
	if (status != STATUS_DONE)
		return fail(status, "export: %s", why ? why : "?");
	if (call->json)
		return print_json(reply);
	puts(member_text(json_object_get(reply, "export"), "uri"));
	json_decref(reply);
	return STATUS_DONE;
}

/* --- exports -------------------------------------------------------------- */

static const char *mode(json_t *export)
{
	if (json_is_true(json_object_get(export, "readonly")))
		return "ro";
	return json_is_true(json_object_get(export, "force")) ? "rw, forced" :
								"rw";
}

static int add_export(struct table *table, json_t *export)
{
	json_t *domid = json_object_get(export, "domid");
	char id[24] = "", size[32];
	const char *const cells[] = {
		member_text(export, "name"),
		id,
		member_text(export, "vdev"),
		member_text(export, "state"),
		size,
		mode(export),
		member_text(export, "uri"),
		member_text(export, "expression"),
	};

	if (domid)
		(void)snprintf(id, sizeof(id), "%lld",
			       (long long)json_integer_value(domid));
	print_size(size, sizeof(size), (uint64_t)member_number(export, "size"));
	return table_add(table, cells);
}

enum status verb_exports(const struct invocation *call)
{
	static const struct column columns[] = {
		{ .title = "NAME" },
		{ .title = "ID", .right = true },
		{ .title = "VDEV" },
		{ .title = "STATE" },
		{ .title = "SIZE", .right = true },
		{ .title = "MODE" },
		{ .title = "URI" },
		{ .title = "EXPRESSION", .truncate = true },
	};
	struct table *table;
	json_t *reply = NULL;
	json_t *export;
	enum status status;
	size_t i;
	int r;

	status = client_call(call, "Exports", NULL, TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	r = table_new(&table, columns, ARRAY_SIZE(columns));
	if (r < 0)
		return fail(STATUS_FAILED, "exports: %s", strerror(-r));
	json_array_foreach(json_object_get(reply, "exports"), i, export)
	{
		if (add_export(table, export) < 0)
			break;
	}
	status = table_print(table);
	json_decref(reply);
	return status;
}

enum status verb_unexport(const struct invocation *call)
{
	json_t *params = json_pack("{s:s}", "name", call->args[0]);
	json_t *reply = NULL;
	enum status status;

	if (!params)
		return fail(STATUS_USAGE, "unexport: EXPORT: not UTF-8 text");
	status = client_call(call, "Unexport", params, TIMEOUT_S, &reply);
	json_decref(reply);
	return status;
}
