/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client.h - the command's end of the control socket (Varlink).
 */
#ifndef XENDISK_CLIENT_H
#define XENDISK_CLIENT_H

#include <jansson.h>

#include "command/command.h"

/*
 * Calls io.xendisk.METHOD; takes over params (NULL: none).  On STATUS_DONE
 * *ret_reply is the caller's.  On any other status the line on stderr has been
 * written.  Waits up to timeout_s seconds.
 */
enum status client_call(const struct invocation *call, const char *method,
			json_t *params, unsigned int timeout_s,
			json_t **ret_reply);

/* The same without a line on stderr; ret_why gets the sentence, to be freed. */
enum status client_try(const struct invocation *call, const char *method,
		       json_t *params, unsigned int timeout_s,
		       json_t **ret_reply, char **ret_why);

/* The two halves of client_try().  A descriptor that becomes readable with the
 * answer; or -errno and the sentence. */
int client_start(const struct invocation *call, const char *method,
		 json_t *params, char **ret_why);
/* Closes fd. */
enum status client_finish(int fd, unsigned int timeout_s, json_t **ret_reply,
			  char **ret_why);

/* client_call() of Check, which an expression that is no text cannot be asked for. */
enum status client_check(const struct invocation *call, const char *expr,
			 bool read_only, json_t **ret_reply);

#endif
