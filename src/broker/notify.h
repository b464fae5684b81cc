/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * notify.h - what the service manager hears of us (sd_notify(3)).
 *
 * The watchdog is fed by the event loop and by nothing else: a loop that hangs
 * is noticed, killed and replaced, while the workers serve on.  Without
 * systemd, or under another parent, all of this does nothing.
 */
#ifndef XENDISK_NOTIFY_H
#define XENDISK_NOTIFY_H

#include <event2/event.h>

/* Begins to feed the watchdog, if there is one; *ret is NULL if not. */
int notify_start(struct event_base *base, struct event **ret);
void notify_stop(struct event *watchdog);

void notify_ready(void);
void notify_stopping(void);

#endif
