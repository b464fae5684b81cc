/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated machine, as the toolstack and the guests see it.
 *
 * A machine is one directory (XENSIM_DIR, on a tmpfs) that `xensim start`
 * makes: guest memory, grant tables and event channels in shared memory, and
 * the real xenstored beside it.  Backends never include this header: they use
 * libxengnttab and libxenevtchn, whose drop-in replacements act on the same
 * machine.  This is the other end of the wire: what a domain builder and a
 * guest's kernel ask of Xen.
 *
 * Errors are negative errno values; outputs are untouched on failure.  Unless
 * a comment says otherwise a function may be called from any thread, and a
 * guest may have any number of threads.  Link with libxensim.a, libxenstore
 * and pthread.
 *
 * A guest ends in one of three shapes:
 *  - its process dies: the kernel stopped but the domain lives.  Xenstore keys
 *    and grants stay; its event channels close, the backend's ends of them
 *    become unbound.  xensim_guest_close() is the same, done politely.
 *  - xensim_domain_destroy(): the domain goes and xenstored fires
 *    @releaseDomain.  What a backend still has mapped stays valid until it is
 *    unmapped, and the domain id stays taken (dying) until then.
 *  - kexec: a second xensim_guest_open() on the same domain, after or even
 *    without xensim_guest_close().  Grants of the old kernel stay granted, new
 *    ones get other references.
 */
#ifndef XENSIM_SIM_H
#define XENSIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XENSIM_PAGE_SIZE 4096u

struct xs_handle;

/* --- The machine ----------------------------------------------------------- */

struct xensim;

/*
 * Join the machine in `dir` (NULL: the one named by XENSIM_DIR).
 * -ENOENT: there is none; -EPROTO: made by another version of this code.
 * A process may join several machines, and one machine several times.
 */
int xensim_open(const char *dir, struct xensim **ret_machine);
void xensim_close(struct xensim *m);

/* The machine's directory. */
const char *xensim_dir(const struct xensim *m);

/* A xenstore connection as dom0; NULL and errno on failure. */
struct xs_handle *xensim_xs_open(struct xensim *m);

/* --- Domains: the toolstack's side ------------------------------------------ */

struct xensim_domain_config {
	uint32_t domid; /* 0: the first free one */
	const char *name; /* NULL: "sim-DOMID" */
	const char *uuid; /* NULL: a random one */
};

/*
 * Create a domain as libxl does: memory, grant table, its xenstore ring made
 * known to xenstored, /local/domain/ID and /vm/UUID with libxl's keys and
 * permissions.  -EEXIST: the id is taken (perhaps by a dying domain).
 */
int xensim_domain_create(struct xensim *m,
			 const struct xensim_domain_config *config,
			 uint32_t *ret_domid);

/*
 * The hypervisor's part only: no xenstore at all.  For tests of the simulator
 * itself, which need no xenstored.
 */
int xensim_domain_create_bare(struct xensim *m, uint32_t domid,
			      uint32_t *ret_domid);

/*
 * Destroy at the level of the hypervisor: ports close, grants end, xenstored
 * learns of it and fires @releaseDomain.  Xenstore keys under /local/domain/ID
 * stay, as they do when nobody cleans up; xensim_domain_forget() removes them.
 */
int xensim_domain_destroy(struct xensim *m, uint32_t domid);

/* Remove /local/domain/ID, /libxl/ID and /vm/UUID, as libxl's last step does. */
int xensim_domain_forget(struct xensim *m, uint32_t domid);

/* The guest has shut itself down (a SHUTDOWN_* reason); the domain stays. */
int xensim_domain_shutdown(struct xensim *m, uint32_t domid, unsigned reason);

struct xensim_domain_info {
	uint32_t domid;
	uint32_t generation; /* differs between two domains of one id */
	bool dying; /* destroyed, but something is still mapped */
	bool shutdown;
	unsigned shutdown_reason;
	uint32_t pages; /* owned, the mapped ones of a dying domain too */
	uint32_t grants; /* references in use */
	uint32_t grants_mapped; /* of these, mapped by somebody right now */
};

/*
 * -ESRCH: no such domain.  Counts are exact: what dead processes had mapped
 * is cleared first.
 */
int xensim_domain_info(struct xensim *m, uint32_t domid,
		       struct xensim_domain_info *ret_info);

/* Infos of the domains from `first` up, at most `max`; how many were written. */
int xensim_domain_list(struct xensim *m, uint32_t first,
		       struct xensim_domain_info *infos, int max);

/* --- A guest: the kernel inside a domain ------------------------------------ */

struct xensim_guest;

/* Become the kernel of a live domain.  -ESRCH: no such domain, or dying. */
int xensim_guest_open(struct xensim *m, uint32_t domid,
		      struct xensim_guest **ret_guest);

/*
 * Stop being it: this guest's event channels close and its events objects
 * end.  Its pages and grants stay the domain's, and become unreachable.
 */
void xensim_guest_close(struct xensim_guest *g);

uint32_t xensim_guest_domid(const struct xensim_guest *g);

/* False once the domain was destroyed. */
bool xensim_guest_alive(const struct xensim_guest *g);

/*
 * Xenstore with the identity of this domain: requests travel through the
 * domain's own ring, permissions are the real ones, relative paths are under
 * /local/domain/ID.  Any number of connections.  NULL and errno on failure.
 * The environment variable XENSTORED_PATH is changed for a moment; the lock
 * around that is internal, other threads must not call getenv/setenv freely.
 */
struct xs_handle *xensim_guest_xs_open(struct xensim_guest *g);

/* --- Memory ------------------------------------------------------------------ */

/*
 * `count` zeroed pages, contiguous at the address returned, owned by the
 * domain.  NULL and errno: ENOMEM when the machine has no such run left,
 * ESRCH when the domain is gone.
 */
void *xensim_alloc_pages(struct xensim_guest *g, unsigned count);

/*
 * Give pages back.  Grants of them must have ended before.  A page that a
 * backend still has mapped is taken out of use at once and freed with the
 * last unmap.
 */
void xensim_free_pages(struct xensim_guest *g, void *addr, unsigned count);

/* --- The grant table (version 1) --------------------------------------------- */

/*
 * Let `domid` access the page that contains `page` (from xensim_alloc_pages).
 * References below 8 are never given out, as in Linux.  -ENOSPC: table full
 * (32768 references), -EINVAL: not a page of this domain.
 */
int xensim_grant(struct xensim_guest *g, uint32_t domid, const void *page,
		 bool readonly, uint32_t *ret_ref);

/*
 * Write one chosen entry of the table, whatever was there (but a mapped entry
 * refuses: -EBUSY).  What a hostile kernel, or one after kexec, may do.
 */
int xensim_grant_at(struct xensim_guest *g, uint32_t ref, uint32_t domid,
		    const void *page, bool readonly);

/*
 * End access.  -EBUSY: somebody has it mapped; it then stays granted, as table
 * version 1 has it.  -ENOENT: the reference is not in use.
 *
 * A grant copy that is under way does not refuse this (in Xen it does): the
 * copy may still land in the page until the call that does it has returned.
 */
int xensim_grant_end(struct xensim_guest *g, uint32_t ref);

/* Is this reference mapped right now?  Maps of dead processes do not count. */
bool xensim_grant_mapped(struct xensim_guest *g, uint32_t ref);

/* How many references of this domain are mapped right now. */
unsigned xensim_grants_mapped(struct xensim_guest *g);

/* --- Event channels ----------------------------------------------------------- */

/*
 * An events object collects the events of the ports bound to it; typically one
 * per queue thread, or one for the whole guest.
 */
struct xensim_events;

int xensim_events_open(struct xensim_guest *g, struct xensim_events **ret_ev);

/* Closes its ports too. */
void xensim_events_close(struct xensim_events *ev);

/* A new unbound port, to which `remote_domid` may bind. */
int xensim_evtchn_alloc_unbound(struct xensim_events *ev, uint32_t remote_domid,
				uint32_t *ret_port);

/*
 * Bind to a port that `remote_domid` holds unbound for us.  The new port is
 * pending at once, as in Xen.  -EINVAL: it is not unbound for us.
 */
int xensim_evtchn_bind(struct xensim_events *ev, uint32_t remote_domid,
		       uint32_t remote_port, uint32_t *ret_port);

/*
 * Send.  0 also when nobody is bound at the other end: Xen drops the event.
 * -EINVAL: not a port of this domain.
 */
int xensim_evtchn_send(struct xensim_guest *g, uint32_t port);

/* Close: the other end becomes unbound for this domain, and gets no event. */
int xensim_evtchn_close(struct xensim_guest *g, uint32_t port);

/*
 * Wait for the next event.  Taking it clears it: an event that comes later is
 * reported again, several that came before are one.  timeout_ms < 0: for ever,
 * 0: only look.  -ETIMEDOUT; -EINTR.  One thread at a time per events object.
 */
int xensim_events_wait(struct xensim_events *ev, int timeout_ms,
		       uint32_t *ret_port);

/*
 * Wake a thread out of xensim_events_wait() from another thread: it returns
 * -EINTR.
 */
void xensim_events_kick(struct xensim_events *ev);

/*
 * A descriptor that is readable when events wait; call xensim_events_wait(ev,
 * 0, ...) until -ETIMEDOUT then, which resets it.  The first call starts a
 * thread that turns wake-ups into an eventfd: one hop more than
 * xensim_events_wait(), so do not measure latency through it.
 */
int xensim_events_fd(struct xensim_events *ev);

enum xensim_evtchn_state {
	XENSIM_EVTCHN_FREE,
	XENSIM_EVTCHN_UNBOUND, /* waiting for remote_domid */
	XENSIM_EVTCHN_INTERDOMAIN, /* bound to remote_domid, remote_port */
	XENSIM_EVTCHN_VIRQ,
};

struct xensim_evtchn_status {
	enum xensim_evtchn_state state;
	uint32_t remote_domid;
	uint32_t remote_port;
	bool pending;
	bool masked;
};

/* The state of any domain's port, dead processes' ends closed first. */
int xensim_evtchn_status(struct xensim *m, uint32_t domid, uint32_t port,
			 struct xensim_evtchn_status *ret_status);

/* --- What the backends did ------------------------------------------------------ */

struct xensim_counters {
	uint64_t map_calls; /* successful maps, and the pages in them */
	uint64_t map_pages;
	uint64_t unmap_calls;
	uint64_t copy_calls; /* calls, segments and bytes of grant copy */
	uint64_t copy_segments;
	uint64_t copy_bytes;
	uint64_t copy_failures; /* segments whose status was not okay */
	uint64_t events_sent; /* by backends, to bound ports */
	uint64_t events_dropped; /* by backends, nobody at the other end */
	uint64_t refusals; /* calls that Xen or Linux would have refused */
};

/* Totals since the machine started, of live and dead processes. */
void xensim_counters(struct xensim *m, struct xensim_counters *ret_counters);

#endif
