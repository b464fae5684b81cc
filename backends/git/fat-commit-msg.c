/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fat-commit.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fds.h"
#include "common/util.h"

#define NR_FDS 2u /* of a COMMIT */

static size_t length_of(uint16_t type)
{
	switch (type) {
	case FC_OPEN:
		return sizeof(struct fc_open);
	case FC_STAND:
		return sizeof(struct fc_stand);
	case FC_COMMIT:
		return sizeof(struct fc_commit);
	case FC_ANSWER:
		return sizeof(struct fc_answer);
	case FC_PROGRESS:
		return sizeof(struct fc_header);
	default:
		return 0;
	}
}

int fc_send(int sock, struct fc_header *msg, enum fc_type type, const int *fds,
	    unsigned int nr_fds)
{
	size_t length = length_of((uint16_t)type);

	*msg = (struct fc_header){ .type = (uint16_t)type,
				   .version = FC_VERSION,
				   .length = (uint32_t)length,
				   .seq = msg->seq };
	return fds_send(sock, msg, length, fds, nr_fds, 0);
}

#define ENDS(text) (!!memchr(text, '\0', sizeof(text)))

static bool is_sound(const union fc_any *m, size_t n, unsigned int nr_fds)
{
	if (n < sizeof(m->h) || m->h.version != FC_VERSION ||
	    m->h.length != n || length_of(m->h.type) != n ||
	    nr_fds != (m->h.type == FC_COMMIT ? NR_FDS : 0))
		return false;
	switch (m->h.type) {
	case FC_OPEN:
		return ENDS(m->open.branch) && ENDS(m->open.path) &&
		       ENDS(m->open.label);
	case FC_COMMIT:
		return ENDS(m->commit.domain) && ENDS(m->commit.message);
	case FC_ANSWER:
		return m->answer.result <= 0 && ENDS(m->answer.ref) &&
		       ENDS(m->answer.text);
	default:
		return true;
	}
}

int fc_receive(int sock, union fc_any *ret, int ret_fds[2])
{
	int fds[NR_FDS] = { -1, -1 };
	unsigned int nr;
	ssize_t n = fds_receive(sock, ret, sizeof(*ret), fds, NR_FDS, &nr, 0);

	if (n < 0)
		return (int)n;
	if (!is_sound(ret, (size_t)n, nr)) {
		fds_close(fds, nr);
		return -EPROTO;
	}
	memcpy(ret_fds, fds, sizeof(fds));
	return 0;
}

uint64_t fc_silence_s(void)
{
	const char *text = secure_getenv("XENDISK_FAT_SILENCE");
	uint64_t s;

	return text && parse_u64(text, FC_SILENCE_S, &s) == 0 ? s :
								FC_SILENCE_S;
}

static int wait_readable(int sock, uint64_t end)
{
	struct pollfd fd = { .fd = sock, .events = POLLIN };
	uint64_t now;
	int r;

	do {
		now = now_ns();
		r = poll(&fd, 1, now < end ? (int)((end - now) / 1000000) : 0);
	} while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : r < 0 ? -errno : -ETIMEDOUT;
}

/* Also -EPROTO. */
static int wait_message(int sock, uint64_t last, union fc_any *ret)
{
	uint64_t silent = now_ns() + fc_silence_s() * 1000000000ull;
	int none[2];
	int r = wait_readable(sock, MIN(silent, last));

	return r < 0 ? r : fc_receive(sock, ret, none);
}

int fc_wait(int sock, uint32_t seq, const struct fc_patience *patience,
	    struct fc_answer *ret)
{
	union fc_any any;
	int r;

	do {
		r = wait_message(sock, patience->until, &any);
		if (r == 0 && any.h.type == FC_PROGRESS && patience->progress)
			patience->progress(patience->ctx);
	} while (r == 0 && (any.h.type == FC_PROGRESS ||
			    (any.h.type == FC_ANSWER && any.h.seq != seq)));
	if (r == 0 && any.h.type != FC_ANSWER)
		r = -EPROTO;
	if (r == 0)
		*ret = any.answer;
	return r;
}

int fc_progress(int sock)
{
	const struct fc_header msg = { .type = FC_PROGRESS,
				       .version = FC_VERSION,
				       .length = sizeof(msg) };
	int r = fds_send(sock, &msg, sizeof(msg), NULL, 0, MSG_DONTWAIT);

	return r == -EAGAIN ? 0 : r;
}
