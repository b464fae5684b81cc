/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stand-in hypervisor: state in shared memory, and the calls on it.
 *
 * Theory of operation
 *
 * There is no hypervisor process.  The machine is one sparse tmpfs file that
 * every process maps: first the state below, then the machine's memory, handed
 * out in 4 KiB frames.  What Xen would do in a hypercall, or Linux in an
 * ioctl, the calling process does to that state:
 *
 *  - Slow paths (create, bind, close, map, unmap) hold one robust mutex.
 *  - Grant copy and event sending take no lock and, apart from waking a
 *    sleeper, make no system call.  A grant entry is one atomic word, so is
 *    the link between two ports.  Frames are not reused before every grant
 *    copy that was under way has ended (hv_frame_put: each thread in a copy
 *    shows an odd number in its handle).
 *  - A handle stands for one open device (/dev/xen/gntdev, /dev/xen/evtchn) or
 *    one events object of a guest.  Like a device it lives as long as its open
 *    file description: each holds an OFD lock, and whoever finds that the lock
 *    is gone reaps it (closes its ports, drops its maps).
 *  - Events reach a backend through a FIFO per handle, which carries port
 *    numbers as reading /dev/xen/evtchn does, and a guest through a futex or
 *    an eventfd (hv-bell.c).  A process that has locked itself down may thus
 *    send to any guest, new ones too, and only guests (never locked down) open
 *    other processes' FIFOs.
 *
 * The library calls that a locked-down process may make need only mmap,
 * munmap, read, write, futex, fcntl, close and madvise; the open calls also
 * openat, mknodat, fstat and unlink.
 */
#ifndef XENSIM_HV_H
#define XENSIM_HV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim.h"

#define HV_MAGIC       0x6d6973786e656e64ull
#define HV_VERSION     1u
#define HV_DOMAINS     1024u
#define HV_DOMIDS      0x7ff0u /* DOMID_FIRST_RESERVED */
#define HV_GRANTS      32768u /* 64 frames of version 1 entries */
#define HV_GRANT_FRAME 512u /* entries by which a table grows */
#define HV_GRANT_FIRST 8u /* GNTTAB_NR_RESERVED_ENTRIES */
#define HV_PORTS       8192u
#define HV_VIRQS       24u
#define HV_HANDLES     4096u
#define HV_MAPPINGS    65536u
#define HV_COPIERS     8u
#define HV_NONE	       UINT32_MAX

/*
 * A grant entry.  Zero: not in use.  Pins count maps, as the hypervisor's
 * GTF_reading and GTF_writing do; an entry with pins cannot be ended.
 */
#define HV_GRANT_DOMID(w)    ((uint32_t)(w)&0xffff)
#define HV_GRANT_PERMIT	     (1ull << 16)
#define HV_GRANT_READONLY    (1ull << 17)
#define HV_GRANT_PIN	     (1ull << 18)
#define HV_GRANT_PIN_MASK    (0x3fffull << 18)
#define HV_GRANT_PINS(w)     ((uint32_t)(((w)&HV_GRANT_PIN_MASK) >> 18))
#define HV_GRANT_FRAME_OF(w) ((uint32_t)((w) >> 32))

/* A port's link: state, remote slot and remote port in one word. */
#define HV_LINK(state, slot, port) \
	((uint64_t)(port) << 32 | (uint64_t)(slot) << 8 | (uint64_t)(state))
#define HV_LINK_STATE(l) ((enum xensim_evtchn_state)((l)&0xff))
#define HV_LINK_SLOT(l)	 ((uint32_t)((l) >> 8) & 0xffff)
#define HV_LINK_PORT(l)	 ((uint32_t)((l) >> 32))

#define HV_PORT_PENDING 1u
#define HV_PORT_MASKED	2u

struct hv_port {
	_Atomic uint64_t link;
	_Atomic uint32_t bits;
	_Atomic uint32_t owner; /* serial of the handle it is bound to */
	uint32_t owner_index;
	uint32_t remote_domid; /* for which it is unbound */
	uint32_t virq;
};

enum hv_store { HV_STORE_NONE, HV_STORE_WANTED, HV_STORE_READY };

enum hv_domain_state { HV_DOMAIN_FREE, HV_DOMAIN_LIVE, HV_DOMAIN_DYING };

struct hv_domain {
	_Atomic uint32_t state;
	uint32_t domid;
	uint32_t generation;
	uint32_t shutdown; /* 1 + reason */
	uint8_t uuid[16];
	uint32_t pages;
	uint32_t mappings; /* of its frames, by anybody */
	_Atomic uint32_t store; /* enum hv_store: its xenstore connection */
	_Atomic uint32_t nr_grants; /* the table's present size */
	_Atomic uint32_t grant_hint;
	uint32_t nr_ports; /* ports ever used are below */
	_Atomic uint64_t bell; /* the slot's, and stays; 0: none (hv-bell.c) */
	uint32_t listener; /* serial of the handle that may sleep in it */
	uint32_t listener_index;
	uint32_t virqs[HV_VIRQS];
	_Atomic uint64_t grants[HV_GRANTS];
	struct hv_port ports[HV_PORTS];
};

enum hv_kind {
	HV_FREE,
	HV_GNTTAB,
	HV_EVENTS_FIFO, /* a FIFO carries port numbers */
	HV_EVENTS_CLOSED, /* a FIFO's name that nobody removed yet */
	HV_EVENTS_FUTEX, /* bits below, and a futex or the domain's bell */
};

struct hv_handle {
	_Atomic uint32_t kind;
	_Atomic uint32_t serial; /* never used twice */
	pid_t pid; /* who opened it; for people */
	uint32_t slot; /* the calling domain */
	uint32_t generation;
	uint32_t restricted; /* to this domid, or HV_NONE */
	uint64_t inode; /* of the FIFO */
	_Atomic uint32_t copiers[HV_COPIERS]; /* odd: a grant copy runs */
	_Atomic uint32_t doorbell;
	_Atomic uint32_t waiting; /* in the futex */
	_Atomic uint32_t listening; /* in the bell */
	_Atomic uint32_t deaf; /* somebody could not ring the bell */
	_Atomic uint32_t kicked;
	_Atomic uint64_t summary[HV_PORTS / 64 / 64];
	_Atomic uint64_t pending[HV_PORTS / 64];
};

/* One page mapped through a handle.  The truth that all counts derive from. */
struct hv_mapping {
	uint32_t handle; /* HV_NONE: unused */
	uint32_t slot;
	uint32_t ref;
	uint32_t frame;
	uint32_t notify_offset; /* HV_NONE: none */
	uint32_t notify_port; /* HV_NONE: none */
};

struct hv_frame {
	uint16_t owner; /* slot + 1; 0: free */
	uint16_t freed; /* by its owner, but still mapped */
	uint32_t mappings;
};

struct hv_header {
	uint64_t magic;
	uint32_t version;
	uint32_t nr_frames;
	uint64_t memory_offset;
	uint64_t size;
};

struct hv_shared {
	struct hv_header header;
	pthread_mutex_t lock;
	uint32_t next_serial;
	uint32_t next_generation;
	uint32_t next_domid;
	uint32_t next_frame;
	uint32_t next_mapping;
	uint32_t nr_handles; /* handles ever used are below */
	uint32_t nr_mappings;
	_Atomic pid_t server; /* 0: none yet */
	_Atomic uint32_t server_bell;
	_Atomic uint32_t server_done;
	_Atomic uint64_t counters[sizeof(struct xensim_counters) / 8];
	_Atomic uint16_t slot_of[HV_DOMIDS]; /* slot + 1 */
	struct hv_mapping mappings[HV_MAPPINGS];
	struct hv_handle handles[HV_HANDLES];
	struct hv_domain domains[HV_DOMAINS];
	struct hv_frame frames[]; /* nr_frames, then memory */
};

struct hv_writer {
	uint32_t serial;
	int fd;
};

/* This process's view of a machine. */
struct hv {
	struct hv *next;
	unsigned users;
	struct hv_shared *shared;
	uint8_t *memory;
	int fd;
	pthread_mutex_t writer_lock;
	struct hv_writer *writers; /* FIFOs of others, by handle index */
	_Atomic int bells[HV_DOMAINS]; /* by slot: a descriptor + 1; 0: none */
	char dir[];
};

/* An open device. */
struct hv_device {
	struct hv *hv;
	uint32_t index; /* of the handle */
	uint32_t serial; /* the handle is ours while this matches */
	int fd; /* carries the OFD lock; the FIFO of events */
	bool adopted; /* by hv_device_adopt() */
	bool listener; /* may sleep in the domain's bell */
};

/* --- hv-machine.c --------------------------------------------------------- */

/* Make the machine file in an existing directory; domain 0 lives in it. */
int hv_create(const char *dir, uint64_t memory_bytes);

/* One view per process and directory; dir NULL: $XENSIM_DIR. */
int hv_open(const char *dir, struct hv **ret_hv);
void hv_close(struct hv *hv);

void hv_lock(struct hv *hv);
void hv_unlock(struct hv *hv);

/* Open and close a handle for the domain in `slot`. */
int hv_device_open(struct hv *hv, enum hv_kind kind, uint32_t slot,
		   struct hv_device *ret_dev);
/* A second device on an open FIFO that came from elsewhere. */
int hv_device_adopt(struct hv *hv, int fd, struct hv_device *ret_dev);
void hv_device_close(struct hv_device *dev);
struct hv_handle *hv_device_handle(const struct hv_device *dev);

/*
 * Close what dead processes left open.  Opens files, so it is not for a
 * process that may have locked itself down: that one asks the server.
 */
void hv_reap(struct hv *hv);

/*
 * The machine's server (serve.c) reaps, introduces new domains to xenstored
 * and drops dead ones when its bell is rung.  hv_server_ask() also waits until
 * it has done so; -ETIMEDOUT, also when there is no server.
 */
void hv_server_ring(struct hv *hv);
int hv_server_ask(struct hv *hv, int timeout_ms);
/* For the server: wait for the bell; what to say to hv_server_done() then. */
uint32_t hv_server_wait(struct hv *hv);
void hv_server_done(struct hv *hv, uint32_t bell);

/* Locked.  Does any process hold the handle open? */
bool hv_handle_alive(struct hv *hv, uint32_t index);

/* The write end of a handle's FIFO, cached; negative errno. */
int hv_writer(struct hv *hv, uint32_t index, uint32_t serial);

void hv_count(struct hv *hv, size_t counter, uint64_t n);
#define HV_COUNT(hv, name, n) \
	hv_count(hv, offsetof(struct xensim_counters, name) / 8, n)

/* --- hv-bell.c ------------------------------------------------------------ */

/* The server's part, whenever its bell was rung: make bells, ring for others. */
void hv_bell_serve(struct hv *hv);
/*
 * Get hold of the slot's bell, to ring it from this process; negative errno.
 * Opens files, so it is not for a process that has locked itself down.
 */
int hv_bell_fetch(struct hv *hv, uint32_t slot);
/* Let a futex device sleep in its domain's bell, if that can be.  Opens files. */
void hv_bell_claim(struct hv_device *dev);
/* Wake whoever sleeps in the bell for this handle. */
void hv_bell_ring(struct hv *hv, struct hv_handle *h);
/* True: sleep, unless something has come, and rest; false: use the futex. */
bool hv_bell_listen(struct hv_device *dev);
int hv_bell_sleep(struct hv_device *dev, int timeout_ms);
void hv_bell_rest(struct hv_device *dev);

/* --- hv-domain.c ---------------------------------------------------------- */

/* A live domain's slot, or HV_NONE. */
uint32_t hv_domain_find(struct hv *hv, uint32_t domid);
/* The one this process runs in: XENSIM_DOMID (a driver domain), or 0. */
uint32_t hv_domain_self(struct hv *hv);
static inline struct hv_domain *hv_domain(struct hv *hv, uint32_t slot)
{
	return &hv->shared->domains[slot];
}

int hv_domain_create(struct hv *hv, uint32_t domid, const uint8_t uuid[16],
		     uint32_t *ret_slot);
int hv_domain_destroy(struct hv *hv, uint32_t domid);
int hv_domain_shutdown(struct hv *hv, uint32_t domid, unsigned reason);
/* Locked.  Free the slot of a dying domain that nothing maps any more. */
void hv_domain_check_gone(struct hv *hv, uint32_t slot);
/* Domain infos from `first` up, dying ones too. */
int hv_domain_list(struct hv *hv, uint32_t first,
		   struct xensim_domain_info *infos, int max);

/* --- hv-memory.c ---------------------------------------------------------- */

/* Locked.  A run of zeroed frames. */
int hv_frames_alloc(struct hv *hv, uint32_t slot, uint32_t count,
		    uint32_t *ret_frame);
/* Locked.  Wait out the grant copies under way, then free. */
void hv_frames_free(struct hv *hv, uint32_t frame, uint32_t count);
/* Locked.  Free all frames of a domain that nothing maps. */
void hv_frames_free_all(struct hv *hv, uint32_t slot);

static inline uint8_t *hv_frame_ptr(struct hv *hv, uint32_t frame)
{
	return hv->memory + (size_t)frame * XENSIM_PAGE_SIZE;
}

/* --- hv-grant.c ----------------------------------------------------------- */

/* A GNTST_* status, and where the page is when it is GNTST_okay. */
int hv_grant_lookup(struct hv *hv, uint32_t caller, uint32_t domid,
		    uint32_t ref, bool write, uint32_t *ret_frame);

/* Write an entry; HV_NONE: the first free one. */
int hv_grant_set(struct hv *hv, uint32_t slot, uint32_t ref, uint32_t domid,
		 uint32_t frame, bool readonly, uint32_t *ret_ref);
int hv_grant_end(struct hv *hv, uint32_t slot, uint32_t ref);

/* Pin a grant for a mapping; GNTST_* status. */
int hv_grant_map(struct hv_device *dev, uint32_t domid, uint32_t ref,
		 bool write, uint32_t *ret_mapping);
void hv_grant_unmap(struct hv *hv, uint32_t mapping);
/* Locked.  Drop all mappings of a handle. */
void hv_grant_unmap_all(struct hv *hv, uint32_t handle);
/* Locked.  Rebuild the counts that derive from the mappings. */
void hv_grant_recount(struct hv *hv);

/* --- hv-evtchn.c ---------------------------------------------------------- */

int hv_evtchn_alloc_unbound(struct hv_device *dev, uint32_t remote_domid,
			    uint32_t *ret_port);
int hv_evtchn_bind_interdomain(struct hv_device *dev, uint32_t remote_domid,
			       uint32_t remote_port, uint32_t *ret_port);
int hv_evtchn_bind_virq(struct hv_device *dev, uint32_t virq,
			uint32_t *ret_port);
/* Is this a port of the device? */
bool hv_evtchn_owned(const struct hv_device *dev, uint32_t port);
void hv_evtchn_close(struct hv *hv, uint32_t slot, uint32_t port);
/* -EINVAL: not a bound or unbound port at all; 1: dropped, nobody there. */
int hv_evtchn_send(struct hv *hv, uint32_t slot, uint32_t port);
void hv_evtchn_unmask(struct hv *hv, uint32_t slot, uint32_t port);
/* Locked.  Close all ports of a handle, or of a whole domain. */
void hv_evtchn_close_handle(struct hv *hv, uint32_t handle);
void hv_evtchn_close_domain(struct hv *hv, uint32_t slot);
/* Locked or not.  Raise a virtual interrupt of domain 0. */
void hv_evtchn_virq(struct hv *hv, uint32_t virq);
/* Take one event of a futex device: -EAGAIN when there is none. */
int hv_evtchn_take(struct hv_device *dev, uint32_t *ret_port);
/* Sleep until there may be one; -ETIMEDOUT, -EINTR (kicked, too). */
int hv_evtchn_sleep(struct hv_device *dev, int timeout_ms);
void hv_evtchn_kick(struct hv_device *dev);
/* Sleep until the doorbell differs from *seen, which becomes its value. */
void hv_evtchn_wait_ring(struct hv_device *dev, uint32_t *seen);

#endif
