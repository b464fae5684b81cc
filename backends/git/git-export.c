/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-export.c - a disk becomes an image.
 *
 * One thread goes through the trees and finds where each chunk is; others read,
 * inflate and write, each chunk where it belongs.  What they get has been found, so
 * nothing about its pack changes any more.  What is all zero stays a hole.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "git-tool.h"
#include "pack-write.h"

#define QUEUE	    256u /* chunks that have been found and are not written */
#define CHUNK_CACHE (4u << 20) /* bytes: what deltas are made from */

struct job {
	uint64_t chunk;
	struct place place;
};

struct export
{
	struct tool_repo repo;
	struct chunk_map *map;
	struct git_disk disk;
	int fd; /* of the image; the caller's */
	struct progress progress;
	pthread_mutex_t lock;
	pthread_cond_t more, room;
	struct job queue[QUEUE];
	unsigned int first, nr;
	bool ended;
	int error; /* the first one, and why */
	char reason[WHY_MAX];
};

/* --- Writing ----------------------------------------------------------------------- */

/* The object is a chunk of that size, and comes out whole. */
static int write_chunk(struct export *export, struct reader *reader,
		       struct cache *cache, const struct job *job,
		       char *ret_why)
{
	uint32_t n = git_disk_bytes(&export->disk, job->chunk);
	const struct object *object;
	char path[GIT_CHUNK_PATH];
	int r = object_read(reader, job->place, &object);

	(void)git_disk_path(&export->disk, job->chunk, path);
	if (r < 0)
		return why(ret_why, r, "%s: %s", path,
			   r == -EBADMSG ? "the object is broken" :
					   strerror(-r));
	if (object->type != OBJECT_BLOB || object->size != n)
		r = why(ret_why, -EBADMSG,
			"%s: it is no blob of %" PRIu32 " bytes", path, n);
	if (r == 0)
		r = pwrite_all(export->fd, object->data, n,
			       job->chunk * export->disk.chunk);
	if (r < 0 && r != -EBADMSG)
		(void)why(ret_why, r, "the image: %s", strerror(-r));
	cache_put(cache, object);
	return r;
}

static bool take_job(struct export *export, struct job *ret)
{
	bool got;

	pthread_mutex_lock(&export->lock);
	while (export->nr == 0 && !export->ended && export->error == 0)
		pthread_cond_wait(&export->more, &export->lock);
	got = export->nr > 0 && export->error == 0;
	if (got) {
		*ret = export->queue[export->first];
		export->first = (export->first + 1) % QUEUE;
		export->nr--;
		pthread_cond_signal(&export->room);
	}
	pthread_mutex_unlock(&export->lock);
	return got;
}

static void set_error(struct export *export, int err, const char *reason)
{
	pthread_mutex_lock(&export->lock);
	if (export->error == 0) {
		export->error = err;
		(void)snprintf(export->reason, sizeof(export->reason), "%s",
			       reason);
	}
	pthread_cond_broadcast(&export->more);
	pthread_cond_broadcast(&export->room);
	pthread_mutex_unlock(&export->lock);
}

static void *write_chunks(void *arg)
{
	struct export *export = arg;
	struct reader *reader = NULL;
	struct cache *cache = NULL;
	char reason[WHY_MAX] = "no memory";
	struct job job;
	int r = cache_new(&cache, CHUNK_CACHE);

	if (r == 0)
		r = reader_new(&reader, export->repo.from.odb, cache);
	while (r == 0 && take_job(export, &job))
		r = write_chunk(export, reader, cache, &job, reason);
	if (r < 0)
		set_error(export, r, reason);
	reader_free(reader);
	cache_free(cache);
	return NULL;
}

/* --- Finding ------------------------------------------------------------------------ */

/* -ECANCELED: a writer has failed. */
static int add_job(struct export *export, struct job job)
{
	int r = 0;

	pthread_mutex_lock(&export->lock);
	while (export->nr == QUEUE && export->error == 0)
		pthread_cond_wait(&export->room, &export->lock);
	if (export->error) {
		r = -ECANCELED;
	} else {
		export->queue[(export->first + export->nr++) % QUEUE] = job;
		pthread_cond_signal(&export->more);
	}
	pthread_mutex_unlock(&export->lock);
	return r;
}

static int find_chunk(void *ctx, uint64_t chunk, const uint8_t oid[OID_BYTES])
{
	struct export *export = ctx;
	struct job job = { .chunk = chunk };
	char text[WHY_MAX], path[GIT_CHUNK_PATH], hex[OID_HEX + 1];
	int r;

	if (tool_interrupted()) {
		set_error(export, -EINTR, "interrupted");
		return -ECANCELED;
	}
	progress_show(&export->progress, chunk * export->disk.chunk);
	r = odb_find(export->repo.from.odb, oid, &job.place, text);
	if (r == -ENOENT) {
		oid_hex(oid, hex);
		(void)why(text, r, "%s: object %s is not there",
			  git_disk_path(&export->disk, chunk, path), hex);
		r = -EBADMSG;
	}
	if (r < 0) {
		set_error(export, r, text);
		return -ECANCELED;
	}
	if (!odb_is_loose(job.place))
		return add_job(export, job);
	/* The spool grows while we find: nobody else may look into it. */
	r = write_chunk(export, export->repo.from.reader,
			export->repo.from.cache, &job, text);
	if (r < 0)
		set_error(export, r, text);
	return r < 0 ? -ECANCELED : 0;
}

static void find_chunks(struct export *export)
{
	char reason[WHY_MAX];
	int r = chunk_map_walk(export->map, &export->repo.source, 0,
			       git_disk_chunks(&export->disk), find_chunk,
			       export, reason);

	if (r < 0 && r != -ECANCELED)
		set_error(export, r, reason);
	pthread_mutex_lock(&export->lock);
	export->ended = true;
	pthread_cond_broadcast(&export->more);
	pthread_mutex_unlock(&export->lock);
}

static void copy_chunks(struct export *export)
{
	pthread_t threads[PACK_MAX_THREADS];
	unsigned int n = 0;

	/* One more, since they wait for the disk, too. */
	while (n < MIN(tool_threads() + 1, PACK_MAX_THREADS) &&
	       pthread_create(&threads[n], NULL, write_chunks, export) == 0)
		n++;
	if (n == 0)
		set_error(export, -ENOMEM, "no thread could be started");
	find_chunks(export);
	while (n > 0)
		(void)pthread_join(threads[--n], NULL);
}

/* --- The image ------------------------------------------------------------------------ */

/* A device is zeroed, which most do without writing. */
static int prepare_device(int fd, uint64_t size, char *ret_why)
{
	uint64_t range[2] = { 0, size };
	uint64_t there;

	if (ioctl(fd, BLKGETSIZE64, &there) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	if (there < size)
		return why(ret_why, -ENOSPC,
			   "the disk has %" PRIu64
			   " bytes, the device %" PRIu64,
			   size, there);
	if (ioctl(fd, BLKZEROOUT, range) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	return 0;
}

/* Nor may one be mounted, or part of another: of these the kernel knows. */
static int claim_device(int *io_fd, char *ret_why)
{
	char name[40];
	int fd;

	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", *io_fd);
	fd = open(name, O_WRONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return why(ret_why, -errno, "%s",
			   errno == EBUSY ? "it is in use: it is mounted, part "
					    "of another device, or a disk" :
					    strerror(errno));
	(void)close(*io_fd);
	*io_fd = fd;
	return 0;
}

/* A guest may have it, or be given it before it is whole: the locks are those that
 * disks of ours and QEMU take (xendisk-raw(7)).  Where there are none it is written
 * without. */
static int lock_output(int fd, char *ret_why)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int whole = flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
	int bytes = fcntl(fd, F_OFD_SETLK, &all) < 0 ? errno : 0;

	if (whole == EWOULDBLOCK || bytes == EAGAIN || bytes == EACCES)
		return why(ret_why, -EBUSY,
			   "it is in use: another process has locked it");
	return 0;
}

static int open_file(const char *path, bool force, char *ret_why)
{
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK |
			      (force ? 0 : O_EXCL),
		      0600);

	return fd < 0 ? why(ret_why, -errno, "%s%s", strerror(errno),
			    errno == EEXIST ? "; --force writes over it" : "") :
			fd;
}

static int open_output(const char *path, bool force, char *ret_why)
{
	cleanup_close int fd = open_file(path, force, ret_why);
	struct stat st;
	int r = fd;

	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return why(ret_why, -EBADF,
			   "it is neither a file nor a block device");
	if (S_ISBLK(st.st_mode))
		r = claim_device(&fd, ret_why);
	if (r >= 0)
		r = lock_output(fd, ret_why);
	return r < 0 ? r : TAKE_FD(fd);
}

/* As large as the disk only when it has all of it: fewer bytes are no image that
 * somebody could take for a whole one. */
static int prepare_output(int fd, uint64_t size, char *ret_why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return why(ret_why, -errno, "%s", strerror(errno));
	if (S_ISBLK(st.st_mode))
		return prepare_device(fd, size, ret_why);
	return ftruncate(fd, 0) < 0 ?
		       why(ret_why, -errno, "%s", strerror(errno)) :
		       0;
}

static int finish_output(struct export *export)
{
	struct stat st;

	if (fstat(export->fd, &st) < 0 ||
	    (S_ISREG(st.st_mode) &&
	     ftruncate(export->fd, (off_t) export->disk.size) < 0) ||
	    fsync(export->fd) < 0)
		return why(export->reason, -errno, "%s", strerror(errno));
	return 0;
}

static enum status export_all(const struct invocation *call,
			      struct export *export)
{
	const char *path = option(call, "output");
	int r;

	export->disk = *chunk_map_disk(export->map);
	r = prepare_output(export->fd, export->disk.size, export->reason);
	if (r < 0)
		return tool_fail(call, r, path, export->reason);
	progress_start(&export->progress, "export", export->disk.size);
	copy_chunks(export);
	progress_end(&export->progress);
	r = export->error;
	if (r == 0)
		r = finish_output(export);
	return r == 0 ? STATUS_DONE :
			tool_fail(call, r == -ENOENT ? -EBADMSG : r,
				  call->args[1], export->reason);
}

/* --- The verb --------------------------------------------------------------------- */

struct output {
	const struct invocation *call;
	int fd;
};

/* In a child, which may become another user. */
static enum status export_to(void *ctx)
{
	const struct output *output = ctx;
	const struct invocation *call = output->call;
	struct export *export = calloc(1, sizeof(*export));
	struct commit_facts commit;
	enum status status;

	if (!export)
		return tool_fail(call, -ENOMEM, call->args[1], "no memory");
	export->fd = output->fd;
	pthread_mutex_init(&export->lock, NULL);
	pthread_cond_init(&export->more, NULL);
	pthread_cond_init(&export->room, NULL);
	status = tool_open(call, call->args[0], &export->repo);
	if (status == STATUS_DONE) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		status = tool_revision(call, &export->repo, call->args[1],
				       &commit, &export->map);
		if (status == STATUS_DONE)
			status = export_all(call, export);
		chunk_map_free(export->map);
		tool_close(&export->repo);
	}
	pthread_cond_destroy(&export->room);
	pthread_cond_destroy(&export->more);
	pthread_mutex_destroy(&export->lock);
	free(export);
	return status;
}

/* Not what somebody else has put in its place. */
static void remove_output(int fd, const char *path)
{
	struct stat made, there;

	if (fstat(fd, &made) == 0 && lstat(path, &there) == 0 &&
	    made.st_dev == there.st_dev && made.st_ino == there.st_ino)
		(void)unlink(path);
}

/* The image is made, and removed when it has not become one, with the rights of who
 * calls. */
enum status verb_export(const struct invocation *call)
{
	struct output output = { .call = call };
	const char *path = option(call, "output");
	bool force = option(call, "force");
	char reason[WHY_MAX];
	enum status status;

	if (!path || !*path)
		return tool_usage(call, "-o FILE is missing");
	output.fd = open_output(path, force, reason);
	if (output.fd < 0)
		return tool_fail(call, output.fd, path, reason);
	status = tool_in_child(call, export_to, &output);
	if (status != STATUS_DONE && !force)
		remove_output(output.fd, path);
	(void)close(output.fd);
	return status;
}
