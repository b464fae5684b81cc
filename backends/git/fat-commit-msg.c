/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fat-commit.h"

#include <string.h>

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
				   .length = (uint32_t)length };
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
