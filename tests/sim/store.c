/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim.h: xenstore, and the keys of a domain as libxl makes them
 * (libxl__domain_make, libxl_domain_rename).
 */
#include "config.h"

#include "guest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xenstore.h>

#define INTRODUCE_WAIT_MS 10000

/* --- Connections --------------------------------------------------------------- */

/* libxenstore takes the socket from the environment only. */
static struct xs_handle *open_at(const char *path)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct xs_handle *xs;
	char *saved;
	int error;

	pthread_mutex_lock(&lock);
	saved = getenv("XENSTORED_PATH");
	saved = saved ? strdup(saved) : NULL;
	setenv("XENSTORED_PATH", path, 1);
	xs = xs_open(0);
	error = errno;
	if (saved)
		setenv("XENSTORED_PATH", saved, 1);
	else
		unsetenv("XENSTORED_PATH");
	pthread_mutex_unlock(&lock);
	free(saved);
	errno = error;
	return xs;
}

struct xs_handle *xensim_xs_open(struct xensim *m)
{
	return open_at(m->store_path);
}

struct xs_handle *xensim_guest_xs_open(struct xensim_guest *g)
{
	return open_at(g->store_path);
}

/* --- UUIDs ------------------------------------------------------------------------ */

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef0123456789ABCDEF";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)((p - digits) % 16) : -1;
}

static int parse_uuid(const char *text, uint8_t uuid[16])
{
	int n = 0;

	for (; *text; text++) {
		int d = hex_digit(*text);

		if (*text == '-')
			continue;
		if (d < 0 || n == 32)
			return -EINVAL;
		uuid[n / 2] = (uint8_t)(n % 2 ? uuid[n / 2] | d : d << 4);
		n++;
	}
	return n == 32 ? 0 : -EINVAL;
}

static void format_uuid(const uint8_t uuid[16], char text[37])
{
	char *p = text;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", uuid[i]);
	}
}

static int choose_uuid(const char *text, uint8_t uuid[16])
{
	if (text)
		return parse_uuid(text, uuid);
	return getrandom(uuid, 16, 0) == 16 ? 0 : -EIO;
}

/* --- A domain's keys -------------------------------------------------------------- */

/* Who owns a key, and who else may do what with it. */
enum access {
	PRIVATE, /* dom0 only */
	READABLE, /* dom0's, the guest reads */
	WRITEABLE, /* the guest's own */
};

struct writer {
	struct xs_handle *xs;
	xs_transaction_t tx;
	uint32_t domid;
	bool failed;
};

static void set_access(struct writer *w, const char *path, enum access access)
{
	struct xs_permissions perms[2] = { { .id = 0, .perms = XS_PERM_NONE },
					   { .id = w->domid,
					     .perms = XS_PERM_READ } };

	if (access == WRITEABLE)
		perms[0].id = w->domid;
	if (!xs_set_permissions(w->xs, w->tx, path, perms,
				access == READABLE ? 2 : 1))
		w->failed = true;
}

/* value NULL: a directory. */
__attribute__((format(printf, 4, 5))) static void put(struct writer *w,
						      enum access access,
						      const char *value,
						      const char *format, ...)
{
	char path[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	if (!xs_write(w->xs, w->tx, path, value ? value : "",
		      value ? (unsigned)strlen(value) : 0))
		w->failed = true;
	set_access(w, path, access);
}

static void put_domain(struct writer *w, const char *name, const char *uuid)
{
	static const char *const readable[] = { "cpu", "memory", "device",
						"control", "console" };
	static const char *const writeable[] = { "control/shutdown",
						 "device/suspend/event-channel",
						 "data",
						 "drivers",
						 "feature",
						 "attr",
						 "error" };
	unsigned id = w->domid;
	char vm[64], domid[16];

	snprintf(vm, sizeof(vm), "/vm/%s", uuid);
	snprintf(domid, sizeof(domid), "%u", id);
	put(w, READABLE, NULL, "/local/domain/%u", id);
	put(w, READABLE, NULL, "%s", vm);
	put(w, PRIVATE, NULL, "/libxl/%u", id);
	put(w, PRIVATE, "pv", "/libxl/%u/type", id);
	put(w, READABLE, uuid, "%s/uuid", vm);
	put(w, READABLE, name, "%s/name", vm);
	put(w, READABLE, vm, "/local/domain/%u/vm", id);
	put(w, READABLE, name, "/local/domain/%u/name", id);
	put(w, READABLE, domid, "/local/domain/%u/domid", id);
	for (size_t i = 0; i < sizeof(readable) / sizeof(readable[0]); i++)
		put(w, READABLE, NULL, "/local/domain/%u/%s", id, readable[i]);
	for (size_t i = 0; i < sizeof(writeable) / sizeof(writeable[0]); i++)
		put(w, WRITEABLE, NULL, "/local/domain/%u/%s", id,
		    writeable[i]);
}

static int write_keys(struct xensim *m, uint32_t domid, const char *name,
		      const uint8_t uuid[16])
{
	struct writer w = { .xs = xensim_xs_open(m), .domid = domid };
	char text[37], fallback[32];
	bool again = true;

	if (!w.xs)
		return -errno;
	format_uuid(uuid, text);
	snprintf(fallback, sizeof(fallback), "sim-%u", domid);
	while (again && !w.failed) {
		w.tx = xs_transaction_start(w.xs);
		put_domain(&w, name ? name : fallback, text);
		again = !xs_transaction_end(w.xs, w.tx, w.failed);
		if (again && errno != EAGAIN)
			w.failed = true;
	}
	xs_close(w.xs);
	return w.failed ? -EIO : 0;
}

/* Ask the server to connect it to xenstored. */
static int introduce(struct hv *hv, uint32_t slot)
{
	int r;

	hv_domain(hv, slot)->store = HV_STORE_WANTED;
	r = hv_server_ask(hv, INTRODUCE_WAIT_MS);
	if (r < 0)
		return r;
	return hv_domain(hv, slot)->store == HV_STORE_READY ? 0 : -EIO;
}

int xensim_domain_create(struct xensim *m,
			 const struct xensim_domain_config *config,
			 uint32_t *ret_domid)
{
	uint8_t uuid[16];
	uint32_t slot, domid;
	int r = choose_uuid(config->uuid, uuid);

	if (r < 0)
		return r;
	r = hv_domain_create(m->hv, config->domid, uuid, &slot);
	if (r < 0)
		return r;
	domid = hv_domain(m->hv, slot)->domid;
	r = write_keys(m, domid, config->name, uuid);
	if (r == 0)
		r = introduce(m->hv, slot);
	if (r < 0) {
		hv_domain_destroy(m->hv, domid);
		return r;
	}
	*ret_domid = domid;
	return 0;
}

int xensim_domain_forget(struct xensim *m, uint32_t domid)
{
	struct xs_handle *xs = xensim_xs_open(m);
	char path[64], *vm;
	unsigned len;

	if (!xs)
		return -errno;
	snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	vm = xs_read(xs, XBT_NULL, path, &len);
	if (vm)
		xs_rm(xs, XBT_NULL, vm);
	free(vm);
	snprintf(path, sizeof(path), "/local/domain/%u", domid);
	xs_rm(xs, XBT_NULL, path);
	snprintf(path, sizeof(path), "/libxl/%u", domid);
	xs_rm(xs, XBT_NULL, path);
	xs_close(xs);
	return 0;
}
