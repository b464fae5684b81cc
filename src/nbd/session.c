/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * session.c - a client's bytes, cut into what they mean.
 *
 * Theory of operation
 *
 * Input goes into one buffer, and what is complete there is taken out of it:
 * the flags, an option, the header of a request (take_one()).  A write's payload
 * that is there by then stays where it is until the write is done (borrow()), and
 * input goes on in another buffer meanwhile.  Else it goes to the command's own
 * buffer, the part that came with the header by copy and the rest straight from the
 * socket, so that long writes are not copied.
 *
 * A request that is refused may bring a payload all the same; it is skipped, and
 * the session goes on.  Where the end of the payload cannot be trusted to come
 * (a length of terabytes) the session ends.
 *
 * Nothing is read while the client has enough under way: that is how a client
 * which does not read its replies is kept from filling our memory.
 */
#include "nbd/private.h"

#include <assert.h>

#include "common/util.h"

/* --- Commands ------------------------------------------------------------- */

void nbd_free_command(struct nbd_command *command)
{
	struct nbd_session *s = command->session;

	s->nr_commands--;
	if (command->input)
		nbd_input_put(s, command->input);
	else
		nbd_buffer_free(s, command->buffer, command->length);
	if (s->nr_commands == 0)
		nbd_buffer_trim(s, NBD_IDLE_SPARE);
	free(command->extents);
	nbd_pool_give(&s->commands, command);
}

static size_t waiting(const struct nbd_session *s)
{
	return s->input_end - s->input_start;
}

/* All of its payload is there, and may be used where it is.  Writes under way may not
 * have all buffers: there must be one more to read into. */
static bool borrow(struct nbd_session *s, struct nbd_command *command)
{
	uint32_t alignment = s->export->memory_alignment;
	uint8_t *p = s->input->bytes + s->input_start;

	if (command->type != NBD_CMD_WRITE || command->length > waiting(s) ||
	    alignment == 0 || (uintptr_t)p % alignment != 0 ||
	    s->nr_inputs == NBD_MAX_INPUTS)
		return false;
	s->input->nr_users++;
	command->input = s->input;
	command->buffer = p;
	s->input_start += command->length;
	return true;
}

static struct nbd_command *new_command(struct nbd_session *s,
				       const struct nbd_request *request)
{
	struct nbd_command *command = nbd_pool_take(&s->commands);

	if (!command)
		return NULL;
	command->session = s;
	command->export = s->export;
	command->type = request->type;
	command->flags = request->flags;
	command->cookie = request->cookie;
	command->offset = request->offset;
	command->length = request->length;
	if (request->length &&
	    (request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE) &&
	    !borrow(s, command)) {
		command->buffer = nbd_buffer_new(s, request->length);
		if (!command->buffer) {
			nbd_pool_give(&s->commands, command);
			return NULL;
		}
	}
	s->nr_commands++;
	return command;
}

/* A request for nothing is done at once. */
static void submit(struct nbd_session *s, struct nbd_command *command)
{
	s->nr_pending++;
	if (command->length == 0 && command->type != NBD_CMD_FLUSH)
		nbd_command_done(command, 0, NULL);
	else
		s->events->submit(s->ctx, command);
}

/* --- Requests ------------------------------------------------------------- */

/* Its payload is not wanted.  Nobody waits for one of terabytes to pass. */
static int skip_payload(struct nbd_session *s,
			const struct nbd_request *request)
{
	if (!nbd_request_has_payload(s->headers, request))
		return 0;
	if (request->length > UINT32_MAX)
		return -EPROTO;
	s->skip = request->length;
	return 0;
}

static int refuse_request(struct nbd_session *s,
			  const struct nbd_request *request,
			  enum nbd_error error, const char *why)
{
	int r = nbd_reply_error(s, request, error, why);

	return r ? r : skip_payload(s, request);
}

static int take_request(struct nbd_session *s,
			const struct nbd_request *request)
{
	const char *why = NULL;
	enum nbd_error error;

	if (request->type == NBD_CMD_DISC) {
		s->state = NBD_WANT_NOTHING;
		return 0;
	}
	error = nbd_judge(s->export, s->headers, s->allocation, request, &why);
	if (error != NBD_SUCCESS)
		return refuse_request(s, request, error, why);
	s->command = new_command(s, request);
	if (!s->command)
		return refuse_request(s, request, NBD_ENOMEM, "no memory");
	s->received = 0;
	if (nbd_request_has_payload(s->headers, request) && request->length &&
	    !s->command->input)
		s->state = NBD_WANT_PAYLOAD;
	else
		submit(s, TAKE_PTR(s->command));
	return 0;
}

static int parse_request(const struct nbd_session *s, const uint8_t *p,
			 struct nbd_request *ret)
{
	bool extended = s->headers == NBD_EXTENDED;

	if (nbd_get32(p) !=
	    (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
		return -EPROTO;
	ret->flags = nbd_get16(p + 4);
	ret->type = nbd_get16(p + 6);
	ret->cookie = nbd_get64(p + 8);
	ret->offset = nbd_get64(p + 16);
	ret->length = extended ? nbd_get64(p + 24) : nbd_get32(p + 24);
	return 0;
}

/* --- Input ---------------------------------------------------------------- */

/* With the client's flags, or an option's header, taken. */
static int take_option_header(struct nbd_session *s, const uint8_t *p)
{
	uint32_t length = nbd_get32(p + 12);

	if (nbd_get64(p) != NBD_OPTION_MAGIC)
		return -EPROTO;
	s->option = nbd_get32(p + 8);
	if (length > NBD_MAX_OPTION) {
		s->skip = length;
		return nbd_refuse_option(s, s->option);
	}
	s->received = length;
	s->state = NBD_WANT_OPTION_DATA;
	return 0;
}

static int take_payload(struct nbd_session *s)
{
	struct nbd_command *command = s->command;
	size_t n = MIN(waiting(s), command->length - s->received);

	memcpy((uint8_t *)command->buffer + s->received,
	       s->input->bytes + s->input_start, n);
	s->input_start += n;
	s->received += n;
	if (s->received == command->length) {
		s->state = NBD_WANT_REQUEST;
		submit(s, TAKE_PTR(s->command));
	}
	return 0;
}

/* How many bytes the next piece needs to be looked at. */
static size_t needed(const struct nbd_session *s)
{
	switch (s->state) {
	case NBD_WANT_FLAGS:
		return 4;
	case NBD_WANT_OPTION:
		return NBD_OPTION_BYTES;
	case NBD_WANT_OPTION_DATA:
		return s->received;
	case NBD_WANT_REQUEST:
		return s->headers == NBD_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES :
						    NBD_REQUEST_BYTES;
	case NBD_WANT_PAYLOAD:
		return 1;
	case NBD_WANT_NOTHING:
		break;
	}
	return SIZE_MAX;
}

/* Takes the next piece, which is there. */
static int take_one(struct nbd_session *s, size_t length)
{
	const uint8_t *p = s->input->bytes + s->input_start;
	struct nbd_request request;
	int r;

	if (s->state == NBD_WANT_PAYLOAD)
		return take_payload(s);
	s->input_start += length;
	switch (s->state) {
	case NBD_WANT_FLAGS:
		return nbd_take_flags(s, nbd_get32(p));
	case NBD_WANT_OPTION:
		return take_option_header(s, p);
	case NBD_WANT_OPTION_DATA:
		return nbd_take_option(s, s->option, p, (uint32_t)length);
	default:
		r = parse_request(s, p, &request);
		return r ? r : take_request(s, &request);
	}
}

static void skip_input(struct nbd_session *s)
{
	size_t n = MIN(s->skip, waiting(s));

	s->skip -= n;
	s->input_start += n;
}

/* Has the client enough under way?  What belongs to a command that has begun
 * counts already, and is to come. */
static bool is_full(const struct nbd_session *s)
{
	if (s->state == NBD_WANT_PAYLOAD)
		return false;
	return s->nr_commands >= NBD_MAX_COMMANDS ||
	       s->memory >= NBD_MAX_MEMORY || s->out_bytes >= NBD_OUTPUT_BYTES;
}

/* All that is complete.  After STARTTLS what follows in the clear must not be
 * taken for something said inside TLS. */
static int take_input(struct nbd_session *s)
{
	int r = 0;

	skip_input(s);
	while (!r && s->skip == 0 && !s->wants_tls && !is_full(s)) {
		size_t length = needed(s);

		if (length > waiting(s))
			break;
		r = take_one(s, length);
		skip_input(s);
	}
	if (!r && s->wants_tls && waiting(s) > 0)
		r = -EPROTO;
	return r;
}

/* Do the next bytes go to the payload's own place?  Only when so much of it is
 * missing that a system call of its own is worth it. */
static bool goes_straight(const struct nbd_session *s)
{
	return s->state == NBD_WANT_PAYLOAD && waiting(s) == 0 &&
	       s->command->length - s->received >= NBD_INPUT_BYTES / 4;
}

/* What is left goes to the front; of another buffer, where writes use this one and
 * have left little of it. */
static void make_room(struct nbd_session *s)
{
	const uint8_t *p = s->input->bytes + s->input_start;
	struct nbd_input *old = s->input;
	size_t n = waiting(s);

	if (s->input_start == 0)
		return;
	if (old->nr_users > 0 &&
	    (NBD_INPUT_BYTES - s->input_end >= NBD_INPUT_BYTES / 2 ||
	     !nbd_input_renew(s)))
		return;
	memmove(s->input->bytes, p, n);
	s->input_start = 0;
	s->input_end = n;
}

size_t nbd_session_room(struct nbd_session *session, void **ret_room)
{
	struct nbd_session *s = session;

	if (s->state == NBD_WANT_NOTHING || s->wants_tls || is_full(s))
		return 0;
	if (goes_straight(s)) {
		*ret_room = (uint8_t *)s->command->buffer + s->received;
		return s->command->length - s->received;
	}
	make_room(s);
	*ret_room = s->input->bytes + s->input_end;
	return NBD_INPUT_BYTES - s->input_end;
}

bool nbd_session_is_full(const struct nbd_session *session)
{
	return session->state != NBD_WANT_NOTHING && is_full(session);
}

int nbd_session_take(struct nbd_session *session, size_t length)
{
	struct nbd_session *s = session;

	if (length > 0 && goes_straight(s)) {
		s->received += length;
		if (s->received < s->command->length)
			return 0;
		s->state = NBD_WANT_REQUEST;
		submit(s, TAKE_PTR(s->command));
		return 0;
	}
	s->input_end += length;
	assert(s->input_end <= NBD_INPUT_BYTES);
	return take_input(s);
}

/* --- Life ----------------------------------------------------------------- */

static int greet(struct nbd_session *s)
{
	uint8_t *p = nbd_out_bytes(s, 18);

	if (!p)
		return -ENOMEM;
	p = nbd_put64(p, NBD_MAGIC);
	p = nbd_put64(p, NBD_OPTION_MAGIC);
	(void)nbd_put16(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	return 0;
}

int nbd_session_new(struct nbd_session **ret,
		    const struct nbd_session_events *events, void *ctx,
		    enum nbd_tls tls)
{
	struct nbd_session *s = calloc(1, sizeof(*s));

	assert(events->command_size >= sizeof(struct nbd_command));
	if (!s)
		return -ENOMEM;
	s->events = events;
	s->ctx = ctx;
	s->tls = tls;
	s->commands.size = events->command_size;
	s->outs.size = sizeof(struct nbd_out) + NBD_SMALL_HEAD;
	if (!nbd_input_renew(s) || greet(s) < 0) {
		nbd_session_free(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

void nbd_session_free(struct nbd_session *session)
{
	if (!session)
		return;
	assert(session->nr_pending == 0);
	if (session->command)
		nbd_free_command(session->command);
	nbd_free_output(session);
	nbd_buffer_trim(session, 0);
	nbd_pool_empty(&session->commands);
	nbd_pool_empty(&session->outs);
	free(session->allocation_name);
	free(session->input);
	free(session);
}

bool nbd_session_ended(const struct nbd_session *session)
{
	return session->state == NBD_WANT_NOTHING && session->nr_pending == 0 &&
	       !session->out_first;
}

bool nbd_session_goodbye(const struct nbd_session *session, const uint8_t *rest,
			 size_t length)
{
	const struct nbd_session *s = session;
	size_t size = s->headers == NBD_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES :
						   NBD_REQUEST_BYTES;
	size_t late = MIN(length, size), early = size - late;
	uint8_t last[NBD_EXTENDED_REQUEST_BYTES];
	struct nbd_request request;

	if (early > waiting(s))
		return false;
	memcpy(last, s->input->bytes + s->input_end - early, early);
	if (late)
		memcpy(last + early, rest + length - late, late);
	return parse_request(s, last, &request) == 0 &&
	       request.type == NBD_CMD_DISC;
}

bool nbd_session_is_leaving(const struct nbd_session *session)
{
	return session->state == NBD_WANT_NOTHING;
}

const struct nbd_export *nbd_session_export(const struct nbd_session *session)
{
	return session->export;
}

unsigned int nbd_session_pending(const struct nbd_session *session)
{
	return session->nr_pending;
}

bool nbd_session_wants_tls(const struct nbd_session *session)
{
	return session->wants_tls;
}
