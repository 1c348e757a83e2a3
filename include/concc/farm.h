/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FARM_H
#define CONCC_FARM_H

/*
 * /etc/concc-worker.ini: what the administrator of a worker allows to all its logins.  A client can
 * ask for less and gets no more.  Read by each agent when its link begins, by one
 * thread, which waits for the worker's own disk.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/err.h"

#define FARM_FILE "/etc/concc-worker.ini"

enum farm_own { FARM_OWN_YES, FARM_OWN_NO };
enum farm_log { FARM_LOG_NONE, FARM_LOG_SESSIONS, FARM_LOG_JOBS };

/* All zeros: nothing is limited. */
struct farm {
	uint32_t nice;		/* of jobs at least, 0 to 19 */
	uint64_t memory;	/* bytes of data of a process; 0: as it likes */
	uint32_t processes;	/* of all jobs of a client; 0: the default */
	uint32_t job_time_s;	/* 0: as long as it likes */
	uint32_t slots;		/* of the host; 0: by its cores */
	uint64_t store_max;	/* bytes of each login's store; 0: as the client likes */
	char **users;		/* names and numbers, "@" before groups; NULL: all; owned */
	enum farm_log log;	/* to syslog */
	enum farm_own own_disk; /* may files of this system be taken for the same of a client's? */
};

/*
 * 0 with ret, all zeros when there is no such file; CONCC_E_CONF when it is wrong, or when others
 * than root may write to it: then nobody may use the worker, for what it forbids is not known.
 */
int farm_load(const char *path, struct farm *ret, struct errmsg *msg);
void farm_release(struct farm *f);
/* May this process' user use the worker?  Names are those of /etc/passwd and /etc/group. */
bool farm_lets_in(const struct farm *f);
/* The same of given ids, for tests: groups[0 .. n). */
bool farm_names(const struct farm *f, const char *passwd, const char *group, uint32_t uid,
		const uint32_t *groups, unsigned n);

#endif
