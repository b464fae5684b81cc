/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The main thread opens the disks and the sockets, starts the lanes, accepts
 * clients and gives them to the lanes in turn.  It ends on SIGTERM or SIGINT,
 * or with the command of --run: what is under way is answered, a last flush is
 * made, and the exit status tells whether it worked.
 *
 * With --isolate (for broker/front.c, not for people) it serves for as long as its
 * standard input is open, and is locked down as a worker is once all is open and
 * before a client is there.  What is left of it then has the port, the keys and the
 * disk's socket; to call that again there is a process of its own (reach.h).  The
 * threads of host.c are older than that: they have all of it but Landlock.
 */
#include "config.h"

#include "serve/serve.h"

#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "common/confine.h"
#include "common/log.h"
#include "common/msg.h"
#include "common/serve.h"
#include "common/tcp.h"
#include "common/util.h"
#include "serve/child.h"
#include "serve/complain.h"
#include "serve/lane.h"
#include "serve/listen.h"
#include "serve/run.h"
#include "worker/isolate-files.h"
#include "worker/isolate.h"

#define EXIT_BUSY   5 /* as of any verb of xendisk(1) */
#define MAX_DISKS   64
#define MAX_CLIENTS 256 /* more wait in the sockets' queues */

struct server {
	struct serve_context context;
	const char *run; /* command; NULL: none */
	struct serve_disk *disks[MAX_DISKS];
	unsigned int nr_disks;
	struct serve_lane *lanes[SERVE_MAX_LANES];
	unsigned int nr_lanes;
	struct nbd_credentials *credentials; /* NULL: no TLS */
	const char *keys; /* a file that GnuTLS reads for each client; or NULL */
	uint32_t uid; /* of --isolate */
	struct listeners listeners;
	char *folder; /* of --run's socket */
	int signals; /* signalfd */
	pid_t child; /* 0: none */
	bool is_short; /* of descriptors or memory, when a client came last */
};

/* --- Options -------------------------------------------------------------- */

static int take_credentials(struct server *server, int kind, const char *path)
{
	char why[NBD_TLS_WHY_MAX];
	int r;

	if (server->credentials) {
		complain("%s: certificates or keys, not both", path);
		return -EINVAL;
	}
	r = kind == 'c' ?
		    nbd_credentials_certs(&server->credentials, path, why) :
		    nbd_credentials_psk(&server->credentials, path, why);
	if (r < 0)
		complain("%s", why);
	else if (kind == 'p')
		server->keys = path;
	return r;
}

static int take_options(struct server *server, int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", 1, NULL, 's' },    { "tcp", 1, NULL, 't' },
		{ "readonly", 0, NULL, 'r' },  { "run", 1, NULL, 'x' },
		{ "tls-certs", 1, NULL, 'c' }, { "tls-psk", 1, NULL, 'p' },
		{ "isolate", 1, NULL, 'i' },   { NULL, 0, NULL, 0 },
	};
	int c, r = listen_passed(&server->listeners);

	while (r == 0 &&
	       (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			r = listen_unix(&server->listeners, optarg);
			break;
		case 't':
			r = listen_tcp(&server->listeners, optarg);
			break;
		case 'r':
			server->context.readonly = true;
			break;
		case 'x':
			server->run = optarg;
			break;
		case 'i':
			server->context.isolated = true;
			server->uid = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'c':
		case 'p':
			r = take_credentials(server, c, optarg);
			break;
		default:
			r = -EINVAL;
		}
	}
	return r;
}

/* A private folder, for --run without a place of its own. */
static int listen_for_run(struct server *server)
{
	const char *tmp = getenv("TMPDIR");
	cleanup_free char *path = NULL;

	server->folder = xasprintf("%s/xendisk-serve-XXXXXX",
				   tmp && *tmp ? tmp : "/tmp");
	if (!server->folder || !mkdtemp(server->folder)) {
		int r = -errno;

		complain("a folder for the socket, in %s: %s",
			 tmp && *tmp ? tmp : "/tmp", strerror(-r));
		free(server->folder);
		server->folder = NULL; /* it is not ours to remove */
		return r;
	}
	path = xasprintf("%s/nbd.sock", server->folder);
	return path ? listen_unix(&server->listeners, path) : -ENOMEM;
}

/* --- Disks ---------------------------------------------------------------- */

/* "NAME=EXPR", where no expression begins so; else its number is its name. */
static int open_disk(struct server *server, const char *word)
{
	size_t length = strspn(word, "abcdefghijklmnopqrstuvwxyz"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	cleanup_free char *name = NULL;
	int r;

	if (server->nr_disks == MAX_DISKS) {
		complain("%s: more than %d disks", word, MAX_DISKS);
		return -E2BIG;
	}
	if (length > 0 && word[length] == '=') {
		name = strndup(word, length);
		word += length + 1;
	} else {
		name = xasprintf("%u", server->nr_disks);
	}
	if (!name)
		return -ENOMEM;
	for (unsigned int i = 0; i < server->nr_disks; i++) {
		if (strcmp(serve_disk_export(server->disks[i])->name, name) ==
		    0) {
			complain("%s: two exports are called that", name);
			return -EEXIST;
		}
	}
	r = serve_disk_open(&server->disks[server->nr_disks], &server->context,
			    name, word);
	server->nr_disks += r == 0;
	return r;
}

static int open_disks(struct server *server, int argc, char **argv)
{
	int r = 0;

	for (int i = optind; r == 0 && i < argc; i++)
		r = open_disk(server, argv[i]);
	return r;
}

/* --- Lanes ---------------------------------------------------------------- */

static unsigned int nr_lanes(const struct server *server)
{
	unsigned int wanted = SERVE_MAX_LANES;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		wanted = MIN(wanted, (unsigned int)CPU_COUNT(&set));
	for (unsigned int i = 0; i < server->nr_disks; i++) {
		unsigned int most = serve_disk_channels(server->disks[i]);

		if (most)
			wanted = MIN(wanted, most);
	}
	return wanted;
}

/* Before the lanes' threads, and after all that they need is open. */
static int lock_down(const struct server *server)
{
	char why[MSG_TEXT_MAX];
	int r = server->keys ? isolate_lend_file(server->keys) : 0;

	if (r < 0) {
		complain("%s: %s", server->keys, strerror(-r));
		return r;
	}
	/* A client's socket cannot be set any more, but has what the listener has. */
	for (unsigned int i = 0; i < server->listeners.nr; i++)
		tcp_watch_client(server->listeners.fd[i]);
	confine_ordinary();
	r = isolate(server->uid, why);
	if (r < 0)
		complain("%s", why);
	return r;
}

static int start_lanes(struct server *server)
{
	unsigned int wanted = nr_lanes(server);
	int r = 0;

	while (r == 0 && server->nr_lanes < wanted) {
		r = serve_lane_new(&server->lanes[server->nr_lanes],
				   server->nr_lanes, server->disks,
				   server->nr_disks, server->credentials);
		server->nr_lanes += r == 0;
	}
	if (r == 0 && server->context.isolated) {
		r = lock_down(server);
		if (r < 0)
			return r; /* it has been said */
	}
	for (unsigned int i = 0; r == 0 && i < server->nr_lanes; i++)
		r = serve_lane_start(server->lanes[i]);
	if (r < 0)
		complain("threads cannot be started: %s", strerror(-r));
	return r;
}

static unsigned int nr_clients(const struct server *server)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < server->nr_lanes; i++)
		n += serve_lane_clients(server->lanes[i]);
	return n;
}

/* To the lane that has the fewest. */
static void give(const struct server *server, int fd)
{
	struct serve_lane *best = server->lanes[0];

	for (unsigned int i = 1; i < server->nr_lanes; i++)
		if (serve_lane_clients(server->lanes[i]) <
		    serve_lane_clients(best))
			best = server->lanes[i];
	if (serve_lane_give(best, fd) < 0)
		(void)close(fd);
}

/* False: it is to be tried again later, and not at once.  It is said once. */
static bool accept_one(struct server *server, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return true;
		if (!server->is_short)
			complain("accept: %s", strerror(errno));
		server->is_short = true;
		return false;
	}
	server->is_short = false;
	tcp_watch_client(fd);
	give(server, fd);
	return true;
}

/* --- --run ---------------------------------------------------------------- */

static int start_command(struct server *server)
{
	int r = run_command(server->run, server->listeners.uri,
			    server->listeners.path, &server->child);

	if (r < 0)
		complain("--run: %s", strerror(-r));
	return r;
}

/* As a shell has it. */
static int status_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* --- The loop ------------------------------------------------------------- */

/* The terminal has gone.  Who started us by nohup(1) wants that to be no matter. */
static void take_hangup(sigset_t *set)
{
	struct sigaction action;

	if (sigaction(SIGHUP, NULL, &action) == 0 &&
	    action.sa_handler != SIG_IGN)
		(void)sigaddset(set, SIGHUP);
}

static int block_signals(struct server *server)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGCHLD);
	take_hangup(&set);
	/* Before there is any thread. */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	server->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return server->signals < 0 ? -errno : 0;
}

/* True: it is over; *ret_status is the command's if there is one. */
static bool take_signal(struct server *server, int *ret_status)
{
	struct signalfd_siginfo info;
	int status;

	if (read(server->signals, &info, sizeof(info)) != sizeof(info))
		return false;
	if (info.ssi_signo != SIGCHLD)
		return true;
	/* Nobody would call the disk's socket again (reach.h): the next process has
	 * one who does. */
	if (server->context.isolated)
		return true;
	if (server->child == 0 ||
	    waitpid(server->child, &status, WNOHANG) != server->child)
		return false;
	server->child = 0;
	*ret_status = status_of(status);
	return true;
}

/* Nobody says anything there. */
static bool has_ended(int fd)
{
	char c;

	return read(fd, &c, 1) == 0;
}

enum { SIGNALS, INPUT, LISTENERS }; /* what the main thread waits for */

/* Whoever waits in the sockets' queues.  False: not now. */
static bool accept_all(struct server *server, const struct pollfd *fds)
{
	bool more = true;

	for (unsigned int i = 0; i < server->listeners.nr; i++)
		if (fds[i].revents & POLLIN)
			more &= accept_one(server, fds[i].fd);
	return more;
}

static int loop(struct server *server)
{
	struct pollfd fds[LISTENERS + LISTEN_MAX];
	bool more = true;
	int status = 0;

	for (;;) {
		bool full = !more || nr_clients(server) >= MAX_CLIENTS;

		fds[SIGNALS] = (struct pollfd){ .fd = server->signals,
						.events = POLLIN };
		fds[INPUT] = (struct pollfd){
			.fd = server->context.isolated ? STDIN_FILENO : -1,
			.events = POLLIN,
		};
		for (unsigned int i = 0; i < server->listeners.nr; i++)
			fds[LISTENERS + i] = (struct pollfd){
				.fd = server->listeners.fd[i],
				.events = full ? 0 : POLLIN,
			};
		/* A client that leaves makes room, and tells nobody here. */
		(void)poll(fds, LISTENERS + server->listeners.nr,
			   full ? 100 : -1);
		if (fds[SIGNALS].revents && take_signal(server, &status))
			return status;
		if (fds[INPUT].revents && has_ended(STDIN_FILENO))
			return status;
		more = accept_all(server, fds + LISTENERS);
	}
}

static void tell_ready(const struct server *server)
{
	if (!server->run) {
		printf("%s\n", server->context.isolated ?
				       SERVE_READY :
				       server->listeners.uri);
		(void)fflush(stdout);
	}
#ifdef HAVE_SYSTEMD
	(void)sd_notify(0, "READY=1");
#endif
}

/* --- Begin and end -------------------------------------------------------- */

static int begin(struct server *server, int argc, char **argv)
{
	int r = block_signals(server);

	if (r == 0)
		r = serve_child_prepare();
	if (r == 0)
		r = take_options(server, argc, argv);
	if (r == 0 && server->listeners.nr == 0 && server->run)
		r = listen_for_run(server);
	if (r == 0 && server->listeners.nr == 0) {
		complain("no socket was passed to this process (LISTEN_FDS, "
			 "LISTEN_PID), and no other place was given");
		r = -EINVAL;
	}
	if (server->credentials)
		listen_secured(&server->listeners);
	if (r == 0)
		r = open_disks(server, argc, argv);
	if (r == 0)
		r = start_lanes(server);
	if (r == 0 && server->run)
		r = start_command(server);
	return r;
}

/* What the command had to do may be half done: its status says so. */
static void end_command(struct server *server, int *ret_status)
{
	int status;

	(void)kill(server->child, SIGTERM);
	if (waitpid(server->child, &status, 0) == server->child)
		*ret_status = status_of(status);
}

static int end(struct server *server)
{
	int r = 0;

	listen_close(&server->listeners);
	for (unsigned int i = 0; i < server->nr_lanes; i++)
		serve_lane_end(server->lanes[i]);
	for (unsigned int i = 0; i < server->nr_lanes; i++)
		serve_lane_wait(server->lanes[i]);
	/* One lane's last flush is good for all: the others have ended. */
	while (server->nr_lanes > 0) {
		bool last = --server->nr_lanes == 0;
		int r2 = serve_lane_stop(server->lanes[server->nr_lanes], last);

		r = r ? r : r2;
	}
	while (server->nr_disks > 0)
		serve_disk_close(server->disks[--server->nr_disks]);
	nbd_credentials_free(server->credentials);
	if (server->folder)
		(void)rmdir(server->folder);
	free(server->folder);
	if (server->signals >= 0)
		(void)close(server->signals);
	return r;
}

int serve_main(int argc, char **argv, const char *backend_dir,
	       const char *state_dir, const char *config)
{
	struct server server = {
		.context = { .backend_dir = backend_dir,
			     .state_dir = state_dir,
			     .config = config },
		.signals = -1,
	};
	int status = 1, r;

	log_init("xendisk", LOG_LEVEL_WARNING);
	r = begin(&server, argc, argv);
	if (r == 0) {
		tell_ready(&server);
		status = loop(&server);
	} else if (r == -EBUSY) {
		status = EXIT_BUSY;
	}
	if (server.child)
		end_command(&server, &status);
	if (end(&server) < 0 && status == 0)
		status = 1;
	return status;
}
