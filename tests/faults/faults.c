/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "faults.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "common/util.h"

static struct fault_file *file;

/* A worker's only: what its argument says decides, before main(). */
__attribute__((constructor)) static void fault_init(int argc, char **argv)
{
	const char *path = getenv("XENDISK_FAULTS");
	void *map;
	int fd;

	if (argc < 2 || strcmp(argv[1], "--worker") != 0 || !path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		abort();
	map = mmap(NULL, sizeof(*file), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0);
	if (map == MAP_FAILED)
		abort();
	(void)close(fd);
	file = map;
	if (file->magic != FAULT_MAGIC)
		abort();
}

static void sleep_ms(uint32_t ms)
{
	struct timespec ts = { .tv_sec = ms / 1000,
			       .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* SIGKILL to one thread ends its process; kill() is forbidden here. */
static _Noreturn void die(void)
{
	for (;;)
		(void)syscall(SYS_tgkill, getpid(), syscall(SYS_gettid),
			      SIGKILL);
}

/* Counts; the order that this passing carries out, or NULL. */
static struct fault_order *pass(uint32_t what)
{
	struct fault_order *order;
	uint32_t at;

	if (!file)
		return NULL;
	__atomic_fetch_add(&file->passed[what], 1, __ATOMIC_SEQ_CST);
	at = __atomic_load_n(&file->done, __ATOMIC_SEQ_CST);
	if (at >= file->nr_orders)
		return NULL;
	order = &file->order[at];
	if (order->what != what ||
	    __atomic_add_fetch(&order->passed, 1, __ATOMIC_SEQ_CST) !=
		    order->nth)
		return NULL;
	if (order->action == ORDER_KILL)
		sleep_ms(order->value);
	__atomic_store_n(&file->done, at + 1, __ATOMIC_SEQ_CST);
	return order;
}

void crash_point(enum crash_point point)
{
	const struct fault_order *order = pass(point);

	if (order && order->action == ORDER_KILL)
		die();
}

uint32_t fault_of(enum failure failure)
{
	const struct fault_order *order = pass((uint32_t)failure);

	return order && order->action == ORDER_FAIL ? order->value : 0;
}

bool fault_switched(enum fault_switch which)
{
	return file && file->switches >> which & 1;
}

void fault_lost_flush(void)
{
	__atomic_fetch_add(&file->lost_flushes, 1, __ATOMIC_SEQ_CST);
}

/*
 * As the kernel does with a write of a process that was killed: it holds the
 * open file, lock and all, and lands when it lands.
 */
void fault_ghost(enum failure failure, int fd, const struct iovec *iov,
		 unsigned int iovcnt, uint64_t offset)
{
	const struct fault_order *order;
	uint32_t at;

	if (!file)
		return;
	at = __atomic_load_n(&file->done, __ATOMIC_SEQ_CST);
	if (at >= file->nr_orders || file->order[at].action != ORDER_GHOST)
		return;
	order = pass((uint32_t)failure);
	if (!order)
		return;
	if (fork() > 0)
		die();
	for (int i = 3; i < 1024; i++)
		if (i != fd)
			(void)close(i);
	sleep_ms(order->value);
	(void)pwritev(fd, iov, (int)iovcnt, (off_t)offset);
	_exit(0);
}
