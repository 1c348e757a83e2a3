/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_H
#define CONCC_WRAPPER_H

/*
 * The client's side of one command: decide, take a slot, hand the job to the
 * project server, relay, and whatever fails: run the command here.  Libc only;
 * blocking calls, one thread: a process per compiler call.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"
#include "concc/err.h"

/* Exit codes of our own; what the command returns passes through unchanged. */
enum wrapper_exit {
	WRAPPER_EXIT_USAGE = 100,
	WRAPPER_EXIT_FAILED = 101, /* the command could not even be run here */
	WRAPPER_EXIT_SERVER = 102, /* `concc`: the project server can't be reached or started */
	WRAPPER_EXIT_LOCAL = 103,  /* `concc run --require-remote`: too much of it ran here */
};

struct wrapper_options {
	bool any_command; /* concc-dispatch: no compiler policy, stdin always streamed */
	bool alone;	  /* concc is gone: run it here, without a word */
	bool keeps;	  /* its result may be kept and used again: the caller says so */
	bool no_times;	  /* and that it does not go by the times of files */
	char **argv;	  /* the command, at least one word; its first may be changed */
};

/* Called by a name of ours, rather than by that of a compiler, which is then meant? */
bool wrapper_is_own_name(const char *argv0);

/* Runs the command somewhere.  Returns the status to exit with; may exec or die by the command's
 * signal instead. */
int wrapper_run(const struct wrapper_options *o);

/* Of concc-dispatch: takes what is in front of the command. */
void wrapper_dispatch_options(char **argv, struct wrapper_options *o);

/* Would its result be found, and if not, why?  Says so on standard output, and runs nothing.  0:
 * yes; 1: no; or of enum wrapper_exit. */
int wrapper_why(const struct wrapper_options *o);

/* ---- masquerade directories ---- */

/*
 * Those that `concc run` puts in front of PATH have symlinks named like compilers to a copy of
 * concc-cc, for build systems keep their paths: the copy is there when concc is no longer.
 */
#define MASQUERADE_MARK ".concc-cc" /* a symlink to it, in each of them */

bool masquerade_is(const char *dir);

enum copy_state {
	COPY_NONE,  /* installed itself */
	COPY_SAME,  /* a copy of what is installed */
	COPY_STALE, /* of another version than what is installed now: ret_installed, the caller's */
	COPY_ORPHAN, /* nothing is installed any more */
};

/* What this program is, of those. */
enum copy_state wrapper_copy(char **ret_installed);

/* What a person may have meant by a program that is not there, to go on behind why; or "". */
const char *wrapper_meant(const char *name);

/* ---- messages over a blocking socket ---- */

struct conn {
	int fd;
	struct buf in;
	bool waits; /* the server was told that its job waits for a slot */
};

void conn_release(struct conn *c);
/* One message, cut into frames.  0 or -errno.  Blocks until the socket has all of it. */
int conn_send(struct conn *c, uint8_t type, const struct buf *b);
/* One whole message; out is overwritten.  CONCC_E_CLOSED at the end of the stream.  Blocks. */
int conn_recv(struct conn *c, uint8_t *ret_type, struct buf *out);
/* True when a whole frame is buffered already, so that poll(2) must not be asked. */
bool conn_has_frame(const struct conn *c);

/* ---- the project server ---- */

/* True when one is ready for this runtime directory, and speaks our version of the protocol. */
bool server_is_ready(int dir_fd);
bool server_is_there(int dir_fd); /* of whatever version */
/*
 * Starts it unless it is ready; waits for the one who is starting it.  One of another version ends
 * when its jobs have.  msg says what it said.  -EXDEV: none is started in mounts that pass.
 */
int server_ensure(const char *dir, int dir_fd, struct errmsg *msg);
/* 0 with ret, which conn_release() ends; or -errno. */
int server_connect(const char *dir, struct conn *ret);
/* One message to a server that is there and takes it at once; else it is lost, and no matter. */
void server_tell(const char *dir, uint8_t type, const struct buf *b);
/*
 * When nobody listens any more, and yet one seems ready: a process that is killed closes its files
 * one after the other.  Returns when it has ended, after a few seconds, or at once when it can't be
 * told.
 */
void server_wait_end(int dir_fd);
/* It still seems ready, and is such a process: what is sent to it nobody reads. */
bool server_is_ending(int dir_fd);
/* Of builds with workers of their own (`concc run -w`), which each make one. */
#define RUN_DIR_PREFIX "/tmp/concc-run-"
/* Those that are there, of this user, but mine, which is known already.  NULL: none. */
char **server_other_dirs(const char *mine);
/* Has all servers of this user write what records of jobs they have.  Waits for that, which takes
 * milliseconds on a machine and a disk that work.  Returns the runtime directory of one that has
 * not done so, on the heap; NULL: none. */
char *servers_flush(unsigned limit_ms);
#define SERVERS_FLUSH_MS 10000 /* for who says what there was */
/* The directory of this program, or NULL. */
char *program_dir(void);
/* The path of another program of ours: beside this one, else the bare name for PATH. */
char *program_path(const char *name);

/* ---- lines for a person that must not be on stderr (wrapper/words.h) ---- */

/* FILE.said, or DIRECTORY/said; on the heap. */
char *wrapper_notes_path(const char *path);
/* What tells one open file from another, as text on the heap; NULL when fd is closed. */
char *wrapper_file_id(int fd);

/*
 * ---- counters: where jobs ran and why, shared by processes through one mapped file ----
 *
 * In the runtime directory that is "tally", and the lines above are in "said": names by which other
 * versions find them, so they stay.
 */

#define COUNTERS_NAME_MAX 95 /* a kind and a worker (POOL_NAME_MAX) or a rule */
/* Each worker (POOL_MEMBERS_MAX) and each rule, of several kinds, three times over.  What comes
 * when all places are taken is counted together, and said at most as often as one name. */
#define COUNTERS_MAX 2048
/* Of one name: what has more is not read anyway, and each is an entry. */
#define COUNTERS_REASONS 4

struct counter {
	char name[COUNTERS_NAME_MAX + 1];
	uint64_t n;
};

/* Adds to `name` in the file, which is made when missing.  Failures are ignored: it only counts. */
void counters_add(const char *path, const char *name, uint64_t n);
/* Reads at most max entries; 0 when there is no file. */
size_t counters_read(const char *path, struct counter *ret, size_t max);
/* True at most once per period for a name, over all processes of this user. */
bool counters_may_say(const char *path, const char *name, uint64_t period_s);
/*
 * The same for a reason, any text, of that name: each once per period, and of all of them together
 * COUNTERS_REASONS, since every job of a build may have one of its own.
 */
bool counters_may_say_why(const char *path, const char *name, const char *reason,
			  uint64_t period_s);
/* Remembers that the user of these counters was told text, and says whether; its hash, that is. */
void counters_mark_shown(const char *path, const char *text);
bool counters_was_shown(const char *path, const char *text);

#endif
