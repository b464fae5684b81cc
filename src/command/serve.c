/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * serve: becomes the daemon's program, which has the backends' host in it.
 * Whether the options make sense is said here; the rest is src/serve/.
 */
#include "config.h"

#include <netdb.h>
#include <string.h>

#include "command/command.h"

/* As of xendiskd, which is told. */
#define DEFAULT_STATE_DIR "/var/lib/xendisk"

/* getaddrinfo() takes a number modulo 65536, and nothing for any port. */
static bool is_port(const char *where)
{
	const char *colon = strrchr(where, ':');
	const char *port = colon ? colon + 1 : where;
	uint32_t number;

	if (port[strspn(port, "0123456789")])
		return getservbyname(port, "tcp") != NULL;
	return parse_u32(port, UINT16_MAX, &number) == 0 && number > 0;
}

static enum status check_place(const struct invocation *call)
{
	const char *path = option(call, "socket");
	const char *tcp = option(call, "tcp");

	if (!path && !tcp && !option(call, "run") && !getenv("LISTEN_FDS"))
		return fail(STATUS_USAGE,
			    "serve: where? --socket PATH, --tcp PORT or "
			    "--run COMMAND");
	if (path && !*path)
		return fail(STATUS_USAGE, "serve: --socket: an empty path");
	if (tcp && !is_port(tcp))
		return fail(STATUS_USAGE,
			    "serve: --tcp: \"%s\": a port is a number from 1 "
			    "to 65535",
			    tcp);
	return STATUS_DONE;
}

static enum status check(const struct invocation *call)
{
	const char *config = option(call, "config");
	enum status status = check_place(call);

	if (status != STATUS_DONE)
		return status;
	if (config && !*config)
		return fail(STATUS_USAGE, "serve: --config: an empty path");
	if (option(call, "tls-certs") && option(call, "tls-psk"))
		return fail(STATUS_USAGE,
			    "serve: --tls-certs or --tls-psk, not both");
	for (int i = 0; i < call->nr_args; i++)
		if (!*call->args[i])
			return fail(STATUS_USAGE, "serve: an empty expression");
	return STATUS_DONE;
}

/* argv of xendiskd --serve; as many words as there can be. */
static void fill(const struct invocation *call, const char **argv)
{
	static const char *const passed[] = { "socket", "tcp", "run",
					      "tls-certs", "tls-psk" };
	static const char *const options[] = { "--socket", "--tcp", "--run",
					       "--tls-certs", "--tls-psk" };
	const char *dir = option(call, "backend-dir");
	const char *state = option(call, "state-dir");
	const char *config = option(call, "config");
	int n = 0;

	argv[n++] = "xendiskd";
	argv[n++] = "--serve";
	argv[n++] = dir ? dir : BACKENDDIR;
	argv[n++] = state ? state : DEFAULT_STATE_DIR;
	argv[n++] = config ? config : "";
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++) {
		if (!option(call, passed[i]))
			continue;
		argv[n++] = options[i];
		argv[n++] = option(call, passed[i]);
	}
	if (option(call, "readonly"))
		argv[n++] = "--readonly";
	argv[n++] = "--";
	for (int i = 0; i < call->nr_args; i++)
		argv[n++] = call->args[i];
	argv[n] = NULL;
}

enum status verb_serve(const struct invocation *call)
{
	cleanup_free const char **argv =
		calloc((size_t)call->nr_args + 20, sizeof(*argv));
	cleanup_free char *daemon = find_program("xendiskd", SBINDIR);
	enum status status = check(call);

	if (status != STATUS_DONE)
		return status;
	if (!argv || !daemon)
		return fail(STATUS_FAILED, "serve: no memory");
	fill(call, argv);
	(void)execv(daemon, (char *const *)(uintptr_t)argv);
	return fail(STATUS_FAILED, "serve: %s: %s", daemon, strerror(errno));
}
