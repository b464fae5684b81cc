/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util.h - the small things that every file uses.
 *
 * Cleanup attributes free what dies in its scope; take a value out of their
 * reach with TAKE_PTR() and TAKE_FD().
 */
#ifndef XENDISK_UTIL_H
#define XENDISK_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	   (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)	   ((a) < (b) ? (a) : (b))
#define MAX(a, b)	   ((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)	   (((x) + (a)-1) / (a) * (a))
#define DIV_ROUND_UP(x, a) (((x) + (a)-1) / (a))
#define PRINTF(f, a)	   __attribute__((format(printf, f, a)))

static inline bool is_power_of_2(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	errno = saved;
}

static inline void cleanup_filep(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

#define cleanup_free  __attribute__((cleanup(cleanup_freep)))
#define cleanup_close __attribute__((cleanup(cleanup_closep)))
#define cleanup_file  __attribute__((cleanup(cleanup_filep)))

#define TAKE_PTR(p)                         \
	({                                  \
		__typeof__(p) taken_ = (p); \
		(p) = NULL;                 \
		taken_;                     \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}
#define TAKE_FD(fd) take_fd(&(fd))

/* Like asprintf, but returns the string, or NULL when there is no memory. */
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);

/*
 * Decimal as xenstore has it: ^(0|[1-9][0-9]*)$.  Anything else, including
 * blanks, signs, leading zeroes and trailing bytes, is -EINVAL; more than max is
 * -ERANGE.
 */
int parse_u64(const char *text, uint64_t max, uint64_t *ret);
int parse_u32(const char *text, uint32_t max, uint32_t *ret);

/* Digits with an optional K, M, G or T (powers of 1024).  This and the next two:
 * -EINVAL; more than 64 bits: -ERANGE. */
int parse_size(const char *text, uint64_t *ret_bytes);
/* Digits with ms, s, m or h. */
int parse_time(const char *text, uint64_t *ret_ns);
/* yes/no, on/off, true/false, 1/0. */
int parse_bool(const char *text, bool *ret);

/* "4K", "1G", "1000": the shortest text that parse_size() takes back. */
void print_size(char *buf, size_t len, uint64_t bytes);
/* "10s", "250ms": the same for parse_time(). */
void print_time(char *buf, size_t len, uint64_t ns);

/* No control character is in it, a line feed neither. */
bool is_one_line(const char *text);

/* Monotonic clock, nanoseconds. */
uint64_t now_ns(void);

/* pread() or pwrite() of all of it, over EINTR and short counts.  0 or -errno; a file
 * that ends early is -ENODATA. */
int pread_all(int fd, void *buf, size_t len, uint64_t offset);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset);

/* Room for these bytes of a file that is mapped: where there is none when they are
 * touched, that is a SIGBUS.  0 also where the file system cannot do it. */
int reserve_room(int fd, uint64_t offset, uint64_t length);

/* mkdir -p; what exists already is fine, its mode is left alone.  mode is the
 * last one's, those above it get 0755. */
int make_dirs(const char *path, unsigned int mode);

/* Closes all descriptors with that number or a higher one; also where the kernel has
 * no close_range(2), or a filter forbids it. */
void close_fds_from(int first);

#endif
