/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stand-in's grant tables against what Xen and Linux do. */
#include "config.h"

#include "test-sim.h"

#define RW (PROT_READ | PROT_WRITE)

static uint32_t grant(struct both *b, uint32_t domid, const void *page,
		      bool readonly)
{
	uint32_t ref;

	assert_int_equal(xensim_grant(b->guest, domid, page, readonly, &ref),
			 0);
	return ref;
}

static void test_map(void **state)
{
	struct both *b = *state;
	char *pages = xensim_alloc_pages(b->guest, 3), *seen;
	uint32_t refs[3];

	for (int i = 0; i < 3; i++) {
		refs[2 - i] = grant(b, 0, pages + 4096 * i, false);
		assert_true(refs[2 - i] >= 8);
		sprintf(pages + 4096 * i, "page %d", i);
	}
	seen = xengnttab_map_domain_grant_refs(b->gnttab, 3, b->domid, refs,
					       RW);
	assert_non_null(seen);
	assert_string_equal(seen, "page 2");
	assert_string_equal(seen + 8192, "page 0");
	strcpy(seen + 4096, "from dom0");
	assert_string_equal(pages + 4096, "from dom0");
	assert_int_equal(xensim_grants_mapped(b->guest), 3);

	/* Unmap wants the exact start and count. */
	assert_int_equal(xengnttab_unmap(b->gnttab, seen, 2), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(xengnttab_unmap(b->gnttab, seen + 4096, 2), -1);
	assert_int_equal(xensim_grants_mapped(b->guest), 3);
	assert_int_equal(xengnttab_unmap(b->gnttab, seen, 3), 0);
	assert_int_equal(xengnttab_unmap(b->gnttab, seen, 3), -1);
	assert_int_equal(xensim_grants_mapped(b->guest), 0);
}

static void test_map_is_all_or_nothing(void **state)
{
	struct both *b = *state;
	void *page = xensim_alloc_pages(b->guest, 1);
	uint32_t refs[2] = { grant(b, 0, page, false), 0 };
	const uint32_t bad[] = {
		refs[0] + 1, /* not in use */
		100000, /* beyond the table */
		grant(b, 7, page, false),
		grant(b, 0, page, true),
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		refs[1] = bad[i];
		if (bad[i] == refs[0] + 1)
			refs[1] += 100;
		assert_null(xengnttab_map_domain_grant_refs(
			b->gnttab, 2, b->domid, refs, RW));
		assert_int_equal(errno, EINVAL);
		assert_int_equal(xensim_grants_mapped(b->guest), 0);
	}
	assert_null(xengnttab_map_grant_ref(b->gnttab, 4000, refs[0], RW));
	refs[1] = bad[3]; /* read-only is fine for reading */
	page = xengnttab_map_domain_grant_refs(b->gnttab, 2, b->domid, refs,
					       PROT_READ);
	assert_non_null(page);
	assert_int_equal(xengnttab_unmap(b->gnttab, page, 2), 0);
}

static void test_max_grants(void **state)
{
	struct both *b = *state;
	uint32_t refs[2];
	void *p;

	for (int i = 0; i < 2; i++)
		refs[i] = grant(b, 0, xensim_alloc_pages(b->guest, 1), false);
	xengnttab_set_max_grants(b->gnttab, 1);
	assert_null(xengnttab_map_domain_grant_refs(b->gnttab, 2, b->domid,
						    refs, RW));
	p = xengnttab_map_grant_ref(b->gnttab, b->domid, refs[0], RW);
	assert_non_null(p);
	assert_null(xengnttab_map_grant_ref(b->gnttab, b->domid, refs[1], RW));
	assert_int_equal(xengnttab_unmap(b->gnttab, p, 1), 0);
}

/* The negative control: a map that is left behind is seen. */
static void test_end_access(void **state)
{
	struct both *b = *state;
	void *page = xensim_alloc_pages(b->guest, 1), *seen;
	uint32_t ref = grant(b, 0, page, false);

	seen = xengnttab_map_grant_ref(b->gnttab, b->domid, ref, RW);
	assert_true(xensim_grant_mapped(b->guest, ref));
	assert_int_equal(xensim_grant_end(b->guest, ref), -EBUSY);
	assert_int_equal(xensim_grant_at(b->guest, ref, 0, page, true), -EBUSY);
	xengnttab_unmap(b->gnttab, seen, 1);
	assert_false(xensim_grant_mapped(b->guest, ref));
	assert_int_equal(xensim_grant_at(b->guest, ref, 0, page, true), 0);
	assert_int_equal(xensim_grant_end(b->guest, ref), 0);
	assert_int_equal(xensim_grant_end(b->guest, ref), -ENOENT);
	assert_null(xengnttab_map_grant_ref(b->gnttab, b->domid, ref, RW));
}

static void test_map_outlives_its_handle(void **state)
{
	struct both *b = *state;
	uint32_t ref = grant(b, 0, xensim_alloc_pages(b->guest, 1), false);
	xengnttab_handle *other = xengnttab_open(NULL, 0);
	void *seen = xengnttab_map_grant_ref(other, b->domid, ref, RW);

	assert_int_equal(xengnttab_close(other), 0);
	assert_true(xensim_grant_mapped(b->guest, ref));
	munmap(seen, 4096);
	assert_false(xensim_grant_mapped(b->guest, ref));
}

static void map_and_stay(void *arg)
{
	uint32_t *args = arg;
	xengnttab_handle *h = xengnttab_open(NULL, 0);

	require(xengnttab_map_grant_ref(h, args[0], args[1], RW) != NULL);
}

static void test_death_unmaps(void **state)
{
	struct both *b = *state;
	uint32_t ref = grant(b, 0, xensim_alloc_pages(b->guest, 1), false);
	pid_t pid = spawn(map_and_stay, (uint32_t[]){ b->domid, ref });

	assert_true(xensim_grant_mapped(b->guest, ref));
	kill_child(pid);
	assert_false(xensim_grant_mapped(b->guest, ref));
	assert_int_equal(xensim_grant_end(b->guest, ref), 0);
}

/* Map, copy, unmap and bind without end, in two threads. */
struct busy {
	uint32_t domid, ref, port;
};

static _Noreturn void *be_busy(void *arg)
{
	const struct busy *busy = arg;
	xengnttab_handle *h = xengnttab_open(NULL, 0);
	xenevtchn_handle *e = xenevtchn_open(NULL, 0);
	char buf[64] = "";

	for (;;) {
		void *p =
			xengnttab_map_grant_ref(h, busy->domid, busy->ref, RW);
		int port =
			xenevtchn_bind_interdomain(e, busy->domid, busy->port);
		xengnttab_grant_copy_segment_t seg = {
			.source.virt = buf,
			.dest.foreign = { .ref = busy->ref,
					  .domid = (uint16_t)busy->domid },
			.len = sizeof(buf),
			.flags = GNTCOPY_dest_gref,
		};

		require(p && xengnttab_grant_copy(h, 1, &seg) == 0);
		require(xengnttab_unmap(h, p, 1) == 0);
		require(port < 0 || xenevtchn_unbind(e, (unsigned)port) == 0);
	}
}

static void be_busy_twice(void *arg)
{
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, be_busy, arg);
}

/* Whatever they were doing when they were killed. */
static void test_many_deaths(void **state)
{
	struct both *b = *state;
	void *page = xensim_alloc_pages(b->guest, 1);
	struct busy busy = { .domid = b->domid,
			     .ref = grant(b, 0, page, false) };
	struct xensim_evtchn_status status;

	xensim_evtchn_alloc_unbound(b->events, 0, &busy.port);
	for (int i = 0; i < 40; i++) {
		pid_t pid = spawn(be_busy_twice, &busy);

		usleep(3000 + 500 * (unsigned)(i % 8));
		assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
		kill_child(pid);
		assert_int_equal(xensim_grants_mapped(b->guest), 0);
		xensim_evtchn_status(b->machine, b->domid, busy.port, &status);
		assert_int_equal(status.state, XENSIM_EVTCHN_UNBOUND);
	}
	xensim_free_pages(b->guest, page, 1);
}

static void test_table_limits(void **state)
{
	struct both *b = *state;
	void *page = xensim_alloc_pages(b->guest, 1);
	struct xensim_domain_info info;
	uint32_t ref, n = 0;
	int r;

	while ((r = xensim_grant(b->guest, 0, page, false, &ref)) == 0)
		n++;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(n, 32768 - 8);
	xensim_domain_info(b->machine, b->domid, &info);
	assert_int_equal(info.grants, n);
	assert_int_equal(xensim_grant(b->guest, 0, &n, false, &ref), -EINVAL);
	assert_int_equal(xensim_grant_at(b->guest, 32768, 0, page, 0), -EINVAL);
}

/* --- Grant copy ----------------------------------------------------------------- */

static xengnttab_grant_copy_segment_t from_guest(struct both *b, uint32_t ref,
						 unsigned offset, void *to,
						 unsigned len)
{
	return (xengnttab_grant_copy_segment_t){
		.source.foreign = { .ref = ref,
				    .offset = (uint16_t)offset,
				    .domid = (uint16_t)b->domid },
		.dest.virt = to,
		.len = (uint16_t)len,
		.flags = GNTCOPY_source_gref,
		.status = 77,
	};
}

static xengnttab_grant_copy_segment_t to_guest(struct both *b, uint32_t ref,
					       unsigned offset, void *from,
					       unsigned len)
{
	return (xengnttab_grant_copy_segment_t){
		.source.virt = from,
		.dest.foreign = { .ref = ref,
				  .offset = (uint16_t)offset,
				  .domid = (uint16_t)b->domid },
		.len = (uint16_t)len,
		.flags = GNTCOPY_dest_gref,
		.status = 77,
	};
}

static void test_copy(void **state)
{
	struct both *b = *state;
	char *page = xensim_alloc_pages(b->guest, 1), buf[8192];
	uint32_t rw = grant(b, 0, page, false), ro = grant(b, 0, page, true);
	xengnttab_grant_copy_segment_t segs[] = {
		to_guest(b, rw, 4000, buf, 96), from_guest(b, ro, 4000, buf, 96)
	};

	strcpy(buf, "across");
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 1, segs), 0);
	assert_int_equal(segs[0].status, GNTST_okay);
	assert_string_equal(page + 4000, "across");
	memset(buf, 0, sizeof(buf));
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 1, segs + 1), 0);
	assert_int_equal(segs[1].status, GNTST_okay);
	assert_string_equal(buf, "across");

	/* The local side may cross a page, wherever it lies. */
	segs[0] = to_guest(b, rw, 0, buf + 100, 4096);
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 1, segs), 0);
	assert_int_equal(segs[0].status, GNTST_okay);
}

static void test_copy_statuses(void **state)
{
	struct both *b = *state;
	char *page = xensim_alloc_pages(b->guest, 1), buf[4096] = "x";
	uint32_t rw = grant(b, 0, page, false), ro = grant(b, 0, page, true);
	uint32_t other = grant(b, 7, page, false);
	xengnttab_grant_copy_segment_t segs[] = {
		to_guest(b, ro, 0, buf, 8),
		to_guest(b, 32000, 0, buf, 8),
		to_guest(b, other, 0, buf, 8),
		from_guest(b, 300, 0, buf, 8),
		to_guest(b, rw, 0, buf, 8),
		from_guest(b, rw, 0, buf + 100, 1),
	};
	const int want[] = { GNTST_general_error, GNTST_bad_gntref,
			     GNTST_general_error, GNTST_general_error,
			     GNTST_okay,	  GNTST_bad_domain };

	segs[5].source.foreign.domid = 4000;
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 6, segs), 0);
	for (int i = 0; i < 6; i++)
		assert_int_equal(segs[i].status, want[i]);
	assert_string_equal(page, "x");
}

/* A malformed segment fails the call; 16 segments before it were copied. */
static void test_copy_refused(void **state)
{
	struct both *b = *state;
	char *page = xensim_alloc_pages(b->guest, 1), buf[64];
	uint32_t ref = grant(b, 0, page, false);
	xengnttab_grant_copy_segment_t segs[24];

	memset(buf, 'y', sizeof(buf));
	for (unsigned i = 0; i < 24; i++)
		segs[i] = to_guest(b, ref, i, buf, 1);
	segs[20].dest.foreign.offset = 4090;
	segs[20].len = 7;
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 24, segs), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(page[15], 'y');
	assert_int_equal(page[16], 0);
	assert_int_equal(segs[19].status, GNTST_okay);
	assert_int_equal(segs[21].status, 77);

	segs[0].flags = 0;
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 1, segs), -1);
}

/* --- A domain's end ----------------------------------------------------------------- */

static void test_destroy_while_mapped(void **state)
{
	struct both *b = *state;
	struct xensim_domain_info info;
	struct xensim_guest *g;
	uint32_t domid, ref, first, again;
	char *page, *seen, byte;
	xengnttab_grant_copy_segment_t seg;

	assert_int_equal(xensim_domain_create_bare(b->machine, 300, &domid), 0);
	assert_int_equal(xensim_guest_open(b->machine, 300, &g), 0);
	page = xensim_alloc_pages(g, 1);
	strcpy(page, "still here");
	assert_int_equal(xensim_grant(g, 0, page, false, &ref), 0);
	seen = xengnttab_map_grant_ref(b->gnttab, 300, ref, RW);
	xensim_domain_info(b->machine, 300, &info);
	first = info.generation;

	assert_int_equal(xensim_domain_destroy(b->machine, 300), 0);
	assert_false(xensim_guest_alive(g));
	assert_string_equal(seen, "still here");
	assert_int_equal(xensim_domain_info(b->machine, 300, &info), 0);
	assert_true(info.dying);
	assert_int_equal(info.pages, 1);
	assert_int_equal(xensim_domain_create_bare(b->machine, 300, &again),
			 -EEXIST);
	assert_null(xengnttab_map_grant_ref(b->gnttab, 300, ref, RW));
	seg = from_guest(b, ref, 0, &byte, 1);
	seg.source.foreign.domid = 300;
	assert_int_equal(xengnttab_grant_copy(b->gnttab, 1, &seg), 0);
	assert_int_equal(seg.status, GNTST_bad_domain);

	xengnttab_unmap(b->gnttab, seen, 1);
	assert_int_equal(xensim_domain_info(b->machine, 300, &info), -ESRCH);
	assert_int_equal(xensim_domain_create_bare(b->machine, 300, &again), 0);
	xensim_domain_info(b->machine, 300, &info);
	assert_int_not_equal(info.generation, first);
	assert_int_equal(info.grants, 0);
	xensim_domain_destroy(b->machine, 300);
	xensim_guest_close(g);
}

/* Freed pages read zero when they come back, mapped ones do not come back. */
static void test_pages(void **state)
{
	struct both *b = *state;
	char *page = xensim_alloc_pages(b->guest, 2), *seen;
	struct xensim_domain_info info;
	uint32_t ref = grant(b, 0, page, false);

	memset(page, 'z', 8192);
	seen = xengnttab_map_grant_ref(b->gnttab, b->domid, ref, PROT_READ);
	xensim_free_pages(b->guest, page, 2);
	assert_int_equal(seen[0], 'z');
	assert_int_equal(page[4096], 0);
	xensim_domain_info(b->machine, b->domid, &info);
	assert_int_equal(info.pages, 1);
	xengnttab_unmap(b->gnttab, seen, 1);
	xensim_domain_info(b->machine, b->domid, &info);
	assert_int_equal(info.pages, 0);
	assert_null(xensim_alloc_pages(b->guest, 1u << 30));
	assert_int_equal(errno, ENOMEM);
}

static void test_sharing(void **state)
{
	struct both *b = *state;
	uint32_t refs[2];
	char *ours = xengntshr_share_pages(b->gnttab, 0, 2, refs, 1), *seen;

	assert_non_null(ours);
	strcpy(ours + 4096, "own domain");
	seen = xengnttab_map_domain_grant_refs(b->gnttab, 2, 0, refs, RW);
	assert_string_equal(seen + 4096, "own domain");
	xengnttab_unmap(b->gnttab, seen, 2);
	assert_int_equal(xengntshr_unshare(b->gnttab, ours, 2), 0);
}

static void test_counters(void **state)
{
	struct both *b = *state;
	struct xensim_counters before, after;
	char *page = xensim_alloc_pages(b->guest, 1), buf[8];
	uint32_t ref = grant(b, 0, page, false);
	xengnttab_grant_copy_segment_t segs[2] = {
		from_guest(b, ref, 0, buf, 8), from_guest(b, 5000, 0, buf, 8)
	};

	xensim_counters(b->machine, &before);
	xengnttab_grant_copy(b->gnttab, 2, segs);
	assert_null(xengnttab_map_grant_ref(b->gnttab, b->domid, 5000, RW));
	xensim_counters(b->machine, &after);
	assert_int_equal(after.copy_calls - before.copy_calls, 1);
	assert_int_equal(after.copy_segments - before.copy_segments, 2);
	assert_int_equal(after.copy_failures - before.copy_failures, 1);
	assert_int_equal(after.refusals - before.refusals, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, both_setup, both_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_map),
		TEST(test_map_is_all_or_nothing),
		TEST(test_max_grants),
		TEST(test_end_access),
		TEST(test_map_outlives_its_handle),
		TEST(test_death_unmaps),
		TEST(test_many_deaths),
		TEST(test_table_limits),
		TEST(test_copy),
		TEST(test_copy_statuses),
		TEST(test_copy_refused),
		TEST(test_destroy_while_mapped),
		TEST(test_pages),
		TEST(test_sharing),
		TEST(test_counters),
	};

	(void)argc;
	need_machine(argv);
	return cmocka_run_group_tests_name("grants", tests, NULL, NULL);
}
