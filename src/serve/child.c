/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "serve/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "common/msg.h"
#include "common/program.h"
#include "common/util.h"

#define GREETING_MS 15000
#define END_MS	    5000

struct serve_child {
	struct program program;
	bool read_only;
	const char *backend_dir;
	char dir[32]; /* of the socket: only we may connect; or empty */
	pid_t pid; /* 0: it does not run */
	bool served; /* at some time */
	int status; /* of the last one */
};

int serve_child_new(struct serve_child **ret, const struct layer *layer,
		    const char *backend_dir)
{
	struct serve_child *child = calloc(1, sizeof(*child));
	int r;

	if (!child)
		return -ENOMEM;
	r = program_new(&child->program, layer);
	if (r < 0) {
		free(child);
		return r;
	}
	child->read_only = layer->read_only;
	child->backend_dir = backend_dir;
	*ret = child;
	return 0;
}

/* --- Its end -------------------------------------------------------------- */

int serve_child_prepare(void)
{
	char pid[16];

	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	return setenv(SERVE_CHILD_OF, pid, 1) < 0 ? -errno : 0;
}

/* Else one whose parent was killed would keep the image locked, and nobody would know
 * whose it is.  The signal comes when the thread that has started it ends (host.c). */
bool serve_child_follow(void)
{
	const char *of = getenv(SERVE_CHILD_OF);
	uint32_t pid;

	if (!of || parse_u32(of, INT32_MAX, &pid) < 0)
		return true; /* the daemon's, which outlives it */
	(void)prctl(PR_SET_PDEATHSIG, (unsigned long)SIGTERM, 0ul, 0ul, 0ul);
	return (uint32_t)getppid() == pid;
}

/* Within that time: has it ended? */
static bool has_ended(struct serve_child *child, unsigned int ms)
{
	const struct timespec pause = { .tv_nsec = 10000000 };

	for (unsigned int i = 0; child->pid && i <= ms / 10; i++) {
		if (waitpid(child->pid, &child->status, WNOHANG) != 0)
			child->pid = 0;
		else if (i < ms / 10)
			(void)nanosleep(&pause, NULL);
	}
	return !child->pid;
}

static void end(struct serve_child *child)
{
	pid_t group = child->pid;

	if (!group)
		return;
	(void)kill(-group, SIGTERM);
	if (!has_ended(child, END_MS)) {
		(void)kill(-group, SIGKILL);
		(void)has_ended(child, END_MS);
	}
}

void serve_child_free(struct serve_child *child)
{
	struct sockaddr_un at;

	if (!child)
		return;
	end(child);
	if (child->dir[0]) {
		(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s/sock",
			       child->dir);
		(void)unlink(at.sun_path);
		(void)rmdir(child->dir);
	}
	program_free(&child->program);
	free(child);
}

/* --- Its start ------------------------------------------------------------ */

static int make_socket(const struct serve_child *child, struct sockaddr_un *ret)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/sock",
		       child->dir);
	return fd < 0 ? -errno : fd;
}

static int listen_for(struct serve_child *child)
{
	struct sockaddr_un at;
	cleanup_close int fd = -1;

	if (!child->dir[0]) {
		char dir[] = "/tmp/xendisk-XXXXXX";

		if (!mkdtemp(dir))
			return -errno;
		memcpy(child->dir, dir, sizeof(dir));
	}
	fd = make_socket(child, &at);
	if (fd < 0)
		return fd;
	(void)unlink(at.sun_path);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    listen(fd, 64) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* What it has to say, it says where we say it. */
static int launch(struct serve_child *child, const int *files)
{
	cleanup_close int listener = listen_for(child);
	const struct program_spec spec = { .program = &child->program,
					   .listener = listener,
					   .out = STDERR_FILENO,
					   .files = files,
					   .backend_dir = child->backend_dir };

	return listener < 0 ? listener : program_spawn(&spec, &child->pid);
}

static int start(struct serve_child *child,
		 int (*open_file)(void *ctx, unsigned int param, int flags),
		 void *ctx)
{
	int files[PROGRAM_MAX_FILES];
	unsigned int n = 0;
	int r = 0;

	for (; r >= 0 && n < child->program.nr_files; n += r >= 0) {
		r = open_file(ctx, child->program.file[n],
			      child->read_only ? O_RDONLY : O_RDWR);
		files[n] = r;
	}
	if (r >= 0)
		r = launch(child, files);
	while (n > 0)
		(void)close(files[--n]);
	return r;
}

/* --- A connection --------------------------------------------------------- */

/* Until the greeting is there: then somebody serves. */
static int wait_for_greeting(struct serve_child *child, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char byte;

	for (unsigned int ms = 0; ms < GREETING_MS; ms += 100) {
		int n = poll(&pfd, 1, 100);

		if (n > 0)
			return recv(fd, &byte, 1, MSG_PEEK) == 1 ? 0 :
								   -ECONNRESET;
		if (has_ended(child, 0))
			return -ECONNRESET;
	}
	return -ETIMEDOUT;
}

static int try_to_call(struct serve_child *child)
{
	struct sockaddr_un at;
	cleanup_close int fd = make_socket(child, &at);
	int r;

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return -errno;
	r = wait_for_greeting(child, fd);
	return r < 0 ? r : TAKE_FD(fd);
}

static void explain(const struct serve_child *child, int err, char *ret_why)
{
	const char *name = child->program.argv[0];

	if (child->pid || err != -ECONNRESET)
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s: %s", name,
			       strerror(-err));
	else if (WIFSIGNALED(child->status))
		(void)snprintf(ret_why, MSG_TEXT_MAX,
			       "%s was killed by signal %d", name,
			       WTERMSIG(child->status));
	else
		(void)snprintf(ret_why, MSG_TEXT_MAX,
			       "%s exited with status %d: see above", name,
			       WEXITSTATUS(child->status));
}

int serve_child_call(struct serve_child *child, bool once,
		     int (*open_file)(void *ctx, unsigned int param, int flags),
		     void *ctx, char *ret_why)
{
	int r = 0;

	if (has_ended(child, 0) && once && child->served)
		return msg_why(ret_why, -ENODATA,
			       "%s has ended, and what it held is lost",
			       child->program.argv[0]);
	if (!child->pid)
		r = start(child, open_file, ctx);
	if (r >= 0)
		r = try_to_call(child);
	if (r >= 0) {
		child->served = true;
		return r;
	}
	if (r == -ECONNRESET || r == -ECONNREFUSED) {
		(void)has_ended(child, 1000);
		r = -ECONNRESET;
	}
	explain(child, r, ret_why);
	return r;
}
