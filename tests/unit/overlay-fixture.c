/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "overlay-fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"

const struct overlay_of ofix_of = {
	.repo = "/srv/repo.git",
	.branch = "web",
	.holder = "a test",
};

#define PAGES 3u

/* On both sides of each border, and in the middle of nowhere. */
uint64_t ofix_sector(unsigned int index)
{
	uint64_t sectors = OFIX_SIZE / LAYER_SECTOR;
	unsigned int n = index % (OFIX_SECTORS / 4);

	switch (index / (OFIX_SECTORS / 4)) {
	case 0:
		return n * n;
	case 1:
		return MAP_PAGE_SECTORS - OFIX_SECTORS / 8 + n;
	case 2:
		return 2 * MAP_PAGE_SECTORS - OFIX_SECTORS / 8 + n;
	default:
		return sectors - OFIX_SECTORS / 4 + n;
	}
}

void ofix_new(struct ofix *f)
{
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

	memset(f, 0, sizeof(*f));
	(void)snprintf(f->path, sizeof(f->path), "%s/xendisk-overlay-XXXXXX",
		       tmp);
	assert_non_null(mkdtemp(f->path));
	f->dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dir >= 0);
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		f->commit[0][i] = 1000 + i;
	f->nr_commits = 1;
}

void ofix_free(struct ofix *f)
{
	char command[128];

	ofix_kill(f);
	(void)close(f->dir);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", f->path);
	assert_int_equal(system(command), 0);
}

static struct overlay_facts first_facts(void)
{
	return (struct overlay_facts){ .size = OFIX_SIZE,
				       .base_size = OFIX_SIZE,
				       .chunk = OFIX_CHUNK };
}

int ofix_open(struct ofix *f)
{
	bool found;
	int err = overlay_open(&f->overlay, f->dir, &ofix_of, &found, &f->facts,
			       f->why);

	if (err == 0 && !found)
		f->facts = first_facts();
	return err;
}

int ofix_start(struct ofix *f, bool recover)
{
	int err = ofix_open(f);

	if (err == 0)
		err = overlay_lock(f->overlay, &f->facts, recover, f->why);
	if (err < 0)
		ofix_kill(f);
	return err;
}

void ofix_kill(struct ofix *f)
{
	overlay_close(TAKE_PTR(f->overlay));
}

int ofix_end(struct ofix *f)
{
	int err = overlay_unlock(f->overlay, f->why);

	ofix_kill(f);
	return err;
}

void ofix_write(struct ofix *f, unsigned int index, uint64_t stamp)
{
	struct layer *layer = overlay_active(f->overlay);
	uint64_t sector = ofix_sector(index), data[LAYER_SECTOR / 8];

	for (unsigned int i = 0; i < ARRAY_SIZE(data); i++)
		data[i] = stamp;
	if (stamp)
		assert_int_equal(pwrite(layer_data_fd(layer), data,
					sizeof(data),
					(off_t)(sector * LAYER_SECTOR)),
				 sizeof(data));
	else
		assert_int_equal(
			fallocate(layer_data_fd(layer),
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (off_t)(sector * LAYER_SECTOR), LAYER_SECTOR),
			0);
	assert_int_equal(layer_mark(layer, sector, sector + 1), 0);
}

static uint64_t read_from(const struct ofix *f, uint64_t gen,
			  unsigned int index)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int nr = overlay_layers(f->overlay, layers);
	uint64_t sector = ofix_sector(index), data[LAYER_SECTOR / 8];
	bool set;

	for (unsigned int i = 0; i < nr; i++) {
		if (layers[i].generation > gen)
			continue;
		(void)layer_run(layers[i].layer, sector, sector + 1, &set);
		if (!set)
			continue;
		assert_int_equal(pread(layers[i].data_fd, data, sizeof(data),
				       (off_t)(sector * LAYER_SECTOR)),
				 sizeof(data));
		for (unsigned int k = 1; k < ARRAY_SIZE(data); k++)
			assert_int_equal(data[k], data[0]);
		return data[0];
	}
	return f->commit[overlay_facts(f->overlay)->base[0]][index];
}

uint64_t ofix_read(const struct ofix *f, unsigned int index)
{
	return read_from(f, UINT64_MAX, index);
}

void ofix_commit(struct ofix *f, uint64_t gen, uint8_t ret[OID_BYTES])
{
	unsigned int number = f->nr_commits++;

	assert_true(number < OFIX_COMMITS);
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		f->commit[number][i] = read_from(f, gen, i);
	memset(ret, 0, OID_BYTES);
	ret[0] = (uint8_t)number;
}

void ofix_again(struct ofix *f)
{
	ofix_kill(f);
	assert_int_equal(ofix_start(f, true), 0);
}

int ofix_flush(struct ofix *f)
{
	return layer_flush(overlay_active(f->overlay));
}

uint64_t ofix_freeze(struct ofix *f)
{
	struct snapshot_info info = { .kind = 1,
				      .consistency = 2,
				      .time = 1234567890,
				      .domain = "a guest",
				      .message = "before the update" };
	uint64_t gen;

	assert_int_equal(overlay_freeze(f->overlay, &info, &gen, f->why), 0);
	return gen;
}

void ofix_committed(struct ofix *f, uint64_t gen)
{
	uint8_t id[OID_BYTES];

	ofix_commit(f, gen, id);
	assert_int_equal(overlay_committed(f->overlay, gen, id,
					   OVERLAY_ON_BRANCH, f->why),
			 0);
}

void ofix_drop(struct ofix *f)
{
	uint64_t gen;

	assert_int_equal(overlay_drop(f->overlay, &gen, f->why), 0);
	assert_int_equal(overlay_empty(f->overlay, gen, f->why), 0);
}
