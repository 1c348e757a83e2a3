/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_H
#define CONCC_CONF_H

/*
 * /etc/concc.ini, ~/.concc.ini above it (or $CONCC_CONFIG instead of both), with the environment's
 * overrides, checked.
 * concc.ini(5) describes the keys.  Without any worker configured: two `local:`
 * workers that share this machine's cores.
 *
 * One thread at a time.  What reads files blocks as long as the disk does.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "concc/err.h"
#include "concc/worker_spec.h"

#define CONF_SYSTEM_FILE "/etc/concc.ini" /* root's; of all users of a client */

/* Whose system jobs see.  By default the client's over ssh://, the worker's otherwise. */
enum conf_root { ROOT_DEFAULT, ROOT_WORKER, ROOT_CLIENT };

/* How a worker sees the workspaces: by our own mirror, which needs concc there, or without. */
enum conf_mirror { MIRROR_CONCC, MIRROR_SSHFS, MIRROR_NONE };

struct conf_worker {
	char *name;	/* [A-Za-z0-9._-], at most POOL_NAME_MAX, not "local" */
	char *group;	/* name of the section that `count` made many workers of, or NULL */
	uint32_t index; /* which of them, from 1; 0 without `count` */
	char *listed;	/* how a worker list spells it; NULL: it has a section */
	char *address;	/* "ssh://..." or "local:", NULL when command is given */
	char *command;
	/* NULL: concc-worker of the same folder (local:); elsewhere the one that was pushed, if it
	 * is ours, else the one in PATH */
	char *worker_program;
	uint32_t slots;		    /* 0: as many as the worker has cores */
	uint32_t count;		    /* as the section says; 0: one */
	uint32_t idle_timeout_s;    /* its link is closed after this long without a job; 0: never */
	uint32_t connect_timeout_s; /* 0: that of all */
	uint64_t job_memory;	    /* bytes of data a process of a job may have; 0: as it likes */
	uint32_t job_processes;	    /* of all jobs together; 0: the worker's default */
	uint32_t job_time_s;	    /* that a job may take; 0: as it likes */
	bool install;		    /* concc-worker is put there when it is missing */
	enum ssh_mode ssh;
	enum conf_root root; /* never ROOT_DEFAULT once the configuration is read */
	enum conf_mirror mirror;
};

/* As many slots as this machine has cores, or none when a worker is this machine. */
#define CONF_LOCAL_AUTO UINT32_MAX

struct conf {
	char *asked;		 /* what conf_load() was told to read, or NULL */
	char *file;		 /* and the file it chose by that, there or not */
	char *path;		 /* its real path, NULL when there was none */
	struct stat seen;	 /* the file before it was read; zeros: it was not there */
	char **workspaces;	 /* absolute, clean; empty: found from the cwd */
	char *workspaces_from;	 /* "file:line" or the variable, NULL: nobody lists any */
	char **toolchains;	 /* absolute, clean; none holds or is in ~/.ssh */
	uint32_t local_slots;	 /* of this machine itself; or CONF_LOCAL_AUTO */
	uint32_t idle_timeout_s; /* the project server leaves after this long without a job; 0:
				    never */
	uint32_t connect_timeout_s;
	uint32_t straggler_after_s; /* a job that runs longer may be started twice; 0: none is */
	uint64_t store_max_bytes;
	uint64_t cache_max_bytes; /* of kept results; 0: none are kept */
	char *cache_url; /* of those that are shared, without a slash at its end; or NULL */
	bool cache_push; /* what is kept here is put there */
	size_t n_workers;
	struct conf_worker *workers; /* those in use, never none */
	size_t n_system; /* the first of those: of all users, which the user's may replace */
	size_t n_known;
	struct conf_worker *known; /* all [worker] sections: a worker list may name them */
};

/*
 * Reads path, or $CONCC_CONFIG, or ~/.concc.ini when that exists.  0 with ret, which is for
 * conf_free(); on failure CONCC_E_CONF with "file:line: what; did you mean ...?" in msg.
 */
int conf_load(const char *path, struct conf **ret, struct errmsg *msg);
/*
 * A worker list as CONCC_WORKERS and `concc run -w` take it: replaces the
 * workers, or fails with CONCC_E_CONF and leaves them alone.
 */
int conf_set_workers(struct conf *c, const char *list, struct errmsg *msg);
/* Whether each workspace is a directory that can be opened; else msg tells which is not, who lists
 * it and what to do. */
int conf_check_workspaces(const struct conf *c, struct errmsg *msg);
/* What a person who means it types: the name of its section, or as the worker list spelled it. */
const char *conf_worker_word(const struct conf_worker *w);
/* Is it this machine itself?  Where a command leads, nobody knows. */
bool conf_worker_is_here(const struct conf_worker *w);
void conf_free(struct conf *c); /* NULL is fine */

/* The file as it is now, zeros when it is not there. */
void conf_look(const struct conf *c, struct stat *ret);

#endif
