/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_SUMMARY_H
#define CONCC_VIEW_SUMMARY_H

/*
 * What the records of a build say together: who did what share of it, how much ran at once, what it
 * waited for in the end, what it would have taken here.  Pure: records in, numbers out.
 */
#include <stdbool.h>

#include "builds.h"

#define SUMMARY_NO_LANE UINT32_MAX /* it never began */
#define SUMMARY_LISTED	12	   /* jobs in each list of them */

/* A worker, or this machine. */
struct place {
	const char *name; /* "": this machine; of the build */
	size_t n, n_failed;
	uint32_t n_lanes; /* jobs it had at once, at most */
	uint64_t slots;	  /* at most; 0: not known */
	uint64_t busy_us; /* of all its jobs together, as long as they had a slot */
	uint64_t cpu_us;  /* 0 here: it is not known of what runs here */
	uint64_t bytes_back, bytes_fetched;
	/* How many times as fast as: all workers of this build together; this machine, by jobs
	 * that ran in both places, in whatever build.  0: nothing to tell it by. */
	double speed, speed_local;
	size_t n_compared; /* jobs behind speed_local */
};

/* What kept jobs here, or sent them back. */
struct rule_use {
	const char *rule, *why; /* why: of one of them; of the build */
	size_t n;
	uint64_t us; /* how long those jobs took here, together */
};

/* How many there were at once. */
struct width {
	uint32_t most;
	double mean; /* over the whole build */
};

struct summary {
	const struct build *build;
	struct place *places; /* workers by their names, then this machine if it had jobs */
	size_t n_places;
	uint32_t *place_of, *lane_of; /* of each job */
	struct rule_use *rules;	      /* most time first */
	size_t n_rules;
	size_t n_workers, n_remote, n_local, n_failed, n_retried;
	uint64_t wall_us;
	uint64_t cpu_us;   /* on workers */
	uint64_t local_us; /* how long the jobs here took, together */
	/* Of remote ones together: waited for a slot; had it; had it while no command ran. */
	uint64_t waited_us, there_us, way_us;
	uint64_t bytes_back, bytes_fetched;
	uint64_t slots;	      /* that could be used, at most; 0: not known */
	struct width offered; /* jobs that the build tool had begun and that were not done */
	struct width busy;    /* those of them that had a slot, of a worker or of this machine */
	uint64_t tail_us;     /* since the beginning: from then on less than half was offered */
	size_t tail[SUMMARY_LISTED], n_tail;	   /* the last to end of those in it, last first */
	size_t slowest[SUMMARY_LISTED], n_slowest; /* longest first */
	uint32_t cores;				   /* of this machine */
	uint64_t alone_us; /* estimate: what this machine alone would have needed at least */
	bool scaled;	   /* by speed_local of the workers; else they are taken to be as fast */
};

/* Borrows b and t, which is one of them, until it is released.  cores: of this machine. */
void summary_make(struct summary *s, const struct builds *b, const struct build *t, uint32_t cores);
void summary_release(struct summary *s);

/* How many times as fast as this machine alone, at the least; 0: no job was remote. */
double summary_speed_up(const struct summary *s);
/* What kept it from being faster, for a person; static, "" when there is nothing to say. */
const char *summary_limit(const struct summary *s);

/* Since the epoch: when it was put into its slot, or begun here; when it was done with. */
uint64_t job_began_us(const struct record *r);
uint64_t job_done_us(const struct record *r);
bool job_is_local(const struct record *r);
bool job_has_slot(const struct record *r);   /* here there are some that need none */
bool job_has_failed(const struct record *r); /* its command, not we */

#endif
