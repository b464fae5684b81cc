/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pack-fixture.h - a repository, objects whose content is known, and git as judge.
 */
#ifndef XENDISK_TEST_PACK_FIXTURE_H
#define XENDISK_TEST_PACK_FIXTURE_H

#include "../../backends/git/pack-write.h"

struct repo {
	char path[64];
	int dir; /* objects/pack */
};

/* The judge is there; else all tests are skipped. */
bool has_git(void);

void repo_make(struct repo *ret);
void repo_remove(struct repo *repo);
/* Files in objects/pack whose name has this in it. */
unsigned int repo_files(const struct repo *repo, const char *part);
/* A command, with %s for the repository's path; its exit status, and what it
 * printed is shown if that is not 0. */
int repo_run(const struct repo *repo, const char *format);
/* git index-pack makes the same index of each pack, and fsck, verify-pack have
 * nothing to say; 0 if so. */
int repo_judge(const struct repo *repo);
/* Only fsck. */
int repo_fsck(const struct repo *repo);

/* What the bytes are like. */
/* RECORDS: text, but for the first bytes of each 64. */
enum stuff { ZEROES, NOISE, TEXT, HALF, RECORDS, NR_STUFF };

/* n bytes that follow from stuff and seed. */
void fill(uint8_t *buf, size_t n, enum stuff stuff, uint64_t seed);

/* Objects that must be there. */
struct model {
	struct known {
		uint8_t oid[OID_BYTES];
		enum object_type type;
		uint8_t *data;
		size_t n;
	} * known;
	size_t nr;
};

void model_add(struct model *model, const uint8_t oid[OID_BYTES],
	       enum object_type type, const void *data, size_t n);
void model_free(struct model *model);
/* git cat-file has each of them, byte for byte: how many it has not. */
size_t model_missing(const struct model *model, const struct repo *repo);

#endif
