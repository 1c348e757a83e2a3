/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_LOOK_H
#define CONCC_CACHE_LOOK_H

/* look.c finds what the names of a set mean, look_name.c what one does, look_output.c whether an
 * output that is there counts, look_known.c knows of one what it was at the look before,
 * look_state.c what it meant, look_again.c that of whole sets. */
#include "concc/cache.h"

struct cache_look {
	const struct cache_look_ops *ops;
	void *data;
	struct buf state; /* what the names mean, one after the other */
	struct buf ids;	  /* of which file each is, in the same order: struct look_id */
	/* Of the path looked at last: one name is often used in several ways. */
	const char *path;
	struct stat st;
	int err; /* of lstat(2), positive */
	/* Of each name, by index: of several with one path, the first. */
	struct cache_looked *looked;
	size_t n_looked, cap_looked;
	size_t index;		       /* of the name that is looked at, */
	const struct cache_names *set; /* in this one, where its path is that of: */
	size_t first, end;
	bool is_unsure; /* it was told that it can't be read, which may be of the moment */
	char output;	/* how that path is one (TRACE_OUTPUT or the like), or 0 */
	unsigned umask;
	unsigned *facts;	   /* see cache_look_facts() */
	const struct map *without; /* see cache_look_without() */
	char *dir;		   /* that something is made in, as named last; NULL: none */
	struct buf dir_state;	   /* its place, as put into state */
	char *way_dir, *way;	   /* that what is not there was in last, and its way; NULL: none */
	struct map roots;      /* what is served -> the kernel's path of it, owned; of this look */
	char *gone, *gone_way; /* the same of a name that is not there, above others, */
	int gone_err;	       /* which are not there for this reason */
	/* From one look to the next. */
	uint32_t n_looks;
	size_t n_listed;   /* names, in this look; */
	size_t all_listed; /* since cache_look_begin() */
	uint64_t last_epoch;
	struct looked_dir *last_dir; /* of a name of this look, which holds its path; or NULL */
	const void *where;	     /* what the ops have for it, or NULL */
	const char *last_dir_path;
	size_t last_dir_len;
	struct map dirs;   /* as named -> struct looked_dir *, owned */
	struct map absent; /* path -> epoch of its directory, in which there was no such name */
	struct buf real;   /* of the file that is asked about */
	struct map files;  /* path -> struct stat *, owned: what lstat(2) said of a regular file */
	struct map ways;   /* directory as named -> struct look_way *, owned */
	struct map memos;  /* digest of a set -> struct look_memo *, owned */
	size_t n_groups;   /* of all memos */
	struct map places; /* directory as named -> struct look_place *, owned */
	size_t n_states;   /* of all places, and these */
	/* That of the name before, if nothing was done to the tree since. */
	const char *place_path;
	size_t place_len;
	struct cache_place place_now;
	struct look_place *place;
	struct look_group *groups; /* of this look */
	size_t cap_groups;
};

/* Of a name: a file, by its inode; or (by the digest) all files with these bytes and this time. */
struct look_id {
	uint64_t a,
		b; /* dev and ino; or seconds and nanoseconds of the mtime, which are far fewer */
	struct digest digest; /* zero for a file */
	uint32_t index;
	uint32_t by_bytes;
};

/* Names that follow each other and are of one directory, as named. */
struct look_group {
	uint32_t end;	     /* index of the name behind them */
	uint32_t dir_len;    /* bytes, to the last slash */
	uint64_t stamp;	     /* while it is that, they mean what they meant; 0: they may not */
	uint64_t absent;     /* the same, of its route while there is no such directory */
	struct digest state; /* what they mean, and of which files they are */
};

/* What a set meant when it was looked at last. */
struct look_memo {
	struct digest state;
	size_t n;
	struct look_group groups[];
};

/* Where a directory is, or would be, as the kernel says it. */
struct look_way {
	uint64_t route; /* of its place, then */
	bool is_there;
	char *root;	/* the kernel's path of what is served, beneath which it is; owned */
	char *way;	/* owned */
	size_t missing; /* see path_way_missing() */
};

struct looked_dir {
	uint32_t look;	  /* in which it was looked at last */
	int err;	  /* of stat(2) of "." in it, positive */
	uint64_t epoch;	  /* another one each time that names may have come or gone; 0: not known */
	unsigned n_calls; /* looks at it, and at names in it */
	struct stat st;
	char *real; /* its path by realpath(3), while it is st; owned; NULL: not asked for */
};

/* ---- look.c ---- */

/* Of a look at a set: its begin; then of names that follow each other, what each means, into
 * l->state and l->ids; its end, from these. */
void look_begin(struct cache_look *l, const struct cache_names *s);
int look_put_names(struct cache_look *l, const struct cache_names *s, size_t from, size_t to,
		   uint64_t *ret_fingerprints);
void look_end(struct cache_look *l, struct digest *ret);

/* ---- look_name.c ---- */

/* Looks at it, and puts what it means; index: its own in the set.  overwritten: its path is only
 * written to. */
int look_put_name(struct cache_look *l, const char *name, bool overwritten, uint32_t index);
/* What is put for one that is not there, or can't be looked at.  err: positive. */
void look_put_error(struct cache_look *l, int err);

/* ---- look_output.c ---- */

/* Of the output at path, which is l->st: will it be another file then, as if it were not there? */
bool look_is_as_made(const struct cache_look *l, const char *path);

/* ---- look_known.c ---- */

/* lstat(2) into l->st, unless it is known what that would say.  0 or a positive errno. */
int look_lstat(struct cache_look *l, const char *path);
void look_forget_known(struct cache_look *l);

/* ---- look_state.c ---- */

/* Puts for the name at l->index what was put for it before, when it surely means that. */
bool look_put_known(struct cache_look *l, const char *name, uint64_t *ret_fingerprint);
/* From there on is what was just put for it, and on the way noted in *l->facts. */
struct look_mark {
	size_t state, ids;
	unsigned facts;
};
void look_note_state(struct cache_look *l, const char *name, const struct look_mark *from,
		     uint64_t fingerprint);
/* The tree is another one than a moment ago. */
void look_leave_place(struct cache_look *l);
void look_forget_states(struct cache_look *l);

/* ---- look_way.c ---- */

/* As path_way(path, true) of the name that was looked at last: there is none, or it is a symlink
 * that leads nowhere. */
char *look_way_of_absent(struct cache_look *l, const char *path);
/* It is not there, for the reason gone_err, since what is above it was not, in this look. */
bool look_is_beneath_gone(const struct cache_look *l, const char *path);
/* Where the kernel says that this directory is, if that is known; borrowed.  NULL: it must be
 * asked. */
const char *look_place_of_dir(struct cache_look *l, const char *dir);
void look_forget_ways(struct cache_look *l);	   /* of this look */
void look_forget_known_ways(struct cache_look *l); /* all */

/* ---- look_again.c ---- */

void look_forget_memos(struct cache_look *l);

#endif
