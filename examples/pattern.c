/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pattern.c - a whole backend: a disk that is made up as it is read.  Every
 * sector states its own number.  The delays are for trying out how everything
 * else bears a slow backend, or one that hangs.  See xendisk-backend(3).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xendisk-backend.h>

struct pattern {
	uint64_t delay; /* ns */
	bool hang;
};

static int pattern_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	uint64_t delay = xd_arg_u64(disk, "open-delay");
	struct timespec ts = { delay / 1000000000, delay % 1000000000 };
	struct pattern *pattern = malloc(sizeof(*pattern));

	if (!pattern)
		return -ENOMEM;
	pattern->delay = xd_arg_u64(disk, "delay");
	pattern->hang = xd_arg_bool(disk, "hang");
	disk->data = pattern;
	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
	*ret_limits = (struct xd_limits){ .size = xd_arg_u64(disk, "size"),
					  .sector_size = 512,
					  .physical_sector_size = 512,
					  .memory_alignment = 1,
					  .readonly = true };
	return 0;
}

static void pattern_close(struct xd_disk *disk)
{
	free(disk->data);
}

_Static_assert(sizeof(struct xd_sys) <= XD_SCRATCH, "kept in scratch[]");
static void answer(struct xd_sys *timer, int64_t res)
{
	unsigned char *scratch = (unsigned char *)timer;
	struct xd_request *req =
		(void *)(scratch - offsetof(struct xd_request, scratch));
	unsigned long long at = req->offset;
	char text[512] = "";

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		char *to = req->iov[i].iov_base;

		for (size_t n = req->iov[i].iov_len; n > 0; n--, at++) {
			if (at % 512 == 0 || at == req->offset)
				snprintf(text, sizeof(text),
					 "This is sector %llu.\n", at / 512);
			*to++ = text[at % 512];
		}
	}
	xd_complete(req, (int)res);
}

static void pattern_submit(struct xd_channel *ch, struct xd_request *req)
{
	const struct pattern *pattern = ch->disk->data;
	struct xd_sys *timer = (void *)req->scratch;

	if (pattern->hang)
		return; /* and never come back to it */
	*timer = (struct xd_sys){ .op = XD_SYS_TIMER,
				  .length = pattern->delay,
				  .done = answer };
	xd_sys(ch, timer);
}

static const struct xd_param pattern_params[] = {
	{ "size", XD_SIZE, XD_POSITIONAL | XD_REQUIRED | XD_WHOLE_SECTORS, NULL,
	  NULL, "size of the disk" },
	{ "delay", XD_TIME, 0, NULL, "0s", "what each request takes" },
	{ "open-delay", XD_TIME, 0, NULL, "0s", "what opening takes" },
	{ "hang", XD_BOOL, 0, NULL, "no", "never answer" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "pattern",
	.summary = "every sector states its own number",
	.params = pattern_params,
	.flags = XD_ALWAYS_READ_ONLY,
	.open = pattern_open,
	.close = pattern_close,
	.submit = pattern_submit,
};
