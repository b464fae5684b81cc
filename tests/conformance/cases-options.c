/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* INFO and GO, block sizes, kinds of headers, metadata contexts. */
#include "config.h"

#include "cases.h"

#define ERR(name) (NBD_REP_ERROR | NBD_REP_ERR_##name)

static const char *name_of(const struct client *c)
{
	return c->options->server.export_name;
}

/* INFO or GO with a list of wishes. */
static uint32_t ask_info(struct client *c, uint32_t option, const char *name,
			 const uint16_t *infos, unsigned int nr)
{
	uint8_t room[8192];
	uint32_t type;

	type = client_ask(c, option, room, info_data(room, name, infos, nr));
	if (type == ERR(TLS_REQD))
		client_skip("the server wants TLS first");
	return type;
}

static void begin_info(struct client *c, const uint16_t *infos, unsigned int nr)
{
	uint32_t type;

	client_begin(c);
	type = ask_info(c, NBD_OPT_INFO, name_of(c), infos, nr);
	require(type == NBD_REP_ACK, "INFO is answered %#x", type);
}

/* --- INFO and GO ---------------------------------------------------------- */

static void info(struct client *c)
{
	begin_info(c, NULL, 0);
	require(client_info(c, NBD_INFO_EXPORT), "no INFO_EXPORT before ACK");
}

static void info_unknown_wish(struct client *c)
{
	static const uint16_t infos[] = { 0x7fff, NBD_INFO_BLOCK_SIZE, 0x1234 };

	begin_info(c, infos, ARRAY_SIZE(infos));
}

static void info_once(struct client *c)
{
	static const uint16_t infos[] = { NBD_INFO_NAME, NBD_INFO_DESCRIPTION,
					  NBD_INFO_BLOCK_SIZE,
					  NBD_INFO_EXPORT };
	bool seen[4] = { false };

	begin_info(c, infos, ARRAY_SIZE(infos));
	for (unsigned int i = 0; i < c->nr_replies; i++) {
		uint16_t type = nbd_get16(c->replies[i].data);

		require(type >= ARRAY_SIZE(seen) || !seen[type],
			"information %u comes twice", type);
		if (type < ARRAY_SIZE(seen))
			seen[type] = true;
	}
}

static void info_unknown_export(struct client *c)
{
	uint32_t type;

	client_begin(c);
	type = ask_info(c, NBD_OPT_INFO, NO_EXPORT_NAME, NULL, 0);
	if (type == NBD_REP_ACK)
		client_skip("the server has an export of any name");
	require(type == ERR(UNKNOWN), "an unknown export is answered %#x",
		type);
	require(c->nr_replies == 0, "INFO of an unknown export");
}

static void go_unknown_export(struct client *c)
{
	client_begin(c);
	if (ask_info(c, NBD_OPT_GO, NO_EXPORT_NAME, NULL, 0) == NBD_REP_ACK)
		client_skip("the server has an export of any name");
	client_enter(c);
	client_alive(c);
}

static void go_as_info(struct client *c)
{
	static const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE,
					  NBD_INFO_DESCRIPTION, NBD_INFO_NAME };
	struct client *before = client_memory(sizeof(*before));

	begin_info(c, infos, ARRAY_SIZE(infos));
	*before = *c;
	before->fd = -1;
	require(ask_info(c, NBD_OPT_GO, name_of(c), infos, ARRAY_SIZE(infos)) ==
			NBD_REP_ACK,
		"GO after INFO is refused");
	require(c->nr_replies == before->nr_replies,
		"INFO was %u pieces of information, GO %u", before->nr_replies,
		c->nr_replies);
	for (unsigned int i = 0; i < c->nr_replies; i++) {
		const struct reply *is = &c->replies[i];
		const struct reply *was =
			client_info(before, nbd_get16(is->data));

		require(was && was->length == is->length &&
				memcmp(was->data, is->data, is->length) == 0,
			"information %u differs", nbd_get16(is->data));
	}
}

static void go_no_padding(struct client *c)
{
	client_connect(c);
	client_flags(c, NBD_FLAG_FIXED_NEWSTYLE); /* zeroes, then */
	client_enter(c);
	client_needs_size(c, blocks(c, 1));
	client_alive(c);
}

static void info_malformed(struct client *c)
{
	uint8_t room[64] = { 0 };
	uint32_t type;

	client_begin(c);
	(void)nbd_put32(room, 1000); /* a name longer than the option */
	type = client_ask(c, NBD_OPT_INFO, room, 20);
	if (type == ERR(TLS_REQD))
		client_skip("the server wants TLS first");
	require(type == ERR(INVALID), "a malformed INFO is answered %#x", type);
	/* More wishes than there are. */
	(void)nbd_put16(nbd_put32(room, 0), 9);
	type = client_ask(c, NBD_OPT_INFO, room, 8);
	require(type == ERR(INVALID), "a malformed INFO is answered %#x", type);
	client_enter(c);
}

static void info_name(struct client *c)
{
	static const uint16_t infos[] = { NBD_INFO_NAME };
	const struct reply *reply;
	char *name;

	begin_info(c, infos, 1);
	reply = client_info(c, NBD_INFO_NAME);
	if (!reply)
		client_skip("the server does not tell the canonical name");
	name = client_memory(reply->length);
	memcpy(name, reply->data + 2, reply->length - 2);
	require(ask_info(c, NBD_OPT_INFO, name, NULL, 0) == NBD_REP_ACK,
		"the canonical name, \"%s\", is not known", name);
}

/* --- Flags ---------------------------------------------------------------- */

static void has_flags(struct client *c)
{
	client_go(c, SIMPLE, false);
	require(c->flags & NBD_FLAG_HAS_FLAGS, "flags %#x", c->flags);
}

static void no_df(struct client *c)
{
	client_go(c, SIMPLE, false);
	require(!(c->flags & NBD_FLAG_SEND_DF),
		"SEND_DF without structured replies");
}

static void fast_zero_flag(struct client *c)
{
	client_go(c, SIMPLE, false);
	require(!(c->flags & NBD_FLAG_SEND_FAST_ZERO) ||
			c->flags & NBD_FLAG_SEND_WRITE_ZEROES,
		"SEND_FAST_ZERO without SEND_WRITE_ZEROES");
}

/* --- Block sizes ---------------------------------------------------------- */

static void told_sizes(struct client *c)
{
	client_go(c, SIMPLE, false);
	if (!c->sizes_told)
		client_skip("the server tells no block sizes");
}

static void minimum_block(struct client *c)
{
	told_sizes(c);
	require(is_power_of_2(c->minimum) && c->minimum <= 65536,
		"a minimum of %u", c->minimum);
}

static void size_in_blocks(struct client *c)
{
	told_sizes(c);
	require(c->size % c->minimum == 0,
		"a size that is no multiple of the minimum, %u", c->minimum);
}

static void preferred_block(struct client *c)
{
	told_sizes(c);
	require(is_power_of_2(c->preferred) &&
			c->preferred >= MAX(c->minimum, 512u),
		"%u is preferred, %u the minimum", c->preferred, c->minimum);
}

static void maximum_block(struct client *c)
{
	told_sizes(c);
	require(c->maximum == UINT32_MAX || c->maximum % c->minimum == 0,
		"a maximum of %u, blocks of %u", c->maximum, c->minimum);
	require(c->maximum >= MIN((uint64_t)c->preferred, c->size),
		"a maximum of %u, %u is preferred", c->maximum, c->preferred);
}

static void maximum_is_useful(struct client *c)
{
	told_sizes(c);
	require(c->maximum >= MIN(c->size, 1u << 20), "a maximum of %u",
		c->maximum);
}

static void sizes_not_required(struct client *c)
{
	uint32_t type;

	client_begin(c);
	type = ask_info(c, NBD_OPT_GO, name_of(c), NULL, 0);
	require(type != ERR(BLOCK_SIZE_REQD),
		"a client that does not ask for block sizes is refused");
}

static void sizes_asked_for(struct client *c)
{
	static const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE };
	uint32_t type;

	client_begin(c);
	type = ask_info(c, NBD_OPT_GO, name_of(c), infos, 1);
	require(type != ERR(BLOCK_SIZE_REQD),
		"a client that asks for block sizes is refused");
}

/* --- Kinds of headers ----------------------------------------------------- */

static void with_data(struct client *c, uint32_t option)
{
	uint8_t data[4] = { 0 };
	uint32_t type;

	client_begin(c);
	type = client_ask(c, option, data, sizeof(data));
	if (type == ERR(TLS_REQD) || type == ERR(UNSUP))
		client_skip("it is answered %#x", type);
	require(type == ERR(INVALID), "option %u with data is answered %#x",
		option, type);
}

static void structured_with_data(struct client *c)
{
	with_data(c, NBD_OPT_STRUCTURED_REPLY);
}

static void extended_with_data(struct client *c)
{
	with_data(c, NBD_OPT_EXTENDED_HEADERS);
}

static void structured_after_extended(struct client *c)
{
	uint32_t type;

	client_begin(c);
	if (client_ask(c, NBD_OPT_EXTENDED_HEADERS, NULL, 0) != NBD_REP_ACK)
		client_skip("the server has no extended headers");
	type = client_ask(c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	require(type == ERR(EXT_HEADER_REQD),
		"STRUCTURED_REPLY after EXTENDED_HEADERS is answered %#x",
		type);
	c->headers = EXTENDED;
	client_enter(c);
	client_alive(c);
}

static void extended_after_structured(struct client *c)
{
	client_begin(c);
	if (client_ask(c, NBD_OPT_STRUCTURED_REPLY, NULL, 0) != NBD_REP_ACK ||
	    client_ask(c, NBD_OPT_EXTENDED_HEADERS, NULL, 0) != NBD_REP_ACK)
		client_skip("the server has no extended headers");
	c->headers = EXTENDED;
	client_enter(c);
	client_alive(c);
}

static void extended_has_go(struct client *c)
{
	client_go(c, EXTENDED, false);
}

/* --- Metadata contexts ---------------------------------------------------- */

static uint32_t ask_meta(struct client *c, uint32_t option,
			 const char *const *queries, unsigned int nr)
{
	uint8_t room[8192];

	return client_ask(c, option, room,
			  meta_data(room, name_of(c), queries, nr));
}

static void begin_meta(struct client *c)
{
	client_begin(c);
	if (client_ask(c, NBD_OPT_STRUCTURED_REPLY, NULL, 0) != NBD_REP_ACK)
		client_skip("the server has no structured replies");
	c->headers = STRUCTURED;
}

/* Asks with one query; how many contexts came. */
static unsigned int count_meta(struct client *c, uint32_t option,
			       const char *query)
{
	uint32_t type = ask_meta(c, option, &query, 1);

	if (type == ERR(UNSUP))
		client_skip("the server has no metadata contexts");
	require(type == NBD_REP_ACK, "\"%s\" is answered %#x", query, type);
	return c->nr_replies;
}

static bool named(const struct reply *reply, const char *name)
{
	return reply->length == 4 + strlen(name) &&
	       memcmp(reply->data + 4, name, strlen(name)) == 0;
}

static void list_meta_all(struct client *c)
{
	uint32_t type;

	begin_meta(c);
	if (count_meta(c, NBD_OPT_LIST_META_CONTEXT, ALLOCATION) == 0)
		client_skip("the server has no " ALLOCATION);
	type = ask_meta(c, NBD_OPT_LIST_META_CONTEXT, NULL, 0);
	require(type == NBD_REP_ACK && c->nr_replies > 0,
		"no query lists nothing");
	for (unsigned int i = 0; i < c->nr_replies; i++)
		if (named(&c->replies[i], ALLOCATION))
			return;
	client_fail(ALLOCATION " is not in the list");
}

static void list_meta_wildcard(struct client *c)
{
	begin_meta(c);
	if (count_meta(c, NBD_OPT_LIST_META_CONTEXT, ALLOCATION) == 0)
		client_skip("the server has no " ALLOCATION);
	require(count_meta(c, NBD_OPT_LIST_META_CONTEXT, "base:") == 1 &&
			named(&c->replies[0], ALLOCATION),
		"\"base:\" lists %u contexts", c->nr_replies);
}

static void list_meta_id(struct client *c)
{
	begin_meta(c);
	if (count_meta(c, NBD_OPT_LIST_META_CONTEXT, ALLOCATION) == 0)
		client_skip("the server has no " ALLOCATION);
	require(nbd_get32(c->replies[0].data) == 0,
		"a context in a list has id %u", nbd_get32(c->replies[0].data));
}

static void list_meta_unknown(struct client *c)
{
	begin_meta(c);
	require(count_meta(c, NBD_OPT_LIST_META_CONTEXT, "x-none:leaf") == 0,
		"an unknown namespace lists a context");
	require(count_meta(c, NBD_OPT_LIST_META_CONTEXT, "base:none") == 0,
		"an unknown leaf lists a context");
}

static void set_meta(struct client *c)
{
	begin_meta(c);
	if (count_meta(c, NBD_OPT_SET_META_CONTEXT, ALLOCATION) == 0)
		client_skip("the server has no " ALLOCATION);
	require(c->nr_replies == 1 && named(&c->replies[0], ALLOCATION),
		"%u contexts, or another one", c->nr_replies);
}

static void set_meta_none(struct client *c)
{
	begin_meta(c);
	(void)count_meta(c, NBD_OPT_SET_META_CONTEXT, ALLOCATION);
	require(ask_meta(c, NBD_OPT_SET_META_CONTEXT, NULL, 0) == NBD_REP_ACK &&
			c->nr_replies == 0,
		"no query selects something");
}

static void set_meta_wildcard(struct client *c)
{
	begin_meta(c);
	require(count_meta(c, NBD_OPT_SET_META_CONTEXT, "base:") == 0,
		"\"base:\" selects something");
}

static void set_meta_unknown(struct client *c)
{
	static const char *const queries[] = { "x-none:leaf", ALLOCATION,
					       "base:none" };

	begin_meta(c);
	require(count_meta(c, NBD_OPT_SET_META_CONTEXT, "x-none:leaf") == 0,
		"an unknown namespace selects something");
	if (count_meta(c, NBD_OPT_SET_META_CONTEXT, ALLOCATION) == 0)
		return;
	require(ask_meta(c, NBD_OPT_SET_META_CONTEXT, queries,
			 ARRAY_SIZE(queries)) == NBD_REP_ACK &&
			c->nr_replies == 1,
		"beside unknown ones " ALLOCATION " is not found");
}

static void set_meta_twice(struct client *c)
{
	static const char *const queries[] = { ALLOCATION, ALLOCATION };

	begin_meta(c);
	(void)count_meta(c, NBD_OPT_SET_META_CONTEXT, ALLOCATION);
	require(ask_meta(c, NBD_OPT_SET_META_CONTEXT, queries,
			 ARRAY_SIZE(queries)) == NBD_REP_ACK,
		"the same query twice is refused");
	for (unsigned int i = 1; i < c->nr_replies; i++)
		require(nbd_get32(c->replies[i].data) !=
				nbd_get32(c->replies[0].data),
			"two contexts with the same id");
}

static void set_meta_simple(struct client *c)
{
	const char *query = ALLOCATION;
	uint32_t type;

	client_begin(c);
	type = ask_meta(c, NBD_OPT_SET_META_CONTEXT, &query, 1);
	if (type == ERR(TLS_REQD) || type == ERR(UNSUP))
		client_skip("it is answered %#x", type);
	require(type == ERR(INVALID) || type == ERR(EXT_HEADER_REQD),
		"without structured replies it is answered %#x", type);
}

static void meta_malformed(struct client *c)
{
	static const uint32_t options[] = { NBD_OPT_LIST_META_CONTEXT,
					    NBD_OPT_SET_META_CONTEXT };
	uint8_t room[64] = { 0 };

	begin_meta(c);
	for (unsigned int i = 0; i < ARRAY_SIZE(options); i++) {
		uint32_t type;

		(void)count_meta(c, options[i], "base:");
		/* Of the default export; a query longer than the option. */
		(void)nbd_put32(nbd_put32(nbd_put32(room, 0), 1), 1000);
		type = client_ask(c, options[i], room, 24);
		require(type == ERR(INVALID),
			"a malformed option %u is answered %#x", options[i],
			type);
	}
	client_enter(c);
	client_alive(c);
}

/* BLOCK_STATUS must not work any more. */
static void no_status(struct client *c, const char *after)
{
	uint32_t error;

	client_enter(c);
	client_needs_size(c, blocks(c, 1));
	error = client_simple_do(c, NBD_CMD_BLOCK_STATUS, 0, 0, blocks(c, 1));
	require(error, "%s BLOCK_STATUS is answered", after);
	client_alive(c);
}

static void set_meta_replaces(struct client *c)
{
	begin_meta(c);
	if (count_meta(c, NBD_OPT_SET_META_CONTEXT, ALLOCATION) == 0)
		client_skip("the server has no " ALLOCATION);
	(void)ask_meta(c, NBD_OPT_SET_META_CONTEXT, NULL, 0);
	no_status(c, "after none was selected");
}

static void set_meta_failure(struct client *c)
{
	uint8_t room[64] = { 0 };

	begin_meta(c);
	if (count_meta(c, NBD_OPT_SET_META_CONTEXT, ALLOCATION) == 0)
		client_skip("the server has no " ALLOCATION);
	(void)nbd_put32(nbd_put32(nbd_put32(room, 0), 1), 1000);
	require(client_ask(c, NBD_OPT_SET_META_CONTEXT, room, 24) &
			NBD_REP_ERROR,
		"a malformed option is accepted");
	no_status(c, "after SET_META_CONTEXT failed");
}

/* Another export's name; skips the case if there is none. */
static const char *other_export(struct client *c)
{
	struct client *other = client_other(c);

	client_begin(other);
	if (client_ask(other, NBD_OPT_LIST, NULL, 0) != NBD_REP_ACK)
		client_skip("the server does not list its exports");
	for (unsigned int i = 1; i < other->nr_replies; i++) {
		uint32_t length = nbd_get32(other->replies[i].data);
		char *name = client_memory(length + 1);

		memcpy(name, other->replies[i].data + 4, length);
		if (strcmp(name, name_of(c)) != 0)
			return name;
	}
	client_skip("the server has one export only");
}

static void set_meta_elsewhere(struct client *c)
{
	static const char *const queries[] = { ALLOCATION };
	const char *name = other_export(c);
	uint8_t room[8192];

	begin_meta(c);
	if (client_ask(c, NBD_OPT_SET_META_CONTEXT, room,
		       meta_data(room, name, queries, 1)) != NBD_REP_ACK)
		client_skip("the server has no contexts of \"%s\"", name);
	no_status(c, "after the contexts of another export were chosen");
}

const struct test_case option_cases[] = {
	{ "info", "NBD_OPT_INFO and NBD_OPT_GO",
	  "before ACK the server MUST send INFO_EXPORT; of length 12", false,
	  info },
	{ "info-unknown-request", "NBD_OPT_INFO and NBD_OPT_GO",
	  "the server MUST ignore information requests it does not understand",
	  false, info_unknown_wish },
	{ "info-once", "NBD_REP_INFO",
	  "an information type SHOULD only appear once", true, info_once },
	{ "info-unknown-export", "NBD_OPT_INFO and NBD_OPT_GO",
	  "ERR_UNKNOWN; the server SHOULD NOT send INFO replies then", true,
	  info_unknown_export },
	{ "go-unknown-export", "NBD_OPT_INFO and NBD_OPT_GO",
	  "GO that fails leaves the session in the handshake", false,
	  go_unknown_export },
	{ "go-as-info", "NBD_OPT_INFO and NBD_OPT_GO",
	  "GO after INFO MUST reply with the same set of information", false,
	  go_as_info },
	{ "go-no-padding", "NBD_OPT_INFO and NBD_OPT_GO",
	  "the server MUST NOT send zero padding after ACK of GO", false,
	  go_no_padding },
	{ "info-malformed", "NBD_REP_ERR_INVALID",
	  "syntactically invalid: ERR_INVALID, and the session goes on", true,
	  info_malformed },
	{ "info-name", "NBD_INFO_NAME", "the server's canonical name", false,
	  info_name },
	{ "flags-has-flags", "Transmission flags",
	  "HAS_FLAGS: MUST always be 1", false, has_flags },
	{ "flags-no-df", "Transmission flags",
	  "SEND_DF MUST be clear if structured replies were not negotiated",
	  false, no_df },
	{ "flags-fast-zero", "Transmission flags",
	  "SEND_FAST_ZERO MUST be 0 if SEND_WRITE_ZEROES is not set", false,
	  fast_zero_flag },
	{ "block-minimum", "Block size constraints",
	  "MUST be a power of 2, MUST NOT be larger than 65536", false,
	  minimum_block },
	{ "block-size", "Block size constraints",
	  "the export size SHOULD be a multiple of the minimum", true,
	  size_in_blocks },
	{ "block-preferred", "Block size constraints",
	  "MUST be a power of 2, at least the minimum and 512", false,
	  preferred_block },
	{ "block-maximum", "Block size constraints",
	  "MUST be a multiple of the minimum or 0xffffffff, and at least the "
	  "preferred",
	  false, maximum_block },
	{ "block-maximum-useful", "Block size constraints",
	  "SHOULD be at least 2^20", true, maximum_is_useful },
	{ "block-not-required", "Block size constraints",
	  "servers SHOULD NOT refuse clients that do not ask for sizes", true,
	  sizes_not_required },
	{ "block-size-asked", "NBD_OPT_INFO and NBD_OPT_GO",
	  "ERR_BLOCK_SIZE_REQD MUST NOT be sent to who asks for block sizes",
	  false, sizes_asked_for },
	{ "structured-with-data", "NBD_OPT_STRUCTURED_REPLY",
	  "the server SHOULD reject data with ERR_INVALID", true,
	  structured_with_data },
	{ "extended-with-data", "NBD_OPT_EXTENDED_HEADERS",
	  "the server SHOULD reject data with ERR_INVALID", true,
	  extended_with_data },
	{ "extended-then-structured", "NBD_OPT_STRUCTURED_REPLY",
	  "ERR_EXT_HEADER_REQD: extended headers take precedence", false,
	  structured_after_extended },
	{ "structured-then-extended", "NBD_OPT_EXTENDED_HEADERS",
	  "a client MAY request structured replies first", false,
	  extended_after_structured },
	{ "extended-go", "NBD_OPT_EXTENDED_HEADERS",
	  "the server MUST also support GO", false, extended_has_go },
	{ "list-meta-all", "NBD_OPT_LIST_META_CONTEXT",
	  "zero queries: the server MUST return all contexts", false,
	  list_meta_all },
	{ "list-meta-wildcard", "The base: metadata namespace",
	  "base: MUST be supported as a wildcard in LIST", false,
	  list_meta_wildcard },
	{ "list-meta-id", "NBD_OPT_LIST_META_CONTEXT",
	  "the id in a list SHOULD be zero", true, list_meta_id },
	{ "list-meta-unknown", "NBD_OPT_LIST_META_CONTEXT",
	  "unknown namespaces and leaves MUST be ignored; then a single ACK",
	  false, list_meta_unknown },
	{ "set-meta", "NBD_OPT_SET_META_CONTEXT",
	  "MUST reply with one META_CONTEXT for each selected, then ACK", false,
	  set_meta },
	{ "set-meta-none", "NBD_OPT_SET_META_CONTEXT",
	  "zero queries: the server MUST select none", false, set_meta_none },
	{ "set-meta-wildcard", "The base: metadata namespace",
	  "base: MUST be ignored in SET", false, set_meta_wildcard },
	{ "set-meta-unknown", "NBD_OPT_SET_META_CONTEXT",
	  "unknown namespaces and leaves MUST be ignored", false,
	  set_meta_unknown },
	{ "set-meta-unique", "NBD_OPT_SET_META_CONTEXT",
	  "each with a unique id", false, set_meta_twice },
	{ "set-meta-simple", "NBD_OPT_SET_META_CONTEXT",
	  "without structured replies a server SHOULD send ERR_INVALID", true,
	  set_meta_simple },
	{ "meta-malformed", "NBD_OPT_LIST_META_CONTEXT",
	  "syntactically invalid: MUST fail with ERR_INVALID", false,
	  meta_malformed },
	{ "set-meta-elsewhere", "Metadata querying",
	  "contexts are those of the export that was named, and of no other",
	  true, set_meta_elsewhere },
	{ "set-meta-replaces", "NBD_OPT_SET_META_CONTEXT",
	  "replaces all previously set contexts", false, set_meta_replaces },
	{ "set-meta-failure", "NBD_OPT_SET_META_CONTEXT",
	  "... including when the command fails", false, set_meta_failure },
	{ 0 },
};
