/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/util.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

char *xasprintf(const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

/* Decimal digits from *text on; leaves *text at the first other byte. */
static int take_digits(const char **text, uint64_t *ret)
{
	uint64_t value = 0;
	const char *p = *text;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	}
	*text = p;
	*ret = value;
	return 0;
}

int parse_u64(const char *text, uint64_t max, uint64_t *ret)
{
	const char *p = text;
	uint64_t value;
	int r;

	if (text[0] == '0' && text[1] != '\0')
		return -EINVAL;
	r = take_digits(&p, &value);
	if (r < 0)
		return r;
	if (*p != '\0')
		return -EINVAL;
	if (value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

int parse_u32(const char *text, uint32_t max, uint32_t *ret)
{
	uint64_t value;
	int r = parse_u64(text, max, &value);

	if (r < 0)
		return r;
	*ret = (uint32_t)value;
	return 0;
}

/* A number with one of several suffixes; the empty suffix is a unit too. */
struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "T", 1ull << 40 }, { "G", 1ull << 30 }, { "M", 1ull << 20 },
	{ "K", 1ull << 10 }, { "", 1 },		  { NULL, 0 },
};

static const struct unit time_units[] = {
	{ "h", 3600000000000ull },
	{ "m", 60000000000ull },
	{ "s", 1000000000ull },
	{ "ms", 1000000ull },
	{ NULL, 0 },
};

static int parse_unit(const char *text, const struct unit *units, uint64_t *ret)
{
	const char *p = text;
	uint64_t value;
	int r = take_digits(&p, &value);

	if (r < 0)
		return r;
	for (; units->suffix; units++) {
		if (strcmp(p, units->suffix) != 0)
			continue;
		if (__builtin_mul_overflow(value, units->factor, &value))
			return -ERANGE;
		*ret = value;
		return 0;
	}
	return -EINVAL;
}

static void print_unit(char *buf, size_t len, const struct unit *units,
		       uint64_t value)
{
	for (; units[1].suffix; units++)
		if (value && value % units->factor == 0)
			break;
	(void)snprintf(buf, len, "%" PRIu64 "%s", value / units->factor,
		       units->suffix);
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_unit(text, size_units, ret_bytes);
}

int parse_time(const char *text, uint64_t *ret_ns)
{
	return parse_unit(text, time_units, ret_ns);
}

void print_size(char *buf, size_t len, uint64_t bytes)
{
	print_unit(buf, len, size_units, bytes);
}

void print_time(char *buf, size_t len, uint64_t ns)
{
	print_unit(buf, len, time_units, ns);
}

int parse_bool(const char *text, bool *ret)
{
	static const char *const words[][2] = { { "no", "yes" },
						{ "off", "on" },
						{ "false", "true" },
						{ "0", "1" } };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		for (int value = 0; value < 2; value++) {
			if (strcmp(text, words[i][value]) != 0)
				continue;
			*ret = value;
			return 0;
		}
	}
	return -EINVAL;
}

bool is_one_line(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

int pread_all(int fd, void *buf, size_t len, uint64_t offset)
{
	char *p = buf;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset)
{
	const char *p = buf;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int reserve_room(int fd, uint64_t offset, uint64_t length)
{
	int r;

	do
		r = fallocate(fd, 0, (off_t)offset, (off_t)length);
	while (r < 0 && errno == EINTR);
	return r == 0 || errno == EOPNOTSUPP ? 0 : -errno;
}

int make_dirs(const char *path, unsigned int mode)
{
	cleanup_free char *copy = strdup(path);
	char *slash;

	if (!copy)
		return -ENOMEM;
	for (slash = strchr(copy + 1, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

void close_fds_from(int first)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, first, ~0u, 0) == 0)
		return;
#endif
	for (int i = first; i < 65536; i++)
		(void)close(i);
}
