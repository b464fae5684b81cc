/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layer.c - what one layer may ask of the host: its parameters, a place for
 * its sentences, and the services of the broker.
 *
 * Files, kept state and memory are the broker's to give, since the worker is
 * isolated when a guest is there.  The broker knows a layer by its number in
 * the expression, which both have.
 */
#include "config.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "worker/isolate-files.h"
#include "worker/stack.h"
#include "worker/state-dir.h"

/* The main thread may wait for a slow file system; a lane has guests. */
#define OPEN_TIMEOUT_NS	   30000000000ull
#define BUDGET_TIMEOUT_NS  200000000ull
#define BUDGET_OPEN_NS	   10000000000ull /* nothing tries it again */
#define CONNECT_TIMEOUT_NS 200000000ull

static const struct host_disk *host_disk_const(const struct xd_disk *disk)
{
	return (const struct host_disk *)(const void *)disk;
}

/* --- Parameters ----------------------------------------------------------- */

/* A name that is in no table is the backend's mistake. */
static const struct expr_value *find_value(const struct xd_disk *disk,
					   const char *name)
{
	const struct host_disk *hd = host_disk_const(disk);
	const struct expr_value *value = expr_value(hd->layer, name);

	assert(value);
	return value;
}

bool xd_arg_set(const struct xd_disk *disk, const char *name)
{
	return find_value(disk, name)->set;
}

const char *xd_arg_string(const struct xd_disk *disk, const char *name)
{
	const struct expr_value *value = find_value(disk, name);

	return value->set ? value->text : NULL;
}

uint64_t xd_arg_u64(const struct xd_disk *disk, const char *name)
{
	const struct expr_value *value = find_value(disk, name);

	return value->set ? value->number : 0;
}

bool xd_arg_bool(const struct xd_disk *disk, const char *name)
{
	return xd_arg_u64(disk, name) != 0;
}

bool xd_readonly(const struct xd_disk *disk)
{
	return host_disk_const(disk)->layer->read_only;
}

/* --- Sentences ------------------------------------------------------------ */

void xd_error(struct xd_disk *disk, const char *fmt, ...)
{
	const struct host_disk *hd = host_disk_of(disk);
	char *why = hd->stack->why;
	size_t room = sizeof(hd->stack->why);
	va_list ap;
	int n;

	n = snprintf(why, room, "%s: ", hd->layer->info->name);
	if (n < 0 || (size_t)n >= room)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(why + n, room - (size_t)n, fmt, ap);
	va_end(ap);
}

static char *vformat(const char *fmt, va_list ap) PRINTF(1, 0);

static char *vformat(const char *fmt, va_list ap)
{
	char *text;

	return vasprintf(&text, fmt, ap) < 0 ? NULL : text;
}

/* Without memory a note is lost, and nothing else. */
void xd_note(struct xd_disk *disk, const char *fmt, ...)
{
	struct host_disk *hd = host_disk_of(disk);
	cleanup_free char *text = NULL;
	char *notes;
	va_list ap;

	va_start(ap, fmt);
	text = vformat(fmt, ap);
	va_end(ap);
	if (!text)
		return;
	notes = xasprintf("%s%u %s %s\n", hd->notes ? hd->notes : "",
			  hd->layer->index, hd->layer->info->name, text);
	if (!notes)
		return;
	free(hd->notes);
	hd->notes = notes;
}

void xd_paused(struct xd_channel *ch, const char *fmt, ...)
{
	struct host_channel *hc = host_channel_of(ch);
	struct pause *pause = &hc->lane->stack->pause;
	cleanup_free char *text = NULL;
	bool was_paused = hc->is_paused;
	va_list ap;

	hc->is_paused = fmt != NULL;
	if (!fmt) {
		if (was_paused)
			pause_end(pause);
		return;
	}
	va_start(ap, fmt);
	text = vformat(fmt, ap);
	va_end(ap);
	(was_paused ? pause_change : pause_begin)(pause, text ? text : "");
}

int xd_identify(struct xd_disk *disk, const char *fmt, ...)
{
	struct host_disk *hd = host_disk_of(disk);
	cleanup_free char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = vformat(fmt, ap);
	va_end(ap);
	if (!text)
		return -ENOMEM;
	if (strlen(text) >= MSG_IDENTITY_MAX)
		return -ENAMETOOLONG;
	free(hd->identity);
	hd->identity = TAKE_PTR(text);
	return 0;
}

void layer_forget(struct host_disk *hd)
{
	free(hd->identity);
	free(hd->notes);
	hd->identity = NULL;
	hd->notes = NULL;
}

/* --- Services ------------------------------------------------------------- */

/* What the broker says about a failure is said on, until the backend says it
 * better.  For the main thread. */
static int ask(struct xd_disk *disk, struct msg_service *request,
	       const char *name, struct msg_service_done *ret_done)
{
	struct host_disk *hd = host_disk_of(disk);
	int fd = -1, r;

	if (strlen(name) >= sizeof(request->name))
		return -ENAMETOOLONG;
	memcpy(request->name, name, strlen(name) + 1);
	request->layer = hd->layer->index;
	ret_done->text[0] = '\0';
	r = services_call(hd->stack->services, request, ret_done, &fd,
			  OPEN_TIMEOUT_NS);
	if (r == 0 && fd < 0)
		r = -EPROTO;
	if (r < 0)
		xd_error(disk, "%s",
			 ret_done->text[0] ? ret_done->text : strerror(-r));
	return r < 0 ? r : fd;
}

int xd_open(struct xd_disk *disk, const char *name, int flags)
{
	struct msg_service request = { .kind = MSG_SERVICE_OPEN,
				       .flags = (uint32_t)flags };
	struct msg_service_done done;

	return ask(disk, &request, name, &done);
}

int xd_keep(struct xd_disk *disk, const char *name, enum xd_keep_kind kind,
	    uint64_t size, bool *ret_kept)
{
	struct msg_service request = { .kind = MSG_SERVICE_KEEP,
				       .keep = (uint32_t)kind,
				       .size = size };
	struct msg_service_done done;
	int fd = ask(disk, &request, name, &done);

	if (fd >= 0)
		*ret_kept = done.kept;
	return fd;
}

/* Asks for a descriptor where the connection will come.  Any thread. */
static int ask_for_connection(struct xd_disk *disk, struct msg_service *request,
			      const char *name)
{
	struct host_disk *hd = host_disk_of(disk);
	struct msg_service_done done;
	int fd = -1, r;

	if (strlen(name) >= sizeof(request->name))
		return -ENAMETOOLONG;
	memcpy(request->name, name, strlen(name) + 1);
	request->layer = hd->layer->index;
	r = services_call(hd->stack->services, request, &done, &fd,
			  CONNECT_TIMEOUT_NS);
	if (r == 0)
		return fd >= 0 ? fd : -EPROTO;
	/* Too slow, or there is no broker at the moment. */
	return r == -ETIMEDOUT || r == -ECONNRESET ? -EAGAIN : r;
}

int xd_connect(struct xd_disk *disk, const char *name)
{
	struct msg_service request = { .kind = MSG_SERVICE_CONNECT };

	return ask_for_connection(disk, &request, name);
}

int xd_spawn(struct xd_disk *disk, unsigned int flags)
{
	struct msg_service request = { .kind = MSG_SERVICE_SPAWN,
				       .flags = flags };

	return ask_for_connection(disk, &request, "");
}

int xd_credential(struct xd_disk *disk, const char *name, const char *setting,
		  char *ret, size_t size)
{
	struct host_disk *hd = host_disk_of(disk);
	struct msg_service request = { .kind = MSG_SERVICE_CREDENTIAL,
				       .layer = hd->layer->index };
	struct msg_service_done done = { .text = "" };
	int r;

	(void)snprintf(request.name, sizeof(request.name), "%s", name);
	(void)snprintf(request.reason, sizeof(request.reason), "%s", setting);
	r = services_call(hd->stack->services, &request, &done, NULL,
			  OPEN_TIMEOUT_NS);
	if (r == 0 && strlen(done.text) >= size)
		r = -ENAMETOOLONG;
	if (r == 0)
		(void)snprintf(ret, size, "%s", done.text);
	else if (r != -ENODATA)
		xd_error(disk, "%s", done.text[0] ? done.text : strerror(-r));
	return r;
}

int xd_lend_file(struct xd_disk *disk, const char *path)
{
	int r = isolate_lend_file(path);

	if (r < 0)
		xd_error(disk, "%s: %s", path, strerror(-r));
	return r;
}

int xd_state(struct xd_disk *disk, const char *folder)
{
	struct host_disk *hd = host_disk_of(disk);
	char why[MSG_TEXT_MAX] = "there is no state directory";
	int fd = -ENOENT;

	if (hd->is_open) {
		xd_error(disk, "a folder of state can be had in open() only");
		return -EPERM;
	}
	if (hd->stack->state_dir)
		fd = state_dir_open(hd->stack->state_dir, folder, why);
	if (fd < 0)
		xd_error(disk, "%s", why);
	return fd;
}

int xd_connected(int pending, char *ret_why, size_t size)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	const struct msg_text *reached = (const void *)buf;
	size_t length;
	int fd = -1, r;

	r = msg_receive(pending, buf, &length, &fd);
	if (r == -EAGAIN)
		return r;
	(void)close(pending);
	if (r == 0 && reached->h.type != MSG_REACHED)
		r = -EPROTO;
	if (r == 0)
		r = reached->h.result;
	if (r == 0 && fd < 0)
		r = -EPROTO;
	if (r == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	(void)snprintf(ret_why, size, "%s",
		       r == -ECONNRESET ? "it did not answer in time" :
		       reached->text[0] ? reached->text :
					  strerror(-r));
	return r;
}

/* An answer that comes too late leaves the broker's count too high until this
 * process ends: no harm is done. */
int xd_budget(struct xd_disk *disk, int64_t more)
{
	const struct host_disk *hd = host_disk_of(disk);
	struct msg_service request = { .kind = MSG_SERVICE_BUDGET,
				       .layer = hd->layer->index,
				       .amount = more };
	struct msg_service_done done;
	int r;

	r = services_call(hd->stack->services, &request, &done, NULL,
			  hd->is_open ? BUDGET_TIMEOUT_NS : BUDGET_OPEN_NS);
	return r == 0 || r == -ENOSPC ? r : -EAGAIN;
}
