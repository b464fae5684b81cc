/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-image.c - what is not raw is unpacked by qemu-img, into a file without a name.
 *
 * The format is said by whoever calls, never found out: a raw image may begin with
 * what looks like another one's header.  Files that an image names are not read.
 */
#include "config.h"

#include "git-image.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/fs.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/util.h"

#define INFO_MAX (1u << 20) /* bytes of what qemu-img says of an image */

int image_size(int fd, uint64_t *ret, char *ret_why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	if (S_ISREG(st.st_mode)) {
		*ret = (uint64_t)st.st_size;
	} else if (!S_ISBLK(st.st_mode)) {
		return why(ret_why, -EBADF,
			   "it is neither a file nor a block device");
	} else if (ioctl(fd, BLKGETSIZE64, ret) < 0) {
		return why(ret_why, -errno, "%s", strerror(errno));
	}
	if (*ret == 0 || *ret % 512 != 0)
		return why(ret_why, -EBADMSG,
			   "%" PRIu64 " bytes: a disk has a multiple of 512",
			   *ret);
	return 0;
}

static int open_raw(const char *path, char *ret_why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 ? why(ret_why, -errno, "%s", strerror(errno)) : fd;
}

/* --- qemu-img -------------------------------------------------------------------- */

/* Its stdin is empty, its stderr ours; out: its stdout, or -1 for stderr. */
static int start(const char *const *argv, int out, pid_t *ret_pid,
		 char *ret_why)
{
	posix_spawn_file_actions_t actions;
	int r = posix_spawn_file_actions_init(&actions);

	if (r == 0)
		r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO,
						     "/dev/null", O_RDONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(
			&actions, out < 0 ? STDERR_FILENO : out, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawnp(ret_pid, argv[0], &actions, NULL,
				 (char *const *)(uintptr_t)argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	if (r == ENOENT)
		return why(ret_why, -EOPNOTSUPP, "%s is not installed",
			   argv[0]);
	return r ? why(ret_why, -r, "%s: %s", argv[0], strerror(r)) : 0;
}

static int finish(const char *const *argv, pid_t pid, char *ret_why)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return why(ret_why, -errno, "%s: %s", argv[0],
				   strerror(errno));
	if (WIFSIGNALED(status))
		return why(ret_why, -EIO, "%s %s ended by signal %d", argv[0],
			   argv[1], WTERMSIG(status));
	if (WEXITSTATUS(status) != 0)
		return why(ret_why, -EIO, "%s %s fails", argv[0], argv[1]);
	return 0;
}

static int run(const char *const *argv, char *ret_why)
{
	pid_t pid;
	int r = start(argv, -1, &pid, ret_why);

	return r < 0 ? r : finish(argv, pid, ret_why);
}

static int read_text(int fd, char *text, size_t max, char *ret_why)
{
	size_t n = 0;
	ssize_t got;

	while ((got = read(fd, text + n, max - n)) != 0) {
		if (got < 0 && errno != EINTR)
			return why(ret_why, -errno, "%s", strerror(errno));
		n += (size_t)MAX(got, 0);
		if (n == max)
			return why(ret_why, -EFBIG, "it says too much");
	}
	text[n] = '\0';
	return 0;
}

static int run_read(const char *const *argv, size_t max, char **ret,
		    char *ret_why)
{
	cleanup_free char *text = malloc(max + 1);
	char ignored[WHY_MAX];
	int pipe[2];
	pid_t pid;
	int r, end;

	if (!text || pipe2(pipe, O_CLOEXEC) < 0)
		return why(ret_why, -ENOMEM, "%s: no memory", argv[0]);
	r = start(argv, pipe[1], &pid, ret_why);
	(void)close(pipe[1]);
	if (r < 0) {
		(void)close(pipe[0]);
		return r;
	}
	r = read_text(pipe[0], text, max, ret_why);
	(void)close(pipe[0]);
	end = finish(argv, pid, r < 0 ? ignored : ret_why);
	if (r == 0)
		r = end;
	if (r == 0)
		*ret = TAKE_PTR(text);
	return r;
}

/* --- Formats --------------------------------------------------------------------- */

static const struct {
	const char *name;
	const char *driver; /* QEMU's; NULL: none */
} formats[] = {
	{ "raw", NULL },
	{ "qcow2", "qcow2" },
	{ "vhd", "vpc" },
	{ "vmdk", "vmdk" },
};

/* As QEMU wants it in JSON. */
static char *image_json(const char *path, const char *driver)
{
	json_t *json = json_pack("{s:s,s:{s:s,s:s}}", "driver", driver, "file",
				 "driver", "file", "filename", path);
	char *text, *whole = NULL;

	if (json && strcmp(driver, "vpc") != 0)
		(void)json_object_set_new(json, "backing", json_null());
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	if (text)
		whole = xasprintf("json:%s", text);
	free(text);
	json_decref(json);
	return whole;
}

/* What is wrong with it, or NULL. */
static const char *find_others(json_t *info, const char *path)
{
	json_t *data = json_object_get(json_object_get(info, "format-specific"),
				       "data");
	json_t *extent;
	size_t i;

	if (json_object_get(info, "backing-filename"))
		return "it has a backing file: qemu-img convert makes one "
		       "image of the two";
	if (json_object_get(data, "data-file"))
		return "its data is in another file: qemu-img convert makes "
		       "one image of the two";
	json_array_foreach(json_object_get(data, "extents"), i, extent)
	{
		const char *name =
			json_string_value(json_object_get(extent, "filename"));

		if (!name || strcmp(name, path) != 0)
			return "its data is in other files: qemu-img convert "
			       "makes one image of them";
	}
	return NULL;
}

/* An image that names others would have files of its maker's choice read. */
static int check_alone(const char *path, const char *driver, char *ret_why)
{
	const char *const argv[] = { "qemu-img", "info", "--output=json",
				     "-U",	 "-f",	 driver,
				     "--",	 path,	 NULL };
	cleanup_free char *text = NULL;
	const char *fault;
	json_t *info;
	int r = run_read(argv, INFO_MAX, &text, ret_why);

	if (r < 0)
		return r;
	info = json_loads(text, 0, NULL);
	fault = info ? find_others(info, path) : "qemu-img info makes no sense";
	json_decref(info);
	return fault ? why(ret_why, -EXDEV, "%s", fault) : 0;
}

/* Beside other large temporary files: it may be as large as what is in it. */
static int unpack(const char *name, const char *driver, char *ret_why)
{
	const char *folder = getenv("TMPDIR");
	/* Without a colon that QEMU could take for a protocol's. */
	cleanup_free char *path = realpath(name, NULL);
	cleanup_free char *from = NULL;
	cleanup_close int fd = -1;
	char to[40];
	int r;

	if (!path)
		return why(ret_why, -errno, "%s", strerror(errno));
	from = image_json(path, driver);
	r = check_alone(path, driver, ret_why);
	if (r < 0)
		return r;
	folder = folder && *folder ? folder : "/var/tmp";
	/* qemu-img inherits it. */
	fd = open(folder, O_TMPFILE | O_RDWR, 0600);
	if (fd < 0)
		return why(ret_why, -errno, "%s: a temporary file: %s", folder,
			   strerror(errno));
	(void)snprintf(to, sizeof(to), "/dev/fd/%d", fd);
	if (!from)
		return why(ret_why, -ENOMEM, "no memory");
	r = run((const char *const[]){ "qemu-img", "convert", "-O", "raw", "--",
				       from, to, NULL },
		ret_why);
	return r < 0 ? r : TAKE_FD(fd);
}

int image_open(const char *path, const char *format, char *ret_why)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (strcmp(format, formats[i].name) == 0)
			return formats[i].driver ?
				       unpack(path, formats[i].driver,
					      ret_why) :
				       open_raw(path, ret_why);
	return why(ret_why, -EINVAL,
		   "there is no format \"%s\"; raw, qcow2, vhd or vmdk",
		   format);
}
