/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_H
#define CONCC_FRONT_H

/*
 * What `concc` does for a person: whole builds, and questions to the project server.  One thread;
 * each prints what it has to say, blocks until it is done, and returns the status to exit with,
 * where no more is said.  What waits for a server that does not answer ends after some seconds.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/err.h"

struct front_run {
	const char *dir;     /* run there, or NULL */
	const char *workers; /* instead of the configured ones, or NULL */
	uint32_t jobs;	     /* for the build tool, through its environment; 0: not set */
	bool local;	     /* no workers: everything here */
	bool project_local;  /* since the project says so; set by front_run() */
	const char *report; /* NULL, or the file for a page that shows its jobs; absolute, or "-" */
	bool quiet;	    /* no summary, and no word on the number of jobs */
	const char *json;   /* NULL, or the file for the summary; "-": standard output */
	unsigned require_remote; /* percent of the jobs that could be remote; 0: whatever comes */
	char *const *argv;
};

/* Brings workers up, runs the build, prints one summary line on stderr, takes down what it brought
 * up.  The build's exit status, or one of enum wrapper_exit. */
int front_run(const struct front_run *o);

int front_status(bool json);
/* The counters of all servers of this user begin anew. */
int front_reset(void);
int front_stop(void);
/* Prints what is kept of former jobs, or clears it. */
int front_cache(bool clear);
/* Puts concc-worker on these workers or hosts, and says what it did; NULL ends the names. */
int front_push(char *const *names);
/* Checks these, or all that are configured; the exit status. */
int front_doctor(char *const *names, bool json);
int front_slots(void); /* prints how many jobs can run at once, this machine's cores at least */
/* Prints the directory for the front of PATH, and makes it when needed. */
int front_masquerade(void);
uint32_t front_cores(void); /* that this process may use */

/* Asks the project server of this runtime directory; ret_text (may be NULL) is owned by the caller.
 * CONCC_E_CLOSED: it ended meanwhile, which is the answer to "stop". */
int front_ask(const char *dir, const char *word, const char *arg, char **ret_text);

#endif
