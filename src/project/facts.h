/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_FACTS_H
#define CONCC_PROJECT_FACTS_H

/*
 * What is in the files that jobs look at: digests, and what else of their bytes counts.  Few that
 * are not known are read at once.  Of more, all that is not known of a set of names is read by a
 * thread, and the look is made anew when that is done: so whatever is found true is so at the
 * moment of one look, however long the reading took.  The loop's thread.
 */
#include "results.h"

/* Of bytes that were read by a job. */
enum fact {
	FACT_ELF = 1 << 0,
	FACT_SCRIPT = 1 << 1,
	FACT_TIME = 1 << 2,	   /* __DATE__ or __TIME__ is in it */
	FACT_TIMESTAMP = 1 << 3,   /* __TIMESTAMP__ */
	FACT_PRECOMPILED = 1 << 4, /* a header of GCC's or clang's, whose users may go by times */
	FACT_UNREADABLE = 1 << 5,  /* it is not known what is in it */
};

/* What a look may have read at once. */
enum facts_at_once {
	FACTS_FEW,   /* no more than takes some milliseconds */
	FACTS_YOUNG, /* and, large as they may be, files that have just changed: what a thread reads
		      * of such a one may be another's by the next look, which comes after it */
};
void facts_begin(struct results *r, enum facts_at_once what);
/* What a file holds, that has just been seen as st: its digest, and enum fact bits.  0, -errno, or
 * CONCC_E_LATER: that would be too much for this look.  -EACCES also when nobody is to be told. */
int results_facts(struct results *r, const char *path, const struct stat *st, struct digest *ret,
		  unsigned *ret_facts);
/* struct cache_look_ops.digest, data: struct results *.  For a look-up the digest is enough; who
 * records wants to know what is in the files, too. */
int facts_digest(void *data, const char *path, const struct stat *st, struct digest *ret);

/* struct cache_look_ops.may_list, data the same. */
bool facts_may_list(void *data, const char *dir, const struct stat *st);

struct reading;
/*
 * After CONCC_E_LATER: has that read which was not, and all that names lead to and is not known
 * yet, and calls go_on(arg) then, or after some seconds; it is no more by then.  with_facts: of
 * all; else of programs only.
 * NULL: a disk hangs, so nothing can be found out.
 */
struct reading *facts_wait(struct results *r, const struct cache_names *names, bool with_facts,
			   void (*go_on)(void *arg), void *arg);
void reading_free(struct reading *g); /* nobody waits for it any more; NULL is fine */
void facts_stop(struct results *r);   /* nor for what hangs, or takes long: the end is near */
void facts_release(struct results *r);

#endif
