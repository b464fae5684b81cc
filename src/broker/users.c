/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/users.h"

#include "common/util.h"

/* A range far from people, services and containers. */
#define FIRST_UID 0x7d150000u
#define NR_UIDS	  4096

/* One table a process, as the ids are those of the machine. */
static bool taken[NR_UIDS];

int users_take(unsigned int *ret_slot)
{
	for (unsigned int i = 0; i < NR_UIDS; i++) {
		if (taken[i])
			continue;
		taken[i] = true;
		*ret_slot = i;
		return 0;
	}
	return -EUSERS;
}

bool users_claim(unsigned int slot)
{
	if (slot >= NR_UIDS || taken[slot])
		return false;
	taken[slot] = true;
	return true;
}

void users_free(unsigned int slot)
{
	taken[slot] = false;
}

uint32_t users_uid(unsigned int slot)
{
	return geteuid() == 0 ? FIRST_UID + slot : 0;
}

uint32_t users_front(void)
{
	return geteuid() == 0 ? FIRST_UID + NR_UIDS : 0;
}
