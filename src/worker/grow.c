/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/grow.h"

#include "common/log.h"
#include "common/util.h"
#include "worker/io-client.h"
#include "worker/services.h"

/* How often storage that may grow by itself is looked at. */
#define LOOK_NS (7 * 1000000000ull)

static void stop_lanes(struct io_disk *disk)
{
	standstill_want(&disk->still);
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		io_poke(disk->lanes[i]);
	standstill_wait(&disk->still, disk->nr_lanes);
}

static void settle(struct grow *grow)
{
	struct io_disk *disk = grow->disk;
	bool running = disk->nr_lanes > 0;

	if (running)
		stop_lanes(disk);
	stack_settle(grow->stack);
	disk->judge.size = stack_limits(grow->stack)->size;
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		clients_resized(disk->lanes[i]);
	if (running)
		standstill_end(&disk->still);
}

void grow_tell(struct grow *grow)
{
	struct msg_grew msg = { .size = stack_limits(grow->stack)->size };

	if (msg.size == grow->opened->limits.size)
		return;
	if (services_send(grow->services, &msg, sizeof(msg), MSG_GREW) == 0)
		grow->opened->limits.size = msg.size;
}

int grow_resize(struct grow *grow, uint64_t size, char *ret_why)
{
	int r = stack_resize(grow->stack, size, ret_why);

	/* Also when it failed: something below the top may have grown. */
	if (stack_unsettled(grow->stack))
		settle(grow);
	grow_tell(grow);
	return r;
}

void grow_look(struct grow *grow)
{
	char why[MSG_TEXT_MAX] = "";
	int r = grow_resize(grow, 0, why);

	if (r && !grow->failed)
		log_disk(grow->who, LOG_LEVEL_WARNING, "%s", why);
	grow->failed = r != 0;
	grow->look_at = stack_may_grow(grow->stack) ? now_ns() + LOOK_NS :
						      UINT64_MAX;
}
