/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "job.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "concc/cleanup.h"
#include "concc/str.h"

void job_reached_limit(struct agent_job *j, const char *text)
{
	if (!j->taint)
		j->verdict = FAILED_LIMIT;
	job_taint(j, text);
}

static void time_is_up(void *data)
{
	struct agent_job *j = data;
	_cleanup_free_ char *text = xasprintf("it took longer than %u s, its `job-time`",
					      j->agent->limits.time_s);

	if (j->exit_sent || j->ended)
		return;
	job_reached_limit(j, text);
	job_stop(j, SIGKILL);
}

void job_start_clock(struct agent_job *j)
{
	if (j->agent->limits.time_s)
		j->timer = loop_add_timer(j->agent->loop, j->agent->limits.time_s * 1000ull,
					  time_is_up, j);
}

/*
 * The kernel tells nobody that a process met one of its limits: what programs say
 * then does, as a full disk is noticed, and how much memory was used.  Mistaken, a
 * failed job runs once more at home, where it says the same.
 */
enum sign { SIGN_NONE, SIGN_MEMORY, SIGN_PROCESSES, SIGN_AGAIN, SIGN_FILES };

static const struct {
	const char *text;
	enum sign of;
} signs[] = {
	{"annot fork", SIGN_PROCESSES},
	{"fork:", SIGN_PROCESSES},
	{"ailed to spawn", SIGN_PROCESSES},
	/* EAGAIN, as of a lock that another has, too */
	{"Resource temporarily unavailable", SIGN_AGAIN},
	{"oo many open files", SIGN_FILES},
	{"ut of memory", SIGN_MEMORY},
	{"annot allocate memory", SIGN_MEMORY},
	{"emory exhausted", SIGN_MEMORY},
	{"emory allocation of", SIGN_MEMORY},
	{"bad_alloc", SIGN_MEMORY},
};

/* Would its caller have let it use more memory than `job-memory` does? */
static bool less_memory(const struct agent_job *j)
{
	uint64_t memory = j->agent->limits.memory;

	return memory && memory < j->caller.limits[CALLER_DATA].soft &&
	       memory < j->caller.limits[CALLER_AS].soft;
}

/* And open more files than our login does? */
static bool fewer_files(const struct agent_job *j)
{
	return j->caller.limits[CALLER_NOFILE].hard > j->agent->own.limits[CALLER_NOFILE].hard;
}

static bool matters(const struct agent_job *j, enum sign of)
{
	return of == SIGN_MEMORY ? less_memory(j) : of == SIGN_FILES ? fewer_files(j) : true;
}

void job_look_for_signs(struct agent_job *j, const char *p, size_t n)
{
	for (size_t i = 0; !j->hint && i < N_OF(signs); i++) {
		if (matters(j, signs[i].of) && memmem(p, n, signs[i].text, strlen(signs[i].text)))
			j->hint = signs[i].of;
	}
}

/* By a signal that does not say which of its caller's limits it reached. */
static bool died_silently(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) != SIGXCPU && WTERMSIG(status) != SIGXFSZ;
}

void job_blame_limit(struct agent_job *j)
{
	const struct msg_limits *l = &j->agent->limits;
	bool much = (uint64_t)j->end.rusage.ru_maxrss * 1024 >= l->memory / 2;
	_cleanup_free_ char *text = NULL;

	if (less_memory(j) && (j->hint == SIGN_MEMORY || much || died_silently(j->end.wait_status)))
		text = xasprintf("it needs more memory than %llu MB, its `job-memory`",
				 (unsigned long long)(l->memory >> 20));
	else if (j->hint == SIGN_PROCESSES)
		text = xasprintf("it needs more than %u processes, the `job-processes` of all jobs",
				 l->processes);
	else if (j->hint == SIGN_AGAIN)
		text = xasprintf("it says that a resource is unavailable for now, as one does that "
				 "needs more than %u processes, the `job-processes` of all jobs",
				 l->processes);
	else if (j->hint == SIGN_FILES)
		text = xasprintf("it needs more open files than its login allows, %llu",
				 (unsigned long long)j->agent->own.limits[CALLER_NOFILE].hard);
	if (text)
		job_reached_limit(j, text);
}
