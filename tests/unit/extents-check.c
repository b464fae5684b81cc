/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "extents-check.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"

#define ROUNDS	  30
#define QUESTIONS 20

struct question {
	struct xd_request req;
	int err;
	bool done;
};

static void on_done(struct xd_request *req, int err)
{
	struct question *question = req->owner;

	assert_false(question->done);
	question->err = err;
	question->done = true;
}

void extents_ask(struct rig *rig, uint64_t offset, uint64_t length,
		 unsigned int max, struct extents_answer *ret)
{
	uint64_t deadline = now_ns() + 60000000000ull;
	struct question question = {
		.req = { .op = XD_EXTENTS,
			 .offset = offset,
			 .length = length,
			 .extents = &ret->extents,
			 .done = on_done },
	};

	question.req.owner = &question;
	memset(ret, 0xa5, sizeof(*ret));
	ret->extents.extent = ret->extent;
	ret->extents.max = MIN(max, EXTENTS_MAX);
	xd_submit(rig->top[0], &question.req);
	stack_kick(rig->top[0]);
	for (;;) {
		while (stack_reap(rig->top[0]))
			;
		if (question.done)
			break;
		assert_true(now_ns() < deadline);
		assert_true(engine_run(rig->engine[0], 1000000000) >= 0);
	}
	assert_int_equal(question.err, 0);
}

static const char *judge_form(const struct rig *rig, uint64_t length,
			      const struct extents_answer *answer)
{
	uint32_t sector = stack_limits(rig->stack)->sector_size;
	const struct xd_extents *extents = &answer->extents;
	uint64_t sum = 0;

	if (extents->nr == 0 || extents->nr > extents->max)
		return "none, or more than there is room for";
	for (unsigned int i = 0; i < extents->nr; i++) {
		if (answer->extent[i].length == 0 ||
		    answer->extent[i].length % sector)
			return "a length that is no multiple of the sector";
		if (i > 0 &&
		    answer->extent[i].flags == answer->extent[i - 1].flags)
			return "two neighbours that are alike";
		sum += answer->extent[i].length;
	}
	if (sum > length)
		return "more than was asked for";
	return sum == extents->told ? NULL : "the sum is wrong";
}

static const char *judge_zero(struct rig *rig, uint64_t from, uint64_t length,
			      const unsigned char *content)
{
	static unsigned char buf[64 << 10] __attribute__((aligned(4096)));
	static const unsigned char zeroes[sizeof(buf)];

	for (uint64_t n; length > 0; from += n, length -= n) {
		n = MIN(length, sizeof(buf));
		memset(buf, 0x5a, n);
		assert_int_equal(rig_io(rig, 0, XD_READ, 0, from, n, buf), 0);
		if (memcmp(buf, zeroes, n) != 0)
			return "called zero, and read as something else";
		if (memcmp(content + from, zeroes, n) != 0)
			return "called zero, and was written to";
	}
	return NULL;
}

const char *extents_judge(struct rig *rig, uint64_t offset, uint64_t length,
			  const struct extents_answer *answer,
			  const unsigned char *content)
{
	const char *fault = judge_form(rig, length, answer);

	for (unsigned int i = 0; !fault && i < answer->extents.nr; i++) {
		const struct xd_extent *extent = &answer->extent[i];

		if (extent->flags & XD_EXTENT_ZERO)
			fault = judge_zero(rig, offset, extent->length,
					   content);
		offset += extent->length;
	}
	return fault;
}

const char *extents_map(struct rig *rig)
{
	static char text[4096];
	uint64_t size = rig_size(rig);
	struct extents_answer answer;
	uint32_t last = UINT32_MAX;
	size_t used = 0;

	text[0] = '\0';
	for (uint64_t at = 0; at < size;) {
		extents_ask(rig, at, size - at, EXTENTS_MAX, &answer);
		for (unsigned int i = 0; i < answer.extents.nr; i++) {
			uint32_t flags = answer.extent[i].flags;

			if (flags != last)
				used += (size_t)snprintf(
					text + used, sizeof(text) - used,
					"%s%" PRIu64 ":%s%s%s", used ? " " : "",
					at, flags & XD_EXTENT_HOLE ? "h" : "",
					flags & XD_EXTENT_ZERO ? "z" : "",
					flags ? "" : "d");
			assert_true(used < sizeof(text));
			last = flags;
			at += answer.extent[i].length;
		}
	}
	return text;
}

/* xorshift64 */
static uint64_t draw(uint64_t *seed, uint64_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed % below;
}

static uint64_t ask_at_random(struct rig *rig, uint64_t *seed,
			      const unsigned char *content)
{
	uint32_t sector = stack_limits(rig->stack)->sector_size;
	uint64_t sectors = rig_size(rig) / sector;
	uint64_t first = draw(seed, sectors);
	uint64_t n = 1 + draw(seed, sectors - first);
	struct extents_answer answer;
	const char *fault;
	uint64_t zero = 0;

	extents_ask(rig, first * sector, n * sector,
		    draw(seed, 2) ? EXTENTS_MAX : 1 + draw(seed, 4) % 4,
		    &answer);
	fault = extents_judge(rig, first * sector, n * sector, &answer,
			      content);
	if (fault)
		fail_msg("%s: from %" PRIu64 " on: %s", rig->expression,
			 first * sector, fault);
	for (unsigned int i = 0; i < answer.extents.nr; i++)
		if (answer.extent[i].flags & XD_EXTENT_ZERO)
			zero += answer.extent[i].length;
	return zero;
}

uint64_t extents_model(struct rig *rig, unsigned char *content,
		       bool discard_zeroes, uint64_t seed)
{
	uint64_t zero = 0;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct rig_model model = {
			.rig = rig,
			.seed = seed + i + 1,
			.bursts = 2,
			.share = 1,
			.discard_zeroes = discard_zeroes,
			.no_discard = !discard_zeroes,
			.content = content,
		};

		assert_int_equal(rig_model_run(&model), 0);
		for (unsigned int j = 0; j < QUESTIONS; j++)
			zero += ask_at_random(rig, &seed, content);
	}
	return zero;
}
