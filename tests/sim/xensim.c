/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xensim: start, use and stop a simulated machine.
 */
#include "config.h"

#include "machine.h"
#include "sim.h"
#include "toolstack.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEMORY_DEFAULT (4ull << 30)

static int usage(FILE *to)
{
	fputs("xensim start [--dir DIR] [--memory MIB]   print the machine's directory\n"
	      "xensim stop [DIR]\n"
	      "xensim run [--memory MIB] -- COMMAND...   start, run, stop\n"
	      "xensim env [DOMID]                        as dom0, or as a domain\n"
	      "xensim domain create [--name N] [--uuid U] [ID]   print the id\n"
	      "xensim domain destroy ID    with its devices, as xl destroy\n"
	      "xensim domain kill ID       the hypervisor's part only\n"
	      "xensim domain shutdown ID [REASON]\n"
	      "xensim domain list\n"
	      "xensim toolstack attach DOMID VDEV PARAMS [--kind vbd|vbd3|qdisk]\n"
	      "                 [--script PATH] [--readonly] [--backend DOMID]\n"
	      "                 [--key NAME=VALUE]...    as xl block-attach\n"
	      "xensim toolstack detach DOMID VDEV [--force]   as xl block-detach\n"
	      "xensim qemu DOMID [OPTION...]   QEMU, serving backend/qdisk\n"
	      "xensim counters\n"
	      "The machine is the one named by XENSIM_DIR.\n",
	      to);
	return to == stderr ? 2 : 0;
}

static int fail(const char *what, int r)
{
	fprintf(stderr, "xensim: %s: %s\n", what, strerror(-r));
	return 1;
}

/* The machine of the environment, or exit. */
static struct xensim *join(void)
{
	const char *dir = getenv("XENSIM_DIR");
	struct xensim *m;
	int r = xensim_open(NULL, &m);

	if (r == 0)
		return m;
	exit(fail(dir ? dir : "XENSIM_DIR is not set", r));
}

static uint32_t number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (!*text || *end || n > UINT32_MAX) {
		fprintf(stderr, "xensim: %s: not a number\n", text);
		exit(2);
	}
	return (uint32_t)n;
}

/* --- start, stop, run, env ------------------------------------------------------ */

static int parse_start(int argc, char **argv, struct machine_config *config)
{
	static const struct option options[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "memory", required_argument, NULL, 'm' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*config = (struct machine_config){ .memory_bytes = MEMORY_DEFAULT };
	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (c == 'd')
			config->dir = optarg;
		else if (c == 'm')
			config->memory_bytes = (uint64_t)number(optarg) << 20;
		else
			return -EINVAL;
	}
	return 0;
}

static int cmd_start(int argc, char **argv)
{
	struct machine_config config;
	char dir[64];

	if (parse_start(argc, argv, &config) < 0 || optind != argc)
		return usage(stderr);
	if (machine_start(&config, dir) < 0)
		return 1;
	puts(dir);
	return 0;
}

static int cmd_stop(int argc, char **argv)
{
	const char *dir = argc > 1 ? argv[1] : getenv("XENSIM_DIR");
	int r = dir ? machine_stop(dir) : -ENOENT;

	return r < 0 ? fail(dir ? dir : "XENSIM_DIR is not set", r) : 0;
}

static pid_t running;

static void forward(int sig)
{
	kill(running, sig);
}

static int run_command(char **argv)
{
	int status;

	running = fork();
	if (running < 0)
		return fail("fork", -errno);
	if (running == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execvp(argv[0], argv);
		fprintf(stderr, "xensim: %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	signal(SIGTERM, forward);
	signal(SIGINT, SIG_IGN); /* the terminal sends it to both */
	while (waitpid(running, &status, 0) < 0)
		if (errno != EINTR)
			return fail("waitpid", -errno);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int cmd_run(int argc, char **argv)
{
	struct machine_config config;
	char dir[64];
	int status, r;

	if (parse_start(argc, argv, &config) < 0 || optind == argc)
		return usage(stderr);
	config.captive = true;
	if (machine_start(&config, dir) < 0)
		return 1;
	machine_setenv(dir);
	status = run_command(argv + optind);
	r = machine_stop(dir);
	return r < 0 ? fail(dir, r) : status;
}

static int cmd_env(int argc, char **argv)
{
	static const char *const names[] = { "XENSIM_DIR", "XENSTORED_PATH",
					     "XENSTORED_RUNDIR",
					     "LD_LIBRARY_PATH" };
	struct xensim *m = join();

	machine_setenv(xensim_dir(m));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		printf("export %s='%s'\n", names[i], getenv(names[i]));
	if (argc > 1)
		printf("export XENSIM_DOMID=%u XENSTORED_PATH='%s/xenstore-%u'\n",
		       number(argv[1]), xensim_dir(m), number(argv[1]));
	xensim_close(m);
	return 0;
}

/* --- domain ------------------------------------------------------------------------ */

static int domain_create(int argc, char **argv)
{
	static const struct option options[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "uuid", required_argument, NULL, 'u' },
		{ NULL, 0, NULL, 0 },
	};
	struct xensim_domain_config config = { 0 };
	struct xensim *m;
	uint32_t domid;
	int c, r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			config.name = optarg;
		else if (c == 'u')
			config.uuid = optarg;
		else
			return usage(stderr);
	}
	if (optind < argc)
		config.domid = number(argv[optind]);
	m = join();
	r = xensim_domain_create(m, &config, &domid);
	if (r == 0)
		printf("%u\n", domid);
	xensim_close(m);
	return r < 0 ? fail("domain create", r) : 0;
}

static int domain_list(struct xensim *m)
{
	struct xensim_domain_info d;

	puts("ID GENERATION STATE PAGES GRANTS MAPPED");
	for (uint32_t id = 0; xensim_domain_list(m, id, &d, 1) == 1;
	     id = d.domid + 1)
		printf("%u %u %s %u %u %u\n", d.domid, d.generation,
		       d.dying	  ? "dying" :
		       d.shutdown ? "shutdown" :
				    "live",
		       d.pages, d.grants, d.grants_mapped);
	return 0;
}

static int cmd_domain(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	struct xensim *m;
	uint32_t domid;
	int r;

	if (!strcmp(verb, "create"))
		return domain_create(argc - 1, argv + 1);
	if (!strcmp(verb, "list")) {
		m = join();
		r = domain_list(m);
		xensim_close(m);
		return r;
	}
	if (argc < 3)
		return usage(stderr);
	domid = number(argv[2]);
	m = join();
	if (!strcmp(verb, "destroy"))
		r = toolstack_destroy(m, domid);
	else if (!strcmp(verb, "kill"))
		r = xensim_domain_destroy(m, domid);
	else if (!strcmp(verb, "shutdown"))
		r = xensim_domain_shutdown(m, domid,
					   argc > 3 ? number(argv[3]) : 0);
	else
		return usage(stderr);
	xensim_close(m);
	return r < 0 ? fail(verb, r) : 0;
}

/* --- toolstack ------------------------------------------------------------------------ */

static int parse_attach(int argc, char **argv, struct toolstack_disk *disk)
{
	static const struct option options[] = {
		{ "kind", required_argument, NULL, 'k' },
		{ "script", required_argument, NULL, 's' },
		{ "backend", required_argument, NULL, 'b' },
		{ "key", required_argument, NULL, 'K' },
		{ "readonly", no_argument, NULL, 'r' },
		{ "force", no_argument, NULL, 'f' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'k')
			disk->kind = optarg;
		else if (c == 's')
			disk->script = optarg;
		else if (c == 'b')
			disk->backend_domid = number(optarg);
		else if (c == 'K' && disk->nr_keys < TOOLSTACK_KEYS)
			disk->keys[disk->nr_keys++] = optarg;
		else if (c == 'r')
			disk->readonly = true;
		else if (c == 'f')
			disk->force = true;
		else
			return -EINVAL;
	}
	if (argc - optind < 2)
		return -EINVAL;
	disk->domid = number(argv[optind]);
	disk->vdev = argv[optind + 1];
	disk->params = argc - optind > 2 ? argv[optind + 2] : NULL;
	return 0;
}

static int cmd_toolstack(int argc, char **argv)
{
	struct toolstack_disk disk = { .kind = "vbd" };
	const char *verb = argc > 1 ? argv[1] : "";
	bool attach = !strcmp(verb, "attach");
	struct xensim *m;
	int r;

	if (!attach && strcmp(verb, "detach"))
		return usage(stderr);
	if (parse_attach(argc - 1, argv + 1, &disk) < 0 ||
	    (attach && !disk.params))
		return usage(stderr);
	m = join();
	r = attach ? toolstack_attach(m, &disk) : toolstack_detach(m, &disk);
	xensim_close(m);
	return r < 0 ? 1 : 0;
}

/* --- qemu ------------------------------------------------------------------------------ */

/* QEMU as libxl starts it for PV guests; it serves backend/qdisk. */
static int cmd_qemu(int argc, char **argv)
{
	static const char *const fixed[] = {
		"-machine",
		"xenpv",
		"-xen-attach",
		"-nodefaults",
		"-no-user-config",
		"-display",
		"none",
		"-monitor",
		"none",
		"-m",
		"32",
		"-xen-domid",
	};
	const size_t nr_fixed = sizeof(fixed) / sizeof(fixed[0]);
	const char *program = getenv("XENSIM_QEMU");
	char preload[PATH_MAX];
	char *args[64];
	size_t n = 0;

	if (argc < 2 || (size_t)argc + nr_fixed >= 64)
		return usage(stderr);
	if (!program)
		program = "/usr/libexec/xen-qemu-system-i386";
	args[n++] = strdup(program);
	for (size_t i = 0; i < nr_fixed; i++)
		args[n++] = strdup(fixed[i]);
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	args[n] = NULL;
	snprintf(preload, sizeof(preload), "%s/preload-qemu.so",
		 machine_lib_dir());
	setenv("LD_PRELOAD", preload, 1);
	setenv("XENSIM_UNCONFINED", "1", 1);
	execv(program, args);
	return fail(program, -errno);
}

static int cmd_counters(int argc, char **argv)
{
	struct xensim *m = join();
	struct xensim_counters c;

	(void)argc;
	(void)argv;
	xensim_counters(m, &c);
	xensim_close(m);
	printf("map_calls %lu\nmap_pages %lu\nunmap_calls %lu\n"
	       "copy_calls %lu\ncopy_segments %lu\ncopy_bytes %lu\n"
	       "copy_failures %lu\nevents_sent %lu\nevents_dropped %lu\n"
	       "refusals %lu\n",
	       c.map_calls, c.map_pages, c.unmap_calls, c.copy_calls,
	       c.copy_segments, c.copy_bytes, c.copy_failures, c.events_sent,
	       c.events_dropped, c.refusals);
	return 0;
}

static int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return usage(stdout);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{ "start", cmd_start },	  { "stop", cmd_stop },
		{ "run", cmd_run },	  { "env", cmd_env },
		{ "domain", cmd_domain }, { "toolstack", cmd_toolstack },
		{ "qemu", cmd_qemu },	  { "counters", cmd_counters },
		{ "--help", cmd_help },
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (argc > 1 && !strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return usage(stderr);
}
