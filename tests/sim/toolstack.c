/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Laid out in the order in which libxl does it: names, keys, waits, hotplug
 * script, removal.  Function names of libxl are in the comments.
 */
#include "config.h"

#include "toolstack.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xenstore.h>

#define STATE_TIMEOUT_S	  10 /* LIBXL_INIT_TIMEOUT, LIBXL_DESTROY_TIMEOUT */
#define HOTPLUG_TIMEOUT_S 40 /* LIBXL_HOTPLUG_TIMEOUT */

/* One device, with all the paths it has. */
struct device {
	struct xs_handle *xs;
	uint32_t domid, backend_domid, devid;
	char kind[32];
	char frontend[128], backend[128], libxl[128];
};

/* A key on its way into the directories. */
struct key {
	const char *name;
	const char *value;
};

__attribute__((format(printf, 2, 3))) static void
complain(const struct device *d, const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "libxl: error: Domain %u:", d->domid);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* Tests of failures need not wait as long as people do. */
static int timeout_ms(int seconds)
{
	const char *s = getenv("XENSIM_LIBXL_TIMEOUT");
	int limit = s ? atoi(s) : seconds;

	return 1000 * (limit < seconds ? limit : seconds);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- Names (libxl__device_disk_dev_number) --------------------------------------- */

/* "ba12": disk 26, partition 12. */
static bool parse_letters(const char *s, unsigned *disk, unsigned *part)
{
	unsigned n = 0;
	char *end;

	if (!islower((unsigned char)*s))
		return false;
	for (; islower((unsigned char)*s) && n < 1u << 20; s++)
		n = n * 26 + (unsigned)(*s - 'a' + 1);
	*disk = n - 1;
	*part = (unsigned)strtoul(s, &end, 10);
	return !*end && (!*s || isdigit((unsigned char)*s));
}

/* libxl__device_disk_dev_number; -EINVAL. */
static int parse_devid(const char *vdev, uint32_t *ret_devid)
{
	unsigned disk, part;
	char *end;
	unsigned long n = strtoul(vdev, &end, 0);

	if (*vdev && !*end && n < UINT32_MAX) {
		*ret_devid = (uint32_t)n;
		return 0;
	}
	if (!strncmp(vdev, "xvd", 3) && parse_letters(vdev + 3, &disk, &part) &&
	    part < 256) {
		*ret_devid = disk < 16 && part < 16 ?
				     202 << 8 | disk << 4 | part :
				     1 << 28 | disk << 8 | part;
		return 0;
	}
	if (!strncmp(vdev, "hd", 2) && parse_letters(vdev + 2, &disk, &part) &&
	    disk < 4 && part < 64) {
		*ret_devid = (disk < 2 ? 3u : 22u) << 8 | (disk & 1) << 6 |
			     part;
		return 0;
	}
	if (!strncmp(vdev, "sd", 2) && parse_letters(vdev + 2, &disk, &part) &&
	    disk < 16 && part < 16) {
		*ret_devid = 8 << 8 | disk << 4 | part;
		return 0;
	}
	return -EINVAL;
}

static void name_paths(struct device *d)
{
	snprintf(d->frontend, sizeof(d->frontend),
		 "/local/domain/%u/device/vbd/%u", d->domid, d->devid);
	snprintf(d->backend, sizeof(d->backend),
		 "/local/domain/%u/backend/%s/%u/%u", d->backend_domid, d->kind,
		 d->domid, d->devid);
	snprintf(d->libxl, sizeof(d->libxl), "/libxl/%u/device/vbd/%u",
		 d->domid, d->devid);
}

/* Does libxl run a script for this kind?  (libxl__get_hotplug_script_info) */
static bool has_hotplug(const struct device *d)
{
	return d->backend_domid == 0 &&
	       (!strcmp(d->kind, "vbd") || !strcmp(d->kind, "vbd3"));
}

/* --- Keys (device_disk_add, libxl__device_generic_add) ---------------------------- */

static char *read_key(struct device *d, const char *dir, const char *name)
{
	char path[256];
	unsigned len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return xs_read(d->xs, XBT_NULL, path, &len);
}

static bool write_key(struct device *d, xs_transaction_t tx, const char *dir,
		      const char *name, const char *value)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return xs_write(d->xs, tx, path, value, (unsigned)strlen(value));
}

static bool make_dir(struct device *d, xs_transaction_t tx, const char *path,
		     struct xs_permissions *perms, unsigned n)
{
	xs_rm(d->xs, tx, path);
	return xs_mkdir(d->xs, tx, path) &&
	       xs_set_permissions(d->xs, tx, path, perms, n);
}

static bool write_frontend(struct device *d, xs_transaction_t tx,
			   const struct key *keys)
{
	struct xs_permissions perms[] = {
		{ .id = d->domid, .perms = XS_PERM_NONE },
		{ .id = d->backend_domid, .perms = XS_PERM_READ },
	};
	char path[256];

	if (!make_dir(d, tx, d->frontend, perms, 2))
		return false;
	for (; keys->name; keys++) {
		snprintf(path, sizeof(path), "%s/%s", d->frontend, keys->name);
		if (!write_key(d, tx, d->frontend, keys->name, keys->value) ||
		    !xs_set_permissions(d->xs, tx, path, perms, 2))
			return false;
	}
	return true;
}

static bool write_backend(struct device *d, xs_transaction_t tx,
			  const struct key *keys)
{
	struct xs_permissions perms[] = {
		{ .id = d->backend_domid, .perms = XS_PERM_NONE },
		{ .id = d->domid, .perms = XS_PERM_READ },
	};
	struct xs_permissions ours = { .id = 0, .perms = XS_PERM_NONE };
	bool ok = make_dir(d, tx, d->backend, perms, 2) &&
		  make_dir(d, tx, d->libxl, &ours, 1) &&
		  write_key(d, tx, d->libxl, "frontend", d->frontend) &&
		  write_key(d, tx, d->libxl, "backend", d->backend);

	for (; ok && keys->name; keys++)
		ok = write_key(d, tx, d->backend, keys->name, keys->value) &&
		     write_key(d, tx, d->libxl, keys->name, keys->value);
	return ok;
}

static int write_all(struct device *d, const struct key *front,
		     const struct key *back)
{
	xs_transaction_t tx;

	do {
		tx = xs_transaction_start(d->xs);
		if (!write_frontend(d, tx, front) ||
		    !write_backend(d, tx, back)) {
			int r = -errno;

			xs_transaction_end(d->xs, tx, true);
			return r;
		}
		if (xs_transaction_end(d->xs, tx, false))
			return 0;
	} while (errno == EAGAIN);
	return -errno;
}

static int write_disk(struct device *d, const struct toolstack_disk *disk)
{
	char domid[16], backend_id[16], devid[16];
	char more[TOOLSTACK_KEYS][128];
	struct key back[16 + TOOLSTACK_KEYS] = {
		{ "frontend", d->frontend },
		{ "params", disk->params },
		{ "frontend-id", domid },
		{ "online", "1" },
		{ "removable", "0" },
		{ "bootable", "1" },
		{ "state", "1" },
		{ "dev", disk->vdev },
		{ "type", strcmp(d->kind, "vbd") ? d->kind : "phy" },
		{ "mode", disk->readonly ? "r" : "w" },
		{ "device-type", "disk" },
		{ "discard-enable", disk->readonly ? "0" : "1" },
		{ "specification", "xen" },
	};
	const struct key front[] = {
		{ "backend", d->backend },
		{ "backend-id", backend_id },
		{ "state", "1" },
		{ "virtual-device", devid },
		{ "device-type", "disk" },
		{ "trusted", "1" },
		{ "protocol", "x86_64-abi" },
		{ NULL, NULL },
	};
	size_t n = 13;

	snprintf(domid, sizeof(domid), "%u", d->domid);
	snprintf(backend_id, sizeof(backend_id), "%u", d->backend_domid);
	snprintf(devid, sizeof(devid), "%u", d->devid);
	if (disk->script)
		back[n++] = (struct key){ "script", disk->script };
	for (int i = 0; i < disk->nr_keys; i++) {
		char *equals;

		snprintf(more[i], sizeof(more[i]), "%s", disk->keys[i]);
		equals = strchr(more[i], '=');
		if (!equals)
			return -EINVAL;
		*equals = '\0';
		back[n++] = (struct key){ more[i], equals + 1 };
	}
	return write_all(d, front, back);
}

/* --- Waiting for a state (libxl__ev_devstate_wait) ---------------------------------- */

static void drain_watches(struct xs_handle *xs)
{
	char **event;

	while ((event = xs_check_watch(xs)))
		free(event);
}

/* Exactly this state: one that was passed does not count. */
static int wait_state(struct device *d, int wanted)
{
	long end = now_ms() + timeout_ms(STATE_TIMEOUT_S);
	struct pollfd pfd = { .fd = xs_fileno(d->xs), .events = POLLIN };
	char path[256], *state;
	int r = -EINPROGRESS;

	snprintf(path, sizeof(path), "%s/state", d->backend);
	xs_watch(d->xs, path, "state");
	while (r == -EINPROGRESS) {
		state = read_key(d, d->backend, "state");
		if (!state)
			r = errno == ENOENT ? -ENOENT : -EIO;
		else if (atoi(state) == wanted)
			r = 0;
		free(state);
		if (r == -EINPROGRESS && now_ms() >= end)
			r = -ETIMEDOUT;
		if (r == -EINPROGRESS)
			poll(&pfd, 1, (int)(end - now_ms()));
		drain_watches(d->xs);
	}
	xs_unwatch(d->xs, path, "state");
	drain_watches(d->xs);
	return r;
}

/* --- The hotplug script (device_hotplug, libxl__aev_launch) -------------------------- */

static void exec_script(const struct device *d, const char *script,
			const char *action)
{
	char path[128];
	int null = open("/dev/null", O_RDONLY);

	snprintf(path, sizeof(path), "backend/%s/%u/%u", d->kind, d->domid,
		 d->devid);
	setenv("script", script, 1);
	setenv("XENBUS_TYPE", d->kind, 1);
	setenv("XENBUS_PATH", path, 1);
	setenv("XENBUS_BASE_PATH", "backend", 1);
	dup2(null, 0);
	dup2(2, 1);
	execl(script, script, action, NULL);
	fprintf(stderr, "libxl: error: cannot execute %s: %s\n", script,
		strerror(errno));
	_exit(127);
}

/* The status, or -ETIMEDOUT after SIGKILL. */
static int wait_child(pid_t pid)
{
	long end = now_ms() + timeout_ms(HOTPLUG_TIMEOUT_S);
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now_ms() < end) {
			usleep(2000);
			continue;
		}
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		return -ETIMEDOUT;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int hotplug(struct device *d, const char *action)
{
	char *script = read_key(d, d->backend, "script"), *error;
	int r = 0;
	pid_t pid;

	if (!script)
		return 0;
	pid = fork();
	if (pid == 0)
		exec_script(d, script, action);
	r = pid < 0 ? -errno : wait_child(pid);
	if (r == -ETIMEDOUT)
		complain(d, "%s %s: killed because of timeout", script, action);
	if (r > 0) {
		complain(d, "%s %s [%d] exited with error status %d", script,
			 action, pid, r);
		error = read_key(d, d->backend, "hotplug-error");
		complain(d, "script: %s", error ? error : "(no reason given)");
		free(error);
	}
	free(script);
	return r > 0 ? -EIO : r;
}

/* --- Attach --------------------------------------------------------------------------- */

static int device_init(struct xensim *m, const struct toolstack_disk *disk,
		       struct device *d)
{
	*d = (struct device){ .domid = disk->domid,
			      .backend_domid = disk->backend_domid };
	snprintf(d->kind, sizeof(d->kind), "%s", disk->kind);
	if (parse_devid(disk->vdev, &d->devid) < 0) {
		complain(d, "invalid virtual disk identifier %s", disk->vdev);
		return -EINVAL;
	}
	name_paths(d);
	d->xs = xensim_xs_open(m);
	return d->xs ? 0 : -errno;
}

static int attach(struct device *d, const struct toolstack_disk *disk)
{
	char *taken = read_key(d, d->libxl, "backend");
	int r;

	if (taken) {
		free(taken);
		complain(d, "device already exists in xenstore");
		return -EEXIST;
	}
	r = write_disk(d, disk);
	if (r < 0 || !strcmp(d->kind, "qdisk"))
		return r;
	r = wait_state(d, 2);
	if (r < 0) {
		complain(d, "unable to add device with path %s", d->backend);
		return r;
	}
	return has_hotplug(d) ? hotplug(d, "add") : 0;
}

int toolstack_attach(struct xensim *m, const struct toolstack_disk *disk)
{
	struct device d;
	int r = device_init(m, disk, &d);

	if (r < 0)
		return r;
	r = attach(&d, disk);
	if (r < 0)
		fprintf(stderr, "libxl_device_disk_add failed.\n");
	xs_close(d.xs);
	return r;
}

/* --- Detach (libxl__initiate_device_generic_remove) -------------------------------------- */

static bool is_empty(struct device *d, const char *path)
{
	unsigned n = 0;
	char **list = xs_directory(d->xs, XBT_NULL, path, &n);
	bool empty = list && n == 0;

	free(list);
	return empty;
}

/* The directory and the parents it leaves empty (libxl__xs_path_cleanup). */
static void remove_path(struct device *d, const char *path)
{
	char parent[128];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", path);
	xs_rm(d->xs, XBT_NULL, parent);
	while ((slash = strrchr(parent, '/')) && slash > parent) {
		*slash = '\0';
		if (!is_empty(d, parent))
			break;
		xs_rm(d->xs, XBT_NULL, parent);
	}
}

/* libxl__device_destroy */
static void remove_keys(struct device *d)
{
	remove_path(d, d->frontend);
	remove_path(d, d->backend);
	remove_path(d, d->libxl);
}

/* What /libxl says about the device, which is what libxl trusts. */
static int find_device(struct device *d)
{
	char *backend = read_key(d, d->libxl, "backend");
	int n = backend ? sscanf(backend, "/local/domain/%u/backend/%31[^/]",
				 &d->backend_domid, d->kind) :
			  0;

	free(backend);
	if (n != 2)
		return -ENOENT;
	name_paths(d);
	return 0;
}

/* Ask it to close; 1: it is closed already, or its backend is gone. */
static int ask_to_close(struct device *d, bool force)
{
	xs_transaction_t tx;
	char *state;
	int r;

	do {
		tx = xs_transaction_start(d->xs);
		if (force)
			xs_rm(d->xs, tx, d->frontend);
		state = read_key(d, d->backend, "state");
		r = !state ? 1 : 0;
		if (state) {
			write_key(d, tx, d->backend, "online", "0");
			if (strcmp(state, "6"))
				write_key(d, tx, d->backend, "state", "5");
		}
		free(state);
		if (xs_transaction_end(d->xs, tx, false))
			return r;
	} while (errno == EAGAIN);
	return -errno;
}

static int detach(struct device *d, bool force)
{
	int r = find_device(d);

	if (r < 0) {
		complain(d, "no such device");
		return r;
	}
	r = ask_to_close(d, force);
	if (r == 0)
		r = wait_state(d, 6);
	/* QEMU removes the directory right after; libxl mostly looks sooner. */
	if (r == -ENOENT && !strcmp(d->kind, "qdisk"))
		r = 0;
	if (r < 0)
		complain(d, "unable to remove device with path %s", d->backend);
	if (r < 0 && !force)
		return r;
	if (r == 0 && has_hotplug(d))
		(void)hotplug(d, "remove");
	remove_keys(d);
	return 0;
}

int toolstack_detach(struct xensim *m, const struct toolstack_disk *disk)
{
	struct device d;
	int r = device_init(m, disk, &d);

	if (r < 0)
		return r;
	r = detach(&d, disk->force);
	if (r < 0)
		fprintf(stderr, "libxl_device_disk_remove failed.\n");
	xs_close(d.xs);
	return r;
}

/* --- Destroy (libxl__destroy_domid) -------------------------------------------------------- */

static void detach_all(struct xensim *m, uint32_t domid)
{
	struct toolstack_disk disk = { .domid = domid,
				       .kind = "vbd",
				       .force = true };
	struct xs_handle *xs = xensim_xs_open(m);
	char path[64], **list;
	unsigned n = 0;

	if (!xs)
		return;
	snprintf(path, sizeof(path), "/libxl/%u/device/vbd", domid);
	list = xs_directory(xs, XBT_NULL, path, &n);
	for (unsigned i = 0; list && i < n; i++) {
		disk.vdev = list[i];
		toolstack_detach(m, &disk);
	}
	free(list);
	xs_close(xs);
}

int toolstack_destroy(struct xensim *m, uint32_t domid)
{
	detach_all(m, domid);
	xensim_domain_forget(m, domid);
	return xensim_domain_destroy(m, domid);
}
