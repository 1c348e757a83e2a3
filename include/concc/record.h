/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_RECORD_H
#define CONCC_RECORD_H

/*
 * What is kept about each job: what it was, when it came and what it waited for, where it ran and
 * why, what it took.  Records are appended to a file of this user's, which outlives who wrote it.
 * One thread at a time for each record and file.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"
#include "concc/err.h"

/* A record on the disk is no larger; longer strings are cut. */
#define RECORD_MAX 4096

enum record_end { RECORD_END_UNKNOWN, RECORD_END_EXIT, RECORD_END_SIGNAL };

struct record {
	uint64_t arrived_us; /* CLOCK_REALTIME */
	/* Since then, in microseconds; 0: it did not come to it. */
	uint64_t slot_us;	  /* it had a slot */
	uint64_t sent_us;	  /* it was sent to its worker, or began here */
	uint64_t first_output_us; /* its first output came */
	uint64_t ended_us;	  /* its command had ended; here: its process */
	uint64_t committed_us;	  /* all that it made was in its place */
	uint32_t pid;		  /* of the wrapper, or of the command that it became */
	uint32_t tries;		  /* workers that had it, whether or not they were of use */
	uint8_t how;		  /* enum record_end */
	uint32_t code;
	/* On the worker; 0 here. */
	uint64_t utime_us, stime_us, wall_us, maxrss_kb;
	uint64_t bytes_back; /* what it said and made, as it came */
	/* What its worker asked for while it ran, for whatever job. */
	uint64_t files_fetched, bytes_fetched, fuse_messages;
	/* When it began: slots of its worker, and of all that could be used then; 0: not known. */
	uint64_t worker_slots, all_slots;
	/* Owned, never NULL; "" where there is none. */
	char *worker; /* "": this machine */
	char *rule;   /* why here, in short; what one with a worker was tried again for */
	char *why;    /* the same for a person */
	char *build;  /* of `concc run` */
	char *program;
	char *command; /* its first words, printable */
	char *subject; /* what it makes, or is about */
	char *cwd;
};

/* All empty; the strings are its own. */
void record_init(struct record *r);
void record_release(struct record *r);
void record_set(char **field, const char *text);
/* program, command and subject of the words that were called; command may be cut, the others are
 * what sched_key_of_job() gets. */
void record_set_words(struct record *r, char *const *argv);

void record_encode(struct buf *b, const struct record *r);
/* CONCC_E_PROTO when it is none; ret is released then. */
int record_decode(struct blob payload, struct record *ret);

/* ---- the file ---- */

/*
 * Records are written to the end (O_APPEND), whole ones by one write(2), so that any number of
 * processes share the file, and one that is killed spoils none but its last.  When it has
 * RECORD_FILE_MAX bytes it becomes FILE.old, in place of the one before: there are never more than
 * two.  All but record_put() may block as long as the disk does.
 */
#define RECORD_FILE_MAX (16 * 1024 * 1024)

struct record_file;

/* The file of this machine in that directory, on the heap: a home may be shared by several, and
 * appends of several machines have no order. */
char *record_path(const char *cache);
/* Where the project server of this environment keeps it.  0, or -errno and msg. */
int record_find(char **ret_path, struct errmsg *msg);
/* Made when it is not there.  Names no file of another user's, nor by a symlink.  0 or -errno. */
int record_file_open(const char *path, struct record_file **ret);
void record_file_close(struct record_file *f); /* NULL is fine */
/* Appends the record to b as it is in the file. */
void record_put(struct buf *b, const struct record *r);
/* So many of them.  One system call, now and then a few more.  0 or -errno: some are lost. */
int record_append(struct record_file *f, const struct buf *b, unsigned n_records);

/*
 * All records of FILE.old and FILE, in the order in which they were written, to fn, which may take
 * what is in them; false ends it.  What is no record is passed over.  0 or -errno; a file that is
 * not there has none.
 */
int record_read(const char *path, bool (*fn)(void *data, struct record *r), void *data);
/* Those in the last so many bytes of FILE. */
int record_read_last(const char *path, size_t bytes, bool (*fn)(void *data, struct record *r),
		     void *data);

#endif
