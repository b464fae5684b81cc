/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "pins.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define UUID_PART    8 /* characters that tell the overlays of a branch apart */
#define PROCESS_NAME 64
#define STAT_MAX     1024 /* bytes of /proc/PID/stat */
#define STAT_START   22 /* which field of it */

/* Those that are to go, since none may go while references are walked. */
struct doomed {
	char **names;
	size_t nr;
	uint64_t before; /* pins of layers: the generation */
	const char *prefix;
};

static int doom(struct doomed *doomed, const char *name)
{
	char **names =
		reallocarray(doomed->names, doomed->nr + 1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	doomed->names = names;
	names[doomed->nr] = strdup(name);
	return names[doomed->nr] ? (doomed->nr++, 0) : -ENOMEM;
}

/* Whatever they lead to; one that is gone is fine. */
static int remove_doomed(struct git_repository *repo, struct doomed *doomed,
			 int err, char *ret_why)
{
	uint8_t oid[OID_BYTES];
	int r = err;

	for (size_t i = 0; i < doomed->nr; i++) {
		if (r == 0)
			r = refs_read(repo, doomed->names[i], oid, ret_why);
		if (r == 0)
			r = refs_update(repo, doomed->names[i], oid, NULL,
					"xendisk: not in use any more",
					ret_why);
		if (r == -ENOENT || r == -ESTALE)
			r = 0;
		free(doomed->names[i]);
	}
	free(TAKE_PTR(doomed->names));
	return r;
}

static int make_name(char ret[REF_NAME_MAX], char *ret_why, int n)
{
	if (n >= 0 && (size_t)n < REF_NAME_MAX)
		return 0;
	return why(ret_why, -ENAMETOOLONG, "%.60s...: the name is too long",
		   ret);
}

/* --- Of layers ---------------------------------------------------------------- */

void pin_host(char ret[PIN_HOST_MAX])
{
	memset(ret, 0, PIN_HOST_MAX);
	if (gethostname(ret, PIN_HOST_MAX) < 0 || !*ret)
		(void)snprintf(ret, PIN_HOST_MAX, "localhost");
	for (char *p = ret; *p; p++)
		if (!isalnum((unsigned char)*p))
			*p = '-';
}

int pin_folder(const char *branch, const char *uuid, char ret[REF_NAME_MAX],
	       char *ret_why)
{
	char host[PIN_HOST_MAX];

	pin_host(host);
	return make_name(ret, ret_why,
			 snprintf(ret, REF_NAME_MAX, REFS_PINS "%s/%s.%.*s/",
				  branch, host, UUID_PART, uuid));
}

static int layer_pin(const char *folder, uint64_t generation,
		     char ret[REF_NAME_MAX], char *ret_why)
{
	return make_name(ret, ret_why,
			 snprintf(ret, REF_NAME_MAX, "%s%" PRIu64, folder,
				  generation));
}

int pin_get(struct git_repository *repo, const char *folder,
	    uint64_t generation, uint8_t ret[OID_BYTES], char *ret_why)
{
	char name[REF_NAME_MAX];
	int r = layer_pin(folder, generation, name, ret_why);

	return r < 0 ? r : refs_read(repo, name, ret, ret_why);
}

int pin_set(struct git_repository *repo, const char *folder,
	    uint64_t generation, const uint8_t commit[OID_BYTES], char *ret_why)
{
	uint8_t there[OID_BYTES];
	char name[REF_NAME_MAX];
	int r = layer_pin(folder, generation, name, ret_why);

	if (r < 0)
		return r;
	r = refs_read(repo, name, there, ret_why);
	if (r == -ENOENT)
		return refs_update(repo, name, NULL, commit,
				   "xendisk: in use by an overlay", ret_why);
	if (r == 0 && memcmp(there, commit, OID_BYTES) != 0)
		return why(ret_why, -ESTALE,
			   "%s is another commit than the overlay's: has its "
			   "folder been copied?",
			   name);
	return r;
}

static int collect_earlier(void *ctx, const char *name,
			   const uint8_t oid[OID_BYTES])
{
	struct doomed *doomed = ctx;
	uint64_t generation;

	(void)oid;
	if (parse_u64(name + strlen(doomed->prefix), UINT64_MAX, &generation) <
		    0 ||
	    generation >= doomed->before)
		return 0;
	return doom(doomed, name);
}

int pin_release(struct git_repository *repo, const char *folder,
		uint64_t before, char *ret_why)
{
	struct doomed doomed = { .before = before, .prefix = folder };
	int r = refs_each(repo, folder, collect_earlier, &doomed, ret_why);

	return remove_doomed(repo, &doomed, r, ret_why);
}

/* --- Of processes ------------------------------------------------------------- */

/* When it started, in ticks since boot; "" when there is no such process, or only
 * what is left of one. */
static void started(const char *pid, char ret[24])
{
	char path[64], text[STAT_MAX];
	cleanup_file FILE *file = NULL;
	char *at, *save = NULL;

	*ret = '\0';
	(void)snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	file = fopen(path, "re");
	if (!file || !fgets(text, sizeof(text), file))
		return;
	at = strrchr(text, ')'); /* the name before it may have anything */
	at = at ? strtok_r(at + 1, " ", &save) : NULL;
	if (at && strchr("ZX", *at)) /* dead, and nobody has waited for it */
		return;
	for (int i = 3; at && i < STAT_START; i++)
		at = strtok_r(NULL, " ", &save);
	if (at)
		(void)snprintf(ret, 24, "%.20s", at);
}

/* "pid:[4026531836]": the digits. */
static void namespace(char ret[24])
{
	char text[64] = "";
	const char *digits;

	*ret = '\0';
	if (readlink("/proc/self/ns/pid", text, sizeof(text) - 1) < 0)
		return;
	digits = text + strcspn(text, "0123456789");
	(void)snprintf(ret, 24, "%.*s",
		       (int)MIN(strspn(digits, "0123456789"), 20), digits);
}

static int process_pin(char ret[REF_NAME_MAX], char *ret_why)
{
	char host[PIN_HOST_MAX], ns[24], pid[24], start[24];

	pin_host(host);
	namespace(ns);
	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	started(pid, start);
	return make_name(ret, ret_why,
			 snprintf(ret, REF_NAME_MAX, REFS_OPEN "%s/%s-%s-%s",
				  host, ns, pid, start));
}

/* NAMESPACE-PID-START of our own namespace, and there is no such process? */
static bool is_dead(const char *name)
{
	char text[PROCESS_NAME], ns[24], start[24];
	char *save = NULL;
	const char *word[3];

	if (snprintf(text, sizeof(text), "%s", name) >= (int)sizeof(text))
		return false;
	for (int i = 0; i < 3; i++)
		word[i] = strtok_r(i ? NULL : text, "-", &save);
	if (!word[0] || !word[1] || !word[2])
		return false;
	namespace(ns);
	if (!*ns || strcmp(ns, word[0]) != 0)
		return false;
	/* Can it be told at all? */
	started("self", start);
	if (!*start)
		return false;
	started(word[1], start);
	return strcmp(start, word[2]) != 0;
}

static int collect_dead(void *ctx, const char *name,
			const uint8_t oid[OID_BYTES])
{
	struct doomed *doomed = ctx;

	(void)oid;
	return is_dead(name + strlen(doomed->prefix)) ? doom(doomed, name) : 0;
}

int pin_clean(struct git_repository *repo, bool look, unsigned int *ret_nr,
	      char *ret_why)
{
	char prefix[REF_NAME_MAX], host[PIN_HOST_MAX];
	struct doomed doomed = { .prefix = prefix };
	int r;

	pin_host(host);
	(void)snprintf(prefix, sizeof(prefix), REFS_OPEN "%s/", host);
	r = refs_each(repo, prefix, collect_dead, &doomed, ret_why);
	*ret_nr = (unsigned int)doomed.nr;
	r = remove_doomed(repo, &doomed, look && r == 0 ? 1 : r, ret_why);
	return r > 0 ? 0 : r;
}

int pin_open(struct git_repository *repo, const uint8_t commit[OID_BYTES],
	     char *ret_why)
{
	char name[REF_NAME_MAX];
	unsigned int nr;
	int r = process_pin(name, ret_why);

	if (r == 0)
		r = refs_update(repo, name, NULL, commit,
				"xendisk: open for reading", ret_why);
	return r < 0 ? r : pin_clean(repo, false, &nr, ret_why);
}

int pin_close(struct git_repository *repo, char *ret_why)
{
	char name[REF_NAME_MAX];
	struct doomed doomed = { .prefix = "" };
	int r = process_pin(name, ret_why);

	if (r == 0)
		r = doom(&doomed, name);
	return remove_doomed(repo, &doomed, r, ret_why);
}
