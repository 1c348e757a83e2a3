/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROCESS_H
#define CONCC_PROCESS_H

/*
 * The one place that makes processes: descriptors, signals, exec and its errors,
 * the wait.  Libc only; no state but which signals are no longer as our caller
 * set them.  Any thread may start a process; its owner waits for it.
 *
 * A caller may have SIGCHLD ignored (nohup-like starters, some daemons), and
 * exec hands that on: then the kernel reaps children by itself, waitpid(2) tells
 * of none, and there is no exit status.  So every start here makes SIGCHLD ours
 * first; what the user's own commands get is what the caller had.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;

enum process_flags {
	/*
	 * A command of the user's: signals that our caller ignores are ignored, those we block
	 * are blocked, and descriptors that are not CLOEXEC stay (make's jobserver).  Without
	 * it, a program of ours: signals at their defaults, none blocked, and no descriptor but
	 * those that it is given.
	 */
	PROCESS_COMMAND = 1 << 0,
	PROCESS_SESSION = 1 << 1, /* leads a session and a group of its own */
	/* Init's child and not ours: nobody has to wait for it, and its pid is not told. */
	PROCESS_DETACHED = 1 << 2,
};

#define PROCESS_FDS_MAX 4
enum {
	PROCESS_FD_NULL = -1, /* /dev/null */
	PROCESS_FD_KEPT = -2, /* process_capture(): what it keeps */
};

struct process {
	const char *exe;   /* looked for in our PATH unless it has a slash; NULL: argv[0] */
	char *const *argv; /* at least one word */
	char *const *env;  /* NULL: ours */
	const char *dir;   /* NULL: ours */
	/* fds[i] becomes descriptor i there; a number that is i itself stays as it is, closed too.
	 */
	int fds[PROCESS_FDS_MAX];
	unsigned n_fds; /* at least 3 */
	unsigned flags;
	/*
	 * NULL, or called in the child after all that is above and before the exec.  A negative
	 * code ends the child and is what process_start() returns.  Costs a copy of our memory
	 * map (fork) where none (vfork) is needed without it.
	 */
	int (*prepare)(void *data);
	void *data;
};

/*
 * Returns when the exec has happened: 0, or a negative code when the process
 * could not be made or be what it should; then there is none.  ret is set on
 * success only; NULL with PROCESS_DETACHED.  Blocks for as long as exec and
 * prepare do.
 */
int process_start(const struct process *p, pid_t *ret);

/*
 * Waits for a child and reaps it: 0 with its status as waitpid(2) gives it, or
 * -errno.  ret_status may be NULL.
 */
int process_wait(pid_t pid, int *ret_status);

/*
 * Runs p to its end and appends what it wrote to its PROCESS_FD_KEPT, up to max
 * bytes; p should lead a session.  For those who may block: gives up at deadline_ms
 * (of now_ms()) or when cancel_fd (-1: none) becomes readable, and kills its
 * session.  0 when it exited (ret_status as from waitpid), or a negative code.
 */
int process_capture(const struct process *p, size_t max, uint64_t deadline_ms, int cancel_fd,
		    struct buf *out, int *ret_status);

/* The same of argv, which hears and is told nothing, and leads a session.  env: NULL: ours. */
int process_ask(char *const *argv, char *const *env, size_t max, uint64_t deadline_ms,
		struct buf *out, int *ret_status);

/*
 * fork(2), for a child that goes on in this program: 0 there, its pid here, or
 * -errno.  It has all that we have, signals and descriptors too.
 */
pid_t process_fork(void);
/*
 * The same for a child of init, which nobody has to wait for: 0 there, 1 here
 * when it exists, or -errno.
 */
int process_fork_detached(void);

/*
 * Becomes the user's command: exe with argv and our environment, or argv[0] by
 * PATH when exe is NULL; a script without "#!" goes to sh as from a shell.
 * Signals are as our caller ignores them.  Returns only -errno.
 */
int process_exec(const char *exe, char *const *argv);

/* sched_setscheduler(2) of this thread, with no priority; process_policy(): what it is, or -errno.
 */
void process_set_policy(int policy);
int process_policy(void);
/* For our own needs, and not for the user's commands: handler is SIG_DFL or SIG_IGN. */
void process_signal(int signo, void (*handler)(int));
/* Did our caller have it ignored?  Also when it is ours by now. */
bool process_caller_ignores(int signo);

#endif
