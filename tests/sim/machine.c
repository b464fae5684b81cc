/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * `xensim start` forks the server.  It makes the machine file, starts the real
 * xenstored as its child, writes dom0's keys, says "ready" through a pipe and
 * serves (serve.c).  A second thread waits for SIGTERM: it ends xenstored,
 * removes the directory and exits, so that nothing stays on /dev/shm however
 * the machine is ended (short of SIGKILL).  The server holds a POSIX lock on
 * DIR/server: whoever wants to stop it asks the kernel for the lock's owner.
 */
#include "config.h"

#include "machine.h"
#include "hv.h"
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xenstore.h>

#define STORE_WAIT_MS 10000
#define STOP_WAIT_MS  10000

/* --- Paths and environment --------------------------------------------------- */

const char *machine_lib_dir(void)
{
	static char dir[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 5);

	if (n < 0)
		return "lib";
	dir[n] = '\0';
	strcpy(strrchr(dir, '/') + 1, "lib");
	return dir;
}

static void setenv_path(const char *name, const char *dir, const char *rest)
{
	char value[PATH_MAX];

	snprintf(value, sizeof(value), "%s%s", dir, rest);
	setenv(name, value, 1);
}

void machine_setenv(const char *dir)
{
	const char *old = getenv("LD_LIBRARY_PATH");
	char libs[2 * PATH_MAX];

	setenv_path("XENSIM_DIR", dir, "");
	setenv_path("XENSTORED_PATH", dir, "/xenstored/socket");
	setenv_path("XENSTORED_RUNDIR", dir, "/xenstored");
	snprintf(libs, sizeof(libs), "%s%s%s", machine_lib_dir(),
		 old && *old ? ":" : "", old ? old : "");
	if (!old || strncmp(old, machine_lib_dir(), strlen(machine_lib_dir())))
		setenv("LD_LIBRARY_PATH", libs, 1);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_dir(const char *dir)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int make_dirs(const char *dir)
{
	static const char *const sub[] = { "events", "xenstored" };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(sub) / sizeof(sub[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, sub[i]);
		if (mkdir(path, 0700) < 0)
			return -errno;
	}
	return 0;
}

/* --- xenstored ------------------------------------------------------------------ */

/* Debian's /usr/sbin/xenstored is a script that wants Xen to run. */
static const char *xenstored_path(void)
{
	const char *chosen = getenv("XENSIM_XENSTORED");
	static glob_t found;

	if (chosen)
		return chosen;
	if (glob("/usr/lib/xen-*/bin/xenstored", 0, NULL, &found) == 0)
		return found.gl_pathv[found.gl_pathc - 1];
	return access("/usr/sbin/xenstored", X_OK) ? NULL :
						     "/usr/sbin/xenstored";
}

static void redirect(const char *dir)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/xenstored.log", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0)
		return;
	dup2(fd, 1);
	dup2(fd, 2);
	close(fd);
}

/* It goes with the machine that was not to be. */
static void show_log(const char *dir)
{
	char path[PATH_MAX], line[512];
	FILE *log;

	snprintf(path, sizeof(path), "%s/xenstored.log", dir);
	log = fopen(path, "re");
	while (log && fgets(line, sizeof(line), log))
		fprintf(stderr, "xensim: xenstored: %s", line);
	if (log)
		fclose(log);
}

static void exec_xenstored(const char *dir, const char *program, uint32_t port)
{
	char value[PATH_MAX];
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	machine_setenv(dir);
	setenv_path("XENSTORED_ROOTDIR", dir, "/xenstored");
	setenv_path("LD_PRELOAD", machine_lib_dir(), "/preload-xenstored.so");
	snprintf(value, sizeof(value), "%u", port);
	setenv("XENSIM_STORE_PORT", value, 1);
	redirect(dir);
	execl(program, "xenstored", "--no-fork", "--internal-db", NULL);
	_exit(127);
}

static void nap(void)
{
	usleep(10 * 1000);
}

/* NULL: xenstored died or did not answer in time. */
static struct xs_handle *wait_for_store(pid_t pid)
{
	struct xs_handle *xs;

	for (int ms = 0; ms < STORE_WAIT_MS; ms += 10) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return NULL;
		xs = xs_open(XS_OPEN_SOCKETONLY);
		if (xs)
			return xs;
		nap();
	}
	return NULL;
}

static int start_xenstored(const char *dir, uint32_t port, pid_t *ret_pid,
			   struct xs_handle **ret_xs)
{
	const char *program = xenstored_path();
	pid_t pid;

	if (!program) {
		fprintf(stderr, "xensim: no xenstored found (Debian: package "
				"xen-utils-4.17)\n");
		return -ENOENT;
	}
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		exec_xenstored(dir, program, port);
	*ret_pid = pid;
	*ret_xs = wait_for_store(pid);
	if (*ret_xs)
		return 0;
	show_log(dir);
	fprintf(stderr, "xensim: %s does not answer\n", program);
	return -EIO;
}

/* As xen-init-dom0 does. */
static bool write_dom0(struct xs_handle *xs)
{
	static const char *const keys[][2] = {
		{ "/local/domain/0/domid", "0" },
		{ "/local/domain/0/name", "Domain-0" },
		{ "/local/domain/0/vm",
		  "/vm/00000000-0000-0000-0000-000000000000" },
		{ "/vm/00000000-0000-0000-0000-000000000000/name", "Domain-0" },
		{ "/vm/00000000-0000-0000-0000-000000000000/uuid",
		  "00000000-0000-0000-0000-000000000000" },
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!xs_write(xs, XBT_NULL, keys[i][0], keys[i][1],
			      (unsigned)strlen(keys[i][1])))
			return false;
	return true;
}

/* --- The server -------------------------------------------------------------------- */

struct server {
	char dir[64];
	struct hv *hv;
	struct hv_device dev; /* holds dom0's xenstore port */
	struct xs_handle *xs;
	pid_t xenstored;
};

static void *reaper_main(void *arg)
{
	struct server *s = arg;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	while (sigwait(&set, &sig))
		;
	kill(s->xenstored, SIGKILL);
	waitpid(s->xenstored, NULL, 0);
	remove_dir(s->dir);
	_exit(0);
}

static int take_server_lock(const char *dir)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/server", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0)
		return -errno;
	return 0; /* kept until the process ends */
}

static int server_begin(struct server *s, uint64_t memory_bytes)
{
	uint32_t port;
	int r = take_server_lock(s->dir);

	if (r == 0)
		r = make_dirs(s->dir);
	if (r == 0)
		r = hv_create(s->dir, memory_bytes);
	if (r == 0)
		r = hv_open(s->dir, &s->hv);
	if (r == 0)
		r = hv_device_open(s->hv, HV_EVENTS_FUTEX, 0, &s->dev);
	if (r == 0)
		r = hv_evtchn_alloc_unbound(&s->dev, 0, &port);
	if (r == 0) {
		setenv_path("XENSTORED_PATH", s->dir, "/xenstored/socket");
		r = start_xenstored(s->dir, port, &s->xenstored, &s->xs);
	}
	if (r == 0 && !write_dom0(s->xs))
		r = -EIO;
	return r;
}

/* Standard streams to nowhere: a caller's pipe must not wait for us. */
static void detach(void)
{
	int fd = open("/dev/null", O_RDWR);

	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void server_main(struct server *s, const struct machine_config *config,
			int ready)
{
	pthread_t reaper;
	sigset_t set;
	int r;

	setsid();
	if (config->captive)
		prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = server_begin(s, config->memory_bytes);
	if (r == 0)
		r = -pthread_create(&reaper, NULL, reaper_main, s);
	if (r < 0) {
		if (s->xenstored > 0)
			kill(s->xenstored, SIGKILL);
		remove_dir(s->dir);
	}
	if (write(ready, &r, sizeof(r)) != sizeof(r) || r < 0)
		_exit(1);
	close(ready);
	detach();
	serve(s->hv, s->xs);
	_exit(1);
}

/* --- Start and stop -------------------------------------------------------------------- */

static int choose_dir(const char *wanted, char dir[64])
{
	const char *base = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";

	if (!wanted) {
		snprintf(dir, 64, "%s/xensim-XXXXXX", base);
		return mkdtemp(dir) ? 0 : -errno;
	}
	if (strlen(wanted) >= 64) {
		fprintf(stderr, "xensim: %s: longer than 63 bytes\n", wanted);
		return -ENAMETOOLONG;
	}
	strcpy(dir, wanted);
	return mkdir(dir, 0700) < 0 ? -errno : 0;
}

int machine_start(const struct machine_config *config, char ret_dir[64])
{
	struct server server = { 0 };
	int ready[2], r = choose_dir(config->dir, server.dir), said = -EIO;
	pid_t pid;

	if (r < 0) {
		fprintf(stderr, "xensim: %s: %s\n",
			config->dir ? config->dir : server.dir, strerror(-r));
		return r;
	}
	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(ready[0]);
		server_main(&server, config, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &said, sizeof(said)) != sizeof(said))
		said = -EIO;
	close(ready[0]);
	if (said < 0) {
		fprintf(stderr, "xensim: cannot start a machine in %s: %s\n",
			server.dir, strerror(-said));
		return said;
	}
	strcpy(ret_dir, server.dir);
	return 0;
}

/* Who holds the server's lock; 0: nobody. */
static pid_t server_pid(const char *dir)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[PATH_MAX];
	int fd, r;

	snprintf(path, sizeof(path), "%s/server", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return 0;
	r = fcntl(fd, F_GETLK, &lock);
	close(fd);
	return r == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

int machine_stop(const char *dir)
{
	char path[PATH_MAX];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/machine", dir);
	if (access(path, F_OK))
		return -ENOENT;
	pid = server_pid(dir);
	if (pid > 0)
		kill(pid, SIGTERM);
	for (int ms = 0; pid > 0 && ms < STOP_WAIT_MS; ms += 10) {
		if (access(dir, F_OK))
			return 0;
		waitpid(pid, NULL, WNOHANG); /* when it is our child */
		nap();
	}
	if (pid > 0)
		return -ETIMEDOUT;
	remove_dir(dir);
	return 0;
}
