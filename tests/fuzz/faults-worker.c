/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A broker that is too kind, for fuzz-worker to find. */
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

#include "common/msg.h"

enum { IGNORES_RUBBISH, TAKES_DESCRIPTOR, FORGIVES_HELLO };

const char *const fuzz_faults[] = {
	[IGNORES_RUBBISH] = "rubbish that is ignored is noticed",
	[TAKES_DESCRIPTOR] = "a descriptor that is taken is noticed",
	[FORGIVES_HELLO] = "a second HELLO that is passed over is noticed",
	NULL,
};

int __real_msg_receive(int sock, void *buf, size_t *ret_length, int *ret_fd);
int __wrap_msg_receive(int sock, void *buf, size_t *ret_length, int *ret_fd);

int __wrap_msg_receive(int sock, void *buf, size_t *ret_length, int *ret_fd)
{
	static bool heard; /* the message before was one, too */
	const struct msg_header *header = buf;
	int r = __real_msg_receive(sock, buf, ret_length, ret_fd);

	if (r == -EPROTO && fuzz_fault == IGNORES_RUBBISH)
		return -EAGAIN;
	if (r == 0 && *ret_fd >= 0 && fuzz_fault == TAKES_DESCRIPTOR) {
		(void)close(*ret_fd);
		*ret_fd = -1;
	}
	if (r == 0 && header->type == MSG_HELLO &&
	    fuzz_fault == FORGIVES_HELLO && heard)
		return -EAGAIN;
	heard = r == 0 && header->type == MSG_HELLO;
	return r;
}
