/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * We write a word that nobody has used before into the backend's directory, where
 * the guest can read it, and wait until the guest has written the same word into its
 * own.  When ours is gone it goes on, and takes back its own first; if we die it goes
 * on after FROZEN_S by itself.
 */
#include "config.h"

#include "command/freeze.h"

#include <inttypes.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

#include "command/store.h"

#define FREEZE_KEY "xendisk-freeze"
#define FROZEN_KEY "xendisk-frozen"
/* A guest that has much to write out first takes its time. */
#define ANSWER_S 10

/* Ctrl-C must not leave a guest frozen. */
static enum status hold_signals(struct freeze *freeze)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGHUP);
	freeze->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (freeze->signal_fd < 0)
		return fail(STATUS_FAILED, "%s: signals: %s",
			    freeze->call->verb->name, strerror(errno));
	(void)sigprocmask(SIG_BLOCK, &set, &freeze->signals);
	return STATUS_DONE;
}

static bool is_frozen(void *ctx)
{
	const struct freeze *freeze = ctx;
	cleanup_free char *said = store_read(freeze->store, XBT_NULL,
					     "%s/" FROZEN_KEY,
					     freeze->device.frontend);

	return said && strcmp(said, freeze->token) == 0;
}

static enum status ask(struct freeze *freeze)
{
	const char *verb = freeze->call->verb->name;
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)snprintf(freeze->token, sizeof(freeze->token), "%" PRIu64,
		       (uint64_t)now.tv_sec * 1000000000u +
			       (uint64_t)now.tv_nsec);
	if (!store_write(freeze->store, XBT_NULL, freeze->device.backend,
			 FREEZE_KEY, freeze->token))
		return fail(STATUS_FAILED, "%s: xenstore: %s", verb,
			    strerror(errno));
	if (store_wait(freeze->store, freeze->device.frontend, ANSWER_S,
		       freeze->signal_fd, is_frozen, freeze))
		return STATUS_DONE;
	return fail(STATUS_REFUSED,
		    "%s: the guest has not frozen its file system within %d s; "
		    "nothing was done",
		    verb, ANSWER_S);
}

enum status freeze_begin(struct freeze *freeze, const struct invocation *call)
{
	enum status status;

	*freeze = (struct freeze){ .call = call, .signal_fd = -1 };
	status = store_open(call, &freeze->store);
	if (status == STATUS_DONE)
		status = device_find(call, freeze->store, call->args[0],
				     call->args[1], &freeze->device);
	if (status == STATUS_DONE)
		status = hold_signals(freeze);
	return status == STATUS_DONE ? ask(freeze) : status;
}

bool freeze_end(struct freeze *freeze)
{
	bool frozen = true;

	if (!freeze->store)
		return true;
	if (freeze->token[0]) {
		cleanup_free char *key =
			xasprintf("%s/" FREEZE_KEY, freeze->device.backend);

		frozen = is_frozen(freeze);
		if (key)
			(void)xs_rm(freeze->store, XBT_NULL, key);
	}
	device_release(&freeze->device);
	xs_close(TAKE_PTR(freeze->store));
	if (freeze->signal_fd >= 0) {
		(void)close(TAKE_FD(freeze->signal_fd));
		(void)sigprocmask(SIG_SETMASK, &freeze->signals, NULL);
	}
	return frozen;
}
