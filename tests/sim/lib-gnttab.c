/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxengnttab.so.1 on the simulated machine: what Linux's gntdev and Xen do
 * together.
 *
 * Theory of operation
 *
 * A handle is a device (hv.h) whose descriptor is the machine file.  Maps are
 * made with that very descriptor, so the kernel keeps the device alive while a
 * map is left, as it does for gntdev: closing the handle without unmapping
 * leaves the grants mapped until the process ends.
 *
 * Grant copy finds the page in the whole-machine map that the process has
 * anyway: two loads and a memcpy, no system call.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xengnttab.h>

#define COPY_BATCH 16u /* GNTDEV_COPY_BATCH of Linux */

/* One successful map call. */
struct map {
	struct map *next;
	void *addr;
	uint32_t count;
	uint32_t mappings[];
};

struct xengntdev_handle {
	struct hv_device dev;
	uint32_t slot;
	pthread_mutex_t lock; /* maps, nr_mapped */
	struct map *maps;
	uint32_t nr_mapped;
	uint32_t max_grants;
	struct map *shared; /* of the sharing half */
};

static int fail(int error)
{
	errno = error;
	return -1;
}

static int handle_init(xengnttab_handle *xgt)
{
	struct hv *hv;
	int r = hv_open(NULL, &hv);

	if (r < 0)
		return r;
	xgt->slot = hv_domain_self(hv);
	r = xgt->slot == HV_NONE ?
		    -ENOENT :
		    hv_device_open(hv, HV_GNTTAB, xgt->slot, &xgt->dev);
	if (r < 0)
		hv_close(hv);
	return r;
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger,
				 unsigned flags)
{
	xengnttab_handle *xgt = calloc(1, sizeof(*xgt));
	int r;

	(void)logger;
	(void)flags;
	if (!xgt)
		return NULL;
	r = handle_init(xgt);
	if (r < 0) {
		free(xgt);
		errno = -r;
		return NULL;
	}
	pthread_mutex_init(&xgt->lock, NULL);
	xgt->max_grants = UINT32_MAX;
	return xgt;
}

static void free_maps(struct map *map)
{
	while (map) {
		struct map *next = map->next;

		free(map);
		map = next;
	}
}

int xengnttab_close(xengnttab_handle *xgt)
{
	struct hv *hv;

	if (!xgt)
		return 0;
	hv = xgt->dev.hv;
	hv_device_close(&xgt->dev);
	hv_close(hv);
	free_maps(xgt->maps);
	free_maps(xgt->shared);
	pthread_mutex_destroy(&xgt->lock);
	free(xgt);
	return 0;
}

int xengnttab_fd(xengnttab_handle *xgt)
{
	return xgt->dev.fd;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
	xgt->max_grants = count;
	return 0;
}

/* --- Mapping ------------------------------------------------------------------- */

static uint32_t frame_of(xengnttab_handle *xgt, uint32_t mapping)
{
	return xgt->dev.hv->shared->mappings[mapping].frame;
}

static bool map_frame(xengnttab_handle *xgt, uint8_t *at, uint32_t mapping,
		      int prot)
{
	struct hv *hv = xgt->dev.hv;
	off_t offset =
		(off_t)(hv->shared->header.memory_offset +
			(uint64_t)frame_of(xgt, mapping) * XENSIM_PAGE_SIZE);

	return mmap(at, XENSIM_PAGE_SIZE, prot, MAP_SHARED | MAP_FIXED,
		    xgt->dev.fd, offset) != MAP_FAILED;
}

/* Pin all or none. */
static bool pin_all(xengnttab_handle *xgt, struct map *map,
		    const uint32_t *domids, uint32_t stride,
		    const uint32_t *refs, bool write)
{
	uint32_t done = 0;

	while (done < map->count &&
	       hv_grant_map(&xgt->dev, domids[done * stride], refs[done], write,
			    &map->mappings[done]) == GNTST_okay)
		done++;
	if (done == map->count)
		return true;
	while (done--)
		hv_grant_unmap(xgt->dev.hv, map->mappings[done]);
	return false;
}

static void unpin_all(xengnttab_handle *xgt, struct map *map)
{
	for (uint32_t i = 0; i < map->count; i++)
		hv_grant_unmap(xgt->dev.hv, map->mappings[i]);
}

/* Put the frames one after another at a fresh address. */
static int place(xengnttab_handle *xgt, struct map *map, int prot)
{
	size_t size = (size_t)map->count * XENSIM_PAGE_SIZE;
	uint8_t *addr = mmap(NULL, size, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			     0);

	if (addr == MAP_FAILED)
		return -errno;
	for (uint32_t i = 0; i < map->count; i++) {
		if (map_frame(xgt, addr + (size_t)i * XENSIM_PAGE_SIZE,
			      map->mappings[i], prot))
			continue;
		munmap(addr, size);
		return -ENOMEM;
	}
	map->addr = addr;
	return 0;
}

static struct map *new_map(uint32_t count)
{
	struct map *map = calloc(
		1, sizeof(*map) + (size_t)count * sizeof(map->mappings[0]));

	if (map)
		map->count = count;
	return map;
}

/* Locked.  Linux says EINVAL whatever was wrong with a reference. */
static int map_refs(xengnttab_handle *xgt, uint32_t count,
		    const uint32_t *domids, uint32_t stride,
		    const uint32_t *refs, int prot, struct map **ret_map)
{
	struct map *map;
	int r;

	if (count == 0 || count > xgt->max_grants - xgt->nr_mapped)
		return -EINVAL;
	map = new_map(count);
	if (!map)
		return -ENOMEM;
	if (!pin_all(xgt, map, domids, stride, refs, prot & PROT_WRITE)) {
		free(map);
		return -EINVAL;
	}
	r = place(xgt, map, prot);
	if (r < 0) {
		unpin_all(xgt, map);
		free(map);
		return r;
	}
	map->next = xgt->maps;
	xgt->maps = map;
	xgt->nr_mapped += count;
	*ret_map = map;
	return 0;
}

static void *do_map(xengnttab_handle *xgt, uint32_t count,
		    const uint32_t *domids, uint32_t stride,
		    const uint32_t *refs, int prot, uint32_t notify_offset,
		    evtchn_port_t notify_port)
{
	struct map *map;
	struct hv_mapping *m;
	int r;

	pthread_mutex_lock(&xgt->lock);
	r = map_refs(xgt, count, domids, stride, refs, prot, &map);
	if (r == 0 && (notify_offset != HV_NONE || notify_port != HV_NONE)) {
		m = &xgt->dev.hv->shared->mappings[map->mappings[0]];
		m->notify_offset = notify_offset;
		m->notify_port = notify_port;
	}
	pthread_mutex_unlock(&xgt->lock);
	if (r < 0) {
		HV_COUNT(xgt->dev.hv, refusals, 1);
		errno = -r;
		return NULL;
	}
	HV_COUNT(xgt->dev.hv, map_calls, 1);
	HV_COUNT(xgt->dev.hv, map_pages, count);
	return map->addr;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid,
			      uint32_t ref, int prot)
{
	return do_map(xgt, 1, &domid, 0, &ref, prot, HV_NONE, HV_NONE);
}

void *xengnttab_map_grant_refs(xengnttab_handle *xgt, uint32_t count,
			       uint32_t *domids, uint32_t *refs, int prot)
{
	return do_map(xgt, count, domids, 1, refs, prot, HV_NONE, HV_NONE);
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count,
				      uint32_t domid, uint32_t *refs, int prot)
{
	return do_map(xgt, count, &domid, 0, refs, prot, HV_NONE, HV_NONE);
}

void *xengnttab_map_grant_ref_notify(xengnttab_handle *xgt, uint32_t domid,
				     uint32_t ref, int prot,
				     uint32_t notify_offset,
				     evtchn_port_t notify_port)
{
	return do_map(xgt, 1, &domid, 0, &ref, prot, notify_offset,
		      notify_port);
}

/* Locked.  Exactly one earlier map: its start and its count. */
static struct map *take_map(struct map **list, void *addr, uint32_t count)
{
	for (struct map **p = list; *p; p = &(*p)->next) {
		struct map *map = *p;

		if (map->addr != addr || map->count != count)
			continue;
		*p = map->next;
		return map;
	}
	return NULL;
}

int xengnttab_unmap(xengnttab_handle *xgt, void *addr, uint32_t count)
{
	struct map *map;

	pthread_mutex_lock(&xgt->lock);
	map = take_map(&xgt->maps, addr, count);
	if (map)
		xgt->nr_mapped -= count;
	pthread_mutex_unlock(&xgt->lock);
	if (!map) {
		HV_COUNT(xgt->dev.hv, refusals, 1);
		return fail(EINVAL);
	}
	munmap(addr, (size_t)count * XENSIM_PAGE_SIZE);
	unpin_all(xgt, map);
	free(map);
	HV_COUNT(xgt->dev.hv, unmap_calls, 1);
	return 0;
}

/* --- Grant copy ------------------------------------------------------------------ */

/* A place in the handle that shows that a copy runs, so frames stay. */
static _Atomic uint32_t *enter_copy(struct hv_handle *h)
{
	static _Thread_local uint32_t hint;

	for (;;) {
		_Atomic uint32_t *c = &h->copiers[hint % HV_COPIERS];
		uint32_t seen = *c;

		if (seen % 2 == 0 &&
		    atomic_compare_exchange_strong(c, &seen, seen + 1))
			return c;
		hint++;
	}
}

static bool refuses(const xengnttab_grant_copy_segment_t *seg)
{
	if (!(seg->flags & (GNTCOPY_source_gref | GNTCOPY_dest_gref)))
		return true;
	if ((seg->flags & GNTCOPY_source_gref) &&
	    seg->source.foreign.offset + seg->len > XENSIM_PAGE_SIZE)
		return true;
	return (seg->flags & GNTCOPY_dest_gref) &&
	       seg->dest.foreign.offset + seg->len > XENSIM_PAGE_SIZE;
}

/* One side of a segment: where its bytes are, or a GNTST_* status. */
static int resolve(xengnttab_handle *xgt, const union xengnttab_copy_ptr *ptr,
		   bool foreign, bool write, uint8_t **ret_bytes)
{
	uint32_t frame;
	int status;

	if (!foreign) {
		*ret_bytes = ptr->virt;
		return GNTST_okay;
	}
	status = hv_grant_lookup(xgt->dev.hv, xgt->slot, ptr->foreign.domid,
				 ptr->foreign.ref, write, &frame);
	if (status == GNTST_okay)
		*ret_bytes =
			hv_frame_ptr(xgt->dev.hv, frame) + ptr->foreign.offset;
	return status;
}

static int copy_segment(xengnttab_handle *xgt,
			const xengnttab_grant_copy_segment_t *seg)
{
	uint8_t *from, *to;
	int status;

	if (seg->len == 0)
		return GNTST_okay;
	status = resolve(xgt, &seg->source, seg->flags & GNTCOPY_source_gref,
			 false, &from);
	if (status == GNTST_okay)
		status = resolve(xgt, &seg->dest,
				 seg->flags & GNTCOPY_dest_gref, true, &to);
	if (status == GNTST_okay)
		memcpy(to, from, seg->len);
	return status;
}

static void count_copy(struct hv *hv, uint32_t segments, uint64_t bytes,
		       uint32_t failures)
{
	HV_COUNT(hv, copy_calls, 1);
	HV_COUNT(hv, copy_segments, segments);
	HV_COUNT(hv, copy_bytes, bytes);
	if (failures)
		HV_COUNT(hv, copy_failures, failures);
}

static void copy_all(xengnttab_handle *xgt, uint32_t count,
		     xengnttab_grant_copy_segment_t *segs)
{
	_Atomic uint32_t *busy = enter_copy(hv_device_handle(&xgt->dev));
	uint32_t failures = 0;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < count; i++) {
		segs[i].status = (int16_t)copy_segment(xgt, &segs[i]);
		failures += segs[i].status != GNTST_okay;
		bytes += segs[i].len;
	}
	(*busy)++;
	count_copy(xgt->dev.hv, count, bytes, failures);
}

/*
 * As gntdev: a malformed segment fails the whole call with EINVAL when it is
 * reached.  By then the full batches before it are done, and every segment
 * before it has status okay whether it was copied or not.
 */
int xengnttab_grant_copy(xengnttab_handle *xgt, uint32_t count,
			 xengnttab_grant_copy_segment_t *segs)
{
	uint32_t good = 0;

	while (good < count && !refuses(&segs[good]))
		good++;
	if (good == count) {
		copy_all(xgt, count, segs);
		return 0;
	}
	copy_all(xgt, good / COPY_BATCH * COPY_BATCH, segs);
	for (uint32_t i = good / COPY_BATCH * COPY_BATCH; i < good; i++)
		segs[i].status = GNTST_okay;
	HV_COUNT(xgt->dev.hv, refusals, 1);
	return fail(EINVAL);
}

/* --- The sharing half: pages of our own domain ------------------------------------- */

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger,
				 unsigned flags)
{
	return xengnttab_open(logger, flags);
}

int xengntshr_close(xengntshr_handle *xgs)
{
	return xengnttab_close(xgs);
}

int xengntshr_fd(xengntshr_handle *xgs)
{
	return xengnttab_fd(xgs);
}

static int share(xengntshr_handle *xgs, uint32_t domid, struct map *map,
		 bool writable)
{
	struct hv *hv = xgs->dev.hv;
	uint32_t first;
	int r;

	hv_lock(hv);
	r = hv_frames_alloc(hv, xgs->slot, map->count, &first);
	hv_unlock(hv);
	for (uint32_t i = 0; r == 0 && i < map->count; i++)
		r = hv_grant_set(hv, xgs->slot, HV_NONE, domid, first + i,
				 !writable, &map->mappings[i]);
	if (r == 0)
		map->addr = hv_frame_ptr(hv, first);
	return r;
}

void *xengntshr_share_pages(xengntshr_handle *xgs, uint32_t domid, int count,
			    uint32_t *refs, int writable)
{
	struct map *map = count > 0 ? new_map((uint32_t)count) : NULL;
	int r = map ? share(xgs, domid, map, writable) : -EINVAL;

	if (r < 0) {
		free(map);
		errno = -r;
		return NULL;
	}
	memcpy(refs, map->mappings, (size_t)count * sizeof(*refs));
	pthread_mutex_lock(&xgs->lock);
	map->next = xgs->shared;
	xgs->shared = map;
	pthread_mutex_unlock(&xgs->lock);
	return map->addr;
}

/* Notification concerns the death of this process only: not modelled. */
void *xengntshr_share_page_notify(xengntshr_handle *xgs, uint32_t domid,
				  uint32_t *ref, int writable,
				  uint32_t notify_offset,
				  evtchn_port_t notify_port)
{
	(void)notify_offset;
	(void)notify_port;
	return xengntshr_share_pages(xgs, domid, 1, ref, writable);
}

int xengntshr_unshare(xengntshr_handle *xgs, void *addr, uint32_t count)
{
	struct hv *hv = xgs->dev.hv;
	struct map *map;
	uint32_t first;

	pthread_mutex_lock(&xgs->lock);
	map = take_map(&xgs->shared, addr, count);
	pthread_mutex_unlock(&xgs->lock);
	if (!map)
		return fail(EINVAL);
	for (uint32_t i = 0; i < count; i++)
		hv_grant_end(hv, xgs->slot, map->mappings[i]);
	first = (uint32_t)(((uint8_t *)addr - hv->memory) / XENSIM_PAGE_SIZE);
	hv_lock(hv);
	hv_frames_free(hv, first, count);
	hv_unlock(hv);
	free(map);
	return 0;
}

/* --- Not there, as on a kernel without CONFIG_XEN_GNTDEV_DMABUF ----------------------- */

int xengnttab_dmabuf_exp_from_refs(xengnttab_handle *xgt, uint32_t domid,
				   uint32_t flags, uint32_t count,
				   const uint32_t *refs, uint32_t *fd)
{
	(void)xgt, (void)domid, (void)flags, (void)count, (void)refs, (void)fd;
	return fail(ENOTTY);
}

int xengnttab_dmabuf_exp_wait_released(xengnttab_handle *xgt, uint32_t fd,
				       uint32_t wait_to_ms)
{
	(void)xgt, (void)fd, (void)wait_to_ms;
	return fail(ENOTTY);
}

int xengnttab_dmabuf_imp_to_refs(xengnttab_handle *xgt, uint32_t domid,
				 uint32_t fd, uint32_t count, uint32_t *refs)
{
	(void)xgt, (void)domid, (void)fd, (void)count, (void)refs;
	return fail(ENOTTY);
}

int xengnttab_dmabuf_imp_release(xengnttab_handle *xgt, uint32_t fd)
{
	(void)xgt, (void)fd;
	return fail(ENOTTY);
}
