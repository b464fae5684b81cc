/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-rig.c - stands in for the worker of a git disk before a committer: writes
 * to an overlay, freezes, has commits made, and keeps a model of what the disk is.
 *
 *	commit-rig PROGRAM REPO STATE BRANCH MODEL COMMAND...
 *
 * PROGRAM is xendisk-git.  MODEL, a file as large as the disk, is written as the
 * overlay is.  Commands, in sequence:
 *
 *	write:SEED:COUNT   COUNT random ranges of random bytes
 *	zero:SEED:COUNT    the same of zeroes (holes)
 *	fill:SEED:FIRST:N  N bytes from FIRST on
 *	grow:SIZE	   the disk has so many bytes
 *	freeze:KIND[:MESSAGE[:TIME]]  KIND is branch or auto; prints "frozen GEN"
 *	commit		   sends all frozen layers and waits: a line "committed GEN
 *			   COMMIT REF FLAGS CHUNKS UNCHANGED" for each, or "failed
 *			   GEN ERRNO TEXT"
 *	send		   sends them and does not wait
 *	release		   the overlay stands on the last commit
 *	object:OID	   prints "object TYPE SIZE"
 *	packs		   prints "packs N"
 *	again		   ends this committer, starts another one
 *	kill		   kills the process that makes commits
 *	disk:BRANCH	   the next OPEN names that one
 *
 * With RIG_REV that revision is opened for reading only: object, packs, kill; and
 *
 *	wait		   until stdin ends
 *
 * With RIG_FOLLOW an overlay with nothing in it follows its branch; RIG_KEEP is for
 * OPEN.  Whenever the committer says that it has begun again ("begun" is printed), all is
 * asked again, as the worker does it.  What goes wrong otherwise is exit 1.
 */
#include "config.h"

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "committer.h"
#include "common/util.h"
#include "overlay-key.h"
#include "overlay.h"

#define PATIENCE_S 120 /* for one answer, on a busy machine */
#define PIECE	   (256u << 10)
#define LARGEST	   300000 /* bytes of a random range */

static struct {
	const char *program, *repo_path, *branch, *keep, *rev;
	int repo, state, model, sock;
	pid_t committer;
	uint32_t seq, since; /* answers to questions before that are old */
	struct overlay *overlay;
	struct overlay_facts facts;
	uint64_t rng;
	bool stands;
} rig = { .sock = -1 };

static void must(int r, const char *what, const char *reason)
{
	if (r < 0)
		errx(1, "%s: %s: %s", what, strerror(-r), reason);
}

/* --- The committer ------------------------------------------------------------ */

static void start_committer(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		err(1, "socketpair");
	rig.committer = fork();
	if (rig.committer < 0)
		err(1, "fork");
	if (rig.committer == 0) {
		/* From above, so that none is overwritten. */
		int from[3] = { fcntl(pair[1], F_DUPFD, 10),
				rig.rev ? -1 : fcntl(rig.state, F_DUPFD, 10),
				fcntl(rig.repo, F_DUPFD, 10) };

		for (int i = 0; i < 3; i++)
			if (from[i] < 0)
				(void)close(CM_FD_SOCKET + i);
			else if (dup2(from[i], CM_FD_SOCKET + i) < 0)
				_exit(127);
		for (int fd = CM_FD_REPO + 1; fd < 64; fd++)
			(void)close(fd);
		(void)execl(rig.program, rig.program, "committer", NULL);
		_exit(127);
	}
	(void)close(pair[1]);
	rig.sock = pair[0];
	rig.stands = false;
}

static void end_committer(void)
{
	int status;

	if (rig.sock < 0)
		return;
	(void)close(TAKE_FD(rig.sock));
	while (waitpid(rig.committer, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		printf("ended %#x\n", (unsigned int)status);
}

static void close_all(int *fds, unsigned int nr)
{
	while (nr > 0)
		(void)close(fds[--nr]);
}

/* Returns the type, 0 at the end; descriptors but the first are closed. */
static uint16_t receive(union cm_any *ret, int *ret_fd)
{
	int fds[CM_MAX_FDS];
	unsigned int nr;
	bool old;
	int r;

	do {
		nr = 0;
		(void)alarm(PATIENCE_S);
		r = cm_receive(rig.sock, ret, fds, &nr);
		(void)alarm(0);
		if (r == -ECONNRESET) {
			end_committer();
			return 0;
		}
		must(r, "receive", "");
		old = ret->h.type != CM_BEGIN && ret->h.seq < rig.since;
		if (ret_fd && nr > 0 && !old) {
			*ret_fd = fds[0];
			memmove(fds, fds + 1, --nr * sizeof(*fds));
		}
		close_all(fds, nr);
	} while (old);
	return ret->h.type;
}

static void send_message(struct cm_header *h, enum cm_type type, const int *fds,
			 unsigned int nr)
{
	h->seq = ++rig.seq;
	if (type != CM_COMMIT)
		rig.since = rig.seq;
	(void)cm_send(rig.sock, h, type, fds, nr, true);
}

/* False: it has begun again, or is gone.  FAILED ends the program. */
static bool expect(union cm_any *msg, uint16_t type, int *ret_fd)
{
	for (;;) {
		uint16_t got = receive(msg, ret_fd);

		if (got == type)
			return true;
		if (got == CM_BEGIN || got == 0) {
			printf("%s\n", got ? "begun" : "gone");
			return false;
		}
		if (got == CM_FAILED && type != CM_DONE)
			errx(1, "%s: %s", strerror(-msg->h.result),
			     msg->failed.text);
		if (got == CM_FAILED) {
			printf("failed %d %s\n", -msg->h.result,
			       msg->failed.text);
			return true;
		}
	}
}

static bool open_disk(union cm_any *msg)
{
	struct cm_open open = { .flags = 0 };

	(void)snprintf(open.branch, sizeof(open.branch), "%s", rig.branch);
	(void)snprintf(open.keep, sizeof(open.keep), "%s", rig.keep);
	if (rig.rev) {
		open.flags = CM_OPEN_READONLY;
		(void)snprintf(open.rev, sizeof(open.rev), "%s", rig.rev);
	}
	send_message(&open.h, CM_OPEN, NULL, 0);
	return expect(msg, CM_OPENED, NULL);
}

static bool stand(void)
{
	const struct overlay_facts *facts = overlay_facts(rig.overlay);
	struct cm_stand ask = { .generation = facts->base_gen };
	union cm_any msg;

	uuid_print(facts->uuid, ask.uuid);
	memcpy(ask.base, facts->base, OID_BYTES);
	memcpy(ask.head, facts->head, OID_BYTES);
	send_message(&ask.h, CM_STAND, NULL, 0);
	rig.stands = expect(&msg, CM_OPENED, NULL);
	return rig.stands;
}

/* From nothing to STAND, however often it dies on the way. */
static void reach(void)
{
	union cm_any msg;

	for (int tries = 0; !rig.stands; tries++) {
		if (tries > 20)
			errx(1, "the committer dies always");
		if (rig.sock < 0)
			start_committer();
		if (open_disk(&msg) && stand())
			return;
	}
}

/* Nothing has been written that is in no commit: it goes on from where the branch
 * is now. */
static void follow(const struct cm_opened *opened)
{
	char reason[WHY_MAX];

	if (!overlay_is_empty(rig.overlay) ||
	    memcmp(opened->commit, rig.facts.head, OID_BYTES) == 0)
		return;
	rig.facts.size = rig.facts.base_size = opened->size;
	rig.facts.base_gen = 0;
	memcpy(rig.facts.base, opened->commit, OID_BYTES);
	memcpy(rig.facts.head, opened->commit, OID_BYTES);
	must(overlay_restart(rig.overlay, &rig.facts, reason),
	     "overlay_restart", reason);
}

/* --- The overlay -------------------------------------------------------------- */

static void open_overlay(void)
{
	const struct overlay_of of = { rig.repo_path, rig.branch, "a rig" };
	char reason[WHY_MAX] = "";
	union cm_any msg;
	bool found;

	start_committer();
	while (!open_disk(&msg))
		if (rig.sock < 0)
			start_committer();
	must(overlay_open(&rig.overlay, rig.state, &of, &found, &rig.facts,
			  reason),
	     "overlay_open", reason);
	if (!found) {
		rig.facts = (struct overlay_facts){
			.size = msg.opened.size,
			.base_size = msg.opened.size,
			.chunk = msg.opened.chunk,
		};
		memcpy(rig.facts.base, msg.opened.commit, OID_BYTES);
		memcpy(rig.facts.head, msg.opened.commit, OID_BYTES);
	}
	must(overlay_lock(rig.overlay, &rig.facts, false, reason),
	     "overlay_lock", reason);
	if (getenv("RIG_FOLLOW"))
		follow(&msg.opened);
	if (!stand())
		reach();
}

static uint64_t size(void)
{
	return overlay_facts(rig.overlay)->size;
}

static uint64_t next_random(void)
{
	rig.rng ^= rig.rng << 13;
	rig.rng ^= rig.rng >> 7;
	rig.rng ^= rig.rng << 17;
	return rig.rng;
}

static void put(uint64_t at, const uint8_t *bytes, uint64_t n, bool zero)
{
	struct layer *layer = overlay_active(rig.overlay);
	int fd = layer_data_fd(layer);

	if (zero)
		must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)at, (off_t)n),
		     "fallocate", "");
	else
		must(pwrite_all(fd, bytes, n, at), "data", "");
	must(layer_mark(layer, at / LAYER_SECTOR, (at + n) / LAYER_SECTOR),
	     "layer_mark", "");
	must(pwrite_all(rig.model, bytes, n, at), "model", "");
}

static void put_range(uint64_t at, uint64_t n, bool zero)
{
	static uint8_t bytes[PIECE];

	while (n > 0) {
		size_t piece = (size_t)MIN(n, sizeof(bytes));

		for (size_t i = 0; i + 8 <= piece && !zero; i += 8) {
			/* Half of it can be compressed. */
			uint64_t word = i & 64 ? rig.rng : next_random();

			memcpy(bytes + i, &word, 8);
		}
		if (zero)
			memset(bytes, 0, piece);
		put(at, bytes, piece, zero);
		at += piece;
		n -= piece;
	}
}

static void do_write(uint64_t seed, uint64_t count, bool zero)
{
	rig.rng = seed * 2654435761u + 1;
	while (count-- > 0) {
		uint64_t n = (1 + next_random() % LARGEST) / 512 * 512 + 512;
		uint64_t at = next_random() % size() / 512 * 512;

		put_range(at, MIN(n, size() - at), zero);
	}
}

static void do_freeze(char *text)
{
	struct snapshot_info info = { .consistency = CONSISTENCY_CRASH,
				      .time = time(NULL) };
	char *save, reason[WHY_MAX];
	const char *kind = strtok_r(text, ":", &save);
	const char *message = strtok_r(NULL, ":", &save);
	const char *when = message ? strtok_r(NULL, ":", &save) : NULL;
	uint64_t gen;

	info.kind = strcmp(kind ? kind : "", "auto") == 0 ? CM_AUTO : CM_BRANCH;
	(void)snprintf(info.message, sizeof(info.message), "%s",
		       message ? message : "");
	(void)snprintf(info.domain, sizeof(info.domain), "rig");
	if (when)
		info.time = strtoll(when, NULL, 10);
	must(overlay_freeze(rig.overlay, &info, &gen, reason), "overlay_freeze",
	     reason);
	printf("frozen %" PRIu64 "\n", gen);
}

static void do_grow(uint64_t bytes)
{
	char reason[WHY_MAX];

	must(overlay_grow(rig.overlay, bytes, reason), "overlay_grow", reason);
	overlay_grown(rig.overlay);
	must(ftruncate(rig.model, (off_t)bytes), "model", "");
}

/* --- Commits ------------------------------------------------------------------ */

static void send_layer(const struct overlay_layer *layer, uint64_t after)
{
	struct cm_commit ask = {
		.generation = layer->generation,
		.after = after,
		.size = layer->size,
		.dirty = layer->info.dirty,
		.time = layer->info.time,
		.kind = layer->info.kind,
		.consistency = layer->info.consistency,
	};
	int fds[2] = { layer->data_fd, layer->map_fd };

	(void)snprintf(ask.message, sizeof(ask.message), "%.1023s",
		       layer->info.message);
	(void)snprintf(ask.domain, sizeof(ask.domain), "%.127s",
		       layer->info.domain);
	send_message(&ask.h, CM_COMMIT, fds, 2);
}

/* Returns how many. */
static unsigned int send_frozen(void)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int nr = overlay_layers(rig.overlay, layers), sent = 0;
	uint64_t after = overlay_facts(rig.overlay)->base_gen;

	rig.since = rig.seq + 1;
	for (unsigned int i = nr; i-- > 0;) {
		if (layers[i].state != LAYER_FROZEN)
			continue;
		send_layer(&layers[i], after);
		after = layers[i].generation;
		sent++;
	}
	return sent;
}

static void note_commit(const struct cm_committed *got)
{
	char reason[WHY_MAX], name[OID_HEX + 1];
	uint64_t gen;

	oid_hex(got->commit, name);
	printf("committed %" PRIu64 " %s %s %u %" PRIu64 " %" PRIu64 "\n",
	       got->generation, name, got->ref, got->flags, got->chunks,
	       got->unchanged);
	must(overlay_committed(rig.overlay, got->generation, got->commit,
			       got->kind != CM_BRANCH	? OVERLAY_LEAF :
			       got->flags & CM_DIVERGED ? OVERLAY_DIVERGED :
							  OVERLAY_ON_BRANCH,
			       reason),
	     "overlay_committed", reason);
	/* No request reads it, so it need not stay. */
	must(overlay_drop(rig.overlay, &gen, reason), "overlay_drop", reason);
	must(overlay_empty(rig.overlay, gen, reason), "overlay_empty", reason);
}

/* False: all that is left has to be sent again. */
static bool wait_for_commits(unsigned int nr)
{
	union cm_any msg;

	while (nr > 0) {
		uint16_t got = receive(&msg, NULL);

		if (got == CM_BEGIN || got == 0) {
			printf("%s\n", got ? "begun" : "gone");
			rig.stands = false;
			return false;
		}
		if (got == CM_COMMITTED) {
			note_commit(&msg.committed);
			nr--;
		} else if (got == CM_FAILED) {
			printf("failed %d %s\n", -msg.h.result,
			       msg.failed.text);
			nr--;
		}
	}
	return true;
}

static void do_commit(void)
{
	do
		reach();
	while (!wait_for_commits(send_frozen()));
}

static void do_release(void)
{
	struct cm_release ask = {
		.generation = overlay_facts(rig.overlay)->base_gen,
	};
	union cm_any msg;

	do {
		reach();
		send_message(&ask.h, CM_RELEASE, NULL, 0);
		rig.stands = expect(&msg, CM_DONE, NULL);
	} while (!rig.stands);
}

/* --- Objects ------------------------------------------------------------------ */

static void do_object(const char *name)
{
	struct cm_object ask = { .oid = { 0 } };
	union cm_any msg;
	struct stat st;
	int fd = -1;

	for (int i = 0; i < OID_BYTES; i++) {
		char two[3] = { name[2 * i], name[2 * i + 1], '\0' };

		ask.oid[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	send_message(&ask.h, CM_OBJECT, NULL, 0);
	if (!expect(&msg, CM_OBJECT_IS, &fd))
		errx(1, "object: no answer");
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != msg.object_is.size)
		errx(1, "object: its size is wrong");
	(void)close(fd);
	printf("object %u %" PRIu64 "\n", msg.object_is.type,
	       msg.object_is.size);
}

static void do_packs(void)
{
	struct cm_header ask = { .seq = 0 };
	unsigned int nr = 0;
	union cm_any msg;

	send_message(&ask, CM_PACKS, NULL, 0);
	do {
		if (!expect(&msg, CM_PACK, NULL))
			errx(1, "packs: no answer");
		nr += msg.pack.nr;
	} while (msg.pack.left);
	printf("packs %u\n", nr);
}

/* Its child: the only one. */
static void do_kill(void)
{
	char path[64], text[32] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children",
		       (int)rig.committer, (int)rig.committer);
	file = fopen(path, "re");
	if (!file || !fgets(text, sizeof(text), file))
		errx(1, "kill: no child");
	(void)fclose(file);
	(void)kill((pid_t)strtol(text, NULL, 10), SIGKILL);
}

/* --- Commands ----------------------------------------------------------------- */

static uint64_t number(char **save)
{
	const char *word = strtok_r(NULL, ":", save);

	if (!word)
		errx(2, "a number is missing");
	return strtoull(word, NULL, 10);
}

static void run(char *command)
{
	char *save;
	const char *verb = strtok_r(command, ":", &save);
	uint64_t first;

	if (strcmp(verb, "write") == 0 || strcmp(verb, "zero") == 0) {
		first = number(&save);
		do_write(first, number(&save), verb[0] == 'z');
	} else if (strcmp(verb, "fill") == 0) {
		rig.rng = number(&save) * 2654435761u + 1;
		first = number(&save);
		put_range(first, number(&save), false);
	} else if (strcmp(verb, "grow") == 0) {
		do_grow(number(&save));
	} else if (strcmp(verb, "freeze") == 0) {
		do_freeze(save);
	} else if (strcmp(verb, "commit") == 0) {
		do_commit();
	} else if (strcmp(verb, "send") == 0) {
		reach();
		(void)send_frozen();
	} else if (strcmp(verb, "release") == 0) {
		do_release();
	} else if (strcmp(verb, "object") == 0) {
		do_object(save);
	} else if (strcmp(verb, "packs") == 0) {
		do_packs();
	} else if (strcmp(verb, "again") == 0) {
		end_committer();
		reach();
	} else if (strcmp(verb, "kill") == 0) {
		do_kill();
	} else if (strcmp(verb, "wait") == 0) {
		while (getchar() != EOF)
			;
	} else if (strcmp(verb, "disk") == 0) {
		rig.branch = save;
	} else {
		errx(2, "%s: no such command", verb);
	}
}

static void read_only(int argc, char **argv)
{
	char name[OID_HEX + 1];
	union cm_any msg;

	start_committer();
	if (!open_disk(&msg))
		errx(1, "OPEN: no answer");
	oid_hex(msg.opened.commit, name);
	printf("opened %s\n", name);
	for (int i = 6; i < argc; i++)
		run(argv[i]);
	end_committer();
}

int main(int argc, char **argv)
{
	char reason[WHY_MAX];

	if (argc < 6)
		errx(2, "PROGRAM REPO STATE BRANCH MODEL COMMAND...");
	rig.program = argv[1];
	rig.repo_path = argv[2];
	rig.branch = argv[4];
	rig.rev = getenv("RIG_REV");
	rig.keep = getenv("RIG_KEEP") ? getenv("RIG_KEEP") : "";
	rig.repo = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rig.state = open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rig.model = open(argv[5], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (rig.repo < 0 || rig.state < 0 || rig.model < 0)
		err(1, "open");
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	if (rig.rev) {
		read_only(argc, argv);
		return 0;
	}
	open_overlay();
	must(ftruncate(rig.model, (off_t)size()), "model", "");
	for (int i = 6; i < argc; i++)
		run(argv[i]);
	must(overlay_unlock(rig.overlay, reason), "overlay_unlock", reason);
	overlay_close(rig.overlay);
	end_committer();
	return 0;
}
