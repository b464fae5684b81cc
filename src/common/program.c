/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/program.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/confine.h"
#include "common/util.h"

/* Beside the backends; not called .so, for it is none. */
#define LIBRARY "lend.preload"
/* What a descriptor is called while it waits for its number. */
#define OUT_OF_THE_WAY (PROGRAM_FIRST_FILE + PROGRAM_MAX_FILES + 1)

/* --- The command line ----------------------------------------------------- */

/* Takes over word. */
static int add_word(struct program *program, char *word)
{
	size_t n = program->nr_words;
	char **argv;

	if (!word)
		return -ENOMEM;
	argv = realloc(program->argv, (n + 2) * sizeof(*argv));
	if (!argv) {
		free(word);
		return -ENOMEM;
	}
	program->argv = argv;
	argv[n] = word;
	argv[n + 1] = NULL;
	program->nr_words++;
	return 0;
}

/* {{ and }} become braces.  text is length bytes of a declared word. */
static void append_text(char *word, const char *text, size_t length)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < length; i++) {
		word[n++] = text[i];
		if (i + 1 < length && (text[i] == '{' || text[i] == '}') &&
		    text[i + 1] == text[i])
			i++;
	}
	word[n] = '\0';
}

/* before VALUE after. */
static int add_expanded(struct program *program, const char *before,
			size_t length, const char *value, const char *after)
{
	char *word = malloc(length + strlen(value) + strlen(after) + 1);

	if (!word)
		return -ENOMEM;
	word[0] = '\0';
	append_text(word, before, length);
	memcpy(word + strlen(word), value, strlen(value) + 1);
	append_text(word, after, strlen(after));
	return add_word(program, word);
}

/* The name by which the program opens the file of that parameter. */
static int name_file(struct program *program, unsigned int param, char *buf,
		     size_t size)
{
	unsigned int i = 0;

	while (i < program->nr_files && program->file[i] != param)
		i++;
	if (i == PROGRAM_MAX_FILES)
		return -EINVAL;
	if (i == program->nr_files)
		program->file[program->nr_files++] = param;
	(void)snprintf(buf, size, "/dev/fd/%u", PROGRAM_FIRST_FILE + i);
	return 0;
}

static int find_param(const struct layer *layer, const char *name,
		      size_t length)
{
	const struct xd_param *params = layer->info->params;

	for (unsigned int i = 0; i < layer->info->nr_params; i++)
		if (strncmp(params[i].name, name, length) == 0 &&
		    params[i].name[length] == '\0')
			return (int)i;
	return -EINVAL;
}

/* The braces hold a parameter's name. */
static int add_param(struct program *program, const struct layer *layer,
		     const char *word, const char *open, const char *close)
{
	int i = find_param(layer, open + 1, (size_t)(close - open - 1));
	const struct xd_param *param;
	const char *value;
	char file[32];
	int r = 0;

	if (i < 0)
		return i;
	param = &layer->info->params[i];
	if (!layer->values[i].set)
		return 0;
	value = layer->values[i].text;
	if (param->type == XD_PATH) {
		r = name_file(program, (unsigned int)i, file, sizeof(file));
		value = file;
	}
	while (r == 0) {
		r = add_expanded(program, word, (size_t)(open - word), value,
				 close + 1);
		value += strlen(value) + 1;
		if (!(param->flags & XD_REPEATED) || !*value)
			break;
	}
	return r;
}

/* The first brace that is not doubled; NULL: none. */
static const char *find_brace(const char *word, char brace)
{
	for (; *word; word++) {
		if (*word != brace)
			continue;
		if (word[1] != brace)
			return word;
		word++;
	}
	return NULL;
}

static int add_declared(struct program *program, const struct layer *layer,
			const char *word)
{
	const char *open = find_brace(word, '{');
	const char *close = open ? find_brace(open, '}') : NULL;
	size_t length;

	if (!open)
		return add_expanded(program, word, strlen(word), "", "");
	if (!close)
		return -EINVAL;
	length = (size_t)(close - open) + 1;
	if (strncmp(open, "{?readonly}", length) == 0 ||
	    strncmp(open, "{!readonly}", length) == 0) {
		if (layer->read_only != (open[1] == '?'))
			return 0;
		return add_expanded(program, word, (size_t)(open - word), "",
				    close + 1);
	}
	return add_param(program, layer, word, open, close);
}

int program_new(struct program *ret, const struct layer *layer)
{
	struct program program = { 0 };
	int r = layer->info->server ? 0 : -EINVAL;

	for (const char *p = layer->info->server; r == 0 && *p;
	     p += strlen(p) + 1)
		r = add_declared(&program, layer, p);
	if (r < 0) {
		program_free(&program);
		return r;
	}
	*ret = program;
	return 0;
}

void program_free(struct program *program)
{
	for (size_t i = 0; i < program->nr_words; i++)
		free(program->argv[i]);
	free(program->argv);
	*program = (struct program){ 0 };
}

/* --- Its start ------------------------------------------------------------ */

/* What it is to inherit gets its number; all else is closed in the process in
 * between. */
static int spawn(const struct program_spec *spec, char *const *argv, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	int from[2 + PROGRAM_MAX_FILES] = { -1, -1 };
	unsigned int n = 2 + spec->program->nr_files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r = 0;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	for (unsigned int i = 0; i < n; i++) {
		int fd = i == 0 ? spec->listener :
			 i == 1 ? spec->out :
				  spec->files[i - 2];

		from[i] = fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
		if (from[i] < 0)
			r = -errno;
	}
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null",
					 O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, from[1], STDERR_FILENO);
	posix_spawn_file_actions_adddup2(&actions, from[0], PROGRAM_LISTENER);
	for (unsigned int i = 2; i < n; i++)
		posix_spawn_file_actions_adddup2(
			&actions, from[i], PROGRAM_FIRST_FILE + (int)i - 2);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF |
						POSIX_SPAWN_SETSID);
	if (r == 0)
		r = -posix_spawn(ret, "/proc/self/exe", &actions, &attr, argv,
				 environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	for (unsigned int i = 0; i < n; i++)
		if (from[i] >= 0)
			(void)close(from[i]);
	return r;
}

int program_spawn(const struct program_spec *spec, pid_t *ret)
{
	const struct program *program = spec->program;
	cleanup_free char **argv = calloc(program->nr_words + 6, sizeof(*argv));
	cleanup_free char *library =
		xasprintf("%s/" LIBRARY, spec->backend_dir);
	char name[] = "xendiskd", mode[] = "--child";
	char uid[16], files[16];

	if (!argv || !library)
		return -ENOMEM;
	(void)snprintf(uid, sizeof(uid), "%u", spec->uid);
	(void)snprintf(files, sizeof(files), "%u", program->nr_files);
	argv[0] = name;
	argv[1] = mode;
	argv[2] = uid;
	argv[3] = files;
	argv[4] = library;
	memcpy(argv + 5, program->argv, program->nr_words * sizeof(*argv));
	return spawn(spec, argv, ret);
}

/* --- The process in between ----------------------------------------------- */

static int die(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what,
		err == -ENOENT ? "there is no such program" : strerror(-err));
	return 127;
}

/* Opened while we may: it lies where its user may not come. */
static int place_library(const char *path, int number)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return -errno;
	if (fd != number && dup2(fd, number) < 0)
		return -errno;
	return 0;
}

/* Without a user of its own it keeps ours, who is then not root, or is whoever
 * runs `xendisk serve`. */
static int become(uint32_t uid)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	if (uid && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
		    setresuid(uid, uid, uid) < 0))
		return -errno;
	if (uid && (getuid() != uid || setuid(0) == 0))
		return -EPERM;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

static int set_environment(unsigned int nr_files)
{
	char pid[16], files[16], library[32];

	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	(void)snprintf(files, sizeof(files), "%u", nr_files);
	(void)snprintf(library, sizeof(library), "/dev/fd/%u",
		       PROGRAM_FIRST_FILE + nr_files);
	if (clearenv() != 0 || setenv("LISTEN_PID", pid, 1) < 0 ||
	    setenv("LISTEN_FDS", "1", 1) < 0 ||
	    setenv("PATH", "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin",
		   1) < 0 ||
	    setenv("HOME", "/", 1) < 0 || setenv("LC_ALL", "C", 1) < 0)
		return -errno;
	if (setenv("LD_PRELOAD", library, 1) < 0 ||
	    setenv("XENDISK_FILES", files, 1) < 0)
		return -errno;
	return 0;
}

/* argv: UID NR_FILES LIBRARY PROGRAM WORD... */
int program_child_main(int argc, char **argv)
{
	uint32_t uid, nr_files;
	int first, r;

	if (argc < 4 || parse_u32(argv[0], UINT32_MAX - 1, &uid) < 0 ||
	    parse_u32(argv[1], PROGRAM_MAX_FILES, &nr_files) < 0)
		return die("xendiskd --child", -EINVAL);
	first = PROGRAM_FIRST_FILE + (int)nr_files;
	close_fds_from(first);
	r = place_library(argv[2], first);
	if (r < 0)
		return die(argv[2], r);
	confine_ordinary();
	(void)umask(077);
	r = chdir("/") < 0 ? -errno : become(uid);
	if (r == 0)
		r = set_environment(nr_files);
	if (r < 0)
		return die("cannot isolate it", r);
	(void)execvp(argv[3], argv + 3);
	return die(argv[3], -errno);
}
