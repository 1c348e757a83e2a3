/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_WORDS_H
#define CONCC_WRAPPER_WORDS_H

/*
 * What the wrapper says to a person.  Its standard error is the command's, and others
 * listen there: ccache and cargo store what they hear and say it again for ever, and
 * a configure script takes any word for a compiler's complaint.  So a line goes to the
 * first of these that there is:
 *
 *   UNCACHED_ERR_FD, which ccache gives to what it starts, for such lines;
 *   $CONCC_RUN_TALLY.said, within `concc run`, where our stderr is not that of the build or
 *     cargo starts us: it says them at its end;
 *   RUNTIME-DIR/said, in what cargo starts, for `concc status`; but not what was asked for;
 *   stderr.
 */
#include <stdbool.h>

enum words_kind {
	WORDS_ERROR,   /* the command fails for it: always on stderr */
	WORDS_TROUBLE, /* something of ours failed, and the build goes on */
	WORDS_ASKED,   /* an explanation, by CONCC_EXPLAIN */
	WORDS_OF_TRY,  /* the same, of a call that is a question to the compiler: never on stderr */
};

struct words {
	const char *dir;  /* runtime directory; NULL: there is none */
	bool explain;	  /* each call says where it ran */
	const char *file; /* whereto, or NULL: as above */
	char *const *argv;
};

/* What CONCC_EXPLAIN asks for. */
void words_init(struct words *w, char *const *argv);
/* The descriptor that UNCACHED_ERR_FD names, when it can be written to; else -1. */
int words_uncached_fd(void);
/*
 * One line, without "concc: " and its end.  False when nobody was told: it was not asked for, or is
 * in the file that CONCC_EXPLAIN names.
 */
bool words_say(const struct words *w, enum words_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
