/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Readers of xenstore that are wrong, for fuzz-xenstore to find. */
#include "config.h"

#include "fuzz.h"

#include "broker/frontend.h"

enum { LENIENT, OTHER_PAGE, KEEPS };

const char *const fuzz_faults[] = {
	[LENIENT] = "a number with something behind it is noticed",
	[OTHER_PAGE] = "another page than the guest's is noticed",
	[KEEPS] = "rings that are not forgotten are noticed",
	NULL,
};

int __real_parse_u32(const char *text, uint32_t max, uint32_t *ret);
int __wrap_parse_u32(const char *text, uint32_t max, uint32_t *ret);
int __real_frontend_rings(struct store *store, const char *dir,
			  struct msg_connect *ret_connect, char *ret_why);
int __wrap_frontend_rings(struct store *store, const char *dir,
			  struct msg_connect *ret_connect, char *ret_why);
void __real_frontend_forget_rings(struct store *store, const char *dir);
void __wrap_frontend_forget_rings(struct store *store, const char *dir);

/* As strtoul() and no further thought. */
int __wrap_parse_u32(const char *text, uint32_t max, uint32_t *ret)
{
	unsigned long value = strtoul(text, NULL, 10);

	if (fuzz_fault != LENIENT)
		return __real_parse_u32(text, max, ret);
	if (value > max)
		return -1;
	*ret = (uint32_t)value;
	return 0;
}

int __wrap_frontend_rings(struct store *store, const char *dir,
			  struct msg_connect *ret_connect, char *ret_why)
{
	int r = __real_frontend_rings(store, dir, ret_connect, ret_why);

	if (r == 0 && fuzz_fault == OTHER_PAGE)
		ret_connect->ring[0].ref[ret_connect->ring[0].nr_refs - 1]++;
	return r;
}

void __wrap_frontend_forget_rings(struct store *store, const char *dir)
{
	if (fuzz_fault != KEEPS)
		__real_frontend_forget_rings(store, dir);
}
