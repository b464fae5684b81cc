/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-committer.c - what a worker says that somebody has broken into.
 *
 * An input is messages: a type, what to put into its fields (bytes of the input, or
 * what would be right there), and which descriptors come along.  They go to a
 * committer, in a thread, on a repository with two disks.
 *
 * Promised: each answer is well-formed and to a question; no branch but that of
 * OPEN changes, nor any reference but its own, and that one only to a commit whose
 * parent it was; no descriptor is left over; the end of the socket is its end.
 */
#include "config.h"

#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <git2.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "committer-main.h"
#include "committer-private.h"
#include "overlay.h"
#include "tree-edit.h"

#define DISK	  (128u << 10)
#define CHUNK	  (16u << 10)
#define QUESTIONS 24

static char folder[] = "/tmp/fuzz-committer.XXXXXX";
static int repo_dir = -1, state_dir = -1;
static uint8_t first_commit[OID_BYTES];
static char uuid_text[CM_UUID_MAX];
static struct overlay *overlay;
static struct overlay_layer frozen;

static char reason[WHY_MAX];

/* --- The repository, once ------------------------------------------------------ */

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void fuzz_leave(void)
{
	(void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int open_folder(const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	(void)mkdir(path, 0700);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* A disk that is all zero. */
static void make_disk(git_repository *repo)
{
	struct git_disk disk = { DISK, 512, CHUNK, 3 };
	char text[GIT_DISK_TEXT];
	git_treebuilder *builder;
	git_signature *who;
	git_oid blob, tree_id, id;
	git_tree *tree;

	HOLDS(git_blob_create_from_buffer(&blob, repo, text,
					  git_disk_print(&disk, text)) == 0 &&
		      git_treebuilder_new(&builder, repo, NULL) == 0 &&
		      git_treebuilder_insert(NULL, builder, GIT_DISK_FILE,
					     &blob, GIT_FILEMODE_BLOB) == 0 &&
		      git_treebuilder_write(&tree_id, builder) == 0 &&
		      git_tree_lookup(&tree, repo, &tree_id) == 0 &&
		      git_signature_new(&who, "t", "t@example.org", 1, 0) ==
			      0 &&
		      git_commit_create(&id, repo, NULL, who, who, NULL, "new",
					tree, 0, NULL) == 0,
	      "a disk");
	memcpy(first_commit, id.id, OID_BYTES);
	git_treebuilder_free(builder);
	git_signature_free(who);
	git_tree_free(tree);
}

static void make_repository(void)
{
	git_repository *repo;
	char path[128];

	(void)git_libgit2_init();
	HOLDS(mkdtemp(folder), "a folder");
	repo_dir = open_folder("repo");
	state_dir = open_folder("state");
	(void)snprintf(path, sizeof(path), "%s/repo", folder);
	HOLDS(git_repository_init(&repo, path, 1) == 0, "a repository");
	make_disk(repo);
	git_repository_free(repo);
	if (atexit(fuzz_leave) != 0)
		abort();
}

/* One frozen layer with some data in it. */
static void make_overlay(void)
{
	const struct overlay_of of = { "/fuzz", "web", "fuzz" };
	const struct snapshot_info info = { .kind = CM_BRANCH, .time = 1 };
	struct overlay_facts facts = { .size = DISK,
				       .base_size = DISK,
				       .chunk = CHUNK };
	struct overlay_layer layers[OVERLAY_SLOTS];
	uint64_t gen;
	bool found;
	size_t n = 0;

	memcpy(facts.base, first_commit, OID_BYTES);
	memcpy(facts.head, first_commit, OID_BYTES);
	HOLDS(overlay_open(&overlay, state_dir, &of, &found,
			   &(struct overlay_facts){ 0 }, reason) == 0 &&
		      overlay_lock(overlay, &facts, false, reason) == 0,
	      "%s", reason);
	HOLDS(pwrite(layer_data_fd(overlay_active(overlay)), folder,
		     sizeof(folder), CHUNK) > 0 &&
		      layer_mark(overlay_active(overlay), CHUNK / 512,
				 CHUNK / 512 + 1) == 0 &&
		      overlay_freeze(overlay, &info, &gen, reason) == 0,
	      "%s", reason);
	HOLDS(overlay_layers(overlay, layers) == 2, "layers");
	frozen = layers[1];
	for (int i = 0; i < 16; i++)
		n += (size_t)snprintf(
			uuid_text + n, sizeof(uuid_text) - n, "%s%02x",
			i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			overlay_facts(overlay)->uuid[i]);
}

/* Both branches at the first commit, and no other reference. */
static void reset_references(git_repository *repo)
{
	static const char *const heads[] = { "refs/heads/web",
					     "refs/heads/other" };
	git_strarray names;
	git_reference *ref;
	git_oid id;

	HOLDS(git_reference_list(&names, repo) == 0, "references");
	for (size_t i = 0; i < names.count; i++)
		HOLDS(git_reference_remove(repo, names.strings[i]) == 0, "%s",
		      names.strings[i]);
	git_strarray_dispose(&names);
	memcpy(id.id, first_commit, OID_BYTES);
	for (size_t i = 0; i < 2; i++) {
		HOLDS(git_reference_create(&ref, repo, heads[i], &id, 1,
					   "fuzz") == 0,
		      "%s", heads[i]);
		git_reference_free(ref);
	}
}

/* --- Questions ----------------------------------------------------------------- */

/* Bits of the byte that each field has: what is put there. */
#define RIGHT 1u
static bool is_right(struct input *in)
{
	return !(input_u8(in) & RIGHT);
}

static void make_text(struct input *in, char *to, size_t size, const char *good)
{
	size_t n;

	if (is_right(in)) {
		(void)snprintf(to, size, "%s", good);
		return;
	}
	n = input_u8(in) % size;
	input_bytes(in, to, n);
	to[n] = '\0';
}

static void make_id(struct input *in, uint8_t to[OID_BYTES])
{
	if (is_right(in))
		memcpy(to, first_commit, OID_BYTES);
	else
		input_bytes(in, to, OID_BYTES);
}

static void make_open(struct input *in, struct cm_open *ask)
{
	ask->flags = input_u8(in);
	make_text(in, ask->branch, sizeof(ask->branch), "web");
	make_text(in, ask->rev, sizeof(ask->rev), "other");
	make_text(in, ask->keep, sizeof(ask->keep), "2h");
}

static void make_stand(struct input *in, struct cm_stand *ask)
{
	make_text(in, ask->uuid, sizeof(ask->uuid), uuid_text);
	ask->generation = input_u8(in);
	make_id(in, ask->base);
	make_id(in, ask->head);
}

static void make_commit(struct input *in, struct cm_commit *ask)
{
	ask->generation = is_right(in) ? frozen.generation : input_u64(in);
	ask->after = is_right(in) ? 0 : input_u64(in);
	ask->size = is_right(in) ? DISK : input_u64(in);
	ask->dirty = input_u16(in);
	if (!(ask->dirty & RIGHT))
		ask->dirty = frozen.info.dirty;
	ask->time = is_right(in) ? 1 : (int64_t)input_u64(in);
	ask->kind = is_right(in) ? CM_BRANCH : input_u8(in);
	ask->consistency = is_right(in) ? CONSISTENCY_CRASH : input_u32(in);
	make_text(in, ask->domain, sizeof(ask->domain), "web1");
	make_text(in, ask->message, sizeof(ask->message), "");
}

static enum cm_type make_question(struct input *in, union cm_any *msg)
{
	static const enum cm_type types[] = { CM_OPEN,	 CM_STAND,   CM_PACKS,
					      CM_OBJECT, CM_COMMIT,  CM_RELEASE,
					      CM_DONE,	 CM_PROGRESS };
	uint8_t byte = input_u8(in);
	/* The last of them came later than the inputs. */
	enum cm_type type = byte >= 0xf0 ? CM_GIVE_UP : types[byte % 8];

	memset(msg, 0, sizeof(*msg));
	if (type == CM_OPEN)
		make_open(in, &msg->open);
	else if (type == CM_STAND)
		make_stand(in, &msg->stand);
	else if (type == CM_OBJECT)
		make_id(in, msg->object.oid);
	else if (type == CM_COMMIT)
		make_commit(in, &msg->commit);
	else if (type == CM_RELEASE)
		msg->release.generation = input_u64(in);
	else if (type == CM_GIVE_UP)
		make_text(in, msg->give_up.uuid, sizeof(msg->give_up.uuid),
			  uuid_text);
	return type;
}

/* Returns how many; they are to be closed. */
static unsigned int make_files(struct input *in, enum cm_type type, int fds[3])
{
	uint8_t how = input_u8(in);
	unsigned int nr = type == CM_COMMIT ? 2 : 0;

	if (how & 1) /* as many as there should be, or not */
		nr = how >> 6;
	for (unsigned int i = 0; i < nr; i++) {
		int pipes[2] = { -1, -1 };

		switch (how >> (1 + i) & 3) {
		case 0:
			fds[i] = dup(i ? frozen.map_fd : frozen.data_fd);
			break;
		case 1:
			fds[i] = memfd_create("empty", MFD_CLOEXEC);
			break;
		case 2:
			HOLDS(pipe(pipes) == 0, "a pipe");
			(void)close(pipes[1]);
			fds[i] = pipes[0];
			break;
		default:
			fds[i] = dup(repo_dir);
		}
		HOLDS(fds[i] >= 0, "a descriptor");
	}
	return nr;
}

/* As it is, or with bytes that cm_send() would never write.  False: the peer has
 * gone. */
static bool send_raw(int sock, struct input *in, union cm_any *msg,
		     enum cm_type type, const int *fds, unsigned int nr)
{
	size_t n;

	if (!(input_u8(in) & 0x80))
		return cm_send(sock, &msg->h, type, fds, nr, true) == 0;
	n = 1 + input_u16(in) % sizeof(*msg);
	input_bytes(in, (char *)msg + input_u8(in), 8);
	return send(sock, msg, n, MSG_NOSIGNAL) >= 0;
}

/* --- Answers ------------------------------------------------------------------- */

struct listener {
	int sock;
	uint32_t asked; /* the highest seq; atomic */
};

static void *listen_to(void *arg)
{
	struct listener *listener = arg;
	int fds[CM_MAX_FDS];
	union cm_any msg;
	unsigned int nr;
	int r;

	while ((r = cm_receive(listener->sock, &msg, fds, &nr)) == 0) {
		while (nr > 0)
			(void)close(fds[--nr]);
		HOLDS(msg.h.type >= CM_OPENED && msg.h.type != CM_BEGIN,
		      "%s is no answer", cm_name(msg.h.type));
		HOLDS(msg.h.seq <= __atomic_load_n(&listener->asked,
						   __ATOMIC_SEQ_CST),
		      "to no question");
		if (msg.h.type == CM_FAILED)
			HOLDS(msg.h.result < 0 && *msg.failed.text,
			      "a sentence");
	}
	HOLDS(r == -ECONNRESET, "%d: an answer is rubbish", r);
	return NULL;
}

/* --- References ---------------------------------------------------------------- */

static bool starts(const char *name, const char *with, const char *branch)
{
	size_t n = strlen(with), m = strlen(branch);

	return strncmp(name, with, n) == 0 &&
	       strncmp(name + n, branch, m) == 0 && name[n + m] == '/';
}

static void check_head(git_repository *repo, const char *name)
{
	git_commit *commit;
	git_oid id;

	HOLDS(git_reference_name_to_id(&id, repo, name) == 0, "%s", name);
	if (memcmp(id.id, first_commit, OID_BYTES) == 0)
		return;
	HOLDS(git_commit_lookup(&commit, repo, &id) == 0, "%s", name);
	HOLDS(git_commit_parentcount(commit) == 1 &&
		      memcmp(git_commit_parent_id(commit, 0)->id, first_commit,
			     OID_BYTES) == 0,
	      "%s was moved", name);
	git_commit_free(commit);
}

static void check_references(git_repository *repo, const struct committer *c)
{
	const char *branch = c->opened && !c->readonly ? c->branch : "";
	git_strarray names;
	git_oid id;

	HOLDS(git_reference_name_to_id(&id, repo, "refs/heads/other") == 0 &&
		      git_reference_name_to_id(&id, repo, "refs/heads/web") ==
			      0,
	      "the branches");
	HOLDS(git_reference_list(&names, repo) == 0, "references");
	for (size_t i = 0; i < names.count; i++) {
		const char *name = names.strings[i];

		if (strncmp(name, REFS_HEADS, strlen(REFS_HEADS)) == 0 &&
		    strcmp(name + strlen(REFS_HEADS), branch) == 0) {
			check_head(repo, name);
			continue;
		}
		if (strcmp(name, "refs/heads/other") == 0 ||
		    strcmp(name, "refs/heads/web") == 0) {
			HOLDS(git_reference_name_to_id(&id, repo, name) == 0 &&
				      memcmp(id.id, first_commit, OID_BYTES) ==
					      0,
			      "%s is not ours", name);
			continue;
		}
		HOLDS(*branch && (starts(name, REFS_AUTO, branch) ||
				  starts(name, REFS_PINS, branch) ||
				  starts(name, REFS_DIVERGED, branch)),
		      "%s is not ours", name);
	}
	git_strarray_dispose(&names);
}

/* --- One input ----------------------------------------------------------------- */

static unsigned int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	HOLDS(dir, "/proc");
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static void *serve(void *arg)
{
	committer_serve(arg);
	return NULL;
}

static void ask(int sock, struct listener *listener, struct input *in)
{
	for (uint32_t i = 1; i <= QUESTIONS && in->left > 0; i++) {
		union cm_any msg;
		enum cm_type type = make_question(in, &msg);
		int fds[3];
		unsigned int nr = make_files(in, type, fds);
		bool there;

		msg.h.seq = i;
		__atomic_store_n(&listener->asked, i, __ATOMIC_SEQ_CST);
		there = send_raw(sock, in, &msg, type, fds, nr);
		while (nr > 0)
			(void)close(fds[--nr]);
		if (!there)
			break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct listener listener = { .sock = -1 };
	pthread_t server, hearer;
	git_repository *repo;
	struct committer c;
	unsigned int before;
	char path[128];
	int pair[2];

	if (repo_dir < 0) {
		make_repository();
		make_overlay();
	}
	(void)snprintf(path, sizeof(path), "%s/repo", folder);
	HOLDS(git_repository_open_bare(&repo, path) == 0, "the repository");
	reset_references(repo);
	before = count_descriptors();
	HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0,
	      "a socket");
	HOLDS(committer_begin(&c, pair[1], state_dir, repo_dir, reason) == 0,
	      "%s", reason);
	listener.sock = pair[0];
	HOLDS(pthread_create(&server, NULL, serve, &c) == 0 &&
		      pthread_create(&hearer, NULL, listen_to, &listener) == 0,
	      "threads");
	ask(pair[0], &listener, &in);
	(void)shutdown(pair[0], SHUT_WR);
	(void)pthread_join(server, NULL);
	(void)close(pair[1]);
	(void)pthread_join(hearer, NULL);
	(void)close(pair[0]);
	committer_finish(&c);
	check_references(repo, &c);
	git_repository_free(repo);
	HOLDS(count_descriptors() <= before, "descriptors are left over");
	return 0;
}
