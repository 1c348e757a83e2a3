/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_MENTIONS_H
#define CONCC_PROJECT_MENTIONS_H

/*
 * Which other files a file names: the #include lines of C and its kin, whatever becomes of them in
 * the preprocessor.  For guesses only: what is missed, or is in a comment, does no harm.
 */
#include <stdbool.h>
#include <stddef.h>

struct mentions {
	char **names; /* clean and relative, in their order; NULL: none.  Owned */
	size_t n_names;
	bool *quoted; /* for each: "name", so it may be beside the file.  Owned */
};

void mentions_find(const char *text, size_t n, struct mentions *ret);
void mentions_release(struct mentions *m);

#endif
