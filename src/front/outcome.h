/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_OUTCOME_H
#define CONCC_FRONT_OUTCOME_H

/* What came of a build, in numbers, for a person and for programs. */
#include <stddef.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/view.h"
#include "concc/wrapper.h"

/* What a project server has counted so far. */
struct numbers {
	uint64_t server_cpu_us, worker_cpu_us;
	uint64_t bytes_out, bytes_in; /* to and from all workers */
};

/* Of `concc status --json`. */
void numbers_parse(struct numbers *ret, const char *json);

struct outcome {
	/* The caller's, borrowed. */
	const char *counters, *build;
	const char *workers; /* which it was given instead of the configured ones, or NULL */
	struct numbers before, after;
	uint64_t wall_us;
	uint32_t cores; /* of this machine */
	int status;	/* of the command */
	/* Of outcome_make(). */
	struct counter entries[COUNTERS_MAX];
	size_t n_entries;
	uint64_t n_calls, n_remote, n_local, n_fell_back, n_retried;
	uint64_t n_asked;  /* here, being questions about the compiler */
	uint64_t n_fixed;  /* here, by rules that are no fault: link, query, probe, local-slot */
	uint64_t local_us; /* CPU of the build and of the server */
	struct numbers took;
	struct view_gain gain;
};

void outcome_make(struct outcome *o);
void outcome_line(struct outcome *o, struct buf *out); /* with its newline */
/* JSON, to a file that is replaced.  0, or -1 and errno. */
int outcome_write(const struct outcome *o, const char *path);
/* How many in a hundred of the calls that could go to a worker did; 0 when no call came, 100
 * when all that came have their place here by rule. */
unsigned outcome_percent(const struct outcome *o);
/* One line: why that is too few, and what to change. */
void outcome_lacks(const struct outcome *o, unsigned wanted, struct buf *out);

#endif
