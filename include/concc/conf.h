/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_H
#define CONCC_CONF_H

/*
 * ~/.concc.ini (or $CONCC_CONFIG) with the environment's overrides, checked.
 * concc.ini(5) describes the keys.  Without any worker configured: two `local:`
 * workers that share this machine's cores.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/err.h"
#include "concc/worker_spec.h"

enum conf_root { ROOT_WORKER, ROOT_CLIENT };

struct conf_worker {
	char *name;    /* [A-Za-z0-9._-], at most POOL_NAME_MAX, not "local" */
	char *address; /* "ssh://..." or "local:", NULL when command is given */
	char *command;
	char *worker_program; /* NULL: concc-worker of the same folder (local:) or PATH (elsewhere) */
	uint32_t slots; /* 0: as many as the worker has cores */
	enum ssh_mode ssh;
	enum conf_root root;
};

struct conf {
	char *path;	      /* of the file read, NULL when there was none */
	char **workspaces;    /* absolute, clean; empty: found from the cwd */
	char **toolchains;
	uint32_t local_slots; /* regular members of the pool on this machine */
	uint32_t idle_timeout_s; /* the project server leaves after this long without a job; 0: never */
	uint32_t connect_timeout_s;
	uint64_t store_max_bytes;
	size_t n_workers;
	struct conf_worker *workers; /* those in use, never none */
	size_t n_known;
	struct conf_worker *known; /* all [worker] sections: a worker list may name them */
};

/*
 * Reads path, or $CONCC_CONFIG, or ~/.concc.ini when that exists.  On failure
 * CONCC_E_CONF with "file:line: what; did you mean ...?" in msg.
 */
int conf_load(const char *path, struct conf **ret, struct errmsg *msg);
/*
 * A worker list as CONCC_WORKERS and `concc run -w` take it: replaces the
 * workers, or fails with CONCC_E_CONF and leaves them alone.
 */
int conf_set_workers(struct conf *c, const char *list, struct errmsg *msg);
void conf_free(struct conf *c);

#endif
