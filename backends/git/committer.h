/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * committer.h - what the worker of a git disk and its committer say to each other.
 *
 * The committer is a process beside the worker (`xendisk-git committer`), started
 * before the worker is isolated.  It alone looks into the repository by name: it
 * says what a revision is, hands out packs as descriptors, keeps the commits that
 * are in use from being collected (pins), and makes commits of frozen layers.
 * One for each open disk.
 *
 * Over a SOCK_SEQPACKET pair, one message a packet: struct cm_header, then what
 * the struct beside the type has.  Texts are in fixed arrays and end with a NUL,
 * which the receiver checks: the committer takes the worker for an enemy, since it
 * reads what a guest wrote, and so it may touch the references of its own branch
 * only.  Answers repeat the question's seq; those to COMMIT and RELEASE come when
 * they come, the others in the order of the questions.  A question that is refused
 * is answered by FAILED.
 *
 * A disk that may be written:
 *
 *   OPEN      -> OPENED: the branch's head (or what a fork begins with)
 *   STAND     -> OPENED: the commit that the overlay stands on, which is pinned
 *   PACKS     -> PACK...: all packs there are
 *   COMMIT    -> PROGRESS..., PACK..., COMMITTED: the frozen layer on top of that
 *                commit, or of the layer that was sent before.  The same
 *                layer may be sent again at any time, also by the next worker
 *                to the next committer: it is committed once.
 *   RELEASE   -> DONE: the overlay stands, durably, on that layer's commit now:
 *                what was pinned for earlier ones is not needed any more
 *
 *   GIVE_UP   -> DONE: the overlay with that uuid has nothing in it, and is about to
 *                begin anew (overlay_restart()), with another uuid: nothing of it
 *                is pinned any more.  Any time after OPEN
 *
 * One that may only be read: OPEN (which pins), PACKS.  Both: OBJECT -> OBJECT_IS,
 * at any time, also while a commit is made.
 *
 * A committer that dies is started again (its parent has nothing else to do) and
 * says BEGIN: what was asked and not answered is lost, and it has to hear OPEN and
 * STAND again.
 *
 * The end of the socket ends the committer, when it has made all the commits that
 * it was asked for; nobody has to wait for that, for the next committer of the disk
 * begins its own only then (commit.lock in the state folder).
 */
#ifndef XENDISK_GIT_COMMITTER_H
#define XENDISK_GIT_COMMITTER_H

#include <stddef.h>
#include <stdint.h>

#include "odb.h" /* OID_BYTES */
#include "refs.h" /* REF_NAME_MAX, BRANCH_MAX */

#define CM_VERSION 1
#define CM_MAX	   4096 /* bytes of a message */
#define CM_MAX_FDS 16

/* The committer's descriptors when it is started. */
#define CM_FD_SOCKET 3
#define CM_FD_STATE  4 /* the state folder; -1, closed: read-only */
#define CM_FD_REPO   5 /* the repository's folder */

#define CM_REV_MAX     256
#define CM_KEEP_MAX    64
#define CM_UUID_MAX    40 /* text, 36 characters */
#define CM_DOMAIN_MAX  128
#define CM_MESSAGE_MAX 1024
#define CM_TEXT_MAX    WHY_MAX
#define CM_PACK_NAME   64 /* "pack-" and 40 or 64 hexadecimal digits */
#define CM_PACKS_EACH  (CM_MAX_FDS / 2) /* packs in one message */
/* Bytes of a disk; the map of a layer takes memory in proportion. */
#define CM_SIZE_MAX (256ull << 40)

enum cm_type {
	/* worker to committer */
	CM_OPEN = 1, /* struct cm_open; the first, once; OPENED */
	CM_STAND, /* struct cm_stand; OPENED.  Again, when no COMMIT is under
		   * way, whenever the overlay has been opened again */
	CM_PACKS, /* header only; PACK, as many as it takes */
	CM_OBJECT, /* struct cm_object; OBJECT_IS */
	CM_COMMIT, /* struct cm_commit, and two descriptors: the frozen layer's
		    * data and map; PROGRESS, PACK, COMMITTED */
	CM_RELEASE, /* struct cm_release; DONE */
	CM_GIVE_UP, /* struct cm_give_up; DONE.  When no COMMIT is under way */

	/* committer to worker */
	CM_OPENED = 32, /* struct cm_opened */
	CM_PACK, /* struct cm_pack, and two descriptors for each: its index, and
		  * the pack */
	CM_OBJECT_IS, /* struct cm_object_is, and the content as a file in
		       * memory */
	CM_PROGRESS, /* struct cm_progress; some are left out when the worker does
		      * not read */
	CM_COMMITTED, /* struct cm_committed */
	CM_DONE, /* header only */
	CM_FAILED, /* struct cm_failed */
	CM_BEGIN, /* header only; no answer: from the start again */
};

struct cm_header {
	uint16_t type;
	uint16_t version;
	uint32_t length; /* of the whole message, bytes */
	uint32_t seq; /* answers repeat the question's */
	int32_t result; /* FAILED: -errno; else 0 */
};

#define CM_OPEN_READONLY (1u << 0)
/* If there is no such branch it begins at rev: a fork. */
#define CM_OPEN_FORK (1u << 1)
/* Commits store chunks as they are. */
#define CM_OPEN_STORE (1u << 2)

struct cm_open {
	struct cm_header h;
	uint32_t flags;
	char branch[BRANCH_MAX]; /* "web": refs/heads/web; with READONLY and a
				  * rev it is only for messages, or "" */
	char rev[CM_REV_MAX]; /* READONLY: what to show, "" the branch's head;
			       * FORK: where it begins */
	char keep[CM_KEEP_MAX]; /* interval snapshots: "24h,7d,4w", "" all */
};

/* What an overlay stands on; generations are those of its layers. */
struct cm_stand {
	struct cm_header h;
	char uuid[CM_UUID_MAX]; /* of the overlay: 8-4-4-4-12, lower case */
	uint64_t generation; /* of the layer whose commit base is; 0: of none */
	uint8_t base[OID_BYTES]; /* below all of the layers that are not
				  * committed */
	uint8_t head[OID_BYTES]; /* the parent of the next commit: the branch's
				  * head as the overlay knows it */
};

struct cm_opened {
	struct cm_header h;
	uint8_t commit[OID_BYTES];
	uint8_t tree[OID_BYTES]; /* its root tree */
	uint64_t size; /* bytes; this and the next as disk-format.h has it */
	uint32_t sector;
	uint32_t chunk;
	uint32_t levels;
	int64_t time; /* of the commit, Unix */
};

struct cm_pack {
	struct cm_header h;
	uint32_t nr; /* packs in this message, up to CM_PACKS_EACH; descriptor
		      * 2 i is the index of name i, 2 i + 1 the pack */
	uint32_t left; /* at least one message follows */
	char name[CM_PACKS_EACH][CM_PACK_NAME]; /* "pack-...": for messages */
};

struct cm_object {
	struct cm_header h;
	uint8_t oid[OID_BYTES];
};

struct cm_object_is {
	struct cm_header h;
	uint32_t type; /* enum object_type; no delta */
	uint64_t size; /* bytes, up to ODB_MAX_WHOLE */
};

enum cm_kind {
	CM_BRANCH, /* on the branch: a snapshot that somebody asked for */
	CM_AUTO, /* beside it, as a leaf that is thinned one day: intervals */
	CM_NR_KINDS
};

struct cm_commit {
	struct cm_header h;
	uint64_t generation; /* of the layer; from 1 */
	uint64_t after; /* the generation below it, as STAND or the COMMIT before
			 * had it; else -ESTALE */
	uint64_t size; /* of the disk, bytes: the base's, or more */
	uint64_t dirty; /* bytes that the layer has; else -ESTALE */
	int64_t time; /* of the freeze, Unix: the same whenever it is sent */
	uint32_t kind; /* enum cm_kind */
	uint32_t consistency; /* enum consistency, refs.h */
	char domain[CM_DOMAIN_MAX]; /* one line, or "" */
	char message[CM_MESSAGE_MAX]; /* or "": we find one */
};

struct cm_progress {
	struct cm_header h; /* seq is the COMMIT's */
	uint64_t generation;
	uint64_t done; /* bytes of the chunks that the layer touches */
	uint64_t all;
};

/* Somebody else has moved the branch: the commit is in `ref`, beside it. */
#define CM_DIVERGED (1u << 0)
/* The layer had been committed before. */
#define CM_AGAIN (1u << 1)

struct cm_committed {
	struct cm_header h; /* seq is the COMMIT's */
	uint64_t generation;
	uint32_t flags;
	uint32_t kind; /* BRANCH: the parent of the next commit is this one */
	uint8_t commit[OID_BYTES];
	uint8_t tree[OID_BYTES];
	uint64_t chunks; /* that were written */
	uint64_t unchanged; /* that the base has already */
	uint64_t bytes; /* written, of packs and indexes */
	char ref[REF_NAME_MAX];
	char text[CM_TEXT_MAX]; /* what the operator should know, or "" */
};

struct cm_release {
	struct cm_header h;
	uint64_t generation; /* as STAND or COMMITTED had it */
};

struct cm_give_up {
	struct cm_header h;
	char uuid[CM_UUID_MAX]; /* of the overlay, as STAND has it */
};

struct cm_failed {
	struct cm_header h;
	char text[CM_TEXT_MAX];
};

/* Large and aligned enough for any of them. */
union cm_any {
	struct cm_header h;
	struct cm_open open;
	struct cm_stand stand;
	struct cm_opened opened;
	struct cm_pack pack;
	struct cm_object object;
	struct cm_object_is object_is;
	struct cm_commit commit;
	struct cm_progress progress;
	struct cm_committed committed;
	struct cm_release release;
	struct cm_give_up give_up;
	struct cm_failed failed;
	char bytes[CM_MAX];
};

/* --- committer-msg.c: both sides; no libgit2, calls that an isolated worker may
 * make ---------------------------------------------------------------------- */

/*
 * Sends a message whose type, version and length are set here, by any thread; the
 * descriptors stay the caller's.  wait false: -EAGAIN when the peer does not read.
 * -ECONNRESET: it is gone.
 */
int cm_send(int sock, struct cm_header *msg, enum cm_type type, const int *fds,
	    unsigned int nr_fds, bool wait);
/*
 * Receives one, by one thread; blocks, unless the socket does not.  Checks
 * version, length and that every text ends, and that there are as many descriptors
 * as the type needs; ret_fds has room for CM_MAX_FDS, and they are the caller's.
 * -ECONNRESET: the peer is gone; -EPROTO: rubbish.
 */
int cm_receive(int sock, union cm_any *ret, int *ret_fds,
	       unsigned int *ret_nr_fds);
/* "OPEN", ...; "?" for a number that is none. */
const char *cm_name(uint16_t type);

#endif
