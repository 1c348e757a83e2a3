/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TREE_H
#define CONCC_TREE_H

/*
 * What the client has told its workers about its files, kept right by inotify.
 *
 * A directory is watched first and read after, so no change falls between.
 * Every listing handed out is remembered as a snapshot, with the peers (links)
 * that were told.  tree_drain() reads all queued events, compares what they
 * name with the snapshots, and hands every difference to those peers.  The
 * kernel queues an event before the modifying system call returns
 * (fs/notify), so after a drain that found nothing the snapshots are the truth
 * for everything that happened before it was called: the whole coherence
 * argument.  Events are hints: each leads to an lstat.  Of what is mounted on
 * served directories, and taken away, the drain hears from mountinfo, whose count of
 * changes the kernel raises before mount(2) returns.
 *
 * Where inotify can't see (watch limit, network file systems, files with more
 * than one link) the snapshots concerned are compared with the disk at every
 * tree_drain() instead, that is once for each job; what a job asks for or changes
 * meanwhile is looked at by itself.  After an overflow of the queue all are, once.
 *
 * What can't be told, for want of descriptors or memory or because the disk fails,
 * is never told as absent or denied: a worker hears DIR_UNKNOWN, or ENTRY_UNKNOWN of
 * a name, and the jobs that asked are of no use.
 *
 * What stays unseen: stores through a mapping that stays open (seen when it is
 * closed), writes through a hard link made after the listing in a directory that
 * no worker has asked for, and those through a descriptor opened by a name that had
 * gone before the last name was read.
 *
 * Requests name paths that a worker chose: every path is resolved beneath a
 * served root, symlinks not followed (openat2).
 *
 * One thread.  0 or a negative code, where no more is said.  What looks at the disk blocks as long
 * as that does, and calls ops.busy on the way.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/err.h"
#include "concc/proto.h"

struct stat;
struct tree;
struct hash_cache;

#define TREE_PEERS_MAX 256

/* Our own temporaries, beside their targets: never listed, never looked at. */
#define TEMP_PREFIX ".concc-tmp-"

struct tree_ops {
	/* Send this to the peer: MSG_DIR, MSG_UPDATE or MSG_DIR_STALE.  b is borrowed; the tree
	 * must not be called from here. */
	void (*send)(void *data, unsigned peer, uint8_t type, const struct buf *b);
	/* Called again and again while a call takes long, as for the peers' heartbeat; the tree
	 * must not be called from here.  May be NULL. */
	void (*busy)(void *data);
	/* Of tree_serve_part(): is something left out of this directory?  NULL: of the top one. */
	bool (*is_partial)(void *data, const char *path);
	/* Takes an fd, to be closed by another thread: it is the last that leads to a large file,
	 * which the kernel takes long to free.  NULL: it is closed at once. */
	void (*close_large)(void *data, int fd);
};

/* cache may be NULL (digests are then known only after tree_learn()); borrowed. */
int tree_new(const struct tree_ops *ops, void *data, struct hash_cache *cache, struct tree **ret,
	     struct errmsg *msg);
/* For tests and odd kernels: makes the rare ways common.  All zero: as tree_new(). */
struct tree_limits {
	unsigned
		max_watches; /* of directories, before a watch counts as refused; 0: the kernel's */
	bool no_openat2;     /* without it and what statx(2) tells of mounts, as before Linux 5.6 */
	bool network;	     /* take every file system for one that others may change */
	size_t dir_bytes;    /* of a listing that can be told; 0: PROTO_DIR_MAX */
};
int tree_new_limited(const struct tree_ops *ops, void *data, struct hash_cache *cache,
		     const struct tree_limits *limits, struct tree **ret, struct errmsg *msg);
void tree_free(struct tree *t); /* NULL is fine */

/*
 * Serves path (absolute, clean, a directory) to workers.  Idempotent.  Fails when it can't be
 * opened.  It is held open: what is mounted at or above it can be unmounted lazily only.
 */
int tree_serve(struct tree *t, const char *path, bool writable, struct errmsg *msg);
/*
 * Shows at path, read-only, what the directory source holds.  Workers are told that there may be
 * more in directories of which ops.is_partial says so, which they can't see (DIR_PARTIAL).
 */
int tree_serve_part(struct tree *t, const char *path, const char *source, struct errmsg *msg);
/* Takes that back: of what was told of it, the peers hear that it is void. */
void tree_withdraw(struct tree *t, const char *path);
/* Is something served at path or beneath it? */
bool tree_serves_below(const struct tree *t, const char *path);
/* The served root that holds path, or NULL; borrowed until that root goes. */
const char *tree_root_of(const struct tree *t, const char *path, bool *ret_writable);

/* Would a look at this absolute, clean path, served or not, have the kernel mount something, as was
 * so at the last drain?  True when that can't be told. */
bool tree_triggers(const struct tree *t, const char *path);
/* Would it one of these: absolute paths behind one letter, as somebody has passed them to a kernel?
 */
bool tree_names_trigger(const struct tree *t, char *const *names, size_t n);

/* How often mounts have changed by now, wherever on this machine (see tree_drain()). */
uint64_t tree_mounts(struct tree *t);

/* The fd becomes readable with events; draining at each job start is what counts, not this. */
int tree_event_fd(const struct tree *t);
/* Then: keeps the kernel's queue short. */
void tree_on_event(struct tree *t);
/* Everything that happened before this call is queued to the peers when it returns.  Always 0. */
int tree_drain(struct tree *t);

/*
 * A peer asks for a listing: sends MSG_DIR.  A path that is not served is answered
 * DIR_DENIED, one that can't be looked at now, or has too many names for a message,
 * DIR_UNKNOWN, one that is not clean (msg_list_decode() refuses those) not at all.
 */
void tree_list(struct tree *t, unsigned peer, const char *path);
/* The path of a listed directory, borrowed until the next call that looks at the disk; or NULL. */
const char *tree_dir_path(const struct tree *t, uint32_t dir_id);
/* The id under which the peer knows the directory at path; 0 when it was not told of it. */
uint32_t tree_dir_id(const struct tree *t, unsigned peer, const char *path);
/* What a name in a listed directory stands for; ENTRY_ABSENT also when it is not known. */
void tree_entry(const struct tree *t, uint32_t dir_id, const char *name, struct entry_attr *ret);
/* What a symlink in a listed directory says, borrowed until the next call that looks at the disk;
 * NULL: it is none. */
const char *tree_link(const struct tree *t, uint32_t dir_id, const char *name);
/* The directories in a listed directory whose own size is at most max_bytes, when there are no more
 * than max_dirs of any size.  On the heap; NULL: none. */
char **tree_few_dirs(const struct tree *t, const char *path, size_t max_dirs, uint64_t max_bytes);
/* Is this listed directory known for a default access list (acl(5)), which no worker sees? */
bool tree_has_default_acl(const struct tree *t, const char *path);
/* A peer is gone: forget what it was told. */
void tree_peer_reset(struct tree *t, unsigned peer);

/*
 * Opens the bytes of (dir_id, name) for reading when the version is still
 * current, checked before and after opening.  CONCC_E_STALE otherwise, with the
 * change already queued to the peers.
 */
int tree_open_file(struct tree *t, uint32_t dir_id, const char *name, uint64_t version, int *ret_fd,
		   struct entry_attr *ret);
/* After reading it whole: 0 when still that version and nothing was torn, else CONCC_E_STALE. */
int tree_check_file(struct tree *t, uint32_t dir_id, const char *name, uint64_t version, int fd);
/* The digest of that version's bytes: remembered in the cache, and in later listings. */
void tree_learn(struct tree *t, uint32_t dir_id, const char *name, uint64_t version,
		const struct digest *d);

/* The version counter now: a job dispatched at this point has seen everything up to it. */
uint64_t tree_version(const struct tree *t);
/*
 * No running job was started before v (UINT64_MAX: none runs): what is kept of
 * removed names for the conflict checks of older jobs may go.  Without this call
 * it is bounded, and jobs that are older than the bound end in a conflict.
 */
void tree_set_horizon(struct tree *t, uint64_t v);
/* Would it make a difference now? */
bool tree_waits_for_horizon(const struct tree *t);

/*
 * After a drain: has what path (absolute, clean, no symlink on the way) names changed since that
 * version, a name that came or went included?  by_listing: who asks has seen it in listings of ours
 * only, so that what was before the first one does not matter.  1, 0, or -ENOENT: nobody had been
 * told of its directory by then, so it was not watched; or of a copy (tree_serve_part()).
 */
int tree_changed_since(const struct tree *t, const char *path, uint64_t version, bool by_listing);
/* The same, where the number of a file's names counts as well. */
int tree_links_changed_since(const struct tree *t, const char *path, uint64_t version,
			     bool by_listing);
/*
 * After a drain, of what was told to be unchanged: is this what lstat(2) has just said of it?  If
 * not, no event has told of that yet (a store to mapped memory does so when the file is closed, and
 * a name that a file gets elsewhere never); then the next drain looks.  True of what is no file or
 * symlink, or in a directory that is not known.
 */
bool tree_confirms(struct tree *t, const char *path, const struct stat *st);
/* The same of the names in a directory, and what they name: 1 may be said of a file that was
 * written. */
int tree_names_changed_since(const struct tree *t, const char *dir, uint64_t version,
			     bool by_listing);
/* After a drain: is this regular file (absolute, clean) surely what it was when lstat(2) said st?
 * False also when that can't be told. */
bool tree_is_same(struct tree *t, const char *path, const struct stat *st);
struct dir;

/* A directory, by any path. */
struct tree_place {
	const struct dir *dir; /* until the tree is used otherwise; NULL: there is nothing there */
	/*
	 * While this is the same, no event has told of a change of where the path leads, of a name
	 * there, or of what such a name stands for; and where it begins with a symlink of the root
	 * directory (/lib), that one is as it was.  0: changes of it would not be seen.
	 */
	uint64_t stamp;
	/* The same, but for names there and what they stand for: see tree_name_version(). */
	uint64_t route;
};
/* After a drain, of an absolute path (n bytes; "..", "." and slashes at its end are fine). */
struct tree_place tree_place(struct tree *t, const char *path, size_t n);
/*
 * The same path: what is served, beneath which it is, or would be.  While that has the same path
 * for the kernel, and the place has its route and is there, or is not, as before, so has the place.
 * Borrowed, as the place's dir; NULL: it can't be told.
 */
const char *tree_place_root(struct tree *t, const char *path, size_t n);
/*
 * Of a name in place.dir, which may be NULL: while this and the place's route are the same, it
 * stands for what it stood for, be it for nothing.  Of a symlink: it says the same; where it leads
 * is elsewhere.  0: a change would not be seen, or it is a directory.
 */
uint64_t tree_name_version(struct tree *t, const struct dir *d, const char *name);
/* The latest that there is: whatever has a stamp up to that was last changed before now. */
uint64_t tree_last_stamp(const struct tree *t);
/* Would the stamp change if this name in it did not stand any more for what lstat(2) has just said
 * (st; NULL: ENOENT)?  Of a symlink: if it said something else; where it leads is elsewhere. */
bool tree_vouches(struct tree *t, const struct dir *d, const char *name, const struct stat *st);
/* Has a snapshot of this directory made, so that what is in it can be told from what changes. */
int tree_know(struct tree *t, const char *dir);
#define TREE_NOBODY UINT16_MAX /* instead of a peer, to commit_apply(): the digests are ours */

/* What it costs, for status and tests. */
struct tree_counts {
	uint64_t dirs, entries, watches;
	uint64_t link_watches; /* of those: of single files */
	uint64_t swept;	       /* directories compared with the disk at every drain */
	uint64_t linked;       /* names of files that have several */
	/* since tree_new() */
	uint64_t drains, reads, events, scans, overflows, updates;
	uint64_t walked; /* names gone through for what happened to their file by another one */
	uint64_t stats;	 /* names looked at: an lstat each, with few exceptions */
	uint64_t mounts; /* times that mounts had changed, wherever */
};
void tree_counts(const struct tree *t, struct tree_counts *ret);

/* ---- home-coming: src/tree/commit.c ---- */

struct commit;

/*
 * Collects one job's effects and puts them in place.  started is
 * tree_version() at dispatch: a target whose version is later, by another hand
 * than this commit, is a conflict.  workspaces as in the job; copied.  The modes of effects are
 * final: the umask was applied where the job ran.
 */
struct commit *commit_new(struct tree *t, char *const *workspaces, uint64_t started);
/*
 * It is no compiler's, so it may have gone by more than bytes.  That a target got or lost another
 * name that the job did not know of is a conflict, too; and as far as clocks agree files get the
 * very times that the job saw, which it may have written down (ninja's log, Python's .pyc).
 */
void commit_of_any_command(struct commit *c);
/*
 * One JOB_FILE; bytes follow with commit_data().  Nothing is in place yet.  What
 * goes wrong on this machine is remembered for commit_apply() and the result is
 * 0; CONCC_E_PROTO is for a peer that breaks the protocol.
 */
int commit_file(struct commit *c, const struct msg_file *f);
int commit_data(struct commit *c, const void *p, size_t n);
/*
 * Instead of commit_data(), after commit_file(): all its bytes, which must live until the writing
 * is done.  That is for a thread, since they may be many, or the disk slow: there only
 * commit_write() is called, and commit_written() on the owner's afterwards, which frees it.  c may
 * be gone by then; of such a one nothing more is written.  What fails is told by commit_apply(),
 * which is not called before.  NULL: there is nothing to be written.
 */
struct commit_writing *commit_data_later(struct commit *c, const void *p, size_t n);
void commit_write(struct commit_writing *w);
void commit_written(struct commit_writing *w);
/*
 * Drains, checks every target for conflicts, then moves all into place in
 * order, tells the peers the new entries (with digests, so that the one that
 * made them need not fetch), and starts anew.  On failure nothing of this batch
 * is in place unless msg says so, and msg names the file and what happened.
 */
int commit_apply(struct commit *c, unsigned peer, struct errmsg *msg);
/*
 * The same in pieces, for a batch may be of 100 000 files or remove as many: each ends at until_ms
 * (of now_ms()), or soon after.  True: that was the last, and *ret and msg say what commit_apply()
 * says. Between two pieces the tree may be used for all but another commit's pieces, which has to
 * wait: what was checked must not be changed by one that was checked at the same time.  Who looks
 * sees some of the files then, as he does of those of a command that runs here.
 */
#define COMMIT_AT_ONCE UINT64_MAX
bool commit_apply_some(struct commit *c, unsigned peer, uint64_t until_ms, int *ret,
		       struct errmsg *msg);
/* Is there nothing to be put in place, nor an error to be told? */
bool commit_is_empty(const struct commit *c);
/* When all of the job has come, and nothing is in place: is what it read by locks as it was, with
 * nobody's lock on it?  As commit_apply(), which looks once more. */
int commit_check_locks(struct commit *c, struct errmsg *msg);
/*
 * The same, and of a command that is no compiler what else commit_apply() would refuse as things
 * are: 0 is no promise.  For who shows then what the job printed.
 */
int commit_foresee(struct commit *c, struct errmsg *msg);
/* Between two pieces: is some of it in place? */
bool commit_is_begun(const struct commit *c);
/* Of what is not in place yet the peer's digests are not used any more. */
void commit_without_digests(struct commit *c);
/* What the commits of this job did in all. */
struct commit_totals {
	uint64_t files, bytes;
};
void commit_totals(const struct commit *c, struct commit_totals *ret);
void commit_free(struct commit *c); /* drops what was not applied: temporary files are removed */
/* The same in pieces, as above; true: that was the last, and c is no more.  Only this may be called
 * meanwhile, or commit_free(). */
bool commit_drop_some(struct commit *c, uint64_t until_ms);

/* ---- what the times of files tell ---- */

/*
 * Of a file system, as far as is known: what is not is compared and read more often than need be,
 * which is slow; not to would be wrong.
 */
struct fs_traits {
	/* Others than this kernel may change it, unseen by inotify. */
	bool network;
	/*
	 * Each change of a file gives it a ctime of the kernel's or the server's clock, and its
	 * inode's number is its own for as long as it is there: so one stat is one state of one
	 * file, also when it has been mounted anew, or another one has its device's number.  Not of
	 * FUSE (sshfs shows the mtime as ctime, and libfuse numbers files as they are met), FAT
	 * (the same), nor of images that are made whole (squashfs: all times are its maker's).
	 */
	bool stamps;
};
struct fs_traits fs_traits(int fd);		    /* that fd is on; O_PATH will do */
struct fs_traits fs_traits_of_type(uint32_t magic); /* statfs.f_type */
bool fs_is_network(int fd);			    /* the first of them */

/* ---- digests across sessions: src/tree/hash_cache.c ---- */

/* On disk by (dev, ino, size, mtime, ctime); a damaged or foreign file is ignored with a warning.
 */
int hash_cache_open(const char *path, struct hash_cache **ret);
bool hash_cache_get(struct hash_cache *h, const struct stat *st, struct digest *ret);
/* stamps: of the file system that it is on; else it is known until mounts change, and not on disk.
 */
void hash_cache_put(struct hash_cache *h, const struct stat *st, const struct digest *d,
		    bool stamps);
void hash_cache_mounts_changed(struct hash_cache *h);
/* The bytes changed although the stat did not: what is known of it is wrong. */
void hash_cache_drop(struct hash_cache *h, const struct stat *st);
size_t hash_cache_count(const struct hash_cache *h);
/* Appends what the file is to hold, bounded in size; false: nothing has changed since this was
 * called. */
bool hash_cache_changes(struct hash_cache *h, struct buf *ret);
void hash_cache_free(struct hash_cache *h);

#endif
