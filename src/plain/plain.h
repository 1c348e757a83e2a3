/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PLAIN_PLAIN_H
#define CONCC_PLAIN_PLAIN_H

/*
 *   plain.c    the link: tables of environments, programs, shares and jobs
 *   ssh_conn.c one connection of OpenSSH's, shared by sessions
 *   session.c  one command there: a script, and the marks around what it prints
 *   marks.c    finds those marks
 *   script.c   the scripts
 *   share.c    a workspace there, by sshfs or as it is
 *   jail.c     the SFTP server sees one workspace of ours, and no more
 *   check.c    whether a program there is the client's
 *   job.c      one job
 *
 * One thread, one loop.  These share the structs below.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/map.h"
#include "concc/plain.h"
#include "concc/proto.h"
#include "marks.h"

/* sshd's MaxSessions is 10: the control session, some mounts and checks, and these. */
#define JOBS_PER_CONN 6
#define CONNS_MAX     ((POOL_SLOTS_MAX + JOBS_PER_CONN - 1) / JOBS_PER_CONN)

struct plain {
	const struct plain_config *conf;
	struct loop *loop;
	struct link *link;
	char *dir;		 /* private: the sockets of the connections */
	struct ssh_conn **conns; /* n_conns */
	unsigned n_conns;
	bool ready; /* READY was sent */
	bool ending;
	struct map envs;     /* id -> struct msg_env */
	struct map callers;  /* id -> struct caller */
	struct map programs; /* id -> struct program */
	struct map shares;   /* workspace -> struct share */
	struct map jobs;     /* id -> struct job */
	struct errmsg *msg;
	int result;
};

/* The worker can't be used any more: tells the client why, and ends. */
void plain_fail(struct plain *p, const char *why);
/* A share or a check came to its end: jobs that waited may go on. */
void plain_go_on(struct plain *p);

/* ---- session.c ---- */

struct session_ops {
	/* It runs, and this is what it said of itself.  May be NULL. */
	void (*begin)(void *data, const char *text);
	/* stream is 1 or 2.  May be NULL. */
	void (*output)(void *data, int stream, const void *p, size_t n);
	/* Input was written that far.  May be NULL. */
	void (*wrote)(void *data, size_t n);
	/* Once, the last call: how it ended by its own word (and what was said on stderr, where
	 * nobody takes that, or NULL); or NULL when the connection or the session was lost, and
	 * why. session_free() is allowed here. */
	void (*end)(void *data, const char *text, const char *why);
};

struct session;

/* argv runs `exec /bin/sh` there; script is its first input. */
int session_start(struct plain *p, char *const *argv, const struct buf *script, const char *token,
		  const struct session_ops *ops, void *data, struct session **ret,
		  struct errmsg *msg);
void session_go(struct session *s); /* the line that a script waits for, before any input */
void session_write(struct session *s, const void *p, size_t n);
void session_write_eof(struct session *s);	   /* after what was written */
void session_pause(struct session *s, bool pause); /* takes no output meanwhile */
/* Hands its standard input and output over: from now on only stderr is ours. */
void session_take_fds(struct session *s, int *ret_in, int *ret_out);
void session_free(struct session *s); /* NULL is fine; ends the ssh, does not wait */

/* A random word for the marks of one session. */
#define TOKEN_LEN 32
void token_new(char token[TOKEN_LEN + 1]);

/* ---- ssh_conn.c ---- */

struct ssh_conn;

struct ssh_conn *ssh_conn_new(struct plain *p, unsigned index);
void ssh_conn_free(struct ssh_conn *c);
bool ssh_conn_is_up(const struct ssh_conn *c);
/* What `uname -n`, `uname -m` and nproc say there. */
const char *ssh_conn_host(const struct ssh_conn *c);
const char *ssh_conn_arch(const struct ssh_conn *c);
uint32_t ssh_conn_cpus(const struct ssh_conn *c);
/* The connection with the fewest jobs; they are counted. */
struct ssh_conn *ssh_conn_take(struct plain *p);
void ssh_conn_release(struct ssh_conn *c);
/* A session of its own there. */
int ssh_conn_session(struct ssh_conn *c, const struct buf *script, const char *token,
		     const struct session_ops *ops, void *data, struct session **ret,
		     struct errmsg *msg);
/* When the connection ends, whatever the reason, this process group is killed there. */
void ssh_conn_group_add(struct ssh_conn *c, uint32_t pgid);
void ssh_conn_group_del(struct ssh_conn *c, uint32_t pgid);
void ssh_conn_group_kill(struct ssh_conn *c, uint32_t pgid);

/* ---- share.c, check.c ---- */

enum state { STATE_NEW, STATE_BUSY, STATE_GOOD, STATE_BAD };

/* Starts what is needed.  why is set with STATE_BAD; borrowed. */
enum state share_get(struct plain *p, const char *workspace, const char **ret_why);
void shares_free(struct plain *p);

struct program {
	struct plain *plain;
	struct msg_exe exe;
	enum state state;
	char *why;
	struct session *session;
	struct buf answer;
};

enum state program_get(struct program *g, const char **ret_why);
void program_free(struct program *g);
/* What sha256sum said of the files, a line for each: why it is another program, on the heap; NULL:
 * it is the same. */
char *program_differs(const struct msg_exe *exe, const char *answer);

/* ---- jail.c ---- */

/*
 * Starts the SFTP server with these fds as its input and output, in a root that
 * holds this directory, at its place, and what the program itself needs.  It
 * dies with us.
 */
int jail_sftp(const char *workspace, const char *root_dir, int in, int out, pid_t *ret,
	      struct errmsg *msg);

/* ---- job.c ---- */

struct job;

int job_start(struct plain *p, struct msg_job *m); /* takes m */
void job_try(struct job *j);			   /* goes on when all it needs is there */
bool job_waits(const struct job *j);
int job_input(struct job *j, const void *p, size_t n); /* none: its end */
void job_credit(struct job *j, uint32_t n);
void job_kill(struct job *j);
void job_free(struct job *j);

#endif
