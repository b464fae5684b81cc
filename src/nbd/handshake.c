/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * handshake.c - fixed newstyle negotiation, one option at a time.
 *
 * An option is looked at when all of it is there.  What a client does not get
 * right is answered with an error and a sentence, and it may try again; only
 * EXPORT_NAME, which has no error reply, ends the session.  An option that is
 * not known is answered ERR_UNSUP: newer clients ask for things first that an
 * older server never heard of.
 */
#include "nbd/private.h"

#include <errno.h>

#include "common/util.h"

#define CONTEXT "base:allocation"

/* --- Replies -------------------------------------------------------------- */

/* Where the data of a reply goes; NULL: no memory. */
static uint8_t *reply(struct nbd_session *s, uint32_t option, uint32_t type,
		      size_t length)
{
	uint8_t *p = nbd_out_bytes(s, NBD_REP_BYTES + length);

	if (!p)
		return NULL;
	p = nbd_put64(p, NBD_REP_MAGIC);
	p = nbd_put32(p, option);
	p = nbd_put32(p, type);
	return nbd_put32(p, (uint32_t)length);
}

static int ack(struct nbd_session *s, uint32_t option)
{
	return reply(s, option, NBD_REP_ACK, 0) ? 0 : -ENOMEM;
}

static int refuse(struct nbd_session *s, uint32_t option,
		  enum nbd_rep_err error, const char *why)
{
	size_t length = strlen(why);
	uint8_t *p = reply(s, option, NBD_REP_ERROR | error, length);

	if (!p)
		return -ENOMEM;
	(void)nbd_put_bytes(p, why, length);
	return 0;
}

static int reply_text(struct nbd_session *s, uint32_t option,
		      enum nbd_info info, const char *text)
{
	size_t length = strlen(text);
	uint8_t *p = reply(s, option, NBD_REP_INFO, 2 + length);

	if (!p)
		return -ENOMEM;
	(void)nbd_put_bytes(nbd_put16(p, info), text, length);
	return 0;
}

/* --- What the client sent ------------------------------------------------- */

struct cursor {
	const uint8_t *p;
	uint32_t left;
};

static bool take16(struct cursor *c, uint32_t *ret)
{
	if (c->left < 2)
		return false;
	*ret = nbd_get16(c->p);
	c->p += 2;
	c->left -= 2;
	return true;
}

static bool take32(struct cursor *c, uint32_t *ret)
{
	if (c->left < 4)
		return false;
	*ret = nbd_get32(c->p);
	c->p += 4;
	c->left -= 4;
	return true;
}

/* A length and that many bytes; *ret points into the option. */
static bool take_string(struct cursor *c, const uint8_t **ret,
			uint32_t *ret_length)
{
	uint32_t length;

	if (!take32(c, &length) || length > c->left || length > NBD_MAX_STRING)
		return false;
	*ret = c->p;
	*ret_length = length;
	c->p += length;
	c->left -= length;
	return true;
}

static bool same(const uint8_t *bytes, uint32_t length, const char *text)
{
	return length == strlen(text) && memcmp(bytes, text, length) == 0;
}

/* The empty name is the first export. */
static const struct nbd_export *find(const struct nbd_session *s,
				     const uint8_t *name, uint32_t length)
{
	const struct nbd_export *export;

	for (unsigned int i = 0; (export = s->events->export(s->ctx, i)); i++)
		if (length == 0 || same(name, length, export->name))
			return export;
	return NULL;
}

/* --- The end of the handshake --------------------------------------------- */

static void choose(struct nbd_session *s, const struct nbd_export *export)
{
	s->export = export;
	if (!s->allocation_name || strcmp(s->allocation_name, export->name))
		s->allocation = false;
	s->state = NBD_WANT_REQUEST;
}

static int take_export_name(struct nbd_session *s, const uint8_t *data,
			    uint32_t length)
{
	const struct nbd_export *export = find(s, data, length);
	size_t zeroes = s->no_zeroes ? 0 : NBD_ZEROES_BYTES;
	uint8_t *p;

	/* There is no other way to say so. */
	if (!export || length > NBD_MAX_STRING ||
	    (s->tls == NBD_TLS_REQUIRED && !s->in_tls))
		return -EPROTO;
	p = nbd_out_bytes(s, 10 + zeroes);
	if (!p)
		return -ENOMEM;
	p = nbd_put64(p, export->size);
	p = nbd_put16(p, nbd_transmission_flags(export, s->headers));
	memset(p, 0, zeroes);
	choose(s, export);
	return 0;
}

/* --- INFO and GO ---------------------------------------------------------- */

static int reply_export(struct nbd_session *s, uint32_t option,
			const struct nbd_export *export)
{
	uint8_t *p = reply(s, option, NBD_REP_INFO, 12);

	if (!p)
		return -ENOMEM;
	p = nbd_put16(p, NBD_INFO_EXPORT);
	p = nbd_put64(p, export->size);
	(void)nbd_put16(p, nbd_transmission_flags(export, s->headers));
	return 0;
}

static int reply_block_size(struct nbd_session *s, uint32_t option,
			    const struct nbd_export *export)
{
	uint8_t *p = reply(s, option, NBD_REP_INFO, 14);

	if (!p)
		return -ENOMEM;
	p = nbd_put16(p, NBD_INFO_BLOCK_SIZE);
	p = nbd_put32(p, export->minimum_block);
	p = nbd_put32(p, export->preferred_block);
	(void)nbd_put32(p, NBD_MAX_PAYLOAD);
	return 0;
}

/* Each at most once, however often it is asked for. */
static int reply_infos(struct nbd_session *s, uint32_t option,
		       const struct nbd_export *export, struct cursor *c,
		       uint32_t count)
{
	unsigned int asked = 1u << NBD_INFO_BLOCK_SIZE;
	uint32_t info;
	int r = 0;

	while (count-- > 0 && take16(c, &info))
		if (info <= NBD_INFO_BLOCK_SIZE)
			asked |= 1u << info;
	r = reply_export(s, option, export);
	if (!r)
		r = reply_block_size(s, option, export);
	if (!r && (asked & 1u << NBD_INFO_NAME))
		r = reply_text(s, option, NBD_INFO_NAME, export->name);
	if (!r && (asked & 1u << NBD_INFO_DESCRIPTION) && export->description)
		r = reply_text(s, option, NBD_INFO_DESCRIPTION,
			       export->description);
	return r;
}

static int take_info(struct nbd_session *s, uint32_t option, struct cursor *c)
{
	const struct nbd_export *export;
	uint32_t length, count;
	const uint8_t *name;
	int r;

	if (!take_string(c, &name, &length) || !take16(c, &count) ||
	    c->left != 2 * count)
		return refuse(s, option, NBD_REP_ERR_INVALID,
			      "its name or its list does not fit its length");
	export = find(s, name, length);
	if (!export)
		return refuse(s, option, NBD_REP_ERR_UNKNOWN,
			      "there is no such export");
	r = reply_infos(s, option, export, c, count);
	if (!r)
		r = ack(s, option);
	if (!r && option == NBD_OPT_GO)
		choose(s, export);
	return r;
}

/* --- LIST ----------------------------------------------------------------- */

static int take_list(struct nbd_session *s, uint32_t option)
{
	const struct nbd_export *export;

	for (unsigned int i = 0; (export = s->events->export(s->ctx, i)); i++) {
		size_t name = strlen(export->name);
		size_t more =
			export->description ? strlen(export->description) : 0;
		uint8_t *p = reply(s, option, NBD_REP_SERVER, 4 + name + more);

		if (!p)
			return -ENOMEM;
		p = nbd_put32(p, (uint32_t)name);
		p = nbd_put_bytes(p, export->name, name);
		if (more)
			(void)nbd_put_bytes(p, export->description, more);
	}
	return ack(s, option);
}

/* --- Metadata contexts ---------------------------------------------------- */

/* What one query asks for.  Namespaces of others are ignored, as they must
 * be. */
static bool query_matches(uint32_t option, const uint8_t *query,
			  uint32_t length)
{
	return same(query, length, CONTEXT) ||
	       (option == NBD_OPT_LIST_META_CONTEXT &&
		same(query, length, "base:"));
}

static int reply_context(struct nbd_session *s, uint32_t option)
{
	bool list = option == NBD_OPT_LIST_META_CONTEXT;
	uint8_t *p =
		reply(s, option, NBD_REP_META_CONTEXT, 4 + strlen(CONTEXT));

	if (!p)
		return -ENOMEM;
	p = nbd_put32(p, list ? 0 : NBD_CONTEXT_ID);
	(void)nbd_put_bytes(p, CONTEXT, strlen(CONTEXT));
	return 0;
}

static void forget_contexts(struct nbd_session *s)
{
	s->allocation = false;
	free(s->allocation_name);
	s->allocation_name = NULL;
}

/* Counts, and says whether one of them is ours. */
static bool take_queries(uint32_t option, struct cursor *c, bool *ret_wanted)
{
	uint32_t count, length;
	const uint8_t *query;
	bool wanted;

	if (!take32(c, &count))
		return false;
	wanted = count == 0 && option == NBD_OPT_LIST_META_CONTEXT;
	while (count-- > 0) {
		if (!take_string(c, &query, &length))
			return false;
		if (!memchr(query, ':', length))
			return false; /* no namespace */
		wanted |= query_matches(option, query, length);
	}
	*ret_wanted = wanted;
	return c->left == 0;
}

static int take_meta_context(struct nbd_session *s, uint32_t option,
			     struct cursor *c)
{
	const struct nbd_export *export;
	const uint8_t *name;
	uint32_t length;
	bool wanted;
	int r = 0;

	if (option == NBD_OPT_SET_META_CONTEXT)
		forget_contexts(s);
	if (s->headers == NBD_SIMPLE)
		return refuse(s, option, NBD_REP_ERR_INVALID,
			      "structured replies come first");
	if (!take_string(c, &name, &length) ||
	    !take_queries(option, c, &wanted))
		return refuse(s, option, NBD_REP_ERR_INVALID,
			      "its name or a query is malformed");
	export = find(s, name, length);
	if (!export)
		return refuse(s, option, NBD_REP_ERR_UNKNOWN,
			      "there is no such export");
	if (wanted && option == NBD_OPT_SET_META_CONTEXT) {
		s->allocation_name = strdup(export->name);
		s->allocation = s->allocation_name;
	}
	if (wanted)
		r = reply_context(s, option);
	return r ? r : ack(s, option);
}

/* --- Kinds of headers, TLS ------------------------------------------------ */

static int take_headers(struct nbd_session *s, uint32_t option)
{
	enum nbd_headers wanted = option == NBD_OPT_EXTENDED_HEADERS ?
					  NBD_EXTENDED :
					  NBD_STRUCTURED;

	if (s->headers == NBD_EXTENDED && wanted == NBD_STRUCTURED)
		return refuse(s, option, NBD_REP_ERR_EXT_HEADER_REQD,
			      "extended headers were chosen already");
	if (s->headers == wanted)
		return refuse(s, option, NBD_REP_ERR_INVALID,
			      "it was chosen already");
	s->headers = wanted;
	return ack(s, option);
}

static int take_starttls(struct nbd_session *s, uint32_t option)
{
	if (s->tls == NBD_TLS_NONE)
		return refuse(s, option, NBD_REP_ERR_POLICY,
			      "this server has no TLS");
	if (s->in_tls)
		return refuse(s, option, NBD_REP_ERR_INVALID,
			      "TLS is in use already");
	s->wants_tls = true;
	return ack(s, option);
}

void nbd_session_tls_started(struct nbd_session *session)
{
	session->wants_tls = false;
	session->in_tls = true;
	session->headers = NBD_SIMPLE;
	forget_contexts(session);
}

static int take_abort(struct nbd_session *s, uint32_t option)
{
	s->state = NBD_WANT_NOTHING;
	return ack(s, option);
}

/* --- One option ----------------------------------------------------------- */

int nbd_take_flags(struct nbd_session *s, uint32_t flags)
{
	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
		return -EPROTO;
	s->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
	s->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	s->state = NBD_WANT_OPTION;
	return 0;
}

int nbd_refuse_option(struct nbd_session *s, uint32_t option)
{
	if (option == NBD_OPT_EXPORT_NAME || !s->fixed)
		return -EPROTO;
	if (option == NBD_OPT_ABORT)
		return take_abort(s, option);
	return refuse(s, option, NBD_REP_ERR_TOO_BIG, "the option is too long");
}

/* Those that have no data. */
static int take_bare(struct nbd_session *s, uint32_t option, uint32_t length)
{
	if (length > 0)
		return refuse(s, option, NBD_REP_ERR_INVALID,
			      "this option has no data");
	switch (option) {
	case NBD_OPT_LIST:
		return take_list(s, option);
	case NBD_OPT_STARTTLS:
		return take_starttls(s, option);
	default:
		return take_headers(s, option);
	}
}

int nbd_take_option(struct nbd_session *s, uint32_t option, const uint8_t *data,
		    uint32_t length)
{
	struct cursor c = { data, length };

	s->state = NBD_WANT_OPTION;
	if (option == NBD_OPT_EXPORT_NAME)
		return take_export_name(s, data, length);
	if (!s->fixed)
		return -EPROTO;
	if (option == NBD_OPT_ABORT)
		return take_abort(s, option);
	if (s->tls == NBD_TLS_REQUIRED && !s->in_tls &&
	    option != NBD_OPT_STARTTLS)
		return refuse(s, option, NBD_REP_ERR_TLS_REQD,
			      "this server wants TLS first");
	switch (option) {
	case NBD_OPT_LIST:
	case NBD_OPT_STARTTLS:
	case NBD_OPT_STRUCTURED_REPLY:
	case NBD_OPT_EXTENDED_HEADERS:
		return take_bare(s, option, length);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return take_info(s, option, &c);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return take_meta_context(s, option, &c);
	default:
		return refuse(s, option, NBD_REP_ERR_UNSUP,
			      "this server does not know the option");
	}
}
