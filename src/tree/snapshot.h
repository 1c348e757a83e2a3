/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TREE_SNAPSHOT_H
#define CONCC_TREE_SNAPSHOT_H

/*
 * The inside of struct tree.
 *
 *   tree.c       the interface
 *   dirs.c       directories that are known, how they come and go
 *   names.c      the names of one of them
 *   entry.c      looks at one name: is it another version?
 *   snapshot.c   looks at directories: what changed since the last look
 *   updates.c    tells the peers
 *   hardlinks.c  files with several names; inodes.c: which directories have an inode
 *   tombs.c      what was lost, and since when
 *   watch.c      inotify
 *   mounts.c     mountinfo
 *   lease.c      how long what no event tells of is compared with the disk
 *   resolve.c    paths beneath served roots
 *   stamp.c      whether anything may have changed by a path
 *   temp.c       our temporaries
 *   commit.h     a job's changes, on their way in
 *
 * dirs, snapshot, entry, updates, hardlinks, watch, mounts and resolve call each other: a look may
 * find that a root has moved or a file has another name, which queues further looks.
 *
 * A `struct dir` is one listed directory, a `struct ent` one name in it.  Every
 * dir's parent is a dir too, up to the served root, so that the loss of any
 * ancestor is seen in its parent's watch; a dir whose parent can't be read is
 * swept instead: compared with the disk before every job.
 *
 * A sweep costs an lstat for each name of such a dir, so it is made before a job and
 * at no other time, and of those only that were asked for not long ago (lease.c).  What else needs
 * the truth of some names looks at just these (snap_freshen(); a dir that is listed; a file that is
 * opened).
 *
 * Looking at the disk never sends: changes are put on the dir's pending list
 * and updates_flush() sends one UPDATE per directory.  Dropped dirs live until
 * updates_flush(), since queues may still name them.
 *
 * A look has three answers: it is so (err_is_fact() says which failures are facts,
 * too), it changed, or it can't be told now.  Of the last nothing is concluded: a
 * name that was read becomes ENTRY_UNKNOWN and is looked at again at every drain; a
 * directory is forgotten, so that who needs it asks again, and jobs that run can't
 * put anything in place there (dir_forget()).
 */
#include <sys/stat.h>

#include "concc/map.h"
#include "concc/tree.h"
#include "names.h"

struct peer_set {
	uint64_t w[TREE_PEERS_MAX / 64];
};

struct ent_vec {
	struct ent **v;
	uint32_t n, cap;
};

struct watch {
	int wd;
	struct list
		dirs; /* struct dir.in_watch: several when bind mounts show one directory twice */
	struct list anchors; /* struct anchor.in_watch */
	struct list links;   /* struct linked.in_watch */
	/* All of them were marked in that collection (struct tree.collects), with these flags. */
	uint64_t marked;
	unsigned marked_flags;
};

/*
 * A name of a file that has several, or one on which something is mounted.  What is
 * done to the file by another name is no event of this name's directory, but it is
 * one of the file: it is watched itself, or compared with the disk at every drain.
 */
struct linked {
	struct list in_dir;
	struct list in_unwatched; /* t->linked; empty when there is a watch */
	struct list in_watch;
	struct watch *watch;
	struct dir *dir;
	struct ent *ent;
};

/* A directory's own, as struct entry_attr has them. */
struct dir_attr {
	uint64_t ino, size, version;
	int64_t mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns;
	uint32_t nlink;
	uint16_t mode;
};

/* Some 600 bytes with its path, watch and table of names: there are 100 000 at times. */
struct dir {
	uint32_t id;
	char *path;
	struct dir *parent;
	struct list siblings; /* or, once it is dropped, t->grave */
	struct list children;
	struct watch *watch;
	struct list in_watch;
	struct list in_sweep; /* empty when not on t->sweep, nor on t->idle */
	struct list linked;   /* struct linked.in_dir */
	struct dir_attr attr;
	struct names names;
	struct ent_vec dirty, pending;
	struct peer_set subscribers;
	uint64_t known_since; /* version, when it was read: no name in it had a later one then */
	uint64_t stamp;	      /* see dir_touch() */
	uint64_t idle_since;  /* version, when its lease ended; 0: it did not (lease.c) */
	uint32_t lease, lease_left; /* sweeps */
	uint64_t mounts;	    /* so many changes of mounts; then it was on: */
	uint64_t mount; /* a number that no other mount gets, or that of these changes */
	uint64_t route; /* the stamp when it was met, or who may search it last changed */
	uid_t uid;	/* of the directory itself, when dir_note_access() saw it; */
	gid_t gid;
	mode_t mode;
	bool network;	/* others may change it */
	bool stamps;	/* a stat tells states of its files apart: struct fs_traits */
	bool fs_known;	/* so much is known of its file system, since: */
	bool elsewhere; /* by its path the kernel finds another one: see tree_serve_part() */
	bool orphan;	/* its parent can't be read, so nobody watches what becomes of it */
	bool dead;	/* the path leads elsewhere by now, or nowhere */
	bool dropped;	/* on t->grave */
	bool was_told;	/* of one with its path before, which was forgotten when its lease ended */
	bool queued;	/* on t->queue */
	bool scan_now;	/* compare all names at the next look */
	bool unknown;	/* the last scan met a name of which it could not be told what it is */
	bool flush_queued; /* on t->flush */
	bool attr_changed;
	bool default_acl; /* decides the modes of what is made in it, instead of a umask */
	bool acl_suspect; /* that may have changed, or: */
	bool access_acl;  /* decides who may search it, beside its mode */
	bool in_links;	  /* on hardlinks_mark_new()'s list */
};

/* Compared with the disk before each job, since no event may tell what changes in it. */
static inline bool dir_is_swept(const struct dir *d)
{
	return !list_empty(&d->in_sweep);
}

struct dir_vec {
	struct dir **v;
	size_t n, cap;
};

/* In which directories files that have one name are known, by inode: see hardlinks_mark_new(). */
struct inodes {
	struct inode_slot *slots;
	uint32_t cap, n;
};

/* A directory on the way to a served root: an event there on `name` may replace the root. */
struct anchor {
	struct list in_watch, in_root;
	struct root *root;
	struct watch *watch;
	char *name;
};

struct root {
	struct list in_tree;
	char *path;
	char *source; /* the directory that is shown there, when it is another one; else NULL */
	char *real;   /* its path without symlinks, as of when it was opened last; NULL: never */
	bool writable;
	int fd;	 /* O_PATH, -1 while it can't be opened */
	int err; /* then why: -errno, which need not be a fact */
	/* Of the directory that was found last, and of the one before; 0: none. */
	dev_t dev, former_dev;
	ino_t ino, former_ino;
	struct list anchors;
	bool loose;	 /* missing, or not all anchors could be set: looked at at every drain */
	bool remounted;	 /* the same directory may be seen through another mount by now */
	bool has_mounts; /* something is mounted beneath it, or was */
	/* What peers were told while it was missing, to be taken back when it comes. */
	uint32_t absent_id;
	struct peer_set absent_subscribers;
};

/* A name that was lost (removed, or a directory replaced) at a version. */
struct tomb {
	struct list order; /* by version */
	uint64_t version;
	char path[];
};

#define TOMBS_MAX (256 * 1024) /* about 40 MB with long paths */

struct tree {
	struct tree_ops ops;
	void *data;
	struct hash_cache *cache;
	struct tree_limits limits;
	int inotify_fd;
	int mounts_fd;		 /* mountinfo, or -1 */
	struct map mount_points; /* as last read: a set of paths */
	char *automounts; /* all of it, when some of them mount others by themselves; else NULL */
	bool mounts_unknown; /* it could not be read last time */
	uint64_t version;
	uint64_t last_stamp;
	struct map
		tops; /* name of a symlink in the root directory -> struct top *, owned: stamp.c */
	uint32_t next_id;
	uint32_t name_seed;
	struct list roots;
	struct map by_path; /* struct dir; the keys are theirs */
	struct map by_id;
	struct map watches; /* by wd */
	struct list sweep, idle, grave;
	struct map leases;  /* path -> sweeps, of those that have ended */
	struct list linked; /* struct linked.in_unwatched */
	struct map linked_by_ent;
	struct inodes inodes;
	struct dir_vec queue; /* to be looked at */
	struct dir_vec flush; /* with something to send */
	uint64_t link_watches_max;
	unsigned own_events; /* that may be in the queue */
	uint64_t collects;   /* of events, one after another */
	bool overflow;
	bool roots_suspect;
	bool openat2_missing;
	bool mount_root_missing; /* statx(2) tells not whether something is mounted */
	/* Inodes seen with a further link since the last look. */
	uint64_t *new_links;
	size_t n_new_links, cap_new_links;
	struct dir_vec link_dirs;
	dev_t *devs; /* index = device number within this tree */
	size_t n_devs;
	struct map tombs;
	struct list tomb_order;
	uint64_t horizon;
	uint64_t tomb_floor;  /* tombs up to here may be missing */
	struct list checking; /* struct commit.in_checking */
	/* Who our temporaries belong to: see temp.c. */
	uint32_t temp_where, temp_pid, temp_count;
	uint64_t temp_started;
	struct tree_counts counts;
	char event_buf[64 * 1024] __attribute__((aligned(8)));
	char scan_buf[64 * 1024] __attribute__((aligned(8)));
};

static inline void peer_set_add(struct peer_set *s, unsigned p)
{
	s->w[p / 64] |= UINT64_C(1) << (p % 64);
}

static inline void peer_set_del(struct peer_set *s, unsigned p)
{
	s->w[p / 64] &= ~(UINT64_C(1) << (p % 64));
}

static inline bool peer_set_has(const struct peer_set *s, unsigned p)
{
	return s->w[p / 64] >> (p % 64) & 1;
}

bool peer_set_empty(const struct peer_set *s);

/* ---- resolve.c ---- */

/* The innermost served root that holds path, or NULL. */
struct root *root_find(const struct tree *t, const char *path);
/* The outermost one. */
struct root *root_outermost(const struct tree *t, const char *path);
/* Is a served root at path or beneath it? */
bool root_is_beneath(const struct tree *t, const char *path);
/* Opens path beneath its root, no symlink anywhere followed.  An fd or -errno. */
int resolve_open(struct tree *t, const char *path, int flags);
/* A regular file, to be read.  -ENXIO when it is something else: that is not opened, which may wake
 * who waits at a fifo, and act on a device. */
int resolve_open_regular(struct tree *t, const char *path);
/* The directory that holds path (O_PATH), and path's last part; both as for resolve_open(). */
int resolve_parent(struct tree *t, const char *path, const char **ret_name);
/*
 * What its path leads to now: 1 when that is another directory than before, 0, or -errno.
 * Symlinks are followed like anywhere, but none that is in a tree that workers write to: they would
 * choose what is served.
 */
int root_open(struct tree *t, struct root *r);
/* After an event on the way to a root, or for loose roots: what do the paths lead to now? */
void roots_check(struct tree *t);
/* Looks at the loose ones. */
void roots_look(struct tree *t);
void root_free(struct tree *t, struct root *r);

/* ---- dirs.c ---- */

struct dir *dir_find(const struct tree *t, const char *path);
/* The snapshot of path, made now (with those of its ancestors) when there is none; or -errno. */
int dir_ensure(struct tree *t, const char *path, struct dir **ret);
/* Forgets d and all beneath it.  Peers outside `covered` (may be NULL), who learn of it by no
 * UPDATE of a parent, get DIR_STALE. */
void dir_drop(struct tree *t, struct dir *d, const struct peer_set *covered);
/* d is not what its path leads to any more: the next look at its parent drops it. */
void dir_mark_dead(struct tree *t, struct dir *d);
/* What was told of d may be so or not: drops it, and all who were told must ask again. */
void dir_forget(struct tree *t, struct dir *d);
void dir_free(struct dir *d); /* one that was dropped */
void dir_queue(struct tree *t, struct dir *d);
void dir_queue_scan(struct tree *t, struct dir *d); /* all its names */
/* Is it compared with the disk before each job from now on? */
void dir_sweep(struct tree *t, struct dir *d, bool on);
void dir_vec_push(struct dir_vec *v, struct dir *d);

/* Its entry, or NULL. */
struct ent *dir_name(const struct tree *t, const struct dir *d, const char *name, size_t len);
/* The same, ENTRY_ABSENT when it is new. */
struct ent *dir_add_name(struct tree *t, struct dir *d, const char *name, size_t len);
void dir_del_name(struct tree *t, struct dir *d, struct ent *e);
/* An event named this: look at it.  flags: ENT_WRITTEN, ENT_GONE. */
void dir_mark_name(struct tree *t, struct dir *d, const char *name, size_t len, unsigned flags);
void dir_mark_ent(struct tree *t, struct dir *d, struct ent *e, unsigned flags);
/* The entry that leads to d, NULL for roots and orphans. */
struct ent *dir_entry(const struct tree *t, const struct dir *d);

/* ---- stamp.c ---- */

/* It, or something of a name in it, may have changed: it gets a stamp that no directory ever had.
 */
void dir_touch(struct tree *t, struct dir *d);
void tops_release(struct tree *t);
/* st is the directory now, opened as fd: who may search it can decide what is found beneath. */
void dir_note_access(struct tree *t, struct dir *d, int fd, const struct stat *st);

/* ---- entry.c: what a name stands for ---- */

uint64_t fold_ino(struct tree *t, dev_t dev, ino_t ino);
bool ent_matches(struct tree *t, const struct ent *e, const struct stat *st);
/* It was st at `since` (of clock_ns()), with no change that was not told: see ENT_RACY. */
void ent_grow_old(const struct dir *d, struct ent *e, const struct stat *st, int64_t since);
void ent_set_known(struct ent *e, const struct digest *d, uint16_t claimed_by);
/* The directory's own attributes, as fstat(2) of it says: when it is new; and later, which is told.
 */
void dir_init_attr(struct tree *t, struct dir *d, const struct stat *st);
void dir_set_attr(struct tree *t, struct dir *d, const struct stat *st);
/* As they are told. */
void dir_get_attr(const struct dir *d, struct entry_attr *ret);
/* Looks at one name.  0, or -errno: not even whether there is one can be told.  ret_st: may be
 * NULL; what was seen, all zero when nothing was. */
int snap_check(struct tree *t, struct dir *d, int fd, struct ent *e, struct stat *ret_st);
/* This call takes long: see tree_ops. */
void tree_busy(struct tree *t);

/* ---- snapshot.c ---- */

bool fd_has_default_acl(int fd); /* of a directory, opened for reading */
/* Compares all names with the disk.  0 or -errno. */
int dir_scan(struct tree *t, struct dir *d, int fd);
/* The commit just changed path's name: takes it over at once; its version now.  ret_st: what is
 * there, all zero when nothing is. */
uint64_t snap_note(struct tree *t, int dir_fd, const char *path, const struct digest *claim,
		   unsigned peer, bool written, struct stat *ret_st);
/* Looks at all that is queued, until nothing is left; then sends. */
void snap_settle(struct tree *t);
/*
 * What no event tells of is compared with the disk: all of it, before a job (queues it), ...
 */
void snap_sweep(struct tree *t);
/* ... or what is on the way to path, at it and beneath it.  Costs nothing where all is watched. */
void snap_freshen(struct tree *t, const char *path);

/* ---- lease.c ---- */

void lease_begin(struct tree *t, struct dir *d); /* it is swept from now on */
void leases_sweep(struct tree *t);		 /* before a job: some end */
/* path is asked for: what is idle on the way to it is swept again, or not known any more. */
void lease_renew(struct tree *t, const char *path);

/* ---- updates.c: what peers are told ---- */

void ent_to_attr(const struct ent *e, unsigned peer, struct entry_attr *ret);
/* e changed: to be told. */
void updates_put(struct tree *t, struct dir *d, struct ent *e);
/* d's own attributes did. */
void updates_later(struct tree *t, struct dir *d);
/* Sends what is to be told. */
void updates_send(struct tree *t);
/* The same; then frees what was dropped, if nothing names it any more. */
void updates_flush(struct tree *t);
void updates_send_dir(struct tree *t, struct dir *d, unsigned peer);
void updates_send_absent(struct tree *t, unsigned peer, uint32_t id, uint8_t state,
			 const char *path);
void updates_send_unknown(struct tree *t, unsigned peer, uint32_t id, const char *path, int err);
void updates_send_stale(struct tree *t, const struct peer_set *to, uint32_t id);
void ent_vec_push(struct ent_vec *v, struct ent *e);
void ent_vec_release(struct ent_vec *v);

/* ---- hardlinks.c: files with several names ---- */

/*
 * e was looked at (fd is its directory).  same: it is still the file it was.  One that had more
 * names stays tracked with its last: what is written through a descriptor that was opened by a
 * name that has gone is reported for that name, so not at all.
 *
 * True when it is tracked from now on only, so that what was done to it since the look has no
 * event.  in_vain: that was so again and again.
 */
bool hardlinks_track(struct tree *t, struct dir *d, int fd, struct ent *e, bool same, bool mounted,
		     bool in_vain);
void hardlinks_forget(struct tree *t, struct linked *l);
/* Is the file itself watched, so that what is done to it by any name is an event? */
bool hardlinks_is_watched(const struct tree *t, const struct ent *e);
/* Around each change of what e stands for: where files with one name are known. */
void hardlinks_index(struct tree *t, const struct dir *d, const struct ent *e);
void hardlinks_unindex(struct tree *t, const struct dir *d, const struct ent *e);
/*
 * Names with several links came up: names listed before, when the file had one, are now written
 * through the new ones without an event of theirs.  Each directory that has such a name is gone
 * through once, and they are marked.
 */
void hardlinks_mark_new(struct tree *t);

/* ---- tombs.c: what was lost, and since when ---- */

void tomb_put(struct tree *t, const char *dir, const char *name, uint64_t version);
uint64_t tomb_version(const struct tree *t, const char *path); /* 0 when there is none */
/* Has a name in this directory been removed since? */
bool tombs_in_since(const struct tree *t, const char *dir, uint64_t version);
/* Those up to the horizon, and the oldest beyond TOMBS_MAX. */
void tombs_trim(struct tree *t);

/* ---- commit_heard.c ---- */

/*
 * Tells the commits that are being checked: this name became something else.  there: something is
 * there now; lost: what was beneath it is void.
 */
void commits_hear(struct tree *t, const char *dir, const char *name, bool there, bool lost);

/* ---- inodes.c ---- */

void inodes_add(struct inodes *s, uint64_t ino, uint32_t dir_id);
void inodes_del(struct inodes *s, uint64_t ino, uint32_t dir_id); /* it was added */
/* Calls fn for each directory that may have it: another inode has the same hash at times. */
void inodes_find(const struct inodes *s, uint64_t ino, void (*fn)(void *data, uint32_t dir_id),
		 void *data);
void inodes_release(struct inodes *s);

/* ---- temp.c ---- */

#define TEMP_NAME_SIZE 96
/* A new name for a temporary of this process. */
void temp_name(struct tree *t, char buf[TEMP_NAME_SIZE]);
/* Removes a temporary whose server is dead; the name has TEMP_PREFIX. */
void temp_clean(struct tree *t, int dir_fd, const char *name);
void temp_init(struct tree *t);

/* ---- watch.c ---- */

void watch_init(struct tree *t);
/* Watches d through fd.  0, or -errno: d is then compared with the disk at every drain. */
int watch_dir(struct tree *t, struct dir *d, int fd);
void watch_release_dir(struct tree *t, struct dir *d);
/* Watches a file itself, through fd.  0, or -errno: it is then compared with the disk at every
 * drain. */
int watch_link(struct tree *t, struct linked *l, int fd);
void watch_release_link(struct tree *t, struct linked *l);
/* Watches fd, an ancestor of root, for what happens to `name`. */
int watch_anchor(struct tree *t, struct root *r, int fd, const char *name);
void watch_release_anchor(struct tree *t, struct anchor *a);
/* Reads all queued events and marks what they name; looks at nothing. */
void watch_collect(struct tree *t);
/* We are making about n events ourselves: reads them now and then, so that the queue holds them. */
void watch_own_events(struct tree *t, unsigned n);

/* ---- mounts.c ---- */

void mounts_init(struct tree *t);
void mounts_release(struct tree *t);
void mounts_note_root(struct tree *t, struct root *r); /* it was opened */
/*
 * lstat(2) of dir's name through fd, which is dir.  0 or -errno; ret_mounted: something is mounted
 * on that name, so that what becomes of it is no event of dir.
 */
int mounts_stat(struct tree *t, const char *dir, int fd, const char *name, struct stat *ret,
		bool *ret_mounted);
/* dir becomes known: its names are going to be looked at. */
void mounts_note_dir(struct tree *t, const char *dir);
/* fd is d's: of which file system it is since mounts last changed.  True: d was known, and what is
 * there now may look the same and be something else. */
bool mounts_note_fs(struct tree *t, struct dir *d, int fd);
/* Marks what mounts have changed since the last call; one system call when there are none. */
void mounts_collect(struct tree *t);

#endif
