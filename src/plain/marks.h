/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PLAIN_MARKS_H
#define CONCC_PLAIN_MARKS_H

/*
 * What comes between two marks in a stream.  A mark is a NUL, "concc-", a token
 * that nobody can guess, a blank, some text and a newline.  What comes before
 * the first (a login shell's greeting) and after the second is dropped.
 */
#include <stdbool.h>
#include <stddef.h>

#include "concc/buf.h"

#define MARKS_NOISE_MAX (64 * 1024) /* before the first mark */
#define MARKS_TEXT_MAX	4096

struct marks {
	char word[64];
	size_t word_len;
	bool begun, ended;
	size_t noise;
	char *texts[2]; /* of the two marks; NULL before */
	struct buf held;
};

void marks_init(struct marks *m, const char *token);
void marks_release(struct marks *m);
/*
 * Takes bytes, and appends to out those that are between the marks.  What could
 * be the start of a mark is held back.  0, or CONCC_E_PROTO.
 */
int marks_feed(struct marks *m, const void *p, size_t n, struct buf *out);

#endif
