/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main-worker.c - xendiskd-worker: a worker, and nothing else.
 *
 * It does what `xendiskd --worker DOMID/DEVID` does, which the broker starts
 * where this program is not beside it.  There may be hundreds of workers, and
 * each would pay for the libraries that only the broker and the NBD server
 * need: half a megabyte.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "worker/start.h"

int main(int argc, char **argv)
{
	(void)prctl(PR_SET_NAME, "xendiskd");
	(void)signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "--worker") == 0)
		return worker_start(argv[2]);
	fprintf(stderr, "xendiskd-worker: only xendiskd starts it\n");
	return 2;
}
