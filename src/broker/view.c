/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/view.h"

#include <inttypes.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/exports.h"
#include "broker/store.h"
#include "common/util.h"
#include "common/vdev.h"

/* --- A disk --------------------------------------------------------------- */

static const char *const condition_words[MSG_NR_CONDITIONS] = {
	[MSG_PAUSED] = "paused",
	[MSG_POISONED] = "poisoned",
	[MSG_RECOVERING] = "recovering",
	[MSG_FINISHING] = "finishing",
};

static json_t *view_conditions(const struct vbd_view *view)
{
	json_t *array = json_array();

	for (size_t i = 0; i < MSG_NR_CONDITIONS; i++)
		if (view->condition[i])
			json_array_append_new(array,
					      json_string(condition_words[i]));
	return array;
}

/* The failure, or the first condition's reason. */
static const char *reason(const struct vbd_view *view)
{
	if (view->failure)
		return view->failure;
	for (size_t i = 0; i < MSG_NR_CONDITIONS; i++)
		if (view->condition[i])
			return view->condition[i];
	return NULL;
}

/* Text from outside may be no UTF-8, which JSON cannot hold. */
static json_t *any_text(const char *text)
{
	json_t *string = json_string(text);

	return string ? string : json_string("(not UTF-8)");
}

static json_t *domain_name(struct broker *broker, uint32_t domid)
{
	cleanup_free char *name = NULL;
	char dir[40];

	(void)snprintf(dir, sizeof(dir), "/local/domain/%" PRIu32, domid);
	if (store_read(bus_store(broker->bus), dir, "name", &name) < 0)
		return json_string("");
	return any_text(name);
}

/* What a client is to be given. */
static json_t *export_uri(const struct exports_view *view)
{
	if (view->tcp)
		return json_sprintf("nbd%s://%s/%s", view->tls ? "s" : "",
				    view->tcp, view->name);
	return json_sprintf("nbd+unix:///%s?socket=%s", view->name, view->path);
}

/* Those that are nobody's disk have no place. */
static void add_place(json_t *object, struct broker *broker,
		      const struct exports_view *view)
{
	char vdev[32];

	vdev_print(vdev, sizeof(vdev), view->devid);
	(void)json_object_set_new(object, "domid", json_integer(view->domid));
	(void)json_object_set_new(object, "domain",
				  domain_name(broker, view->domid));
	(void)json_object_set_new(object, "vdev", json_string(vdev));
	(void)json_object_set_new(object, "devid", json_integer(view->devid));
}

json_t *view_export(struct broker *broker, const struct exports_view *view)
{
	json_t *object = json_pack(
		"{s:s, s:o, s:s, s:I, s:b, s:b, s:s, s:s*, s:b, s:o}", "name",
		view->name, "expression", any_text(view->expression), "state",
		view->state, "size", (json_int_t)view->size, "readonly",
		view->readonly, "force", view->force, "socket", view->path,
		"tcp", view->tcp, "tls", view->tls, "uri", export_uri(view));

	if (object && view->of_disk)
		add_place(object, broker, view);
	return object;
}

json_t *view_disk(struct broker *broker, const struct vbd *vbd)
{
	struct vbd_view view;
	const char *why;

	vbd_view(vbd, &view);
	why = reason(&view);
	return json_pack(
		"{s:I, s:o, s:s, s:I, s:s, s:o, s:s, s:o, s:o*, s:I, s:I, s:I, "
		"s:b, s:I, s:I, s:I, s:I}",
		"domid", (json_int_t)view.domid, "domain",
		domain_name(broker, view.domid), "vdev", view.vdev, "devid",
		(json_int_t)view.devid, "kind", node_kind_name(view.kind),
		"expression", any_text(view.expression), "state", view.state,
		"conditions", view_conditions(&view), "reason",
		why ? any_text(why) : NULL, "size", (json_int_t)view.size,
		"sector_size", (json_int_t)view.sector_size,
		"physical_sector_size", (json_int_t)view.physical_sector_size,
		"readonly", (int)view.readonly, "queues",
		(json_int_t)view.queues, "ring_page_order",
		(json_int_t)view.ring_page_order, "worker_pid",
		(json_int_t)view.worker_pid, "restarts",
		(json_int_t)view.restarts);
}

/* --- A stack -------------------------------------------------------------- */

/* The lines that begin with this layer's number. */
static json_t *notes_of(const struct layer *layer, const char *notes)
{
	json_t *array = json_array();

	while (*notes) {
		size_t length = strcspn(notes, "\n");
		unsigned int index;
		int skip = 0;

		if (sscanf(notes, "%u %*s %n", &index, &skip) == 1 &&
		    skip > 0 && (size_t)skip < length && index == layer->index)
			json_array_append_new(
				array, json_stringn(notes + skip,
						    length - (size_t)skip));
		notes += length + (notes[length] == '\n');
	}
	return array;
}

/* Of a parameter that may be repeated: "a, b". */
static json_t *view_value(const struct xd_param *param, const char *text)
{
	cleanup_free char *all = NULL;
	size_t size;
	FILE *out;

	if (!(param->flags & XD_REPEATED))
		return any_text(text);
	out = open_memstream(&all, &size);
	if (!out)
		return NULL;
	for (const char *p = text; *p; p += strlen(p) + 1)
		fprintf(out, "%s%s", p == text ? "" : ", ", p);
	return fclose(out) == 0 ? any_text(all) : NULL;
}

json_t *view_layer(const struct layer *layer, const char *notes)
{
	json_t *parameters = json_object();
	json_t *below = json_array();

	for (unsigned int i = 0; i < layer->info->nr_params; i++)
		if (layer->values[i].set && layer->values[i].text)
			json_object_set_new(parameters,
					    layer->info->params[i].name,
					    view_value(&layer->info->params[i],
						       layer->values[i].text));
	for (unsigned int i = 0; i < layer->nr_below; i++)
		json_array_append_new(below,
				      view_layer(layer->below[i], notes));
	return json_pack("{s:s, s:o, s:o, s:o}", "backend", layer->info->name,
			 "parameters", parameters, "notes",
			 notes_of(layer, notes), "below", below);
}

json_t *view_stack(struct broker *broker, const struct vbd *vbd)
{
	struct expr_env env = broker_expr_env(broker);
	struct expr_error error;
	struct vbd_view view;
	struct layer *root;
	json_t *tree;

	vbd_view(vbd, &view);
	if (expr_parse(view.expression, view.readonly, &env, &root, &error) < 0)
		return json_null();
	tree = view_layer(root, view.notes);
	expr_free(root);
	return tree;
}

/* --- A backend ------------------------------------------------------------ */

static const char *const type_words[] = {
	[XD_DISK] = "disk",	[XD_PATH] = "path",
	[XD_STRING] = "string", [XD_SIZE] = "size",
	[XD_TIME] = "time",	[XD_UINT] = "number",
	[XD_BOOL] = "bool",	[XD_ENUM] = "enum",
	[XD_SERVER] = "server", [XD_CREDENTIALS] = "credentials",
};

/* "a|b|c" as an array. */
static json_t *view_choices(const char *choices)
{
	json_t *array = json_array();

	while (choices && *choices) {
		size_t length = strcspn(choices, "|");

		json_array_append_new(array, json_stringn(choices, length));
		choices += length + (choices[length] == '|');
	}
	return array;
}

static json_t *view_param(const struct xd_param *param)
{
	return json_pack(
		"{s:s, s:s, s:b, s:b, s:b, s:o, s:s*, s:s}", "name",
		param->name, "type", type_words[param->type], "positional",
		(param->flags & XD_POSITIONAL) != 0, "required",
		(param->flags & XD_REQUIRED) != 0, "repeated",
		(param->flags & XD_REPEATED) != 0, "choices",
		view_choices(param->type == XD_ENUM ? param->choices : NULL),
		"preset", param->preset, "help",
		param->help ? param->help : "");
}

static json_t *view_schemes(const char *schemes)
{
	json_t *array = json_array();

	for (; schemes && *schemes; schemes += strlen(schemes) + 1)
		json_array_append_new(array, json_string(schemes));
	return array;
}

json_t *view_backend(const struct registry_entry *entry)
{
	const struct backend_info *info = entry->info;
	json_t *params = json_array();

	for (unsigned int i = 0; info && i < info->nr_params; i++)
		json_array_append_new(params, view_param(&info->params[i]));
	return json_pack("{s:s, s:s, s:o, s:o, s:o*}", "name", entry->name,
			 "summary", info ? info->summary : "", "schemes",
			 view_schemes(info ? info->schemes : NULL),
			 "parameters", params, "error",
			 entry->error ? any_text(entry->error) : NULL);
}

/* --- xenstore ------------------------------------------------------------- */

/* Exact names only: a guest may fill its folder with anything. */
static const char *const backend_keys[] = {
	"state",
	"hotplug-status",
	"hotplug-error",
	"frontend",
	"online",
	"removable",
	"bootable",
	"dev",
	"type",
	"mode",
	"device-type",
	"script",
	"params",
	"target",
	"discard-enable",
	"sectors",
	"info",
	"sector-size",
	"physical-sector-size",
	"feature-flush-cache",
	"feature-barrier",
	"feature-discard",
	"discard-granularity",
	"discard-alignment",
	"discard-secure",
	"feature-persistent",
	"feature-max-indirect-segments",
	"max-ring-page-order",
	"max-ring-pages",
	"multi-queue-max-queues",
	"xendisk-commit",
	NULL,
};

static const char *const frontend_keys[] = {
	"state",
	"backend",
	"backend-id",
	"virtual-device",
	"device-type",
	"protocol",
	"multi-queue-num-queues",
	"ring-page-order",
	"num-ring-pages",
	"ring-ref",
	"ring-ref0",
	"event-channel",
	"feature-persistent",
	NULL,
};

json_t *view_keys(struct broker *broker, const char *dir, bool frontend)
{
	const char *const *key = frontend ? frontend_keys : backend_keys;
	json_t *object = json_object();

	for (; *key; key++) {
		cleanup_free char *value = NULL;

		if (store_read(bus_store(broker->bus), dir, *key, &value) == 0)
			json_object_set_new(object, *key, any_text(value));
	}
	return object;
}
