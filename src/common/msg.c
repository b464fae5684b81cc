/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/msg.h"

#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fds.h"
#include "common/util.h"

/* A text inside a message that must end with a NUL before it does. */
struct text_field {
	size_t offset;
	size_t size;
};

#define TEXT(type, field)                                    \
	{                                                    \
		offsetof(struct type, field),                \
			sizeof(((struct type *)NULL)->field) \
	}

/* What each type looks like: declared once, checked on every receipt. */
static const struct msg_shape {
	uint16_t type;
	const char *name;
	size_t size;
	struct text_field texts[4];
} shapes[] = {
	{ MSG_OPEN,
	  "OPEN",
	  sizeof(struct msg_open),
	  { TEXT(msg_open, id.vm), TEXT(msg_open, expression) } },
	{ MSG_CONNECT, "CONNECT", sizeof(struct msg_connect), { { 0, 0 } } },
	{ MSG_DISCONNECT,
	  "DISCONNECT",
	  sizeof(struct msg_header),
	  { { 0, 0 } } },
	{ MSG_RESUME, "RESUME", sizeof(struct msg_resume), { { 0, 0 } } },
	{ MSG_RESIZE, "RESIZE", sizeof(struct msg_resize), { { 0, 0 } } },
	{ MSG_CLIENT,
	  "CLIENT",
	  sizeof(struct msg_client),
	  { TEXT(msg_client, name) } },
	{ MSG_CLIENT_TAKEN,
	  "CLIENT_TAKEN",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_CONTROL,
	  "CONTROL",
	  sizeof(struct msg_control),
	  { TEXT(msg_control, verb), TEXT(msg_control, text) } },
	{ MSG_CONTROLLED,
	  "CONTROLLED",
	  sizeof(struct msg_controlled),
	  { TEXT(msg_controlled, text) } },
	{ MSG_CHANGED,
	  "CHANGED",
	  sizeof(struct msg_changed),
	  { TEXT(msg_changed, commit), TEXT(msg_changed, text) } },
	{ MSG_GREW, "GREW", sizeof(struct msg_grew), { { 0, 0 } } },
	{ MSG_RESIZED,
	  "RESIZED",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_CLOSE, "CLOSE", sizeof(struct msg_header), { { 0, 0 } } },
	{ MSG_SERVICE_DONE,
	  "SERVICE_DONE",
	  sizeof(struct msg_service_done),
	  { TEXT(msg_service_done, text) } },
	{ MSG_HELLO,
	  "HELLO",
	  sizeof(struct msg_hello),
	  { TEXT(msg_hello, id.vm) } },
	{ MSG_OPENED,
	  "OPENED",
	  sizeof(struct msg_opened),
	  { TEXT(msg_opened, notes) } },
	{ MSG_CONNECTED, "CONNECTED", sizeof(struct msg_header), { { 0, 0 } } },
	{ MSG_DISCONNECTED,
	  "DISCONNECTED",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_RESUMED,
	  "RESUMED",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_FAILED,
	  "FAILED",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_BROKEN,
	  "BROKEN",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_CONDITION,
	  "CONDITION",
	  sizeof(struct msg_condition),
	  { TEXT(msg_condition, reason) } },
	{ MSG_REACHED,
	  "REACHED",
	  sizeof(struct msg_text),
	  { TEXT(msg_text, text) } },
	{ MSG_SERVICE,
	  "SERVICE",
	  sizeof(struct msg_service),
	  { TEXT(msg_service, name), TEXT(msg_service, reason) } },
	{ MSG_SERVING, "SERVING", sizeof(struct msg_serving), { { 0, 0 } } },
};

static const struct msg_shape *find_shape(uint16_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (shapes[i].type == type)
			return &shapes[i];
	return NULL;
}

const char *msg_name(uint16_t type)
{
	const struct msg_shape *shape = find_shape(type);

	return shape ? shape->name : "?";
}

int msg_why(char *ret_why, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(ret_why, MSG_TEXT_MAX, fmt, ap);
	va_end(ap);
	return err;
}

bool msg_is_commit(const char *text)
{
	size_t n = strlen(text);

	return (n == 40 || n == 64) && strspn(text, "0123456789abcdef") == n;
}

int msg_send(int sock, void *msg, size_t length, enum msg_type type, int fd)
{
	struct msg_header *header = msg;

	header->type = (uint16_t)type;
	header->version = MSG_VERSION;
	header->length = (uint32_t)length;
	return fds_send(sock, msg, length, &fd, fd >= 0, MSG_DONTWAIT);
}

static bool well_formed(const void *buf, size_t length)
{
	const struct msg_header *header = buf;
	const struct msg_shape *shape;

	if (length < sizeof(*header) || header->length != length ||
	    header->version != MSG_VERSION)
		return false;
	shape = find_shape(header->type);
	if (!shape || length != shape->size)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(shape->texts); i++) {
		const struct text_field *text = &shape->texts[i];

		if (text->size &&
		    !memchr((const char *)buf + text->offset, 0, text->size))
			return false;
	}
	return true;
}

/* The identities of OPENED are an array of texts. */
static bool texts_end(const void *buf)
{
	const struct msg_header *header = buf;
	const struct msg_opened *opened = buf;

	if (header->type != MSG_OPENED)
		return true;
	if (opened->nr_identities > MSG_MAX_IDENTITIES)
		return false;
	for (uint32_t i = 0; i < opened->nr_identities; i++)
		if (!memchr(opened->identity[i], 0, MSG_IDENTITY_MAX))
			return false;
	return true;
}

int msg_receive(int sock, void *buf, size_t *ret_length, int *ret_fd)
{
	int fds[MSG_MAX_FDS] = { -1 };
	unsigned int nr;
	ssize_t n = fds_receive(sock, buf, MSG_MAX, fds, MSG_MAX_FDS, &nr, 0);

	if (n < 0)
		return (int)n;
	if (!well_formed(buf, (size_t)n) || !texts_end(buf)) {
		fds_close(fds, nr);
		return -EPROTO;
	}
	/* No message has a second one. */
	if (nr > 1)
		fds_close(fds + 1, nr - 1);
	*ret_length = (size_t)n;
	*ret_fd = fds[0];
	return 0;
}
