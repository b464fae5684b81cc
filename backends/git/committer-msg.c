/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <string.h>
#include <sys/socket.h>

#include "committer.h"
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
#define NO_TEXT      \
	{            \
		0, 0 \
	}

/* What each type looks like: declared once, checked on every receipt. */
static const struct shape {
	uint16_t type;
	const char *name;
	size_t size;
	unsigned int fds; /* that come along; PACK has its own rule */
	struct text_field texts[3];
} shapes[] = {
	{ CM_OPEN,
	  "OPEN",
	  sizeof(struct cm_open),
	  0,
	  { TEXT(cm_open, branch), TEXT(cm_open, rev), TEXT(cm_open, keep) } },
	{ CM_STAND,
	  "STAND",
	  sizeof(struct cm_stand),
	  0,
	  { TEXT(cm_stand, uuid) } },
	{ CM_PACKS, "PACKS", sizeof(struct cm_header), 0, { NO_TEXT } },
	{ CM_OBJECT, "OBJECT", sizeof(struct cm_object), 0, { NO_TEXT } },
	{ CM_COMMIT,
	  "COMMIT",
	  sizeof(struct cm_commit),
	  2,
	  { TEXT(cm_commit, domain), TEXT(cm_commit, message) } },
	{ CM_RELEASE, "RELEASE", sizeof(struct cm_release), 0, { NO_TEXT } },
	{ CM_GIVE_UP,
	  "GIVE_UP",
	  sizeof(struct cm_give_up),
	  0,
	  { TEXT(cm_give_up, uuid) } },
	{ CM_OPENED, "OPENED", sizeof(struct cm_opened), 0, { NO_TEXT } },
	{ CM_PACK, "PACK", sizeof(struct cm_pack), 0, { NO_TEXT } },
	{ CM_OBJECT_IS,
	  "OBJECT_IS",
	  sizeof(struct cm_object_is),
	  1,
	  { NO_TEXT } },
	{ CM_PROGRESS, "PROGRESS", sizeof(struct cm_progress), 0, { NO_TEXT } },
	{ CM_COMMITTED,
	  "COMMITTED",
	  sizeof(struct cm_committed),
	  0,
	  { TEXT(cm_committed, ref), TEXT(cm_committed, text) } },
	{ CM_DONE, "DONE", sizeof(struct cm_header), 0, { NO_TEXT } },
	{ CM_FAILED,
	  "FAILED",
	  sizeof(struct cm_failed),
	  0,
	  { TEXT(cm_failed, text) } },
	{ CM_BEGIN, "BEGIN", sizeof(struct cm_header), 0, { NO_TEXT } },
};

_Static_assert(sizeof(union cm_any) == CM_MAX, "a message is too large");
_Static_assert(CM_MAX_FDS <= FDS_MAX, "they go with one message");

static const struct shape *find_shape(uint16_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (shapes[i].type == type)
			return &shapes[i];
	return NULL;
}

const char *cm_name(uint16_t type)
{
	const struct shape *shape = find_shape(type);

	return shape ? shape->name : "?";
}

/* --- Sending ------------------------------------------------------------------ */

int cm_send(int sock, struct cm_header *msg, enum cm_type type, const int *fds,
	    unsigned int nr_fds, bool wait)
{
	const struct shape *shape = find_shape((uint16_t)type);

	msg->type = (uint16_t)type;
	msg->version = CM_VERSION;
	msg->length = (uint32_t)shape->size;
	return fds_send(sock, msg, shape->size, fds, nr_fds,
			wait ? 0 : MSG_DONTWAIT);
}

/* --- Receiving ---------------------------------------------------------------- */

static bool packs_are_right(const struct cm_pack *pack, unsigned int nr_fds)
{
	if (pack->nr > CM_PACKS_EACH || nr_fds != 2 * pack->nr)
		return false;
	for (uint32_t i = 0; i < pack->nr; i++)
		if (!memchr(pack->name[i], 0, CM_PACK_NAME))
			return false;
	return true;
}

static bool well_formed(const union cm_any *msg, size_t n, unsigned int nr_fds)
{
	const struct shape *shape;

	if (n < sizeof(msg->h) || msg->h.length != n ||
	    msg->h.version != CM_VERSION)
		return false;
	shape = find_shape(msg->h.type);
	if (!shape || n != shape->size)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(shape->texts); i++) {
		const struct text_field *text = &shape->texts[i];

		if (text->size &&
		    !memchr(msg->bytes + text->offset, 0, text->size))
			return false;
	}
	if (msg->h.type == CM_PACK)
		return packs_are_right(&msg->pack, nr_fds);
	return nr_fds == shape->fds;
}

int cm_receive(int sock, union cm_any *ret, int *ret_fds,
	       unsigned int *ret_nr_fds)
{
	unsigned int nr;
	ssize_t n = fds_receive(sock, ret, sizeof(*ret), ret_fds, CM_MAX_FDS,
				&nr, 0);

	if (n < 0)
		return (int)n;
	if (!well_formed(ret, (size_t)n, nr)) {
		fds_close(ret_fds, nr);
		return -EPROTO;
	}
	*ret_nr_fds = nr;
	return 0;
}
