/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_LAUNCHMSG_H
#define CONCC_SANDBOX_LAUNCHMSG_H

/*
 * What the agent, its launcher and the jobs' inits tell each other, over one
 * SEQPACKET socket pair: agent at one end, launcher and inits at the other.
 * All three are forks of one program, so packets are plain structs.
 *
 * The agent may have LM_WINDOW packets on their way; the launcher acknowledges
 * each.  So the agent's sends never block and the number of descriptors in
 * flight stays far below RLIMIT_NOFILE, which bounds them for a user.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "concc/caller.h"
#include "concc/err.h"
#include "filter.h"
#include "overlay.h"
#include "root.h"
#include "concc/sandbox.h"

#define LM_WINDOW  32
#define LM_RUN_FDS 4
#define LM_FDS_MAX 72 /* workspaces (PROTO_WORKSPACES_MAX) and a few */

enum lm_kind {
	/* agent -> launcher */
	LM_RUN = 1,  /* fds: request, stdin, stdout, stderr; passed on to an init */
	LM_KILL = 2, /* value: signal */
	/* launcher -> agent */
	LM_READY = 10, /* value: 0 or an error with text */
	LM_ACK = 11,
	LM_GONE = 12, /* the init was reaped; value: its wait status */
	/* init -> agent */
	LM_PREPARED = 20, /* fds: uppers, /tmp */
	LM_REFUSED = 21,  /* value: error; text: why nothing ran */
	LM_DONE = 22,	  /* value: the command's wait status; no process is left but init; fd: its
			   * trace, if one was wanted */
	LM_BEYOND = 23,	  /* text: what a process waits to do, and can't */
	/* value: a workspace; text: a path in it, of a file that is */
	LM_LOCKED = 24, /* being locked to be read */
	LM_ASKED = 25,	/* asked for its attributes */
};

struct lm_packet {
	uint32_t kind;
	uint32_t job_id;
	int32_t value;
	uint64_t wall_us;
	bool left; /* of LM_DONE: see job_end */
	struct rusage rusage;
	char text[256];
};

/* Blocks unless MSG_DONTWAIT is in flags; 0 or -errno. */
int lm_send(int sock, const struct lm_packet *p, const int *fds, size_t n_fds, int flags);
/* Fills fds[LM_FDS_MAX] (close-on-exec, the caller's now).  CONCC_E_CLOSED at the end. */
int lm_recv(int sock, struct lm_packet *p, int *fds, size_t *ret_n_fds, int flags);

/* The request travels as a memfd: argv and environment may be megabytes. */
struct lm_request {
	const char *exe, *path, *cwd;
	char **workspaces, **trees, **argv, **env;
	mode_t umask;
	struct caller caller;
	uint64_t max_memory;
	uint32_t max_processes;
	bool trace, seeks, reads, terminal;
	void *memory; /* holds the strings */
	size_t size;
};

int lm_request_pack(const struct launch *j); /* a memfd, or -errno */
int lm_request_unpack(int memfd, struct lm_request *ret);
void lm_request_release(struct lm_request *r);

struct launcher_setup {
	struct sandbox_config ids;
	const char *mirror;  /* path in the agent's view */
	const char *scratch; /* the same; NULL unless uppers go to disk */
	enum upper_kind upper;
	/* The launcher's: */
	int stand_ins[3];  /* MIRROR_STAND_IN, by O_RDONLY, O_WRONLY and O_RDWR; -1: not there */
	struct caller own; /* what jobs would have without their callers */
	struct filter *filter;	     /* of all jobs; NULL: none */
	struct filter *trace_filter; /* of those that are traced; the same */
	struct filter *seek_filter;  /* of those with launch.seeks */
	struct filter *read_filter;  /* of those with launch.reads */
};

/* The launcher process; sock is its end. */
_Noreturn void launcher_main(int sock, struct launcher_setup *setup);

/*
 * The init of one job, in a new pid namespace: makes what any job needs, takes
 * the job from orders (an LM_RUN; ends without one), runs it, reports to sock, and
 * ends with all that is left.
 */
_Noreturn void job_init(int sock, int orders, const struct launcher_setup *setup);

/* By which launcher_job_of() knows the calling process for the init of this job. */
void job_init_name(uint32_t job_id);

/* What init gets from the launcher to pass a signal (si_value) on to the command. */
#define JOB_SIGNAL (SIGRTMIN + 3)

#endif
