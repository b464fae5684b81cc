/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-states.h - the handshake's table (vbd-states.def) as a pure function.
 */
#ifndef XENDISK_VBD_STATES_H
#define XENDISK_VBD_STATES_H

#define VBD_NR_STATES 9 /* XenbusStateUnknown to XenbusStateReconfigured */

enum vbd_action {
	VBD_IGNORE, /* nothing that we know how to handle */
	VBD_WAIT, /* it is the frontend's turn */
	VBD_OFFER, /* say what we can do; InitWait.  Only while online */
	VBD_FORGET, /* wait, for other rings than it may have had before */
	VBD_CONNECT, /* read its keys, map its rings; Connected when done */
	VBD_SERVE, /* connected; if the worker was lost, connect it again */
	VBD_RESTART, /* disconnect; InitWait */
	VBD_CLOSING, /* say Closing too, and go on serving */
	VBD_HOLD, /* go on serving; what is not connected is closed */
	VBD_CLOSE, /* disconnect; Closed */
	VBD_NR_ACTIONS
};

/* Both are xenbus states, from 0 up to VBD_NR_STATES - 1. */
enum vbd_action vbd_answer(int backend, int frontend);

/* "Connected" */
const char *vbd_state_name(int state);

#endif
