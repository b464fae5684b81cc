/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scratch.c - emptying a file that is temporary.
 *
 * Theory of operation
 *
 * When a guest can write to such a file, the broker notes which it is
 * (scratch_describe()), in kept state that no worker can reach.  When the disk goes,
 * the note gets a name of its own and an errand empties the file; the note is
 * dropped when the errand has said what became of it.  A broker that dies, or stops,
 * before that leaves the note to the next.
 *
 * A broker that has seen the guest from its coming to its end holds the file, and
 * empties it at once.  One that finds a note, with the guest or without, only knows
 * what is in it, and in between the file may have become somebody else's.  To leave
 * it as it is does no harm, except that its guest's secrets stay there, which the log
 * tells; to empty it wrongly is a loss.  So it must be proved:
 *
 *	by number and birth	it is the very file;
 *	by a lease		nobody has it open now, nor opens it before it is
 *				empty: who tries waits for that;
 *	by its last change	nobody but the guest has written to it, also in
 *				place, with whatever tool: the kernel dates each
 *				write, and that date (ctime) cannot be set back.
 *
 * A broker cannot know when the last write was: workers live on without one.  So the
 * worker notes when each write begins and ends, in memory that outlives it
 * (common/stamp.h).  The file must have been changed last between the last beginning
 * and the last end; or not at all since the guest could write.  Then:
 *
 *	broker stopped		its workers have ended: the times are right
 *	broker killed		workers serve on and note on; when the guest goes
 *				no more writes come.  They wait for the next
 *				broker, which ends them, and what another has
 *				written meanwhile is later than the times
 *	both killed		the same, if no write was under way; else the last
 *				change may be later than the last end, and the file
 *				is left
 *	half emptied		(the errand was killed): we have changed it, and it
 *				is left, unless nothing is in it any more
 *	the host went down	so has RUNDIR, and nothing is known
 *
 * Anything else that changes the inode, chmod or another name, looks like a write.
 * Not to be told apart: a write within the same tick of the kernel's clock (4 ms) as
 * the guest's last, and none after it.  A worker that has been taken over may note
 * what it likes; it can write to the file as well, as long as it lives, and times
 * that lie far apart are not believed, so that it can say little of what comes after.
 *
 * The lease is held until the errand's process ends.  Who opens the file meanwhile
 * makes the kernel send SIGIO, which is ignored, and is kept waiting for at most
 * /proc/sys/fs/lease-break-time (45 s).  Freeing is one call, in which the file
 * system lets nobody write, so even one who comes in by then has his writes after it.
 */
#include "config.h"

#include "broker/scratch.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "broker/broker.h"
#include "broker/errand.h"
#include "broker/keep.h"
#include "common/log.h"
#include "common/reopen.h"
#include "common/util.h"

/* Freeing much space takes a while, and nobody waits for it. */
#define EMPTY_TIMEOUT_S 300
/* No write takes so long that is not better taken for another's. */
#define LAST_WRITE_MAX_NS 10000000000ull

/* Which file it is: numbers are used again, but not at the same time. */
struct file_name {
	uint64_t device, inode;
	int64_t made;
	int64_t changed; /* when it was noted, or is looked at */
};

/* What an errand is told. */
struct job {
	bool is_held; /* by ERRAND_FD: it needs no proof */
	struct file_name name;
	const char *path;
	uint64_t begun, ended; /* the last write; 0: none */
};

/* ... and what is to be known when it ends. */
struct emptying {
	struct broker *broker;
	char *path;
	char *left; /* the note; or NULL */
};

static int64_t ns_of(const struct statx_timestamp *ts)
{
	return ts->tv_sec * 1000000000 + ts->tv_nsec;
}

/* False: the file system does not tell, or it is none. */
static bool name_of(int fd, int sync, struct file_name *ret)
{
	const unsigned int wanted = STATX_TYPE | STATX_INO | STATX_BTIME |
				    STATX_CTIME;
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | sync, wanted, &st) < 0 ||
	    !S_ISREG(st.stx_mode) || (st.stx_mask & wanted) != wanted)
		return false;
	ret->device = makedev(st.stx_dev_major, st.stx_dev_minor);
	ret->inode = st.stx_ino;
	ret->made = ns_of(&st.stx_btime);
	ret->changed = ns_of(&st.stx_ctime);
	return true;
}

/* --- In the child -------------------------------------------------------- */

static bool is_same(int fd, const struct file_name *name)
{
	struct file_name now;

	return name_of(fd, AT_STATX_FORCE_SYNC, &now) &&
	       now.device == name->device && now.inode == name->inode &&
	       now.made == name->made;
}

static bool only_guest_wrote(int fd, const struct job *job)
{
	struct file_name now;
	uint64_t changed;

	if (!name_of(fd, AT_STATX_FORCE_SYNC, &now))
		return false;
	changed = (uint64_t)now.changed;
	if (now.changed == job->name.changed)
		return true;
	return job->begun <= changed && changed <= job->ended &&
	       job->ended - job->begun <= LAST_WRITE_MAX_NS;
}

/* Such a lease is given to nobody as long as another one has the file open. */
static int lease(int fd)
{
	(void)signal(SIGIO, SIG_IGN);
	return fcntl(fd, F_SETLEASE, F_WRLCK) < 0 ? -errno : 0;
}

/* QEMU, and what else locks bytes, does not look at flock(): a guest of ours was
 * kept waiting for an image that is in use there. */
static int lock_bytes(int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &whole) < 0 &&
	    (errno == EAGAIN || errno == EACCES))
		return -EAGAIN;
	return 0;
}

static int claim(int fd, bool is_held)
{
	int r = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : lock_bytes(fd);

	return r || is_held ? r : lease(fd);
}

/* The worker that wrote to it may be dying just now; and whoever has the lock
 * after that has begun to use it. */
static int claim_within_a_second(int fd, bool is_held)
{
	const struct timespec pause = { .tv_nsec = 50000000 };
	int r = claim(fd, is_held);

	for (int i = 0; i < 20 && r == -EAGAIN; i++) {
		(void)nanosleep(&pause, NULL);
		r = claim(fd, is_held);
	}
	return r == -EAGAIN ? -EBUSY : r;
}

static int free_content(int fd, const struct job *job)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_blocks == 0 || st.st_size == 0)
		return 0;
	r = claim_within_a_second(fd, job->is_held);
	if (r == 0 && !job->is_held && !only_guest_wrote(fd, job))
		r = -ECANCELED;
	if (r == 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				0, st.st_size) < 0)
		r = -errno;
	return r;
}

static int empty(const struct job *job)
{
	int path_fd = ERRAND_FD;
	int fd;

	if (!job->is_held)
		path_fd = open(job->path, O_PATH | O_CLOEXEC);
	if (path_fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!job->is_held && !is_same(path_fd, &job->name))
		return -ESTALE;
	fd = reopen(path_fd, O_RDWR | O_NONBLOCK);
	return fd < 0 ? fd : free_content(fd, job);
}

static void empty_work(const void *arg)
{
	errand_report(0, empty(arg), -1);
}

/* --- In the broker ------------------------------------------------------- */

static const char *explain(int err)
{
	switch (err) {
	case -ECANCELED:
		return "it may have been written to since";
	case -EBUSY:
		return "somebody has it open";
	default:
		return strerror(-err);
	}
}

static void emptying_free(struct emptying *emptying)
{
	free(emptying->path);
	free(emptying->left);
	free(emptying);
}

/* One that was ended, and not by itself, is for the next broker to try again. */
static void emptied(void *ctx, struct errand_result *results)
{
	struct emptying *emptying = ctx;
	int err = results[0].err;

	if (err == -ESTALE)
		log_info("%s: it is another file by now, and is left as it is",
			 emptying->path);
	else if (err)
		log_warning("%s: not emptied, what a guest wrote may be there: "
			    "%s",
			    emptying->path, explain(err));
	if (emptying->left && err != -EIO && err != -ETIMEDOUT)
		keep_drop_left(emptying->broker->keep, emptying->left);
	emptying_free(emptying);
}

/* Takes over left. */
static void start(struct broker *broker, const struct job *job, int fd,
		  char *left)
{
	struct emptying *emptying = calloc(1, sizeof(*emptying));
	const struct errand_spec spec = {
		.work = empty_work,
		.arg = job,
		.fd = fd,
		.nr_results = 1,
		.timeout_s = EMPTY_TIMEOUT_S,
		.done = emptied,
		.ctx = emptying,
	};
	struct errand *errand;

	if (!emptying) {
		free(left);
		return;
	}
	emptying->broker = broker;
	emptying->path = strdup(job->path);
	emptying->left = left;
	if (!emptying->path || errand_start(&errand, broker, &spec) < 0)
		emptying_free(emptying);
}

void scratch_empty(struct broker *broker, int path_fd, const char *path,
		   char *left)
{
	const struct job job = { .is_held = true, .path = path };

	start(broker, &job, path_fd, left);
}

char *scratch_describe(int path_fd, const char *path)
{
	struct file_name name;

	/* Asks no server: that is the broker. */
	if (strchr(path, '\n') || !name_of(path_fd, AT_STATX_DONT_SYNC, &name))
		return NULL;
	return xasprintf("%" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 " %s",
			 name.device, name.inode, name.made, name.changed,
			 path);
}

/* The last of the lines with times: a broker may have died after it wrote one. */
static void read_times(const char *line, struct job *job)
{
	uint64_t begun, ended;

	for (; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (sscanf(line, "%" SCNu64 " %" SCNu64, &begun, &ended) == 2) {
			job->begun = begun;
			job->ended = ended;
		}
	}
}

void scratch_left(void *broker, const char *left, const char *text)
{
	cleanup_free char *path = NULL;
	struct job job = { .is_held = false };
	int end = 0;

	if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNd64 " %n",
		   &job.name.device, &job.name.inode, &job.name.made,
		   &job.name.changed, &end) != 4 ||
	    !end)
		return;
	path = strndup(text + end, strcspn(text + end, "\n"));
	if (!path)
		return;
	job.path = path;
	read_times(strchr(text, '\n'), &job);
	start(broker, &job, -1, strdup(left));
}
