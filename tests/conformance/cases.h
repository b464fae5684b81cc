/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cases.h - what the NBD protocol document demands of a server, sentence by
 * sentence.
 *
 * `section` is the document's heading, `says` the sentence, shortened.  A case is
 * one for a MUST, unless should is set.  What the document leaves to the server
 * is no fault; a case that a server offers nothing for is skipped.
 */
#ifndef XENDISK_CONFORMANCE_CASES_H
#define XENDISK_CONFORMANCE_CASES_H

#include "client.h"

struct test_case {
	const char *name;
	const char *section;
	const char *says;
	bool should;
	void (*run)(struct client *c);
};

/* Each ends with one without a name. */
extern const struct test_case handshake_cases[];
extern const struct test_case option_cases[];
extern const struct test_case request_cases[];
extern const struct test_case chunk_cases[];

#endif
