/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-image.c - what is not raw is unpacked by qemu-img, into a file without a name.
 *
 * The format is said by whoever calls, never found out: a raw image may begin with
 * what looks like another one's header.
 *
 * Files that an image names are not read.  It is refused if it names some; and since
 * whoever may write to it, or to its folder, may change that when we have looked, it is
 * opened once, and qemu-img can open nothing but that file (Landlock), and what it takes
 * to run.
 */
#include "config.h"

#include "git-image.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/confine.h"
#include "common/util.h"

#define INFO_MAX (1u << 20) /* bytes of what qemu-img says of an image */

/* Bytes that QEMU locks (raw-lock.c). */
#define QEMU_WRITES	   101
#define QEMU_KEEPS_WRITERS 201

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

/* What is written meanwhile would make a disk of what was and what is, a state that the
 * image never had.  The locks are those of raw (xendisk-raw(7)) and of QEMU: taken first,
 * looked at then.  Where there are none it is read without. */
static int keep_writers_off(int fd, char *ret_why)
{
	struct flock unshared = { .l_type = F_RDLCK,
				  .l_start = QEMU_KEEPS_WRITERS,
				  .l_len = 1 };
	struct flock used = { .l_type = F_WRLCK,
			      .l_start = QEMU_WRITES,
			      .l_len = 1 };

	if ((flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK) ||
	    (fcntl(fd, F_OFD_SETLK, &unshared) < 0 &&
	     (errno == EAGAIN || errno == EACCES)) ||
	    (fcntl(fd, F_OFD_GETLK, &used) == 0 && used.l_type != F_UNLCK))
		return why(ret_why, -EBUSY,
			   "it is in use: another process has locked it for "
			   "writing");
	return 0;
}

static int open_raw(const char *path, char *ret_why)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r = fd < 0 ? why(ret_why, -errno, "%s", strerror(errno)) :
			 keep_writers_off(fd, ret_why);

	return r < 0 ? r : TAKE_FD(fd);
}

/* --- qemu-img -------------------------------------------------------------------- */

#define PROGRAM "qemu-img"

/* What it may open, and which program it is. */
static const char *const readable[] = { "/usr", "/bin", "/lib", "/lib64",
					"/etc/ld.so.cache" };

struct job {
	int image; /* the only file that it reads */
	int out; /* ... and writes; or -1 */
	char name[32]; /* of the image, for it */
	char program[PATH_MAX];
};

enum { CANNOT_CONFINE = 126, CANNOT_START };

static int find_program(char ret[PATH_MAX], char *ret_why)
{
	const char *path = getenv("PATH");

	for (path = path ? path : "/usr/bin"; *path;
	     path += strspn(path, ":")) {
		int n = (int)strcspn(path, ":");

		if (snprintf(ret, PATH_MAX, "%.*s/" PROGRAM, n, path) <
			    PATH_MAX &&
		    access(ret, X_OK) == 0)
			return 0;
		path += n;
	}
	return why(ret_why, -EOPNOTSUPP, PROGRAM " is not installed");
}

/* What is not there needs no rule. */
static void add_path(struct confine_path *paths, size_t *nr, const char *path,
		     enum confine_rights rights)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd >= 0)
		paths[(*nr)++] = (struct confine_path){ fd, rights };
}

static int confine(const struct job *job)
{
	struct confine_path paths[ARRAY_SIZE(readable) + 4] = {
		{ job->image, CONFINE_READ }, { job->out, CONFINE_ALL }
	};
	size_t nr = job->out < 0 ? 1 : 2;

	for (size_t i = 0; i < ARRAY_SIZE(readable); i++)
		add_path(paths, &nr, readable[i], CONFINE_READ);
	add_path(paths, &nr, job->program, CONFINE_READ);
	add_path(paths, &nr, "/dev/null", CONFINE_ALL); /* tries locks there */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return confine_paths(paths, nr);
}

/* In the child.  Its stdin is empty, its stderr ours; out: its stdout, or -1 for
 * stderr. */
static _Noreturn void become(const struct job *job, const char *const *argv,
			     int out)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(out < 0 ? STDERR_FILENO : out, STDOUT_FILENO) < 0 ||
	    confine(job) < 0)
		_exit(CANNOT_CONFINE);
	(void)execv(job->program, (char *const *)(uintptr_t)argv);
	_exit(CANNOT_START);
}

static int start(const struct job *job, const char *const *argv, int out,
		 pid_t *ret_pid, char *ret_why)
{
	pid_t pid = fork();

	if (pid == 0)
		become(job, argv, out);
	if (pid < 0)
		return why(ret_why, -errno, "%s: %s", argv[0], strerror(errno));
	*ret_pid = pid;
	return 0;
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
	if (WEXITSTATUS(status) == CANNOT_CONFINE)
		return why(ret_why, -EIO, "%s: giving up rights", argv[0]);
	if (WEXITSTATUS(status) == CANNOT_START)
		return why(ret_why, -EIO, "%s cannot be started", argv[0]);
	if (WEXITSTATUS(status) != 0)
		return why(ret_why, -EIO, "%s %s fails", argv[0], argv[1]);
	return 0;
}

static int run(const struct job *job, const char *const *argv, char *ret_why)
{
	pid_t pid;
	int r = start(job, argv, -1, &pid, ret_why);

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

static int run_read(const struct job *job, const char *const *argv, size_t max,
		    char **ret, char *ret_why)
{
	cleanup_free char *text = malloc(max + 1);
	char ignored[WHY_MAX];
	int pipe[2];
	pid_t pid;
	int r, end;

	if (!text || pipe2(pipe, O_CLOEXEC) < 0)
		return why(ret_why, -ENOMEM, "%s: no memory", argv[0]);
	r = start(job, argv, pipe[1], &pid, ret_why);
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
static int check_alone(const struct job *job, const char *driver, char *ret_why)
{
	const char *const argv[] = { PROGRAM, "info", "--output=json",
				     "-U",    "-f",   driver,
				     "--",    NULL,   NULL };
	const char *args[ARRAY_SIZE(argv)];
	cleanup_free char *text = NULL;
	char reason[WHY_MAX];
	const char *fault;
	json_t *info;
	int r;

	memcpy(args, argv, sizeof(argv));
	args[ARRAY_SIZE(argv) - 2] = job->name;
	r = run_read(job, args, INFO_MAX, &text, reason);
	if (r == -EIO)
		return why(ret_why, r,
			   "%.300s: it is no image of that format, or its data "
			   "is in other files",
			   reason);
	if (r < 0)
		return why(ret_why, r, "%s", reason);
	info = json_loads(text, 0, NULL);
	fault = info ? find_others(info, job->name) :
		       "qemu-img info makes no sense";
	json_decref(info);
	return fault ? why(ret_why, -EXDEV, "%s", fault) : 0;
}

/* qemu-img inherits it.  A FIFO would keep us for ever. */
static int open_image(const char *path, char *ret_why)
{
	cleanup_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return why(ret_why, -EBADF, "it is no file");
	return TAKE_FD(fd);
}

/* Beside other large temporary files: it may be as large as what is in it. */
static int open_temporary(char *ret_why)
{
	const char *folder = getenv("TMPDIR");
	int fd;

	folder = folder && *folder ? folder : "/var/tmp";
	/* qemu-img inherits it, too. */
	fd = open(folder, O_TMPFILE | O_RDWR, 0600);
	return fd < 0 ? why(ret_why, -errno, "%s: a temporary file: %s", folder,
			    strerror(errno)) :
			fd;
}

static int convert(struct job *job, const char *driver, char *ret_why)
{
	cleanup_free char *from = image_json(job->name, driver);
	char to[32];

	if (!from)
		return why(ret_why, -ENOMEM, "no memory");
	(void)snprintf(to, sizeof(to), "/dev/fd/%d", job->out);
	return run(job,
		   (const char *const[]){ PROGRAM, "convert", "-O", "raw", "--",
					  from, to, NULL },
		   ret_why);
}

static int unpack(const char *path, const char *driver, char *ret_why)
{
	cleanup_close int image = open_image(path, ret_why);
	cleanup_close int fd = -1;
	struct job job = { .image = image, .out = -1 };
	int r = image < 0 ? image : find_program(job.program, ret_why);

	if (r < 0)
		return r;
	(void)snprintf(job.name, sizeof(job.name), "/dev/fd/%d", image);
	r = check_alone(&job, driver, ret_why);
	if (r == 0)
		r = job.out = fd = open_temporary(ret_why);
	if (r >= 0)
		r = convert(&job, driver, ret_why);
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
