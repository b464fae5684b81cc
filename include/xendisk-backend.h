/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xendisk-backend.h - what a xendisk backend is.
 *
 * See xendisk-backend(3) for a tutorial, examples/ for a whole backend.
 *
 * A backend is a shared object that exports one symbol, xendisk_backend_v1,
 * of type struct xd_backend.  It is loaded into the worker process of the disk
 * whose expression names it; the functions declared below as XD_API are
 * provided by that process.  A filter is a backend with a disk below it.
 *
 * Conventions
 *   - Offsets, lengths and sizes are bytes.
 *   - int functions return 0 or a negative errno; ret_ outputs are written on
 *     success only.
 *   - "Main thread": may block.  "Lane": the thread that serves a guest's
 *     rings; must not block.  A disk has one channel per lane, so what hangs
 *     off a channel needs no lock; what hangs off a disk is shared by lanes.
 *   - Requests are trustworthy: the host has checked them against xd_limits.
 *   - New members are only ever added at the end of a struct.
 */
#ifndef XENDISK_BACKEND_H
#define XENDISK_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XD_API_VERSION 1
#define XD_API	       __attribute__((visibility("default")))

struct xd_backend;
struct xd_request;

/*
 * What a disk can do.  A backend fills it in open(); a filter copies that of
 * the disk below and edits the copy.
 */
struct xd_limits {
	uint64_t size; /* a multiple of sector_size, not 0 */
	/* Unit of every offset and length: a power of two, 512 to 4096. */
	uint32_t sector_size;
	uint32_t physical_sector_size; /* a multiple of sector_size */
	/* Smallest piece XD_DISCARD can free; 0: discard is not supported. */
	uint32_t discard_granularity;
	uint32_t discard_alignment; /* offset of the first whole piece */
	/* What iov_base and iov_len must be multiples of: a power of two, at
	 * most sector_size. */
	uint32_t memory_alignment;
	uint32_t max_transfer; /* longest READ or WRITE; 0: no limit */
	uint32_t max_channels; /* how many lanes may use it; 0: any number */
	bool readonly; /* WRITE, DISCARD, ZERO never arrive */
	bool flush; /* XD_FLUSH is understood, and is needed */
	bool fua; /* XD_FUA is understood */
	bool zero; /* XD_ZERO is understood */
	bool is_volatile; /* content is gone after detach: no durability */
	bool fast_zero; /* XD_FAST is understood */
};

enum xd_op {
	XD_READ,
	XD_WRITE,
	XD_FLUSH, /* offset and length are 0 */
	XD_DISCARD, /* may round inwards to the granularity; content undefined */
	XD_ZERO, /* reads as zeroes afterwards */
	XD_EXTENTS, /* what is where?  Comes to extents(), not to submit() */
};

#define XD_FUA	   (1u << 0) /* XD_WRITE, XD_ZERO: durable before done */
#define XD_NO_HOLE (1u << 1) /* XD_ZERO: keep the space allocated */
/* XD_ZERO: -EOPNOTSUPP at once, if it would take as long as to write them. */
#define XD_FAST (1u << 2)

/* What a part of a disk is like; 0: data, or nobody knows. */
#define XD_EXTENT_HOLE (1u << 0) /* no space is kept for it */
#define XD_EXTENT_ZERO (1u << 1) /* it reads as zeroes */

struct xd_extent {
	uint64_t length; /* not 0 */
	uint32_t flags; /* XD_EXTENT_... */
};

/* The answer to XD_EXTENTS: what lies at the request's offset, then what comes
 * next, and so on; no two neighbours are alike.  It may end early. */
struct xd_extents {
	struct xd_extent *extent; /* room for max of them; the asker's */
	unsigned int max; /* at least 1 */
	unsigned int nr; /* filled in so far */
	uint64_t told; /* bytes that those nr describe, in all */
	uint32_t part, part_flags; /* private to the host */
};

#define XD_SCRATCH 128

/*
 * One request on its way through the stack.  The layer that is handling it
 * owns scratch[] until it completes the request or submits it downwards.
 */
struct xd_request {
	enum xd_op op;
	uint32_t flags; /* XD_FUA, ... */
	uint64_t offset;
	uint64_t length;
	/* READ, WRITE: the data, length bytes in all; borrowed until done. */
	const struct iovec *iov;
	unsigned int iovcnt; /* at most 1024 */
	/* Called by the host, on the lane, never from within submit(). */
	void (*done)(struct xd_request *req, int err);
	void *owner; /* for the code that set done */
	unsigned char scratch[XD_SCRATCH] __attribute__((aligned(16)));
	void *host[4]; /* private to the host; 0 in a new request */
	/* EXTENTS: borrowed until done; fill it by xd_extent(). */
	struct xd_extents *extents;
};

/* One layer of an open stack.  Made by the host; host members follow. */
struct xd_disk {
	const struct xd_backend *backend;
	void *data; /* yours */
	unsigned int nr_below;
	struct xd_disk *const *below; /* the disks in the XD_DISK positions */
	/* Set by the host when open() has returned; the size may grow later, see
	 * resize().  Always the last member: struct xd_limits may get more. */
	struct xd_limits limits;
};

/* One layer on one lane.  Made by the host; host members follow. */
struct xd_channel {
	struct xd_disk *disk;
	void *data; /* yours */
	unsigned int lane; /* 0 .. channels - 1 */
	struct xd_channel *const *below;
};

/*
 * Parameters.  The table makes the parser, the help, the man page and the
 * completion.  Positional parameters come first, in order; options follow.
 */
enum xd_type {
	XD_END, /* closes the table */
	XD_DISK, /* positional: a disk expression, opened below this one */
	XD_PATH, /* an absolute path; the backend may open it, see xd_open() */
	XD_STRING, /* any text */
	XD_SIZE, /* bytes: digits with K, M, G or T */
	XD_TIME, /* nanoseconds: digits with ms, s, m or h */
	XD_UINT, /* a number */
	XD_BOOL, /* yes or no */
	XD_ENUM, /* one of the words in choices */
	XD_SERVER, /* a URI; the backend may connect to it: xd_connect() */
	XD_CREDENTIALS, /* credentials in the configuration: xd_credential() */
};

#define XD_POSITIONAL (1u << 0)
#define XD_REQUIRED   (1u << 1)
/* XD_DISK: it is written to, so it must be writable. */
#define XD_WRITTEN (1u << 2)
/* XD_DISK: only read; opened read-only, whatever the guest may do. */
#define XD_READ_ONLY (1u << 3)
/* XD_SIZE: a multiple of 512. */
#define XD_WHOLE_SECTORS (1u << 4)
/* XD_SIZE: may be left out where a disk stands to the left of this one in the
 * same parentheses; the host then fills in that disk's size. */
#define XD_SIZE_OF_SIBLING (1u << 5)
/* XD_DISK: its content means nothing once the whole disk is detached.  A file
 * that the guest's disk was using there is emptied then. */
#define XD_TEMPORARY (1u << 6)
/* XD_STRING: may be given any number of times; if it is positional, it must be
 * the last positional one.  xd_arg_string() returns all values, each ended by a
 * NUL, the last by two. */
#define XD_REPEATED (1u << 7)
/* XD_STRING: a word of a command line, see server below: it is not empty and
 * does not begin with "-". */
#define XD_WORD (1u << 8)

struct xd_param {
	const char *name;
	enum xd_type type;
	uint32_t flags;
	/* XD_ENUM: "none|writeback|writethrough"; XD_UINT: the largest number, or
	 * NULL. */
	const char *choices;
	const char *preset; /* in the expression's own syntax; NULL: unset */
	const char *help; /* one line */
};

/* struct xd_backend: no expression of it can be written to. */
#define XD_ALWAYS_READ_ONLY (1u << 0)
/* Its storage may grow unasked: resize() is called every few seconds. */
#define XD_MAY_GROW (1u << 1)

/* A system call that must not block the lane; see xd_sys(). */
enum xd_sys_op {
	XD_SYS_READV, /* fd, iov, iovcnt, offset, flags: RWF_... */
	XD_SYS_WRITEV, /* the same */
	XD_SYS_FDATASYNC, /* fd */
	XD_SYS_FALLOCATE, /* fd, offset, length, flags: FALLOC_FL_... */
	XD_SYS_POLL, /* fd, flags: POLLIN, ...; res: the events seen */
	XD_SYS_TIMER, /* length: nanoseconds from now; res: 0 */
	XD_SYS_SEEK, /* fd, offset, flags: SEEK_DATA, SEEK_HOLE */
};

struct xd_sys {
	enum xd_sys_op op;
	int fd;
	int flags;
	unsigned int iovcnt;
	const struct iovec *iov; /* borrowed until done */
	uint64_t offset;
	uint64_t length;
	/* On the lane; res is what the system call returns, or -errno.  For a
	 * poll or timer that still waits when its channel closes it is called
	 * before that, with -ECANCELED, and must not start another one. */
	void (*done)(struct xd_sys *sys, int64_t res);
	uint64_t host[4]; /* private to the host */
};

/*
 * The backend.  Fill it with designated initialisers; what is not set is not
 * supported.  Order of calls:
 *
 *   open, { channel_open per lane, activate, submit..., deactivate,
 *   channel_close per lane } any number of times, close
 */
struct xd_backend {
	uint32_t size; /* Required.  sizeof(struct xd_backend) */
	uint32_t version; /* Required.  XD_API_VERSION */

	const char *name; /* Required.  [a-z][a-z0-9-]*, as the file is named */
	const char *summary; /* Required.  One line, for help and man page */
	const struct xd_param *params; /* Required.  May be just { XD_END } */
	/* Optional.  URI schemes that mean this backend: "nbd\0nbds\0".
	 * The whole URI becomes the first positional parameter. */
	const char *schemes;
	uint32_t flags; /* XD_ALWAYS_READ_ONLY, ... */

	/* Required.  Main thread.  Finds out what the disk is: probes, takes
	 * no lock that keeps another user out.  The disks below are open.
	 * disk->data is yours to set.  On failure nothing stays open, and
	 * xd_error() has said why. */
	int (*open)(struct xd_disk *disk, struct xd_limits *ret_limits);

	/* Required.  Main thread.  No channel is open, no request in flight. */
	void (*close)(struct xd_disk *disk);

	/* Optional.  Main thread, before a guest's first request: the time to
	 * take write locks (-EBUSY names the holder in xd_error()).  After a
	 * worker has died, recover is true: return only when nothing that it
	 * had in flight can still reach the disk. */
	int (*activate)(struct xd_disk *disk, bool recover);

	/* Optional.  Main thread.  The guest is gone: write out, drop locks.
	 * No request is in flight.  An error is reported, not retried. */
	int (*deactivate)(struct xd_disk *disk);

	/* Optional.  Main thread.  ch->data is yours to set. */
	int (*channel_open)(struct xd_channel *ch);
	void (*channel_close)(struct xd_channel *ch);

	/* Required.  Lane.  Ends with xd_complete() exactly once, now or
	 * later, on the same lane. */
	void (*submit)(struct xd_channel *ch, struct xd_request *req);

	/* Optional.  Lane.  A burst of submits, or of extents(), has ended. */
	void (*kick)(struct xd_channel *ch);

	/* Optional, both or neither.  Lane.  Lends the disk's own memory for a
	 * READ or WRITE, so that the guest's data is copied once and never
	 * passes through a buffer.  ret_iov has room for *io_iovcnt elements
	 * and receives length bytes in all; *io_iovcnt becomes the number
	 * used.  A WRITE's memory may be written until unmap(); then the
	 * request is over, and is not submitted.  err is not 0 when the copy
	 * failed.  -EOPNOTSUPP: not for this request, use submit().  Another
	 * error ends the request. */
	int (*map)(struct xd_channel *ch, struct xd_request *req,
		   struct iovec *ret_iov, unsigned int *io_iovcnt);
	void (*unmap)(struct xd_channel *ch, struct xd_request *req, int err);

	/* Optional.  Main thread, at any time between open and close; lanes may
	 * be at work, so nothing that they use may change yet.  May block.
	 * size 0: find out how large the storage is by now.  Otherwise: make it
	 * that large, which is more than limits.size, or say why not by
	 * xd_error() and fail.  *ret_size is the size it has now, which may be
	 * more than was asked for.  Storage that has shrunk is a failure too: a
	 * disk never shrinks.  A filter asks the disks below it by xd_resize().
	 * Without this member a disk keeps its size, and so do those above. */
	int (*resize)(struct xd_disk *disk, uint64_t size, uint64_t *ret_size);
	/* Optional, with resize() only.  Main thread; limits.size has become
	 * what resize() said.  No lane runs just now, although requests may be
	 * in flight: the time to change what lanes use.  Must not block. */
	void (*resized)(struct xd_disk *disk);

	/* Optional.  Lane.  Takes an XD_EXTENTS as submit() takes the others,
	 * tells what it knows by xd_extent(), and ends with xd_complete().  What
	 * was written, and completed, before the request came must not be called
	 * zero.  Tell less rather than keep the lane busy for long: the rest can
	 * be asked for again.  Without this member, or when nothing was told,
	 * all is data. */
	void (*extents)(struct xd_channel *ch, struct xd_request *req);

	/* Optional.  Lane, once between channel_open and channel_close: the lane
	 * is about to end, because a guest leaves, or because one arrives on a
	 * disk that has NBD clients.  Complete with -ECANCELED, at once, every
	 * request that waits for something that may take long, such as a server
	 * that is away.  It is not answered: either nobody waits for it any
	 * more, or it comes again in another channel.  What is being carried out
	 * ends by itself.  A last XD_FLUSH may follow; it is owed to the guest,
	 * and should succeed or fail within seconds. */
	void (*stop)(struct xd_channel *ch);

	/*
	 * Optional.  The command line of an NBD server that xd_spawn() starts
	 * for this disk: words, each ended by a NUL, an empty one at the end;
	 * the first is the program, looked for in PATH.  A word may have one
	 * of these in it ({{ and }} are braces):
	 *
	 *   {name}	   a parameter.  The word is left out when it is not
	 *		   set, and repeated for each value of an XD_REPEATED.
	 *		   For an XD_PATH it is the only name by which the
	 *		   program can open that file: see xd_open()
	 *   {?readonly}   the word is left out unless the disk is only read
	 *   {!readonly}   ... if it is
	 *
	 * The server inherits the socket on which it is to listen, as systemd
	 * does it (LISTEN_FDS=1), and ends on SIGTERM.
	 */
	const char *server;

	/*
	 * Optional.  Main thread, at any time between open and close; lanes may
	 * be at work, and there may be no guest.  Does what the operator wants
	 * of the disk: "snapshot", "status" (xendisk(1) lists the verbs, with
	 * question and answer).  Called for the topmost layer that has it.
	 *
	 * text and the answer are lines KEY=VALUE, read by xd_pair() and made by
	 * xd_add_pair(); ret_text is empty at first, with room for size bytes.
	 * On failure xd_error() has said why; -EOPNOTSUPP: no such verb here.
	 *
	 * It may block, but nothing else is done for this disk meanwhile: not
	 * even a guest can leave.  Work that takes longer than a second belongs
	 * in a thread of the backend, and "status" tells how far it has got.
	 */
	int (*control)(struct xd_disk *disk, const char *verb, const char *text,
		       char *ret_text, size_t size);
};

/* The one symbol of a module. */
extern XD_API const struct xd_backend xendisk_backend_v1;

/* --- Main thread: the parameters, checked already ----------------------- */

/* Is the parameter given in the expression, or does it have a preset? */
XD_API bool xd_arg_set(const struct xd_disk *disk, const char *name);
/* XD_PATH, XD_STRING, XD_ENUM, XD_SERVER, XD_CREDENTIALS; NULL when not set.
 * Lives as long as disk. */
XD_API const char *xd_arg_string(const struct xd_disk *disk, const char *name);
/* XD_SIZE, XD_TIME, XD_UINT; 0 when not set. */
XD_API uint64_t xd_arg_u64(const struct xd_disk *disk, const char *name);
/* XD_BOOL; false when not set. */
XD_API bool xd_arg_bool(const struct xd_disk *disk, const char *name);
/* The layer above only reads, or the toolstack attached it read-only. */
XD_API bool xd_readonly(const struct xd_disk *disk);

/* --- Main thread: services of the host ---------------------------------- */

/* Says in a sentence why open() or activate() is about to fail. */
XD_API void xd_error(struct xd_disk *disk, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Says how the disk is served ("O_DIRECT, 512/4096"), for xendisk show. */
XD_API void xd_note(struct xd_disk *disk, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Opens the path in the XD_PATH parameter `name`: the very file that it named
 * when the disk was attached, even if it was renamed since.  flags as open(2),
 * without O_CREAT.  Returns a descriptor (close it yourself) or -errno, and
 * then has said why by xd_error(). */
XD_API int xd_open(struct xd_disk *disk, const char *name, int flags);

/* Names the storage, so that a failed flush is remembered for it and two
 * writers are noticed: "file:/srv/a.img inode 12 born 17...".  At most 511
 * bytes.  Not for storage that dies with the worker. */
XD_API int xd_identify(struct xd_disk *disk, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

enum xd_keep_kind {
	XD_KEEP_STATE, /* small, in the run directory */
	XD_KEEP_PAGES, /* bulk memory, in /dev/shm, counted by xd_budget() */
};

/* A file of at least the given size that outlives the worker, until the disk is
 * detached.  A fresh one is all zero.  *ret_kept: it was there already; then its
 * content is no more trustworthy than a stranger's, and it may be larger than
 * size, if the disk has grown (a smaller one is extended).  `name` is unique
 * within the layer.  Returns a descriptor (close it yourself) or -errno. */
XD_API int xd_keep(struct xd_disk *disk, const char *name,
		   enum xd_keep_kind kind, uint64_t size, bool *ret_kept);

/* Only in a filter's resize(): calls that of a disk below, with the same
 * arguments and results. */
XD_API int xd_resize(struct xd_disk *below, uint64_t size, uint64_t *ret_size);

/* --- Lane --------------------------------------------------------------- */

/* Ends a request: err is 0 or -errno.  -ENOSPC, -EDQUOT, -ENOMEM and
 * -EAGAIN make the host hold the request and submit it again later. */
XD_API void xd_complete(struct xd_request *req, int err);

/* Hands a request to a layer below: ch->below[i]. */
XD_API void xd_submit(struct xd_channel *below, struct xd_request *req);

/* map() and unmap() of a layer below; xd_map() gives -EOPNOTSUPP when it has
 * none. */
XD_API int xd_map(struct xd_channel *below, struct xd_request *req,
		  struct iovec *ret_iov, unsigned int *io_iovcnt);
XD_API void xd_unmap(struct xd_channel *below, struct xd_request *req, int err);

/* A request of the filter's own, with owner = parent; set op, offset, length,
 * iov and done, and submit it.  It is freed when done returns.  NULL: no
 * memory (complete the parent with -ENOMEM). */
XD_API struct xd_request *xd_child(struct xd_channel *ch,
				   struct xd_request *parent);

/* Adds to the answer to an XD_EXTENTS that this layer is handling: the next
 * length bytes, after those told so far, are like this.  A sector whose parts are
 * not alike counts as data; what lies beyond the request's end is ignored.
 * False: that is enough, tell no more. */
XD_API bool xd_extent(struct xd_request *req, uint64_t length, uint32_t flags);

/* Starts a system call; sys stays in place until done. */
XD_API void xd_sys(struct xd_channel *ch, struct xd_sys *sys);

/* Lane or main thread.  Takes (more > 0) or returns (more < 0) bytes of the
 * memory that mem-limit in the configuration allows.  What kept pages already
 * occupy is counted when a worker starts.  May wait a moment for the broker, in
 * open() for seconds.  -ENOSPC: the limit is reached; -EAGAIN: no answer. */
XD_API int xd_budget(struct xd_disk *disk, int64_t more);

/* Lane or main thread.  Begins to connect to the server in the XD_SERVER
 * parameter `name`, also when the worker is isolated.  Returns a descriptor at
 * once, or -errno (-EAGAIN: too many at a time, or no answer).  Poll it for
 * POLLIN, then ask xd_connected(). */
XD_API int xd_connect(struct xd_disk *disk, const char *name);

/* For xd_spawn(): the server keeps what a guest writes in its own memory, so one
 * that takes its place after its death would be another disk. */
#define XD_SPAWN_ONCE (1u << 0)

/* Lane or main thread.  As xd_connect(), to the NBD server that struct xd_backend
 * declares, which is started first if it is not running; it ends with the disk,
 * not with the worker.  A server that has died is started again, unless flags
 * has XD_SPAWN_ONCE: then xd_connected() gives -ENODATA, and says how it died. */
XD_API int xd_spawn(struct xd_disk *disk, unsigned int flags);

/* Lane or main thread.  What became of a connection that xd_connect() or
 * xd_spawn() began; pending is the descriptor it returned.  -EAGAIN: not known
 * yet.  Otherwise pending is closed, and the result is a connected socket (close
 * it yourself), or -errno with the reason in ret_why, a sentence. */
XD_API int xd_connected(int pending, char *ret_why, size_t size);

/* Main thread.  One setting ("psk", "user") of the credentials that the
 * XD_CREDENTIALS parameter `name` names.  -ENODATA: it is not set.  Any other
 * error: xd_error() has said why. */
XD_API int xd_credential(struct xd_disk *disk, const char *name,
			 const char *setting, char *ret, size_t size);

/* Main thread, in open().  A library will open this file for reading, by this
 * very path, while the worker is isolated: it gets what is in it now. */
XD_API int xd_lend_file(struct xd_disk *disk, const char *path);

/* Main thread, in open() only.  A folder for this disk in the state directory,
 * which outlives daemon and machine: STATE_DIR/folder, made if it is not there,
 * mode 0700.  folder: names of [A-Za-z0-9._-], none beginning with a dot, with
 * slashes between; choose it so that no other backend's is the same.  Nothing
 * in it is ever removed but by the backend.  Returns a descriptor (close it
 * yourself) or -errno, and then has said why by xd_error(). */
XD_API int xd_state(struct xd_disk *disk, const char *folder);

/* Any thread, from open() to close(), a few times a second at most.  A fact about
 * the disk that changes while it is in use: a line for xendisk show ("commit
 * 1a2b3c, 2 pending"), which replaces the one before.  commit: 40 or 64
 * hexadecimal digits, which the guest can also read in xenstore; or NULL.  A
 * deactivate() that takes longer must say something new every 30 s or sooner. */
XD_API void xd_changed(struct xd_disk *disk, const char *commit,
		       const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Any thread.  The value of a key in the text that control() gets.  -ENODATA:
 * it is not there; -ENAMETOOLONG: it does not fit. */
XD_API int xd_pair(const char *text, const char *key, char *ret, size_t size);

/* Any thread.  Adds a line to control()'s answer; key: [a-z0-9-].  The value may
 * be any UTF-8 text, line breaks too.  -ENOSPC: it does not fit, and nothing was
 * added. */
XD_API int xd_add_pair(char *text, size_t size, const char *key,
		       const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Lane, or the main thread in channel_open().  This channel cannot go on for now,
 * so the guest has to wait: the disk is shown as paused, for this reason, until a
 * call with fmt NULL. */
XD_API void xd_paused(struct xd_channel *ch, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif

#endif
