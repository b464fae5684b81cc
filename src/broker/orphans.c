/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/orphans.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/util.h"

#define FOLDER	"workers"
#define WAIT_MS 2000

static int read_text(const char *path, char *buf, size_t size)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

/* When a living process started, in clock ticks: field 22 of its stat (proc(5)).  The
 * name in field 2 may hold anything, so fields are counted from its end. */
static int start_time(pid_t pid, uint64_t *ret)
{
	char path[40];
	char stat[1024];
	const char *p;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = read_text(path, stat, sizeof(stat));
	if (r < 0)
		return r;
	p = strrchr(stat, ')');
	if (p && (p[2] == 'Z' || p[2] == 'X'))
		return -ESRCH; /* dead, only not reaped */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, "%" SCNu64, ret) == 1 ? 0 : -EPROTO;
}

static void print_path(char *buf, size_t size, const char *run_dir, pid_t pid)
{
	snprintf(buf, size, "%s/" FOLDER "/%d", run_dir, (int)pid);
}

int orphans_note(const char *run_dir, pid_t pid)
{
	char path[4096];
	char text[32];
	cleanup_close int fd = -1;
	uint64_t time;
	int r = start_time(pid, &time);

	if (r < 0)
		return r;
	print_path(path, sizeof(path), run_dir, pid);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	snprintf(text, sizeof(text), "%" PRIu64 "\n", time);
	return pwrite_all(fd, text, strlen(text), 0);
}

void orphans_forget(const char *run_dir, pid_t pid)
{
	char path[4096];

	print_path(path, sizeof(path), run_dir, pid);
	(void)unlink(path);
}

/* Is that very process alive still? */
static bool is_alive(const char *run_dir, pid_t pid)
{
	char path[4096];
	char text[32];
	uint64_t noted;
	uint64_t now;

	print_path(path, sizeof(path), run_dir, pid);
	return read_text(path, text, sizeof(text)) == 0 &&
	       sscanf(text, "%" SCNu64, &noted) == 1 &&
	       start_time(pid, &now) == 0 && noted == now;
}

static void end_one(const char *run_dir, pid_t pid, uint64_t deadline)
{
	const struct timespec moment = { .tv_nsec = 5000000 };

	(void)kill(pid, SIGKILL);
	/* Init reaps it.  One that hangs in the kernel is left to the fences:
	 * they wait until what it had in flight is over. */
	while (is_alive(run_dir, pid) && now_ns() < deadline)
		(void)nanosleep(&moment, NULL);
}

int orphans_end(const char *run_dir, unsigned int *ret_nr)
{
	cleanup_free char *folder = xasprintf("%s/" FOLDER, run_dir);
	uint64_t deadline = now_ns() + WAIT_MS * 1000000ull;
	unsigned int nr = 0;
	struct dirent *entry;
	DIR *dir;

	if (!folder)
		return -ENOMEM;
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return -errno;
	dir = opendir(folder);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		uint32_t pid;

		if (parse_u32(entry->d_name, INT32_MAX, &pid) < 0)
			continue;
		if (is_alive(run_dir, (pid_t)pid)) {
			end_one(run_dir, (pid_t)pid, deadline);
			nr++;
		}
		orphans_forget(run_dir, (pid_t)pid);
	}
	(void)closedir(dir);
	*ret_nr = nr;
	return 0;
}
