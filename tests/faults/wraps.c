/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * wraps.c - calls that fail when they are told to.
 *
 * The linker leads every call of NAME in the program and in its backends to
 * __wrap_NAME (ld's --wrap; local.am makes the list of the definitions here),
 * so that nothing in the product knows of this.
 */
#include "config.h"

#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <xenevtchn.h>
#include <xengnttab.h>

#include "common/util.h"
#include "faults.h"
#include "worker/engine-ops.h"
#include "worker/inflight.h"
#include "worker/isolate-seccomp.h"
#include "worker/range.h"
#include "worker/ring.h"

/* WRAP(type, name, (parameters)): declares both. */
#define WRAP(type, name, params)   \
	type __real_##name params; \
	type __wrap_##name params; \
	type __wrap_##name params

/* For a call that answers -1 and errno. */
#define FAIL_AS(failure, result)                            \
	do {                                                \
		uint32_t fault_ = fault_of(FAIL_##failure); \
		if (fault_ && fault_ < FAULT_SHORT) {       \
			errno = (int)fault_;                \
			return result;                      \
		}                                           \
	} while (0)

/* --- Memory and threads ---------------------------------------------------- */

WRAP(void *, malloc, (size_t size))
{
	FAIL_AS(malloc, NULL);
	return __real_malloc(size);
}

WRAP(void *, calloc, (size_t nr, size_t size))
{
	FAIL_AS(calloc, NULL);
	return __real_calloc(nr, size);
}

WRAP(void *, mmap,
     (void *addr, size_t length, int prot, int flags, int fd, off_t offset))
{
	FAIL_AS(mmap, MAP_FAILED);
	return __real_mmap(addr, length, prot, flags, fd, offset);
}

WRAP(int, madvise, (void *addr, size_t length, int advice))
{
	FAIL_AS(madvise, -1);
	return __real_madvise(addr, length, advice);
}

WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *),
      void *arg))
{
	uint32_t fault = fault_of(FAIL_thread);

	return fault ? (int)fault :
		       __real_pthread_create(thread, attr, run, arg);
}

/* --- Storage and kept state ------------------------------------------------ */

WRAP(int, fsync, (int fd))
{
	FAIL_AS(fsync, -1);
	return __real_fsync(fd);
}

WRAP(int, flock, (int fd, int how))
{
	FAIL_AS(flock, -1);
	return __real_flock(fd, how);
}

WRAP(int, fallocate, (int fd, int mode, off_t offset, off_t length))
{
	FAIL_AS(fallocate, -1);
	return __real_fallocate(fd, mode, offset, length);
}

WRAP(ssize_t, pread, (int fd, void *buf, size_t length, off_t offset))
{
	uint32_t fault = fault_of(FAIL_pread);

	if (fault == FAULT_SHORT)
		return __real_pread(fd, buf, length / 2, offset);
	if (fault) {
		errno = (int)fault;
		return -1;
	}
	return __real_pread(fd, buf, length, offset);
}

WRAP(ssize_t, pwrite, (int fd, const void *buf, size_t length, off_t offset))
{
	uint32_t fault = fault_of(FAIL_pwrite);

	if (fault == FAULT_SHORT)
		return __real_pwrite(fd, buf, length / 2, offset);
	if (fault) {
		errno = (int)fault;
		return -1;
	}
	return __real_pwrite(fd, buf, length, offset);
}

/* Of a vector, half: the first piece's. */
static struct iovec half_of(const struct iovec *iov)
{
	return (struct iovec){ iov->iov_base, iov->iov_len / 1024 * 512 };
}

WRAP(ssize_t, preadv2,
     (int fd, const struct iovec *iov, int iovcnt, off_t offset, int flags))
{
	uint32_t fault = fault_of(FAIL_preadv2);
	struct iovec half;

	if (fault == FAULT_SHORT) {
		half = half_of(iov);
		return __real_preadv2(fd, &half, 1, offset, flags);
	}
	if (fault) {
		errno = (int)fault;
		return -1;
	}
	return __real_preadv2(fd, iov, iovcnt, offset, flags);
}

WRAP(ssize_t, pwritev2,
     (int fd, const struct iovec *iov, int iovcnt, off_t offset, int flags))
{
	struct iovec half;
	uint32_t fault;

	fault_ghost(FAIL_pwritev2, fd, iov, (unsigned int)iovcnt,
		    (uint64_t)offset);
	fault = fault_of(FAIL_pwritev2);
	if (fault == FAULT_SHORT) {
		half = half_of(iov);
		return __real_pwritev2(fd, &half, 1, offset, flags);
	}
	if (fault) {
		errno = (int)fault;
		return -1;
	}
	return __real_pwritev2(fd, iov, iovcnt, offset, flags);
}

/* --- The engine ------------------------------------------------------------ */

static int64_t completion(enum failure failure, int64_t res)
{
	uint32_t fault = fault_of(failure);

	if (!fault)
		return res;
	if (fault == FAULT_SHORT)
		return res > 512 ? res / 1024 * 512 : res;
	if (failure == FAIL_sys_fdatasync && fault != EINTR &&
	    fault != EAGAIN) {
		fault_lost_flush();
		if (fault_switched(SWITCH_flush_lies))
			return res;
	}
	return -(int64_t)fault;
}

/* The call was made, and is told to have failed. */
WRAP(void, engine_done,
     (struct engine * engine, struct call *call, int64_t res))
{
	static const enum failure failure[] = {
		[XD_SYS_READV] = FAIL_sys_readv,
		[XD_SYS_WRITEV] = FAIL_sys_writev,
		[XD_SYS_FDATASYNC] = FAIL_sys_fdatasync,
		[XD_SYS_FALLOCATE] = FAIL_sys_fallocate,
	};
	const struct xd_sys *sys = sys_of(call);

	if (sys->op < ARRAY_SIZE(failure) && failure[sys->op])
		res = completion(failure[sys->op], res);
	__real_engine_done(engine, call, res);
}

/* A write that never reaches the file, and is told to have. */
static bool lose(const struct xd_sys *sys)
{
	return sys->op == XD_SYS_WRITEV && fault_switched(SWITCH_write_lies) &&
	       sys->offset % 8192 == 0;
}

WRAP(void, engine_sys, (struct engine * engine, struct xd_sys *sys))
{
	if (sys->op == XD_SYS_WRITEV)
		fault_ghost(FAIL_sys_writev, sys->fd, sys->iov, sys->iovcnt,
			    sys->offset);
	if (lose(sys))
		sys->op = XD_SYS_READV;
	__real_engine_sys(engine, sys);
}

WRAP(int, io_uring_submit, (struct io_uring * ring))
{
	uint32_t fault = fault_of(FAIL_uring_submit);

	return fault ? -(int)fault : __real_io_uring_submit(ring);
}

WRAP(int, io_uring_submit_and_wait_timeout,
     (struct io_uring * ring, struct io_uring_cqe **cqe, unsigned int nr,
      struct __kernel_timespec *ts, sigset_t *mask))
{
	uint32_t fault = fault_of(FAIL_uring_submit);

	return fault ? -(int)fault :
		       __real_io_uring_submit_and_wait_timeout(ring, cqe, nr,
							       ts, mask);
}

WRAP(ssize_t, read, (int fd, void *buf, size_t length))
{
	FAIL_AS(eventfd_read, -1);
	return __real_read(fd, buf, length);
}

/* --- The broker's socket ---------------------------------------------------- */

WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags))
{
	FAIL_AS(sendmsg, -1);
	return __real_sendmsg(fd, msg, flags);
}

WRAP(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags))
{
	FAIL_AS(recvmsg, -1);
	return __real_recvmsg(fd, msg, flags);
}

WRAP(int, ppoll,
     (struct pollfd * fds, nfds_t nr, const struct timespec *ts,
      const sigset_t *mask))
{
	FAIL_AS(ppoll, -1);
	return __real_ppoll(fds, nr, ts, mask);
}

/* --- Xen -------------------------------------------------------------------- */

WRAP(int, xengnttab_grant_copy,
     (xengnttab_handle * handle, uint32_t count,
      xengnttab_grant_copy_segment_t *segments))
{
	uint32_t fault = fault_of(FAIL_grant_copy);
	int r;

	if (fault && fault != FAULT_STATUS) {
		errno = (int)fault;
		return -1;
	}
	r = __real_xengnttab_grant_copy(handle, count, segments);
	if (fault)
		segments[count / 2].status = GNTST_general_error;
	return r;
}

WRAP(void *, xengnttab_map_domain_grant_refs,
     (xengnttab_handle * handle, uint32_t count, uint32_t domid, uint32_t *refs,
      int prot))
{
	FAIL_AS(grant_map, NULL);
	return __real_xengnttab_map_domain_grant_refs(handle, count, domid,
						      refs, prot);
}

WRAP(xenevtchn_port_or_error_t, xenevtchn_bind_interdomain,
     (xenevtchn_handle * handle, uint32_t domid, evtchn_port_t port))
{
	FAIL_AS(evtchn_bind, -1);
	return __real_xenevtchn_bind_interdomain(handle, domid, port);
}

WRAP(xenevtchn_port_or_error_t, xenevtchn_pending, (xenevtchn_handle * handle))
{
	FAIL_AS(evtchn_pending, -1);
	return __real_xenevtchn_pending(handle);
}

WRAP(int, xenevtchn_unmask, (xenevtchn_handle * handle, evtchn_port_t port))
{
	FAIL_AS(evtchn_unmask, -1);
	return __real_xenevtchn_unmask(handle, port);
}

WRAP(int, xenevtchn_notify, (xenevtchn_handle * handle, evtchn_port_t port))
{
	FAIL_AS(evtchn_notify, -1);
	return __real_xenevtchn_notify(handle, port);
}

/* --- Negative controls ------------------------------------------------------ */

WRAP(int, inflight_load,
     (const struct inflight *log, const struct inflight_id *id,
      struct inflight_image **ret, char *ret_why))
{
	if (!fault_switched(SWITCH_no_log))
		return __real_inflight_load(log, id, ret, ret_why);
	(void)snprintf(ret_why, MSG_TEXT_MAX, "a test has hidden the log");
	return -ENOENT;
}

WRAP(bool, range_lock,
     (struct range_table * table, struct range *range, unsigned int owner))
{
	if (fault_switched(SWITCH_no_interlock))
		return true;
	return __real_range_lock(table, range, owner);
}

WRAP(uint32_t, range_unlock, (struct range_table * table, struct range *range))
{
	if (fault_switched(SWITCH_no_interlock))
		return 0;
	return __real_range_unlock(table, range);
}

WRAP(void, ring_put,
     (struct ring * ring, uint64_t id, uint8_t op, int16_t status))
{
	static unsigned int n;

	__real_ring_put(ring, id, op, status);
	/* Where there is room: the daemon itself would notice otherwise. */
	if (fault_switched(SWITCH_answer_twice) && ++n % 20 == 0 &&
	    ring->rsp_prod != ring->req_cons)
		__real_ring_put(ring, id, op, status);
}

/* A ghost is a fork; see fault_ghost(). */
WRAP(int, isolate_seccomp, (bool relaxed))
{
	return __real_isolate_seccomp(relaxed ||
				      getenv("XENDISK_FAULTS_GHOST"));
}
