/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fake-bus.h"

#include <errno.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/exports.h"
#include "broker/store.h"
#include "common/util.h"

struct vbd {
	uint32_t domid;
	uint32_t devid;
};

static struct vbd disks[] = { { 5, 51728 }, { 7, 51712 } };

vbd_done_fn fake_pending_done;
void *fake_pending_ctx;

static const struct backend_info *no_backend(void *ctx, const char *name)
{
	(void)ctx;
	(void)name;
	return NULL;
}

struct expr_env broker_expr_env(struct broker *broker)
{
	(void)broker;
	return (struct expr_env){ .backend = no_backend, .scheme = no_backend };
}

void bus_each(struct bus *bus, bool (*fn)(void *ctx, struct vbd *vbd),
	      void *ctx)
{
	(void)bus;
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++)
		if (!fn(ctx, &disks[i]))
			return;
}

struct vbd *bus_find(struct bus *bus, uint32_t domid, uint32_t devid)
{
	(void)bus;
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++)
		if (disks[i].domid == domid && disks[i].devid == devid)
			return &disks[i];
	return NULL;
}

uint32_t bus_domid(const struct bus *bus)
{
	(void)bus;
	return 0;
}

struct store *bus_store(struct bus *bus)
{
	(void)bus;
	return NULL;
}

int store_read(struct store *store, const char *dir, const char *key,
	       char **ret)
{
	(void)store;
	(void)dir;
	if (strcmp(key, "name") != 0 && strcmp(key, "state") != 0)
		return -ENOENT;
	*ret = strdup(key[0] == 'n' ? "web1" : "4");
	return 0;
}

const char *node_kind_name(enum node_kind kind)
{
	(void)kind;
	return "vbd";
}

const struct node_address *vbd_address(const struct vbd *vbd)
{
	static const struct node_address at = { .domid = 5, .devid = 51728 };

	(void)vbd;
	return &at;
}

void vbd_view(const struct vbd *vbd, struct vbd_view *ret)
{
	*ret = (struct vbd_view){
		.domid = vbd->domid,
		.devid = vbd->devid,
		.vdev = "xvdb",
		.expression = "absent()",
		.given = vbd->domid == 5 ? "@web" : "/srv/a.img",
		.state = "connected",
		.size = 1 << 30,
		.sector_size = 512,
		.condition = { [MSG_PAUSED] = "no space\xff" },
		.notes = "",
		.backend_path = "backend",
		.frontend_path = "frontend",
	};
}

void vbd_hotplug_add(struct broker *broker, const char *xenbus_path,
		     vbd_done_fn done, void *ctx)
{
	(void)broker;
	if (strcmp(xenbus_path, "now") == 0) {
		done(ctx, -EBUSY, "in use");
		return;
	}
	fake_pending_done = done;
	fake_pending_ctx = ctx;
}

void vbd_hotplug_remove(struct broker *broker, const char *xenbus_path,
			vbd_done_fn done, void *ctx)
{
	(void)broker;
	(void)xenbus_path;
	done(ctx, -EIO, "the last flush failed");
}

void vbd_wait(struct vbd *vbd, vbd_done_fn done, void *ctx)
{
	(void)vbd;
	done(ctx, -ECANCELED, "the disk was closed");
}

void vbd_resize(struct vbd *vbd, uint64_t size, vbd_done_fn done, void *ctx)
{
	(void)vbd;
	if (size == 1)
		done(ctx, -EPERM, "it would shrink");
	else
		done(ctx, 0, NULL);
}

void vbd_resume(struct vbd *vbd, bool accept_loss, vbd_done_fn done, void *ctx)
{
	(void)vbd;
	(void)accept_loss;
	done(ctx, 0, NULL);
}

char fake_asked[MSG_CONTROL_MAX];

void vbd_control(struct vbd *vbd, const char *verb, const char *text,
		 vbd_done_fn done, void *ctx)
{
	(void)snprintf(fake_asked, sizeof(fake_asked), "%s: %s", verb, text);
	if (vbd->domid == 7)
		done(ctx, -EOPNOTSUPP, "");
	else if (strstr(text, "message=refuse\n"))
		done(ctx, -EBUSY, "git: 4 snapshots are pending");
	else if (strstr(text, "message=unnumbered\n"))
		done(ctx, 0, "number=7\n");
	else if (strcmp(verb, "snapshot") == 0)
		done(ctx, 0, "id=7\n");
	else
		done(ctx, 0,
		     "branch=main\ndirty=4096\nhead=1234\nspace=much\n"
		     "odd=\xff\n");
}

int exports_control(struct exports *exports, const char *name, const char *verb,
		    const char *text, vbd_done_fn done, void *ctx)
{
	(void)exports;
	if (strcmp(name, "web1") != 0)
		return -ENOENT;
	vbd_control(&disks[0], verb, text, done, ctx);
	return 0;
}

/* One export, of the first disk: "web1". */
void exports_each(struct exports *exports,
		  bool (*fn)(void *ctx, const struct exports_view *view),
		  void *ctx)
{
	const struct exports_view view = { .name = "web1",
					   .expression = "null",
					   .of_disk = true,
					   .domid = 5,
					   .devid = 51728,
					   .state = "open",
					   .path = "/run/nbd/web1.sock",
					   .size = 512 };

	(void)exports;
	(void)fn(ctx, &view);
}

void exports_add(struct exports *exports, const struct exports_spec *spec,
		 vbd_done_fn done, void *ctx)
{
	(void)exports;
	if (spec->name && strcmp(spec->name, "taken") == 0)
		done(ctx, -EBUSY, "there is an export \"taken\" already");
	else
		done(ctx, 0, "web1");
}

int exports_remove(struct exports *exports, const char *name)
{
	(void)exports;
	return strcmp(name, "web1") == 0 ? 0 : -ENOENT;
}
