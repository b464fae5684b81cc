/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker-fixture.h"

#include <assert.h>
#include <ftw.h>
#include <string.h>

#include "broker/child.h"
#include "broker/keep.h"
#include "broker/poison.h"
#include "common/util.h"

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static bool none_exists(void *ctx, uint32_t domid, uint32_t devid)
{
	(void)ctx;
	(void)domid;
	(void)devid;
	return false;
}

struct fixture *fixture_new(void)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct broker *broker = &fixture->broker;
	unsigned int bad;

	strcpy(fixture->dir, "/tmp/xendisk-test-XXXXXX");
	assert(mkdtemp(fixture->dir));
	broker->options.run_dir = fixture->dir;
	broker->options.state_dir = fixture->dir;
	broker->options.backend_dir = fixture->dir;
	broker->settings = &fixture->settings;
	broker->base = event_base_new();
	assert(broker->base);
	assert(children_new(&broker->children, broker->base) == 0);
	assert(keep_new(&broker->keep, fixture->dir, 1 << 20) == 0);
	assert(poison_new(&broker->poison, fixture->dir, &bad) == 0);
	return fixture;
}

void fixture_free(struct fixture *fixture)
{
	struct broker *broker = &fixture->broker;

	keep_sweep(broker->keep, none_exists, NULL);
	keep_free(broker->keep);
	poison_free(broker->poison);
	children_free(broker->children);
	event_base_free(broker->base);
	(void)nftw(fixture->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(fixture);
}

bool fixture_run(struct fixture *fixture, const bool *flag)
{
	uint64_t end = now_ns() + 5000000000ull;

	while (!*flag && now_ns() < end) {
		struct timeval tick = { .tv_usec = 50000 };

		(void)event_base_loopexit(fixture->broker.base, &tick);
		(void)event_base_loop(fixture->broker.base, EVLOOP_ONCE);
	}
	return *flag;
}

const char *fixture_path(const struct fixture *fixture, const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", fixture->dir, name);
	return path;
}

void fixture_write(const struct fixture *fixture, const char *name,
		   const char *text)
{
	FILE *file = fopen(fixture_path(fixture, name), "w");

	assert(file);
	fputs(text, file);
	fclose(file);
}
