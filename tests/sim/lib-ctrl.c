/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenctrl.so.4.17 on the simulated machine: which domains live.  Enough for
 * xenstored, for the xendisk command, and for QEMU to start; what QEMU only
 * needs for HVM guests says ENOSYS.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>

struct xc_interface_core {
	struct hv *hv;
};

xc_interface *xc_interface_open(xentoollog_logger *logger,
				xentoollog_logger *dombuild_logger,
				unsigned open_flags)
{
	xc_interface *xch = calloc(1, sizeof(*xch));
	int r = xch ? hv_open(NULL, &xch->hv) : -ENOMEM;

	(void)logger;
	(void)dombuild_logger;
	(void)open_flags;
	if (r == 0)
		return xch;
	free(xch);
	errno = -r;
	return NULL;
}

int xc_interface_close(xc_interface *xch)
{
	if (!xch)
		return 0;
	hv_close(xch->hv);
	free(xch);
	return 0;
}

static void get_uuid(struct hv *hv, uint32_t domid, xen_domain_handle_t handle)
{
	uint32_t slot = hv_domain_find(hv, domid);

	memset(handle, 0, sizeof(xen_domain_handle_t));
	if (slot != HV_NONE)
		memcpy(handle, hv_domain(hv, slot)->uuid,
		       sizeof(xen_domain_handle_t));
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max,
		      xc_dominfo_t *info)
{
	struct xensim_domain_info d;
	unsigned int n = 0;

	while (n < max && hv_domain_list(xch->hv, first, &d, 1) == 1) {
		info[n] = (xc_dominfo_t){
			.domid = d.domid,
			.dying = d.dying,
			.shutdown = d.shutdown,
			.crashed = d.shutdown &&
				   d.shutdown_reason == SHUTDOWN_crash,
			.blocked = !d.dying && !d.shutdown,
			.shutdown_reason = d.shutdown_reason,
			.nr_pages = d.pages,
			.nr_online_vcpus = 1,
		};
		get_uuid(xch->hv, d.domid, info[n].handle);
		first = d.domid + 1;
		n++;
	}
	return (int)n;
}

int xc_domain_getinfolist(xc_interface *xch, uint32_t first, unsigned int max,
			  xc_domaininfo_t *info)
{
	struct xensim_domain_info d;
	unsigned int n = 0;

	while (n < max && hv_domain_list(xch->hv, first, &d, 1) == 1) {
		info[n] = (xc_domaininfo_t){
			.domain = (domid_t)d.domid,
			.flags = (d.dying ? XEN_DOMINF_dying : 0) |
				 (d.shutdown ? XEN_DOMINF_shutdown : 0) |
				 d.shutdown_reason << XEN_DOMINF_shutdownshift,
			.tot_pages = d.pages,
			.max_pages = d.pages,
			.nr_online_vcpus = 1,
		};
		get_uuid(xch->hv, d.domid, info[n].handle);
		first = d.domid + 1;
		n++;
	}
	return (int)n;
}

int xc_domain_shutdown(xc_interface *xch, uint32_t domid, int reason)
{
	int r = hv_domain_shutdown(xch->hv, domid, (unsigned int)reason);

	errno = -r;
	return r < 0 ? -1 : 0;
}

/* Symbols that QEMU links to; the prototypes are not needed to refuse. */
#define REFUSE(name)                         \
	int sim_##name(void) __asm__(#name); \
	int sim_##name(void)                 \
	{                                    \
		errno = ENOSYS;              \
		return -1;                   \
	}

REFUSE(xc_domain_bind_pt_pci_irq)
REFUSE(xc_domain_iomem_permission)
REFUSE(xc_domain_ioport_mapping)
REFUSE(xc_domain_memory_mapping)
REFUSE(xc_domain_populate_physmap_exact)
REFUSE(xc_domain_unbind_msi_irq)
REFUSE(xc_domain_unbind_pt_irq)
REFUSE(xc_domain_update_msi_irq)
REFUSE(xc_get_hvm_param)
REFUSE(xc_set_hvm_param)
REFUSE(xc_hvm_param_get)
REFUSE(xc_hvm_param_set)
REFUSE(xc_physdev_map_pirq)
REFUSE(xc_physdev_map_pirq_msi)
REFUSE(xc_physdev_unmap_pirq)
