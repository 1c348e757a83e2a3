/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_EXE_LOOK_H
#define CONCC_PROJECT_EXE_LOOK_H

/*
 * What a program is made of, as exe.c has a thread look: which files, and then what is in them.
 * Reads the disk, and asks a compiler for its parts; so it may take seconds.  Of the server's it
 * touches nothing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "concc/digest.h"

enum exe_file_kind {
	EXE_FILE_PROGRAM, /* itself, and the first */
	EXE_FILE_PART,	  /* need not be there, on neither side */
	EXE_FILE_PLACE,	  /* a directory in which parts may appear: nothing is in it */
};

struct exe_file_look {
	char *path;
	enum exe_file_kind kind;
	int err; /* it can't be looked at, or read */
	struct stat st;
	bool served;	 /* jobs see this very file: it is not read */
	bool has_digest; /* that was known for st */
	bool young;	 /* it may change again and look the same */
	bool stamps;	 /* struct fs_traits */
	struct digest digest;
};

struct exe_look {
	/* The call; all owned. */
	char *exe, *cwd;
	char *path; /* its PATH */
	char **argv;
	bool compiler, may_link;
	/* What was found. */
	struct exe_file_look *files;
	size_t n_files;
	int err; /* of all; else 0 */
	uint64_t deadline_ms;
};

/* By any thread; one at a time, in this order. */
void exe_look_find(struct exe_look *l); /* files, with st or err */
void exe_look_read(struct exe_look *l); /* those that are not served, of which no digest is known */
void exe_look_release(struct exe_look *l);

#endif
