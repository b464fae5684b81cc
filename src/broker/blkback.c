/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkback.c - xen-blkback through sysfs and modprobe.
 *
 * Unbinding leaves the node's state alone (the driver allows rebinding, Linux
 * 5.6 on) and lets go of rings and event channel before the write returns.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "broker/blkback.h"
#include "common/pidfd.h"
#include "common/util.h"

#define BUS		"/sys/bus/xen-backend"
#define DRIVER		BUS "/drivers/vbd"
#define MAX_QUEUES	"/sys/module/xen_blkback/parameters/max_queues"
#define MODPROBE_WAIT_S 10

extern char **environ;

bool blkback_present(void)
{
	return access(DRIVER, F_OK) == 0;
}

/* Waits for the child, or kills it. */
static int wait_child(pid_t pid)
{
	cleanup_close int fd = pidfd_open(pid, 0);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	bool timeout = fd >= 0 && poll(&pfd, 1, MODPROBE_WAIT_S * 1000) == 0;
	int status = 0;

	if (timeout) {
		(void)kill(pid, SIGKILL); /* which the kernel may put off */
		(void)waitpid(pid, &status, WNOHANG);
		return -ETIMEDOUT;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int run_modprobe(void)
{
	char program[] = "modprobe", quiet[] = "-q", module[] = "xen-blkback";
	char *argv[] = { program, quiet, module, NULL };
	pid_t pid;
	int r = posix_spawnp(&pid, program, NULL, NULL, argv, environ);

	return r ? -r : wait_child(pid);
}

/* Sysfs reads and writes a short file as a whole. */
static uint32_t read_max_queues(void)
{
	cleanup_close int fd = open(MAX_QUEUES, O_RDONLY | O_CLOEXEC);
	char text[16];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	uint32_t queues = 0;

	if (n <= 0)
		return 0;
	text[n - (text[n - 1] == '\n')] = '\0';
	return parse_u32(text, UINT32_MAX, &queues) < 0 ? 0 : queues;
}

static void write_max_queues(uint32_t queues)
{
	cleanup_close int fd = open(MAX_QUEUES, O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)dprintf(fd, "%u", queues);
}

/* Does any disk land on it? */
static bool in_use(void)
{
	DIR *dir = opendir(DRIVER);
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir)))
		found = strncmp(entry->d_name, "vbd-", 4) == 0;
	if (dir)
		(void)closedir(dir);
	return found;
}

int blkback_load(uint32_t max_queues, uint32_t *ret_queues)
{
	bool present = blkback_present();
	int r = 0;

	if (!present && access(BUS, F_OK) == 0)
		r = run_modprobe();
	if (r < 0)
		return r;
	if (!in_use() && read_max_queues() > max_queues)
		write_max_queues(max_queues);
	*ret_queues = read_max_queues();
	return 0;
}

static void device_name(char *buf, size_t len, uint32_t domid, uint32_t devid)
{
	(void)snprintf(buf, len, "vbd-%u-%u", domid, devid);
}

bool blkback_owns(uint32_t domid, uint32_t devid)
{
	char name[32], path[96];

	device_name(name, sizeof(name), domid, devid);
	(void)snprintf(path, sizeof(path), DRIVER "/%s", name);
	return access(path, F_OK) == 0;
}

int blkback_take(uint32_t domid, uint32_t devid)
{
	cleanup_close int fd = -1;
	char name[32];
	int n;

	if (!blkback_owns(domid, devid))
		return 0;
	fd = open(DRIVER "/unbind", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	device_name(name, sizeof(name), domid, devid);
	n = snprintf(NULL, 0, "%s", name);
	return write(fd, name, (size_t)n) == n ? 0 : -errno;
}
