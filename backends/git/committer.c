/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Three of them: the parent, which does nothing but start the next when one dies,
 * since a worker that is isolated cannot; and in its child the thread that is
 * asked, which never does anything that takes long, so that a guest's read need
 * not wait for a commit; and the thread that makes commits (commit.c), which comes
 * with STAND and has a repository of its own, for libgit2 lets one thread use one.
 *
 * What comes over the socket may come from somebody who has broken into the
 * worker.  He can have the content of all the repository, as the guest's disk may
 * be in it; he can make commits on the branch that OPEN named, and pins of that
 * branch and this host.  He cannot name a file, a reference, or another branch
 * after OPEN.  OPEN itself comes before the worker has seen a guest; after a death,
 * which he may have brought about, it has to say the same (struct first), and what
 * it meant then is what it means.
 */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "chunk-map.h"
#include "committer-main.h"
#include "committer-private.h"
#include "common/fds.h"
#include "common/util.h"
#include "layer-commit.h"
#include "pins.h"
#include "repo-confine.h"

void committer_fail(const struct committer *c, uint32_t seq, int err,
		    const char *text)
{
	struct cm_failed failed = { .h = { .seq = seq, .result = err } };

	(void)snprintf(failed.text, sizeof(failed.text), "%s", text);
	(void)cm_send(c->sock, &failed.h, CM_FAILED, NULL, 0, true);
}

/* --- OPEN and STAND ----------------------------------------------------------- */

/* What the disk is at that commit. */
static int answer_opened(struct committer *c, uint32_t seq,
			 const struct commit_facts *commit, char *ret_why)
{
	struct object_source source = { repo_source_read, c->repo };
	struct cm_opened opened = { .h = { .seq = seq } };
	const struct git_disk *disk;
	struct chunk_map *map;
	int r = chunk_map_open(&map, &source, commit->tree, ret_why);

	if (r < 0)
		return r;
	disk = chunk_map_disk(map);
	memcpy(opened.commit, commit->id, OID_BYTES);
	memcpy(opened.tree, commit->tree, OID_BYTES);
	opened.size = disk->size;
	opened.sector = disk->sector;
	opened.chunk = c->chunk = disk->chunk;
	opened.levels = disk->levels;
	opened.time = commit->time;
	chunk_map_free(map);
	return cm_send(c->sock, &opened.h, CM_OPENED, NULL, 0, true);
}

/* A branch that begins at rev; 0, too, when somebody else was faster. */
static int make_fork(struct committer *c, const char *name, const char *rev,
		     char *ret_why)
{
	struct object_source source = { repo_source_read, c->repo };
	struct commit_facts start;
	struct chunk_map *map;
	int r = refs_resolve(c->repo, rev, &start, ret_why);

	if (r < 0)
		return r;
	/* Before the branch is there. */
	r = chunk_map_open(&map, &source, start.tree, ret_why);
	if (r < 0)
		return r;
	chunk_map_free(map);
	r = refs_update(c->repo, name, NULL, start.id, "xendisk: fork",
			ret_why);
	return r == -ESTALE ? 0 : r;
}

/* What the first OPEN of all said and got, whoever answered: each of the children
 * sees it.  NULL: there is no parent. */
static struct first {
	struct cm_open open; /* type 0: there was none yet */
	uint8_t commit[OID_BYTES];
	bool answered; /* with that commit */
} * first;

/*
 * After a death a revision is what it was: names may mean something else by now,
 * and the disk is not to change under a guest.  A branch that is written to is
 * where it is, if it is; but it is not made again.
 */
static int find_head(struct committer *c, const struct cm_open *ask,
		     struct commit_facts *ret, char *ret_why)
{
	bool again = first && first->answered;
	char name[REF_NAME_MAX];
	uint8_t head[OID_BYTES];
	int r;

	if (c->readonly && again)
		return refs_commit(c->repo, first->commit, ret, ret_why);
	if (c->readonly && *ask->rev)
		return refs_resolve(c->repo, ask->rev, ret, ret_why);
	(void)snprintf(name, sizeof(name), REFS_HEADS "%s", ask->branch);
	r = refs_read(c->repo, name, head, ret_why);
	if (again && (r == -ENOENT || r == -EBADMSG))
		return refs_commit(c->repo, first->commit, ret, ret_why);
	if (r == -ENOENT && ask->flags & CM_OPEN_FORK) {
		r = make_fork(c, name, ask->rev, ret_why);
		if (r == 0)
			r = refs_read(c->repo, name, head, ret_why);
	}
	return r < 0 ? r : refs_commit(c->repo, head, ret, ret_why);
}

static int check_open(const struct committer *c, const struct cm_open *ask,
		      char *ret_why)
{
	bool readonly = ask->flags & CM_OPEN_READONLY;

	if (c->opened)
		return why(ret_why, -EALREADY, "OPEN: there was one");
	if (ask->flags & ~(CM_OPEN_READONLY | CM_OPEN_FORK | CM_OPEN_STORE) ||
	    (readonly && ask->flags & CM_OPEN_FORK))
		return why(ret_why, -EINVAL, "OPEN: no such flags");
	if (!readonly && c->lock_file < 0)
		return why(ret_why, -EROFS, "OPEN: there is no state folder");
	if (readonly && *ask->rev && !*ask->branch)
		return 0;
	return refs_check_branch(ask->branch, ret_why);
}

/* By the time that a child died, the worker has a guest. */
static int check_first(const struct cm_open *ask, char *ret_why)
{
	if (!first)
		return 0;
	if (first->open.h.type == 0)
		first->open = *ask;
	if (first->open.flags == ask->flags &&
	    strcmp(first->open.branch, ask->branch) == 0 &&
	    strcmp(first->open.rev, ask->rev) == 0 &&
	    strcmp(first->open.keep, ask->keep) == 0)
		return 0;
	return why(ret_why, -EPERM, "OPEN: it was another disk before");
}

static void note_first(const struct commit_facts *commit)
{
	if (!first || first->answered)
		return;
	memcpy(first->commit, commit->id, OID_BYTES);
	first->answered = true;
}

static int on_open(struct committer *c, const union cm_any *msg, const int *fds,
		   char *ret_why)
{
	const struct cm_open *ask = &msg->open;
	struct commit_facts commit;
	int r = check_open(c, ask, ret_why);

	(void)fds;
	if (r == 0)
		r = check_first(ask, ret_why);
	if (r == 0)
		r = keep_parse(ask->keep, &c->keep, ret_why);
	if (r < 0)
		return r;
	c->readonly = ask->flags & CM_OPEN_READONLY;
	c->store_only = ask->flags & CM_OPEN_STORE;
	(void)snprintf(c->branch, sizeof(c->branch), "%s", ask->branch);
	r = find_head(c, ask, &commit, ret_why);
	if (r == 0 && c->readonly)
		r = pin_open(c->repo, commit.id, ret_why);
	if (r < 0)
		return r;
	note_first(&commit);
	c->opened = true;
	return answer_opened(c, ask->h.seq, &commit, ret_why);
}

static int on_stand(struct committer *c, const union cm_any *msg,
		    const int *fds, char *ret_why)
{
	const struct cm_stand *ask = &msg->stand;
	struct commit_facts base, head;
	int r;

	(void)fds;
	if (!c->opened || c->readonly)
		return why(ret_why, -EROFS, "STAND: not open for writing");
	r = refs_commit(c->repo, ask->base, &base, ret_why);
	if (r == 0)
		r = refs_commit(c->repo, ask->head, &head, ret_why);
	if (r == 0)
		r = commit_stand(c, ask, ret_why);
	return r < 0 ? r : answer_opened(c, ask->h.seq, &base, ret_why);
}

/* --- The others --------------------------------------------------------------- */

static int on_packs(struct committer *c, const union cm_any *msg,
		    const int *fds, char *ret_why)
{
	(void)fds;
	if (!c->opened)
		return why(ret_why, -EINVAL, "PACKS: nothing is open");
	(void)committer_send_packs(c, msg->h.seq, NULL, 0);
	return 0;
}

static int on_object(struct committer *c, const union cm_any *msg,
		     const int *fds, char *ret_why)
{
	(void)fds;
	if (!c->opened)
		return why(ret_why, -EINVAL, "OBJECT: nothing is open");
	committer_object(c, &msg->object);
	return 0;
}

static int on_give_up(struct committer *c, const union cm_any *msg,
		      const int *fds, char *ret_why)
{
	struct cm_header done = { .seq = msg->h.seq };
	int r;

	(void)fds;
	if (!c->opened || c->readonly)
		return why(ret_why, -EROFS, "GIVE_UP: not open for writing");
	r = commit_give_up(c, msg->give_up.uuid, ret_why);
	return r < 0 ? r : cm_send(c->sock, &done, CM_DONE, NULL, 0, true);
}

static int on_job(struct committer *c, const union cm_any *msg, const int *fds,
		  char *ret_why)
{
	if (!c->running) {
		for (int i = 0; msg->h.type == CM_COMMIT && i < 2; i++)
			(void)close(fds[i]);
		return why(ret_why, -EINVAL, "%s: before STAND",
			   cm_name(msg->h.type));
	}
	commit_ask(c, msg, fds);
	return 0;
}

static const struct {
	uint16_t type;
	int (*run)(struct committer *c, const union cm_any *msg, const int *fds,
		   char *ret_why);
} questions[] = {
	{ CM_OPEN, on_open },	    { CM_STAND, on_stand },
	{ CM_PACKS, on_packs },	    { CM_OBJECT, on_object },
	{ CM_COMMIT, on_job },	    { CM_RELEASE, on_job },
	{ CM_GIVE_UP, on_give_up },
};

/* False: what only a committer says. */
static bool answer(struct committer *c, const union cm_any *msg, const int *fds)
{
	char reason[WHY_MAX] = "";

	for (size_t i = 0; i < ARRAY_SIZE(questions); i++) {
		int r;

		if (questions[i].type != msg->h.type)
			continue;
		r = questions[i].run(c, msg, fds, reason);
		if (r < 0)
			committer_fail(c, msg->h.seq, r, reason);
		return true;
	}
	return false;
}

void committer_serve(struct committer *c)
{
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr;

	while (cm_receive(c->sock, &msg, fds, &nr) == 0) {
		if (answer(c, &msg, fds))
			continue;
		fds_close(fds, nr);
		break;
	}
	commit_end(c);
}

/* --- From the start to the end ------------------------------------------------ */

static int open_pack_dir(struct committer *c, char *ret_why)
{
	cleanup_close int objects =
		openat(c->repo_dir, "objects",
		       O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	c->pack_dir = objects < 0 ? -1 :
				    openat(objects, "pack",
					   O_RDONLY | O_DIRECTORY | O_CLOEXEC |
						   O_NOFOLLOW);
	return c->pack_dir < 0 ? why(ret_why, -errno, "objects/pack: %s",
				     strerror(errno)) :
				 0;
}

/* Made before the rights to do so are gone. */
static int open_lock_file(struct committer *c, int state, char *ret_why)
{
	if (state < 0)
		return 0;
	c->lock_file = openat(
		state, "commit.lock",
		O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	return c->lock_file < 0 ? why(ret_why, -errno, "commit.lock: %s",
				      strerror(errno)) :
				  0;
}

/* What its owner does to the settings afterwards must not keep us. */
static int open_repository(struct git_repository **ret, int dir, char *ret_why)
{
	int r = refs_open(ret, dir, ret_why);

	return r < 0 ? r : refs_keep_settings(*ret, ret_why);
}

int committer_begin(struct committer *c, int sock, int state, int repo,
		    char *ret_why)
{
	int r;

	*c = (struct committer){
		.sock = sock,
		.repo_dir = repo,
		.pack_dir = -1,
		.lock_file = -1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.news = PTHREAD_COND_INITIALIZER,
	};
	r = open_lock_file(c, state, ret_why);
	if (r == 0)
		r = repo_become_owner(repo, ret_why);
	if (r < 0)
		return r;
	r = open_pack_dir(c, ret_why);
	if (r == 0)
		r = open_repository(&c->repo, repo, ret_why);
	if (r == 0 && c->lock_file >= 0)
		r = open_repository(&c->commit_repo, repo, ret_why);
	return r;
}

void committer_finish(struct committer *c)
{
	char reason[WHY_MAX];

	if (c->opened && c->readonly)
		(void)pin_close(c->repo, reason);
	refs_close(c->repo);
	refs_close(c->commit_repo);
	if (c->pack_dir >= 0)
		(void)close(c->pack_dir);
	if (c->lock_file >= 0)
		(void)close(c->lock_file);
}

/* Nothing works: each question hears why. */
static void refuse_all(struct committer *c, int err, const char *reason)
{
	union cm_any msg;
	int fds[CM_MAX_FDS];
	unsigned int nr;

	while (cm_receive(c->sock, &msg, fds, &nr) == 0) {
		fds_close(fds, nr);
		committer_fail(c, msg.h.seq, err, reason);
	}
}

static int run_child(bool again)
{
	int state = fcntl(CM_FD_STATE, F_GETFD) < 0 ? -1 : CM_FD_STATE;
	struct cm_header begin = { .seq = 0 };
	struct committer c;
	char reason[WHY_MAX];
	int r = committer_begin(&c, CM_FD_SOCKET, state, CM_FD_REPO, reason);

	if (r == 0)
		r = repo_confine(CM_FD_REPO, reason);
	if (again)
		(void)cm_send(c.sock, &begin, CM_BEGIN, NULL, 0, true);
	if (r < 0)
		refuse_all(&c, r, reason);
	else
		committer_serve(&c);
	committer_finish(&c);
	return 0;
}

/* --- The parent --------------------------------------------------------------- */

#define DEATHS_MAX 5 /* within ... */
#define DEATHS_NS  60000000000ull
#define REST_S	   1

/* True: it has been given up. */
static bool dies_too_often(uint64_t deaths[DEATHS_MAX], unsigned int *nr)
{
	uint64_t now = now_ns();
	uint64_t *oldest = &deaths[(*nr)++ % DEATHS_MAX];
	bool often = *nr > DEATHS_MAX && now - *oldest < DEATHS_NS;

	*oldest = now;
	return often;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return status;
}

int committer_main(void)
{
	uint64_t deaths[DEATHS_MAX] = { 0 };
	unsigned int nr = 0;
	int status;

	/* What ends the worker at a terminal does not end us. */
	(void)setsid();
	(void)signal(SIGPIPE, SIG_IGN);
	for (int fd = CM_FD_SOCKET; fd <= CM_FD_REPO; fd++)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	first = mmap(NULL, sizeof(*first), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (first == MAP_FAILED)
		return 1;
	do {
		pid_t pid = fork();

		if (pid == 0)
			_exit(run_child(nr > 0));
		if (pid < 0)
			return 1;
		status = wait_for(pid);
		if (status == 0)
			return 0;
		if (nr > 0)
			(void)sleep(REST_S);
	} while (!dies_too_often(deaths, &nr));
	return 1;
}
