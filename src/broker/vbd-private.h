/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-private.h - a disk, for the files that make it up.
 *
 *	vbd.c		reads the states and takes the steps between them
 *	vbd-write.c	what it writes: the state, and the keys that go with it
 *	vbd-attach.c	from the toolstack's wish to an open target, and the end
 *	vbd-commit.c	what it shows, in xenstore
 *	vbd-view.c	what is told about it
 */
#ifndef XENDISK_VBD_PRIVATE_H
#define XENDISK_VBD_PRIVATE_H

#include "broker/export.h"
#include "broker/promise.h"
#include "broker/target.h"
#include "broker/vbd.h"
#include "common/log.h"

struct vbd {
	struct broker *broker;
	struct store *store;
	struct node_address at;
	struct log_who who;
	char *path; /* of the backend's directory */
	char *frontend;
	struct msg_identity id;
	struct node node; /* as it was when the target was opened */
	struct target *target;
	struct export *export; /* its NBD socket; NULL: not open, or no such */

	struct store_mark *mark;
	struct event *again; /* a look that was put off */
	uint64_t looks_paid; /* ns: see may_look() */
	uint64_t since; /* ns: when we saw it first */

	/* As of this look. */
	int backend_state;
	int frontend_state;
	bool online;
	bool domain_ended;

	bool begun; /* it has been beyond Initialising */
	bool driven; /* by us, for certain */
	bool attached_before; /* by an earlier broker */
	bool attaching; /* the target's verdict is still to be told */
	bool removed; /* the script said so, or its domain has ended */
	bool gone; /* the directory is */
	bool adrift; /* xenstored has lost the directory, nobody removed it */
	bool frontend_connected; /* seen since we are Connected */
	char refused[MSG_TEXT_MAX]; /* why this frontend is not served */
	struct msg_connect connect; /* nr_rings 0: not known */
	struct promise add;
	struct promise remove;
	struct promise end;
	struct promise resize;
	uint64_t size; /* that the guest has been told; 0: not known */
	bool persistent; /* grants are offered: feature-persistent */
	char commit[MSG_COMMIT_MAX]; /* as xenstore has it */
};

/* vbd.c: looks again, later. */
void vbd_look_in(struct vbd *vbd, unsigned int ms);
/* vbd.c: this is what stands there now. */
void vbd_set_backend_state(struct vbd *vbd, int state);
/* vbd.c: tells a connected guest that its disk has grown, if it has. */
void vbd_publish_size(struct vbd *vbd);
/* vbd.c: true when nothing is connected any more; else sees to that. */
bool vbd_disconnected(struct vbd *vbd);

/* vbd-write.c: writes into the directory in a transaction, or not at all when it
 * has gone: a key written then would make it again. */
int vbd_change(struct vbd *vbd, int (*write)(struct vbd *vbd));
/* Changes the backend's state, and with it whatever also() writes. */
int vbd_step(struct vbd *vbd, int state, int (*also)(struct vbd *vbd));
/* For vbd_step(): what can be offered before anything is open; the disk; its size;
 * that the rings are those of a frontend that has closed. */
int vbd_write_transport(struct vbd *vbd);
int vbd_write_disk(struct vbd *vbd);
int vbd_write_size(struct vbd *vbd);
int vbd_forget_rings(struct vbd *vbd);
/* What can be offered before anything is open, when the directory becomes ours. */
int vbd_publish_transport(struct vbd *vbd);
/* Do persistent grants stand there? */
bool vbd_offers_persistent(struct vbd *vbd, bool if_absent);
/* error/backend/..., beside backend/, as the kernel's backends have it: "ERRNO WHY",
 * without the sign. */
void vbd_write_error(struct vbd *vbd, int err, const char *why);
void vbd_remove_error(struct vbd *vbd);

/* vbd-view.c: why it is called failed, or NULL. */
const char *vbd_failure(const struct vbd *vbd);

/* vbd-commit.c: which commit the disk shows, if another than was written. */
void vbd_publish_commit(struct vbd *vbd);

/* vbd-attach.c, in the order of a disk's life.  Opens without being told by a
 * script: where there is none, and where an earlier broker was told. */
void vbd_attach_unasked(struct vbd *vbd);
/* Tells the verdict on the target when there is one. */
void vbd_attach_settle(struct vbd *vbd);
/* Closes the target for good.  False: later. */
bool vbd_attach_end(struct vbd *vbd);
/* What was exported of it by name is no more. */
void vbd_forget_exports(const struct vbd *vbd);
/* Nobody is left waiting. */
void vbd_attach_cancel(struct vbd *vbd);

#endif
