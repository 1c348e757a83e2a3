/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_UPPER_H
#define CONCC_WORKER_UPPER_H

/*
 * Reads an overlay's upper directory into a flat list, parents before what is
 * in them.  Knows how overlayfs writes things down, and nothing of what they
 * mean for a client.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

enum upper_kind_of {
	UPPER_WHITEOUT, /* a name of the lower layer that is gone */
	UPPER_DIR,
	UPPER_FILE,
	UPPER_SYMLINK,
	UPPER_FIFO,
	UPPER_SOCKET,
};

struct upper_entry {
	enum upper_kind_of kind;
	char *path;    /* relative to the upper, "" for itself; owned */
	size_t parent; /* index of its directory; itself for the first */
	struct stat st;
	bool opaque;	 /* a directory that hides the lower one of its name */
	bool attributes; /* a directory with such, see upper_has_attributes() */
	bool hidden;	 /* nothing of the lower layer is visible at this path */
};

struct upper {
	int fd; /* borrowed */
	struct upper_entry *entries;
	size_t n, cap, max;
};

/* The most names one job may leave in one workspace: bounds the agent's memory. */
#define UPPER_ENTRIES_MAX (1 << 20)

/* Lists fd anew, which nobody changes any more.  0 or negative. */
int upper_read(struct upper *u, int fd);
/* The same; CONCC_E_TOOBIG when there are more than that. */
int upper_read_few(struct upper *u, int fd, size_t max);
/* The same, but what is in directories that are not to be entered is left out.  The upper itself
 * always is. */
int upper_read_some(struct upper *u, int fd, size_t max,
		    bool (*enters)(const struct upper_entry *dir));
/* As upper_read() for path, clean and relative, and the directories that lead to it alone; any
 * time. -ENOENT, -ENOTDIR or -ELOOP when it is not in there. */
int upper_read_path(struct upper *u, int fd, const char *path);
void upper_release(struct upper *u);
/* Where in there a regular file of this name is, on the heap; NULL: nowhere.  Any time. */
char *upper_find(int fd, const char *name);

/* The job gave it attributes of user.*, an ACL or file capabilities. */
bool upper_has_attributes(int fd);

#endif
