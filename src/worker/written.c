/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/written.h"

#include <sys/mman.h>

#include "common/util.h"
#include "worker/io.h"

_Static_assert(STAMP_LANES >= IO_MAX_LANES, "each lane has its own");

static bool is_temporary_file(const struct layer *layer)
{
	if (!layer->temporary || layer->read_only)
		return false;
	for (unsigned int i = 0; i < layer->info->nr_params; i++)
		if (layer->info->params[i].type == XD_PATH &&
		    layer->values[i].set)
			return true;
	return false;
}

static bool find_files(struct stack *stack)
{
	bool found = false;

	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		struct host_disk *hd = &stack->disks[i];

		hd->is_temporary = is_temporary_file(hd->layer);
		found |= hd->is_temporary;
	}
	return found;
}

void written_open(struct stack *stack)
{
	cleanup_close int fd = -1;
	void *stamps;

	if (!find_files(stack) ||
	    services_keep(stack->services, STAMP_NAME,
			  sizeof(struct stamp_file), &fd) < 0 ||
	    reserve_room(fd, 0, sizeof(struct stamp_file)) < 0)
		return;
	stamps = mmap(NULL, sizeof(struct stamp_file), PROT_READ | PROT_WRITE,
		      MAP_SHARED, fd, 0);
	if (stamps != MAP_FAILED)
		stack->stamps = stamps;
}

void written_close(struct stack *stack)
{
	if (stack->stamps)
		(void)munmap(stack->stamps, sizeof(*stack->stamps));
}
