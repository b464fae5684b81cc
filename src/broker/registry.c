/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/registry.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/child.h"
#include "broker/describe.h"
#include "common/util.h"

#define DESCRIBE_TIMEOUT_MS 10000
#define DESCRIPTION_MAX	    65536
#define MAX_PARAMS	    64

struct entry {
	char *name;
	struct backend_info *info;
	char *error;
};

struct registry {
	struct entry *entries;
	size_t nr_entries;
};

/* --- Asking a child ------------------------------------------------------- */

/* The child is this process once more, before it has threads: to execute the program
 * anew, with all that it is linked with, took three times as long as its module does. */
static pid_t fork_describer(const char *file, int out)
{
	pid_t broker = getpid();
	pid_t pid = fork();

	if (pid != 0)
		return pid < 0 ? -errno : pid;
	/* The broker's handlers would tell the broker; and it must not outlive it,
	 * with the lock on the run directory. */
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	_exit(getppid() == broker ? describe(file, out) : 1);
}

/* Reads to the end, within the time.  Returns the length or -errno. */
static ssize_t read_output(int fd, char *buf, size_t size)
{
	uint64_t deadline = now_ns() + DESCRIBE_TIMEOUT_MS * 1000000ull;
	size_t length = 0;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = now_ns();
		ssize_t n;

		if (now >= deadline)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((deadline - now) / 1000000) + 1) <= 0)
			continue;
		n = read(fd, buf + length, size - length);
		if (n <= 0)
			return n < 0 ? -errno : (ssize_t)length;
		length += (size_t)n;
		if (length == size)
			return -EMSGSIZE;
	}
}

/* The child's output and status; *ret_json or *ret_error is set. */
static int ask(const char *file, json_t **ret_json, char **ret_error)
{
	char buf[DESCRIPTION_MAX];
	cleanup_close int in = -1;
	int pair[2];
	char how[64];
	ssize_t n;
	pid_t pid;
	int status;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	in = pair[0];
	pid = fork_describer(file, pair[1]);
	(void)close(pair[1]);
	if (pid < 0)
		return pid;
	n = read_output(in, buf, sizeof(buf));
	if (n < 0)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	*ret_json = n > 0 ? json_loadb(buf, (size_t)n, 0, NULL) : NULL;
	if (*ret_json)
		return 0;
	child_explain(status, how, sizeof(how));
	*ret_error = n == -ETIMEDOUT ? strdup("it hangs when it is loaded") :
				       xasprintf("loading it %s", how);
	return *ret_error ? 0 : -ENOMEM;
}

/* --- From JSON to the tables ---------------------------------------------- */

/* jansson keeps the texts; backend_info_new() copies them. */
static int read_params(json_t *array, struct xd_param *params)
{
	json_t *item;
	size_t i;

	if (json_array_size(array) >= MAX_PARAMS)
		return -E2BIG;
	json_array_foreach(array, i, item)
	{
		int type;
		int flags;

		if (json_unpack(item, "{s:s, s:i, s:i, s?:s, s?:s, s?:s}",
				"name", &params[i].name, "type", &type, "flags",
				&flags, "choices", &params[i].choices, "preset",
				&params[i].preset, "help", &params[i].help) < 0)
			return -EINVAL;
		if (type <= XD_END || type > XD_CREDENTIALS)
			return -EINVAL;
		params[i].type = (enum xd_type)type;
		params[i].flags = (uint32_t)flags;
	}
	params[i].type = XD_END;
	return 0;
}

/* "nbd\0nbds\0" */
static int read_list(json_t *array, char *buf, size_t size)
{
	size_t length = 0;
	json_t *item;
	size_t i;

	json_array_foreach(array, i, item)
	{
		size_t n = json_string_length(item) + 1;

		if (!json_is_string(item) || length + n + 1 > size)
			return -EINVAL;
		memcpy(buf + length, json_string_value(item), n);
		length += n;
	}
	buf[length] = '\0';
	return 0;
}

static struct backend_info *read_info(json_t *json)
{
	struct xd_param params[MAX_PARAMS] = { { .name = NULL } };
	struct xd_backend backend = { .size = sizeof(backend),
				      .version = XD_API_VERSION,
				      .params = params };
	char schemes[256];
	char server[1024];
	json_t *schemes_json;
	json_t *params_json;
	json_t *server_json;
	int flags;

	if (json_unpack(json, "{s:s, s:s, s:i, s:o, s:o, s:o}", "name",
			&backend.name, "summary", &backend.summary, "flags",
			&flags, "schemes", &schemes_json, "params",
			&params_json, "server", &server_json) < 0 ||
	    read_params(params_json, params) < 0 ||
	    read_list(schemes_json, schemes, sizeof(schemes)) < 0 ||
	    read_list(server_json, server, sizeof(server)) < 0)
		return NULL;
	backend.flags = (uint32_t)flags;
	backend.schemes = schemes[0] ? schemes : NULL;
	backend.server = server[0] ? server : NULL;
	return backend_info_new(&backend);
}

static int fill_entry(struct entry *entry, json_t *json)
{
	const char *error = NULL;

	if (json_unpack(json, "{s:s}", "error", &error) == 0) {
		entry->error = strdup(error);
		return entry->error ? 0 : -ENOMEM;
	}
	entry->info = read_info(json);
	if (!entry->info) {
		entry->error = strdup("its tables make no sense");
		return entry->error ? 0 : -ENOMEM;
	}
	if (strcmp(entry->info->name, entry->name) != 0) {
		entry->error =
			xasprintf("it calls itself %s", entry->info->name);
		backend_info_free(TAKE_PTR(entry->info));
		return entry->error ? 0 : -ENOMEM;
	}
	return 0;
}

/* --- The folder ----------------------------------------------------------- */

static int is_module(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return length > 3 && entry->d_name[0] != '.' &&
	       strcmp(entry->d_name + length - 3, ".so") == 0;
}

static int load_module(struct entry *entry, const char *dir, const char *file)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, file);
	json_t *json = NULL;
	int r;

	entry->name = strndup(file, strlen(file) - strlen(".so"));
	if (!path || !entry->name)
		return -ENOMEM;
	r = ask(path, &json, &entry->error);
	if (r == 0 && json)
		r = fill_entry(entry, json);
	json_decref(json);
	return r;
}

int registry_load(struct registry **ret, const char *backend_dir)
{
	struct registry *registry = calloc(1, sizeof(*registry));
	struct dirent **files;
	int r = 0;
	int n;

	if (!registry)
		return -ENOMEM;
	n = scandir(backend_dir, &files, is_module, alphasort);
	if (n < 0) {
		r = -errno;
		free(registry);
		return r;
	}
	registry->entries = calloc((size_t)n + 1, sizeof(struct entry));
	if (!registry->entries)
		r = -ENOMEM;
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = load_module(
				&registry->entries[registry->nr_entries++],
				backend_dir, files[i]->d_name);
		free(files[i]);
	}
	free(files);
	if (r < 0) {
		registry_free(registry);
		return r;
	}
	*ret = registry;
	return 0;
}

void registry_free(struct registry *registry)
{
	if (!registry)
		return;
	for (size_t i = 0; i < registry->nr_entries; i++) {
		free(registry->entries[i].name);
		free(registry->entries[i].error);
		backend_info_free(registry->entries[i].info);
	}
	free(registry->entries);
	free(registry);
}

const struct backend_info *registry_backend(const struct registry *registry,
					    const char *name)
{
	for (size_t i = 0; i < registry->nr_entries; i++)
		if (strcmp(registry->entries[i].name, name) == 0)
			return registry->entries[i].info;
	return NULL;
}

const struct backend_info *registry_scheme(const struct registry *registry,
					   const char *scheme)
{
	for (size_t i = 0; i < registry->nr_entries; i++) {
		const struct backend_info *info = registry->entries[i].info;
		const char *p = info ? info->schemes : NULL;

		for (; p && *p; p += strlen(p) + 1)
			if (strcmp(p, scheme) == 0)
				return info;
	}
	return NULL;
}

const char *registry_error(const struct registry *registry, const char *name)
{
	for (size_t i = 0; i < registry->nr_entries; i++)
		if (strcmp(registry->entries[i].name, name) == 0)
			return registry->entries[i].error;
	return NULL;
}

bool registry_entry(const struct registry *registry, size_t i,
		    struct registry_entry *ret)
{
	if (i > registry->nr_entries)
		return false;
	if (i == registry->nr_entries) {
		*ret = (struct registry_entry){ .name = "disk",
						.info = expr_disk_info() };
		return true;
	}
	*ret = (struct registry_entry){ registry->entries[i].name,
					registry->entries[i].info,
					registry->entries[i].error };
	return true;
}
