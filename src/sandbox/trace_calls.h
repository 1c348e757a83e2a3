/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_TRACE_CALLS_H
#define CONCC_SANDBOX_TRACE_CALLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

/* Newer than the headers of many systems; on all machines of the same number. */
#ifndef SYS_getxattrat
#define SYS_setxattrat	  463
#define SYS_getxattrat	  464
#define SYS_listxattrat	  465
#define SYS_removexattrat 466
#endif

/* What a call does to the file that it names. */
enum call_kind {
	CALL_LOOK,   /* the name itself */
	CALL_MAKE,   /* the same, and it comes, or becomes another file */
	CALL_REMOVE, /* the same, and it goes; a directory by AT_REMOVEDIR in flags */
	CALL_REMOVE_DIR,
	CALL_CHANGE,	  /* what it leads to, and that is changed: its mode, owner or times */
	CALL_CHANGE_SELF, /* the same of the name itself */
	CALL_FOLLOW,	  /* what it leads to */
	CALL_AT,	  /* one or the other, by AT_SYMLINK_NOFOLLOW in flags */
	CALL_CHANGE_AT,
	CALL_SET_TIMES, /* the same; of a descriptor, when there is no path */
	CALL_READ_LINK,
	CALL_OPEN, /* flags: as of open(2) */
	CALL_OPEN2,
	CALL_CREATE,
	CALL_TRUNCATE,
	CALL_EXECUTE,
	CALL_LIST, /* path: a descriptor */
	CALL_CHDIR,
	CALL_FCHDIR,
	CALL_STATFS,
	CALL_RANDOM, /* flags: of getrandom(2) */
	CALL_TWO,    /* a second name in the two arguments after */
	CALL_SPOIL,
};

#define CALL_NONE (-1)

/* dir, path and flags are arguments; of CALL_NONE for dir the current one is meant. */
struct traced_call {
	int nr;
	uint8_t kind;
	int8_t dir, path, flags;
	const char *why; /* of CALL_SPOIL */
};

/* A row for each call of a traced job that its listener is told of. */
#define TRACED_CALLS_MAX 112
const struct traced_call *traced_calls(size_t *ret_n);

#endif
