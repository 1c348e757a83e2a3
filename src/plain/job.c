/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "plain.h"
#include "script.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

/* Over the kernel's limit of a command; a build with longer ones uses files of arguments. */
#define SCRIPT_MAX (4 * 1024 * 1024)
#define NAMED_MAX  64 /* paths in the arguments that are looked for */

struct job {
	struct plain *plain;
	struct msg_job msg;
	struct ssh_conn *conn; /* counted there */
	struct session *session;
	char **named;	  /* absolute paths in the arguments, outside every workspace */
	struct buf input; /* come before the job began */
	uint32_t group;
	uint32_t window; /* of output */
	bool begun, input_eof, killed;
	uint64_t started_us;
};

static void send_exit(struct job *j, enum exit_how how, uint32_t code, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *none[] = {NULL};
	struct msg_exit m = {
		.job_id = j->msg.job_id,
		.how = (uint8_t)how,
		.code = code,
		.text = (char *)text,
		.wall_us = j->started_us ? now_us() - j->started_us : 0,
		.outside = none,
	};

	msg_exit_encode(&b, &m);
	link_send_buf(j->plain->link, MSG_JOB_EXIT, LINK_BULK, &b);
}

void job_free(struct job *j)
{
	map_del_u64(&j->plain->jobs, j->msg.job_id);
	session_free(j->session);
	if (j->conn)
		ssh_conn_release(j->conn);
	strv_free(j->named);
	buf_release(&j->input);
	msg_job_release(&j->msg);
	free(j);
}

static void job_end(struct job *j, enum exit_how how, uint32_t code, const char *text)
{
	send_exit(j, how, code, text);
	job_free(j);
}

/* ---- the session's words ---- */

/* The text comes from the far end: how it says a status is checked, and so is the number. */
static void on_word(struct job *j, const char *text)
{
	unsigned code = 0;

	if (sscanf(text, "end code %u", &code) == 1 && code <= 255)
		job_end(j, EXIT_CODE, code, "");
	else if (sscanf(text, "end signal %u", &code) == 1 && code > 0 && code <= 64)
		job_end(j, EXIT_SIGNAL, code, "");
	else if (streq(text, "end caller"))
		job_end(j, EXIT_REFUSED, REFUSED_CALLER,
			"its login has a lower limit than this call (ulimit -aH)");
	else if (streq(text, "end cwd"))
		job_end(j, EXIT_REFUSED, REFUSED_CWD, "its directory is not there");
	else
		job_end(j, EXIT_FAILED, 0, "the job ended in an unknown way");
}

static void on_end(void *data, const char *text, const char *why)
{
	struct job *j = data;

	if (j->group)
		ssh_conn_group_del(j->conn, j->group);
	if (text)
		on_word(j, text);
	else if (j->killed)
		job_end(j, EXIT_SIGNAL, SIGKILL, "");
	else
		job_end(j, EXIT_FAILED, 0, why);
}

static void tell_missing(struct job *j, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *paths[] = {(char *)path, NULL};

	msg_missing_encode(&b, j->msg.job_id, MISSING_NAMED, paths);
	link_send_buf(j->plain->link, MSG_JOB_MISSING, LINK_BULK, &b);
}

/* The group is known where it would be killed before the job is told to go. */
static void on_begin(void *data, const char *text)
{
	struct job *j = data;
	unsigned group = 0, missing = 0;

	if (sscanf(text, "begin %u %u", &group, &missing) != 2 || group < 2 ||
	    missing > strv_len(j->named)) {
		session_free(steal_ptr(&j->session));
		job_end(j, EXIT_FAILED, 0, "its shell does not answer as a POSIX shell does");
		return;
	}
	j->group = group;
	j->begun = true;
	ssh_conn_group_add(j->conn, group);
	if (j->killed) {
		ssh_conn_group_kill(j->conn, group);
		return;
	}
	if (missing)
		tell_missing(j, j->named[missing - 1]);
	session_go(j->session);
	if (j->input.len)
		session_write(j->session, j->input.data, j->input.len);
	buf_release(&j->input);
	if (j->input_eof)
		session_write_eof(j->session);
}

static void on_output(void *data, int stream, const void *p, size_t n)
{
	struct job *j = data;
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (j->killed)
		return;
	msg_output_encode(&b, j->msg.job_id, (uint8_t)stream, p, n);
	link_send_buf(j->plain->link, MSG_JOB_OUTPUT, LINK_BULK, &b);
	j->window -= n < j->window ? (uint32_t)n : j->window;
	/* What one read brings, and what is held back for a mark, must still find room. */
	if (j->window < PROTO_OUTPUT_WINDOW / 2)
		session_pause(j->session, true);
}

static void on_wrote(void *data, size_t n)
{
	struct job *j = data;
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!n || !(j->msg.flags & JOB_F_STDIN))
		return;
	msg_pair_encode(&b, j->msg.job_id, (uint32_t)n);
	link_send_buf(j->plain->link, MSG_INPUT_CREDIT, LINK_PRIO, &b);
}

static const struct session_ops job_ops = {
	.begin = on_begin,
	.output = on_output,
	.wrote = on_wrote,
	.end = on_end,
};

/* ---- starting ---- */

static bool is_shared(const struct job *j, const char *path)
{
	for (char **w = j->msg.workspaces; *w; w++) {
		if (path_is_below(path, *w))
			return true;
	}
	return false;
}

static void find_named(struct job *j)
{
	j->named = xcalloc(1, sizeof(*j->named));
	for (char **a = j->msg.argv + 1; *a && strv_len(j->named) < NAMED_MAX; a++) {
		const char *p = job_arg_path(*a);

		/* One that is not here either is the command's own affair. */
		if (p && !is_shared(j, p) && strlen(p) < PROTO_PATH_MAX)
			strv_push(&j->named, xstrdup(p));
	}
}

static void run(struct job *j, const struct msg_env *env, const struct caller *caller)
{
	_cleanup_buf_ struct buf script = BUF_INIT;
	char token[TOKEN_LEN + 1];
	struct errmsg msg = {0};

	if (!script_can_say(caller)) {
		job_end(j, EXIT_REFUSED, REFUSED_CALLER,
			"a shell can't give a job what this call has: its personality, blocked "
			"signals, or limits that are no whole number of blocks");
		return;
	}
	token_new(token);
	find_named(j);
	script_job(&script, token, &j->msg, caller, env->env, j->named);
	j->conn = ssh_conn_take(j->plain);
	j->started_us = now_us();
	if (script.len > SCRIPT_MAX)
		errmsg_set(&msg, CONCC_E_TOOBIG, "the command is too long");
	else if (ssh_conn_session(j->conn, &script, token, &job_ops, j, &j->session, &msg) == 0)
		return;
	job_end(j, EXIT_FAILED, 0, msg.text);
}

void job_try(struct job *j)
{
	struct plain *p = j->plain;
	struct program *g = map_get_u64(&p->programs, j->msg.exe_id);
	bool wait = !p->ready;
	const char *why;

	switch (program_get(g, &why)) {
	case STATE_BAD:
		job_end(j, EXIT_REFUSED, REFUSED_TOOLCHAIN, why);
		return;
	case STATE_GOOD:
		break;
	default:
		wait = true;
	}
	for (char **w = j->msg.workspaces; *w; w++) {
		enum state state = share_get(p, *w, &why);

		if (state == STATE_BAD) {
			job_end(j, EXIT_REFUSED, REFUSED_CWD, why);
			return;
		}
		wait = wait || state != STATE_GOOD;
	}
	if (!wait)
		run(j, map_get_u64(&p->envs, j->msg.env_id),
		    map_get_u64(&p->callers, j->msg.caller_id));
}

bool job_waits(const struct job *j)
{
	return !j->session;
}

int job_start(struct plain *p, struct msg_job *m)
{
	struct job *j;

	if (map_get_u64(&p->jobs, m->job_id) || !map_get_u64(&p->envs, m->env_id) ||
	    !map_get_u64(&p->programs, m->exe_id) || !map_get_u64(&p->callers, m->caller_id)) {
		msg_job_release(m);
		return CONCC_E_PROTO;
	}
	j = xcalloc(1, sizeof(*j));
	j->plain = p;
	j->msg = *m;
	j->window = PROTO_OUTPUT_WINDOW;
	map_put_u64(&p->jobs, m->job_id, j);
	job_try(j);
	return 0;
}

/* ---- the client's words ---- */

int job_input(struct job *j, const void *p, size_t n)
{
	if (!(j->msg.flags & JOB_F_STDIN) || j->input.len + n > PROTO_INPUT_WINDOW)
		return CONCC_E_PROTO;
	if (!n)
		j->input_eof = true;
	if (!j->begun)
		buf_append(&j->input, p, n);
	else if (n)
		session_write(j->session, p, n);
	else
		session_write_eof(j->session);
	return 0;
}

void job_credit(struct job *j, uint32_t n)
{
	j->window = n > PROTO_OUTPUT_WINDOW - j->window ? PROTO_OUTPUT_WINDOW : j->window + n;
	if (j->session && j->window >= PROTO_OUTPUT_WINDOW / 2)
		session_pause(j->session, false);
}

void job_kill(struct job *j)
{
	j->killed = true;
	if (!j->session) {
		job_end(j, EXIT_SIGNAL, SIGKILL, "");
		return;
	}
	session_pause(j->session, false); /* what it said goes nowhere, but its end must come */
	if (j->begun)
		ssh_conn_group_kill(j->conn, j->group);
}
