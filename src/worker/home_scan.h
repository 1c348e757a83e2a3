/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_HOME_SCAN_H
#define CONCC_WORKER_HOME_SCAN_H

/*
 * One scan of an upper directory, as its parts see it:
 *
 *   home.c        what a scan knows, what is common to all effects, and their order
 *   home_dirs.c   directories
 *   home_files.c  files, symlinks, fifos and sockets; names of one file
 *
 * Those of `int` that report end with what the callback of the scan returned, or -errno.
 */
#include "concc/digest.h"
#include "concc/map.h"
#include "concc/mirror.h"
#include "home.h"
#include "upper.h"

/* What was said of a path before the job ended: what the client has there, if nobody changed it. */
struct announced {
	char *path; /* owned */
	struct stat st;
	bool hashed;
	struct digest digest;
};

struct home {
	struct mirror *mirror;
	char *workspace;
	char *const *workspaces;
	uint32_t job_id;
	bool any_command;
	uint32_t index;
	int fd;
	struct timespec started;
	uint64_t started_ms;
	struct map announced; /* path -> struct announced */
	char *refusal;	      /* see home_refusal() */
};

/* How far a scan is with an entry. */
struct progress {
	bool settled;  /* reported, or known to need no report */
	bool reported; /* an effect said so; otherwise it is as below */
	bool finished; /* a directory's mode and time are the right ones, see finish_dirs() */
};

/* One scan: what is there and how far we are with it. */
struct scan {
	struct home *h;
	bool announcing; /* the job goes on, and this is not all of it */
	home_effect_fn fn;
	void *data;
	struct upper u;
	struct progress *progress; /* by entry */
	struct map copied; /* relative path -> anything: what has several names and was copied up */
	struct map primary; /* inode -> struct upper_entry: which of several links is the file */
	off_t hashed;	    /* bytes */
};

/* ---- home.c ---- */

struct progress *scan_progress_of(const struct scan *s, const struct upper_entry *e);
/* As it is, nothing is to be said of it.  0. */
int scan_settle(const struct scan *s, const struct upper_entry *e);
/* NULL when it was not. */
struct announced *home_announced(const struct home *h, const char *path);
/* Calls back with an effect on this entry. */
int scan_report(struct scan *s, const struct upper_entry *e, const struct msg_file *f, int fd);
/* What the job saw at this path below its overlay: 0, -ENOENT (nothing) or -EAGAIN (not known). */
int scan_below(const struct scan *s, const struct upper_entry *e, struct entry_attr *ret);
/* From a to b.  More than 68 years are not told apart. */
int64_t scan_ns_between(const struct timespec *a, const struct timespec *b);
/* By the job, rather than by writing at that time. */
bool scan_time_was_set(const struct home *h, const struct timespec *mtime);
bool scan_atime_was_set(const struct scan *s, const struct upper_entry *e);
/* The effect that makes the entry what it is; its strings are the entry's. */
void scan_fill(const struct scan *s, const struct upper_entry *e, uint8_t kind, struct msg_file *f);
int scan_remove(struct scan *s, char *path);
/* Something that no file can replace in place goes first: a directory. */
int scan_make_room(struct scan *s, const struct upper_entry *e);
/* The entry has no way home, since it `what`: CONCC_E_UNSAFE, and home_refusal() says so. */
int scan_refuse(struct scan *s, const struct upper_entry *e, const char *what);
#define SCAN_SEVERAL_NAMES  "is a file with several names, which jobs see as several files"
#define SCAN_HAS_ATTRIBUTES "has extended attributes, an ACL or capabilities of the job's"

/* ---- home_dirs.c ---- */

int scan_dirs(struct scan *s);
/* Those above an entry that are not settled. */
int scan_parents(struct scan *s, const struct upper_entry *e);
/* Modes and times, when all is in them. */
int scan_finish_dirs(struct scan *s);

/* ---- home_files.c ---- */

/* Before any other of these: which of several names is the file, and which are links to it. */
int scan_choose_primaries(struct scan *s);
bool scan_is_link(const struct scan *s, const struct upper_entry *e);
int scan_link(struct scan *s, struct upper_entry *e);
int scan_file(struct scan *s, struct upper_entry *e);
int scan_symlink(struct scan *s, struct upper_entry *e);
/* A fifo, or the socket of a process that has ended. */
int scan_special(struct scan *s, struct upper_entry *e);

#endif
