/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * serve.h - `xendiskd --serve`, which `xendisk serve` becomes: the backends as
 * a plain NBD server, without Xen and without the daemon.
 */
#ifndef XENDISK_SERVE_SERVE_H
#define XENDISK_SERVE_SERVE_H

/* What follows --serve; xendisk has checked it.  config "": the usual one, if it is
 * there.  Returns the exit status. */
int serve_main(int argc, char **argv, const char *backend_dir,
	       const char *state_dir, const char *config);

#endif
