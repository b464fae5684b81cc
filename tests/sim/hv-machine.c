/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine file, the lock, and handles: open devices and their death.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CLOSE_WAIT_MS 100

/* --- Making and mapping the machine ---------------------------------------- */

static int machine_init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;
	int r = pthread_mutexattr_init(&attr);

	if (r)
		return -r;
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	r = pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return -r;
}

static int machine_init(struct hv_shared *s, uint32_t frames, uint64_t offset,
			uint64_t size)
{
	int r = machine_init_lock(&s->lock);

	if (r < 0)
		return r;
	s->header = (struct hv_header){
		.version = HV_VERSION,
		.nr_frames = frames,
		.memory_offset = offset,
		.size = size,
	};
	s->next_domid = 1;
	s->next_serial = 1;
	for (uint32_t i = 0; i < HV_MAPPINGS; i++)
		s->mappings[i].handle = HV_NONE;
	atomic_thread_fence(memory_order_release);
	s->header.magic = HV_MAGIC;
	return 0;
}

int hv_create(const char *dir, uint64_t memory_bytes)
{
	char path[PATH_MAX];
	uint64_t frames = memory_bytes / XENSIM_PAGE_SIZE;
	uint64_t offset =
		sizeof(struct hv_shared) + frames * sizeof(struct hv_frame);
	struct hv_shared *s;
	struct hv *hv;
	int fd, r;

	offset = (offset + 0x1fffff) & ~0x1fffffull;
	snprintf(path, sizeof(path), "%s/machine", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)(offset + memory_bytes)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	s = mmap(NULL, offset, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (s == MAP_FAILED)
		return -errno;
	r = machine_init(s, (uint32_t)frames, offset, offset + memory_bytes);
	munmap(s, offset);
	if (r < 0)
		return r;

	r = hv_open(dir, &hv);
	if (r < 0)
		return r;
	r = hv_domain_create(hv, 0, (const uint8_t[16]){ 0 }, NULL);
	hv_close(hv);
	return r;
}

static int machine_map(struct hv *hv)
{
	struct hv_header head;
	char path[PATH_MAX];
	void *p;

	snprintf(path, sizeof(path), "%s/machine", hv->dir);
	hv->fd = open(path, O_RDWR | O_CLOEXEC);
	if (hv->fd < 0)
		return -errno;
	if (pread(hv->fd, &head, sizeof(head), 0) != sizeof(head))
		return -EPROTO;
	if (head.magic != HV_MAGIC || head.version != HV_VERSION)
		return -EPROTO;
	p = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_SHARED, hv->fd,
		 0);
	if (p == MAP_FAILED)
		return -errno;
	madvise(p, head.size, MADV_DONTDUMP);
	hv->shared = p;
	hv->memory = (uint8_t *)p + head.memory_offset;
	return 0;
}

static pthread_mutex_t views_lock = PTHREAD_MUTEX_INITIALIZER;
static struct hv *views;

static void view_free(struct hv *hv)
{
	if (hv->shared)
		munmap(hv->shared, hv->shared->header.size);
	if (hv->fd >= 0)
		close(hv->fd);
	for (uint32_t i = 0; hv->writers && i < HV_HANDLES; i++)
		if (hv->writers[i].serial)
			close(hv->writers[i].fd);
	free(hv->writers);
	for (uint32_t i = 0; i < HV_DOMAINS; i++)
		if (hv->bells[i])
			close(hv->bells[i] - 1);
	pthread_mutex_destroy(&hv->writer_lock);
	free(hv);
}

static int view_new(const char *dir, struct hv **ret_hv)
{
	struct hv *hv = calloc(1, sizeof(*hv) + strlen(dir) + 1);
	int r;

	if (!hv)
		return -ENOMEM;
	strcpy(hv->dir, dir);
	hv->fd = -1;
	hv->users = 1;
	pthread_mutex_init(&hv->writer_lock, NULL);
	hv->writers = calloc(HV_HANDLES, sizeof(*hv->writers));
	r = hv->writers ? machine_map(hv) : -ENOMEM;
	if (r < 0) {
		view_free(hv);
		return r;
	}
	*ret_hv = hv;
	return 0;
}

int hv_open(const char *dir, struct hv **ret_hv)
{
	struct hv *hv;
	int r = 0;

	if (!dir)
		dir = getenv("XENSIM_DIR");
	if (!dir)
		return -ENOENT;
	pthread_mutex_lock(&views_lock);
	for (hv = views; hv; hv = hv->next)
		if (!strcmp(hv->dir, dir))
			break;
	if (hv) {
		hv->users++;
	} else {
		r = view_new(dir, &hv);
		if (r == 0) {
			hv->next = views;
			views = hv;
		}
	}
	pthread_mutex_unlock(&views_lock);
	if (r == 0)
		*ret_hv = hv;
	return r;
}

void hv_close(struct hv *hv)
{
	if (!hv)
		return;
	pthread_mutex_lock(&views_lock);
	if (--hv->users == 0) {
		struct hv **p = &views;

		while (*p != hv)
			p = &(*p)->next;
		*p = hv->next;
		view_free(hv);
	}
	pthread_mutex_unlock(&views_lock);
}

/*
 * A process killed inside the lock leaves at worst counts that do not fit the
 * mappings, so those are counted anew.
 */
void hv_lock(struct hv *hv)
{
	if (pthread_mutex_lock(&hv->shared->lock) == EOWNERDEAD) {
		pthread_mutex_consistent(&hv->shared->lock);
		hv_grant_recount(hv);
	}
}

void hv_unlock(struct hv *hv)
{
	pthread_mutex_unlock(&hv->shared->lock);
}

void hv_count(struct hv *hv, size_t counter, uint64_t n)
{
	atomic_fetch_add_explicit(&hv->shared->counters[counter], n,
				  memory_order_relaxed);
}

/* --- Handles ---------------------------------------------------------------- */

/* Serials name the FIFOs, so a late write never reaches a new owner. */
static void fifo_path(struct hv *hv, uint32_t serial, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/events/%u", hv->dir, serial);
}

static int ofd_lock(int fd, int cmd, struct flock *lock)
{
	*lock = (struct flock){ .l_type = F_WRLCK,
				.l_whence = SEEK_SET,
				.l_start = lock->l_start,
				.l_len = 1 };
	return fcntl(fd, cmd, lock) < 0 ? -errno : 0;
}

static int open_fifo(struct hv *hv, uint32_t serial, int flags)
{
	char path[PATH_MAX];
	int fd;

	fifo_path(hv, serial, path);
	fd = open(path, O_RDWR | O_CLOEXEC | flags);
	return fd < 0 ? -errno : fd;
}

static int make_fifo(struct hv *hv, uint32_t serial)
{
	char path[PATH_MAX];

	fifo_path(hv, serial, path);
	return mkfifo(path, 0600) < 0 ? -errno : open_fifo(hv, serial, 0);
}

static int open_machine(struct hv *hv)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/machine", hv->dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * Opened for reading too, so that a FIFO whose owner just died swallows the
 * event instead of raising SIGPIPE.
 */
int hv_writer(struct hv *hv, uint32_t index, uint32_t serial)
{
	struct hv_writer *w = &hv->writers[index];
	int fd;

	pthread_mutex_lock(&hv->writer_lock);
	fd = w->fd;
	if (w->serial != serial) {
		if (w->serial)
			close(w->fd);
		fd = open_fifo(hv, serial, O_NONBLOCK);
		w->serial = fd < 0 ? 0 : serial;
		w->fd = fd;
	}
	pthread_mutex_unlock(&hv->writer_lock);
	return fd < 0 ? -ENOENT : fd;
}

/* Nothing is opened: a locked-down process may be given descriptors. */
static void adopt_writer(struct hv *hv, uint32_t index, uint32_t serial, int fd)
{
	struct hv_writer *w = &hv->writers[index];

	pthread_mutex_lock(&hv->writer_lock);
	if (w->serial != serial) {
		if (w->serial)
			close(w->fd);
		w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		w->serial = w->fd < 0 ? 0 : serial;
	}
	pthread_mutex_unlock(&hv->writer_lock);
}

static void forget_writer(struct hv *hv, uint32_t index, uint32_t serial)
{
	struct hv_writer *w = &hv->writers[index];

	pthread_mutex_lock(&hv->writer_lock);
	if (w->serial == serial) {
		close(w->fd);
		w->serial = 0;
	}
	pthread_mutex_unlock(&hv->writer_lock);
}

/* Locked. */
static int handle_find_free(struct hv_shared *s, uint32_t *ret_index)
{
	for (uint32_t i = 0; i < HV_HANDLES; i++) {
		if (s->handles[i].kind != HV_FREE)
			continue;
		if (i >= s->nr_handles)
			s->nr_handles = i + 1;
		*ret_index = i;
		return 0;
	}
	return -EMFILE;
}

/* Locked. */
static int handle_open(struct hv *hv, enum hv_kind kind, uint32_t slot,
		       struct hv_device *dev)
{
	struct flock lock = { 0 };
	struct hv_handle *h;
	struct stat st;
	int r = handle_find_free(hv->shared, &dev->index);

	if (r < 0)
		return r;
	h = &hv->shared->handles[dev->index];
	dev->serial = hv->shared->next_serial++;
	dev->fd = kind == HV_EVENTS_FIFO ? make_fifo(hv, dev->serial) :
					   open_machine(hv);
	if (dev->fd < 0)
		return dev->fd;
	/* Now, because later the process may be unable to open anything. */
	if (kind == HV_EVENTS_FIFO)
		hv_writer(hv, dev->index, dev->serial);
	lock.l_start = kind == HV_EVENTS_FIFO ? 0 : dev->index;
	if (ofd_lock(dev->fd, F_OFD_SETLK, &lock) < 0 ||
	    fstat(dev->fd, &st) < 0) {
		r = -errno;
		close(dev->fd);
		return r;
	}
	memset(h, 0, sizeof(*h));
	h->pid = getpid();
	h->slot = slot;
	h->generation = hv_domain(hv, slot)->generation;
	h->restricted = HV_NONE;
	h->inode = st.st_ino;
	h->serial = dev->serial;
	h->kind = kind;
	return 0;
}

int hv_device_adopt(struct hv *hv, int fd, struct hv_device *ret_dev)
{
	struct hv_shared *s = hv->shared;
	struct stat st;
	int r = -EINVAL;

	if (fstat(fd, &st) < 0)
		return -errno;
	hv_lock(hv);
	for (uint32_t i = 0; r < 0 && i < s->nr_handles; i++) {
		struct hv_handle *h = &s->handles[i];

		if (h->kind != HV_EVENTS_FIFO || h->inode != st.st_ino)
			continue;
		*ret_dev = (struct hv_device){
			.hv = hv,
			.index = i,
			.serial = h->serial,
			.fd = fd,
			.adopted = true,
		};
		adopt_writer(hv, i, h->serial, fd);
		r = 0;
	}
	hv_unlock(hv);
	return r;
}

struct hv_handle *hv_device_handle(const struct hv_device *dev)
{
	return &dev->hv->shared->handles[dev->index];
}

/* Locked. */
static void handle_reap(struct hv *hv, uint32_t index)
{
	struct hv_handle *h = &hv->shared->handles[index];
	char path[PATH_MAX];

	switch ((enum hv_kind)h->kind) {
	case HV_GNTTAB:
		hv_grant_unmap_all(hv, index);
		break;
	case HV_EVENTS_FIFO:
	case HV_EVENTS_FUTEX:
		hv_evtchn_close_handle(hv, index);
		break;
	case HV_EVENTS_CLOSED:
		fifo_path(hv, h->serial, path);
		unlink(path);
		break;
	case HV_FREE:
		break;
	}
	if (h->kind == HV_EVENTS_FIFO) {
		h->kind = HV_EVENTS_CLOSED;
		return;
	}
	h->serial = 0;
	h->kind = HV_FREE;
}

/* Does anybody hold the lock of this handle?  fd: not the one that took it. */
static bool lock_held(int fd, off_t start)
{
	struct flock lock = { .l_start = start };

	return ofd_lock(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

/* Locked.  Does any process still hold the handle's file open? */
bool hv_handle_alive(struct hv *hv, uint32_t index)
{
	struct hv_handle *h = &hv->shared->handles[index];
	bool held;
	int fd;

	switch ((enum hv_kind)h->kind) {
	case HV_GNTTAB:
	case HV_EVENTS_FUTEX:
		return lock_held(hv->fd, index);
	case HV_EVENTS_FIFO:
		fd = open_fifo(hv, h->serial, O_NONBLOCK);
		if (fd < 0)
			return fd != -ENOENT;
		held = lock_held(fd, 0);
		close(fd);
		return held;
	default:
		return false;
	}
}

/*
 * If somebody else holds the file (a child, a peer it was passed to, a mapping
 * that was not unmapped) the handle lives on, as a device does.
 */
static void close_own(struct hv_device *dev)
{
	struct hv *hv = dev->hv;
	struct hv_handle *h = hv_device_handle(dev);
	bool fifo = h->kind == HV_EVENTS_FIFO, held = true;

	hv_lock(hv);
	close(dev->fd);
	if (h->serial == dev->serial) {
		held = fifo ? lock_held(hv->writers[dev->index].fd, 0) :
			      lock_held(hv->fd, dev->index);
		if (!held)
			handle_reap(hv, dev->index);
	}
	hv_unlock(hv);
	if (fifo && !held)
		forget_writer(hv, dev->index, dev->serial);
}

void hv_device_close(struct hv_device *dev)
{
	if (!dev->adopted) {
		close_own(dev);
		return;
	}
	/* Only another description can tell whether somebody else holds it. */
	forget_writer(dev->hv, dev->index, dev->serial);
	close(dev->fd);
	hv_server_ask(dev->hv, CLOSE_WAIT_MS);
}

void hv_reap(struct hv *hv)
{
	struct hv_shared *s = hv->shared;

	hv_lock(hv);
	for (uint32_t i = 0; i < s->nr_handles; i++)
		while (s->handles[i].kind != HV_FREE && !hv_handle_alive(hv, i))
			handle_reap(hv, i);
	hv_unlock(hv);
}

/*
 * Locked.  What hv_reap() does, but only for those whose process is not there any
 * more, not even as a zombie.  To look at every lock takes milliseconds where there
 * are a thousand handles, and who starts a backend process has waited for the last.
 */
static void reap_gone(struct hv *hv)
{
	struct hv_shared *s = hv->shared;
	pid_t alive = 0;

	for (uint32_t i = 0; i < s->nr_handles; i++) {
		struct hv_handle *h = &s->handles[i];

		if (h->kind != HV_EVENTS_CLOSED) {
			if (h->kind == HV_FREE || h->pid == alive)
				continue;
			if (kill(h->pid, 0) == 0 || errno != ESRCH) {
				alive = h->pid;
				continue;
			}
		}
		while (h->kind != HV_FREE && !hv_handle_alive(hv, i))
			handle_reap(hv, i);
	}
}

int hv_device_open(struct hv *hv, enum hv_kind kind, uint32_t slot,
		   struct hv_device *ret_dev)
{
	struct hv_device dev = { .hv = hv };
	int r;

	hv_lock(hv);
	reap_gone(hv);
	r = handle_open(hv, kind, slot, &dev);
	hv_unlock(hv);
	if (r == 0)
		*ret_dev = dev;
	return r;
}

/* --- The server's bell -------------------------------------------------------- */

static long futex(_Atomic uint32_t *word, int op, uint32_t val,
		  const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, val, timeout, NULL, 0);
}

void hv_server_ring(struct hv *hv)
{
	hv->shared->server_bell++;
	futex(&hv->shared->server_bell, FUTEX_WAKE, INT_MAX, NULL);
}

int hv_server_ask(struct hv *hv, int timeout_ms)
{
	struct hv_shared *s = hv->shared;
	const struct timespec timeout = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000L,
	};
	uint32_t mine = ++s->server_bell, done;

	futex(&s->server_bell, FUTEX_WAKE, INT_MAX, NULL);
	while ((int32_t)((done = s->server_done) - mine) < 0)
		if (futex(&s->server_done, FUTEX_WAIT, done, &timeout) < 0 &&
		    errno == ETIMEDOUT)
			return -ETIMEDOUT;
	return 0;
}

uint32_t hv_server_wait(struct hv *hv)
{
	struct hv_shared *s = hv->shared;
	uint32_t bell;

	while ((bell = s->server_bell) == s->server_done)
		futex(&s->server_bell, FUTEX_WAIT, bell, NULL);
	return bell;
}

void hv_server_done(struct hv *hv, uint32_t bell)
{
	hv->shared->server_done = bell;
	futex(&hv->shared->server_done, FUTEX_WAKE, INT_MAX, NULL);
}
