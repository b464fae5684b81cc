/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/orphans.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "broker/rundir.h"
#include "common/util.h"

#define FOLDER "workers"
/* Of the next broker's call: an abandoned one of a broker that died while it
 * took over may be there, too. */
#define BACKLOG 8

/* --- Notes ---------------------------------------------------------------- */

/* Field 22 of its stat (proc(5)).  The name in field 2 may hold anything, so fields
 * are counted from its end. */
int orphans_start_time(pid_t pid, uint64_t *ret)
{
	char path[40];
	char stat[1024];
	cleanup_close int fd = -1;
	const char *p;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
	if (n < 0)
		return -ESRCH;
	stat[n] = '\0';
	p = strrchr(stat, ')');
	if (p && (p[2] == 'Z' || p[2] == 'X'))
		return -ESRCH; /* dead, only not reaped */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, "%" SCNu64, ret) == 1 ? 0 : -EPROTO;
}

static int write_note(int dir, const char *name, uint64_t time,
		      const struct orphan_note *note)
{
	char line[32];
	cleanup_close int fd = openat(
		dir, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int n = snprintf(line, sizeof(line), "%" PRIu64 "\n", time);
	int r;

	if (fd < 0)
		return -errno;
	r = pwrite_all(fd, line, (size_t)n, 0);
	if (r == 0)
		r = pwrite_all(fd, note, sizeof(*note), n);
	if (r < 0)
		return r;
	return renameat(dir, "new", dir, name) < 0 ? -errno : 0;
}

int orphans_note(const char *run_dir, pid_t pid, struct orphan_note *note)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char name[16];
	uint64_t time;
	int r = orphans_start_time(pid, &time);

	if (r < 0 || dir < 0)
		return r < 0 ? r : dir;
	(void)snprintf(name, sizeof(name), "%d", (int)pid);
	note->version = MSG_VERSION;
	note->size = sizeof(*note);
	return write_note(dir, name, time, note);
}

/* Opens a note behind its first line; -ESRCH: not of a living process. */
static int open_note(int dir, pid_t pid, off_t *ret_offset)
{
	char name[16];
	char line[32] = "";
	cleanup_close int fd = -1;
	uint64_t noted;
	uint64_t now;
	int end = 0;

	(void)snprintf(name, sizeof(name), "%d", (int)pid);
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
		return -errno;
	if (sscanf(line, "%" SCNu64 "%n", &noted, &end) != 1 ||
	    line[end] != '\n' || orphans_start_time(pid, &now) < 0 ||
	    noted != now)
		return -ESRCH;
	*ret_offset = end + 1;
	return TAKE_FD(fd);
}

static bool texts_end(const struct orphan_note *note)
{
	const struct msg_opened *opened = &note->opened;
	bool end = memchr(note->id.vm, 0, sizeof(note->id.vm)) &&
		   memchr(note->expression, 0, sizeof(note->expression)) &&
		   memchr(opened->notes, 0, sizeof(opened->notes)) &&
		   opened->nr_identities <= MSG_MAX_IDENTITIES;

	for (uint32_t i = 0; end && i < opened->nr_identities; i++)
		end = memchr(opened->identity[i], 0, MSG_IDENTITY_MAX);
	return end;
}

int orphans_read(const char *run_dir, pid_t pid, struct orphan_note *ret)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	off_t offset = 0;
	cleanup_close int fd = dir < 0 ? dir : open_note(dir, pid, &offset);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size != offset + (off_t)sizeof(*ret) ||
	    pread_all(fd, ret, sizeof(*ret), offset) < 0 ||
	    ret->version != MSG_VERSION || ret->size != sizeof(*ret) ||
	    !texts_end(ret))
		return -EPROTO;
	return 0;
}

void orphans_forget(const char *run_dir, pid_t pid)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", (int)pid);
	if (dir >= 0)
		(void)unlinkat(dir, name, 0);
}

int orphans_each(const char *run_dir, void (*fn)(void *ctx, pid_t pid),
		 void *ctx)
{
	struct dirent *entry;
	DIR *dir;
	int r = rundir_list(run_dir, FOLDER, &dir);

	if (r < 0)
		return r;
	while ((entry = readdir(dir))) {
		cleanup_close int fd = -1;
		off_t offset;
		uint32_t pid;

		if (parse_u32(entry->d_name, INT32_MAX, &pid) < 0)
			continue;
		fd = open_note(dirfd(dir), (pid_t)pid, &offset);
		if (fd == -ESRCH)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
		else if (fd >= 0)
			fn(ctx, (pid_t)pid);
	}
	(void)closedir(dir);
	return 0;
}

/* --- Sockets -------------------------------------------------------------- */

#define SOCKET_TYPE (SOCK_SEQPACKET | SOCK_NONBLOCK)

static void print_socket(char *buf, size_t size, unsigned int slot)
{
	(void)snprintf(buf, size, "sock-%u", slot);
}

int orphans_listen(const char *run_dir, unsigned int slot)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char name[32];

	print_socket(name, sizeof(name), slot);
	return dir < 0 ? dir : rundir_listen(dir, name, SOCKET_TYPE, BACKLOG);
}

int orphans_call(const char *run_dir, unsigned int slot)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char name[32];

	print_socket(name, sizeof(name), slot);
	return dir < 0 ? dir : rundir_call(dir, name, SOCKET_TYPE);
}
