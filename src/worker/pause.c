/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/pause.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>

void pause_init(struct pause *pause, struct services *services)
{
	pause->services = services;
	pause->nr_causes = 0;
	(void)pthread_mutex_init(&pause->lock, NULL);
}

void pause_destroy(struct pause *pause)
{
	(void)pthread_mutex_destroy(&pause->lock);
}

/* The broker logs it; without one there is nobody to tell. */
static void tell(struct pause *pause, bool set, const char *reason)
{
	struct msg_condition msg = { .kind = MSG_PAUSED, .set = set };

	(void)snprintf(msg.reason, sizeof(msg.reason), "%s", reason);
	(void)services_tell(pause->services, &msg);
}

void pause_begin(struct pause *pause, const char *reason)
{
	(void)pthread_mutex_lock(&pause->lock);
	pause->nr_causes++;
	tell(pause, true, reason);
	(void)pthread_mutex_unlock(&pause->lock);
}

void pause_change(struct pause *pause, const char *reason)
{
	(void)pthread_mutex_lock(&pause->lock);
	assert(pause->nr_causes > 0);
	tell(pause, true, reason);
	(void)pthread_mutex_unlock(&pause->lock);
}

void pause_end(struct pause *pause)
{
	(void)pthread_mutex_lock(&pause->lock);
	assert(pause->nr_causes > 0);
	if (--pause->nr_causes == 0)
		tell(pause, false, "");
	(void)pthread_mutex_unlock(&pause->lock);
}
