/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * program.h - the NBD server that a backend declares (struct xd_backend: server):
 * its command line, and its start.
 *
 * It is started by way of this program once more, as
 *
 *     xendiskd --child UID NR_FILES LIBRARY PROGRAM WORD...
 *
 * which gives up all that the server is not to have, and becomes it.  The server
 * then has
 *
 *     0		 /dev/null
 *     1 and 2		 what its starter reads
 *     3		 the socket on which it listens, as LISTEN_FDS=1 has it
 *     4 and more	 the files that were opened for it; it opens them by the
 *			 name /dev/fd/4, with the help of LIBRARY (lend.c), since
 *			 the kernel would ask whether its user may
 *
 * and nothing else: no other descriptor, no capability, no way to get any, no
 * terminal, the root directory, an environment of a few words, and a user and a
 * session of its own.
 */
#ifndef XENDISK_PROGRAM_H
#define XENDISK_PROGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/expr.h"

#define PROGRAM_LISTENER   3
#define PROGRAM_FIRST_FILE 4
#define PROGRAM_MAX_FILES  4

/* A command line; to be freed. */
struct program {
	char **argv; /* ends with NULL */
	size_t nr_words;
	unsigned int nr_files;
	/* The parameters that name them, by number. */
	unsigned int file[PROGRAM_MAX_FILES];
};

/* What the layer's backend declares, with its parameters.  -EINVAL: what it
 * declares makes no sense. */
int program_new(struct program *ret, const struct layer *layer);
void program_free(struct program *program);

struct program_spec {
	const struct program *program;
	uint32_t uid; /* 0: stay */
	/* All stay the caller's. */
	int listener;
	int out;
	const int *files; /* as many as program->nr_files */
	const char *backend_dir; /* where the library is, too */
};

/* Its process id is that of its session and process group, too. */
int program_spawn(const struct program_spec *spec, pid_t *ret);

/* The process in between, from --child on.  Returns only when it fails. */
int program_child_main(int argc, char **argv);

#endif
