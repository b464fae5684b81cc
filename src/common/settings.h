/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * settings.h - /etc/xen/xendiskd.conf and /etc/xen/xendiskd.conf.d/ (libconfuse).
 *
 * See xendiskd.conf(5).  Wrong files are an error: nothing is taken over then.
 */
#ifndef XENDISK_SETTINGS_H
#define XENDISK_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SETTINGS_TEXT_MAX 512
#define SETTINGS_PATH	  SYSCONFDIR "/xen/xendiskd.conf"

struct settings_disk {
	char *name;
	char *expr; /* disk(...) already put around it if it has policies */
	char *where; /* FILE:LINE */
};

/* How to prove to a server who we are. */
struct settings_credentials {
	char *name;
	char *psk; /* absolute path of a file of pre-shared keys (psktool(1)) */
	char *user; /* which of them */
	char *certs; /* or: absolute path of a folder of certificates */
	char *hostname; /* whom they must be made out to; NULL: see the URI */
};

struct settings_root {
	char *path; /* absolute */
	char *where; /* FILE:LINE */
};

struct settings {
	struct settings_disk *disks;
	size_t nr_disks;
	struct settings_credentials *credentials;
	size_t nr_credentials;
	struct settings_root *image_roots; /* none: any path may be opened */
	size_t nr_image_roots;
	uint64_t mem_limit; /* bytes for all mem disks; 0: no limit */
	bool persistent_grants; /* offered to guests that connect */
};

/* path: the main file; its folder of the same name with ".d" is read after it,
 * in the C locale's order, if it is there.  The main file must be, when it was asked
 * for: required.  On -errno ret_why (SETTINGS_TEXT_MAX bytes) holds
 * "FILE:LINE: what is wrong". */
int settings_load(const char *path, bool required, struct settings **ret,
		  char *ret_why);
void settings_free(struct settings *settings);

/* The expression of a named disk, or NULL. */
const char *settings_disk(const struct settings *settings, const char *name);

/* By name, or NULL. */
const struct settings_credentials *
settings_credentials(const struct settings *settings, const char *name);

/* One setting ("psk") of the credentials of that name.  -ENOENT: there are none;
 * -ENODATA: it is not set; and a sentence in ret_why (SETTINGS_TEXT_MAX). */
int settings_credential(const struct settings *settings, const char *name,
			const char *setting, const char **ret, char *ret_why);

#endif
