/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/process.h"

#include <event2/event.h>
#include <signal.h>
#include <utlist.h>

#include "broker/broker.h"
#include "broker/child.h"
#include "broker/orphans.h"
#include "broker/spawn.h"
#include "broker/supervise.h"
#include "common/log.h"
#include "common/util.h"

#define STOP_TIMEOUT_S 5

/* Users of workers: a range far from people, services and containers. */
#define FIRST_UID 0x7d150000u
#define NR_UIDS	  4096

/* From its start until it is reaped and forgotten, whichever comes last. */
struct process {
	struct process *prev;
	struct process *next;
	struct supervisor *supervisor;
	pid_t pid;
	unsigned int slot; /* of the user ids */
	int our_sock;
	void (*exited)(void *ctx, int status); /* NULL: forgotten */
	void *ctx;
	bool reaped;
};

struct supervisor {
	struct broker *broker;
	struct process *processes; /* those not reaped yet */
	bool slots[NR_UIDS];
	void (*stopped)(void *ctx); /* set: the daemon is ending */
	void *stopped_ctx;
	struct event *stop_timer;
};

/* --- User ids ---------------------------------------------------------------- */

static int take_slot(struct supervisor *supervisor, unsigned int *ret)
{
	for (unsigned int i = 0; i < NR_UIDS; i++) {
		if (supervisor->slots[i])
			continue;
		supervisor->slots[i] = true;
		*ret = i;
		return 0;
	}
	return -EUSERS;
}

static uint32_t slot_uid(unsigned int slot)
{
	return geteuid() == 0 ? FIRST_UID + slot : 0;
}

/* --- A process ---------------------------------------------------------------- */

static void on_exit_of_process(void *ctx, int status)
{
	struct process *process = ctx;
	struct supervisor *supervisor = process->supervisor;

	process->reaped = true;
	supervisor->slots[process->slot] = false;
	orphans_forget(supervisor->broker->options.run_dir, process->pid);
	DL_DELETE(supervisor->processes, process);
	if (process->exited)
		process->exited(process->ctx, status);
	else
		free(process);
	if (supervisor->stopped && !supervisor->processes)
		supervisor->stopped(supervisor->stopped_ctx);
}

/* Starts it and sees to it that it will be reaped and can be found. */
static int launch(struct process *process, const struct process_spec *spec)
{
	struct broker *broker = process->supervisor->broker;
	const struct spawn_spec spawn = {
		.id = spec->id,
		.backend_dir = broker->options.backend_dir,
		.uid = slot_uid(process->slot),
		.sock = spec->sock,
	};
	int r = spawn_worker(&spawn, &process->pid);

	if (r < 0)
		return r;
	r = orphans_note(broker->options.run_dir, process->pid);
	if (r == 0)
		r = child_watch(broker->children, process->pid,
				on_exit_of_process, process, NULL);
	if (r < 0)
		(void)kill(process->pid, SIGKILL);
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
	process->our_sock = spec->our_sock;
	process->exited = spec->exited;
	process->ctx = spec->ctx;
	r = take_slot(supervisor, &process->slot);
	if (r == 0) {
		r = launch(process, spec);
		if (r < 0)
			supervisor->slots[process->slot] = false;
	}
	if (r < 0) {
		free(process);
		return r;
	}
	DL_APPEND(supervisor->processes, process);
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
	if (process && !process->reaped)
		(void)kill(process->pid, SIGKILL);
}

pid_t process_pid(const struct process *process)
{
	return process->pid;
}

uint32_t process_uid(const struct process *process)
{
	return slot_uid(process->slot);
}

/* --- The supervisor ------------------------------------------------------------ */

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

int supervisor_new(struct supervisor **ret, struct broker *broker)
{
	struct supervisor *supervisor;
	unsigned int orphans;
	int r = orphans_end(broker->options.run_dir, &orphans);

	if (r < 0)
		return r;
	if (orphans)
		log_warning("%u workers of a broker that died were ended; "
			    "their disks are taken over",
			    orphans);
	supervisor = calloc(1, sizeof(*supervisor));
	if (!supervisor)
		return -ENOMEM;
	supervisor->broker = broker;
	supervisor->stop_timer =
		evtimer_new(broker->base, on_stop_timeout, supervisor);
	if (!supervisor->stop_timer) {
		free(supervisor);
		return -ENOMEM;
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
		process_kill(process);
		orphans_forget(supervisor->broker->options.run_dir,
			       process->pid);
		free(process);
	}
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
