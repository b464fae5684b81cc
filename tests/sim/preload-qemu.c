/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LD_PRELOAD for QEMU as a backend of PV guests (-M xenpv): the libraries that
 * it opens at its start and does not use for disks.
 */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <xentoollog.h>
#include <xendevicemodel.h>
#include <xenforeignmemory.h>
#include <xentoolcore.h>

/* Nobody looks behind the pointers. */
static int handle;

xenforeignmemory_handle *xenforeignmemory_open(xentoollog_logger *logger,
					       unsigned flags)
{
	(void)logger;
	(void)flags;
	return (xenforeignmemory_handle *)(void *)&handle;
}

int xenforeignmemory_close(xenforeignmemory_handle *fmem)
{
	(void)fmem;
	return 0;
}

xendevicemodel_handle *xendevicemodel_open(xentoollog_logger *logger,
					   unsigned flags)
{
	(void)logger;
	(void)flags;
	return (xendevicemodel_handle *)(void *)&handle;
}

int xendevicemodel_close(xendevicemodel_handle *dmod)
{
	(void)dmod;
	return 0;
}

int xentoolcore_restrict_all(domid_t domid)
{
	(void)domid;
	return 0;
}
