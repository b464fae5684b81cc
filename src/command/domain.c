/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "command/domain.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <xenctrl.h>

#include "command/store.h"
#include "common/suggest.h"

#define FIRST_RESERVED_DOMID 0x7ff0u /* DOMID_FIRST_RESERVED, xen.h */

bool domain_lives(uint32_t domid)
{
	xc_interface *xc = xc_interface_open(NULL, NULL, 0);
	xc_dominfo_t info;
	bool lives, refused;
	int n;

	/* Without the hypercall interface xenstore's word has to do. */
	if (!xc)
		return true;
	n = xc_domain_getinfo(xc, domid, 1, &info);
	refused = n < 0 && (errno == EPERM || errno == EACCES);
	lives = n == 1 && info.domid == domid && !info.dying;
	xc_interface_close(xc);
	return lives || refused; /* as in a driver domain */
}

/* A driver domain may not read what there is of others: the daemon knows whose disks
 * it has. */
static bool may_exist(struct xs_handle *store, uint32_t domid)
{
	return store_exists(store, "/local/domain/%" PRIu32, domid) ||
	       errno == EACCES;
}

/* Does the domain have this name or UUID? */
static bool is_called(struct xs_handle *store, const char *domid,
		      const char *text)
{
	cleanup_free char *name = NULL;
	cleanup_free char *vm = NULL;

	name = store_read(store, XBT_NULL, "/local/domain/%s/name", domid);
	if (name && strcmp(name, text) == 0)
		return true;
	vm = store_read(store, XBT_NULL, "/local/domain/%s/vm", domid);
	return vm && strncmp(vm, "/vm/", 4) == 0 &&
	       strcasecmp(vm + 4, text) == 0;
}

static enum status no_domain(const struct invocation *call,
			     struct xs_handle *store, const char *text)
{
	struct suggest s = { .typed = text };
	unsigned int count = 0;
	cleanup_free char **ids =
		xs_directory(store, XBT_NULL, "/local/domain", &count);

	for (unsigned int i = 0; ids && i < count; i++) {
		cleanup_free char *name = store_read(
			store, XBT_NULL, "/local/domain/%s/name", ids[i]);

		if (name)
			suggest_add(&s, name);
	}
	return fail(STATUS_NOT_FOUND, "%s: there is no domain \"%s\"%s",
		    call->verb->name, text, suggest_text(&s, "; known: "));
}

enum status domain_find(const struct invocation *call, struct xs_handle *store,
			const char *text, uint32_t *ret_domid)
{
	cleanup_free char **ids = NULL;
	unsigned int count = 0;
	uint32_t domid;

	if (parse_u32(text, FIRST_RESERVED_DOMID - 1, &domid) == 0) {
		if (!domain_lives(domid) || !may_exist(store, domid))
			goto none;
		*ret_domid = domid;
		return STATUS_DONE;
	}
	ids = xs_directory(store, XBT_NULL, "/local/domain", &count);
	for (unsigned int i = 0; i < count; i++) {
		if (!is_called(store, ids[i], text) ||
		    parse_u32(ids[i], FIRST_RESERVED_DOMID - 1, &domid) < 0 ||
		    !domain_lives(domid))
			continue;
		*ret_domid = domid;
		return STATUS_DONE;
	}
none:
	return no_domain(call, store, text);
}
