/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * request.c - is a request legal?  Pure: numbers in, a verdict out.
 *
 * After nbd_judge() has said yes a bad value is our own bug.  Which error it
 * says otherwise is the protocol document's ("Error values").
 */
#include "nbd/private.h"

#include <errno.h>

#include "common/util.h"

/* What a command looks like. */
struct form {
	bool known;
	bool writes;
	bool has_range;
	bool moves_data; /* so its length has a limit */
	uint16_t flags; /* that it may have, besides FUA */
	enum nbd_error beyond; /* when the range leaves the export */
};

static const struct form forms[NBD_NR_CMDS] = {
	[NBD_CMD_READ] = { true, false, true, true, NBD_CMD_FLAG_DF,
			   NBD_EINVAL },
	[NBD_CMD_WRITE] = { true, true, true, true, NBD_CMD_FLAG_PAYLOAD_LEN,
			    NBD_ENOSPC },
	[NBD_CMD_FLUSH] = { true, false, false, false, 0, NBD_EINVAL },
	[NBD_CMD_TRIM] = { true, true, true, false, 0, NBD_EINVAL },
	[NBD_CMD_CACHE] = { true, false, true, false, 0, NBD_EINVAL },
	[NBD_CMD_WRITE_ZEROES] = { true, true, true, false,
				   NBD_CMD_FLAG_NO_HOLE |
					   NBD_CMD_FLAG_FAST_ZERO,
				   NBD_ENOSPC },
	[NBD_CMD_BLOCK_STATUS] = { true, false, true, false,
				   NBD_CMD_FLAG_REQ_ONE, NBD_EINVAL },
};

uint16_t nbd_transmission_flags(const struct nbd_export *export,
				enum nbd_headers headers)
{
	unsigned int flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_CACHE;

	if (export->readonly)
		flags |= NBD_FLAG_READ_ONLY;
	if (export->flush)
		flags |= NBD_FLAG_SEND_FLUSH;
	if (export->fua)
		flags |= NBD_FLAG_SEND_FUA;
	if (export->trim && !export->readonly)
		flags |= NBD_FLAG_SEND_TRIM;
	if (export->zero && !export->readonly)
		flags |= NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	if (export->multi_conn)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	if (headers != NBD_SIMPLE)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}

bool nbd_request_has_payload(enum nbd_headers headers,
			     const struct nbd_request *request)
{
	if (headers == NBD_EXTENDED)
		return request->flags & NBD_CMD_FLAG_PAYLOAD_LEN;
	return request->type == NBD_CMD_WRITE;
}

static enum nbd_error say(enum nbd_error error, const char *why,
			  const char **ret_why)
{
	*ret_why = why;
	return error;
}

static enum nbd_error judge_flags(const struct nbd_export *export,
				  enum nbd_headers headers,
				  const struct nbd_request *request,
				  const char **ret_why)
{
	unsigned int allowed = forms[request->type].flags;

	if (export->fua)
		allowed |= NBD_CMD_FLAG_FUA;
	if (headers != NBD_EXTENDED)
		allowed &= ~NBD_CMD_FLAG_PAYLOAD_LEN;
	if (headers == NBD_SIMPLE)
		allowed &= ~NBD_CMD_FLAG_DF;
	if (request->flags & ~allowed)
		return say(NBD_EINVAL, "a flag that this request cannot have",
			   ret_why);
	if (headers == NBD_EXTENDED && request->type == NBD_CMD_WRITE &&
	    !(request->flags & NBD_CMD_FLAG_PAYLOAD_LEN))
		return say(NBD_EINVAL, "a write without its payload", ret_why);
	return NBD_SUCCESS;
}

static enum nbd_error judge_range(const struct nbd_export *export,
				  const struct nbd_request *request,
				  const char **ret_why)
{
	const struct form *form = &forms[request->type];

	if (!form->has_range) {
		if (request->offset || request->length)
			return say(NBD_EINVAL,
				   "a flush with an offset or a length",
				   ret_why);
		return NBD_SUCCESS;
	}
	if (request->type == NBD_CMD_BLOCK_STATUS && !request->length)
		return say(NBD_EINVAL, "the status of nothing", ret_why);
	if (form->moves_data && request->length > NBD_MAX_PAYLOAD)
		return say(NBD_EINVAL, "more than 32 MiB in a request",
			   ret_why);
	if (request->offset > export->size ||
	    request->length > export->size - request->offset)
		return say(form->beyond, "beyond the end of the export",
			   ret_why);
	if ((request->offset | request->length) & (export->minimum_block - 1))
		return say(NBD_EINVAL,
			   "not a multiple of the minimum block size", ret_why);
	return NBD_SUCCESS;
}

/* Does the export do such things at all? */
static enum nbd_error judge_export(const struct nbd_export *export,
				   bool allocation,
				   const struct nbd_request *request,
				   const char **ret_why)
{
	if (export->readonly && forms[request->type].writes)
		return say(NBD_EPERM, "the export is read-only", ret_why);
	if ((request->type == NBD_CMD_FLUSH && !export->flush) ||
	    (request->type == NBD_CMD_TRIM && !export->trim) ||
	    (request->type == NBD_CMD_WRITE_ZEROES && !export->zero))
		return say(NBD_EINVAL, "the export does not offer this request",
			   ret_why);
	if (request->type == NBD_CMD_BLOCK_STATUS && !allocation)
		return say(NBD_EINVAL, "no metadata context was chosen",
			   ret_why);
	return NBD_SUCCESS;
}

enum nbd_error nbd_judge(const struct nbd_export *export,
			 enum nbd_headers headers, bool allocation,
			 const struct nbd_request *request,
			 const char **ret_why)
{
	enum nbd_error error;

	if (request->type >= NBD_NR_CMDS || !forms[request->type].known)
		return say(NBD_EINVAL, "an unknown request", ret_why);
	error = judge_export(export, allocation, request, ret_why);
	if (error == NBD_SUCCESS)
		error = judge_flags(export, headers, request, ret_why);
	if (error == NBD_SUCCESS)
		error = judge_range(export, request, ret_why);
	return error;
}

int nbd_command_error(const struct nbd_command *command, int err)
{
	if (err != -EOPNOTSUPP || command->flags & NBD_CMD_FLAG_FAST_ZERO)
		return err;
	return command->type == NBD_CMD_TRIM ? 0 : -EINVAL;
}

enum nbd_error nbd_error_of(int err)
{
	switch (-err) {
	case 0:
		return NBD_SUCCESS;
	case EPERM:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case ENOTSUP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}
