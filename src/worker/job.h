/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_JOB_H
#define CONCC_WORKER_JOB_H

/*
 * One job on its worker, from JOB to JOB_EXIT.
 *
 *   job.c         is it the client's compiler, then launch; what ends it early
 *   job_queue.c   waits for the mirror, and for a slot of the host
 *   job_stdio.c   its input and output
 *   job_limits.c  was it a limit of ours that it met?
 *   job_end.c     what it did, and its end, for the client; then for the store
 *
 * The agent's messages for jobs, and what ends there, are in agent.h.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "agent.h"

struct output {
	struct agent_job *job;
	uint8_t stream; /* 1 or 2 */
	int fd;		/* our end; -1 at its end */
	struct loop_source *source;
};

/* What it spoke of, and why it is not shown before its end. */
enum holding {
	HOLDING_NOTHING,
	HOLDING_FULL_DISK, /* shown, as what it says of one, when it succeeds after all */
	HOLDING_SAYS_FULL,
	HOLDING_DENIED, /* what the sandbox refuses, and the client perhaps not: not shown */
};

struct agent_job {
	struct agent *agent;
	struct msg_job msg;
	struct toolchain *tools;
	struct caller caller; /* as asked for, before it is fit to what we have */
	char **env;
	struct list of_waiting;
	struct comparison *comparing; /* of its compiler, or NULL */
	uint64_t wait_seq;	      /* the mirror must be flushed up to here, ... */
	uint64_t wait_kept;	      /* ... and so many jobs' outputs be in the store */
	uint64_t queued_ms;
	bool queued;	 /* in agent.queued */
	bool queue_sent; /* the client knows that it is */
	int slot;	 /* of the host, -1: none */
	struct timespec started;
	uint64_t started_ms;
	struct output out[2];		     /* [1] is not used when the two are merged */
	struct announcements *announcements; /* of what it prints, or NULL */
	struct announcing *announcing;	     /* they are being read: it stays until then */
	int stdin_fd;			     /* our end, -1 when closed */
	int stdin_job;			     /* the job's, to see what is left in it; -1 without */
	struct loop_source *stdin_source;
	struct buf input;     /* not yet in the pipe */
	uint64_t input_put;   /* bytes in it so far, */
	uint64_t input_read;  /* known to be read by the job, */
	uint64_t input_acked; /* and told to the client */
	bool input_ends;
	uint32_t credit; /* output the client takes now */
	struct home **homes;
	int *upper_fds;		   /* borrowed by the outbox; n_homes of them */
	struct scanning *scanning; /* what it did is being read, by a thread: it stays until then */
	bool large;		   /* what it did is much */
	size_t n_homes;
	int tmp_fd;
	int tty_fd; /* our side of its input, where that is a terminal; or -1 */
	bool ended;
	bool launched;
	bool starved;	/* a process of it may have been killed for lack of memory */
	bool exit_sent; /* its JOB_EXIT is in the outbox, or was sent */
	bool leaving;	/* to be freed when the outbox is empty */
	struct job_end end;
	struct buf trace; /* as JOB_TRACE has it, but for the job; empty: none is wanted */
	struct buf looks; /* for each that it took a u8 kind of effect, a u32 workspace, a path */
	char *taint;	  /* why its result can't be used, or NULL */
	uint32_t verdict; /* code of EXIT_FAILED: a limit of its own, or no way home */
	int hint;	  /* enum sign: of which limit what it said is one */
	struct loop_source *timer;
	enum holding holding; /* and what it says */
	struct buf held;      /* a u8 stream and a blob for each chunk */
	struct map outside;   /* enum missing_how as a digit, and a path -> the job: told */
	struct outbox outbox;
	/* struct kept: files to put in the store when the client has its answer */
	struct list keep;
};

/* ---- job.c ---- */

/* Its result can't be used: why, for the user.  The first reason stays. */
void job_taint(struct agent_job *j, const char *text);
/* From here on it is of no use: what it still says must not be shown, nor waited for. */
void job_stop(struct agent_job *j, int signo);
/* The mirror and a slot of the host are there for it. */
void job_start_now(struct agent_job *j);

/* ---- job_queue.c ---- */

/* Until its compiler was compared, the mirror is flushed for it and a slot of the host is free:
 * then job_start_now(). */
void job_wait(struct agent_job *j);
/* It waits for nothing any more. */
void job_unqueue(struct agent_job *j);
void job_give_slot_back(struct agent_job *j);

/* ---- job_stdio.c ---- */

/* 0 and the job's end in ret_job, or -errno.  i: 0 stdout, 1 stderr. */
int job_open_output(struct agent_job *j, int i, bool tty, int *ret_job);
int job_open_input(struct agent_job *j, int *ret_job);
/* All that it must have before it begins. */
bool job_has_input(const struct agent_job *j);
/* It has ended: the client is told how much of its input it has read, before all else. */
void job_tell_input(struct agent_job *j);
void job_close_input(struct agent_job *j);
void job_close_outputs(struct agent_job *j);
/* Files that it has announced, if they were not told yet, and what it said of them. */
void job_forget_announcing(struct agent_job *j);
/* Tainted by what it spoke of. */
void job_blame_holding(struct agent_job *j);

/* ---- job_limits.c ---- */

/* Tainted by a limit of its own, which the client tells its user. */
void job_reached_limit(struct agent_job *j, const char *text);
void job_start_clock(struct agent_job *j);
/* In what it says, of a limit. */
void job_look_for_signs(struct agent_job *j, const char *p, size_t n);
/* It failed: for a limit of ours? */
void job_blame_limit(struct agent_job *j);

/* ---- job_end.c ---- */

/* JOB_EXIT: the last that the client hears of it. */
void job_send_exit(struct agent_job *j, struct msg_exit *m);
void job_refuse(struct agent_job *j, enum refusal why, const char *text);
/* Its end, when all processes are gone and all output is read. */
void job_maybe_finish(struct agent_job *j);
/* What it did, and left, is not needed any more. */
void job_clear(struct agent_job *j);
/* For home_scan() and home_announce(); data: the job. */
int job_on_effect(void *data, const struct msg_file *f, int fd);
/* It made what can't be told, or that can't be read. */
void job_unreadable(struct agent_job *j, const char *refusal, int err);
bool job_scratch_is_full(const struct agent_job *j);
/* Its files don't go into the store. */
void job_forget_kept(struct agent_job *j);

#endif
