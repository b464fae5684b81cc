/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A message is one line.  Under systemd (JOURNAL_STREAM names our stderr) it
 * goes to the journal with its fields; otherwise to stderr with the program's
 * name in front, written by one write() so that lines of several processes
 * never mix.  A daemon without either has /dev/null there: then it is syslog.
 * A worker inherits stderr and so logs to the same place.
 */
#include "config.h"

#include "common/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#ifdef HAVE_SYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

#include "common/vdev.h"

#define LINES_PER_SECOND 10
#define LINE_MAX_BYTES	 1024

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

void log_init(const char *program, enum log_level level)
{
	log_program = program;
	log_level = level;
	target = stderr_is_journal() ? TO_JOURNAL :
		 stderr_is_null()    ? TO_SYSLOG :
				       TO_STDERR;
	/* At once: later a worker may not open anything.  The journal's socket
	 * is opened by the first message and then kept. */
	if (target == TO_SYSLOG)
		openlog(program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
#ifdef HAVE_SYSTEMD
	if (target == TO_JOURNAL)
		(void)sd_journal_send("MESSAGE=%s begins to log", program,
				      "PRIORITY=7", NULL);
#endif
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

static void to_stderr(enum log_level level, const char *where, const char *text)
{
	char line[LINE_MAX_BYTES + 128];
	bool plain = level == LOG_LEVEL_INFO;
	char priority[8] = "";
	int n;

	if (target == TO_JOURNAL)
		snprintf(priority, sizeof(priority), "<%d>",
			 levels[level].syslog_priority);
	n = snprintf(line, sizeof(line), "%s%s: %s%s%s%s\n", priority,
		     log_program, plain ? "" : levels[level].word,
		     plain ? "" : ": ", where, text);
	n = MIN(n, (int)sizeof(line) - 1);
	(void)!write(STDERR_FILENO, line, (size_t)n);
}

#ifdef HAVE_SYSTEMD
static int journal(enum log_level level, const struct log_who *who,
		   const char *where, const char *text)
{
	int priority = levels[level].syslog_priority;
	char vdev[32];

	if (!who)
		return sd_journal_send("MESSAGE=%s", text, "PRIORITY=%i",
				       priority, NULL);
	vdev_print(vdev, sizeof(vdev), who->devid);
	return sd_journal_send("MESSAGE=%s%s", where, text, "PRIORITY=%i",
			       priority, "XENDISK_DOMID=%" PRIu32, who->domid,
			       "XENDISK_DEVID=%" PRIu32, who->devid,
			       "XENDISK_VDEV=%s", vdev, NULL);
}
#endif

static void emit(enum log_level level, const struct log_who *who,
		 const char *fmt, va_list ap) PRINTF(3, 0);

static void emit(enum log_level level, const struct log_who *who,
		 const char *fmt, va_list ap)
{
	char where[64] = "";
	char text[LINE_MAX_BYTES];

	vsnprintf(text, sizeof(text), fmt, ap);
	/* A guest's bytes must not forge a line of their own. */
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	if (who)
		snprintf(where, sizeof(where), "d%" PRIu32 "/%" PRIu32 ": ",
			 who->domid, who->devid);
#ifdef HAVE_SYSTEMD
	/* A worker that is locked down may not open the journal any more; its
	 * stderr still leads there. */
	if (target == TO_JOURNAL && journal(level, who, where, text) == 0)
		return;
#endif
	if (target == TO_SYSLOG)
		syslog(levels[level].syslog_priority, "%s%s", where, text);
	else
		to_stderr(level, where, text);
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

void log_guest(struct log_who *who, enum log_level level, const char *fmt, ...)
{
	uint64_t second = now_ns() / 1000000000ull;
	va_list ap;

	if (level > log_level)
		return;
	if (second != who->second) {
		uint32_t left_out = who->suppressed;

		who->second = second;
		who->lines = 0;
		who->suppressed = 0;
		if (left_out)
			log_disk(who, level,
				 "%" PRIu32 " more lines were left out",
				 left_out);
	}
	if (++who->lines > LINES_PER_SECOND) {
		who->suppressed++;
		return;
	}
	va_start(ap, fmt);
	emit(level, who, fmt, ap);
	va_end(ap);
}
