/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_H
#define CONCC_VIEW_H

/*
 * What a person sees of builds: of those that were, by the records of their jobs; of those that
 * are, by what project servers tell.  For one thread of a program that may block: files are read,
 * servers asked.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct view_report {
	const char *build; /* its id, or the start of it; NULL: the newest */
	bool list;	   /* which builds there are */
	const char *page;  /* NULL, or the file for a page of HTML; "-": standard output */
	const char *trace; /* the same of a trace */
};

/* JSON on standard output, unless a file is asked for.  The exit status. */
int view_report(const struct view_report *o);

/* What goes on now, on the terminal until `q`, or once on standard output.  The exit status. */
int view_top(bool just_once);

enum view_line {
	VIEW_LINE_WAITING,  /* which workers are waited for */
	VIEW_LINE_PROGRESS, /* how many jobs run and are done, what is being sent to workers */
};

/*
 * On a terminal, a line on standard error that is kept right, from a second after its beginning to
 * its end, when it is gone: where the cursor is, or for progress the terminal's last one, above
 * which others may write meanwhile.  By a process of its own, so that whoever waits may block; it
 * ends with us.  Negative: none is needed, or could be started.
 */
pid_t view_line_begin(enum view_line what);
void view_line_end(pid_t pid);

/* What lifts the rule that kept a job here; NULL: nothing, or nothing should.  Static. */
const char *view_remedy(const char *rule);
/* What a rule of the policy covers; NULL: it is none of those.  Static. */
const char *view_rule_text(const char *rule);

/* What workers were good for in a build. */
struct view_gain {
	double speed_up;   /* at the least, as reports say it; 0: no job was remote, or no record */
	const char *limit; /* what kept it from being faster, for a person; static, "": nothing */
};

/* By the records of the build's jobs.  cores: of this machine. */
void view_gain_read(struct view_gain *ret, const char *build, unsigned cores);

#endif
