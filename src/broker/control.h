/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * control.h - RUNDIR/control.sock: Varlink for the command and the hotplug
 * script.
 *
 * The interface is io.xendisk.varlink; methods.c has the methods.  Only root
 * and our own user may connect.  Broker thread only.
 */
#ifndef XENDISK_CONTROL_H
#define XENDISK_CONTROL_H

#include <jansson.h>

struct broker;
struct control;

int control_start(struct control **ret, struct broker *broker);
/* No new clients, no new calls; those that wait get no answer. */
void control_stop(struct control *control);
void control_free(struct control *control);

/*
 * A call is answered exactly once, at once or later; it may outlive its client,
 * then the answer is dropped.
 */
struct call;

struct broker *call_broker(struct call *call);
/* Takes over parameters; NULL: no memory, and the client is dropped. */
void call_reply(struct call *call, json_t *parameters);
/* error: "io.xendisk.Failed".  Takes over parameters. */
void call_error(struct call *call, const char *error, json_t *parameters);

#endif
