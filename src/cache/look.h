/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_LOOK_H
#define CONCC_CACHE_LOOK_H

/* look.c says what names mean, look_known.c knows it from the look before. */
#include "concc/cache.h"

struct cache_look {
	const struct cache_look_ops *ops;
	void *data;
	struct buf said;     /* what the names mean, one after the other */
	struct buf same;     /* which of them are the same file, or like it */
	struct map by_inode; /* dev and ino -> index of the first name + 1 */
	/* Of the path looked at last: one name is often used in several ways. */
	const char *path;
	struct stat st;
	int err; /* of lstat(2), positive */
	/* Of each name, by index: of several with one path, the first. */
	struct cache_looked *looked;
	size_t n_looked, cap_looked;
	size_t index;		   /* of the name that is looked at */
	bool has_neighbour;	   /* another name beside it is of the same directory */
	const struct map *without; /* see cache_look_without() */
	struct map by_twin;	   /* digest and mtime -> the same */
	char *dir;		   /* that something is made in, as named last; NULL: none */
	struct buf dir_said;
	/* From one look to the next. */
	uint32_t n_looks;
	uint64_t last_epoch;
	struct looked_dir *last_dir; /* of a name of this look, which holds its path; or NULL */
	const char *last_dir_path;
	size_t last_dir_len;
	struct map dirs;   /* as named -> struct looked_dir *, owned */
	struct map absent; /* path -> epoch of its directory, in which there was no such name */
	struct buf real;   /* of the file that is asked about */
	struct map files;  /* path -> struct stat *, owned: what lstat(2) said of a regular file */
};

struct looked_dir {
	uint32_t look;	/* in which it was looked at last */
	int err;	/* of stat(2), positive */
	uint64_t epoch; /* another one each time that names may have come or gone; 0: not known */
	unsigned n_lstats; /* of files in it */
	struct stat st;
	char *real; /* its path by realpath(3), when it was st first; owned; or NULL */
};
/* lstat(2) into l->st, unless it is known what that would say.  0 or a positive errno. */
int look_lstat(struct cache_look *l, const char *path);
void look_forget_known(struct cache_look *l);

#endif
