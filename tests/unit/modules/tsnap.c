/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tsnap.c - a disk in memory that is asked for snapshots, for tests of control(),
 * xd_state() and xd_changed().  It keeps none: what is tested is the way there.
 *
 * What a snapshot's message says is done:
 *
 *     refuse	-EBUSY, with a sentence
 *     mute	-EBUSY, without one
 *     die	the process ends
 *     hang	it shows that, and takes 30 s
 *     rubbish	the answer is not as it should be
 *     long	the answer does not end
 *     unnumbered
 *     fail	it never becomes a commit
 *     slow	it becomes one when it was asked about PENDING times
 *     moved	it does, but elsewhere
 *     never	nobody knows
 *
 * state=FOLDER: the number of the last snapshot outlives everything, in FOLDER.
 */
#include "xendisk-backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PENDING 3
#define COMMIT	"%040x"

struct tsnap {
	unsigned char *memory;
	int count_fd; /* -1: without state= */
	unsigned int count;
	char message[64]; /* of the last one */
	char consistency[16];
	unsigned int asked; /* about it */
};

static void show(struct xd_disk *disk, unsigned int pending)
{
	const struct tsnap *tsnap = disk->data;
	char commit[41];

	snprintf(commit, sizeof(commit), COMMIT, tsnap->count - pending);
	xd_changed(disk, tsnap->count - pending ? commit : NULL,
		   "snapshots %u, pending %u", tsnap->count, pending);
}

/* ftruncate() is not for an isolated worker, so the file has its size now. */
static int open_count(struct xd_disk *disk, struct tsnap *tsnap)
{
	int dir = xd_state(disk, xd_arg_string(disk, "state"));

	if (dir < 0)
		return dir;
	tsnap->count_fd =
		openat(dir, "count", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	close(dir);
	if (tsnap->count_fd < 0)
		return -errno;
	(void)!pread(tsnap->count_fd, &tsnap->count, sizeof(tsnap->count), 0);
	return 0;
}

static void tsnap_close(struct xd_disk *disk)
{
	struct tsnap *tsnap = disk->data;

	if (tsnap->count_fd >= 0)
		close(tsnap->count_fd);
	free(tsnap->memory);
	free(tsnap);
}

static int tsnap_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct tsnap *tsnap = calloc(1, sizeof(*tsnap));
	uint64_t size = xd_arg_u64(disk, "size");
	int r = 0;

	if (!tsnap)
		return -ENOMEM;
	disk->data = tsnap;
	tsnap->count_fd = -1;
	tsnap->memory = calloc(1, size);
	if (xd_arg_set(disk, "state"))
		r = open_count(disk, tsnap);
	if (r == 0 && !tsnap->memory)
		r = -ENOMEM;
	if (r < 0) {
		tsnap_close(disk);
		return r;
	}
	ret_limits->size = size;
	ret_limits->sector_size = 512;
	ret_limits->max_channels = 1;
	show(disk, 0);
	return 0;
}

static void tsnap_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct tsnap *tsnap = ch->disk->data;
	unsigned char *at = tsnap->memory + req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		const struct iovec *iov = &req->iov[i];

		if (req->op == XD_READ)
			memcpy(iov->iov_base, at, iov->iov_len);
		else
			memcpy(at, iov->iov_base, iov->iov_len);
		at += iov->iov_len;
	}
	xd_complete(req, 0);
}

/* --- control() ------------------------------------------------------------ */

static int number_it(struct tsnap *tsnap)
{
	tsnap->count++;
	tsnap->asked = 0;
	if (tsnap->count_fd >= 0 &&
	    pwrite(tsnap->count_fd, &tsnap->count, sizeof(tsnap->count), 0) < 0)
		return -errno;
	return 0;
}

static int snapshot(struct xd_disk *disk, const char *text, char *ret_text,
		    size_t size)
{
	struct tsnap *tsnap = disk->data;
	char *message = tsnap->message;
	int r;

	message[0] = '\0';
	if (xd_pair(text, "consistency", tsnap->consistency,
		    sizeof(tsnap->consistency)) < 0)
		snprintf(tsnap->consistency, sizeof(tsnap->consistency),
			 "none");
	if (xd_pair(text, "message", message, sizeof(tsnap->message)) ==
	    -ENAMETOOLONG)
		return -E2BIG;
	if (strcmp(message, "refuse") == 0)
		xd_error(disk, "4 snapshots are pending");
	if (strcmp(message, "refuse") == 0 || strcmp(message, "mute") == 0)
		return -EBUSY;
	if (strcmp(message, "die") == 0)
		__builtin_trap();
	if (strcmp(message, "hang") == 0) {
		xd_changed(disk, NULL, "hangs");
		nanosleep(&(struct timespec){ .tv_sec = 30 }, NULL);
	}
	if (strcmp(message, "long") == 0)
		memset(ret_text, 'x', size);
	if (strcmp(message, "rubbish") == 0)
		snprintf(ret_text, size, "id");
	if (strcmp(message, "long") == 0 || strcmp(message, "rubbish") == 0 ||
	    strcmp(message, "unnumbered") == 0)
		return 0;
	r = number_it(tsnap);
	if (r < 0)
		return r;
	show(disk, strcmp(message, "slow") == 0);
	return xd_add_pair(ret_text, size, "id", "%u", tsnap->count);
}

static int outcome(struct xd_disk *disk, char *ret_text, size_t size)
{
	struct tsnap *tsnap = disk->data;
	const char *message = tsnap->message;

	if (strcmp(message, "fail") == 0) {
		xd_add_pair(ret_text, size, "state", "failed");
		return xd_add_pair(ret_text, size, "why", "the disk is full");
	}
	if (strcmp(message, "slow") == 0 && ++tsnap->asked <= PENDING)
		return xd_add_pair(ret_text, size, "state", "pending");
	if (strcmp(message, "never") == 0)
		return xd_add_pair(ret_text, size, "state", "pending");
	if (strcmp(message, "moved") == 0)
		xd_add_pair(ret_text, size, "why", "the branch has moved");
	show(disk, 0);
	xd_add_pair(ret_text, size, "state", "committed");
	xd_add_pair(ret_text, size, "ref", "refs/heads/main");
	return xd_add_pair(ret_text, size, "commit", COMMIT, tsnap->count);
}

static int status(struct xd_disk *disk, const char *text, char *ret_text,
		  size_t size)
{
	struct tsnap *tsnap = disk->data;
	char id[16], domain[64] = "";

	(void)xd_pair(text, "domain", domain, sizeof(domain));
	if (xd_pair(text, "id", id, sizeof(id)) == 0 &&
	    (unsigned int)atoi(id) == tsnap->count)
		return outcome(disk, ret_text, size);
	xd_add_pair(ret_text, size, "branch", "main");
	xd_add_pair(ret_text, size, "head", COMMIT, tsnap->count);
	xd_add_pair(ret_text, size, "dirty", "65536");
	xd_add_pair(ret_text, size, "pending", "0");
	xd_add_pair(ret_text, size, "domain", "%s", domain);
	xd_add_pair(ret_text, size, "consistency", "%s", tsnap->consistency);
	return xd_add_pair(ret_text, size, "message", "%s", tsnap->message);
}

static int tsnap_control(struct xd_disk *disk, const char *verb,
			 const char *text, char *ret_text, size_t size)
{
	if (strcmp(verb, "snapshot") == 0)
		return snapshot(disk, text, ret_text, size);
	if (strcmp(verb, "status") == 0)
		return status(disk, text, ret_text, size);
	return -EOPNOTSUPP;
}

static const struct xd_param params[] = {
	{ "size", XD_SIZE, XD_POSITIONAL | XD_WHOLE_SECTORS, NULL, "1M",
	  "size of the disk" },
	{ "state", XD_STRING, 0, NULL, NULL, "folder in the state directory" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "tsnap",
	.summary = "has snapshots, for tests",
	.params = params,
	.open = tsnap_open,
	.close = tsnap_close,
	.submit = tsnap_submit,
	.control = tsnap_control,
};
