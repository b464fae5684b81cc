/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/nursery-note.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "broker/orphans.h"
#include "broker/rundir.h"
#include "common/util.h"

#define FOLDER	      "children"
#define NAME_MAX_NOTE 48
#define SOCK_MAX      (NAME_MAX_NOTE + sizeof(".sock"))
/* Connections that the child has not taken yet. */
#define BACKLOG 64

static void print_name(char *buf, const struct nursery_note *note)
{
	(void)snprintf(buf, NAME_MAX_NOTE, "%" PRIu32 "-%" PRIu32 "-%" PRIu32,
		       note->domid, note->devid, note->layer);
}

static void print_socket(char *buf, const struct nursery_note *note)
{
	char name[NAME_MAX_NOTE];

	print_name(name, note);
	(void)snprintf(buf, SOCK_MAX, "%s.sock", name);
}

/* --- Notes ---------------------------------------------------------------- */

int nursery_note_write(const char *run_dir, const struct nursery_note *note)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	cleanup_close int fd = -1;
	cleanup_free char *text = NULL;
	char name[NAME_MAX_NOTE];
	uint64_t time = 0;
	int r = dir < 0 ? dir : 0;

	if (r == 0 && note->pid)
		r = orphans_start_time(note->pid, &time);
	if (r < 0)
		return r;
	text = xasprintf("%d %" PRIu64 " %" PRIu32 " %d\n%s\n%s\n",
			 (int)note->pid, time, note->slot, note->once, note->vm,
			 note->expression);
	if (!text)
		return -ENOMEM;
	fd = openat(dir, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = pwrite_all(fd, text, strlen(text), 0);
	print_name(name, note);
	if (r == 0 && renameat(dir, "new", dir, name) < 0)
		r = -errno;
	return r;
}

void nursery_note_remove(const char *run_dir, const struct nursery_note *note)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char name[NAME_MAX_NOTE], sock[SOCK_MAX];

	if (dir < 0)
		return;
	print_name(name, note);
	print_socket(sock, note);
	(void)unlinkat(dir, name, 0);
	(void)unlinkat(dir, sock, 0);
}

/* The text up to the next line's begin; NULL: it does not end. */
static char *cut_line(char *text)
{
	char *end = strchr(text, '\n');

	if (end)
		*end = '\0';
	return end ? end + 1 : NULL;
}

static bool parse_note(char *text, struct nursery_note *note,
		       uint64_t *ret_time)
{
	char *vm = cut_line(text);
	char *expression = vm ? cut_line(vm) : NULL;
	char *end = expression ? cut_line(expression) : NULL;
	int pid, once;

	if (!end || strlen(vm) >= sizeof(note->vm) ||
	    strlen(expression) >= sizeof(note->expression) ||
	    sscanf(text, "%d %" SCNu64 " %" SCNu32 " %d", &pid, ret_time,
		   &note->slot, &once) != 4 ||
	    pid < 0)
		return false;
	note->pid = pid;
	note->once = once;
	memcpy(note->vm, vm, strlen(vm) + 1);
	memcpy(note->expression, expression, strlen(expression) + 1);
	return true;
}

/* False: there is none that makes sense. */
static bool read_note(int dir, const char *name, struct nursery_note *note)
{
	char text[MSG_EXPR_MAX + 256];
	cleanup_close int fd =
		openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	uint64_t noted, now;
	int end = 0;

	if (n < 0 ||
	    sscanf(name, "%" SCNu32 "-%" SCNu32 "-%" SCNu32 "%n", &note->domid,
		   &note->devid, &note->layer, &end) != 3 ||
	    name[end])
		return false;
	text[n] = '\0';
	if (!parse_note(text, note, &noted))
		return false;
	if (note->pid &&
	    (orphans_start_time(note->pid, &now) < 0 || now != noted))
		note->pid = 0;
	return true;
}

bool nursery_note_lives(const char *run_dir, const struct nursery_note *note)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	struct nursery_note again = { .pid = 0 };
	char name[NAME_MAX_NOTE];

	print_name(name, note);
	return dir >= 0 && read_note(dir, name, &again) && again.pid &&
	       again.pid == note->pid;
}

int nursery_note_each(const char *run_dir,
		      void (*fn)(void *ctx, const struct nursery_note *note),
		      void *ctx)
{
	struct dirent *entry;
	DIR *dir;
	int r = rundir_list(run_dir, FOLDER, &dir);

	if (r < 0)
		return r;
	while ((entry = readdir(dir))) {
		struct nursery_note note = { .pid = 0 };
		size_t length = strlen(entry->d_name);

		/* A socket goes with its note. */
		if (entry->d_name[0] == '.' ||
		    (length > 5 &&
		     strcmp(entry->d_name + length - 5, ".sock") == 0))
			continue;
		if (!read_note(dirfd(dir), entry->d_name, &note))
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
		else if (!note.pid && !note.once)
			nursery_note_remove(run_dir, &note);
		else
			fn(ctx, &note);
	}
	(void)closedir(dir);
	return 0;
}

/* --- Sockets -------------------------------------------------------------- */

int nursery_listen(const char *run_dir, const struct nursery_note *note)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char sock[SOCK_MAX];

	print_socket(sock, note);
	return dir < 0 ? dir : rundir_listen(dir, sock, SOCK_STREAM, BACKLOG);
}

int nursery_call(const char *run_dir, const struct nursery_note *note)
{
	cleanup_close int dir = rundir_folder(run_dir, FOLDER);
	char sock[SOCK_MAX];

	print_socket(sock, note);
	return dir < 0 ? dir :
			 rundir_call(dir, sock, SOCK_STREAM | SOCK_NONBLOCK);
}
