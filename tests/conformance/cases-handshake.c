/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the greeting to the end of option haggling; LIST; TLS as far as it can be
 * seen without it. */
#include "config.h"

#include "cases.h"

#define KNOWN_FLAGS (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define UNKNOWN	    0x7ead0001u /* an option */

static const char *name_of(const struct client *c)
{
	return c->options->server.export_name;
}

/* --- Greeting ------------------------------------------------------------- */

static void greeting(struct client *c)
{
	client_connect(c);
}

static void greeting_flags(struct client *c)
{
	client_connect(c);
	require(!(c->server_flags & ~KNOWN_FLAGS), "handshake flags %#x",
		c->server_flags);
}

static void fixed_newstyle(struct client *c)
{
	client_connect(c);
	require(c->server_flags & NBD_FLAG_FIXED_NEWSTYLE,
		"FIXED_NEWSTYLE is not set");
}

static void unknown_client_flag(struct client *c)
{
	for (unsigned int bit = 2; bit < 32; bit += 7) {
		client_connect(c);
		client_flags(c, 1u << bit | NBD_FLAG_FIXED_NEWSTYLE);
		client_gone(c, "an unknown client flag");
	}
}

static void flag_not_offered(struct client *c)
{
	client_connect(c);
	if (c->server_flags & NBD_FLAG_NO_ZEROES)
		client_skip("NO_ZEROES is offered");
	client_flags(c, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	client_gone(c, "NO_ZEROES that was not offered");
}

/* --- Does it want TLS? ---------------------------------------------------- */

enum mode { NO_TLS, FORCED_TLS };

/* Selective servers answer as those without, as long as the export is not one
 * for TLS only. */
static enum mode mode_of(struct client *c)
{
	uint8_t room[8192];

	client_begin(c);
	return client_ask(c, NBD_OPT_INFO, room,
			  info_data(room, name_of(c), NULL, 0)) ==
			       (NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD) ?
		       FORCED_TLS :
		       NO_TLS;
}

static void needs_no_tls(struct client *c)
{
	if (mode_of(client_other(c)) == FORCED_TLS)
		client_skip("the server wants TLS first");
}

/* --- EXPORT_NAME ---------------------------------------------------------- */

/* Chooses the export so; in transmission then. */
static void choose_by_name(struct client *c, uint32_t flags)
{
	uint8_t answer[10 + NBD_ZEROES_BYTES];
	bool bare = flags & NBD_FLAG_NO_ZEROES;

	needs_no_tls(c);
	client_connect(c);
	client_flags(c, flags & c->server_flags);
	client_option(c, NBD_OPT_EXPORT_NAME, name_of(c), strlen(name_of(c)));
	client_recv(c, answer, bare ? 10 : sizeof(answer));
	c->size = nbd_get64(answer);
	c->flags = nbd_get16(answer + 8);
	c->minimum = 1;
	for (size_t i = 10; !bare && i < sizeof(answer); i++)
		require(answer[i] == 0, "reserved byte %zu is %u", i,
			answer[i]);
}

/* A request that needs no block size. */
static void in_step(struct client *c)
{
	struct request r = { .type = NBD_CMD_READ,
			     .length = 4096,
			     .cookie = 77 };

	client_needs_size(c, 4096);
	require(client_do(c, &r) == 0, "a read: %s", error_name(r.error));
}

static void export_name(struct client *c)
{
	choose_by_name(c, NBD_FLAG_FIXED_NEWSTYLE);
	in_step(c);
}

static void no_zeroes(struct client *c)
{
	client_connect(c);
	if (!(c->server_flags & NBD_FLAG_NO_ZEROES))
		client_skip("NO_ZEROES is not offered");
	choose_by_name(c, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	in_step(c);
}

static void not_fixed(struct client *c)
{
	choose_by_name(c, 0);
	in_step(c);
}

static void unknown_export_name(struct client *c)
{
	uint8_t answer[10];

	client_begin(c);
	client_option(c, NBD_OPT_EXPORT_NAME, NO_EXPORT_NAME,
		      strlen(NO_EXPORT_NAME));
	if (client_is_gone(c))
		return;
	/* It serves any name, then: what we see of it is an export. */
	client_recv(c, answer, sizeof(answer) - 1);
	client_skip("the server has an export of any name");
}

static void same_size_everywhere(struct client *c)
{
	struct client *other = client_other(c);

	choose_by_name(c, NBD_FLAG_FIXED_NEWSTYLE);
	client_go(other, SIMPLE, false);
	require(c->size == other->size, "sizes by EXPORT_NAME and by GO");
	require(c->flags == other->flags, "flags %#x and %#x", c->flags,
		other->flags);
}

/* --- Options -------------------------------------------------------------- */

static void unknown_option(struct client *c)
{
	static const size_t lengths[] = { 0, 1, 17, 4000 };
	uint8_t data[4000] = { 0 };

	client_begin(c);
	for (unsigned int i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint32_t type = client_ask(c, UNKNOWN + i, data, lengths[i]);

		if (type == (NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD))
			client_skip("the server wants TLS first");
		require(type == (NBD_REP_ERROR | NBD_REP_ERR_UNSUP),
			"an unknown option is answered %#x", type);
	}
}

static void next_option_is_understood(struct client *c)
{
	uint8_t data[3000] = { 0x49, 0x48, 0x41, 0x56 };

	client_begin(c);
	(void)client_ask(c, UNKNOWN, data, sizeof(data));
	require(client_ask(c, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK,
		"ABORT after an unknown option is not acknowledged");
}

static void many_options(struct client *c)
{
	client_begin(c);
	for (unsigned int i = 0; i < 30; i++)
		(void)client_ask(c, UNKNOWN, NULL, 0);
	require(client_ask(c, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK,
		"ABORT after 30 options is not acknowledged");
}

static void abort_is_acknowledged(struct client *c)
{
	client_begin(c);
	require(client_ask(c, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK,
		"ABORT is not acknowledged");
}

static void abort_with_data(struct client *c)
{
	uint8_t data[100] = { 0 };

	client_begin(c);
	require(client_ask(c, NBD_OPT_ABORT, data, sizeof(data)) == NBD_REP_ACK,
		"ABORT with data is not acknowledged");
}

static void abort_and_close(struct client *c)
{
	client_begin(c);
	client_option(c, NBD_OPT_ABORT, NULL, 0);
	client_close(c);
	client_begin(c);
	require(client_ask(c, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK,
		"the next client is not served");
}

/* --- LIST ----------------------------------------------------------------- */

static void ask_list(struct client *c)
{
	uint32_t type;

	client_begin(c);
	type = client_ask(c, NBD_OPT_LIST, NULL, 0);
	if (type == (NBD_REP_ERROR | NBD_REP_ERR_POLICY))
		client_skip("the server does not list its exports");
	if (type == (NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD))
		client_skip("the server wants TLS first");
	require(type == NBD_REP_ACK, "LIST is answered %#x", type);
}

static void list(struct client *c)
{
	ask_list(c);
	for (unsigned int i = 0; i < c->nr_replies; i++)
		require(c->replies[i].type == NBD_REP_SERVER,
			"LIST is answered by %#x", c->replies[i].type);
}

static void list_names_work(struct client *c)
{
	struct client *other = client_other(c);
	uint8_t room[8192];

	ask_list(c);
	client_begin(other);
	for (unsigned int i = 0; i < c->nr_replies; i++) {
		const struct reply *reply = &c->replies[i];
		uint32_t length = nbd_get32(reply->data);
		char *name = client_memory(length + 1);

		memcpy(name, reply->data + 4, length);
		require(client_ask(other, NBD_OPT_INFO, room,
				   info_data(room, name, NULL, 0)) ==
				NBD_REP_ACK,
			"\"%s\" is in the list, and INFO does not know it",
			name);
	}
}

static void list_with_data(struct client *c)
{
	uint8_t data[4] = { 0 };
	uint32_t type;

	ask_list(c);
	type = client_ask(c, NBD_OPT_LIST, data, sizeof(data));
	require(type == (NBD_REP_ERROR | NBD_REP_ERR_INVALID),
		"LIST with data is answered %#x", type);
}

/* --- TLS ------------------------------------------------------------------ */

static void forced(struct client *c)
{
	if (mode_of(c) != FORCED_TLS)
		client_skip("the server does not want TLS first");
}

static void starttls(struct client *c)
{
	uint32_t type;

	(void)mode_of(c);
	type = client_ask(c, NBD_OPT_STARTTLS, NULL, 0);
	require(type == NBD_REP_ACK || type & NBD_REP_ERROR,
		"STARTTLS is answered %#x", type);
}

static void starttls_refused(struct client *c)
{
	uint32_t type;

	(void)mode_of(c);
	type = client_ask(c, NBD_OPT_STARTTLS, NULL, 0);
	if (type == NBD_REP_ACK)
		client_skip("the server has TLS");
	require(client_ask(c, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK,
		"ABORT after STARTTLS was refused");
}

static void starttls_with_data(struct client *c)
{
	uint8_t data[4] = { 0 };
	uint32_t type;

	client_begin(c);
	type = client_ask(c, NBD_OPT_STARTTLS, data, sizeof(data));
	require(type == NBD_REP_ACK || type & NBD_REP_ERROR,
		"STARTTLS with data is answered %#x", type);
}

static void no_tls_without_fixed(struct client *c)
{
	uint8_t head[NBD_REP_BYTES];

	client_connect(c);
	client_flags(c, c->server_flags & NBD_FLAG_NO_ZEROES);
	client_option(c, NBD_OPT_STARTTLS, NULL, 0);
	if (client_is_gone(c))
		return;
	client_recv(c, head + 1, sizeof(head) - 1);
	require(nbd_get32(head + 12) != NBD_REP_ACK,
		"STARTTLS is acknowledged without FIXED_NEWSTYLE");
}

static void no_tls_reqd(struct client *c)
{
	static const uint32_t options[] = { NBD_OPT_LIST,
					    NBD_OPT_STRUCTURED_REPLY,
					    NBD_OPT_EXTENDED_HEADERS, UNKNOWN };

	if (mode_of(c) == FORCED_TLS)
		client_skip("the server wants TLS first");
	for (unsigned int i = 0; i < ARRAY_SIZE(options); i++)
		require(client_ask(c, options[i], NULL, 0) !=
				(NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD),
			"option %u is answered TLS_REQD", options[i]);
}

static void forced_for_all(struct client *c)
{
	static const uint32_t options[] = { NBD_OPT_LIST,
					    NBD_OPT_STRUCTURED_REPLY,
					    NBD_OPT_EXTENDED_HEADERS, UNKNOWN };
	uint8_t room[8192];
	size_t length;
	uint32_t type;

	forced(c);
	for (unsigned int i = 0; i < ARRAY_SIZE(options); i++) {
		type = client_ask(c, options[i], NULL, 0);
		require(type == (NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD),
			"option %u is answered %#x", options[i], type);
	}
	length = info_data(room, name_of(c), NULL, 0);
	type = client_ask(c, NBD_OPT_GO, room, length);
	require(type == (NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD) &&
			c->nr_replies == 0,
		"GO is answered %#x", type);
}

static void forced_export_name(struct client *c)
{
	forced(c);
	client_option(c, NBD_OPT_EXPORT_NAME, name_of(c), strlen(name_of(c)));
	client_gone(c, "EXPORT_NAME without TLS");
}

static void forced_starttls(struct client *c)
{
	static const char junk[64] = "this is no TLS handshake";

	forced(c);
	require(client_ask(c, NBD_OPT_STARTTLS, NULL, 0) == NBD_REP_ACK,
		"STARTTLS is not acknowledged");
	client_send(c, junk, sizeof(junk));
	/* An alert may come first. */
	while (!client_is_gone(c))
		;
}

static void forced_abort(struct client *c)
{
	forced(c);
	require(client_ask(c, NBD_OPT_ABORT, NULL, 0) == NBD_REP_ACK,
		"ABORT is not acknowledged");
}

const struct test_case handshake_cases[] = {
	{ "greeting", "Newstyle negotiation",
	  "the server sends NBDMAGIC, IHAVEOPT and 16 bits of flags", false,
	  greeting },
	{ "greeting-flags", "Handshake flags",
	  "the server MUST NOT set any other flags", false, greeting_flags },
	{ "fixed-newstyle", "Baseline",
	  "the fixed newstyle handshake MUST be implemented", false,
	  fixed_newstyle },
	{ "client-flag-unknown", "Client flags",
	  "the server MUST drop the connection if the client sets an unknown "
	  "flag",
	  false, unknown_client_flag },
	{ "client-flag-not-offered", "Client flags",
	  "... or a flag that does not match something advertised", false,
	  flag_not_offered },
	{ "export-name", "Newstyle negotiation",
	  "EXPORT_NAME: size, flags, 124 reserved zeroes", false, export_name },
	{ "no-zeroes", "Handshake flags",
	  "with NO_ZEROES the server MUST NOT send the 124 bytes", false,
	  no_zeroes },
	{ "not-fixed", "Newstyle negotiation",
	  "EXPORT_NAME is the option of a client without FIXED_NEWSTYLE", true,
	  not_fixed },
	{ "export-name-unknown", "NBD_OPT_EXPORT_NAME",
	  "if the export does not exist the server MUST terminate the session",
	  false, unknown_export_name },
	{ "export-name-as-go", "NBD_INFO_EXPORT",
	  "INFO_EXPORT describes the same information as EXPORT_NAME", false,
	  same_size_everywhere },
	{ "option-unknown", "Baseline",
	  "messages that are not implemented MUST be answered ERR_UNSUP", false,
	  unknown_option },
	{ "option-unknown-next", "Baseline",
	  "... and the server MUST NOT fail to parse the next one", false,
	  next_option_is_understood },
	{ "option-many", "Termination of the session during option haggling",
	  "the server MUST simply error inbound options", false, many_options },
	{ "abort", "NBD_OPT_ABORT", "the server MUST reply with ACK", false,
	  abort_is_acknowledged },
	{ "abort-with-data", "NBD_OPT_ABORT",
	  "the server SHOULD ignore any data", true, abort_with_data },
	{ "abort-and-close", "NBD_OPT_ABORT",
	  "the server SHOULD handle a client that does not wait for the reply",
	  true, abort_and_close },
	{ "list", "NBD_OPT_LIST",
	  "zero or more SERVER, followed by ACK; names no longer than the reply",
	  false, list },
	{ "list-names", "NBD_REP_SERVER",
	  "the name of the export, as expected by INFO", false,
	  list_names_work },
	{ "list-with-data", "NBD_OPT_LIST",
	  "the server SHOULD reject data with ERR_INVALID", true,
	  list_with_data },
	{ "starttls", "NBD_OPT_STARTTLS",
	  "the server MUST reply with ACK or an error", false, starttls },
	{ "starttls-refused", "NOTLS mode",
	  "an error to STARTTLS, and negotiation goes on", false,
	  starttls_refused },
	{ "starttls-with-data", "NBD_OPT_STARTTLS",
	  "ACK, or an error such as ERR_INVALID if there was data", false,
	  starttls_with_data },
	{ "starttls-not-fixed", "Server-side requirements",
	  "the server MUST operate in NOTLS mode unless the client set "
	  "FIXED_NEWSTYLE",
	  false, no_tls_without_fixed },
	{ "notls-no-tls-reqd", "NOTLS mode",
	  "the server MUST NOT respond to any option with ERR_TLS_REQD", false,
	  no_tls_reqd },
	{ "forcedtls-options", "FORCEDTLS mode",
	  "any other option MUST be answered ERR_TLS_REQD, without INFO", false,
	  forced_for_all },
	{ "forcedtls-export-name", "FORCEDTLS mode",
	  "EXPORT_NAME before TLS: the server MUST terminate the session",
	  false, forced_export_name },
	{ "forcedtls-starttls", "FORCEDTLS mode",
	  "STARTTLS MUST be acknowledged; a handshake that fails MUST end the "
	  "session",
	  false, forced_starttls },
	{ "forcedtls-abort", "Server-side requirements",
	  "ABORT is no option that wants TLS", false, forced_abort },
	{ 0 },
};
