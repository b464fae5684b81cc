/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-commit.h - what the worker of a gitfs disk that may be written and its
 * companion (`xendisk-git fat-commit`) say to each other.
 *
 * The companion is started before the worker is isolated.  It alone looks into the
 * repository by name, and makes a commit of what a guest has left on the disk.  The
 * branch is said once, in FC_OPEN, while no guest has been near the worker; from
 * then on the companion takes it for an enemy, and touches no other.
 *
 * Over a SOCK_SEQPACKET pair, a message a packet, one question at a time:
 *
 *   FC_OPEN    -> FC_ANSWER   which branch, and how the disk is laid out
 *   FC_STAND   -> FC_ANSWER   what the overlay stands on, which is pinned
 *   FC_COMMIT  -> FC_ANSWER   with two descriptors, data and map of the only
 *			       layer, which is durable and stays as it is until the
 *			       answer
 *
 * A question has a number, which its answer repeats.  Each is answered by a child of
 * the companion's: if that dies the answer is FC_DIED, and the question may be asked
 * again, for all that it wants done can be done twice.  What a dead one had said before
 * is known by its number.
 *
 * As long as a commit takes, FC_PROGRESS comes in front of its answer, from what the
 * work is made of: a companion that says nothing for FC_SILENCE_S hangs, on storage
 * for instance, and the worker closes the socket.
 *
 * The end of the socket ends the companion.  Then nobody promises any more that the
 * layer stays as it is: it makes no commit of it.  A child that is at something gets
 * FC_SILENCE_S to notice, and is killed.
 */
#ifndef XENDISK_GIT_FAT_COMMIT_H
#define XENDISK_GIT_FAT_COMMIT_H

#include <stddef.h>
#include <stdint.h>

#include "odb.h"
#include "refs.h"

#define FC_VERSION 2

#define FC_PATH_MAX    256 /* as struct revision has it */
#define FC_LABEL_MAX   12
#define FC_DOMAIN_MAX  128
#define FC_MESSAGE_MAX 1024

/* Less than the broker waits for a worker that says nothing (30 s), so that the reason
 * is told.  Tests wait for less: XENDISK_FAT_SILENCE is read in its place. */
#define FC_SILENCE_S 20
uint64_t fc_silence_s(void);
/* While the disk is opened: the broker waits 30 s for that, whatever is going on, and
 * xl 40 s. */
#define FC_OPENING_S	 15
#define FC_PROGRESS_EACH 1000000000ull /* ns */

/* The companion's descriptors when it is started: companion.h. */
#define FC_FD_SOCKET 3
#define FC_FD_REPO   5

enum fc_type { FC_OPEN = 1, FC_STAND, FC_COMMIT, FC_ANSWER, FC_PROGRESS };

struct fc_header {
	uint16_t type;
	uint16_t version;
	uint32_t length; /* of the whole message, bytes */
	uint32_t seq; /* of the question */
	uint32_t zero;
};

/* Texts end with a NUL. */
struct fc_open {
	struct fc_header h;
	char branch[BRANCH_MAX];
	char path[FC_PATH_MAX]; /* of the folder in the tree; "": all of it */
	char label[FC_LABEL_MAX];
	uint32_t partition; /* enum layout_partition */
	uint32_t follow; /* symbolic links to files: 0 or 1 */
	uint32_t lfs; /* 0: pointers of Git LFS are files like others; or 1 */
	uint32_t zero;
	uint64_t size; /* layout_options.size */
};

struct fc_stand {
	struct fc_header h;
	uint8_t uuid[16]; /* of the overlay */
	uint8_t base[OID_BYTES]; /* the commit that was laid out */
	uint8_t old[16]; /* an overlay that is no more: its pin goes; or zeroes */
};

struct fc_commit {
	struct fc_header h;
	uint8_t uuid[16];
	uint64_t generation; /* of the layer */
	uint64_t size; /* of the disk, bytes */
	uint8_t base[OID_BYTES];
	uint8_t head[OID_BYTES]; /* the parent: the base, or our last commit */
	int64_t time; /* Unix */
	uint64_t dirty; /* bytes, for the record */
	uint32_t consistency; /* enum consistency */
	char domain[FC_DOMAIN_MAX]; /* one line, or "" */
	char message[FC_MESSAGE_MAX]; /* or "": we find one */
};

/* The tree is as in the parent: there is no commit. */
#define FC_UNCHANGED (1u << 0)
/* Somebody has moved the branch: the commit is in `ref`, beside it. */
#define FC_DIVERGED (1u << 1)
/* Who was to answer has died; `result` is an error. */
#define FC_DIED (1u << 2)

#define FC_TRIES 3 /* of a question, each of which somebody has died of */

struct fc_answer {
	struct fc_header h;
	int32_t result; /* 0 or -errno */
	uint32_t flags;
	uint8_t commit[OID_BYTES]; /* UNCHANGED: the parent */
	uint32_t added, changed, removed; /* files */
	uint32_t read; /* ... of which the content was looked at */
	char ref[REF_NAME_MAX];
	char text[WHY_MAX]; /* why it failed */
};

union fc_any {
	struct fc_header h;
	struct fc_open open;
	struct fc_stand stand;
	struct fc_commit commit;
	struct fc_answer answer;
};

/* `xendisk-git fat-commit`.  Returns the exit status. */
int fat_commit_main(void);

/* --- fat-commit-msg.c: both sides ------------------------------------------------ */

/* Type, version and length are set here; the descriptors stay the caller's.  -ECONNRESET:
 * the peer is gone. */
int fc_send(int sock, struct fc_header *msg, enum fc_type type, const int *fds,
	    unsigned int nr_fds);
/*
 * Waits for a message, and checks that it has its length, its texts their ends, and
 * a COMMIT two descriptors, which are the caller's; the others have none (-1).
 * -ECONNRESET: the peer is gone; -EPROTO: rubbish.
 */
int fc_receive(int sock, union fc_any *ret, int ret_fds[2]);
/* How long an answer is waited for. */
struct fc_patience {
	uint64_t until; /* now_ns(), whatever comes; UINT64_MAX: no end */
	void (*progress)(void *ctx); /* each time that it does */
	void *ctx;
};
/* The answer to the question of that number.  -ETIMEDOUT: nothing came for
 * FC_SILENCE_S, or no answer in time. */
int fc_wait(int sock, uint32_t seq, const struct fc_patience *patience,
	    struct fc_answer *ret);
/* FC_PROGRESS, unless there is no room.  -ECONNRESET: the peer is gone. */
int fc_progress(int sock);

#endif
