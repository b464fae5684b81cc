/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nursery-say.c - what child servers write to stdout and stderr: a line each in
 * the log, with the disk's name; and the last of them is told when the child
 * ends.
 */
#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <string.h>

#include "broker/child.h"
#include "broker/nursery-private.h"
#include "broker/process.h"

/* Bytes in one turn of the event loop. */
#define AT_A_TIME 4096

static bool begins_with_name(const struct nursling *nursling, const char *line)
{
	const char *name = nursling_name(nursling);
	size_t n = strlen(name);

	return strncmp(line, name, n) == 0 && line[n] == ':';
}

/* Hints ("Use --help") come after what matters, and do not begin so. */
static void remember(struct nursling *nursling, const char *line)
{
	bool named = begins_with_name(nursling, line);

	if (nursling->named && !named)
		return;
	nursling->named = named;
	(void)snprintf(nursling->why, sizeof(nursling->why), "%s", line);
}

static void end_line(struct nursling *nursling)
{
	nursling->line[nursling->length] = '\0';
	nursling->length = 0;
	if (!nursling->line[0])
		return;
	log_guest(&nursling->who, LOG_LEVEL_WARNING, "%s (pid %d): %s",
		  nursling_name(nursling), (int)nursling->note.pid,
		  nursling->line);
	remember(nursling, nursling->line);
}

/* A line that is too long goes on in the next. */
static void take_byte(struct nursling *nursling, char c)
{
	if (c == '\n' || nursling->length == sizeof(nursling->line) - 1)
		end_line(nursling);
	if (c != '\n')
		nursling->line[nursling->length++] =
			(unsigned char)c < 0x20 || c == 0x7f ? '?' : c;
}

/* Returns false when nothing more can come. */
static bool hear(struct nursling *nursling)
{
	char buf[AT_A_TIME];
	ssize_t n = read(nursling->out, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++)
		take_byte(nursling, buf[i]);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void stop_listening(struct nursling *nursling)
{
	if (nursling->says)
		event_free(TAKE_PTR(nursling->says));
	if (nursling->out >= 0)
		(void)close(TAKE_FD(nursling->out));
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	if (!hear(arg))
		stop_listening(arg);
}

int nursling_listen_to(struct nursling *nursling, int out)
{
	struct event_base *base = nursery_base(nursling);

	stop_listening(nursling);
	nursling->out = out;
	nursling->length = 0;
	nursling->named = false;
	nursling->why[0] = '\0';
	nursling->says = event_new(base, out, EV_READ | EV_PERSIST, on_readable,
				   nursling);
	if (!nursling->says || event_add(nursling->says, NULL) < 0)
		return -ENOMEM;
	return 0;
}

void nursling_explain(struct nursling *nursling, int status)
{
	char said[sizeof(nursling->line)];
	char how[64] = "has ended";

	/* Its own children may hold the pipe open, and write on. */
	if (nursling->out >= 0)
		(void)hear(nursling);
	if (nursling->length)
		end_line(nursling);
	stop_listening(nursling);
	(void)snprintf(said, sizeof(said), "%.*s", (int)sizeof(said) - 1,
		       nursling->why);
	if (status != PROCESS_STATUS_UNKNOWN)
		child_explain(status, how, sizeof(how));
	(void)snprintf(nursling->why, sizeof(nursling->why), "%s %s%s%s",
		       nursling_name(nursling), how, said[0] ? ": " : "", said);
}
