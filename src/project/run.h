/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_RUN_H
#define CONCC_PROJECT_RUN_H

/* A job on its way, as run.c (from RUN to RUN_EXIT) and straggler.c (twice) see it. */
#include "jobs.h"

struct run {
	struct client *client; /* NULL when the wrapper has gone */
	struct peer *peer;
	struct commit *commit;
	uint32_t job_id;
	uint32_t exe_id;
	uint32_t caller_id;
	bool dumps_core; /* its caller's limit lets processes leave core files */
	char *cwd;
	char *command; /* for status: the first words */
	char *name;    /* of the program, as it was called, without a directory */
	char *exe;     /* where it is */
	char **search; /* PATH */
	char **workspaces;
	uint64_t started_ms;
	uint64_t saw;		     /* the tree's version at dispatch */
	bool shown;		     /* some of its output went to the wrapper */
	uint64_t untaken;	     /* bytes of it that the wrapper has not written yet */
	bool comes_home;	     /* bytes of its files came since the clock was set */
	bool ended;		     /* well, as `end` says; its files wait for that */
	struct msg_exit end;	     /* but for its strings */
	struct recording *recording; /* of what may be kept, or NULL */
	uint64_t bytes_back;	     /* came of it */
	uint32_t uncredited;	     /* received from the worker, not yet asked for more */
	uint32_t input_credit;	     /* the worker takes this much more */
	struct buf held;	     /* RUN_OUTPUT payloads with a u32 length each */
	char *missing; /* why its failure would be ours, or NULL: output waits for the exit */
	char *failure; /* why its effects can't be used, or NULL; then the job is being killed */
	const char *failure_rule;
	struct loop_source *kill_timer; /* then it should have ended, of itself or being killed */

	/* straggler.c */
	uint64_t job_key, kind_key; /* of what it usually takes: sched_key_of_job() */
	struct msg_run *again;	    /* what it takes to run it a second time, or NULL: not to be */
	uint64_t late_ms;	    /* of the clock: from then on it is a straggler */
	struct run *twin;	    /* the same job on another worker, or NULL */
	struct pool_slot slot;	    /* a second one's own: the wrapper holds the first's */
};

/* Do the peer's jobs see this very program, rather than one that must be the same? */
bool run_serves_exe(const struct peer *p, const char *exe);
/* What must be in this order before a job: what the peer does not know yet, then the job. */
int run_dispatch(struct client *c, struct peer *p, const struct msg_run *m, struct exe *e,
		 char **workspaces, struct run **ret);
/* It is of no use any more: it is killed, and runs at home when its end is known. */
void run_give_up(struct run *r, const char *rule, const char *text);

/* Its wrapper runs it on this machine now, and it is killed there. */
void run_send_home(struct run *r, const char *rule, const char *text);

/* ---- straggler.c: jobs that run far longer than others of their program ---- */

/* It was sent, by this message, which is taken when it may be needed a second time. */
void straggler_watch(struct run *r, struct msg_run *m);
/* The job is about to show something: from now on there is but one of it. */
void straggler_won(struct run *r);
/* Its result is in place, its end about to be told: how long it took is remembered. */
void straggler_done(struct run *r);
/* It failed; true when its twin goes on instead, so that its wrapper need not know. */
bool straggler_goes_on(struct run *r);
void straggler_ended(struct run *r); /* it is freed; a slot may be free now */

#endif
