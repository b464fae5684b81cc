/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The in-flight log against its reason: a worker is stopped after any number of
 * stores, and the next one must answer each request exactly once.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util.h"
#include "worker/inflight.h"

#define SLOTS 32u

static struct inflight_id an_id(void)
{
	struct inflight_id id = { .domid = 5,
				  .devid = 51728,
				  .layout = BLKIF_X86_64,
				  .nr_rings = 1,
				  .nr_slots = SLOTS };

	(void)snprintf(id.vm, sizeof(id.vm), "uuid");
	id.ring[0].event_channel = 3;
	id.ring[0].nr_refs = 1;
	id.ring[0].ref[0] = 8;
	return id;
}

static struct inflight *new_log(int *ret_fd)
{
	struct inflight *log;
	int fd = memfd_create("inflight", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, INFLIGHT_BYTES), 0);
	*ret_fd = dup(fd);
	assert_int_equal(inflight_open(&log, fd), 0);
	return log;
}

/* --- The header ------------------------------------------------------------------ */

static void test_header(void **state)
{
	struct inflight_id id = an_id(), other = an_id();
	struct inflight_image *image = NULL;
	char why[MSG_TEXT_MAX];
	uint32_t rsp_prod = 7;
	int fd;
	struct inflight *log = new_log(&fd);

	(void)state;
	assert_int_equal(inflight_load(log, &id, &image, why), -ENOENT);
	inflight_start(log, &id, &rsp_prod);
	assert_int_equal(inflight_load(log, &id, &image, why), 0);
	assert_int_equal(image->cursor[0].rsp_prod, 7);
	free(image);
	other.ring[0].ref[0] = 9;
	assert_int_equal(inflight_load(log, &other, &image, why), -ESTALE);
	other = an_id();
	other.vm[0] = 'x';
	assert_int_equal(inflight_load(log, &other, &image, why), -ESTALE);
	other = an_id();
	other.storage++;
	assert_int_equal(inflight_load(log, &other, &image, why), -EXDEV);
	inflight_clear(log);
	assert_int_equal(inflight_load(log, &id, &image, why), -ENOENT);
	inflight_free(log);
	close(fd);
}

/* A flush of this storage has failed and no mark could be made: a guest that
 * connects anew must not make it forgotten. */
static void test_failure_outlives_connection(void **state)
{
	struct inflight_id id = an_id(), next = an_id(), other = an_id();
	struct inflight_image *image = NULL;
	char why[MSG_TEXT_MAX];
	uint32_t rsp_prod = 0;
	int fd;
	struct inflight *log = new_log(&fd);

	(void)state;
	next.ring[0].ref[0] = 9;
	other.storage++;
	assert_false(inflight_left_failure(log, &id));
	inflight_start(log, &id, &rsp_prod);
	assert_false(inflight_left_failure(log, &id));
	inflight_note(log, INFLIGHT_FLUSH_FAILED, true);
	inflight_note(log, INFLIGHT_WRITE_THROUGH, true);
	inflight_start(log, &next, &rsp_prod);
	assert_true(inflight_left_failure(log, &next));
	assert_int_equal(inflight_load(log, &next, &image, why), 0);
	assert_int_equal(image->notes, INFLIGHT_FLUSH_FAILED);
	free(image);
	assert_false(inflight_left_failure(log, &other));
	inflight_start(log, &other, &rsp_prod);
	assert_false(inflight_left_failure(log, &other));
	inflight_note(log, INFLIGHT_FLUSH_FAILED, true);
	inflight_clear(log);
	assert_false(inflight_left_failure(log, &other));
	inflight_free(log);
	close(fd);
}

/* ... also if the worker is killed in the middle of that: as it gets to the entries,
 * which cannot be written here. */
static void test_failure_outlives_death(void **state)
{
	struct inflight_id id = an_id(), next = an_id();
	struct inflight_image *image = NULL;
	char why[MSG_TEXT_MAX];
	uint32_t rsp_prod = 0;
	int fd, status;
	struct inflight *log = new_log(&fd);
	pid_t pid;

	(void)state;
	next.ring[0].ref[0] = 9;
	inflight_start(log, &id, &rsp_prod);
	inflight_note(log, INFLIGHT_FLUSH_FAILED, true);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)signal(SIGSEGV, SIG_DFL);
		(void)mprotect(inflight_ring(log, 0).entries, 4096, PROT_READ);
		inflight_start(log, &next, &rsp_prod);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_true(inflight_left_failure(log, &next));
	assert_false(inflight_has_rings(log));
	assert_int_equal(inflight_load(log, &next, &image, why), -ESTALE);
	inflight_start(log, &next, &rsp_prod);
	assert_int_equal(inflight_load(log, &next, &image, why), 0);
	assert_int_equal(image->notes, INFLIGHT_FLUSH_FAILED);
	free(image);
	inflight_free(log);
	close(fd);
}

static void test_other_version(void **state)
{
	struct inflight_id id = an_id();
	struct inflight_image *image = NULL;
	char why[MSG_TEXT_MAX];
	uint32_t rsp_prod = 0, version = 2;
	uint64_t magic = 1;
	int fd;
	struct inflight *log = new_log(&fd);

	(void)state;
	inflight_start(log, &id, &rsp_prod);
	assert_int_equal(pwrite(fd, &version, 4, 8), 4);
	assert_int_equal(inflight_load(log, &id, &image, why), -EPROTO);
	assert_non_null(strstr(why, "version 2"));
	assert_int_equal(pwrite(fd, &magic, 8, 0), 8);
	assert_int_equal(inflight_load(log, &id, &image, why), -EPROTO);
	inflight_free(log);
	close(fd);
}

static void test_short_file(void **state)
{
	int fd = memfd_create("short", MFD_CLOEXEC);
	struct inflight *log;

	(void)state;
	assert_int_equal(ftruncate(fd, INFLIGHT_BYTES - 1), 0);
	assert_int_equal(inflight_open(&log, fd), -EPROTO);
}

/* What rings use of it is there, and no more. */
static void test_reserved(void **state)
{
	struct stat st;
	int fd;
	struct inflight *log = new_log(&fd);

	(void)state;
	assert_int_equal(inflight_reserve(log, 2, 64), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks * 512,
			 INFLIGHT_HEAD_BYTES + 2 * 64 * INFLIGHT_ENTRY_BYTES);
	inflight_free(log);
	close(fd);
}

/* --- Every point of death -------------------------------------------------------- */

/*
 * A model of a worker and its ring.  Each store of the protocol is one step;
 * death comes when `budget` steps are made.  answered[] is what the guest has
 * seen: the number of responses to each request.
 */
struct model {
	struct inflight *log;
	struct inflight_ring ring;
	uint32_t budget;
	uint32_t rsp_prod; /* shared memory: what the guest sees */
	uint32_t responses[1024]; /* request index by response index */
	uint32_t req_cons;
	uint32_t own_rsp; /* the worker's private position */
	uint16_t in_flight[SLOTS]; /* entries */
	uint32_t nr_in_flight;
	uint16_t free[SLOTS];
	uint32_t nr_free;
};

static bool dead(struct model *m)
{
	if (m->budget == 0)
		return true;
	m->budget--;
	return false;
}

/* Takes up to count requests; false: died. */
static bool take(struct model *m, uint32_t count)
{
	for (; count > 0 && m->nr_free > 0; count--) {
		uint16_t entry = m->free[--m->nr_free];
		uint32_t index = m->req_cons++;

		if (dead(m))
			return false;
		memcpy(m->ring.entries[entry].slot, &index, sizeof(index));
		if (dead(m))
			return false;
		inflight_take(&m->ring, entry, index);
		m->in_flight[m->nr_in_flight++] = entry;
	}
	if (dead(m))
		return false;
	inflight_taken(&m->ring, m->req_cons);
	return true;
}

static bool answer(struct model *m, uint32_t count, unsigned int *seed)
{
	uint16_t done[SLOTS];
	uint32_t n = 0;

	for (; n < count && m->nr_in_flight > 0; n++) {
		uint32_t at = (uint32_t)rand_r(seed) % m->nr_in_flight;
		uint16_t entry = m->in_flight[at];
		uint32_t index;

		m->in_flight[at] = m->in_flight[--m->nr_in_flight];
		if (dead(m))
			return false;
		inflight_answer(&m->ring, entry, m->own_rsp, 0);
		if (dead(m))
			return false;
		memcpy(&index, m->ring.entries[entry].slot, sizeof(index));
		m->responses[m->own_rsp++] = index;
		done[n] = entry;
	}
	if (dead(m))
		return false;
	m->rsp_prod = m->own_rsp;
	if (dead(m))
		return false;
	inflight_published(&m->ring, m->own_rsp);
	for (uint32_t i = 0; i < n; i++) {
		if (dead(m))
			return false;
		inflight_done(&m->ring, done[i]);
		m->free[m->nr_free++] = done[i];
	}
	return true;
}

static bool work(struct model *m, unsigned int *seed)
{
	while (m->req_cons < 900)
		if (!take(m, (uint32_t)rand_r(seed) % 12) ||
		    !answer(m, (uint32_t)rand_r(seed) % 12, seed))
			return false;
	return true;
}

/* A new worker; it may die itself, in which case false. */
static bool recover(struct model *m, const struct inflight_id *id)
{
	cleanup_free struct inflight_image *image = NULL;
	struct inflight_plan plan;
	char why[MSG_TEXT_MAX];
	bool used[SLOTS] = { false };

	assert_int_equal(inflight_load(m->log, id, &image, why), 0);
	assert_int_equal(inflight_plan(image->entries, SLOTS, image->cursor,
				       m->rsp_prod, &plan),
			 0);
	inflight_adopt(&m->ring, image->entries, &plan, m->rsp_prod);
	m->own_rsp = m->rsp_prod;
	m->req_cons = plan.req_cons;
	m->nr_in_flight = 0;
	for (uint32_t i = 0; i < plan.nr_replay; i++) {
		if (i > 0)
			assert_true(
				image->entries[plan.replay[i]].req_index >
				image->entries[plan.replay[i - 1]].req_index);
		m->in_flight[m->nr_in_flight++] = plan.replay[i];
		used[plan.replay[i]] = true;
	}
	m->nr_free = 0;
	for (uint16_t i = 0; i < SLOTS; i++)
		if (!used[i])
			m->free[m->nr_free++] = i;
	for (uint32_t i = 0; i < plan.nr_publish; i++) {
		uint32_t index;

		memcpy(&index, m->ring.entries[plan.publish[i]].slot, 4);
		if (dead(m))
			return false;
		m->responses[m->own_rsp++] = index;
	}
	if (dead(m))
		return false;
	m->rsp_prod = m->own_rsp;
	if (dead(m))
		return false;
	inflight_published(&m->ring, m->own_rsp);
	for (uint32_t i = 0; i < plan.nr_publish; i++) {
		if (dead(m))
			return false;
		inflight_done(&m->ring, plan.publish[i]);
	}
	return true;
}

static void run_model(unsigned int seed, uint32_t lifetime)
{
	struct inflight_id id = an_id();
	struct model m = { .budget = lifetime };
	uint32_t answered[1024] = { 0 }, zero = 0;
	bool alive = true;
	int fd;

	m.log = new_log(&fd);
	inflight_start(m.log, &id, &zero);
	m.ring = inflight_ring(m.log, 0);
	for (uint16_t i = 0; i < SLOTS; i++)
		m.free[m.nr_free++] = i;
	while (!alive || !work(&m, &seed)) {
		m.budget = 20 + (uint32_t)rand_r(&seed) % (lifetime + 1);
		alive = recover(&m, &id);
	}
	m.budget = UINT32_MAX;
	while (m.nr_in_flight > 0)
		assert_true(answer(&m, SLOTS, &seed));
	assert_int_equal(m.rsp_prod, m.req_cons);
	for (uint32_t i = 0; i < m.rsp_prod; i++)
		answered[m.responses[i]]++;
	for (uint32_t i = 0; i < m.req_cons; i++)
		assert_int_equal(answered[i], 1);
	inflight_free(m.log);
	close(fd);
}

static void test_every_death(void **state)
{
	(void)state;
	for (uint32_t lifetime = 0; lifetime < 400; lifetime++)
		run_model(lifetime + 1, lifetime);
}

static bool may_try_again(struct inflight *log, const struct inflight_id *id)
{
	struct inflight_ring ring = inflight_ring(log, 0);
	struct inflight_image *image = NULL;
	struct inflight_plan plan;
	char why[MSG_TEXT_MAX];

	assert_int_equal(inflight_load(log, id, &image, why), 0);
	assert_int_equal(inflight_plan(image->entries, SLOTS, image->cursor, 0,
				       &plan),
			 0);
	assert_int_equal(plan.nr_replay, 1);
	inflight_adopt(&ring, image->entries, &plan, 0);
	free(image);
	return inflight_try(&ring, 3);
}

/* A request that waits for its storage is not to blame for workers that are stopped
 * and started meanwhile. */
static void test_only_deaths_count(void **state)
{
	struct inflight_id id = an_id();
	uint32_t rsp_prod = 0;
	int fd;
	struct inflight *log = new_log(&fd);
	struct inflight_ring ring;

	(void)state;
	inflight_start(log, &id, &rsp_prod);
	ring = inflight_ring(log, 0);
	inflight_take(&ring, 3, 0);
	inflight_taken(&ring, 1);
	for (unsigned int i = 1; i < INFLIGHT_MAX_TRIES; i++)
		assert_true(may_try_again(log, &id));
	for (unsigned int i = 0; i < 2 * INFLIGHT_MAX_TRIES; i++) {
		inflight_outlived(log, 1);
		assert_true(may_try_again(log, &id));
	}
	for (unsigned int i = 1; i < INFLIGHT_MAX_TRIES; i++)
		assert_true(may_try_again(log, &id));
	assert_false(may_try_again(log, &id));
	inflight_free(log);
	close(fd);
}

/* --- A log that lies ------------------------------------------------------------- */

static int plan(const struct inflight_entry *entries, uint32_t req_cons,
		uint32_t logged, uint32_t rsp_prod)
{
	struct inflight_cursor cursor = { .req_cons = req_cons,
					  .rsp_prod = logged };
	struct inflight_plan ret;

	return inflight_plan(entries, SLOTS, &cursor, rsp_prod, &ret);
}

static void test_contradictions(void **state)
{
	struct inflight_entry e[SLOTS];

	(void)state;
	memset(e, 0, sizeof(e));
	assert_int_equal(plan(e, 10, 10, 10), 0);
	assert_int_equal(plan(e, 11, 10, 10), -EPROTO); /* one is missing */
	assert_int_equal(plan(e, 10, 10, 11), -EPROTO); /* nobody answered */
	assert_int_equal(plan(e, 10, 10, 9), -EPROTO); /* went backwards */
	e[0].state = INFLIGHT_TAKEN;
	e[0].req_index = 10;
	assert_int_equal(plan(e, 11, 10, 10), 0);
	e[3] = e[0]; /* twice the same request */
	assert_int_equal(plan(e, 12, 10, 10), -EPROTO);
	e[3].req_index = 11;
	assert_int_equal(plan(e, 12, 10, 10), 0);
	e[3].state = INFLIGHT_RESPONDING;
	e[3].rsp_index = 10;
	assert_int_equal(plan(e, 12, 10, 10), 0);
	assert_int_equal(plan(e, 12, 10, 11), 0);
	e[3].rsp_index = 11; /* a hole at 10 */
	assert_int_equal(plan(e, 12, 10, 10), -EPROTO);
	e[4] = e[3];
	assert_int_equal(plan(e, 13, 10, 10), -EPROTO);
	e[4].state = 77;
	assert_int_equal(plan(e, 13, 10, 10), -EPROTO);
}

/* Whatever is in it: refused, or a plan that is one. */
static void test_rubbish(void **state)
{
	unsigned int seed = 1, believed = 0;

	(void)state;
	for (unsigned int round = 0; round < 200000; round++) {
		struct inflight_entry e[SLOTS];
		struct inflight_cursor cursor = { 0 };
		struct inflight_plan p;
		bool seen[SLOTS] = { false };
		uint32_t taken = (uint32_t)rand_r(&seed) % 6;

		memset(e, 0, sizeof(e));
		for (uint32_t i = 0; i < taken; i++) {
			uint32_t at = (uint32_t)rand_r(&seed) % SLOTS;

			e[at].state = (uint32_t)rand_r(&seed) % 3;
			e[at].req_index = (uint32_t)rand_r(&seed) % 8;
			e[at].rsp_index = (uint32_t)rand_r(&seed) % 8;
		}
		cursor.req_cons = (uint32_t)rand_r(&seed) % 8;
		cursor.rsp_prod = (uint32_t)rand_r(&seed) % 8;
		if (inflight_plan(e, SLOTS, &cursor,
				  (uint32_t)rand_r(&seed) % 8, &p))
			continue;
		believed++;
		assert_true(p.nr_publish + p.nr_replay <= SLOTS);
		for (uint32_t i = 0; i < p.nr_publish + p.nr_replay; i++) {
			uint16_t entry = i < p.nr_publish ?
						 p.publish[i] :
						 p.replay[i - p.nr_publish];

			assert_true(entry < SLOTS && !seen[entry]);
			seen[entry] = true;
		}
	}
	assert_true(believed > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_failure_outlives_connection),
		cmocka_unit_test(test_failure_outlives_death),
		cmocka_unit_test(test_other_version),
		cmocka_unit_test(test_short_file),
		cmocka_unit_test(test_every_death),
		cmocka_unit_test(test_only_deaths_count),
		cmocka_unit_test(test_contradictions),
		cmocka_unit_test(test_rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
