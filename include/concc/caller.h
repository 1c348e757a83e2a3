/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CALLER_H
#define CONCC_CALLER_H

/*
 * What a process has from its caller, beside files, directory, umask and environment: limits,
 * niceness, what becomes of signals, and which kernel it is shown.  A job gets its caller's; what
 * outlives its caller and works for others sheds it.
 *
 * Of getrlimit(2)'s those are left out that count what else the user has on a machine (pending
 * signals, message queues), that say what priority may be asked for, and the one that the kernel
 * ignores (locks).  That of processes counts so, too: no job gets it, but what lives on should not
 * have a lower one for it.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum caller_limit_id {
	CALLER_CPU,
	CALLER_FSIZE,
	CALLER_DATA,
	CALLER_STACK,
	CALLER_CORE,
	CALLER_RSS,
	CALLER_NPROC,
	CALLER_NOFILE,
	CALLER_MEMLOCK,
	CALLER_AS,
	CALLER_N_LIMITS
};

#define CALLER_UNLIMITED UINT64_MAX /* RLIM_INFINITY */

#define CALLER_FDS_FROM 3
#define CALLER_FDS	1024 /* of most logins' limits; further ones are not looked at */

struct caller_limit {
	uint64_t soft, hard; /* in getrlimit(2)'s units; soft <= hard */
};

struct caller {
	struct caller_limit limits[CALLER_N_LIMITS];
	int nice;	  /* -20 to 19 */
	uint32_t persona; /* of personality(2) */
	uint64_t ignored; /* signals: the bit signo - 1 */
	uint64_t blocked;
	/* Descriptors beyond standard error, by number: how each is open. */
	uint16_t fds_end; /* all are below; 0: there is none */
	uint8_t fds[CALLER_FDS];
};

enum caller_access { CALLER_CLOSED, CALLER_READS, CALLER_WRITES, CALLER_READS_WRITES };

/* Neither can be ignored or blocked. */
#define CALLER_SIGNALS_NEVER (1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1))

/* This process, but for its descriptors.  Costs 16 system calls; what can't be told is as by
 * default. */
void caller_read(struct caller *ret);
/*
 * Those that it was started with and an exec would leave open; c is of caller_read().  One system
 * call, and a few for each that is open.  Left out is what can be used in ways that no file knows:
 * directories, sockets, what has no name (eventfd(2) and the like).  Returns the first of these, or
 * -1, with a word for a person on what it is.  Those of O_PATH are not seen.
 */
int caller_read_descriptors(struct caller *c, const char **ret_what);

/* Does a timer run that an exec leaves running (alarm(2), setitimer(2))?  Three system calls. */
bool caller_has_timer(void);
/*
 * Is this root's process without all that a job of root's can do (capabilities(7))?  Such a one may
 * be kept from what that does.
 */
bool caller_is_lesser_root(void);

/*
 * The first of c's limits that a process with host's hard ones can't give, or -1.  Soft and hard
 * ones count alike; but of open files, which systems limit to very different numbers that hardly a
 * program comes near, 4096 are enough; and those of core files, of resident and locked memory, and
 * of processes don't count.
 */
int caller_lacking(const struct caller *host, const struct caller *c);
const char *caller_limit_name(int id); /* for a person: "CPU time (ulimit -t)" */
/* Makes of c what a process with host's hard limits can give, where nothing is lacking.  Niceness
 * below 0, which says only how fast, is host's own. */
void caller_fit(struct caller *c, const struct caller *host);
/*
 * Are core files given to a program or a socket, by kernel.core_pattern (core(5))?  That would be
 * the host's, whatever namespaces the process is in, and no other limit holds it back than the one
 * of a single byte, by which the kernel knows that program itself; c gets it where host can give
 * it.
 */
bool caller_cores_leave(const char *pattern);
void caller_keep_cores(struct caller *c, const struct caller *host);
/* Has c all that host has and one thing that host lacks?  Then what c starts would do better. */
bool caller_exceeds(const struct caller *c, const struct caller *host);

/*
 * Give this process what c has; own: what it has, with no signal ignored.  System calls only,
 * and of those only what makes a difference.  0, or -errno and what failed, in words for a person.
 * The second leaves the niceness out; it blocks signals, or no more, at last.
 */
int caller_become_nice(const struct caller *c, const struct caller *own, const char **ret_what);
int caller_become(const struct caller *c, const struct caller *own, const char **ret_what);

/* For who works for others: soft limits as wide as the hard ones, but of the stack, which is then
 * the kernel's usual, and of core files. */
void caller_widen(void);
/*
 * Before the exec of what outlives this process and works for others: of its caller there stay the
 * hard limits, where they can't be raised.  Soft ones are widened; signals, priorities,
 * personality and umask are a new login's.
 */
void caller_shed(void);
void caller_reset_signals(void); /* all at their defaults; blocked ones stay blocked */

#endif
