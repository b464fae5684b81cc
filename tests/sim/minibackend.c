/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small block backend that can be told to misbehave: the proof that
 * simguest catches what it is there to catch.
 *
 *   minibackend FILE DOMID DEVID [--volatile] [--no-indirect] [--fault NAME]
 *
 * It plays the toolstack too (both xenstore directories, when they are not
 * there), and serves the file from memory, one request at a time, over the
 * real libxengnttab, libxenevtchn and libxenstore interfaces.  With --volatile
 * a write reaches the file at the next flush only, and killing the process is
 * the power cut.  It parses the ring on its own, sharing nothing with simabi.c.
 *
 * A fault happens at every FAULT_EVERY-th request that it applies to.
 */
#include "config.h"

#define __XEN_INTERFACE_VERSION__ 0x00040d00
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xen/xen.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#define PAGE	     4096u
#define SECTOR	     512u
#define MAX_QUEUES   8
#define MAX_ORDER    4
#define MAX_SEGMENTS 256
#define FAULT_EVERY  20

enum fault {
	NO_FAULT,
	ANSWER_TWICE,
	NEVER_ANSWER,
	WRONG_ID,
	WRONG_OPERATION,
	DIRTY_PADDING,
	RUN_AHEAD, /* rsp_prod beyond the requests */
	LOSE_WRITE,
	STALE_READ,
	MISPLACE_WRITE,
	GHOST_WRITE, /* an answered write lands once more, later */
	OVERRUN_READ, /* bytes outside of the segment */
	STAY_MAPPED, /* a data page, when the request is answered */
	KEEP_RING, /* mapped after Closed */
	KEEP_PAGE, /* so, of those that may stay mapped until then */
	EARLY_FLUSH, /* answered, but nothing is on the disk */
	FAIL_WRITE, /* an honest error answer */
};

static const char *const fault_names[] = {
	[NO_FAULT] = "none",
	[ANSWER_TWICE] = "answer-twice",
	[NEVER_ANSWER] = "never-answer",
	[WRONG_ID] = "wrong-id",
	[WRONG_OPERATION] = "wrong-operation",
	[DIRTY_PADDING] = "dirty-padding",
	[RUN_AHEAD] = "run-ahead",
	[LOSE_WRITE] = "lose-write",
	[STALE_READ] = "stale-read",
	[MISPLACE_WRITE] = "misplace-write",
	[GHOST_WRITE] = "ghost-write",
	[OVERRUN_READ] = "overrun-read",
	[STAY_MAPPED] = "stay-mapped",
	[KEEP_RING] = "keep-ring",
	[KEEP_PAGE] = "keep-page",
	[EARLY_FLUSH] = "early-flush",
	[FAIL_WRITE] = "fail-write",
};

struct queue {
	blkif_sring_t *sring;
	unsigned int pages, size; /* size: slots */
	uint32_t req_cons, rsp_prod;
	evtchn_port_t port;
};

struct request {
	uint8_t operation; /* the inner one of an indirect request */
	uint64_t id, sector, nr_sectors;
	unsigned int nr_segments;
	struct blkif_request_segment segments[MAX_SEGMENTS];
};

static struct {
	struct xs_handle *xs;
	xengnttab_handle *gnttab;
	xenevtchn_handle *evtchn;
	uint32_t domid, devid;
	char front[128], back[128];
	int fd;
	uint8_t *image;
	uint64_t size;
	bool is_volatile, no_indirect, connected;
	enum fault fault;
	unsigned int chances; /* requests that the fault applied to */
	struct queue queues[MAX_QUEUES];
	unsigned int nr_queues;
	unsigned int base, slot; /* of the ABI: offset of the id, entry size */
} be;

static void die(const char *what)
{
	fprintf(stderr, "minibackend: %s: %s\n", what, strerror(errno));
	exit(1);
}

static bool due(enum fault fault)
{
	return be.fault == fault && ++be.chances % FAULT_EVERY == 0;
}

/* --- Xenstore ------------------------------------------------------------------ */

static void put(const char *dir, const char *key, const char *value)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	if (!xs_write(be.xs, XBT_NULL, path, value,
		      (unsigned int)strlen(value)))
		die(path);
}

static void put_number(const char *dir, const char *key, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	put(dir, key, text);
}

static char *get(const char *dir, const char *key)
{
	char path[256];
	unsigned int len;

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	return xs_read(be.xs, XBT_NULL, path, &len);
}

static unsigned int get_number(const char *dir, const char *key,
			       unsigned int otherwise)
{
	char *text = get(dir, key);
	unsigned int value = text ? (unsigned int)strtoul(text, NULL, 10) :
				    otherwise;

	free(text);
	return value;
}

static void make_directory(const char *path, unsigned int owner,
			   unsigned int reader)
{
	struct xs_permissions perms[] = {
		{ .id = owner, .perms = XS_PERM_NONE },
		{ .id = reader, .perms = XS_PERM_READ },
	};

	if (!xs_mkdir(be.xs, XBT_NULL, path) ||
	    !xs_set_permissions(be.xs, XBT_NULL, path, perms, 2))
		die(path);
}

/* What libxl does when a disk is attached. */
static void attach(void)
{
	snprintf(be.front, sizeof(be.front), "/local/domain/%u/device/vbd/%u",
		 be.domid, be.devid);
	snprintf(be.back, sizeof(be.back),
		 "/local/domain/0/backend/minibackend/%u/%u", be.domid,
		 be.devid);
	if (get_number(be.front, "backend-id", 99) == 99) {
		make_directory(be.front, be.domid, 0);
		put(be.front, "backend", be.back);
		put(be.front, "backend-id", "0");
		put(be.front, "state", "1");
	}
	make_directory(be.back, 0, be.domid);
	put(be.back, "frontend", be.front);
	put(be.back, "online", "1");
	put(be.back, "state", "1");
}

static void offer(void)
{
	put_number(be.back, "max-ring-page-order", MAX_ORDER);
	put_number(be.back, "max-ring-pages", 1 << MAX_ORDER);
	put_number(be.back, "multi-queue-max-queues", MAX_QUEUES);
	if (!be.no_indirect)
		put_number(be.back, "feature-max-indirect-segments",
			   MAX_SEGMENTS);
	put_number(be.back, "sectors", be.size / SECTOR);
	put_number(be.back, "sector-size", SECTOR);
	put_number(be.back, "physical-sector-size", PAGE);
	put_number(be.back, "info", 0);
	put_number(be.back, "feature-flush-cache", 1);
	put_number(be.back, "feature-discard", 1);
	put_number(be.back, "discard-granularity", PAGE);
	put_number(be.back, "discard-alignment", 0);
	put_number(be.back, "feature-persistent", be.fault == KEEP_PAGE);
	put_number(be.back, "state", XenbusStateInitWait);
}

/* --- The disk -------------------------------------------------------------------- */

static void store(uint64_t offset, uint64_t size)
{
	if (pwrite(be.fd, be.image + offset, size, (off_t)offset) !=
	    (ssize_t)size)
		die("write");
}

/* Remembers one sector, and brings it back after 19 more writes. */
static void haunt(uint64_t offset)
{
	static uint8_t ghost[SECTOR];
	static uint64_t where;

	if (!due(GHOST_WRITE))
		return;
	if (be.chances > FAULT_EVERY)
		memcpy(be.image + where, ghost, SECTOR);
	where = offset;
	memcpy(ghost, be.image + where, SECTOR);
}

/* One segment in or out of the image, by grant copy. */
static bool copy_segment(const struct request *req, unsigned int i,
			 uint64_t offset, unsigned int sectors)
{
	const struct blkif_request_segment *s = &req->segments[i];
	bool read = req->operation == BLKIF_OP_READ;
	xengnttab_grant_copy_segment_t copy = {
		.flags = read ? GNTCOPY_dest_gref : GNTCOPY_source_gref,
		.len = (uint16_t)(sectors * SECTOR),
	};

	if (read) {
		copy.source.virt = be.image + offset;
		copy.dest.foreign.ref = s->gref;
		copy.dest.foreign.domid = (domid_t)be.domid;
		copy.dest.foreign.offset = (uint16_t)(s->first_sect * SECTOR);
	} else {
		copy.dest.virt = be.image + offset;
		copy.source.foreign.ref = s->gref;
		copy.source.foreign.domid = (domid_t)be.domid;
		copy.source.foreign.offset = (uint16_t)(s->first_sect * SECTOR);
	}
	if (read && s->last_sect < 7 && due(OVERRUN_READ))
		copy.len += 8;
	return xengnttab_grant_copy(be.gnttab, 1, &copy) == 0 &&
	       copy.status == GNTST_okay;
}

static int transfer(const struct request *req)
{
	uint64_t offset = req->sector * SECTOR;
	bool write = req->operation != BLKIF_OP_READ;

	if (write && due(FAIL_WRITE))
		return BLKIF_RSP_ERROR;
	if (write && due(LOSE_WRITE))
		return BLKIF_RSP_OKAY;
	if (write && due(MISPLACE_WRITE))
		offset = offset >= SECTOR ? offset - SECTOR : offset;
	if (!write && due(STALE_READ))
		memset(be.image + offset, 0x5a, SECTOR);
	for (unsigned int i = 0; i < req->nr_segments; i++) {
		const struct blkif_request_segment *s = &req->segments[i];
		unsigned int sectors = s->last_sect - s->first_sect + 1u;

		if (s->first_sect > s->last_sect || s->last_sect > 7 ||
		    offset + sectors * SECTOR > be.size ||
		    !copy_segment(req, i, offset, sectors))
			return BLKIF_RSP_ERROR;
		if (write && !be.is_volatile)
			store(offset, sectors * SECTOR);
		offset += sectors * SECTOR;
	}
	if (write)
		haunt(req->sector * SECTOR);
	return BLKIF_RSP_OKAY;
}

static int discard(const struct request *req)
{
	uint64_t offset = req->sector * SECTOR, size = req->nr_sectors * SECTOR;

	if (offset > be.size || size > be.size - offset)
		return BLKIF_RSP_ERROR;
	memset(be.image + offset, 0, size);
	if (!be.is_volatile)
		store(offset, size);
	return BLKIF_RSP_OKAY;
}

static int perform(const struct request *req)
{
	switch (req->operation) {
	case BLKIF_OP_READ:
	case BLKIF_OP_WRITE:
		return transfer(req);
	case BLKIF_OP_FLUSH_DISKCACHE:
		if (be.is_volatile && be.fault != EARLY_FLUSH)
			store(0, be.size);
		return BLKIF_RSP_OKAY;
	case BLKIF_OP_DISCARD:
		return discard(req);
	default:
		return BLKIF_RSP_EOPNOTSUPP;
	}
}

/* --- The ring -------------------------------------------------------------------- */

static uint8_t *slot_at(const struct queue *q, uint32_t index)
{
	return (uint8_t *)q->sring->ring + (index & (q->size - 1)) * be.slot;
}

static void parse_indirect(const uint8_t *slot, struct request *req)
{
	uint16_t count;
	uint32_t ref;
	void *page;

	memcpy(&count, slot + 2, sizeof(count));
	memcpy(&ref, slot + be.base + 20, sizeof(ref));
	req->operation = slot[1];
	if (count > MAX_SEGMENTS)
		count = 0;
	page = xengnttab_map_grant_ref(be.gnttab, be.domid, ref, PROT_READ);
	if (!page)
		die("indirect page");
	memcpy(req->segments, page, count * sizeof(req->segments[0]));
	xengnttab_unmap(be.gnttab, page, 1);
	req->nr_segments = count;
}

static void parse(const uint8_t *slot, struct request *req)
{
	req->operation = slot[0];
	req->nr_segments = 0;
	memcpy(&req->id, slot + be.base, 8);
	memcpy(&req->sector, slot + be.base + 8, 8);
	if (req->operation == BLKIF_OP_INDIRECT) {
		parse_indirect(slot, req);
	} else if (req->operation == BLKIF_OP_DISCARD) {
		memcpy(&req->nr_sectors, slot + be.base + 16, 8);
	} else if (slot[1] <= BLKIF_MAX_SEGMENTS_PER_REQUEST) {
		req->nr_segments = slot[1];
		memcpy(req->segments, slot + be.base + 16,
		       slot[1] * sizeof(req->segments[0]));
	}
}

static void put_response(struct queue *q, const struct request *req, int status)
{
	uint8_t *slot = slot_at(q, q->rsp_prod++);
	uint8_t operation = req->operation;
	uint64_t id = req->id;
	int16_t status16 = (int16_t)status;

	if (due(WRONG_ID))
		id ^= 1ull << 33;
	if (due(WRONG_OPERATION))
		operation ^= 1;
	memset(slot, 0, be.base * 2 < 16 ? 12 : 16);
	memcpy(slot, &id, 8);
	slot[8] = operation;
	memcpy(slot + 10, &status16, 2);
	if (due(DIRTY_PADDING))
		slot[9] = 0x41;
}

static void answer(struct queue *q, const struct request *req, int status)
{
	if (due(NEVER_ANSWER))
		return;
	put_response(q, req, status);
	if (due(ANSWER_TWICE))
		put_response(q, req, status);
	if (due(RUN_AHEAD))
		q->rsp_prod += q->size + 1;
}

static void serve_one(struct queue *q)
{
	static struct request req;
	uint8_t slot[112];
	void *page = NULL;

	memcpy(slot, slot_at(q, q->req_cons++), be.slot);
	parse(slot, &req);
	if (req.nr_segments > 0 && (due(STAY_MAPPED) || due(KEEP_PAGE)))
		page = xengnttab_map_grant_ref(be.gnttab, be.domid,
					       req.segments[0].gref, PROT_READ);
	answer(q, &req, perform(&req));
	(void)page; /* until the end */
}

static void serve(struct queue *q)
{
	blkif_sring_t *s = q->sring;
	uint32_t before = q->rsp_prod;

	for (;;) {
		while (q->req_cons !=
		       __atomic_load_n(&s->req_prod, __ATOMIC_ACQUIRE))
			serve_one(q);
		__atomic_store_n(&s->req_event, q->req_cons + 1,
				 __ATOMIC_SEQ_CST);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (q->req_cons ==
		    __atomic_load_n(&s->req_prod, __ATOMIC_ACQUIRE))
			break;
	}
	__atomic_store_n(&s->rsp_prod, q->rsp_prod, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->rsp_prod - __atomic_load_n(&s->rsp_event, __ATOMIC_ACQUIRE) <
	    q->rsp_prod - before)
		xenevtchn_notify(be.evtchn, q->port);
}

/* --- The handshake ----------------------------------------------------------------- */

static void connect_queue(struct queue *q, const char *dir, unsigned int pages)
{
	uint32_t refs[1 << MAX_ORDER];
	unsigned int fit = (pages * PAGE - 64) / be.slot;
	int port;

	for (unsigned int i = 0; i < pages; i++) {
		char key[16];

		snprintf(key, sizeof(key), "ring-ref%u", i);
		refs[i] = get_number(dir, pages == 1 ? "ring-ref" : key, 0);
	}
	*q = (struct queue){ .pages = pages, .size = 1 };
	while (q->size * 2 <= fit)
		q->size *= 2;
	q->sring = xengnttab_map_domain_grant_refs(
		be.gnttab, pages, be.domid, refs, PROT_READ | PROT_WRITE);
	if (!q->sring)
		die("ring");
	port = xenevtchn_bind_interdomain(be.evtchn, be.domid,
					  get_number(dir, "event-channel", 0));
	if (port < 0)
		die("event channel");
	q->port = (evtchn_port_t)port;
}

static void connect_front(void)
{
	char *protocol = get(be.front, "protocol");
	unsigned int pages = get_number(be.front, "num-ring-pages", 1);
	unsigned int order = get_number(be.front, "ring-page-order", 0);
	char dir[160];

	be.base = 8;
	if (protocol && strcmp(protocol, XEN_IO_PROTO_ABI_X86_32) == 0)
		be.base = 4;
	free(protocol);
	be.slot = be.base == 4 ? 108 : 112;
	if (order > 0)
		pages = 1u << order;
	be.nr_queues = get_number(be.front, "multi-queue-num-queues", 1);
	if (pages > 1 << MAX_ORDER || be.nr_queues > MAX_QUEUES)
		die("shape of the rings");
	for (unsigned int i = 0; i < be.nr_queues; i++) {
		snprintf(dir, sizeof(dir), "%s/queue-%u", be.front, i);
		connect_queue(&be.queues[i], be.nr_queues == 1 ? be.front : dir,
			      pages);
	}
	be.connected = true;
	put_number(be.back, "state", XenbusStateConnected);
}

static void disconnect_front(void)
{
	for (unsigned int i = 0; be.connected && i < be.nr_queues; i++) {
		xenevtchn_unbind(be.evtchn, be.queues[i].port);
		if (be.fault != KEEP_RING)
			xengnttab_unmap(be.gnttab, be.queues[i].sring,
					be.queues[i].pages);
	}
	be.connected = false;
}

static void follow_front(void)
{
	static unsigned int last;
	unsigned int state = get_number(be.front, "state", 0);

	if (state == last)
		return;
	last = state;
	switch (state) {
	case XenbusStateInitialising:
		offer();
		break;
	case XenbusStateInitialised:
		connect_front();
		break;
	case XenbusStateClosing:
		put_number(be.back, "state", XenbusStateClosing);
		break;
	case XenbusStateClosed:
		disconnect_front();
		put_number(be.back, "state", XenbusStateClosed);
		break;
	}
}

static void on_event(void)
{
	int port = xenevtchn_pending(be.evtchn);

	for (unsigned int i = 0; be.connected && i < be.nr_queues; i++)
		if (port >= 0 && be.queues[i].port == (evtchn_port_t)port)
			serve(&be.queues[i]);
	if (port >= 0)
		xenevtchn_unmask(be.evtchn, (evtchn_port_t)port);
}

static void run(void)
{
	struct pollfd pfds[] = {
		{ .fd = xs_fileno(be.xs), .events = POLLIN },
		{ .fd = xenevtchn_fd(be.evtchn), .events = POLLIN },
	};
	char path[160], **event;

	snprintf(path, sizeof(path), "%s/state", be.front);
	if (!xs_watch(be.xs, path, "front"))
		die("watch");
	for (;;) {
		while ((event = xs_check_watch(be.xs))) {
			free(event);
			follow_front();
		}
		if (poll(pfds, 2, -1) > 0 && pfds[1].revents)
			on_event();
	}
}

static void open_image(const char *path)
{
	struct stat st;

	be.fd = open(path, O_RDWR | O_CLOEXEC);
	if (be.fd < 0 || fstat(be.fd, &st) < 0)
		die(path);
	be.size = (uint64_t)st.st_size;
	be.image = malloc(be.size);
	if (!be.image || pread(be.fd, be.image, be.size, 0) != st.st_size)
		die(path);
}

static bool take_option(const char *option, const char *value)
{
	if (strcmp(option, "--volatile") == 0)
		be.is_volatile = true;
	else if (strcmp(option, "--no-indirect") == 0)
		be.no_indirect = true;
	else if (strcmp(option, "--fault") == 0 && value)
		for (size_t i = 0;
		     i < sizeof(fault_names) / sizeof(fault_names[0]); i++) {
			if (strcmp(fault_names[i], value) == 0)
				be.fault = (enum fault)i;
		}
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	int i;

	for (i = 4; i < argc; i++) {
		if (!take_option(argv[i], argv[i + 1]))
			break;
		i += strcmp(argv[i], "--fault") == 0;
	}
	if (argc < 4 || i < argc) {
		fprintf(stderr,
			"usage: minibackend FILE DOMID DEVID "
			"[--volatile] [--no-indirect] [--fault NAME]\n");
		return 2;
	}
	open_image(argv[1]);
	be.domid = (uint32_t)strtoul(argv[2], NULL, 10);
	be.devid = (uint32_t)strtoul(argv[3], NULL, 10);
	be.xs = xs_open(0);
	be.gnttab = xengnttab_open(NULL, 0);
	be.evtchn = xenevtchn_open(NULL, 0);
	if (!be.xs || !be.gnttab || !be.evtchn)
		die("open");
	attach();
	puts("ready");
	fflush(stdout);
	run();
}
