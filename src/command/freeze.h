/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * freeze.h - asking a guest to keep its file system still for a moment.
 *
 * The guest has to have somebody who listens: xendisk-spec(7), examples/fsfreeze.
 */
#ifndef XENDISK_FREEZE_H
#define XENDISK_FREEZE_H

#include <signal.h>

#include "command/device.h"

struct freeze {
	const struct invocation *call;
	struct xs_handle *store; /* NULL: nothing has begun */
	struct device device;
	char token[24]; /* what this request is called */
	sigset_t signals; /* as they were before */
	int signal_fd;
};

/*
 * For the verb's arguments DOM VDEV: returns when the guest says that it is
 * frozen.  Signals that would end us wait until freeze_end(), which is to be
 * called in any case.  Says itself what is wrong.
 */
enum status freeze_begin(struct freeze *freeze, const struct invocation *call);
/* The guest may go on.  False: it had done so before. */
bool freeze_end(struct freeze *freeze);

#endif
