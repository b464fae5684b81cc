/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * methods-export.c - Export, Exports, Unexport: disks that the operator exports.
 */
#include "config.h"

#include <string.h>

#include "broker/broker.h"
#include "broker/exports.h"
#include "broker/methods-private.h"
#include "broker/view.h"
#include "common/suggest.h"
#include "common/util.h"

struct wanted_export {
	struct call *call;
	const char *name;
	json_t *export;
};

static bool view_if_wanted(void *ctx, const struct exports_view *view)
{
	struct wanted_export *wanted = ctx;

	if (strcmp(view->name, wanted->name) != 0)
		return true;
	wanted->export = view_export(call_broker(wanted->call), view);
	return false;
}

/* text: the name, or why there is none. */
static void exported(void *ctx, int err, const char *text)
{
	struct wanted_export wanted = { .call = ctx, .name = text };

	if (err) {
		method_fail_errno(ctx, err, text);
		return;
	}
	exports_each(call_broker(ctx)->exports, view_if_wanted, &wanted);
	call_reply(ctx, json_pack("{s:o}", "export", wanted.export));
}

void method_export(struct call *call, const json_t *params)
{
	struct exports_spec spec = {
		.name = method_text(params, "name"),
		.expression = method_text(params, "expression"),
		.tcp = method_text(params, "tcp"),
		.tls_certs = method_text(params, "tls_certs"),
		.tls_psk = method_text(params, "tls_psk"),
		.readonly = json_is_true(json_object_get(params, "readonly")),
		.force = json_is_true(json_object_get(params, "force")),
	};
	bool domid = json_object_get(params, "domid");
	bool devid = json_object_get(params, "devid");

	if (domid != devid || domid == (spec.expression != NULL)) {
		method_wrong_parameter(call, domid && !devid ? "devid" :
					     spec.expression ? "expression" :
							       "domid");
		return;
	}
	if (spec.tls_certs ? !spec.tcp || spec.tls_psk :
			     spec.tls_psk && !spec.tcp) {
		method_wrong_parameter(call, "tls_psk");
		return;
	}
	if (domid) {
		const struct vbd *vbd = method_disk(call, params);

		if (!vbd)
			return;
		spec.domid = vbd_address(vbd)->domid;
		spec.devid = vbd_address(vbd)->devid;
	}
	exports_add(call_broker(call)->exports, &spec, exported, call);
}

struct export_listing {
	struct broker *broker;
	json_t *exports;
};

static bool list_export(void *ctx, const struct exports_view *view)
{
	struct export_listing *listing = ctx;

	json_array_append_new(listing->exports,
			      view_export(listing->broker, view));
	return true;
}

void method_exports(struct call *call, const json_t *params)
{
	struct export_listing listing = { call_broker(call), json_array() };

	(void)params;
	exports_each(listing.broker->exports, list_export, &listing);
	call_reply(call, json_pack("{s:o}", "exports", listing.exports));
}

static bool suggest_export(void *ctx, const struct exports_view *view)
{
	suggest_add(ctx, view->name);
	return true;
}

void method_fail_no_export(struct call *call, const char *name,
			   const char *advice)
{
	struct suggest s = { .typed = name };
	char message[MSG_TEXT_MAX];

	exports_each(call_broker(call)->exports, suggest_export, &s);
	(void)snprintf(message, sizeof(message),
		       "there is no export \"%.200s\"%s%s", name,
		       suggest_text(&s, "; known: "), advice);
	method_fail(call, "io.xendisk.NoSuchExport", message);
}

void method_unexport(struct call *call, const json_t *params)
{
	const char *name = method_text(params, "name");

	if (exports_remove(call_broker(call)->exports, name) == 0)
		call_reply(call, json_object());
	else
		method_fail_no_export(call, name, "");
}
