/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fault - gives orders to the workers of tests/faults/xendiskd. */
#include "config.h"

#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
	const char *name, *where, *values;
} points[NR_FAULTS] = {
#define CRASH(name, where) [CRASH_##name] = { #name, #where, NULL },
#include "common/crash-points.def"
#undef CRASH
#define FAILURE(name, where, values) [FAIL_##name] = { #name, #where, values },
#include "failures.def"
#undef FAILURE
};

static const struct {
	const char *name, *help;
} switches[NR_SWITCHES] = {
#define X(name, help) { #name, help },
	FAULT_SWITCHES(X)
#undef X
};

static const char *const actions[] = {
	[ORDER_PASS] = "pass",
	[ORDER_KILL] = "kill",
	[ORDER_GHOST] = "ghost",
	[ORDER_FAIL] = "fail",
};

static const struct {
	const char *name;
	uint32_t value;
} values[] = {
	{ "EIO", EIO },
	{ "ENOSPC", ENOSPC },
	{ "ENOMEM", ENOMEM },
	{ "EAGAIN", EAGAIN },
	{ "EINTR", EINTR },
	{ "EINVAL", EINVAL },
	{ "EFAULT", EFAULT },
	{ "EBUSY", EBUSY },
	{ "ENOBUFS", ENOBUFS },
	{ "ENOLCK", ENOLCK },
	{ "EOPNOTSUPP", EOPNOTSUPP },
	{ "EWOULDBLOCK", EWOULDBLOCK },
	{ "short", FAULT_SHORT },
	{ "status", FAULT_STATUS },
};

#define NR(array) (sizeof(array) / sizeof((array)[0]))

static int usage(void)
{
	fputs("usage: fault FILE new | orders ORDER... | switch NAME... |\n"
	      "                  done | lost_flushes | passed | points | "
	      "failures\n"
	      "An order is ACTION:NAME:NTH[:VALUE]; ACTION is pass, kill, ghost\n"
	      "(VALUE: ms) or fail (VALUE: an errno, short or status).\n"
	      "Switches:\n",
	      stderr);
	for (size_t i = 0; i < NR(switches); i++)
		fprintf(stderr, "  %-14s %s\n", switches[i].name,
			switches[i].help);
	return 2;
}

static struct fault_file *map_file(const char *path, bool create)
{
	int fd = open(path, O_RDWR | (create ? O_CREAT : 0), 0666);
	struct fault_file *file;

	/* Workers have users of their own. */
	if (fd < 0 ||
	    (create && (ftruncate(fd, 0) < 0 || fchmod(fd, 0666) < 0 ||
			ftruncate(fd, sizeof(*file)) < 0)))
		goto failed;
	file = mmap(NULL, sizeof(*file), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    0);
	if (file == MAP_FAILED)
		goto failed;
	if (create)
		file->magic = FAULT_MAGIC;
	if (file->magic == FAULT_MAGIC)
		return file;
	errno = EINVAL;
failed:
	perror(path);
	exit(1);
}

static bool parse_value(const char *text, uint32_t *ret)
{
	char *end;

	for (size_t i = 0; i < NR(values); i++) {
		if (strcmp(values[i].name, text) != 0)
			continue;
		*ret = values[i].value;
		return true;
	}
	*ret = (uint32_t)strtoul(text, &end, 10);
	return *text && !*end;
}

static bool parse_order(char *text, struct fault_order *ret)
{
	char *word[4] = { NULL };
	char *save = NULL;
	uint32_t i = 0;

	for (char *w = strtok_r(text, ":", &save); w && i < 4;
	     w = strtok_r(NULL, ":", &save))
		word[i++] = w;
	if (i < 3)
		return false;
	*ret = (struct fault_order){ .nth = strtoull(word[2], NULL, 10) };
	while (ret->action < NR(actions) &&
	       strcmp(actions[ret->action], word[0]) != 0)
		ret->action++;
	while (ret->what < NR_FAULTS &&
	       strcmp(points[ret->what].name, word[1]) != 0)
		ret->what++;
	return ret->action < NR(actions) && ret->what < NR_FAULTS &&
	       ret->nth > 0 && (!word[3] || parse_value(word[3], &ret->value));
}

/* Replaces what was ordered before. */
static int give_orders(struct fault_file *file, int argc, char **argv)
{
	struct fault_order order[FAULT_ORDERS];

	if (argc > FAULT_ORDERS)
		return usage();
	for (int i = 0; i < argc; i++)
		if (!parse_order(argv[i], &order[i]))
			return usage();
	__atomic_store_n(&file->nr_orders, 0, __ATOMIC_SEQ_CST);
	file->done = 0;
	file->lost_flushes = 0;
	memcpy(file->order, order, (size_t)argc * sizeof(order[0]));
	__atomic_store_n(&file->nr_orders, (uint32_t)argc, __ATOMIC_SEQ_CST);
	return 0;
}

static int turn_switches(struct fault_file *file, int argc, char **argv)
{
	uint32_t mask = 0;

	for (int i = 0; i < argc; i++) {
		size_t s = 0;

		while (s < NR_SWITCHES &&
		       strcmp(switches[s].name, argv[i]) != 0)
			s++;
		if (s == NR_SWITCHES)
			return usage();
		mask |= 1u << s;
	}
	file->switches = mask;
	return 0;
}

int main(int argc, char **argv)
{
	struct fault_file *file;
	const char *verb;

	if (argc < 3)
		return usage();
	verb = argv[2];
	file = map_file(argv[1], strcmp(verb, "new") == 0);
	if (strcmp(verb, "new") == 0)
		return 0;
	if (strcmp(verb, "orders") == 0)
		return give_orders(file, argc - 3, argv + 3);
	if (strcmp(verb, "switch") == 0)
		return turn_switches(file, argc - 3, argv + 3);
	if (strcmp(verb, "done") == 0) {
		printf("%u\n", file->done);
		return 0;
	}
	if (strcmp(verb, "lost_flushes") == 0) {
		printf("%u\n", file->lost_flushes);
		return 0;
	}
	for (uint32_t i = 0; i < NR_FAULTS; i++) {
		if (strcmp(verb, "passed") == 0)
			printf("%s %" PRIu64 "\n", points[i].name,
			       file->passed[i]);
		else if (strcmp(verb, "points") == 0 && !points[i].values)
			printf("%s %s\n", points[i].name, points[i].where);
		else if (strcmp(verb, "failures") == 0 && points[i].values)
			printf("%s %s %s\n", points[i].name, points[i].where,
			       points[i].values);
	}
	return 0;
}
