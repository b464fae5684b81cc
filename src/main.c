/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - one program, five processes (workers run xendiskd-worker instead
 * where that is beside it).
 *
 *     xendiskd [OPTIONS]                the broker
 *     xendiskd --worker DOMID/DEVID     a disk's worker, started by the broker;
 *                                       the rest comes in its environment
 *                                       (see broker/spawn.h)
 *     xendiskd --serve BACKENDS STATE CONFIG ...
 *                                       what xendisk(1) serve becomes
 *     xendiskd --connect URI            connects to a server and ends, started
 *                                       by the broker (broker/connector.h)
 *     xendiskd --child ...              becomes a child server, started by the
 *                                       broker or by serve (common/program.h)
 *
 * The last four are not for people, so the table of options has none of them.
 */
#include "config.h"

#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "broker/broker.h"
#include "broker/connector.h"
#include "common/log.h"
#include "common/program.h"
#include "common/suggest.h"
#include "common/util.h"
#include "serve/child.h"
#include "serve/serve.h"
#include "worker/start.h"

#define EXIT_USAGE 2

enum option_id {
#define OPTION(id, name, argument, help) OPTION_##id,
#include "options.def"
#undef OPTION
	NR_OPTIONS
};

static const struct {
	const char *name;
	const char *argument;
	const char *help;
} options[NR_OPTIONS] = {
#define OPTION(id, name, argument, help) \
	[OPTION_##id] = { name, argument, help },
#include "options.def"
#undef OPTION
};

static int usage_error(const char *what, const char *word)
{
	fprintf(stderr, "xendiskd: %s: %s\nTry 'xendiskd --help'.\n", word,
		what);
	return EXIT_USAGE;
}

static int print_help(void)
{
	printf("Usage: xendiskd [OPTION]...\n"
	       "Serves disks to Xen guests; see xendiskd(8).\n\n");
	for (size_t i = 0; i < NR_OPTIONS; i++) {
		char left[40];

		(void)snprintf(left, sizeof(left), "--%s %s", options[i].name,
			       options[i].argument ? options[i].argument : "");
		printf("  %-22s %s\n", left, options[i].help);
	}
	return 0;
}

/* --- The broker ---------------------------------------------------------- */

struct invocation {
	struct broker_options broker;
	bool foreground;
	enum log_level level;
};

static int take_option(struct invocation *inv, int id, const char *value)
{
	switch (id) {
	case OPTION_FOREGROUND:
		inv->foreground = true;
		return 0;
	case OPTION_RUN_DIR:
		inv->broker.run_dir = value;
		break;
	case OPTION_STATE_DIR:
		inv->broker.state_dir = value;
		break;
	case OPTION_BACKEND_DIR:
		inv->broker.backend_dir = value;
		break;
	case OPTION_CONFIG:
		inv->broker.config = value;
		break;
	case OPTION_LOG_LEVEL:
		if (log_parse_level(value, &inv->level) < 0)
			return usage_error(
				"--log-level is error, warning, info or debug",
				value);
		return 0;
	default:
		return EXIT_USAGE;
	}
	/* The broker changes to the root directory when it is a daemon. */
	if (value[0] != '/')
		return usage_error("an absolute path is needed", value);
	return 0;
}

static int no_option(const char *word)
{
	cleanup_free char *typed = strdup(word);
	struct suggest s = { .typed = typed && strlen(typed) > 2 ? typed + 2 :
								   "" };
	cleanup_free char *what = NULL;

	if (typed)
		typed[strcspn(typed, "=")] = '\0';
	for (size_t i = 0; i < NR_OPTIONS; i++)
		suggest_add(&s, options[i].name);
	what = xasprintf("no such option%s%s%s%s",
			 strchr(word, '=') ? ", or it takes no argument" : "",
			 s.best[0] ? "; did you mean \"--" : "", s.best,
			 s.best[0] ? "\"?" : "");
	return usage_error(what ? what : "no such option", word);
}

/* What getopt_long() has answered id to; a letter may be one of several in a
 * word that it has not done with. */
static int bad_option(int id, char **argv)
{
	const char letter[] = { '-', (char)optopt, '\0' };
	const char *word = optopt >= ' ' ? letter : argv[optind - 1];

	if (id == ':')
		return usage_error("an argument is needed", word);
	return no_option(word);
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct invocation *inv)
{
	struct option longs[NR_OPTIONS + 1] = { { 0 } };
	int id;

	for (int i = 0; i < NR_OPTIONS; i++) {
		longs[i].name = options[i].name;
		longs[i].has_arg = options[i].argument ? required_argument :
							 no_argument;
		longs[i].val = i;
	}
	opterr = 0;
	while ((id = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		int status;

		if (id == '?' || id == ':')
			return bad_option(id, argv);
		if (id == OPTION_HELP)
			return print_help();
		if (id == OPTION_VERSION) {
			printf("xendiskd %s\n", PACKAGE_VERSION);
			return 0;
		}
		status = take_option(inv, id, optarg);
		if (status)
			return status;
	}
	if (optind < argc)
		return usage_error("not an option", argv[optind]);
	return -1;
}

/* The parent of a daemon: ends when the child is ready, or as it ends. */
static int wait_until_ready(pid_t child, int ready)
{
	char byte;
	int status;

	if (read(ready, &byte, 1) == 1)
		return 0;
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) &&
	    WEXITSTATUS(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "xendiskd: the daemon died before it was ready\n");
	return 1;
}

/*
 * Forks before there is any thread.  The child goes on with stderr as it is
 * and tells through ready_fd when the control socket answers; only then does
 * broker.c let go of the terminal.
 */
static int run_daemon(struct broker_options *broker)
{
	int ready[2];
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		goto failed;
	pid = fork();
	if (pid < 0)
		goto failed;
	if (pid > 0) {
		(void)close(ready[1]);
		return wait_until_ready(pid, ready[0]);
	}
	(void)close(ready[0]);
	broker->ready_fd = ready[1];
	if (setsid() < 0 || chdir("/") < 0)
		goto failed;
	return broker_main(broker);

failed:
	fprintf(stderr, "xendiskd: cannot become a daemon: %s\n",
		strerror(errno));
	return 1;
}

/* A process started with a closed stdin, stdout or stderr would give those
 * numbers to its first files. */
static void fill_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	struct invocation inv = {
		.broker = { .run_dir = BROKER_RUN_DIR,
			    .state_dir = BROKER_STATE_DIR,
			    .backend_dir = BACKENDDIR,
			    .ready_fd = -1 },
		.level = LOG_LEVEL_INFO,
	};
	int status;

	fill_standard_fds();
	/* Executed as /proc/self/exe, it would be named "exe". */
	(void)prctl(PR_SET_NAME, "xendiskd");
	(void)signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "--worker") == 0)
		return worker_start(argv[2]);
	if (argc >= 5 && strcmp(argv[1], "--serve") == 0)
		return serve_main(argc - 4, argv + 4, argv[2], argv[3],
				  argv[4]);
	if (argc == 3 && strcmp(argv[1], "--connect") == 0)
		return connector_main(argv[2]);
	if (argc > 2 && strcmp(argv[1], "--child") == 0)
		return serve_child_follow() ?
			       program_child_main(argc - 2, argv + 2) :
			       1;
	status = parse_options(argc, argv, &inv);
	if (status >= 0)
		return status;
	log_init("xendiskd", inv.level);
	/* systemd waits for a notification, not for a fork. */
	if (inv.foreground || getenv("NOTIFY_SOCKET"))
		return broker_main(&inv.broker);
	return run_daemon(&inv.broker);
}
