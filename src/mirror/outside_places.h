/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_OUTSIDE_PLACES_H
#define CONCC_MIRROR_OUTSIDE_PLACES_H

/*
 * The names of that file system, for the files outside*.c only: the kernel's side (outside_ops.c)
 * and the owner's (outside_places.c) are about the same places, under one lock that nobody else
 * knows.  Only the owner's thread changes them, so that it may look without the lock.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "concc/map.h"

struct fuse_lowlevel_ops;
struct fuse_session;
struct mirror;

/* A directory.  They stay as long as the file system: the kernel's references need no count. */
struct place {
	struct place *parent; /* NULL: the root */
	struct map children;  /* name -> struct place */
	struct map absent;    /* names that are no news */
	char *target;	      /* it is a symbolic link; else NULL */
	bool kept;	      /* something may be mounted there, or beneath */
	bool bare;	      /* it looks like the client's: what follows */
	mode_t mode;
	struct timespec mtim;
	uint64_t ino;
	struct place *old; /* the list of those that were replaced: the kernel may know them */
	char name[];
};

struct outside {
	struct mirror *mirror;
	char *mountpoint;
	struct fuse_session *session;
	int fd, stop_fd;
	int mounted_fd; /* its root, O_PATH, or -1: not mounted */
	pthread_t thread;
	bool runs;

	pthread_mutex_t lock; /* of the places */
	struct place *root, *old;
	struct place *stand_in, *terminal; /* the only files: stand_in.h */
	struct place *tmp;		   /* MIRROR_TMP */
	size_t n_places, n_absent, n_links, n_bare;
};

/* Not yet found by its name. */
struct place *outside_place_new(struct outside *o, struct place *parent, const char *name,
				size_t len);
void outside_places_free(struct outside *o);
/* As the client calls it: name in the directory p, or that itself when name is empty.  The caller
 * frees it. */
char *outside_path(const struct place *p, const char *name);

/* What the kernel asks for; outside_start() adds those of stand_in.h. */
extern const struct fuse_lowlevel_ops outside_ops;

#endif
