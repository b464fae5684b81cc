/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-vbd-states.c - the handshake's table, exhaustively. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <xen/io/xenbus.h>

#include "broker/vbd-states.h"

#define U XenbusStateUnknown
#define I XenbusStateInitialising
#define W XenbusStateInitWait
#define D XenbusStateInitialised
#define C XenbusStateConnected
#define G XenbusStateClosing
#define X XenbusStateClosed

static void every_pair_has_an_answer(void **state)
{
	(void)state;
	for (int be = 0; be < VBD_NR_STATES; be++)
		for (int fe = 0; fe < VBD_NR_STATES; fe++)
			assert_in_range(vbd_answer(be, fe), 0,
					VBD_NR_ACTIONS - 1);
}

/* Rings are mapped only for a frontend that says they are there, and only
 * after they were offered to it. */
static void connects_only_when_both_are_ready(void **state)
{
	(void)state;
	for (int be = 0; be < VBD_NR_STATES; be++)
		for (int fe = 0; fe < VBD_NR_STATES; fe++)
			if (vbd_answer(be, fe) == VBD_CONNECT) {
				assert_true(be == W || be == D);
				assert_true(fe == D || fe == C);
			}
}

static void serves_only_while_connected_or_closing(void **state)
{
	(void)state;
	for (int be = 0; be < VBD_NR_STATES; be++)
		for (int fe = 0; fe < VBD_NR_STATES; fe++) {
			enum vbd_action action = vbd_answer(be, fe);

			assert_int_equal(action == VBD_HOLD,
					 be == G && fe != I && fe != X);
			if (action == VBD_SERVE || action == VBD_RESTART)
				assert_int_equal(be, C);
		}
}

/* Whatever stands at our side, a frontend that has gone ends it. */
static void closed_frontend_ends_it(void **state)
{
	(void)state;
	for (int be = I; be < VBD_NR_STATES; be++)
		assert_int_equal(vbd_answer(be, X),
				 be == X ? VBD_WAIT : VBD_CLOSE);
}

/* Detach must not take a mounted disk away. */
static void closing_waits_for_closed(void **state)
{
	(void)state;
	assert_int_equal(vbd_answer(G, C), VBD_HOLD);
	assert_int_equal(vbd_answer(G, G), VBD_HOLD);
	assert_int_equal(vbd_answer(G, X), VBD_CLOSE);
}

/* A frontend that stays where it was refused gets no second try. */
static void closed_is_left_by_initialising_only(void **state)
{
	(void)state;
	for (int fe = 0; fe < VBD_NR_STATES; fe++)
		assert_int_equal(vbd_answer(X, fe),
				 fe == I ? VBD_OFFER : VBD_WAIT);
}

/* libxl waits for exactly InitWait, whatever an old frontend says. */
static void new_nodes_are_offered(void **state)
{
	(void)state;
	for (int fe = 0; fe < VBD_NR_STATES; fe++)
		assert_int_equal(vbd_answer(I, fe),
				 fe == X ? VBD_CLOSE : VBD_OFFER);
}

static void nothing_is_done_to_half_made_nodes(void **state)
{
	(void)state;
	for (int fe = 0; fe < VBD_NR_STATES; fe++)
		assert_int_equal(vbd_answer(U, fe), VBD_IGNORE);
}

static void names_are_those_of_xenbus(void **state)
{
	(void)state;
	assert_string_equal(vbd_state_name(W), "InitWait");
	assert_string_equal(vbd_state_name(XenbusStateReconfigured),
			    "Reconfigured");
	assert_string_equal(vbd_state_name(-1), "?");
	assert_string_equal(vbd_state_name(VBD_NR_STATES), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pair_has_an_answer),
		cmocka_unit_test(connects_only_when_both_are_ready),
		cmocka_unit_test(serves_only_while_connected_or_closing),
		cmocka_unit_test(closed_frontend_ends_it),
		cmocka_unit_test(closing_waits_for_closed),
		cmocka_unit_test(closed_is_left_by_initialising_only),
		cmocka_unit_test(new_nodes_are_offered),
		cmocka_unit_test(nothing_is_done_to_half_made_nodes),
		cmocka_unit_test(names_are_those_of_xenbus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
