/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SCHEDULE_H
#define CONCC_SCHEDULE_H

/*
 * Where a job is done soonest, by what was measured of places and of jobs: a
 * pure function of numbers (libc only, no clock, no files), and the learning of
 * those numbers (libm).  A place is a worker, or this machine itself.
 *
 * A job's *work* is what it takes on a processor about as fast as this machine's,
 * alone.  A place is *slow* by a factor that depends on how many jobs it has at once.
 * What it takes there is work * slowdown + overhead.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A fixed-point 1. */
#define SCHED_ONE 1024u
/* One, two, four ... jobs at once; the last one is for all above. */
#define SCHED_LEVELS 8

/* What is known of a place; all zeros: nothing. */
struct sched_profile {
	uint32_t slowdown[SCHED_LEVELS]; /* 0: not known */
	uint32_t overhead_us;		 /* beside the command itself: line, files, its queue */
	uint32_t cores;			 /* it says it has; 0: not known */
};

struct sched_place {
	struct sched_profile profile;
	uint32_t slots, taken;
	bool here;
};

struct sched_job {
	uint32_t work_us;    /* 0: not known */
	uint32_t mean_us;    /* of the work of all jobs lately; 0: not known */
	uint32_t waiting;    /* others wait for the same slots */
	uint64_t waited_us;  /* for a better place than a free one */
	uint64_t busy_us;    /* since when the build goes on, without a gap */
	uint64_t waiting_us; /* the work of the others who wait; 0: not known */
};

/* No place is free, or none is worth it. */
#define SCHED_WAIT (-1)

/* Microseconds; of one job more than `beside`. */
uint64_t sched_takes_us(const struct sched_place *p, uint32_t beside, const struct sched_job *j);

/*
 * The place with a free slot where the job is done soonest, or SCHED_WAIT when
 * it is done sooner by waiting for a slot of another.  Then *ret_patience_us is
 * how long that may be waited for before the free one is the better choice after
 * all; UINT64_MAX when none is free.
 */
int sched_choose(const struct sched_place *places, size_t n, const struct sched_job *j,
		 uint64_t *ret_patience_us);

/* A place that can be started, is being started, or is there (ready_us is 0 then). */
struct sched_start {
	struct sched_place place; /* all of its slots count, whoever has them: they will be free */
	uint64_t ready_us;	  /* until it has slots, counted from its start when it is asleep */
	bool known;		  /* how long that takes */
};

/*
 * Which of those asleep is to be started for the jobs that wait (waiting, waiting_us, mean_us of
 * j), who have done so for lasted_us: of those that would have a job done before the last of them
 * is done without it, the one by which that comes soonest.  What takes nobody knows how long to
 * start pays, and so does any when no other place is there or coming.  SCHED_WAIT: none pays, or
 * each of those that wait has a slot to take now.
 */
int sched_start(const struct sched_start *there, size_t n_there, const struct sched_start *asleep,
		size_t n_asleep, const struct sched_job *j, uint64_t lasted_us);

/* Are two free places as good as each other for this job? */
bool sched_is_as_good(uint64_t takes_us, uint64_t best_us);

/* The work that is done in such a time of one of the jobs that are taken there. */
uint64_t sched_done_us(const struct sched_place *there, uint64_t elapsed_us);
/*
 * A job is at that place, as one of those that are taken there; this machine has a slot for it.  Is
 * it better begun anew here?  most_us: its work, when that is known, or at the most; 0: neither.
 * What was done there is lost, so that of nothing known it takes a place far slower.
 */
bool sched_restart_pays(const struct sched_place *there, const struct sched_place *here,
			uint32_t most_us, bool known, uint64_t done_us);
/*
 * The same without looking at the clock: from how many microseconds there on it is, since it takes
 * longer than it should, as where others have the processors.  begun: its command has; else it
 * waits in the host's queue, and nothing is lost.  UINT64_MAX: never.
 */
uint64_t sched_restart_after_us(const struct sched_place *there, const struct sched_place *here,
				uint32_t most_us, bool begun);

/* ---- learning: for one thread ---- */

/* A job, known by what it is and by what is like it; never 0. */
uint64_t sched_key_of_job(const char *program, const char *cwd, const char *subject);
uint64_t sched_key_of_kind(const char *program, const char *cwd);

struct sched_model;

struct sched_sample {
	const char *place; /* NULL: here */
	uint64_t job, kind;
	uint32_t concurrency; /* jobs at that place meanwhile, this one included */
	uint64_t total_us;    /* from being sent to its files in place */
	uint64_t wall_us;     /* of the command itself; 0: not known */
	uint64_t cpu_us;      /* 0: not known */
	bool filling;	      /* it waited for contents that the place will have from now on */
	uint64_t at_us;	      /* when it ended, of any clock that only goes on */
};

struct sched_model *sched_model_new(uint32_t cores); /* of this machine */
void sched_model_free(struct sched_model *m);	     /* NULL is fine */
/* What is believed of a place before anything was measured (a prior): the speed of its processors
 * in thousandths of those here. */
void sched_model_prior(struct sched_model *m, const char *place, uint32_t speed);
/*
 * So many jobs of other clients are at that place, which has so many cores for all, as it has said
 * last: ours take longer by that until it says something else, and what is measured beyond it
 * corrects it.  A number of clients that wait there counts as so many jobs.
 */
void sched_model_others(struct sched_model *m, const char *place, uint32_t jobs, uint32_t cores);
/*
 * The processors of that place have so many thousandths of the speed that they had when it came up,
 * as it has said last: they are too hot, or belong to a virtual machine from which they are taken.
 */
void sched_model_speed(struct sched_model *m, const char *place, uint32_t permille);
void sched_model_begins_here(struct sched_model *m); /* a job, of which a sample will come */
/* That many tasks of others run or want to on this machine, which has so many processors (more than
 * `cores` where those are a share): jobs are slower here by that. */
void sched_model_background_load(struct sched_model *m, double tasks, uint32_t processors);
/* What those others take was seen: so many jobs here at once have run for so long lately, and
 * waited for so long while others had the processors. */
void sched_model_contention(struct sched_model *m, uint32_t concurrency, uint64_t ran_us,
			    uint64_t waited_us, uint64_t now_us);
/* It was, and not long ago. */
bool sched_model_knows_contention(const struct sched_model *m, uint64_t now_us);
void sched_model_learn(struct sched_model *m, const struct sched_sample *s);
/* A censored sample: the job was given up after total_us, so it takes longer there than that. */
void sched_model_learn_censored(struct sched_model *m, const struct sched_sample *s);
/* What is known of that place (NULL: here) at this time, since what was long ago counts less;
 * zeros: nothing.  A worker of which little more than a guess is known counts as slower than that.
 */
void sched_model_profile(const struct sched_model *m, const char *place, uint64_t now_us,
			 struct sched_profile *ret);
/* The same for who chooses: what is to be found out about looks better than it may be. */
void sched_model_optimistic_profile(const struct sched_model *m, const char *place, uint64_t now_us,
				    struct sched_profile *ret);
/* 0: not known. */
uint32_t sched_model_work_us(const struct sched_model *m, uint64_t key);
/* The same of jobs of a kind that few of them exceed. */
uint32_t sched_model_upper_bound_us(const struct sched_model *m, uint64_t kind);
uint32_t sched_model_mean_us(const struct sched_model *m);

#endif
