/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* isolate-needed.c - what an isolated process must go on being able to do. */
#include "config.h"

#include "isolate-actions.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/util.h"

static bool finished;
static int64_t finished_res;

static void call_done(struct xd_sys *sys, int64_t res)
{
	(void)sys;
	finished = true;
	finished_res = res;
}

static int64_t call(struct engine *engine, struct xd_sys sys)
{
	finished = false;
	sys.done = call_done;
	engine_sys(engine, &sys);
	while (!finished)
		if (engine_run(engine, UINT64_MAX) < 0)
			return -EIO;
	return finished_res;
}

static bool use_engine(struct engine *engine)
{
	char text[] = "isolated", back[8];
	struct iovec out = { text, 8 }, in = { back, 8 };
	struct xd_sys sys = {
		.op = XD_SYS_WRITEV, .fd = have.file, .iov = &out, .iovcnt = 1
	};
	bool ok;

	ok = call(engine, sys) == 8;
	sys.op = XD_SYS_READV;
	sys.iov = &in;
	ok = ok && call(engine, sys) == 8 && memcmp(text, back, 8) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_FDATASYNC, .fd = have.file };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_FALLOCATE,
			       .fd = have.file,
			       .length = 8192 };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_SEEK,
			       .fd = have.file,
			       .flags = SEEK_DATA };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_TIMER, .length = 1000000 };
	ok = ok && call(engine, sys) == 0;
	sys = (struct xd_sys){ .op = XD_SYS_POLL,
			       .fd = have.pipe[1],
			       .flags = POLLOUT };
	ok = ok && call(engine, sys) == POLLOUT;
	engine_wake(engine);
	return ok && engine_run(engine, UINT64_MAX) == 0;
}

static int use_uring(void)
{
	return use_engine(have.uring) ? 0 : -EIO;
}

static int use_threads(void)
{
	return use_engine(have.threads) ? 0 : -EIO;
}

static void *lane(void *arg)
{
	(void)arg;
	(void)prctl(PR_SET_NAME, "lane");
	return use_engine(have.uring) && use_engine(have.threads) ? &have :
								    NULL;
}

static int use_a_lane(void)
{
	pthread_t thread;
	void *ok;

	for (int i = 0; i < 3; i++) {
		if (pthread_create(&thread, NULL, lane, NULL) != 0 ||
		    pthread_join(thread, &ok) != 0 || !ok)
			return -EIO;
	}
	return 0;
}

/* A descriptor comes from the broker, as raw gets its file at connect. */
static int use_services(void)
{
	struct msg_service request = { .kind = MSG_SERVICE_KEEP,
				       .layer = 1,
				       .size = 4096,
				       .name = "map" };
	struct msg_service_done done;
	struct statx stx;
	struct stat st;
	void *map;
	int fd, r;

	r = services_call(have.services, &request, &done, &fd, 5000000000);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0 || st.st_size != 4096 ||
	    statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0)
		return -errno;
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	memset(map, 1, 4096);
	if (lseek(fd, 0, SEEK_DATA) != 0 || munmap(map, 4096) < 0)
		return -errno;
	return outcome(close(fd));
}

static int use_locks(void)
{
	struct flock lock = { .l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = 100,
			      .l_len = 1 };

	if (flock(have.file, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	return outcome(fcntl(have.file, F_OFD_SETLK, &lock));
}

/* Whether a server's host is there; of another kind of socket that is no
 * question. */
static int use_tcp_info(void)
{
	char info[8];
	socklen_t length = sizeof(info);

	if (getsockopt(have.sock, IPPROTO_TCP, TCP_INFO, info, &length) == 0)
		return 0;
	return errno == EOPNOTSUPP ? 0 : -errno;
}

static int use_memory(void)
{
	char *p = malloc(64 << 20);

	if (!p)
		return -ENOMEM;
	memset(p, 1, 64 << 20);
	p = realloc(p, 128 << 20);
	free(p);
	return p ? 0 : -ENOMEM;
}

static int use_stderr(void)
{
	return fprintf(stderr, "%s", "") == 0 ? 0 : -EIO;
}

const struct action needed_actions[] = {
	{ "calls on io_uring", use_uring, false },
	{ "calls by threads", use_threads, false },
	{ "lanes", use_a_lane, false },
	{ "the broker", use_services, false },
	{ "locks", use_locks, false },
	{ "TCP_INFO", use_tcp_info, false },
	{ "memory", use_memory, false },
	{ "a message", use_stderr, false },
};
const size_t nr_needed_actions = ARRAY_SIZE(needed_actions);
