/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_LAYOUT_H
#define CONCC_VIEW_LAYOUT_H

/* What `concc top` shows, as lines: pure but for the clock, the same for a terminal and a pipe. */
#include <stddef.h>

#include "feed.h"
#include "usual.h"

enum line_style {
	LINE_PLAIN,
	LINE_TITLE, /* of the whole */
	LINE_HEAD,  /* of what follows */
	LINE_FAINT,
	LINE_BAD,  /* a worker that is down, a job that failed */
	LINE_SLOW, /* it takes far longer than usual */
};

struct line {
	char *text; /* nothing in it controls a terminal */
	enum line_style style;
};

struct layout {
	struct line *v;
	size_t n;
};

/* At most height lines; 0: all of them. */
void layout_make(struct layout *out, const struct feed *f, const struct usual *u, unsigned height);
void layout_release(struct layout *l);

#endif
