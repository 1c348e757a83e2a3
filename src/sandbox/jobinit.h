/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_JOBINIT_H
#define CONCC_SANDBOX_JOBINIT_H

/*
 * What the parts of a job's init share: jobinit.c is the process from its fork to its end,
 * job_mounts.c what it mounts.  One process, one thread; what is not closed ends with it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "concc/map.h"
#include "concc/proto.h"
#include "launchmsg.h"

struct job {
	int sock;
	uint32_t id;
	const struct launcher_setup *setup;
	struct lm_request req;
	int stdio[3];
	int mirror; /* its root */
	bool own_proc;
	pid_t first; /* of its processes: their numbers begin there */
	int err;     /* of what was made before there was a job to refuse */
	const char *failed;
	int fds[PROTO_WORKSPACES_MAX + 1];     /* to send: uppers, /tmp */
	int overlay_fds[PROTO_WORKSPACES_MAX]; /* of overlays to be moved into /tmp; else -1 */
	size_t n;			       /* workspaces */
	struct stat input;		       /* of stdio[0] */
	int listener;	     /* of the filter; -1: nobody can be told (any more) */
	struct trace *trace; /* NULL: nobody wants one */
	struct map looks;    /* what was told of as LM_LOCKED or LM_ASKED -> this */
	int starting; /* with a trace: what the command's process says before its exec; else -1 */
};

/* The job can't run here: tells the agent so, with the words of err behind these, and ends. */
_Noreturn void jobinit_refuse(const struct job *j, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* What does not depend on the job, beforehand: it is most of what a short one takes.  A failure is
 * in j->err and j->failed, until there is a job to refuse. */
void jobinit_mount_common(struct job *j);
/* What this job sees: its workspaces and its /tmp. */
void jobinit_mount_own(struct job *j);

#endif
