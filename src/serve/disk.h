/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.h - an expression, opened and executed for NBD clients.
 *
 * The main thread opens and closes; each lane has a channel of its own and
 * executes commands on it.
 */
#ifndef XENDISK_SERVE_DISK_H
#define XENDISK_SERVE_DISK_H

#include "nbd/session.h"
#include "worker/engine.h"

#define SERVE_MAX_LANES 8u

struct serve_disk;
struct serve_channel;

/* How expressions are to be understood. */
struct serve_context {
	const char *backend_dir;
	const char *state_dir;
	const char *config; /* "": SETTINGS_PATH, which may be absent */
	bool readonly;
	bool isolated; /* this process will be */
};

/* Main thread.  name is copied.  Opens the stack and takes its locks.  What
 * fails has been said on stderr. */
int serve_disk_open(struct serve_disk **ret,
		    const struct serve_context *context, const char *name,
		    const char *expression);
/* A last flush was made by serve_channel_close(). */
void serve_disk_close(struct serve_disk *disk);

const struct nbd_export *serve_disk_export(const struct serve_disk *disk);
/* How many lanes it can have; 0: any number. */
unsigned int serve_disk_channels(const struct serve_disk *disk);

/* Main thread, while the lane does not run.  Channels of one disk know each other:
 * all are opened before the first lane runs, and closed when none does any more. */
int serve_channel_open(struct serve_channel **ret, struct serve_disk *disk,
		       struct engine *engine, unsigned int lane);
/* What waits for a server that is away, or for another lane, is not waited for any
 * more. */
void serve_channel_stop(struct serve_channel *channel);
/* It was stopped, and no command is under way.  last: flush what is not flushed
 * yet; -errno of that. */
int serve_channel_close(struct serve_channel *channel, bool last);

/* Bytes of a command of this executor (nbd_session_events.command_size). */
extern const size_t serve_command_size;

/* Lane.  It begins in serve_work(). */
void serve_submit(struct serve_channel *channel, struct nbd_command *command);
/* Ends the burst; true: commands were completed. */
bool serve_work(struct serve_channel *channel);
/* The session's client is lost: what has not begun never does. */
void serve_forget(struct serve_channel *channel,
		  const struct nbd_session *session);

#endif
