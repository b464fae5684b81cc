/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw.h - one image file or block device: raw-facts.c finds out what it is,
 * raw.c opens it, raw-io.c moves the data, raw-extents.c knows where there is
 * some, raw-lock.c keeps others out, raw-loop.c finds those that no lock knows.
 */
#ifndef XENDISK_RAW_H
#define XENDISK_RAW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "xendisk-backend.h"

/* disk->data.  Set by the main thread while no lane runs, but for `end`. */
struct raw {
	int fd; /* between activate and deactivate, else -1 */
	int claim; /* the same, a device's: holds O_EXCL, and no I/O goes there */
	int kept; /* kept state: the size */
	const char *path;
	uint64_t size; /* of the disk, as the main thread knows it */
	/* Which file it is, to be found again by activate. */
	dev_t dev; /* of the file, or the device itself */
	ino_t ino; /* 0 for a device */
	uint64_t diskseq; /* 0: not a device, or Linux before 5.15 */
	/* Atomic.  Where a file ends that has become shorter than the disk;
	 * else UINT64_MAX. */
	uint64_t end;
	bool is_local; /* a file that can be asked for its size at any time */
	bool in_memory; /* a file whose page cache is all there is of it */
	bool is_device;
	bool direct; /* O_DIRECT: no page cache */
	bool keep_space; /* discard=no: zeroing makes no holes either */
	bool sync; /* written through: a write is durable when it is done */
};

/* What the kernel says about an open image. */
struct raw_facts {
	struct stat st;
	uint64_t size;
	uint64_t diskseq;
	uint32_t logical; /* what O_DIRECT must be aligned to; 0: refused */
	uint32_t memory; /* and the memory */
	uint32_t physical;
	uint32_t discard_granularity;
	uint32_t discard_alignment;
};

/* Main thread, in open().  On failure xd_error() has said why. */
int raw_find_facts(struct xd_disk *disk, int fd, struct raw_facts *facts);
int raw_identify(struct xd_disk *disk, int fd, const struct raw_facts *facts);
/* The file system of a file.  local: tells its size without asking anybody;
 * memory: has nothing but memory to keep it in. */
void raw_find_home(int fd, bool *ret_local, bool *ret_memory);
/* Main thread, at any time: size, physical and diskseq of a block device. */
int raw_device_facts(int fd, struct raw_facts *facts);

/* Any thread.  Sets raw->end, when the size of the file is known. */
void raw_set_end(struct raw *raw, uint64_t size);

/* Whom a lock keeps out. */
enum raw_sharing {
	RAW_WRITER, /* everybody but readers who expect the content to change */
	RAW_READER, /* writers */
	RAW_SHARED, /* WRITER and READER; other SHARED ones may write too */
};

/*
 * Main thread.  Locks fd for as long as its open file description lives.
 * wait: wait for other holders of the flock instead of failing with -EBUSY.
 * On failure xd_error() has said why.
 */
int raw_lock(struct xd_disk *disk, int fd, enum raw_sharing sharing, bool wait);

/* Main thread, in open().  -EBUSY: the image (open, and what fstat() said) is behind a
 * loop device; xd_error() has said which.  Both may be there for reading. */
int raw_check_loops(struct xd_disk *disk, int fd, const struct stat *st);

/* Members of struct xd_backend. */
int raw_channel_open(struct xd_channel *ch);
void raw_channel_close(struct xd_channel *ch);
void raw_submit(struct xd_channel *ch, struct xd_request *req);
void raw_kick(struct xd_channel *ch);
void raw_extents(struct xd_channel *ch, struct xd_request *req);

#endif
