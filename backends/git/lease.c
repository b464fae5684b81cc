/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "lease.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define MAGIC "xendisk-lease 1"

/* The value of "KEY VALUE\n" at *at, which moves on.  NULL: it is another line. */
static char *take_line(char **at, const char *key)
{
	size_t n = strlen(key);
	char *value = *at + n + 1;
	char *end;

	if (strncmp(*at, key, n) != 0 || (*at)[n] != ' ')
		return NULL;
	end = strchr(value, '\n');
	if (!end)
		return NULL;
	*end = '\0';
	*at = end + 1;
	return value;
}

static bool is_name(const char *text, const char *allowed, size_t size)
{
	return *text && strlen(text) < size &&
	       text[strspn(text, allowed)] == '\0';
}

bool lease_is_holder(const char *text)
{
	return strlen(text) == LEASE_HOLDER - 1 &&
	       is_name(text, "0123456789abcdef", LEASE_HOLDER);
}

int lease_parse(const char *text, size_t n, struct lease *ret)
{
	static const char host_bytes[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"0123456789-";
	char copy[LEASE_TEXT];
	char *at = copy;
	const char *magic, *holder, *host, *sequence, *expires;
	struct lease lease;

	if (n >= sizeof(copy) || memchr(text, 0, n))
		return -EBADMSG;
	memcpy(copy, text, n);
	copy[n] = '\0';
	magic = take_line(&at, "xendisk-lease");
	holder = magic ? take_line(&at, "holder") : NULL;
	host = holder ? take_line(&at, "host") : NULL;
	sequence = host ? take_line(&at, "sequence") : NULL;
	expires = sequence ? take_line(&at, "expires") : NULL;
	if (!expires || *at || strcmp(magic, "1") != 0 ||
	    !lease_is_holder(holder) ||
	    !is_name(host, host_bytes, sizeof(lease.host)) ||
	    parse_u64(sequence, UINT64_MAX - 1, &lease.sequence) < 0 ||
	    parse_u64(expires, INT64_MAX, &lease.expires) < 0)
		return -EBADMSG;
	memcpy(lease.holder, holder, LEASE_HOLDER);
	(void)snprintf(lease.host, sizeof(lease.host), "%s", host);
	*ret = lease;
	return 0;
}

size_t lease_print(const struct lease *lease, char ret[LEASE_TEXT])
{
	int n = snprintf(ret, LEASE_TEXT,
			 MAGIC "\nholder %s\nhost %s\nsequence %" PRIu64
			       "\nexpires %" PRIu64 "\n",
			 lease->holder, lease->host, lease->sequence,
			 lease->expires);

	return (size_t)n;
}
