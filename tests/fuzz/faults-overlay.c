/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Overlays that are wrong, for fuzz-overlay to find. */
#include "config.h"

#include "fuzz.h"

#include "../../backends/git/overlay-layer.h"
#include "../../backends/git/overlay.h"

enum { NOT_WRITTEN, ONE_MORE, FORGOTTEN, NO_SENTENCE };

const char *const fuzz_faults[] = {
	[NOT_WRITTEN] = "a page that is not written is noticed",
	[ONE_MORE] = "a bit beyond the disk is noticed",
	[FORGOTTEN] = "a layer that is left out is noticed",
	[NO_SENTENCE] = "an error without a sentence is noticed",
	NULL,
};

void __real_map_page_seal(const struct layer *layer, struct map_page *page,
			  uint64_t sequence);
void __wrap_map_page_seal(const struct layer *layer, struct map_page *page,
			  uint64_t sequence);
bool __real_layer_next(const struct layer *layer, uint64_t first, uint64_t end,
		       uint64_t *ret_first, uint64_t *ret_end);
bool __wrap_layer_next(const struct layer *layer, uint64_t first, uint64_t end,
		       uint64_t *ret_first, uint64_t *ret_end);
unsigned int __real_overlay_layers(const struct overlay *overlay,
				   struct overlay_layer ret[OVERLAY_SLOTS]);
unsigned int __wrap_overlay_layers(const struct overlay *overlay,
				   struct overlay_layer ret[OVERLAY_SLOTS]);
int __real_overlay_lock(struct overlay *overlay, struct overlay_facts *facts,
			bool recover, char *ret_why);
int __wrap_overlay_lock(struct overlay *overlay, struct overlay_facts *facts,
			bool recover, char *ret_why);

void __wrap_map_page_seal(const struct layer *layer, struct map_page *page,
			  uint64_t sequence)
{
	if (fuzz_fault == NOT_WRITTEN)
		page->words[0] = 0;
	__real_map_page_seal(layer, page, sequence);
}

bool __wrap_layer_next(const struct layer *layer, uint64_t first, uint64_t end,
		       uint64_t *ret_first, uint64_t *ret_end)
{
	bool more = __real_layer_next(layer, first, end, ret_first, ret_end);

	if (more && fuzz_fault == ONE_MORE)
		(*ret_end)++;
	return more;
}

unsigned int __wrap_overlay_layers(const struct overlay *overlay,
				   struct overlay_layer ret[OVERLAY_SLOTS])
{
	static unsigned int calls;
	unsigned int nr = __real_overlay_layers(overlay, ret);

	if (fuzz_fault == FORGOTTEN && calls++ % 2)
		return nr > 1 ? nr - 1 : nr;
	return nr;
}

int __wrap_overlay_lock(struct overlay *overlay, struct overlay_facts *facts,
			bool recover, char *ret_why)
{
	int r = __real_overlay_lock(overlay, facts, recover, ret_why);

	if (r < 0 && fuzz_fault == NO_SENTENCE)
		ret_why[0] = '\0';
	return r;
}
