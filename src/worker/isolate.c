/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate.c - a worker gives up what it does not need, stage by stage.
 *
 * A worker reads what a guest wrote.  Should one be taken over, it holds the
 * descriptors of one disk, the grant and event-channel devices (the latter
 * bound to its guest) and the broker's socket, and can reach nothing else.
 * Each stage must stand without the others: the user keeps it from files and
 * processes, Landlock from all paths, seccomp from the system calls that would
 * open, connect, execute or fork.  What io_uring may do is fixed in
 * engine-uring.c, where it cannot be changed any more either.
 *
 * What stays: gntdev knows no restriction to a domain (nor xentoolcore, which
 * would close it), so a worker can map what any guest has granted to this
 * domain.  Deployment in a driver domain bounds that.
 *
 * All threads are meant.  glibc tells all of them of a change of user, seccomp
 * has TSYNC; the other stages go by inheritance, and no thread of ours is there
 * yet (engine-pool.c starts its own from the lane).
 */
#include "config.h"

#include "worker/isolate.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "common/confine.h"
#include "common/msg.h"
#include "common/util.h"
#include "worker/isolate-files.h"
#include "worker/isolate-seccomp.h"

/* --- Stage 1: limits ------------------------------------------------------ */

/*
 * Should: leave no core file (it would hold the guest's data), and keep the
 * kernel from writing to our own disk to find memory for us.
 * Mustn't: limit processes (RLIMIT_NPROC).  It counts per user, and io_uring's
 * own threads count: with 0 a write that has to wait hangs for ever.  Forking
 * is the filter's business.
 */
static int limit_resources(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	/* Needs CAP_SYS_RESOURCE: an ordinary user goes without. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	return 0;
}

/* --- Stage 2: the user ---------------------------------------------------- */

/*
 * Should: end as a user that owns nothing, in no group, without a capability.
 */
static int become(uint32_t uid)
{
	return confine_become(uid, uid);
}

/* --- Stage 3: no way back ------------------------------------------------- */

/*
 * Should: make the losses final, and the process's memory unreadable to others
 * of its user.
 * Mustn't: come before stage 2, which makes the process dumpable anew.
 */
static int forbid_return(bool relaxed)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	if (!relaxed && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

/* --- Stage 4: Landlock ---------------------------------------------------- */

/*
 * Should: deny every access to a path and to the network, now and by what is
 * opened later.
 * Mustn't: fail where the kernel has no Landlock: seccomp stands without it.
 */
static int restrict_paths(void)
{
	return confine_paths(NULL, 0);
}

/* --- All of it ------------------------------------------------------------ */

static int fail(char *ret_why, const char *what, int err)
{
	return msg_why(ret_why, err, "cannot isolate the worker: %s: %s", what,
		       strerror(-err));
}

int isolate(uint32_t uid, char *ret_why)
{
	bool relaxed = isolate_relaxed();
	int r;

	r = limit_resources();
	if (r < 0)
		return fail(ret_why, "limits", r);
	r = become(uid);
	if (r < 0)
		return fail(ret_why, "user", r);
	r = forbid_return(relaxed);
	if (r < 0)
		return fail(ret_why, "no new privileges", r);
	if (!relaxed)
		r = restrict_paths();
	if (r < 0)
		return fail(ret_why, "Landlock", r);
	r = isolate_lends_files() ? isolate_answer_traps() : 0;
	if (r == 0)
		r = isolate_seccomp(relaxed);
	if (r < 0)
		return fail(ret_why, "seccomp", r);
	return 0;
}
