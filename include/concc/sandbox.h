/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_H
#define CONCC_SANDBOX_H

/*
 * The namespaces of one agent and of its jobs.
 *
 * sandbox_enter() moves the calling, still single-threaded process into a user
 * namespace (in which its own uid shows as the client's), and a mount, IPC and
 * UTS namespace of its own.  Of root it makes an ordinary user first.  There the mirror is mounted,
 * out of any job's sight.
 *
 * The launcher is one forked, single-threaded process, pid 1 of a pid
 * namespace in a private root: the worker's own system read-only, private
 * /tmp, /dev of a few nodes, its own /proc, no network.  It starts the jobs, so
 * no thread that serves FUSE ever waits for an exec.  When it ends, for
 * whatever reason, the kernel ends every process of every job with it; it ends
 * when the agent does.
 *
 * A job runs under a small init (pid 1 of a nested pid namespace) in a mount
 * namespace with a fresh tmpfs: one overlay per workspace above the mirror, a
 * private /tmp, an IPC and a network namespace with a loopback interface.  When the main process of
 * a job ends, all it left is killed.
 *
 * Read from the agent's environment: CONCC_WORKER_SHOW (root.h),
 * CONCC_WORKER_UPPER and CONCC_WORKER_TMPFS_SIZE (overlay.h).
 *
 * All is the agent's thread's, but for what says otherwise, and callbacks come from its loop.  What
 * returns int gives 0 or a negative code, where no more is said, and says so in msg where there is
 * one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "concc/caller.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/loop.h"

struct sandbox_config {
	uid_t uid; /* of the client's user: what jobs see as their own */
	gid_t gid;
	const char *host; /* the host name that jobs see */
	/* Names of the client's root directory, NULL: none; kept as long as the launcher.  Those
	 * that the root of jobs has of its own are not taken (root.h); of the others jobs see
	 * what the mirror has in MIRROR_OUTSIDE. */
	char *const *top;
	/* Jobs see nothing of the worker's own system: its top is `links` (name, target, ...; NULL:
	 * none), launch.trees, and for all the rest of `top` what is in MIRROR_OUTSIDE. */
	bool client_root;
	char *const *links;
};

struct sandbox_paths {
	char mirror[64]; /* where to mount the mirror, in the agent's namespace */
	int fuse_fds[2]; /* /dev/fuse, for who can't open it any more; -1: not needed */
};

/* As whom root's agent and jobs run, see concc/io.h; 0 for others than root, and where no such id
 * exists. */
uid_t sandbox_uid(void);
/* Gives the directory, and what root has put in it, to that id.  0 or -errno; nothing for others.
 */
int sandbox_give(const char *dir);

/* msg tells the exact remedy where the kernel or distribution refuses. */
int sandbox_enter(const struct sandbox_config *c, struct sandbox_paths *ret, struct errmsg *msg);

struct launcher;
struct running;

/* What the job did and what is left for the agent to collect. */
struct job_end {
	bool started; /* false: err and text say why, nothing ran */
	int err;
	char text[256];
	int wait_status;      /* as from waitpid(2) */
	struct rusage rusage; /* of the main process and all its descendants that were waited for */
	uint64_t wall_us;
	bool left;    /* it left processes that would have gone on: they were killed */
	int trace_fd; /* of a job that was traced: see launch.trace; borrowed for the call.  -1:
			 none */
};

enum launch_look {
	LAUNCH_LOCKS, /* locks it to read it */
	LAUNCH_ASKS,  /* asks for its extended attributes */
};

struct launcher_ops {
	/* The mounts are made and the command is about to run; upper[i] is a directory fd of the
	 * upper layer of workspace i, tmp of the private /tmp: the callee's now. */
	void (*prepared)(void *data, uint32_t job_id, int *upper_fds, size_t n, int tmp_fd);
	/* It is about to do what can't have the effect here that it has on the client, as text
	 * says: the process waits until the job is killed, for which this is the time. */
	void (*beyond)(void *data, uint32_t job_id, const char *text);
	/* It does this with a file of the client's (a path in its workspace); told once, before it
	 * ends. */
	void (*looks)(void *data, uint32_t job_id, enum launch_look how, size_t workspace,
		      const char *path);
	/* All processes of the job are gone. */
	void (*ended)(void *data, uint32_t job_id, const struct job_end *end);
	/* The launcher died: no job can run any more.  wait_status as from waitpid(2), -1: it can't
	 * end yet. */
	void (*lost)(void *data, int wait_status);
};

/* Forks the launcher and waits until its root is built.  mirror is where the mirror is mounted;
 * ops is borrowed until launcher_stop(). */
int launcher_start(struct loop *l, const struct sandbox_config *c, const char *mirror,
		   const struct launcher_ops *ops, void *data, struct launcher **ret,
		   struct errmsg *msg);

struct launch {
	uint32_t job_id;
	const char *exe;  /* absolute */
	const char *path; /* the same file, as execve(2) is to get it: maybe relative to cwd */
	char *const *argv;
	char *const *env;
	const char *cwd;
	char *const *workspaces;
	char *const *trees; /* of client_root; NULL: none.  Those of former jobs come first */
	mode_t umask;
	struct caller caller; /* what it gets of that, nothing of which is lacking here */
	uint64_t memory;      /* RLIMIT_DATA of each process, if less; 0: none */
	uint32_t processes;   /* RLIMIT_NPROC, which counts all jobs of this agent; 0: none */
	int stdin_fd, stdout_fd, stderr_fd; /* borrowed: duplicated by sending */
	/* What it looks at is remembered: a file with a word that says why that is void ("": it is
	 * whole), then names as in JOB_TRACE, each ended by NUL. */
	bool trace;
	bool seeks;    /* stdin_fd is a pipe, and the caller's a file: who seeks in it is ended */
	bool reads;    /* stdin_fd is a terminal at which nobody sits: who reads there is ended */
	bool terminal; /* its caller has one: who uses /dev/tty is ended */
};

/* Starts it, without waiting: ops tell what comes of it.  Else none of them is called: -EEXIST,
 * there is a job of this id; CONCC_E_UNAVAIL, the launcher is gone; or another code.  j is borrowed
 * for the call. */
int launcher_run(struct launcher *l, const struct launch *j);
/* Above all processes of all jobs; -1: it has ended. */
pid_t launcher_pid(const struct launcher *l);
/* signo to the job's processes; SIGKILL ends its init, and with it everything of the job. */
void launcher_kill(struct launcher *l, uint32_t job_id, int signo);
/* Kills what runs, and waits for its end; NULL is fine.  Stop the mirror first: a process that
 * waits for it can't die. */
void launcher_stop(struct launcher *l);

/*
 * What overlayfs has marked an entry of an upper layer with; fd is one of it, not O_PATH.  A file
 * was below and was copied up, rather than made by the job; a directory hides the lower one of its
 * name: 1, 0, or -errno, when it can't be told.
 */
bool overlay_is_copied_up(int fd);
int overlay_is_opaque(int fd);
/*
 * A file that was copied up keeps overlayfs's mark wherever it is moved, so before that one of ours
 * says which name it had below, relative to the layer: 0, or -errno.  The first one stays.  Is it
 * the file that was below at path, and not one that was moved there?
 */
int overlay_mark_moved(int fd, const char *from);
bool overlay_is_from(int fd, const char *path);

struct stat;
/* A directory in a job's private /tmp that the sandbox made, for something to be mounted on. */
bool sandbox_is_mountpoint(const struct stat *st);

/* What of the worker's own system jobs see beyond the usual, by CONCC_WORKER_SHOW: paths, cleaned;
 * on the heap. */
char **root_shown(void);
/* Of the names in the client's root, those that jobs see by MIRROR_OUTSIDE; on the heap.  client:
 * jobs see the client's system, with these links (name, target, ...; NULL: none). */
char **root_mirrored(char *const *top, char *const *links, bool client);
struct mirror;
/* For a client's system: the places in MIRROR_OUTSIDE that the jobs' root mounts on. */
int root_name_places(struct mirror *m, char *const *mirrored);

/*
 * A file of the worker's own system that may have the bytes of the client's at this path (absolute,
 * clean), since it is as large: opened to be read, or -errno.  Only what every user may read, in
 * the directories of a system that jobs are shown with root = worker, without /etc; behind no
 * symlink or mount, and not in the login's home.  Blocks, from any thread, once the sandbox was
 * entered; home: of sandbox_own_home().
 */
int sandbox_open_own(const char *path, uint64_t size, const char *home);
bool sandbox_may_own(const char *path); /* is it in those directories? */
char *sandbox_own_home(void);		/* on the heap, or NULL */

#define JOB_NONE    -1 /* this process or its launcher */
#define JOB_UNKNOWN -2 /* it may be any */
/*
 * The id of the job that a process below the caller's launcher belongs to, or one
 * of the above.  From any thread; the process must be alive.
 */
int64_t launcher_job_of(pid_t pid);
/*
 * Is the process, which waits for the look-up of this name, about to make it?  On a
 * read-only mount, and where a link would lead to another, the kernel asks for no more than
 * that.  False when nobody can tell: it is in a call of another architecture, or its
 * memory is closed to us.  From any thread; the process must be alive.
 */
bool sandbox_makes(pid_t pid, const char *name);

/* ---- what may keep all this from working ---- */

/* Values of the settings that matter; -1 where the kernel has no such setting. */
struct userns_knobs {
	long max_user_namespaces;		    /* user.max_user_namespaces */
	long unprivileged_userns_clone;		    /* kernel.unprivileged_userns_clone (Debian) */
	long apparmor_restrict_unprivileged_userns; /* kernel.* (Ubuntu) */
};

void userns_knobs_read(struct userns_knobs *ret);
/* 0, or -errno: why /dev/fuse can't be opened.  From any thread, as the one above. */
int sandbox_try_fuse(void);

#endif
