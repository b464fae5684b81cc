/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keep-notes.c - which files are to be emptied when a disk is no more (scratch.c has
 * the theory).  A note is a file of the disk's until the disk goes; then it has a name
 * of its own until it is dropped. */
#include "config.h"

#include "broker/keep-private.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "common/stamp.h"
#include "common/util.h"

#define LEFT_PREFIX   "left."
#define NOTE_NAME_MAX 48 /* "DOMID-DEVID.scratch.N" */

static void print_note_name(char *buf, size_t len, uint32_t domid,
			    uint32_t devid, unsigned int n)
{
	(void)snprintf(buf, len, "%" PRIu32 "-%" PRIu32 ".scratch.%u", domid,
		       devid, n);
}

void keep_note_scratch(struct keep *keep, const struct msg_identity *id,
		       unsigned int n, const char *line)
{
	cleanup_free char *text = xasprintf("%s\n", line);
	cleanup_close int fd = -1;
	char name[NOTE_NAME_MAX];

	print_note_name(name, sizeof(name), id->domid, id->devid, n);
	fd = openat(keep->dirs[XD_KEEP_STATE], name,
		    O_WRONLY | O_TRUNC | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
		    0600);
	if (text && fd >= 0)
		(void)!write(fd, text, strlen(text));
}

bool keep_is_noted(struct keep *keep, uint32_t domid, uint32_t devid,
		   unsigned int n)
{
	char name[NOTE_NAME_MAX];

	print_note_name(name, sizeof(name), domid, devid, n);
	return faccessat(keep->dirs[XD_KEEP_STATE], name, F_OK, 0) == 0;
}

/* What the worker has noted goes with the rest.  None: it has not written. */
static int add_times(struct keep *keep, const char *note, uint32_t domid,
		     uint32_t devid)
{
	cleanup_close int fd =
		openat(keep->dirs[XD_KEEP_STATE], note,
		       O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
	cleanup_close int from = -1;
	cleanup_free char *text = NULL;
	struct stamp_file stamps = { 0 };
	uint64_t begun, ended;

	if (fd < 0)
		return -errno;
	from = keep_read(keep, domid, devid, STAMP_NAME);
	if (from < 0 || pread(from, &stamps, sizeof(stamps), 0) < 0)
		return 0;
	stamp_last(&stamps, &begun, &ended);
	text = xasprintf("%" PRIu64 " %" PRIu64 "\n", begun, ended);
	return text && write(fd, text, strlen(text)) > 0 ? 0 : -EIO;
}

static char *leave(struct keep *keep, const char *note, uint32_t domid,
		   uint32_t devid)
{
	int dir = keep->dirs[XD_KEEP_STATE];

	if (add_times(keep, note, domid, devid) < 0)
		return NULL;
	for (;;) {
		cleanup_free char *left =
			xasprintf(LEFT_PREFIX "%u", keep->next_left++);

		if (!left)
			return NULL;
		if (renameat2(dir, note, dir, left, RENAME_NOREPLACE) == 0)
			return TAKE_PTR(left);
		if (errno != EEXIST)
			return NULL;
	}
}

char *keep_leave(struct keep *keep, uint32_t domid, uint32_t devid,
		 unsigned int n)
{
	char note[NOTE_NAME_MAX];

	print_note_name(note, sizeof(note), domid, devid, n);
	return leave(keep, note, domid, devid);
}

void keep_drop_left(struct keep *keep, const char *left)
{
	(void)unlinkat(keep->dirs[XD_KEEP_STATE], left, 0);
}

void keep_on_left(struct keep *keep,
		  void (*left)(void *ctx, const char *name, const char *text),
		  void *ctx)
{
	keep->left = left;
	keep->left_ctx = ctx;
}

bool keep_is_left(const char *name)
{
	return strncmp(name, LEFT_PREFIX, strlen(LEFT_PREFIX)) == 0;
}

static void tell_left(struct keep *keep, const char *name)
{
	cleanup_free char *text =
		keep_read_text(keep->dirs[XD_KEEP_STATE], name);

	if (text && keep->left)
		keep->left(keep->left_ctx, name, text);
}

struct leaving {
	struct keep *keep;
	bool (*exists)(void *ctx, uint32_t domid, uint32_t devid);
	void *ctx;
};

static void tell_file(void *ctx, int dir, const char *name)
{
	struct keep *keep = ctx;

	if (dir == keep->dirs[XD_KEEP_STATE] && keep_is_left(name))
		tell_left(keep, name);
}

static void leave_file(void *ctx, int dir, const char *name)
{
	const struct leaving *leaving = ctx;
	cleanup_free char *left = NULL;
	unsigned int domid, devid;
	int end = 0;

	if (dir != leaving->keep->dirs[XD_KEEP_STATE] ||
	    sscanf(name, "%u-%u.scratch.%n", &domid, &devid, &end) != 2 ||
	    !end || leaving->exists(leaving->ctx, domid, devid))
		return;
	left = leave(leaving->keep, name, domid, devid);
	if (left)
		tell_left(leaving->keep, left);
}

void keep_leave_notes(struct keep *keep,
		      bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		      void *ctx)
{
	struct leaving leaving = { keep, exists, ctx };

	(void)keep_each_file(keep, leave_file, &leaving);
}

void keep_tell_left(struct keep *keep)
{
	(void)keep_each_file(keep, tell_file, keep);
}
