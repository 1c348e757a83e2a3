/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_H
#define CONCC_VIEW_H

/* What a person sees of builds that were, by the records of their jobs. */
#include <stdbool.h>

struct view_report {
	const char *build; /* its id, or the start of it; NULL: the newest */
	bool list;	   /* which builds there are */
};

/* JSON on standard output.  The exit status. */
int view_report(const struct view_report *o);

#endif
