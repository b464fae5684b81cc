/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-states.c - vbd-states.def made into a table.
 */
#include <assert.h>
#include <xen/io/xenbus.h>

#include "broker/vbd-states.h"

static const struct {
	const char *name;
	enum vbd_action answer[VBD_NR_STATES];
} rows[VBD_NR_STATES] = {
#define VBD_ROW(state, a, b, c, d, e, f, g, h, i)                         \
	[XenbusState##                                                    \
		state] = { #state,                                        \
			   { VBD_##a, VBD_##b, VBD_##c, VBD_##d, VBD_##e, \
			     VBD_##f, VBD_##g, VBD_##h, VBD_##i } },
#include "broker/vbd-states.def"
#undef VBD_ROW
};

enum vbd_action vbd_answer(int backend, int frontend)
{
	assert(backend >= 0 && backend < VBD_NR_STATES);
	assert(frontend >= 0 && frontend < VBD_NR_STATES);
	return rows[backend].answer[frontend];
}

const char *vbd_state_name(int state)
{
	return state >= 0 && state < VBD_NR_STATES ? rows[state].name : "?";
}
