/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_INODE_H
#define CONCC_MIRROR_INODE_H

/*
 * The mirror's state: a tree of inodes, what the kernel was told of it, and
 * the requests that wait for the client.  Everything here is under mirror.lock,
 * which is never held across a reply, a notification or a callback: functions
 * collect requests that can go on in a list, and the caller runs them after
 * unlocking.
 *
 * An inode is one (path, version).  It is in the tree while its parent is set
 * (or it is the root); replaced or removed it leaves the tree and lives on until
 * the kernel forgets it.  Directories are the exception: one inode as long as
 * the path stays the same directory, with attributes that change.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/map.h"
#include "concc/mirror.h"
#include "guess.h"

struct content;
struct fetch;
struct inode;
struct outside;

struct slot {
	uint64_t cookie;
	struct inode *inode; /* NULL: removed, a hole until the next compaction */
};

struct dir {
	bool listed;		/* names are all there are, and kept right by UPDATEs */
	bool asked;		/* a LIST is on its way */
	bool synthetic;		/* a parent of served trees: made by us, always complete */
	bool partial;		/* listed, but the client has more there: reports look-ups */
	bool served;		/* a served tree's root: its attributes come with its own listing */
	uint32_t dir_id;	/* 0 when the client sends no UPDATEs for it */
	uint64_t entry_version; /* as the parent's listing has it; attr is of its own listing */
	uint32_t mark;		/* of the last DIR applied: names without it are gone */
	struct map
		names; /* name -> inode; after a DIR_STALE what was true before, to compare with */
	/* The same in the order of their cookies, which grow and are never used again. */
	struct slot *slots;
	size_t n_slots, cap_slots, n_live;
	uint64_t next_cookie;
	struct map negatives; /* name -> struct negative: what the kernel believes to be absent */
	struct map absent;    /* partial: names that are no news */
	/* name -> inode, the last of those (by ->older) that left this directory while jobs ran
	 * and that the kernel still knows */
	struct map former;
	uint64_t void_seq;   /* not listed since: what a new listing changes went before this */
	struct list waiting; /* requests, for the listing */
};

struct inode {
	struct list link; /* in mirror.inodes */
	uint64_t nlookup; /* the kernel's references */
	unsigned refs;	  /* ours: the tree's, and those of requests and fetches */
	struct inode *parent;
	struct entry_attr attr;
	uint64_t cookie;
	uint32_t mark;
	char *target;		 /* symlinks */
	struct dir *dir;	 /* directories */
	struct content *content; /* files: bytes at hand, or NULL */
	struct fetch *fetch;	 /* files: on their way, or NULL */
	bool own_tried;		 /* files: this machine's own was looked at */
	enum guess guess;	 /* files: the client guesses that it will be read */
	char *lost_path;	 /* where it was when it left the tree, for messages */
	struct inode *former_in; /* the directory that it left, when it is among its former */
	struct inode *older;	 /* what had its name there before */
	uint64_t lost_seq;	 /* jobs that started before this may know it */
	char name[];
};

/* A name that was answered "absent" for good; in mirror.negatives, oldest first. */
struct negative {
	struct list link;
	struct inode *dir;
	char name[];
};

/* Directories that lead to served trees or are told to be outside: a workspace takes a few, a PATH
 * some dozens.  Far more is a client that wants our memory. */
#define SYNTHETIC_MAX 65536

/*
 * Negative answers on record, in all directories: what must be withdrawn when
 * names appear that the kernel may believe absent.  The oldest is withdrawn for
 * each one too many, so that the temporary names of finished jobs don't pile
 * up.  A compile leaves some hundreds; 256 Ki take about 40 MB.
 */
#define NEGATIVES_MAX (256 * 1024)
/* Names in one directory; beyond, the client is wrong or a directory is absurd. */
#define DIR_NAMES_MAX (4 * 1024 * 1024)
/* Inode numbers of what only we know: far from any the client counts up to. */
#define SYNTHETIC_INO (1ULL << 62)

enum notice_kind { NOTICE_DROP, NOTICE_EXPIRE, NOTICE_INODE };

/* One invalidation for the notifier thread. */
struct notice {
	struct list link;
	enum notice_kind kind;
	uint64_t
		nodeid; /* the directory, for DROP and EXPIRE of a name in it; may be gone by now */
	char name[];
};

struct job_seq {
	uint64_t seq;	   /* of mirror_job_started() */
	struct map copied; /* path -> itself, owned: see mirror_copied() */
};

/* j may be NULL. */
void job_seq_free(struct job_seq *j);
/* The job's overlay copies i up.  job: as of job_of(). */
void job_copies(struct mirror *m, int64_t job, const struct inode *i);

struct fuse;

struct mirror {
	pthread_t owner; /* see mirror_check_owner() */
	struct mirror_ops ops;
	void *data;
	struct store *store;
	struct offload_lane *lane; /* for what may block; NULL: in the owner's thread */
	struct offload_lane
		*own_lane; /* for copies of files of this machine; NULL: none are made */
	bool broken;	   /* the owner was told */
	char *mountpoint;
	uid_t uid;
	gid_t gid;
	int event_fd;
	struct fuse *fuse;	  /* session and threads: fuse.c */
	atomic_bool tells_copies; /* the kernel asks us when an overlay copies a file up */

	pthread_mutex_t lock;
	bool stopping;
	struct inode *root;
	struct inode *outside;	/* MIRROR_OUTSIDE: in the root, though not among its names */
	struct outside *places; /* what is mounted there; the owner's */
	struct list inodes;	/* all there are, in the tree or not */
	struct map jobs;	/* job_id -> struct job_seq */
	struct map dir_ids;	/* dir_id -> inode */
	struct list negatives;	/* struct negative, oldest first */
	size_t n_negatives;
	size_t n_absent;    /* names in all of the partial directories */
	struct list wants;  /* struct want */
	struct map fetches; /* fetch_id -> struct fetch */
	uint32_t next_fetch_id;
	struct list guesses;		     /* struct guess_item: to be asked for */
	struct list guessed;		     /* the same: read, to be told of */
	size_t n_guesses;		     /* in both */
	uint64_t unread_bytes, useful_bytes; /* asked for by guesses; read, or asked for without */
	bool guess_called;		     /* a WANT_GUESSES is on its way */
	struct list contents; /* struct content of inodes, least recently used first */
	size_t n_contents;
	size_t n_synthetic;
	uint32_t mark;
	uint64_t next_ino;
	struct timespec started;

	/* notify.c; under lock */
	pthread_t notifier;
	pthread_t notifies; /* the same as that thread has it: fuse_inval_*() are its alone */
	bool notifier_runs;
	pthread_cond_t notices_added;
	struct list notices;
	uint64_t notices_queued;
	atomic_uint_fast64_t notices_done;

	atomic_uint_fast64_t by_opcode[MIRROR_OPCODES];
	atomic_uint_fast64_t n_notifications, n_lists, n_fetches, n_own_files, n_own_bytes;
};

/* What mirror.h has for the owner's thread only begins with this. */
static inline void mirror_check_owner(const struct mirror *m)
{
	assert(pthread_equal(m->owner, pthread_self()));
}

/* Appends all of src to dst; src is empty then. */
static inline void list_take_all(struct list *dst, struct list *src)
{
	if (list_empty(src))
		return;
	src->next->prev = dst->prev;
	dst->prev->next = src->next;
	src->prev->next = dst;
	dst->prev = src->prev;
	list_init(src);
}

/* ---- inodes ---- */

struct inode *inode_new(struct mirror *m, const char *name, size_t len, const struct entry_attr *a,
			const struct blob *target);
static inline struct inode *inode_ref(struct inode *i)
{
	i->refs++;
	return i;
}
void inode_unref(struct mirror *m, struct inode *i);
void inode_forget(struct mirror *m, struct inode *i, uint64_t nlookup);
static inline bool inode_is_dir(const struct inode *i)
{
	return i->attr.type == ENTRY_DIR;
}
/* In the tree, or out of it for ever? */
static inline bool inode_attached(const struct mirror *m, const struct inode *i)
{
	return i->parent || i == m->root;
}
/* Absolute; of one that left the tree, where it was.  A copy on the heap. */
char *inode_path(const struct mirror *m, const struct inode *i);

/* ---- the tree ---- */

void mirror_tree_init(struct mirror *m);
/* Moves every request that waits for a listing to ret. */
void mirror_tree_waiting(struct mirror *m, struct list *ret);
void mirror_tree_release(struct mirror *m);
static inline bool dir_complete(const struct inode *d)
{
	return d->dir->listed || d->dir->synthetic;
}
struct inode *dir_child(const struct inode *d, const char *name, size_t len);
/* The slot from which a listing that has seen `cookie` goes on. */
size_t dir_slot_after(const struct dir *d, uint64_t cookie);
/* The inode at a path as far as the tree is known, complete or not; NULL. */
struct inode *mirror_tree_find(const struct mirror *m, const char *path);
/* The same of a path that begins at this directory. */
struct inode *mirror_tree_find_below(struct inode *at, const char *path);

/* What name was in d at seq, when it is something else by now and the kernel still knows it. */
struct inode *dir_former(const struct inode *d, const char *name, uint64_t seq);
static inline bool dir_has_former(const struct inode *d, const char *name)
{
	return d->dir && d->dir->former.n && map_get_str(&d->dir->former, name);
}

/* Remembers that the kernel was told so. */
void negative_add(struct mirror *m, struct inode *d, const char *name);

/*
 * A name in a directory stands for this now.  The kernel is notified of what
 * it knew; requests that waited in what is gone are moved to ready.
 */
int mirror_tree_apply(struct mirror *m, struct inode *d, const struct dir_entry *e,
		      struct list *ready);
void mirror_tree_remove(struct mirror *m, struct inode *d, struct inode *child, struct list *ready);
void mirror_tree_set_dir_attr(struct mirror *m, struct inode *d, const struct entry_attr *a);
/* The listing is not kept right any more: whatever the kernel knows from it, it must ask again.
 * deep: the same for every directory beneath. */
void mirror_tree_forget(struct mirror *m, struct inode *d, bool deep);
int mirror_tree_serve(struct mirror *m, const char *path);
/* In a partial directory: names of which no look-up is told any more, and all of them again. */
void mirror_tree_absent_add(struct mirror *m, struct inode *d, const char *name);
void mirror_tree_absent_forget(struct mirror *m, struct inode *d);
void mirror_tree_bind_id(struct mirror *m, struct inode *d, uint32_t dir_id);

#endif
