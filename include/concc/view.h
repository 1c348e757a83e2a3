/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_H
#define CONCC_VIEW_H

/* What a person sees of builds: of those that were, by the records of their jobs; of those that
 * are, by what project servers tell. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct record;

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

/*
 * On a terminal, a line on standard error that says which workers are waited for, once that has
 * taken a second, and which is gone in the end.  By a process of its own, so that whoever waits may
 * block; it ends with us.  Negative: none is needed, or could be started.
 */
pid_t view_waiting_begin(void);
void view_waiting_end(pid_t pid);

/* What lifts the rule that kept a job here; NULL: nothing, or nothing should.  Static. */
const char *view_remedy(const char *rule);
/* What a rule of the policy covers; NULL: it is none of those.  Static. */
const char *view_rule_text(const char *rule);
/* ---- what workers were good for ---- */

/* Sums over the jobs of a build; microseconds.  The first three are the caller's to set. */
struct view_gain {
	uint64_t wall_us;   /* what the build took */
	unsigned cores;	    /* of this machine */
	unsigned slots;	    /* of all workers; 0: not known */
	size_t n, n_remote; /* jobs */
	uint64_t work_us;   /* CPU of remote ones, duration of those here */
	uint64_t longest_us;
	uint64_t waited_us;	    /* remote ones for a slot */
	uint64_t here_us, there_us; /* how long they ran here; from being sent to all in place */
	uint64_t way_us;	    /* of that, without what the command took */
};

void view_gain_add(struct view_gain *g, const struct record *r);
/* Adds the recorded jobs of this build.  0 or a negative code. */
int view_gain_read(struct view_gain *g, const char *build);
/*
 * How many times as fast as this machine alone, at the least: alone it would have needed all the
 * work on all its cores without a gap, or its longest job.  0: no job was remote.
 */
double view_gain_speed_up(const struct view_gain *g);
/* What kept it from being faster, for a person; static, "" when there is nothing to say. */
const char *view_gain_limit(const struct view_gain *g);

#endif
