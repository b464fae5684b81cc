/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 *     IDLE --a visit--> OPENING --files are open, started--> ALIVE
 *     ALIVE --it dies--> IDLE, or RESTING and OPENING again for waiting visits
 *     ALIVE --nursling_drop()--> ENDING --it is dead--> freed
 *
 * A child that ends before it has said hello is not started again: the visits that
 * wait are told why.  One that served and died is started again, but not sooner than
 * a second after its last start.  One that held the data itself (XD_SPAWN_ONCE) never
 * is: its note stays, so that the next broker knows it, too.
 *
 * There are never two at a time for the same layer: another one is started only when
 * the kernel has said that the last is dead, and so has nothing more under way.  The
 * same holds for the next disk if it has the number or the expression of one whose
 * child is still ENDING (a guest that is started again, say): it is RESTING until
 * then.  A child of an earlier broker cannot be waited for; a pidfd tells of its
 * death.
 *
 * Its whole process group is ended with it.
 */
#include "config.h"

#include "broker/nursery-private.h"

#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <utlist.h>

#include "broker/child.h"
#include "broker/opener.h"
#include "broker/process.h"
#include "broker/users.h"
#include "common/fds.h"
#include "common/pidfd.h"

/* From SIGTERM to SIGKILL: it may have to write out what it has. */
#define END_TIMEOUT_MS 5000
#define REST_NS	       1000000000ull

struct nursery {
	struct broker *broker;
	struct nursling *nurslings;
};

static void start(struct nursling *nursling);
static void start_or_rest(struct nursling *nursling);
static void let_start(struct nursery *nursery);

const char *nursling_name(const struct nursling *nursling)
{
	return nursling->program.argv ? nursling->program.argv[0] :
					"child server";
}

struct event_base *nursery_base(const struct nursling *nursling)
{
	return nursling->nursery->broker->base;
}

const char *nursery_run_dir(const struct nursling *nursling)
{
	return nursling->nursery->broker->options.run_dir;
}

/* --- Its end -------------------------------------------------------------- */

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

static void stop_watching(struct nursling *nursling)
{
	child_forget(TAKE_PTR(nursling->child));
	free_event(TAKE_PTR(nursling->gone));
	if (nursling->pidfd >= 0)
		(void)close(TAKE_FD(nursling->pidfd));
}

/* There is no process any more. */
static void nursling_free(struct nursling *nursling)
{
	visits_fail(nursling, -ESHUTDOWN);
	errand_cancel(nursling->opening);
	stop_watching(nursling);
	nursling_explain(nursling, PROCESS_STATUS_UNKNOWN);
	free_event(nursling->timer);
	fds_close(nursling->path, PROGRAM_MAX_FILES);
	fds_close(nursling->file, PROGRAM_MAX_FILES);
	if (nursling->discarded || !nursling->lost)
		nursery_note_remove(nursery_run_dir(nursling), &nursling->note);
	program_free(&nursling->program);
	DL_DELETE(nursling->nursery->nurslings, nursling);
	let_start(nursling->nursery);
	free(nursling);
}

static void end_group(const struct nursling *nursling, int sig)
{
	if (nursling->note.pid > 1)
		(void)kill(-nursling->note.pid, sig);
}

/* The note says so, if the next broker has to know. */
static void note_death(struct nursling *nursling)
{
	const char *run_dir = nursery_run_dir(nursling);

	end_group(nursling, SIGKILL); /* what it may have started */
	users_free(nursling->note.slot);
	nursling->note.pid = 0;
	nursling->lost = nursling->note.once && nursling->greeted;
	if (nursling->lost)
		(void)nursery_note_write(run_dir, &nursling->note);
	else
		nursery_note_remove(run_dir, &nursling->note);
}

static void explain_loss(struct nursling *nursling)
{
	size_t n = strlen(nursling->why);

	(void)snprintf(nursling->why + n, sizeof(nursling->why) - n,
		       "; what it held is lost, and so is the disk: detach it");
}

static void died(struct nursling *nursling, int status)
{
	bool ended = nursling->state == NURSLING_ENDING;

	(void)evtimer_del(nursling->timer);
	nursling_explain(nursling, status);
	stop_watching(nursling);
	note_death(nursling);
	nursling->state = NURSLING_IDLE;
	if (nursling->dropped) {
		nursling_free(nursling);
		return;
	}
	if (nursling->lost)
		explain_loss(nursling);
	if (!ended)
		log_guest(&nursling->who, LOG_LEVEL_WARNING, "%s",
			  nursling->why);
	if (nursling->lost || !nursling->greeted) {
		visits_fail(nursling, nursling->lost ? -ENODATA : -EIO);
		return;
	}
	visits_wait(nursling);
	if (nursling->visits)
		start_or_rest(nursling);
}

static void on_child_exit(void *ctx, int status)
{
	struct nursling *nursling = ctx;

	nursling->child = NULL;
	died(nursling, status);
}

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	died(arg, PROCESS_STATUS_UNKNOWN); /* init knows how */
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct nursling *nursling = arg;

	(void)fd;
	(void)what;
	if (nursling->state == NURSLING_ENDING)
		end_group(nursling, SIGKILL);
	else if (nursling->state == NURSLING_RESTING)
		start_or_rest(nursling);
}

static void set_timer(struct nursling *nursling, uint64_t ns)
{
	const struct timeval tv = { .tv_sec = (time_t)(ns / 1000000000),
				    .tv_usec = (suseconds_t)(ns % 1000000000 /
							     1000) };

	(void)evtimer_add(nursling->timer, &tv);
}

void nursling_give_up(struct nursling *nursling)
{
	if (nursling->state == NURSLING_ALIVE && !nursling->greeted)
		end_group(nursling, SIGKILL);
}

/* The daemon could not start: what it has found lives on, as it was, and its note stays
 * for the next one. */
static void leave(struct nursling *nursling)
{
	nursling->lost = true;
	nursling_free(nursling);
}

void nursling_drop(struct nursling *nursling, bool discard)
{
	if (!nursling)
		return;
	if (nursling->nursery->broker->leaves) {
		leave(nursling);
		return;
	}
	nursling->orphan = false;
	nursling->dropped = true;
	nursling->discarded = discard;
	if (nursling->state != NURSLING_ALIVE) {
		nursling_free(nursling);
		return;
	}
	nursling->state = NURSLING_ENDING;
	/* It knows that the disk is closed: no other one is told to wait. */
	visits_fail(nursling, -ESHUTDOWN);
	end_group(nursling, SIGTERM);
	set_timer(nursling, END_TIMEOUT_MS * 1000000ull);
}

/* --- Its start ------------------------------------------------------------ */

static void start_failed(struct nursling *nursling, int err)
{
	if (err && !nursling->why[0])
		(void)snprintf(nursling->why, sizeof(nursling->why),
			       "%s cannot be started: %s",
			       nursling_name(nursling), strerror(-err));
	fds_close(nursling->file, PROGRAM_MAX_FILES);
	nursling->state = NURSLING_IDLE;
	visits_fail(nursling, err);
}

/* Without its note the next broker would not find it. */
static int watch(struct nursling *nursling)
{
	struct broker *broker = nursling->nursery->broker;
	int r = child_watch(broker->children, nursling->note.pid, on_child_exit,
			    nursling, &nursling->child);

	if (r < 0) {
		end_group(nursling, SIGKILL);
		(void)waitpid(nursling->note.pid, NULL, 0);
		return r;
	}
	nursling->state = NURSLING_ALIVE; /* its death is told */
	nursling->greeted = false;
	r = nursery_note_write(broker->options.run_dir, &nursling->note);
	if (r < 0)
		end_group(nursling, SIGKILL);
	return 0;
}

static int spawn(struct nursling *nursling, int out)
{
	struct broker *broker = nursling->nursery->broker;
	cleanup_close int listener =
		nursery_listen(broker->options.run_dir, &nursling->note);
	const struct program_spec spec = {
		.program = &nursling->program,
		.uid = users_uid(nursling->note.slot),
		.listener = listener,
		.out = out,
		.files = nursling->file,
		.backend_dir = broker->options.backend_dir,
	};
	int r = listener < 0 ? listener :
			       program_spawn(&spec, &nursling->note.pid);

	/* What is open keeps the image's lock. */
	fds_close(nursling->file, PROGRAM_MAX_FILES);
	return r < 0 ? r : watch(nursling);
}

static int launch(struct nursling *nursling)
{
	cleanup_close int childs = -1;
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	childs = ends[1];
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		(void)close(ends[0]);
		return -errno;
	}
	r = nursling_listen_to(nursling, ends[0]);
	if (r == 0)
		r = users_take(&nursling->note.slot);
	if (r < 0)
		return r;
	nursling->started = now_ns();
	r = spawn(nursling, childs);
	if (r < 0)
		users_free(nursling->note.slot);
	return r;
}

static void on_file(void *ctx, struct errand_result *results)
{
	struct nursling *nursling = ctx;

	nursling->opening = NULL;
	if (results[0].err) {
		(void)snprintf(nursling->why, sizeof(nursling->why),
			       "%s cannot have its file: %s",
			       nursling_name(nursling),
			       strerror(-results[0].err));
		start_failed(nursling, results[0].err);
		return;
	}
	nursling->file[nursling->nr_open++] = TAKE_FD(results[0].fd);
	start(nursling);
}

/* One file after the other, then the program. */
static void start(struct nursling *nursling)
{
	struct broker *broker = nursling->nursery->broker;
	int flags = nursling->read_only ? O_RDONLY : O_RDWR;
	int r;

	nursling->state = NURSLING_OPENING;
	nursling->why[0] = '\0';
	if (nursling->nr_open < nursling->program.nr_files) {
		r = opener_reopen(&nursling->opening, broker,
				  nursling->path[nursling->nr_open], flags,
				  on_file, nursling);
	} else {
		nursling->nr_open = 0;
		r = launch(nursling);
	}
	if (r < 0)
		start_failed(nursling, r);
	else if (nursling->state == NURSLING_ALIVE)
		visits_connect(nursling);
}

static bool is_of(const struct nursling *nursling, uint32_t domid,
		  uint32_t devid)
{
	return nursling->note.domid == domid && nursling->note.devid == devid;
}

/* One with the same files, or note and socket, that has not ended yet. */
static bool has_predecessor(const struct nursling *nursling)
{
	const struct nursery_note *note = &nursling->note, *other;
	struct nursling *before;

	DL_FOREACH(nursling->nursery->nurslings, before) {
		other = &before->note;
		if (before->dropped && other->layer == note->layer &&
		    (is_of(before, note->domid, note->devid) ||
		     strcmp(other->expression, note->expression) == 0))
			return true;
	}
	return false;
}

/* One has ended: who waited for that, is looked at again. */
static void let_start(struct nursery *nursery)
{
	struct nursling *nursling;

	DL_FOREACH(nursery->nurslings, nursling)
		if (nursling->state == NURSLING_RESTING)
			set_timer(nursling, 0);
}

static void start_or_rest(struct nursling *nursling)
{
	uint64_t now = now_ns();
	uint64_t from = nursling->started + REST_NS;

	nursling->nr_open = 0;
	if (has_predecessor(nursling)) {
		nursling->state = NURSLING_RESTING; /* let_start() */
		return;
	}
	if (!nursling->started || from <= now) {
		start(nursling);
		return;
	}
	nursling->state = NURSLING_RESTING;
	set_timer(nursling, from - now);
}

/* --- Asked for ------------------------------------------------------------ */

int nursling_wants(const struct nursling *nursling)
{
	if (nursling->nr_lent == nursling->program.nr_files)
		return -ENOENT;
	return (int)nursling->program.file[nursling->nr_lent];
}

void nursling_lend(struct nursling *nursling, int path_fd)
{
	nursling->path[nursling->nr_lent++] = path_fd;
}

int nursling_visit(struct nursling *nursling, uint32_t flags, int *ret_pending)
{
	int r = visit_new(nursling, ret_pending);

	if (r < 0)
		return r;
	if (nursling->lost) {
		visits_fail(nursling, -ENODATA);
		return 0;
	}
	nursling->note.once = flags & XD_SPAWN_ONCE;
	if (nursling->state == NURSLING_ALIVE)
		visits_connect(nursling);
	else if (nursling->state == NURSLING_IDLE)
		start_or_rest(nursling);
	return 0;
}

static struct nursling *new_nursling(struct nursery *nursery)
{
	struct nursling *nursling = calloc(1, sizeof(*nursling));

	if (!nursling)
		return NULL;
	nursling->nursery = nursery;
	nursling->pidfd = -1;
	nursling->out = -1;
	for (int i = 0; i < PROGRAM_MAX_FILES; i++)
		nursling->path[i] = nursling->file[i] = -1;
	nursling->timer =
		evtimer_new(nursery->broker->base, on_timer, nursling);
	if (!nursling->timer) {
		free(nursling);
		return NULL;
	}
	DL_APPEND(nursery->nurslings, nursling);
	return nursling;
}

/* One that an earlier broker has left for this very layer; what it has left of
 * another disk of that number is ended. */
static struct nursling *claim(struct nursery *nursery,
			      const struct nursling_spec *spec)
{
	const struct msg_identity *id = spec->id;
	struct nursling *nursling, *next;

	DL_FOREACH_SAFE(nursery->nurslings, nursling, next) {
		const struct nursery_note *note = &nursling->note;

		if (!nursling->orphan ||
		    !is_of(nursling, id->domid, id->devid) ||
		    note->layer != spec->layer)
			continue;
		if (strcmp(note->vm, id->vm) == 0 &&
		    strcmp(note->expression, spec->expression) == 0)
			return nursling;
		nursling_drop(nursling, true);
	}
	return NULL;
}

int nursling_new(struct nursling **ret, struct nursery *nursery,
		 const struct nursling_spec *spec)
{
	struct nursling *nursling = claim(nursery, spec);

	if (!nursling)
		nursling = new_nursling(nursery);
	if (!nursling)
		return -ENOMEM;
	nursling->orphan = false;
	nursling->who = (struct log_who){ .domid = spec->id->domid,
					  .devid = spec->id->devid };
	nursling->note.domid = spec->id->domid;
	nursling->note.devid = spec->id->devid;
	nursling->note.layer = spec->layer;
	(void)snprintf(nursling->note.vm, sizeof(nursling->note.vm), "%s",
		       spec->id->vm);
	(void)snprintf(nursling->note.expression,
		       sizeof(nursling->note.expression), "%s",
		       spec->expression);
	nursling->program = *spec->program;
	*spec->program = (struct program){ 0 };
	nursling->read_only = spec->read_only;
	if (nursling->lost) {
		(void)snprintf(nursling->why, sizeof(nursling->why),
			       "%s has ended", nursling_name(nursling));
		explain_loss(nursling);
	}
	*ret = nursling;
	return 0;
}

/* --- What a broker that died has left ------------------------------------- */

static bool watch_orphan(struct nursling *nursling)
{
	struct broker *broker = nursling->nursery->broker;

	nursling->pidfd = pidfd_open(nursling->note.pid, 0);
	/* Asked again: it is the right process that the descriptor stands for. */
	if (nursling->pidfd < 0 ||
	    !nursery_note_lives(broker->options.run_dir, &nursling->note))
		return false;
	nursling->gone = event_new(broker->base, nursling->pidfd, EV_READ,
				   on_gone, nursling);
	return nursling->gone && event_add(nursling->gone, NULL) == 0 &&
	       users_claim(nursling->note.slot);
}

static void take_orphan(void *ctx, const struct nursery_note *note)
{
	struct nursery *nursery = ctx;
	struct nursling *nursling = new_nursling(nursery);

	if (!nursling)
		return;
	nursling->note = *note;
	nursling->who =
		(struct log_who){ .domid = note->domid, .devid = note->devid };
	nursling->orphan = true;
	nursling->lost = !note->pid;
	if (nursling->lost)
		return;
	nursling->greeted = true;
	if (watch_orphan(nursling)) {
		nursling->state = NURSLING_ALIVE;
		return;
	}
	log_disk(&nursling->who, LOG_LEVEL_WARNING,
		 "child server %d of a broker that died cannot be taken over: "
		 "ended",
		 (int)note->pid);
	end_group(nursling, SIGKILL);
	nursling_free(nursling);
}

void nursery_end_unclaimed(struct nursery *nursery)
{
	struct nursling *nursling, *next;

	DL_FOREACH_SAFE(nursery->nurslings, nursling, next)
		if (nursling->orphan)
			nursling_drop(nursling, true);
}

void nursery_discard(struct nursery *nursery, uint32_t domid, uint32_t devid)
{
	struct nursling *nursling, *next;

	DL_FOREACH_SAFE(nursery->nurslings, nursling, next)
		if (nursling->orphan && is_of(nursling, domid, devid))
			nursling_drop(nursling, true);
}

int nursery_new(struct nursery **ret, struct broker *broker)
{
	struct nursery *nursery = calloc(1, sizeof(*nursery));
	int r;

	if (!nursery)
		return -ENOMEM;
	nursery->broker = broker;
	r = nursery_note_each(broker->options.run_dir, take_orphan, nursery);
	if (r < 0) {
		nursery_free(nursery);
		return r;
	}
	*ret = nursery;
	return 0;
}

/* --- The end of all ------------------------------------------------------- */

/* The event loop does not run any more. */
static bool has_ended(struct nursling *nursling)
{
	struct pollfd pfd = { .fd = nursling->pidfd, .events = POLLIN };
	siginfo_t info = { .si_pid = 0 };

	if (nursling->pidfd >= 0)
		return poll(&pfd, 1, 0) > 0;
	return waitid(P_PID, (id_t)nursling->note.pid, &info,
		      WEXITED | WNOHANG) < 0 ||
	       info.si_pid != 0;
}

static void wait_for_all(struct nursery *nursery, unsigned int ms)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	struct nursling *nursling, *next;

	for (unsigned int i = 0; i <= ms / 10 && nursery->nurslings; i++) {
		DL_FOREACH_SAFE(nursery->nurslings, nursling, next) {
			if (!has_ended(nursling))
				continue;
			note_death(nursling);
			nursling_free(nursling);
		}
		if (nursery->nurslings)
			(void)nanosleep(&pause, NULL);
	}
}

void nursery_free(struct nursery *nursery)
{
	struct nursling *nursling, *next;

	if (!nursery)
		return;
	DL_FOREACH_SAFE(nursery->nurslings, nursling, next)
		if (!nursling->dropped)
			nursling_drop(nursling, false);
	wait_for_all(nursery, END_TIMEOUT_MS);
	DL_FOREACH(nursery->nurslings, nursling)
		end_group(nursling, SIGKILL);
	wait_for_all(nursery, 1000);
	DL_FOREACH_SAFE(nursery->nurslings, nursling, next)
		nursling_free(nursling); /* it hangs in the kernel */
	free(nursery);
}
