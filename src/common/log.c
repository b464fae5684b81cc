/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A message is one line.  Under systemd (JOURNAL_STREAM names our stderr) it
 * goes to the journal with its fields; otherwise to stderr with the program's
 * name in front, written by one write() so that lines of several processes
 * never mix.  A daemon without either has /dev/null there: then it is syslog.
 * A worker inherits stderr and so logs to the same place.
 *
 * No line waits for the log's reader: a guest's requests do not stop because
 * journald hangs.  A line that is not taken at once is left out, and counted; the
 * next one that is taken is preceded by how many.  (syslog() may wait.)
 *
 * The journal is spoken to as systemd documents it ("Native Journal Protocol"):
 * libsystemd and what it needs would cost each worker 150 KiB.
 */
#include "config.h"

#include "common/log.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>

#include "common/vdev.h"

#define LINES_PER_SECOND 10
#define LINE_MAX_BYTES	 1024
#define JOURNAL_SOCKET	 "/run/systemd/journal/socket"

static const struct {
	const char *word;
	int syslog_priority;
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error", 3 },
	[LOG_LEVEL_WARNING] = { "warning", 4 },
	[LOG_LEVEL_INFO] = { "info", 6 },
	[LOG_LEVEL_DEBUG] = { "debug", 7 },
};

static const char *log_program = "xendisk";
static enum log_level log_level = LOG_LEVEL_INFO;
static enum { TO_STDERR, TO_JOURNAL, TO_SYSLOG } target;
static int journal_fd = -1;
static _Atomic(uint32_t) not_taken; /* lines, since the last that was taken */

/* Is stderr the stream that systemd connected to the journal? */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t dev;
	uintmax_t ino;
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	if (sscanf(stream, "%ju:%ju", &dev, &ino) != 2)
		return false;
	return dev == st.st_dev && ino == st.st_ino;
}

static bool stderr_is_null(void)
{
	struct stat null;
	struct stat st;

	return stat("/dev/null", &null) == 0 &&
	       fstat(STDERR_FILENO, &st) == 0 && S_ISCHR(st.st_mode) &&
	       st.st_rdev == null.st_rdev;
}

static int open_journal(void)
{
	const struct sockaddr_un at = { .sun_family = AF_UNIX,
					.sun_path = JOURNAL_SOCKET };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 &&
	    connect(fd, (const struct sockaddr *)&at, sizeof(at)) < 0) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

void log_init(const char *program, enum log_level level)
{
	log_program = program;
	log_level = level;
	target = stderr_is_journal() ? TO_JOURNAL :
		 stderr_is_null()    ? TO_SYSLOG :
				       TO_STDERR;
	/* At once: later a worker may not open anything. */
	if (target == TO_SYSLOG)
		openlog(program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	if (target == TO_JOURNAL && journal_fd < 0)
		journal_fd = open_journal();
}

enum log_level log_get_level(void)
{
	return log_level;
}

int log_parse_level(const char *word, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcmp(word, levels[i].word) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *log_level_word(enum log_level level)
{
	return levels[level].word;
}

/* A line fits in what a pipe or socket has room for when it has any. */
static bool is_taken(const char *line, size_t length)
{
	struct pollfd pfd = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (poll(&pfd, 1, 0) == 0)
		return false;
	(void)!write(STDERR_FILENO, line, length);
	return true;
}

/* False: it would have to wait. */
static bool to_stderr(enum log_level level, const char *where, const char *text)
{
	char line[LINE_MAX_BYTES + 128];
	bool plain = level == LOG_LEVEL_INFO;
	char priority[8] = "";
	int n;

	if (target == TO_JOURNAL)
		(void)snprintf(priority, sizeof(priority), "<%d>",
			       levels[level].syslog_priority);
	n = snprintf(line, sizeof(line), "%s%s: %s%s%s%s\n", priority,
		     log_program, plain ? "" : levels[level].word,
		     plain ? "" : ": ", where, text);
	n = MIN(n, (int)sizeof(line) - 1);
	return is_taken(line, (size_t)n);
}

/* A line for each field; there is no newline in any.  False: the journal is not
 * there; stderr leads to it, too. */
static bool to_journal(enum log_level level, const struct log_who *who,
		       const char *where, const char *text)
{
	char buf[LINE_MAX_BYTES + 512];
	char vdev[32];
	int n = snprintf(buf, sizeof(buf),
			 "SYSLOG_IDENTIFIER=%s\nPRIORITY=%d\nMESSAGE=%s%s\n",
			 log_program, levels[level].syslog_priority, where,
			 text);

	if (who && n < (int)sizeof(buf)) {
		vdev_print(vdev, sizeof(vdev), who->devid);
		n += snprintf(buf + n, sizeof(buf) - (size_t)n,
			      "XENDISK_DOMID=%" PRIu32
			      "\nXENDISK_DEVID=%" PRIu32 "\nXENDISK_VDEV=%s\n",
			      who->domid, who->devid, vdev);
	}
	return n < (int)sizeof(buf) && send(journal_fd, buf, (size_t)n,
					    MSG_NOSIGNAL | MSG_DONTWAIT) == n;
}

static bool put(enum log_level level, const struct log_who *who,
		const char *where, const char *text)
{
	if (target == TO_JOURNAL && to_journal(level, who, where, text))
		return true;
	if (target != TO_SYSLOG)
		return to_stderr(level, where, text);
	syslog(levels[level].syslog_priority, "%s%s", where, text);
	return true;
}

static void tell_not_taken(void)
{
	uint32_t n = atomic_load(&not_taken) ? atomic_exchange(&not_taken, 0) :
					       0;
	char text[80];

	if (!n)
		return;
	(void)snprintf(text, sizeof(text),
		       "%" PRIu32 " lines were left out: nobody took them", n);
	if (!put(LOG_LEVEL_WARNING, NULL, "", text))
		atomic_fetch_add(&not_taken, n);
}

static void emit(enum log_level level, const struct log_who *who,
		 const char *fmt, va_list ap) PRINTF(3, 0);

static void emit(enum log_level level, const struct log_who *who,
		 const char *fmt, va_list ap)
{
	char where[64] = "";
	char text[LINE_MAX_BYTES];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	/* A guest's bytes must not forge a line of their own. */
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	if (who)
		(void)snprintf(where, sizeof(where),
			       "d%" PRIu32 "/%" PRIu32 ": ", who->domid,
			       who->devid);
	tell_not_taken();
	if (!put(level, who, where, text))
		atomic_fetch_add(&not_taken, 1);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > log_level)
		return;
	va_start(ap, fmt);
	emit(level, NULL, fmt, ap);
	va_end(ap);
}

void log_disk(const struct log_who *who, enum log_level level, const char *fmt,
	      ...)
{
	va_list ap;

	if (level > log_level)
		return;
	va_start(ap, fmt);
	emit(level, who, fmt, ap);
	va_end(ap);
}

/* False: this second has had its lines. */
static bool may_log(struct log_who *who, enum log_level level)
{
	uint64_t second = now_ns() / 1000000000ull;
	uint64_t last = atomic_load(&who->second);

	/* One of the threads that see a new second begins it. */
	if (second != last &&
	    atomic_compare_exchange_strong(&who->second, &last, second)) {
		uint32_t left_out = atomic_exchange(&who->suppressed, 0);

		atomic_store(&who->lines, 0);
		if (left_out)
			log_disk(who, level,
				 "%" PRIu32 " more lines were left out",
				 left_out);
	}
	if (atomic_fetch_add(&who->lines, 1) < LINES_PER_SECOND)
		return true;
	atomic_fetch_add(&who->suppressed, 1);
	return false;
}

void log_guest(struct log_who *who, enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > log_level || !may_log(who, level))
		return;
	va_start(ap, fmt);
	emit(level, who, fmt, ap);
	va_end(ap);
}
