/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TREE_COMMIT_H
#define CONCC_TREE_COMMIT_H

/*
 * The inside of struct commit (concc/tree.h): what a job's changes are until they are in place.
 *
 *   commit.c        takes the worker's messages; bytes go into temporaries
 *   commit_write.c  those into the temporaries, by whichever thread
 *   commit_check.c  may it be changed, and did somebody else change it meanwhile
 *   commit_heard.c  or since it was checked
 *   commit_foresee.c  what would come of a batch now, before its job's output is shown
 *   commit_times.c  the order of the job's file times, by this machine's clock, and of the
 *                   directories that they are in
 *   commit_apply.c  puts all of it in place
 *   identity.c      whose a file is and what is attached to it
 *   vcs.c           which files version controls run commands from
 *
 * A batch is checked as a whole before the first of it is applied.
 *
 * Both go in pieces, and between two of them others use the tree, events come in and files change.
 * So what a piece leaves in the tree is whole: what it put in place is noted, and the events of
 * that are taken; and nothing it has of the tree or of an open directory lives until the next.
 * Of what was checked the tree tells every change that it hears of, as it hears of it, so in the
 * piece that applies the first effect there is nothing to be compared once more, however much it
 * is.  CONCC_E_LATER says within these files that a piece is over.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "concc/map.h"
#include "snapshot.h"

#define EFFECT_F_SPECIAL (EFFECT_F_FIFO | EFFECT_F_SOCKET)
#define EFFECT_F_TIMES	 (EFFECT_F_MTIME | EFFECT_F_ATIME)

/* inotify events of one effect: creation, writing, attributes, rename, and what was there before;
 * some more at most. */
#define EVENTS_OF_EFFECT 8

struct effect {
	uint8_t kind;  /* enum effect_kind */
	uint8_t flags; /* enum effect_flags */
	uint16_t mode;
	uint32_t mtime_ns, atime_ns;
	int64_t mtime_s, atime_s;
	uint64_t size;
	struct digest digest;
	const char *workspace; /* of commit.workspaces */
	char *path;	       /* absolute */
	char *target;	       /* SYMLINK: its text; LINK: absolute path; else NULL */
	char *temp;    /* FILE: absolute path of the bytes, NULL when there is none (any more) */
	int temp_fd;   /* its directory, borrowed from temp_dirs; -1: find it by its path */
	bool in_place; /* was written over what was there */
	bool cleared;  /* what was there was removed for it */
	bool stamped;  /* has its time from commit_stamp(): its temporary has not */
	bool known;    /* DIR: the job found it there, so its mode is what the job made it */
	uint64_t over; /* bytes that were written over what was there, see in_place */
	int64_t here;  /* ns, its time by this machine's clock; 0: it has no order */
};

/*
 * A directory that a batch changes, whose time is to be as if the job had changed it: our
 * temporaries and renames come after all that the job did, and make compares with it.
 */
struct dir_time {
	int64_t was;   /* ns, before this batch */
	int64_t last;  /* ns, after what we did last in it: other than that, others did too */
	int64_t names; /* ns, when the job last made or replaced a name, as far as is known */
	bool leave;    /* it can't be told, or others changed it: it stays as it is */
};

/* Directories with temporaries stay open, so that these are found when a directory is moved. */
#define TEMP_DIRS_MAX 32
struct temp_dir {
	int fd;
	dev_t dev;
	ino_t ino;
};

/* What this job left under a path. */
struct own {
	uint64_t version;
	uint64_t cleared; /* what was lost beneath it up to that version, this job removed; or 0 */
	bool there;
	struct stat st;
};

/* A file time of the job: by the worker's clock, and what it became here, in ns. */
struct stamp {
	int64_t there, here;
};
/* One for each batch.  Beyond, the oldest is forgotten: times from before may fall together. */
#define STAMPS_MAX 32

/* An open temporary, and what it becomes. */
struct temp_file {
	int fd;
	uint64_t size;
	uint16_t mode;
	bool set_times;
	struct timespec times[2];
	bool holes; /* some of it was not written, being zeros */
	/* It has its blocks before its bytes: ext4 gives a file blocks when they are written back,
	 * and does that at once when it is renamed over another one (auto_da_alloc in ext4(5)). */
	bool allocate;
};

/* A directory that is gone through, of those open above each other. */
struct walk_dir {
	DIR *dir;
	char *path;
};

enum commit_phase {
	COMMIT_TAKES, /* messages come */
	COMMIT_CHECKS,
	COMMIT_APPLIES,
	COMMIT_CLEANS, /* removes temporaries that came to nothing */
	COMMIT_DATES,  /* gives directories their times */
};

struct commit {
	struct tree *tree;
	char **workspaces;
	uint64_t started;
	bool any_command; /* see commit_of_any_command() */
	bool locks;	  /* one of its effects is EFFECT_LOCKED */
	struct effect *effects;
	size_t n, cap;
	size_t n_applied;
	size_t name_bytes; /* of the whole job */
	bool full;	   /* more than is taken: what comes is dropped */
	/* The EFFECT_FILE whose bytes are coming: the last effect. */
	bool receiving;
	uint64_t received;
	struct temp_file file; /* of that; fd: -1 after an error */
	struct list writing;   /* struct commit_writing.of_commit */
	int err;	       /* why the batch can't be taken */
	struct errmsg msg;     /* what it ends with, kept from one piece to the next */
	struct map own;	       /* struct own by path */
	bool clears;	       /* one of them says what it cleared */
	struct map
		removed; /* paths that this batch removes or replaces: no place for temporaries */
	/* The parent of the target before: most targets share it.  Of the batch that is put in
	 * place, while it is checked, too. */
	int dir_fd;
	char *dir_path;
	struct temp_dir temp_dirs[TEMP_DIRS_MAX];
	size_t n_temp_dirs;
	struct commit_totals totals;
	/* Of the batch that is checked: what removes a file of which a job can't tell all (see
	 * commit_check.c); does it make any, or write to one? */
	const struct effect *others;
	bool made;
	int64_t dispatched;   /* ns; no file of the job is older */
	struct map dir_times; /* struct dir_time by path, of this batch */
	size_t it_times;      /* of them, of those that are restored */
	/* Of the batch that is put in place: */
	enum commit_phase phase;
	size_t at;	   /* the next effect of this phase */
	size_t n_fresh;	   /* up to that one the targets were looked at for this piece */
	size_t n_absorbed; /* up to that one the events of our own changes were taken */
	uint64_t until_ms; /* of now_ms(): this piece ends then */
	uint64_t checked;  /* the tree's version when the check began */
	unsigned n_pieces;
	struct list in_checking; /* of tree.checking; empty: it hears nothing */
	struct map marks;	 /* path -> enum mark: what was checked, up to n_marked */
	size_t n_marked;
	struct map met; /* paths of directories that it makes, and that others did something to */
	char *changed;	/* the first of what was checked that is not so any more; or NULL */
	struct walk_dir *walk; /* what is being checked beneath a directory that goes */
	size_t n_walk, cap_walk;
	int result;
	bool refused; /* by the check: nothing was put in place */
	bool dropped; /* only its temporaries are left */
	struct stamp stamps[STAMPS_MAX];
	size_t n_stamps;
};

/* Is this piece over?  Asked when something of it was done, so that each comes further. */
bool commit_is_over(const struct commit *c);
void commit_remove_temp(struct commit *c, struct effect *e);
/* On many a disk a file of so much is gone in a millisecond, and written back in some. */
#define COMMIT_LARGE ((uint64_t)4 * 1024 * 1024)
/* Before a regular file of that size loses this name, and after: a large one goes later. */
int commit_hold_large(int dir_fd, const char *name, uint64_t size);
void commit_let_go(struct commit *c, int held);
/* The first error decides; its bytes are dropped as they come. */
void commit_fail(struct commit *c, int err, const char *what, const char *path);

/* ---- commit_write.c ---- */

/* More of it, of which the first byte is that at `at`.  0 or -errno; any thread, as below. */
int temp_write(struct temp_file *t, const void *p, size_t n, uint64_t at);
/* All bytes are there; closes it. */
int temp_finish(struct temp_file *t);
/* The commit is no more, or has no use for them. */
void commit_forget_writing(struct commit *c);

/* All effects, from c->at on, of those that would change anything; as commit_check_effect(). */
int commit_check_effects(struct commit *c);

/* ---- commit_check.c ---- */

/* commit_fail() when the effect is none that a job may have. */
void commit_check_place(struct commit *c, const struct effect *e);
/* 0, or a negative code and msg: others changed it meanwhile, or that can't be told.  Or
 * CONCC_E_LATER: the next call goes on with it. */
int commit_check_effect(struct commit *c, struct effect *e, struct errmsg *msg);
void commit_end_walk(struct commit *c);
int commit_conflict(const char *path, struct errmsg *msg);
/* NULL: no such name.  ret_dir: the listed directory that holds it, or NULL. */
struct ent *commit_find_ent(const struct commit *c, const char *path, const struct dir **ret_dir);

/* ---- commit_heard.c ---- */

/* Before the tree is to hear anything: what was checked up to here (and is being checked, when that
 * is a directory that goes) is not to change from now on. */
void commit_listen(struct commit *c);
/* 0, or a negative code and msg: it has.  Cheap. */
int commit_check_heard(struct commit *c, struct errmsg *msg);
void commit_end_listening(struct commit *c);

/* ---- commit_times.c ---- */

int64_t clock_coarse_ns(void);
/* was: of the file that it writes to, or NULL. */
void effect_times(const struct effect *e, const struct stat *was, struct timespec ret[2]);
/* make and ninja compare the times of a job's outputs: their order and equality come home.
 */
void commit_stamp(struct commit *c);
#define NAME_UNKNOWN 0
#define NAME_NONE    (-1)
/* Around each change that we make to names in the directory dir_fd, which holds path.  After it
 * with the time (ns, by our clock) at which the job made a name there: NAME_UNKNOWN or NAME_NONE
 * when it can't be told, or none came or went. */
void dir_time_before(struct commit *c, int dir_fd, const char *path);
void dir_time_after(struct commit *c, int dir_fd, const char *path, int64_t name);
/* This batch made the directory dir. */
void dir_time_made(struct commit *c, const char *dir);
/* When the job made it, or NAME_UNKNOWN. */
int64_t dir_time_of_name(const struct commit *c, const struct effect *e);
/* When nothing will change in them any more.  0 or CONCC_E_LATER. */
int dir_times_restore(struct commit *c);
void dir_times_forget(struct commit *c);

/* ---- commit_apply.c ---- */

/*
 * Does any process have the file open, or run it?  It would go on with the one that was there:
 * reads nothing of what the job wrote (tail -f, a NamedTemporaryFile that its child fills), or
 * writes where nobody looks any more (a log).  Only then there is no lease to be had for writing.
 * Who opens it while we have that waits till it is given back, and the signal for that has no
 * effect.
 */
bool commit_is_open(int dir_fd, const char *name);

/* The directory that holds path, borrowed until the next call. */
int commit_parent_fd(struct commit *c, const char *path, const char **ret_name);
/* Until the first error; what was applied before stays.  CONCC_E_LATER: call it again. */
int commit_apply_effects(struct commit *c, unsigned peer, struct errmsg *msg);
/* The times that the job gave to directories: as above. */
int commit_apply_dir_times(struct commit *c);
/* At the end of each piece: the events of what it did. */
void commit_absorb_events(struct commit *c);
void commit_forget_dir(struct commit *c);

/* ---- identity.c ---- */

/* chmod(2) of what was opened (O_PATH) or is at name, with no way to slip a symlink in. */
int chmod_fd(int path_fd, mode_t mode);
int chmod_at(int dir_fd, const char *name, mode_t mode);
/*
 * The job wrote into the file that is there (fd, name; was), so whose it is and what is
 * attached to it stays.  0 when the temporary is like it, or a negative code: then the file
 * itself has to be written.
 */
int identity_keep(const struct effect *e, const struct stat *was, int fd, const char *name,
		  int temp_fd, const char *temp);
/* Is anything attached to what is there that a job does not see, and what replaces files may keep?
 */
bool identity_has_attributes(int fd, const char *name);

/* ---- vcs.c ---- */

/* Does a version control take commands from a file of that path, or from what a directory
 * at it holds?  By its names alone: see also vcs_is_control_file(). */
bool vcs_runs(const char *path, bool is_dir);
/* n bytes of name, the last part of a path: one that is obeyed below a repository's
 * directory. */
bool vcs_is_control_file(const char *name, size_t n);

#endif
