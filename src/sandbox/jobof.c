/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which job does a process belong to?  What the kernel knows of its ancestors tells. */
#include "launchmsg.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define NAME_PREFIX "concc-" /* and the id: 15 bytes with the NUL, of the kernel's 16 */
#define DEPTH_MAX   4096     /* generations; a chain that changes under us could have no end */

struct process {
	pid_t parent;
	char name[64];
};

void job_init_name(uint32_t job_id)
{
	char name[32];

	snprintf(name, sizeof(name), NAME_PREFIX "%08" PRIx32, job_id);
	(void)prctl(PR_SET_NAME, name); /* can't fail */
}

static int read_process(pid_t pid, struct process *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char path[32];
	const char *parent;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	r = read_file_at(-1, path, 64 * 1024, &b);
	if (r < 0)
		return r;
	parent = strstr(buf_cstr(&b), "\nPPid:\t");
	if (!parent || sscanf(buf_cstr(&b), "Name:\t%63[^\n]", ret->name) != 1)
		return CONCC_E_PROTO;
	ret->parent = (pid_t)strtol(parent + strlen("\nPPid:\t"), NULL, 10);
	return 0;
}

static int64_t id_of_name(const char *name)
{
	if (!str_starts(name, NAME_PREFIX))
		return JOB_UNKNOWN; /* not yet named: it has asked for nothing then */
	return (int64_t)strtoul(name + strlen(NAME_PREFIX), NULL, 16);
}

/* Ours is the launcher, the launcher's is the job's init, whose are all the others. */
int64_t launcher_job_of(pid_t pid)
{
	struct process p = {0}, child = {0};
	pid_t self = getpid();

	for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
		if (pid == self)
			return JOB_NONE;
		/* A stranger, or a /proc that numbers processes in another way than the kernel
		 * does for us: no job is the one that can be left out. */
		if (pid <= 0)
			return JOB_UNKNOWN;
		if (read_process(pid, &p) < 0)
			return JOB_UNKNOWN;
		if (p.parent == self)
			return depth ? id_of_name(child.name) : JOB_NONE;
		child = p;
		pid = p.parent;
	}
	return JOB_UNKNOWN;
}
