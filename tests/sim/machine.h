/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting and stopping a machine: its directory, its server, its xenstored. */
#ifndef XENSIM_MACHINE_H
#define XENSIM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

struct machine_config {
	const char *dir; /* NULL: a new one on /dev/shm */
	uint64_t memory_bytes; /* of all domains together */
	bool captive; /* it ends with the process that started it */
};

/*
 * Make the machine and wait until xenstored answers.  The server process
 * removes the directory when it ends.  On failure says why on stderr.
 */
int machine_start(const struct machine_config *config, char ret_dir[64]);

/* End the server and wait until the directory is gone. */
int machine_stop(const char *dir);

/* The folder of the stand-in libraries: lib/ beside this program. */
const char *machine_lib_dir(void);

/* XENSIM_DIR, XENSTORED_PATH, XENSTORED_RUNDIR, LD_LIBRARY_PATH. */
void machine_setenv(const char *dir);

#endif
