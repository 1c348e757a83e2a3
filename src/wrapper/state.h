/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_STATE_H
#define CONCC_WRAPPER_STATE_H

/*
 * One command on its way, as these see it:
 *
 *   wrapper.c  decides whether it may go
 *   command.c  which program it is
 *   remote.c   takes a slot, and has it done by the server
 *   local.c    runs it here, and says why
 *
 * Those of `int` end with the command's exit status, or don't return.
 */
#include "concc/caller.h"
#include "concc/pool.h"
#include "concc/wrapper.h"
#include "input.h"
#include "output.h"
#include "session.h"
#include "words.h"

struct buf;

/* How often one kind of trouble is told when every job of a build has it. */
#define SAY_PERIOD_S 30

struct wrapper {
	const struct wrapper_options *o;
	char **argv; /* the command */
	char *cwd;
	char *path;	  /* what execve(2) gets; NULL when PATH has none */
	char *exe;	  /* the same file, by an absolute path */
	bool is_script;	  /* exe is one */
	bool ourselves;	  /* there is nothing else of that name */
	bool reads_stdin; /* so the policy says */
	bool marked;	  /* as started by us, in the environment */
	int lacking;	  /* errno, where there is no cwd or path */
	char *workspace;  /* of a cwd in /tmp or the like; else NULL */
	char *dir;	  /* runtime directory; NULL when there is none we may use */
	int dir_fd;
	char *counters;
	struct words words;
	struct input input;
	struct buf known; /* all of the input, when is_known */
	bool is_known;
	struct output output;
	char *avoid;	   /* the worker that failed last, */
	char *failure;	   /* in these words, */
	bool no_compiler;  /* since it has another compiler */
	struct pool *pool; /* NULL until it is needed */
	struct pool_slot slot;
	struct conn waiting; /* told the server that we wait for a slot; else closed */
	struct caller caller;
	uint64_t arrived_us, slot_us; /* as in a record */
	uint64_t job_key, kind_key;   /* of what it takes, see sched_key_of_job() */
	uint32_t tries;		      /* workers that had it */
	const char *foreign;	      /* how the server differs from us; static */
};

uint64_t wrapper_now_us(void); /* CLOCK_REALTIME */
/* Counts for `concc status`, and for the build that `concc run` watches. */
void wrapper_count(const struct wrapper *w, const char *kind, const char *name);

/* ---- command.c ---- */

/* `concc-cc concc-cc gcc` is `concc-cc gcc`. */
char **command_without_ourselves(char **argv, const char *cwd);
/* Sets path, exe and what else is of it. */
void command_find(struct wrapper *w);
/*
 * Takes the directories out of PATH in which the command, or what it starts in turn, would be us
 * again.  gcc looks itself up in PATH to find its own parts, and rustc looks for cc to link with:
 * they must not find our symlinks, which a worker does not have.
 */
void command_leave_masquerade(const char *command);
/* ccache or the like, by its own name or by a compiler's that is a link to it; else NULL. */
char *command_cache(const struct wrapper *w);
/* What can't be said to a server and its workers, or NULL. */
const char *command_too_long(const struct wrapper *w);
/* Why there is no program to run elsewhere. */
const char *command_lacks(const struct wrapper *w);

/* ---- local.c ---- */

/* False when it would start us, and we it, for ever. */
bool local_mark_started(struct wrapper *w);
/* gated: not before few fall-backs run here. */
int local_run(struct wrapper *w, bool gated, const char *rule, const char *why);
/*
 * ccache knows what it has on this machine: it runs here, and calls us for what it has not.  It is
 * no job, and none is counted.
 */
int local_ccache(struct wrapper *w);
/* A rule of the policy says so: at once, without a word. */
int local_by_rule(struct wrapper *w, const char *rule, const char *why);
/* In the slot of this machine that it has. */
int local_in_slot(struct wrapper *w, const char *rule, const char *why);
/* It was sent home since a slot is free here, unless somebody was quicker. */
int local_straggler(struct wrapper *w, const char *why);
/* A job was ended for what it can't be told of: where the command runs, it meets that itself. */
int local_come_home(struct wrapper *w, const char *rule, const char *what, int err);
/* Something of ours failed: the build goes on, and one line says why it is slower. */
int local_fall_back(struct wrapper *w, const char *rule, const char *text);

/* ---- remote.c ---- */

/* A terminal is never read ahead, and what is never read need not travel. */
bool remote_wants_stdin(const struct wrapper *w);
/* RUN, for worker; "": only a look-up. */
void remote_encode(const struct wrapper *w, const char *worker, uint32_t attempt,
		   uint32_t more_flags, struct buf *b);
/* Reads all of the input, if it is a file or has ended already, and is not much. */
void remote_know_input(struct wrapper *w);
/* False when it has of its caller what can't be told of to a worker, and why. */
bool remote_read_caller(struct wrapper *w, char **ret_why);
int remote_run(struct wrapper *w);

#endif
