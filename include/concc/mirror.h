/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_H
#define CONCC_MIRROR_H

/*
 * The worker's read-only view of the trees one client serves: a FUSE file
 * system whose root is the client's "/", with nothing but served trees in it.
 * Beside it, on the directory MIRROR_OUTSIDE that no listing shows, is the rest
 * of the client's "/" as far as it was named: empty directories, in which each
 * look-up is answered "absent", reported, and asked again the next time, unless
 * the client has said that it is absent there too; and each attempt to change
 * something is refused, and reported as that.
 *
 * Nodes are immutable and versioned: (path, version) never changes attributes
 * or bytes, so the kernel may cache all of it without end.  A change on the
 * client makes a new node, and only the entry that leads to it is invalidated.
 * Complete directory listings answer every look-up, negative ones too; what is
 * unknown is asked for once through the callbacks and the FUSE request waits,
 * without a thread, for the answer.
 *
 * A fifo, socket or device is listed, but no look-up finds it: opened here it would be
 * another one than the client's.
 *
 * Threads: the owner's, who has called mirror_start() (all mirror_* calls, which check it, and all
 * callbacks but job_of and open_own), those of
 * `disk`, which write contents to the store, FUSE readers that answer from memory and the store,
 * and one notifier that is the only one to invalidate kernel caches (from the others that
 * deadlocks: measured). One mutex guards the tree.  Of the owner's calls none blocks but start and
 * stop, nor, without `disk`, mirror_content().
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/err.h"
#include "concc/proto.h"

struct mirror;
struct offload;
struct store;

struct mirror_ops {
	/* Send LIST for this path; mirror_dir() with the same path answers. */
	void (*want_dir)(void *data, const char *path);
	/* Send FETCH; mirror_content() with the same fetch_id answers. */
	void (*want_file)(void *data, const struct msg_fetch *f);
	/*
	 * Something could not be answered as it is on the client: the version is gone, it can't be
	 * told now, or it is nothing that can be shown here: CONCC_E_SPECIAL, or -ENAMETOOLONG,
	 * where no message can carry its path.  Whoever asked sees an error that is ours.  job:
	 * what job_of() said of it, MIRROR_SOME_JOB: nobody knows whose it was.  Called before
	 * mirror_dispatch() returns.
	 */
	void (*failed)(void *data, int64_t job, const char *path, int err);
	/*
	 * Which job does the process belong to?  Called while it waits for its answer, since
	 * afterwards it may be gone, and in any thread.  Must not look into the mirror.
	 */
	int64_t (*job_of)(void *data, pid_t pid);
	/* The same: is it to make the name that it looks up?  NULL: that is not told apart. */
	bool (*makes)(void *data, pid_t pid, const char *name);
	/* A name there that is not, or a directory that was to be listed, or (MISSING_CHANGED)
	 * what was to be made, removed or otherwise changed, as the client calls it.  Called
	 * after job_of(), with its result, and before mirror_dispatch() returns. */
	void (*outside)(void *data, int64_t job, enum missing_how how, const char *path);
	/* May there be something for the next?  Does not block; in the owner's thread. */
	bool (*has_own)(void *data, const char *path);
	/*
	 * A file of this machine's that may have the bytes of the client's at this path, since it
	 * has its size: opened to be read, or -errno.  It may be changed at any time: what is
	 * copied of it is what counts.  In a thread of mirror_config.disk.  NULL: there is none.
	 */
	int (*open_own)(void *data, const char *path, uint64_t size);
	/* With mirror_config.disk: what mirror_content() would have returned of a message.  Once,
	 * and from offload_dispatch(). */
	void (*broken)(void *data, int err);
};

#define MIRROR_SOME_JOB INT64_MIN
#define MIRROR_NO_JOB	-1 /* of job_of(): the asker is of none, surely */

struct mirror_config {
	const char *mountpoint; /* an existing directory, in the calling thread's mount namespace */
	uid_t uid;	     /* what every node shows as owner: ids of the client's user, as seen */
	gid_t gid;	     /* in the user namespace of the caller */
	struct store *store; /* borrowed */
	/* Where contents are written and looked for, as the disk may be slow; borrowed.  NULL: in
	 * the owner's thread. */
	struct offload *disk;
	/* /dev/fuse, opened twice, non-blocking: the mirror's then; 0: opens it itself */
	int fuse_fd, outside_fd;
	unsigned n_threads; /* FUSE readers; 0: two */
};

/*
 * Opens /dev/fuse, mounts (needs CAP_SYS_ADMIN in the caller's user namespace)
 * and starts the threads.  0; or a negative code, and msg says what refused it and the remedy.
 */
int mirror_start(const struct mirror_config *c, const struct mirror_ops *ops, void *data,
		 struct mirror **ret, struct errmsg *msg);
/* Aborts the connection (every waiting request gets an error), joins the threads, unmounts.  Waits
 * for the threads, which wait for nobody but the disk.  NULL is fine, here and below. */
void mirror_stop(struct mirror *m);
/* The first half of that, after which the owner ends `disk`, if it has one; then comes the other.
 */
void mirror_abort(struct mirror *m);

/* Readable when the owner must call mirror_dispatch(), which calls the callbacks. */
int mirror_event_fd(const struct mirror *m);
void mirror_dispatch(struct mirror *m);

/* A tree the client serves: its ancestors become visible as plain directories.  Idempotent. */
int mirror_serve(struct mirror *m, const char *path);

#define MIRROR_OUTSIDE ".concc-outside"
/*
 * A file in there, which no listing shows, to be opened before there are jobs: it stands for those
 * that a job has not got.  Whoever reads, writes, locks, maps, waits for it or asks what it is
 * fails, with CONCC_E_DESCRIPTOR; who only closes or inherits it does not.
 */
#define MIRROR_STAND_IN ".descriptor"
/*
 * The same for a name, /dev/tty, of a job whose caller has a terminal: with CONCC_E_SPECIAL.  Who
 * only opens it, as each bash does, or asks what it is, does not fail.
 */
#define MIRROR_TERMINAL ".terminal"
/*
 * For below a job's own /tmp, whatever of that is served: nothing is in it, but what a job looks up
 * or makes there (also when it removes that again), and that it lists it, is reported.
 */
#define MIRROR_TMP ".tmp"
/* Makes path a directory in MIRROR_OUTSIDE, with its parents.  Served trees have theirs from
 * mirror_serve().  Idempotent.  kept: something is mounted there, so that it can't become a link.
 */
int mirror_outside(struct mirror *m, const char *path, bool kept);
/* LINK: makes path a symbolic link there, or takes that back.  Negative: it can't be one; see
 * outside_link(). */
int mirror_link(struct mirror *m, const struct msg_link *l);
/* BARE: shows path as the directory that it is at home, or no more.  CONCC_E_TOOBIG: too many. */
int mirror_bare(struct mirror *m, const struct msg_bare *b);
/* Names in such a directory whose absence need not be told again; without names, all of them are
 * news again.  What is said of a directory that is not there is ignored. */
void mirror_outside_absent(struct mirror *m, const struct msg_outside *o);

/* Messages of the client.  Each returns CONCC_E_PROTO when it makes no sense. */
int mirror_dir(struct mirror *m, const struct msg_dir *d);
int mirror_update(struct mirror *m, const struct msg_update *u);
int mirror_dir_stale(struct mirror *m, uint32_t dir_id);
int mirror_content(struct mirror *m, const struct msg_content *c);

/* The client expects these to be read soon: asks for the contents that are not here.  What it says
 * of names that are not known, or no files, is ignored. */
void mirror_prefetch(struct mirror *m, const struct msg_prefetch *p);

/* The same of what it guesses: as much is asked for as guesses were of use. */
void mirror_guess(struct mirror *m, const struct msg_prefetch *p);
/* Names of guesses that jobs have read since, in one directory; NULL: no more.  On the heap. */
char **mirror_guessed(struct mirror *m, uint32_t *ret_dir_id);

/*
 * The barrier: a job may start when mirror_flushed(m, mirror_seq(m) at its
 * arrival).  The event fd tells when that may have become true.
 */
uint64_t mirror_seq(const struct mirror *m);
bool mirror_flushed(const struct mirror *m, uint64_t seq);

/*
 * A job that starts with what was flushed up to seq.  Until its end, a name that
 * is replaced or goes leads its processes to what they may have looked up
 * before, as long as the kernel has it: an overlay that once saw a name answers
 * ESTALE for ever when the name below leads elsewhere.  Needs ops.job_of.
 */
void mirror_job_started(struct mirror *m, uint32_t job_id, uint64_t seq);
void mirror_job_ended(struct mirror *m, uint32_t job_id);
/*
 * The files with several names that the job's overlays have copied up, as the client calls them,
 * each once; on the heap, as are the names.  Any thread.  Of others the overlay itself says so (see
 * overlay_is_copied_up()).
 */
char **mirror_copied(struct mirror *m, uint32_t job_id);

/*
 * What the mirror knows of a path without asking the client: 0 and the entry,
 * -ENOENT (certain), or -EAGAIN (not known).  Symlinks are not followed.  Any thread.
 */
int mirror_peek(struct mirror *m, const char *path, struct entry_attr *ret);
/* Sets what was learnt of a version's bytes, so that later reads come from the store. */
void mirror_learn(struct mirror *m, const char *path, uint64_t version, const struct digest *d);

#define MIRROR_OPCODES 64
struct mirror_counts {
	uint64_t by_opcode[MIRROR_OPCODES]; /* FUSE requests received, by FUSE opcode number */
	uint64_t total;
	uint64_t notifications;
	uint64_t lists, fetches;       /* asked of the client */
	uint64_t own_files, own_bytes; /* by ops.open_own, which it need not send */
};
void mirror_counts(const struct mirror *m, struct mirror_counts *ret);

#endif
