/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * frontend.h - what the guest says in xenstore.  Nothing of it is believed.
 */
#ifndef XENDISK_FRONTEND_H
#define XENDISK_FRONTEND_H

#include "broker/store.h"
#include "common/msg.h"

/*
 * The frontend's state, XenbusStateUnknown when it is no state.  A frontend
 * that is not there (any more) counts as XenbusStateClosed.
 */
int frontend_state(struct store *store, const char *dir, int *ret);

/*
 * Its rings: abi, nr_rings and ring[] of connect, the other members are left
 * alone.  On -errno ret_why (MSG_TEXT_MAX bytes) names the key and what is
 * wrong with it.
 */
int frontend_rings(struct store *store, const char *dir,
		   struct msg_connect *ret_connect, char *ret_why);

/* Persistent grants: does it say feature-persistent=1?  -errno as above. */
int frontend_persistent(struct store *store, const char *dir, bool *ret,
			char *ret_why);

/*
 * Removes what the two above read.  To be called while the frontend is
 * Closed: the next kernel there may use fewer queues or another ring order,
 * and does not remove what the one before it left behind.
 */
void frontend_forget_rings(struct store *store, const char *dir);

#endif
