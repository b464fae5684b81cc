/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd.c - the xenbus handshake of one disk.  See vbd-private.h for the parts.
 *
 * vbd_look() is where everything happens.  It reads the two states, finds the
 * action in the table (vbd-states.def) and runs it; an action makes at most one
 * step, of the worker (target.h) or of the backend's state, whose end brings
 * the next look.  Whatever may matter to a disk only sets its mark: a write to
 * xenstore, the worker, the hotplug script, the end of any domain.
 *
 * The backend's state is written by vbd_step() alone, in a transaction that gives
 * up when it is not what the look has seen: the toolstack writes it too.
 * "Connected" is written by act_connect() alone, when the worker has the rings.
 *
 * Who drives the directory: xen-blkback, if loaded, gets every new node in
 * backend/vbd before us.  Until the hotplug script's call has taken the device
 * from it, all that is changed here is that the guest loses its permission to
 * read `params`.
 *
 * A guest that writes its state in a loop is looked at LOOKS_PER_S times a
 * second; that delays nobody but itself.
 */
#include <event2/event.h>
#include <string.h>
#include <xen/io/xenbus.h>

#include "broker/blkback.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/frontend.h"
#include "broker/vbd-private.h"
#include "broker/vbd-states.h"

/* A disk that comes and goes takes about 10 looks each way. */
#define LOOKS_PER_S 20
#define LOOK_NS	    (1000000000ull / LOOKS_PER_S)
#define LOOK_BURST  40
/* xen-blkback takes a new device at once.  What it has not taken by then it
 * does not want, and libxl waits 10 s for somebody. */
#define BLKBACK_WAIT_MS 2000
#define PLACE_WAIT_MS	500

/* --- Looking, but not too often ------------------------------------------- */

void vbd_look_in(struct vbd *vbd, unsigned int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000,
			      .tv_usec = (ms % 1000) * 1000 };

	(void)event_add(vbd->again, &tv);
}

/* Each look is paid for with LOOK_NS; LOOK_BURST may be owed. */
static bool may_look(struct vbd *vbd)
{
	uint64_t now = now_ns();

	if (vbd->looks_paid > now + LOOK_BURST * LOOK_NS)
		return false;
	vbd->looks_paid = MAX(vbd->looks_paid, now) + LOOK_NS;
	return true;
}

static void on_change(void *ctx)
{
	struct vbd *vbd = ctx;

	if (may_look(vbd))
		vbd_look(vbd);
	else if (!event_pending(vbd->again, EV_TIMEOUT, NULL))
		vbd_look_in(vbd, 1000 / LOOKS_PER_S);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	on_change(arg);
}

static void on_target_change(void *ctx)
{
	vbd_touch(ctx);
}

void vbd_touch(struct vbd *vbd)
{
	store_mark_set(vbd->mark);
}

void vbd_set_adrift(struct vbd *vbd)
{
	vbd->adrift = target_link(vbd->target) != TARGET_DOWN;
}

/* --- Reading -------------------------------------------------------------- */

void vbd_set_backend_state(struct vbd *vbd, int state)
{
	vbd->backend_state = state;
	if (state > XenbusStateInitialising)
		vbd->begun = true;
}

static int read_backend(struct vbd *vbd)
{
	uint32_t state = XenbusStateUnknown, online = 0;
	cleanup_free char *frontend = NULL;
	int r = store_read(vbd->store, vbd->path, "frontend", &frontend);

	if (r < 0)
		return r;
	r = store_read_u32(vbd->store, vbd->path, "state",
			   XenbusStateReconfigured, &state);
	if (r == 0 || r == -ENOENT || r == -EINVAL)
		r = store_read_u32(vbd->store, vbd->path, "online", 1, &online);
	if (r < 0 && r != -ENOENT && r != -EINVAL)
		return r;
	vbd_set_backend_state(vbd, (int)state);
	vbd->online = online;
	return 0;
}

/* A domain that was destroyed may leave its frontend behind.  Only dom0 may
 * ask for that, and elsewhere the keys must do. */
static int read_frontend(struct vbd *vbd)
{
	bool alive = true;
	int state = XenbusStateUnknown;
	int r = frontend_state(vbd->store, vbd->frontend, &state);

	if (r == 0 && vbd->at.domid != vbd->id.backend_domid)
		r = store_domain_alive(vbd->store, vbd->at.domid, &alive);
	if (r < 0 && r != -EACCES)
		return r;
	vbd->domain_ended = !alive;
	vbd->frontend_state = alive ? state : XenbusStateClosed;
	return 0;
}

static int read_states(struct vbd *vbd)
{
	int backend = vbd->backend_state, frontend = vbd->frontend_state;
	int r = read_backend(vbd);

	if (r == 0)
		r = read_frontend(vbd);
	if (r == 0 &&
	    (backend != vbd->backend_state || frontend != vbd->frontend_state))
		log_guest(&vbd->who, LOG_LEVEL_DEBUG, "backend %s, frontend %s",
			  vbd_state_name(vbd->backend_state),
			  vbd_state_name(vbd->frontend_state));
	return r;
}

/*
 * The frontend's state for the table.  One that was connected and is on its
 * way again, without a Closed that we have seen, has begun anew with other
 * rings: as if it had been caught in Initialising.
 */
static int effective_frontend(struct vbd *vbd)
{
	if (vbd->backend_state != XenbusStateConnected)
		vbd->frontend_connected = false;
	else if (vbd->frontend_state == XenbusStateConnected)
		vbd->frontend_connected = true;
	else if (vbd->frontend_state == XenbusStateInitialised &&
		 vbd->frontend_connected)
		return XenbusStateInitialising;
	return vbd->frontend_state;
}

/* --- Actions -------------------------------------------------------------- */

/* This frontend is not served, until it begins anew. */
static void refuse(struct vbd *vbd, int err, const char *why)
{
	(void)snprintf(vbd->refused, sizeof(vbd->refused), "%s", why);
	log_guest(&vbd->who, LOG_LEVEL_ERROR, "closed: %s", why);
	vbd_write_error(vbd, err, why);
}

static void note_trouble(struct vbd *vbd)
{
	if (vbd->refused[0])
		return;
	if (target_link(vbd->target) == TARGET_BROKEN)
		refuse(vbd, -EPROTO, target_broken(vbd->target));
	else if (target_refused(vbd->target))
		refuse(vbd, -EIO, target_refused(vbd->target));
}

/* What the frontend wants.  Once per connection: what it writes later does not
 * count.  Nor does what it says of persistent grants that it was not offered. */
static int read_connection(struct vbd *vbd, char *why)
{
	bool wanted = false;
	int r = 0;

	if (vbd->connect.nr_rings > 0)
		return 0;
	vbd->persistent = vbd_offers_persistent(vbd, false);
	if (vbd->persistent)
		r = frontend_persistent(vbd->store, vbd->frontend, &wanted,
					why);
	if (r < 0)
		return r;
	vbd->connect.flags = wanted ? MSG_CONNECT_PERSISTENT : 0;
	return frontend_rings(vbd->store, vbd->frontend, &vbd->connect, why);
}

static void connect_target(struct vbd *vbd)
{
	char why[MSG_TEXT_MAX];
	int r;

	if (!target_ready(vbd->target))
		return;
	r = read_connection(vbd, why);
	if (r < 0) {
		refuse(vbd, r, why);
		vbd_touch(vbd);
		return;
	}
	vbd->connect.discard = vbd->node.discard;
	target_connect(vbd->target, &vbd->connect);
}

bool vbd_disconnected(struct vbd *vbd)
{
	switch (target_link(vbd->target)) {
	case TARGET_UP:
	case TARGET_BROKEN:
	case TARGET_HELD:
	case TARGET_CONNECTING: /* which may hang: this has a time limit */
		target_disconnect(vbd->target);
		return target_link(vbd->target) == TARGET_DOWN;
	case TARGET_DISCONNECTING:
		return false;
	case TARGET_LOST:
	case TARGET_DOWN:
		if (target_is_adopting(vbd->target))
			return false;
		break;
	}
	target_give_up(vbd->target);
	return true;
}

static void act_nothing(struct vbd *vbd)
{
	(void)vbd;
}

static void act_offer(struct vbd *vbd)
{
	enum target_state state = target_state(vbd->target);
	bool fresh = vbd->backend_state == XenbusStateInitialising;

	if (!vbd->online || vbd->removed)
		return;
	if (vbd->at.kind == NODE_XENDISK && fresh && state == TARGET_FAILED) {
		(void)vbd_step(vbd, XenbusStateClosed, NULL);
		return;
	}
	/* libxl runs the script, which opens the target, only in InitWait. */
	if (state != TARGET_OPEN && !(fresh && vbd->at.kind != NODE_XENDISK))
		return;
	if (vbd->refused[0])
		vbd_remove_error(vbd);
	vbd->refused[0] = '\0';
	if (!vbd_disconnected(vbd))
		return;
	vbd->connect.nr_rings = 0;
	vbd->persistent = vbd->broker->settings->persistent_grants;
	(void)vbd_step(vbd, XenbusStateInitWait, vbd_write_transport);
}

/* Bytes: the size that an earlier broker has told the guest; 0: none is there. */
static uint64_t read_size(struct vbd *vbd)
{
	cleanup_free char *text = NULL;
	uint64_t sectors;

	if (store_read(vbd->store, vbd->path, "sectors", &text) < 0 ||
	    parse_u64(text, UINT64_MAX / 512, &sectors) < 0)
		return 0;
	return sectors * 512;
}

/*
 * The state is written again, unchanged, with the size, so that the guest's watch
 * fires and it reads the size anew, as Linux's backend does.  The guest is never
 * told of a smaller one: it may have data there, and what is gone is answered
 * with errors.
 */
void vbd_publish_size(struct vbd *vbd)
{
	const struct msg_opened *opened = target_opened(vbd->target);

	if (!opened || opened->limits.size == vbd->size ||
	    target_link(vbd->target) != TARGET_UP ||
	    vbd->backend_state != XenbusStateConnected)
		return;
	if (vbd->size == 0)
		vbd->size = read_size(vbd);
	if (opened->limits.size > vbd->size &&
	    vbd_step(vbd, XenbusStateConnected, vbd_write_size) == 0)
		vbd->size = opened->limits.size;
}

/* The worker has the rings: the guest may be told. */
static void publish_connected(struct vbd *vbd)
{
	const struct msg_connect *connect = &vbd->connect;

	(void)vbd_step(vbd, XenbusStateConnected, vbd_write_disk);
	if (vbd->backend_state != XenbusStateConnected)
		return;
	vbd->size = target_opened(vbd->target)->limits.size;
	log_guest(&vbd->who, LOG_LEVEL_INFO,
		  "connected: rings %u, pages in each %u%s", connect->nr_rings,
		  connect->ring[0].nr_refs,
		  connect->flags & MSG_CONNECT_PERSISTENT ?
			  ", persistent grants" :
			  "");
}

static void act_connect(struct vbd *vbd)
{
	if (vbd->refused[0])
		(void)vbd_step(vbd, XenbusStateClosing, NULL);
	else if (target_link(vbd->target) == TARGET_UP)
		publish_connected(vbd);
	else
		connect_target(vbd);
}

/* Connected in the guest's eyes, but not by a worker that this broker connected. */
static bool is_to_be_taken_up(const struct vbd *vbd)
{
	enum target_link link = target_link(vbd->target);

	return link == TARGET_LOST || link == TARGET_HELD;
}

/* It has no rings any more, if it had some. */
static void act_forget(struct vbd *vbd)
{
	if (vbd->connect.nr_rings > 0)
		(void)vbd_disconnected(vbd);
	vbd->connect.nr_rings = 0;
}

static void act_serve(struct vbd *vbd)
{
	if (vbd->refused[0]) {
		(void)vbd_step(vbd, XenbusStateClosing, NULL);
		return;
	}
	if (vbd->removed)
		return;
	/* The guest takes itself for connected: make it true. */
	target_inherit(vbd->target);
	if (is_to_be_taken_up(vbd))
		connect_target(vbd);
	vbd_publish_size(vbd);
}

static void act_restart(struct vbd *vbd)
{
	if (vbd_disconnected(vbd))
		act_offer(vbd);
}

static void act_closing(struct vbd *vbd)
{
	(void)vbd_step(vbd, XenbusStateClosing, NULL);
}

static void act_close(struct vbd *vbd)
{
	if (!vbd_disconnected(vbd))
		return;
	vbd->connect.nr_rings = 0;
	(void)vbd_step(vbd, XenbusStateClosed, vbd_forget_rings);
	if (vbd->backend_state == XenbusStateClosed)
		log_guest(&vbd->who, LOG_LEVEL_INFO, "disconnected");
}

static void act_hold(struct vbd *vbd)
{
	enum target_link link = target_link(vbd->target);

	if (vbd->refused[0] || link == TARGET_DOWN)
		act_close(vbd);
	else if (is_to_be_taken_up(vbd))
		connect_target(vbd);
}

static void (*const actions[VBD_NR_ACTIONS])(struct vbd *vbd) = {
	[VBD_IGNORE] = act_nothing,  [VBD_WAIT] = act_nothing,
	[VBD_OFFER] = act_offer,     [VBD_FORGET] = act_forget,
	[VBD_CONNECT] = act_connect, [VBD_SERVE] = act_serve,
	[VBD_RESTART] = act_restart, [VBD_CLOSING] = act_closing,
	[VBD_HOLD] = act_hold,	     [VBD_CLOSE] = act_close,
};

/* --- The look ------------------------------------------------------------- */

/* Has xen-blkback taken it, or may it still do so? */
static bool is_blkbacks(struct vbd *vbd)
{
	if (!blkback_present())
		return false;
	if (blkback_owns(vbd->at.domid, vbd->at.devid))
		return true;
	if (vbd->attached_before ||
	    now_ns() - vbd->since > BLKBACK_WAIT_MS * 1000000ull)
		return false;
	vbd_look_in(vbd, BLKBACK_WAIT_MS);
	return true;
}

/* Is it ours to write to?  See the top of the file. */
static bool is_driven(struct vbd *vbd)
{
	if (!vbd->driven)
		vbd->driven = vbd->at.kind != NODE_VBD || !is_blkbacks(vbd);
	return vbd->driven;
}

/* The guest's domain is gone for good: frees the storage for others, without waiting
 * for the directory to be removed.  libxl does not know our own kind, so that is
 * removed here. */
static void end_orphan(struct vbd *vbd)
{
	if (!vbd->domain_ended || vbd->backend_state != XenbusStateClosed)
		return;
	vbd->removed = true;
	(void)vbd_attach_end(vbd);
	if (vbd->at.kind == NODE_XENDISK)
		(void)store_remove_branch(vbd->store, vbd->path, 1);
}

/* Does the directory name another target than the one that was opened? */
static bool has_other_target(const struct vbd *vbd)
{
	struct node node = { 0 };
	char why[MSG_TEXT_MAX];
	bool other;

	if (!vbd->node.target ||
	    node_read(vbd->store, &vbd->at, vbd->path, &node, why) < 0)
		return false;
	other = strcmp(node.target, vbd->node.target) != 0 ||
		node.read_only != vbd->node.read_only;
	node_clear(&node);
	return other;
}

/*
 * Was the directory removed and made again between two looks?  The toolstack
 * writes Initialising into new directories only.  A look that came while it
 * was being removed may have seen Unknown in between, so the state of the look
 * before does not tell.
 */
static bool is_made_anew(const struct vbd *vbd)
{
	return vbd->backend_state == XenbusStateInitialising &&
	       (vbd->begun || has_other_target(vbd));
}

/* If an earlier daemon connected the rings, only xenstore says where they are: until
 * it does so again nothing can be tried.  Not while the target is being opened: its
 * worker may have lived on, and be serving the guest. */
static void connect_adrift(struct vbd *vbd)
{
	if (vbd->connect.nr_rings > 0)
		connect_target(vbd);
	else
		target_stick(vbd->target,
			     "xenstored has forgotten where the guest's rings "
			     "are; end the guest, then restart xendiskd");
}

/* The directory is there. */
static void end_adrift(struct vbd *vbd)
{
	if (vbd->adrift)
		target_retry(vbd->target);
	vbd->adrift = false;
}

/* xenstored has forgotten the directory.  The guest has not: it is served on, until
 * its domain is seen to be gone, which nobody else would tell us. */
static bool is_served_adrift(struct vbd *vbd)
{
	const char *refused = target_refused(vbd->target);

	if (!vbd->adrift || vbd->gone || vbd->removed)
		return false;
	if (refused)
		log_guest(&vbd->who, LOG_LEVEL_WARNING, "ended: %s", refused);
	else if (target_link(vbd->target) == TARGET_LOST &&
		 target_state(vbd->target) == TARGET_OPEN)
		connect_adrift(vbd);
	return !refused;
}

/* xenstored is away, which a guest that had its rings before need not notice: what it
 * may have said since is seen to when xenstored is back. */
static void serve_blindly(struct vbd *vbd)
{
	if (target_link(vbd->target) == TARGET_LOST &&
	    vbd->connect.nr_rings > 0 && !vbd->gone && !vbd->removed &&
	    !vbd->refused[0])
		connect_target(vbd);
}

/* Its directory has been removed.  When it has been made again, a worker that hangs is
 * not waited for: another disk waits for its place. */
static void end_gone(struct vbd *vbd, bool made_again)
{
	vbd->gone = true;
	if (vbd_attach_end(vbd) || (made_again && target_hangs(vbd->target)))
		bus_forget(vbd->broker->bus, vbd);
	else if (made_again)
		vbd_look_in(vbd, PLACE_WAIT_MS);
}

void vbd_look(struct vbd *vbd)
{
	int r = read_states(vbd);
	int action;

	if (r < 0 && r != -ENOENT) {
		log_guest(&vbd->who, LOG_LEVEL_ERROR,
			  "xenstore cannot be read: %s", strerror(-r));
		serve_blindly(vbd);
		return;
	}
	if (r == -ENOENT && is_served_adrift(vbd))
		return;
	end_adrift(vbd);
	if (r == -ENOENT || vbd->gone || is_made_anew(vbd)) {
		end_gone(vbd, r == 0);
		return;
	}
	vbd_attach_settle(vbd);
	if (vbd->removed)
		(void)vbd_attach_end(vbd);
	if (!is_driven(vbd))
		return;
	vbd_attach_unasked(vbd);
	note_trouble(vbd);
	vbd_publish_commit(vbd);
	action = vbd_answer(vbd->backend_state, effective_frontend(vbd));
	actions[action](vbd);
	end_orphan(vbd);
}

/* --- Life ----------------------------------------------------------------- */

/* Our own keys are written here as well: they are no news. */
static bool is_backend_news(const char *below)
{
	return *below == '\0' || strcmp(below, "state") == 0 ||
	       strcmp(below, "online") == 0;
}

/* A guest can make nodes below its state. */
static bool is_frontend_news(const char *below)
{
	return *below == '\0';
}

static int watch_states(struct vbd *vbd)
{
	cleanup_free char *state = xasprintf("%s/state", vbd->frontend);
	int r = state ? store_watch(vbd->mark, vbd->path, is_backend_news) :
			-ENOMEM;

	return r < 0 ? r : store_watch(vbd->mark, state, is_frontend_news);
}

static bool has_status(struct vbd *vbd, const char *wanted)
{
	cleanup_free char *status = NULL;

	return store_read(vbd->store, vbd->path, "hotplug-status", &status) ==
		       0 &&
	       strcmp(status, wanted) == 0;
}

/* A script has been told so before, and nobody opens it until one asks again; our own
 * kind is removed then. */
static void recall_failure(struct vbd *vbd)
{
	cleanup_free char *error = NULL;
	char why[MSG_TEXT_MAX];

	if (vbd->at.kind == NODE_XENDISK || !has_status(vbd, "error"))
		return;
	(void)store_read(vbd->store, vbd->path, "hotplug-error", &error);
	(void)node_read(vbd->store, &vbd->at, vbd->path, &vbd->node, why);
	target_fail(vbd->target, -EIO, error ? error : "it was not attached");
}

static int make(struct vbd *vbd)
{
	int r;

	vbd->path = node_backend_path(&vbd->at, vbd->id.backend_domid);
	vbd->frontend = node_frontend_path(&vbd->at);
	vbd->again = evtimer_new(vbd->broker->base, on_again, vbd);
	if (!vbd->path || !vbd->frontend || !vbd->again)
		return -ENOMEM;
	/* libxl lets the guest read the whole directory. */
	r = store_hide(vbd->store, vbd->path, "params", vbd->id.backend_domid);
	if (r < 0 && r != -ENOENT)
		log_disk(&vbd->who, LOG_LEVEL_WARNING,
			 "the guest can read params: %s", strerror(-r));
	node_vm(vbd->store, &vbd->at, vbd->id.vm, sizeof(vbd->id.vm));
	vbd->attached_before = has_status(vbd, "connected");
	r = target_new(&vbd->target, vbd->broker, &vbd->id, on_target_change,
		       vbd);
	if (r == 0)
		recall_failure(vbd);
	if (r == 0)
		r = store_mark_new(&vbd->mark, vbd->store, on_change, vbd);
	return r < 0 ? r : watch_states(vbd);
}

int vbd_new(struct vbd **ret, struct broker *broker, struct store *store,
	    const struct node_address *at)
{
	struct vbd *vbd = calloc(1, sizeof(*vbd));
	int r;

	if (!vbd)
		return -ENOMEM;
	vbd->broker = broker;
	vbd->store = store;
	vbd->at = *at;
	vbd->since = now_ns();
	vbd->id = (struct msg_identity){
		.domid = at->domid,
		.devid = at->devid,
		.backend_domid = bus_domid(broker->bus),
	};
	vbd->who = (struct log_who){ .domid = at->domid, .devid = at->devid };
	r = make(vbd);
	if (r < 0) {
		vbd_free(vbd);
		return r;
	}
	*ret = vbd;
	return 0;
}

void vbd_free(struct vbd *vbd)
{
	if (!vbd)
		return;
	vbd_attach_cancel(vbd);
	if (vbd->gone) {
		vbd_remove_error(vbd);
		vbd_forget_exports(vbd);
	}
	export_free(vbd->export);
	target_free(vbd->target);
	store_mark_free(vbd->mark);
	if (vbd->again)
		event_free(vbd->again);
	node_clear(&vbd->node);
	free(vbd->path);
	free(vbd->frontend);
	free(vbd);
}

const struct node_address *vbd_address(const struct vbd *vbd)
{
	return &vbd->at;
}

bool vbd_is_gone(const struct vbd *vbd)
{
	return vbd->gone;
}
