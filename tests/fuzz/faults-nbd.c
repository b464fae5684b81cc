/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Faults of the NBD server's judge, and in its replies, that the corpus must
 * find. */
#include "config.h"

#include "fuzz.h"

#include "nbd/private.h"

const char *const fuzz_faults[] = {
	"a range that overflows passes",
	"a write to a read-only export passes",
	"an unaligned request passes",
	"an extent is longer than was told",
	"one extent is wanted, and more are given",
	NULL,
};

enum nbd_error __real_nbd_judge(const struct nbd_export *export,
				enum nbd_headers headers, bool allocation,
				const struct nbd_request *request,
				const char **ret_why);
enum nbd_error __wrap_nbd_judge(const struct nbd_export *export,
				enum nbd_headers headers, bool allocation,
				const struct nbd_request *request,
				const char **ret_why);

enum nbd_error __wrap_nbd_judge(const struct nbd_export *export,
				enum nbd_headers headers, bool allocation,
				const struct nbd_request *request,
				const char **ret_why)
{
	struct nbd_export lax = *export;

	switch (fuzz_fault) {
	case 0:
		lax.size = UINT64_MAX;
		break;
	case 1:
		lax.readonly = false;
		break;
	case 2:
		lax.minimum_block = 1;
		break;
	default:
		break;
	}
	return __real_nbd_judge(&lax, headers, allocation, request, ret_why);
}

bool __real_nbd_command_extent(struct nbd_command *command, uint64_t length,
			       uint32_t state);
bool __wrap_nbd_command_extent(struct nbd_command *command, uint64_t length,
			       uint32_t state);

bool __wrap_nbd_command_extent(struct nbd_command *command, uint64_t length,
			       uint32_t state)
{
	if (fuzz_fault == 3 && command->nr_extents == 1)
		length++;
	if (fuzz_fault == 4)
		command->flags &= (uint16_t)~NBD_CMD_FLAG_REQ_ONE;
	return __real_nbd_command_extent(command, length, state);
}
