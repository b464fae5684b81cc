/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/process.h"

#include <event2/event.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <utlist.h>

#include "broker/broker.h"
#include "broker/child.h"
#include "broker/orphans.h"
#include "broker/spawn.h"
#include "broker/supervise.h"
#include "broker/users.h"
#include "common/log.h"
#include "common/pidfd.h"
#include "common/util.h"

#define STOP_TIMEOUT_S 5
#define END_TIMEOUT_MS 2000

/* From its start until it is reaped and forgotten, whichever comes last. */
struct process {
	struct process *prev;
	struct process *next;
	struct supervisor *supervisor;
	pid_t pid;
	struct child *child; /* of ours; NULL: reaped, or: */
	int pidfd; /* of one that is not our child; or -1 */
	struct event *gone; /* ... and this tells of its death */
	bool orphan; /* not claimed yet; for the disk: */
	uint32_t domid;
	uint32_t devid;
	unsigned int slot; /* of the user ids */
	int our_sock;
	void (*exited)(void *ctx, int status); /* NULL: forgotten */
	void *ctx;
	bool reaped;
};

struct supervisor {
	struct broker *broker;
	struct process *processes; /* those not reaped yet */
	void (*stopped)(void *ctx); /* set: the daemon is ending */
	void *stopped_ctx;
	struct event *stop_timer;
};

/* --- A process ------------------------------------------------------------ */

static void stop_watching(struct process *process)
{
	if (process->gone)
		event_free(TAKE_PTR(process->gone));
	if (process->pidfd >= 0)
		(void)close(TAKE_FD(process->pidfd));
}

static void on_exit_of_process(void *ctx, int status)
{
	struct process *process = ctx;
	struct supervisor *supervisor = process->supervisor;

	process->reaped = true;
	process->child = NULL;
	stop_watching(process);
	users_free(process->slot);
	orphans_forget(supervisor->broker->options.run_dir, process->pid);
	DL_DELETE(supervisor->processes, process);
	if (process->exited)
		process->exited(process->ctx, status);
	else
		free(process);
	if (supervisor->stopped && !supervisor->processes)
		supervisor->stopped(supervisor->stopped_ctx);
}

/* Starts it and sees to it that it will be reaped. */
static int launch(struct process *process, const struct process_spec *spec)
{
	struct broker *broker = process->supervisor->broker;
	const char *run_dir = broker->options.run_dir;
	/* Only the worker listens: a call to a dead one must not succeed. */
	cleanup_close int listener = orphans_listen(run_dir, process->slot);
	const struct spawn_spec spawn = {
		.id = &spec->note->id,
		.backend_dir = broker->options.backend_dir,
		.state_dir = broker->options.state_dir,
		.uid = users_uid(process->slot),
		.sock = spec->sock,
		.listener = listener,
	};
	int r = listener;

	if (r >= 0)
		r = spawn_worker(&spawn, &process->pid);
	if (r < 0)
		return r;
	r = child_watch(broker->children, process->pid, on_exit_of_process,
			process, &process->child);
	if (r < 0) {
		(void)kill(process->pid, SIGKILL);
		(void)waitpid(process->pid, NULL, 0); /* nobody else will */
	}
	return r;
}

int process_start(struct process **ret, struct supervisor *supervisor,
		  const struct process_spec *spec)
{
	struct process *process = calloc(1, sizeof(*process));
	int r;

	if (!process)
		return -ENOMEM;
	process->supervisor = supervisor;
	process->pidfd = -1;
	process->our_sock = spec->our_sock;
	process->exited = spec->exited;
	process->ctx = spec->ctx;
	r = users_take(&process->slot);
	if (r == 0) {
		r = launch(process, spec);
		if (r < 0)
			users_free(process->slot);
	}
	if (r < 0) {
		free(process);
		return r;
	}
	DL_APPEND(supervisor->processes, process);
	r = process_note(process, spec->note);
	if (r < 0) {
		/* The next broker would not find it. */
		process_kill(process);
		process_forget(process);
		return r;
	}
	*ret = process;
	return 0;
}

void process_forget(struct process *process)
{
	if (process && process->reaped)
		free(process);
	else if (process)
		process->exited = NULL; /* freed when it is reaped */
}

void process_kill(struct process *process)
{
	if (!process || process->reaped)
		return;
	if (process->pidfd >= 0)
		(void)pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0);
	else
		(void)kill(process->pid, SIGKILL);
}

int process_note(const struct process *process, struct orphan_note *note)
{
	note->slot = process->slot;
	return orphans_note(process->supervisor->broker->options.run_dir,
			    process->pid, note);
}

pid_t process_pid(const struct process *process)
{
	return process->pid;
}

uint32_t process_uid(const struct process *process)
{
	return users_uid(process->slot);
}

/* --- What a broker that died has left ------------------------------------- */

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	/* How it ended is known to init. */
	on_exit_of_process(arg, PROCESS_STATUS_UNKNOWN);
}

/* Those that cannot be taken over are ended before any disk is opened, which may be
 * theirs.  One that hangs in the kernel takes all of the time that it is given, so
 * they are waited for together; the fences wait for what it had in flight. */
struct search {
	struct supervisor *supervisor;
	struct pollfd *strays;
	nfds_t nr_strays;
};

/* How many of them are still alive; forgets the others. */
static nfds_t count_alive(struct pollfd *strays, nfds_t nr)
{
	nfds_t alive = 0;

	for (nfds_t i = 0; i < nr; i++) {
		if (strays[i].fd >= 0 && strays[i].revents)
			(void)close(TAKE_FD(strays[i].fd));
		alive += strays[i].fd >= 0;
	}
	return alive;
}

static void wait_for_strays(struct pollfd *strays, nfds_t nr)
{
	uint64_t now = now_ns(), end = now + END_TIMEOUT_MS * 1000000ull;

	while (count_alive(strays, nr) && now < end) {
		(void)poll(strays, nr, (int)((end - now) / 1000000 + 1));
		now = now_ns();
	}
}

static void end_stray(struct search *search, int *pidfd, pid_t pid,
		      const char *why)
{
	struct pollfd stray = { .fd = TAKE_FD(*pidfd), .events = POLLIN };
	struct pollfd *strays = reallocarray(
		search->strays, search->nr_strays + 1, sizeof(*strays));

	log_warning("worker %d of a broker that died %s: ended", (int)pid, why);
	(void)pidfd_send_signal(stray.fd, SIGKILL, NULL, 0);
	if (strays) {
		strays[search->nr_strays++] = stray;
		search->strays = strays;
		return;
	}
	wait_for_strays(&stray, 1);
	if (stray.fd >= 0)
		(void)close(stray.fd);
}

static void end_search(struct search *search)
{
	wait_for_strays(search->strays, search->nr_strays);
	for (nfds_t i = 0; i < search->nr_strays; i++)
		if (search->strays[i].fd >= 0)
			(void)close(search->strays[i].fd);
	free(search->strays);
}

/* Takes over pidfd. */
static int add_orphan(struct supervisor *supervisor, pid_t pid, int pidfd,
		      const struct orphan_note *note)
{
	struct process *process = calloc(1, sizeof(*process));

	if (!process)
		return -ENOMEM;
	*process = (struct process){ .supervisor = supervisor,
				     .pid = pid,
				     .pidfd = pidfd,
				     .orphan = true,
				     .domid = note->id.domid,
				     .devid = note->id.devid,
				     .slot = note->slot,
				     .our_sock = -1 };
	process->gone = event_new(supervisor->broker->base, pidfd, EV_READ,
				  on_gone, process);
	if (!process->gone || event_add(process->gone, NULL) < 0) {
		process->pidfd = -1;
		stop_watching(process);
		free(process);
		return -ENOMEM;
	}
	DL_APPEND(supervisor->processes, process);
	return 0;
}

static void take_orphan(void *ctx, pid_t pid)
{
	struct search *search = ctx;
	const char *run_dir = search->supervisor->broker->options.run_dir;
	cleanup_free struct orphan_note *note = calloc(1, sizeof(*note));
	cleanup_close int pidfd = pidfd_open(pid, 0);
	int r = -ESRCH;

	/* Read again: it is the right process that the descriptor stands for. */
	if (note && pidfd >= 0)
		r = orphans_read(run_dir, pid, note);
	if (r == -ESRCH)
		return;
	if (r < 0)
		end_stray(search, &pidfd, pid, "is of another version");
	else if (!note->open)
		end_stray(search, &pidfd, pid, "has not opened its disk");
	else if (!users_claim(note->slot))
		end_stray(search, &pidfd, pid, "has another one's user id");
	else if (add_orphan(search->supervisor, pid, pidfd, note) == 0)
		(void)TAKE_FD(pidfd);
	else {
		users_free(note->slot);
		end_stray(search, &pidfd, pid, "cannot be watched");
	}
}

static struct process *find_orphan(struct supervisor *supervisor,
				   const struct msg_identity *id)
{
	struct process *process;

	DL_FOREACH(supervisor->processes, process)
		if (process->orphan && process->domid == id->domid &&
		    process->devid == id->devid)
			return process;
	return NULL;
}

struct process *process_claim(struct supervisor *supervisor,
			      const struct process_spec *spec)
{
	struct process *process = find_orphan(supervisor, &spec->note->id);

	if (!process)
		return NULL;
	process->orphan = false;
	process->exited = spec->exited;
	process->ctx = spec->ctx;
	return process;
}

int process_call(struct process *process, struct orphan_note *ret_note)
{
	const char *run_dir = process->supervisor->broker->options.run_dir;
	int r = orphans_read(run_dir, process->pid, ret_note);

	if (r == 0)
		r = orphans_call(run_dir, process->slot);
	if (r >= 0)
		process->our_sock = r;
	return r;
}

void supervisor_sweep(struct supervisor *supervisor,
		      bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		      void *ctx)
{
	struct process *process;

	DL_FOREACH(supervisor->processes, process)
		if (process->orphan &&
		    !exists(ctx, process->domid, process->devid))
			process_kill(process);
}

void supervisor_end_orphan(struct supervisor *supervisor,
			   const struct msg_identity *id)
{
	process_kill(find_orphan(supervisor, id));
}

void supervisor_end_unclaimed(struct supervisor *supervisor)
{
	struct process *process;

	DL_FOREACH(supervisor->processes, process) {
		if (!process->orphan)
			continue;
		log_warning("worker %d of a broker that died serves %u/%u, "
			    "which nobody wants: ended",
			    (int)process->pid, process->domid, process->devid);
		process_kill(process);
	}
}

/* --- The supervisor ------------------------------------------------------- */

static void on_stop_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct supervisor *supervisor = arg;
	struct process *process;

	(void)fd;
	(void)what;
	DL_FOREACH(supervisor->processes, process)
		process_kill(process);
	/* One that hangs in the kernel must not keep the daemon. */
	supervisor->stopped(supervisor->stopped_ctx);
}

static int find_orphans(struct supervisor *supervisor)
{
	struct search search = { .supervisor = supervisor };
	int r = orphans_each(supervisor->broker->options.run_dir, take_orphan,
			     &search);

	end_search(&search);
	return r;
}

int supervisor_new(struct supervisor **ret, struct broker *broker)
{
	struct supervisor *supervisor = calloc(1, sizeof(*supervisor));
	int r = -ENOMEM;

	if (!supervisor)
		return -ENOMEM;
	supervisor->broker = broker;
	supervisor->stop_timer =
		evtimer_new(broker->base, on_stop_timeout, supervisor);
	if (supervisor->stop_timer)
		r = find_orphans(supervisor);
	if (r < 0) {
		supervisor_free(supervisor);
		return r;
	}
	*ret = supervisor;
	return 0;
}

void supervisor_free(struct supervisor *supervisor)
{
	struct process *process;
	struct process *next;

	if (!supervisor)
		return;
	DL_FOREACH_SAFE(supervisor->processes, process, next) {
		if (!supervisor->broker->leaves) {
			process_kill(process);
			orphans_forget(supervisor->broker->options.run_dir,
				       process->pid);
		}
		child_forget(process->child);
		stop_watching(process);
		free(process);
	}
	if (supervisor->stop_timer)
		event_free(supervisor->stop_timer);
	free(supervisor);
}

void supervisor_stop(struct supervisor *supervisor, void (*done)(void *ctx),
		     void *ctx)
{
	struct timeval timeout = { .tv_sec = supervisor->processes ?
						     STOP_TIMEOUT_S :
						     0 };
	struct process *process;

	supervisor->stopped = done;
	supervisor->stopped_ctx = ctx;
	DL_FOREACH(supervisor->processes, process) {
		struct msg_header msg = { .type = 0 };

		if (!process->exited ||
		    msg_send(process->our_sock, &msg, sizeof(msg), MSG_CLOSE,
			     -1) < 0)
			process_kill(process);
	}
	(void)evtimer_add(supervisor->stop_timer, &timeout);
}

bool supervisor_is_stopping(const struct supervisor *supervisor)
{
	return supervisor->stopped;
}
