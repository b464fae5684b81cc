/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "git-store.h"

#include <git2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "../../backends/git/pack-write.h"
#include "common/util.h"

char git_store_path[64];
git_repository *git_store;
unsigned int git_store_added;

static git_odb *odb;

int git_store_setup(void **state)
{
	/* Thousands of small files: in memory, where there is room. */
	const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" :
							     "/tmp";

	(void)state;
	(void)snprintf(git_store_path, sizeof(git_store_path),
		       "%s/xendisk-test-XXXXXX", folder);
	if (!mkdtemp(git_store_path) || git_libgit2_init() < 0 ||
	    git_repository_init(&git_store, git_store_path, 1) < 0 ||
	    git_repository_odb(&odb, git_store) < 0)
		return -1;
	return 0;
}

int git_store_teardown(void **state)
{
	cleanup_free char *command = xasprintf("rm -rf '%s'", git_store_path);

	(void)state;
	git_odb_free(odb);
	git_repository_free(git_store);
	(void)git_libgit2_shutdown();
	return command ? system(command) : -1;
}

void git_store_add(enum object_type type, const void *data, size_t n,
		   uint8_t ret[OID_BYTES])
{
	git_oid id;

	assert_int_equal(git_odb_write(&id, odb, data, n, (git_object_t)type),
			 0);
	memcpy(ret, id.id, OID_BYTES);
}

int pack_add(struct pack_writer *writer, enum object_type type,
	     const void *data, size_t n, uint8_t ret_oid[OID_BYTES],
	     char *ret_why)
{
	(void)writer;
	(void)ret_why;
	git_store_added++;
	git_store_add(type, data, n, ret_oid);
	return 0;
}

static int read_object(void *ctx, const uint8_t oid[OID_BYTES],
		       enum object_type type, size_t max, uint8_t **ret,
		       size_t *ret_n, char *ret_why)
{
	git_odb_object *object;
	git_oid id;
	int r = 0;

	(void)ctx;
	memcpy(id.id, oid, OID_BYTES);
	if (git_odb_read(&object, odb, &id) < 0)
		return why(ret_why, -ENOENT, "it is not there");
	if (git_odb_object_type(object) != (git_object_t)type ||
	    git_odb_object_size(object) > max)
		r = why(ret_why, -EBADMSG, "another type, or too large");
	if (r == 0) {
		*ret_n = git_odb_object_size(object);
		*ret = malloc(*ret_n + 1);
		assert_non_null(*ret);
		memcpy(*ret, git_odb_object_data(object), *ret_n);
	}
	git_odb_object_free(object);
	return r;
}

const struct object_source git_store_source = { .read = read_object };

char *git_store_says(const char *fmt, ...)
{
	char args[400], command[600];
	char *text = NULL;
	size_t size, n;
	char piece[4096];
	FILE *pipe, *out;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(args, sizeof(args), fmt, ap);
	va_end(ap);
	(void)snprintf(command, sizeof(command), "git --git-dir=%s %s 2>&1",
		       git_store_path, args);
	pipe = popen(command, "r");
	out = open_memstream(&text, &size);
	assert_non_null(pipe);
	assert_non_null(out);
	while ((n = fread(piece, 1, sizeof(piece), pipe)) > 0)
		assert_int_equal(fwrite(piece, 1, n, out), n);
	assert_int_equal(fclose(out), 0);
	if (pclose(pipe) != 0)
		fail_msg("%s: %s", command, text);
	return text;
}
