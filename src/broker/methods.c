/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/methods.h"

#include <inttypes.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/control.h"
#include "broker/io.xendisk.varlink.h"
#include "broker/methods-private.h"
#include "broker/stats.h"
#include "broker/store.h"
#include "broker/view.h"
#include "common/expr-credentials.h"
#include "common/util.h"
#include "common/vdev.h"

/* --- Errors --------------------------------------------------------------- */

void method_fail(struct call *call, const char *error, const char *message)
{
	json_t *text = json_string(message);

	/* A reason may quote bytes of a guest or a file name. */
	if (!text)
		text = json_string("the reason is not UTF-8 text");
	call_error(call, error, json_pack("{s:o}", "message", text));
}

void method_fail_errno(struct call *call, int err, const char *why)
{
	static const int refusals[] = { -EBUSY, -EROFS,	   -EACCES,
					-EPERM, -EALREADY, -EOPNOTSUPP };
	const char *error = "io.xendisk.Failed";

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if (err == refusals[i])
			error = "io.xendisk.Refused";
	method_fail(call, error, why && why[0] ? why : strerror(-err));
}

void method_wrong_parameter(struct call *call, const char *name)
{
	call_error(call, "org.varlink.service.InvalidParameter",
		   json_pack("{s:s}", "parameter", name));
}

/* --- Parameters ----------------------------------------------------------- */

/* Checked for its type already; -ERANGE when it is no uint32_t. */
static int get_u32(const json_t *params, const char *name, uint32_t *ret)
{
	json_int_t value = json_integer_value(json_object_get(params, name));

	if (value < 0 || value > UINT32_MAX)
		return -ERANGE;
	*ret = (uint32_t)value;
	return 0;
}

const char *method_text(const json_t *params, const char *name)
{
	return json_string_value(json_object_get(params, name));
}

char *method_domain_name(struct call *call, uint32_t domid)
{
	char *name = NULL;
	char dir[40];

	(void)snprintf(dir, sizeof(dir), "/local/domain/%" PRIu32, domid);
	if (store_read(bus_store(call_broker(call)->bus), dir, "name", &name) <
	    0)
		return NULL;
	return name;
}

struct names {
	FILE *out;
	uint32_t domid;
	unsigned int nr;
};

static bool print_name(void *ctx, struct vbd *vbd)
{
	struct names *names = ctx;
	struct vbd_view view;

	vbd_view(vbd, &view);
	if (view.domid == names->domid)
		fprintf(names->out, "%s%s", names->nr++ ? ", " : "; it has ",
			view.vdev);
	return true;
}

/* Names the domain as it may have been typed, and what may have been meant. */
static void fail_no_disk(struct call *call, uint32_t domid, uint32_t devid)
{
	cleanup_free char *name = method_domain_name(call, domid);
	cleanup_free char *text = NULL;
	struct names names = { .domid = domid };
	char vdev[32];
	size_t size;

	vdev_print(vdev, sizeof(vdev), devid);
	names.out = open_memstream(&text, &size);
	if (names.out) {
		fprintf(names.out, "domain %" PRIu32, domid);
		if (name)
			fprintf(names.out, " (%s)", name);
		fprintf(names.out, " has no disk %s of xendiskd's", vdev);
		bus_each(call_broker(call)->bus, print_name, &names);
		(void)fclose(names.out);
	}
	method_fail(call, "io.xendisk.NoSuchDisk", text ? text : "no memory");
}

struct vbd *method_disk(struct call *call, const json_t *params)
{
	struct vbd *vbd = NULL;
	uint32_t domid;
	uint32_t devid;

	if (get_u32(params, "domid", &domid) < 0) {
		method_wrong_parameter(call, "domid");
		return NULL;
	}
	if (get_u32(params, "devid", &devid) < 0) {
		method_wrong_parameter(call, "devid");
		return NULL;
	}
	vbd = bus_find(call_broker(call)->bus, domid, devid);
	if (!vbd)
		fail_no_disk(call, domid, devid);
	return vbd;
}

/* --- io.xendisk ----------------------------------------------------------- */

struct listing {
	struct broker *broker;
	json_t *disks;
	bool one_domain;
	uint32_t domid;
};

static bool list_one(void *ctx, struct vbd *vbd)
{
	struct listing *listing = ctx;
	struct vbd_view view;

	vbd_view(vbd, &view);
	if (!listing->one_domain || view.domid == listing->domid)
		json_array_append_new(listing->disks,
				      view_disk(listing->broker, vbd));
	return true;
}

static void run_list(struct call *call, const json_t *params)
{
	struct listing listing = { .broker = call_broker(call),
				   .one_domain =
					   json_object_get(params, "domid") };

	if (listing.one_domain &&
	    get_u32(params, "domid", &listing.domid) < 0) {
		method_wrong_parameter(call, "domid");
		return;
	}
	listing.disks = json_array();
	bus_each(listing.broker->bus, list_one, &listing);
	call_reply(call, json_pack("{s:o}", "disks", listing.disks));
}

static void run_show(struct call *call, const json_t *params)
{
	struct vbd *vbd = method_disk(call, params);
	struct vbd_view view;
	struct broker *broker;

	if (!vbd)
		return;
	broker = call_broker(call);
	vbd_view(vbd, &view);
	call_reply(call,
		   json_pack("{s:o, s:o, s:o, s:o}", "disk",
			     view_disk(broker, vbd), "tree",
			     view_stack(broker, vbd), "backend",
			     view_keys(broker, view.backend_path, false),
			     "frontend",
			     view_keys(broker, view.frontend_path, true)));
}

/* A worker that has spoilt its counters does not keep others from being told. */
static bool count_one(void *ctx, struct vbd *vbd)
{
	struct listing *listing = ctx;
	json_t *disk;

	if (stats_view(listing->broker, vbd, &disk) == 0)
		json_array_append_new(listing->disks, disk);
	return true;
}

static void count_disk(struct call *call, const json_t *params)
{
	struct vbd *vbd = method_disk(call, params);
	json_t *disk;
	int r;

	if (!vbd)
		return;
	r = stats_view(call_broker(call), vbd, &disk);
	if (r < 0)
		method_fail_errno(call, r,
				  r == -EPROTO ?
					  "the counters are not understood" :
					  NULL);
	else
		call_reply(call, json_pack("{s:[o]}", "disks", disk));
}

static void run_stats(struct call *call, const json_t *params)
{
	struct listing listing = { .broker = call_broker(call) };
	bool domid = json_object_get(params, "domid");
	bool devid = json_object_get(params, "devid");

	if (domid != devid) {
		method_wrong_parameter(call, domid ? "devid" : "domid");
	} else if (domid) {
		count_disk(call, params);
	} else {
		listing.disks = json_array();
		bus_each(listing.broker->bus, count_one, &listing);
		call_reply(call, json_pack("{s:o}", "disks", listing.disks));
	}
}

/* A call that waits for something to happen to a disk. */
struct waiting {
	struct call *call;
	struct vbd *vbd;
};

static void disk_ended(void *ctx, int err, const char *why)
{
	cleanup_free struct waiting *waiting = ctx;
	struct call *call = waiting->call;
	json_t *disk = NULL;

	if (err == 0) {
		err = stats_view(call_broker(call), waiting->vbd, &disk);
		why = "the counters are not understood";
	}
	if (err < 0)
		method_fail_errno(call, err, why);
	else
		call_reply(call, json_pack("{s:o}", "stats", disk));
}

/* NULL: the call has been answered. */
static struct waiting *new_waiting(struct call *call, const json_t *params)
{
	struct vbd *vbd = method_disk(call, params);
	struct waiting *waiting = vbd ? malloc(sizeof(*waiting)) : NULL;

	if (waiting)
		*waiting = (struct waiting){ call, vbd };
	else if (vbd)
		method_fail_errno(call, -ENOMEM, NULL);
	return waiting;
}

static void run_wait(struct call *call, const json_t *params)
{
	struct waiting *waiting = new_waiting(call, params);

	if (waiting)
		vbd_wait(waiting->vbd, disk_ended, waiting);
}

static void run_check(struct call *call, const json_t *params)
{
	struct expr_env env = broker_expr_env(call_broker(call));
	struct expr_error error;
	struct layer *root = NULL;
	cleanup_free char *canonical = NULL;
	int r = expr_parse(method_text(params, "expression"),
			   json_is_true(json_object_get(params, "readonly")),
			   &env, &root, &error);

	if (r == 0)
		r = expr_check_credentials(root, call_broker(call)->settings,
					   &error);
	canonical = r == 0 ? expr_print(root) : NULL;
	if (r == -EINVAL)
		call_reply(call,
			   json_pack("{s:b, s:I, s:s}", "ok", 0, "position",
				     (json_int_t)error.position, "message",
				     error.message));
	else if (r < 0)
		method_fail_errno(call, r, NULL);
	else
		call_reply(call,
			   json_pack("{s:b, s:s*, s:o}", "ok", 1, "canonical",
				     canonical, "tree", view_layer(root, "")));
	expr_free(root);
}

static void run_backends(struct call *call, const json_t *params)
{
	const struct registry *registry = call_broker(call)->registry;
	const char *name = method_text(params, "name");
	json_t *backends = json_array();
	struct registry_entry entry;

	for (size_t i = 0; registry_entry(registry, i, &entry); i++)
		if (!name || strcmp(name, entry.name) == 0)
			json_array_append_new(backends, view_backend(&entry));
	call_reply(call, json_pack("{s:o}", "backends", backends));
}

static void run_version(struct call *call, const json_t *params)
{
	(void)params;
	call_reply(call,
		   json_pack("{s:s, s:I}", "version", PACKAGE_VERSION, "domid",
			     (json_int_t)bus_domid(call_broker(call)->bus)));
}

/* Of the operations that end later. */
static void operation_done(void *ctx, int err, const char *why)
{
	struct call *call = ctx;

	if (err)
		method_fail_errno(call, err, why);
	else
		call_reply(call, json_object());
}

static void run_resume(struct call *call, const json_t *params)
{
	struct vbd *vbd = method_disk(call, params);

	if (vbd)
		vbd_resume(vbd,
			   json_is_true(json_object_get(params, "accept_loss")),
			   operation_done, call);
}

static void disk_resized(void *ctx, int err, const char *why)
{
	cleanup_free struct waiting *waiting = ctx;
	struct vbd_view view;

	if (err) {
		method_fail_errno(waiting->call, err, why);
		return;
	}
	vbd_view(waiting->vbd, &view);
	call_reply(waiting->call,
		   json_pack("{s:I}", "size", (json_int_t)view.size));
}

static void run_resize(struct call *call, const json_t *params)
{
	json_t *size = json_object_get(params, "size");
	struct waiting *waiting;

	if (size && json_integer_value(size) <= 0) {
		method_wrong_parameter(call, "size");
		return;
	}
	waiting = new_waiting(call, params);
	if (waiting)
		vbd_resize(waiting->vbd, (uint64_t)json_integer_value(size),
			   disk_resized, waiting);
}

/* --- The hotplug script --------------------------------------------------- */

static void run_hotplug_add(struct call *call, const json_t *params)
{
	vbd_hotplug_add(call_broker(call), method_text(params, "path"),
			operation_done, call);
}

static void run_hotplug_remove(struct call *call, const json_t *params)
{
	vbd_hotplug_remove(call_broker(call), method_text(params, "path"),
			   operation_done, call);
}

/* --- org.varlink.service -------------------------------------------------- */

#define SERVICE "org.varlink.service"

static const char service_description[] =
	"# What every Varlink service answers.\n"
	"interface org.varlink.service\n\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, "
	"url: string, interfaces: []string)\n"
	"method GetInterfaceDescription(interface: string) -> "
	"(description: string)\n\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error MethodNotImplemented (method: string)\n"
	"error InvalidParameter (parameter: string)\n";

static void run_get_info(struct call *call, const json_t *params)
{
	(void)params;
	call_reply(call, json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor",
				   "xendisk", "product", "xendiskd", "version",
				   PACKAGE_VERSION, "url", "", "interfaces",
				   SERVICE, "io.xendisk"));
}

static void run_get_description(struct call *call, const json_t *params)
{
	const char *interface = method_text(params, "interface");
	const char *text = NULL;

	if (strcmp(interface, SERVICE) == 0)
		text = service_description;
	else if (strcmp(interface, "io.xendisk") == 0)
		text = io_xendisk_description;
	if (text)
		call_reply(call, json_pack("{s:s}", "description", text));
	else
		call_error(call, SERVICE ".InterfaceNotFound",
			   json_pack("{s:s}", "interface", interface));
}

/* --- The table ------------------------------------------------------------ */

#define INT(name, required)                  \
	{                                    \
		name, JSON_INTEGER, required \
	}
#define TEXT(name, required)                \
	{                                   \
		name, JSON_STRING, required \
	}
#define BOOL(name, required)               \
	{                                  \
		name, JSON_FALSE, required \
	}
#define NOTHING                        \
	{                              \
		NULL, JSON_NULL, false \
	}

const struct method methods[] = {
	{ "io.xendisk.List", { INT("domid", false) }, run_list },
	{ "io.xendisk.Show",
	  { INT("domid", true), INT("devid", true) },
	  run_show },
	{ "io.xendisk.Stats",
	  { INT("domid", false), INT("devid", false) },
	  run_stats },
	{ "io.xendisk.Wait",
	  { INT("domid", true), INT("devid", true) },
	  run_wait },
	{ "io.xendisk.Check",
	  { TEXT("expression", true), BOOL("readonly", false) },
	  run_check },
	{ "io.xendisk.Backends", { TEXT("name", false) }, run_backends },
	{ "io.xendisk.Version", { NOTHING }, run_version },
	{ "io.xendisk.Resume",
	  { INT("domid", true), INT("devid", true), BOOL("accept_loss", true) },
	  run_resume },
	{ "io.xendisk.Resize",
	  { INT("domid", true), INT("devid", true), INT("size", false) },
	  run_resize },
	{ "io.xendisk.Snapshot",
	  { INT("domid", false), INT("devid", false), TEXT("name", false),
	    TEXT("message", false), TEXT("consistency", false) },
	  method_snapshot },
	{ "io.xendisk.Status",
	  { INT("domid", false), INT("devid", false), TEXT("name", false),
	    INT("id", false) },
	  method_status },
	{ "io.xendisk.Export",
	  { INT("domid", false), INT("devid", false), TEXT("expression", false),
	    TEXT("name", false), TEXT("tcp", false), TEXT("tls_certs", false),
	    TEXT("tls_psk", false), BOOL("readonly", false),
	    BOOL("force", false) },
	  method_export },
	{ "io.xendisk.Exports", { NOTHING }, method_exports },
	{ "io.xendisk.Unexport", { TEXT("name", true) }, method_unexport },
	{ "io.xendisk.HotplugAdd", { TEXT("path", true) }, run_hotplug_add },
	{ "io.xendisk.HotplugRemove",
	  { TEXT("path", true) },
	  run_hotplug_remove },
	{ SERVICE ".GetInfo", { NOTHING }, run_get_info },
	{ SERVICE ".GetInterfaceDescription",
	  { TEXT("interface", true) },
	  run_get_description },
	{ NULL, { NOTHING }, NULL },
};

static const struct method *find_method(const char *name)
{
	for (const struct method *method = methods; method->name; method++)
		if (strcmp(method->name, name) == 0)
			return method;
	return NULL;
}

static const struct method_param *find_param(const struct method *method,
					     const char *name)
{
	for (size_t i = 0; i < METHOD_MAX_PARAMS; i++) {
		const struct method_param *param = &method->params[i];

		if (param->name && strcmp(param->name, name) == 0)
			return param;
	}
	return NULL;
}

static bool fits(const json_t *value, const struct method_param *param)
{
	if (param->type == JSON_FALSE)
		return json_is_boolean(value);
	return json_typeof(value) == param->type;
}

/* Takes out nulls, which mean "not given".  Returns the name of a parameter
 * that is unknown, missing or of the wrong type, or NULL. */
static const char *check_params(const struct method *method, json_t *params)
{
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(params, next, key, value)
	{
		const struct method_param *param = find_param(method, key);

		if (!param)
			return key;
		if (json_is_null(value) && !param->required)
			(void)json_object_del(params, key);
		else if (!fits(value, param))
			return key;
	}
	for (size_t i = 0; i < METHOD_MAX_PARAMS; i++) {
		const struct method_param *param = &method->params[i];

		if (param->name && param->required &&
		    !json_object_get(params, param->name))
			return param->name;
	}
	return NULL;
}

static bool known_interface(const char *name, size_t length)
{
	static const char *const known[] = { "io.xendisk", SERVICE };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strlen(known[i]) == length &&
		    strncmp(known[i], name, length) == 0)
			return true;
	return false;
}

static void no_such_method(struct call *call, const char *name)
{
	const char *dot = strrchr(name, '.');
	size_t length = dot ? (size_t)(dot - name) : 0;

	if (known_interface(name, length))
		call_error(call, SERVICE ".MethodNotFound",
			   json_pack("{s:s}", "method", name));
	else
		call_error(call, SERVICE ".InterfaceNotFound",
			   json_pack("{s:s%}", "interface", name, length));
}

void methods_dispatch(struct call *call, const char *name, const json_t *params)
{
	const struct method *method = find_method(name);
	json_t *own = params ? json_deep_copy(params) : json_object();
	const char *wrong;

	if (!method) {
		no_such_method(call, name);
	} else if (!own) {
		method_fail(call, "io.xendisk.Failed", "no memory");
	} else {
		wrong = check_params(method, own);
		if (wrong)
			method_wrong_parameter(call, wrong);
		else
			method->run(call, own);
	}
	json_decref(own);
}
