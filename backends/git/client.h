/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client.h - the worker's side of committer.h, and what becomes of the layers of
 * a disk.
 *
 *   client.c	   the committer is started; the thread that hears it
 *   client-ask.c  what it is asked
 *   client-use.c  a guest comes and goes
 *   snapshot.c	   layers are frozen, committed and dropped
 *   client-control.c  what the operator wants, and is told
 */
#ifndef XENDISK_GIT_CLIENT_H
#define XENDISK_GIT_CLIENT_H

#include "committer.h"
#include "git.h"
#include "overlay.h"

#define CLIENT_RESULTS 32u /* commits that are remembered */
#define CLIENT_VIEWS   32u /* that somebody uses, at a time */

struct ask;

/* A layer that is with the committer. */
struct client_sent {
	uint64_t generation;
	uint32_t seq;
};

/* What became of a snapshot. */
struct client_result {
	uint64_t generation;
	uint8_t commit[OID_BYTES];
	char ref[REF_NAME_MAX];
};

struct client {
	struct git *git;
	int sock;
	int wake; /* eventfd: the thread has something to do */
	uint32_t seq; /* atomic */
	struct cm_open open; /* what was asked first, ... */
	struct cm_opened opened; /* ... and answered */
	uint64_t interval; /* ns between snapshots; 0: none */
	uint64_t cache; /* bytes of clean layers that are kept */
	bool snapshot_at_end;

	/* All below but what is asked.  Held for long: while a layer is frozen. */
	pthread_mutex_t mutex;
	struct store *store;
	struct base_reader *reader;
	struct overlay *overlay; /* NULL: read-only */
	struct overlay_facts facts; /* as far as we know, unless it is locked */
	uint8_t found_head[OID_BYTES]; /* in them, before OPEN was asked */
	bool active; /* it is locked: layers are there */
	bool at_rest; /* the guest has let go of it, and all is well */
	struct base *base; /* what they stand on */
	bool stood; /* STAND has been answered */
	uint64_t generation; /* of the newest commit that the committer knows */
	uint64_t frozen; /* of the newest snapshot that was taken here */

	struct client_sent sent[OVERLAY_MAX_FROZEN]; /* oldest first */
	unsigned int nr_sent;
	/* Those that are committed, while the overlay does not know it yet. */
	struct cm_committed late[OVERLAY_MAX_FROZEN];
	unsigned int nr_late;
	uint64_t retry_at; /* ns, or 0 */
	uint64_t retry_after; /* ns */
	char failed[WHY_MAX]; /* why it is not committed, or "" */
	char note[WHY_MAX]; /* what the operator should know, or "" */
	uint64_t next_auto; /* ns, or 0 */
	struct client_result results[CLIENT_RESULTS];
	unsigned int nr_results; /* in all */

	struct view *live[CLIENT_VIEWS];
	unsigned int nr_live;
	struct overlay_layer dropped[OVERLAY_SLOTS];
	unsigned int nr_dropped;

	/* What is asked. */
	pthread_mutex_t ask_lock;
	pthread_cond_t answered;
	struct ask *asks;
	struct view *gone; /* views that nobody has any more */
	bool running, stop;
	bool away; /* the committer is gone for good */
	pthread_t thread;
};

/* Main thread, in open().  dir: the repository; state: the folder, or -1, borrowed;
 * open says what is wanted.  Starts a committer and asks it what the disk is. */
int client_new(struct client **ret, struct git *git, int state, int dir,
	       const struct cm_open *open, char *ret_why);
void client_free(struct client *client); /* NULL: nothing */

/* Main thread, in open(), behind live_open(): when nothing would be lost by it,
 * facts are those of what the branch is now, which may be a smaller disk. */
int client_follow(struct client *client, char *ret_why);
/* Main thread, isolated: the overlay is locked, and the disk is what it says. */
int client_activate(struct client *client, bool recover, char *ret_why);
/* The same the other way; no request is in flight. */
int client_deactivate(struct client *client, char *ret_why);
/* Main thread, isolated.  What needs a thread of our own works from then on. */
int client_run(struct client *client);

/* For threads that read objects. */
int client_ask(void *ctx, const uint8_t oid[OID_BYTES],
	       enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
	       char *ret_why);

/* Main thread: the members of struct xd_backend. */
int client_control(struct xd_disk *disk, const char *verb, const char *text,
		   char *ret_text, size_t size);
int client_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size);
void client_resized(struct xd_disk *disk);

/* --- client-ask.c: the thread's that has the socket, unless it says otherwise ------- */

uint32_t client_seq(struct client *client); /* any thread */
/* Of a PACK; takes the descriptors. */
void client_add_packs(struct client *client, struct store *store,
		      const struct cm_pack *msg, int *fds, unsigned int nr_fds);
/* Waits for a message: -ETIMEDOUT, or what cm_receive() says. */
int client_receive(struct client *client, union cm_any *ret, int *fds,
		   unsigned int *ret_nr, char *ret_why);
/* Asks something, whose number is set here. */
int client_send(struct client *client, struct cm_header *msg, enum cm_type type,
		char *ret_why);
/* OPEN or STAND. */
int client_ask_open(struct client *client, struct cm_header *msg,
		    enum cm_type type, struct cm_opened *ret, char *ret_why);
void client_fill_stand(struct client *client, struct cm_stand *msg);
/* What the overlay, which is locked, has been is not needed any more. */
int client_give_up(struct client *client, char *ret_why);
int client_ask_packs(struct client *client, char *ret_why);
/* As client_ask(), of the thread itself. */
int client_own_ask(void *ctx, const uint8_t oid[OID_BYTES],
		   enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
		   char *ret_why);
/* What other threads want to know and was not sent yet; or all of it. */
void client_send_asks(struct client *client);
void client_send_asks_again(struct client *client);
/* False: nobody has asked that. */
bool client_take_answer(struct client *client, const union cm_any *msg,
			int *fds);

/* --- client.c, for client-use.c and snapshot.c; with the mutex ---------------------- */

/* The disk as it is in the commit that was opened. */
int client_open_base(struct client *client, const struct cm_opened *opened,
		     char *ret_why);
void client_wake(struct client *client); /* any thread */
/* Other packs, so that there is room for more; it may take a while. */
int client_renew_store(struct client *client, char *ret_why);
/* As client_own_ask(), once the thread is there; the others' answers are heard. */
int client_ask_meanwhile(struct client *client, const uint8_t oid[OID_BYTES],
			 enum object_type *ret_type, uint64_t *ret_size,
			 int *ret_fd, char *ret_why);

/* --- client-use.c; main thread, isolated, with the mutex ------------------------------ */

/* No guest has the disk: the overlay is ours until client_leave().  -EBUSY: another
 * worker's.  Then client_run(), without the mutex. */
int client_visit(struct client *client, char *ret_why);
void client_leave(struct client *client);
/* The same, only to look at it: the committer is not asked for anything. */
int client_peek(struct client *client, char *ret_why);
void client_unpeek(struct client *client);

/* --- snapshot.c; with the mutex ------------------------------------------------------ */

/* The base is this commit from now on: what the view of the disk is. */
int client_set_view(struct client *client);
/* Freezes the active layer; *ret_gen is its name. */
int client_freeze(struct client *client, struct snapshot_info *info,
		  uint64_t *ret_gen, char *ret_why);
/* Sends frozen layers that were not sent yet, and empties what nobody reads any
 * more; and what is due. */
void client_look(struct client *client);
/* When to look again, ms; -1: when something happens. */
int client_timeout(const struct client *client);
void client_committed(struct client *client, const struct cm_committed *msg);
void client_commit_failed(struct client *client, const char *reason);
/* How many layers are in that state, and the bytes that they have. */
unsigned int client_count_layers(const struct client *client,
				 enum layer_state state, uint64_t *ret_bytes);
/* What became of that snapshot; NULL: it is not known, or not any more. */
const struct client_result *client_find_result(const struct client *client,
					       uint64_t gen);

/* --- client-control.c; with the mutex ------------------------------------------------ */

/* The line for xendisk show: a commit, and how many are to come. */
void client_show(struct client *client);

#endif
