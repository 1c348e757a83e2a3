/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "plain.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/str.h"

#define CHUNK	  (32 * 1024)
#define GO	  "go\n"
#define WORDS_MAX 400 /* of what ssh said last */

struct session {
	struct plain *plain;
	const struct session_ops *ops;
	void *data;
	pid_t pid;
	int fds[3]; /* our ends of its standard ones; -1: closed or handed over */
	struct loop_source *sources[3];
	struct loop_source *deferred, *child;
	struct marks marks[2]; /* of stdout and stderr */
	struct buf input, words;
	size_t script_left; /* bytes of the input that are not the owner's */
	bool input_eof, begun, over, exited, freed;
	int status, err;
};

void token_new(char token[TOKEN_LEN + 1])
{
	uint8_t bytes[TOKEN_LEN / 2];

	/* Up to 256 bytes are never short once the kernel has booted. */
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		abort();
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(token + 2 * i, 3, "%02x", bytes[i]);
}

static void close_fd(struct session *s, int i)
{
	loop_remove(steal_ptr(&s->sources[i]));
	if (s->fds[i] >= 0)
		close(steal_fd(&s->fds[i]));
}

static void session_delete(struct session *s)
{
	loop_remove(s->deferred);
	for (int i = 0; i < 3; i++)
		close_fd(s, i);
	for (int i = 0; i < 2; i++)
		marks_release(&s->marks[i]);
	buf_release(&s->input);
	buf_release(&s->words);
	free(s);
}

/* ---- its end ---- */

static char *why_lost(const struct session *s)
{
	_cleanup_free_ char *shown = str_escape(s->words.data, s->words.len, WORDS_MAX);

	if (*shown)
		return xstrdup(shown);
	if (s->err < 0)
		return xstrdup(err_text(s->err));
	if (WIFSIGNALED(s->status))
		return xasprintf("ssh was killed by signal %d", WTERMSIG(s->status));
	return xasprintf("ssh ended with status %d", WEXITSTATUS(s->status));
}

/* What the session said of its end counts once both streams have come to it. */
static bool has_ended(const struct session *s)
{
	return s->marks[1].ended && (s->marks[0].ended || s->fds[1] < 0);
}

static void finish(void *data)
{
	struct session *s = data;
	_cleanup_free_ char *why = NULL, *text = NULL;

	s->deferred = NULL;
	if (s->over)
		return;
	s->over = true;
	for (int i = 0; i < 3; i++)
		close_fd(s, i);
	if (s->marks[1].ended)
		text = xstrdup(s->marks[1].texts[1]);
	if (!text || s->words.len)
		why = why_lost(s);
	s->ops->end(s->data, text, why);
}

static void check_end(struct session *s)
{
	bool lost = s->fds[1] < 0 && s->fds[2] < 0 && s->exited;

	if (!s->over && !s->deferred && (has_ended(s) || lost || s->err < 0))
		s->deferred = loop_defer(s->plain->loop, finish, s);
}

static void on_child(void *data, pid_t pid, int status)
{
	struct session *s = data;

	s->child = NULL;
	s->exited = true;
	s->status = status;
	if (s->freed)
		session_delete(s);
	else
		check_end(s);
}

/* ---- what it prints ---- */

/* The last of it: what ssh itself has to say comes before the session's first mark. */
static void keep_words(struct session *s, const void *p, size_t n)
{
	buf_append(&s->words, p, n);
	while (s->words.len && strchr("\r\n", s->words.data[s->words.len - 1]))
		s->words.len--;
	if (s->words.len > WORDS_MAX)
		buf_consume(&s->words, s->words.len - WORDS_MAX);
}

static void take(struct session *s, int stream, const void *p, size_t n)
{
	struct marks *m = &s->marks[stream - 1];
	_cleanup_buf_ struct buf out = BUF_INIT;
	int r;

	if (stream == 2 && !m->begun)
		keep_words(s, p, n);
	r = marks_feed(m, p, n, &out);
	if (r < 0) {
		s->err = r;
		return;
	}
	if (!s->begun && s->marks[0].begun && s->marks[1].begun) {
		s->begun = true;
		buf_reset(&s->words);
		if (s->ops->begin)
			s->ops->begin(s->data, s->marks[0].texts[0]);
	}
	if (out.len && stream == 2 && !s->ops->output)
		keep_words(s, out.data, out.len);
	else if (out.len && s->ops->output)
		s->ops->output(s->data, stream, out.data, out.len);
}

static void read_stream(struct session *s, int stream)
{
	uint8_t part[CHUNK];
	ssize_t n = read(s->fds[stream], part, sizeof(part));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		take(s, stream, part, (size_t)n);
	else
		close_fd(s, stream);
	check_end(s);
}

static void on_stdout(void *data, uint32_t events)
{
	read_stream(data, 1);
}

static void on_stderr(void *data, uint32_t events)
{
	read_stream(data, 2);
}

/* A source that waits for nothing would still be told of a hang-up, again and again. */
void session_pause(struct session *s, bool pause)
{
	static const loop_fd_fn fns[] = {NULL, on_stdout, on_stderr};

	for (int i = 1; i < 3; i++) {
		if (pause)
			loop_remove(steal_ptr(&s->sources[i]));
		else if (s->fds[i] >= 0 && !s->sources[i])
			s->sources[i] = loop_add_fd(s->plain->loop, s->fds[i], LOOP_READ, fns[i],
						    s);
	}
}

/* ---- what it reads ---- */

static void pump(struct session *s)
{
	size_t own;
	ssize_t n = 0;

	if (s->fds[0] < 0)
		return;
	if (s->input.len) {
		n = write(s->fds[0], s->input.data, s->input.len);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			/* It reads no more: what is left is nobody's. */
			n = (ssize_t)s->input.len;
			s->input_eof = true;
		}
	}
	if (n > 0) {
		own = (size_t)n > s->script_left ? (size_t)n - s->script_left : 0;
		s->script_left -= (size_t)n - own;
		buf_consume(&s->input, (size_t)n);
		if (own && s->ops->wrote)
			s->ops->wrote(s->data, own);
	}
	if (s->input.len)
		loop_set_events(s->sources[0], LOOP_WRITE);
	else if (s->input_eof)
		close_fd(s, 0);
	else
		loop_set_events(s->sources[0], 0);
}

static void on_stdin(void *data, uint32_t events)
{
	struct session *s = data;

	if ((events & LOOP_HANGUP) && !s->input.len)
		close_fd(s, 0);
	else
		pump(s);
}

void session_write(struct session *s, const void *p, size_t n)
{
	if (s->fds[0] < 0) {
		if (s->ops->wrote)
			s->ops->wrote(s->data, n);
		return;
	}
	buf_append(&s->input, p, n);
	pump(s);
}

void session_go(struct session *s)
{
	/* Nothing of the owner's is before it. */
	s->script_left += strlen(GO);
	session_write(s, GO, strlen(GO));
}

void session_write_eof(struct session *s)
{
	s->input_eof = true;
	pump(s);
}

void session_take_fds(struct session *s, int *ret_in, int *ret_out)
{
	loop_remove(steal_ptr(&s->sources[0]));
	loop_remove(steal_ptr(&s->sources[1]));
	*ret_in = steal_fd(&s->fds[0]);
	*ret_out = steal_fd(&s->fds[1]);
}

/* ---- its beginning ---- */

static int make_pipe(int *ret_ours, int *ret_theirs, bool we_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_ours = fds[we_write];
	*ret_theirs = fds[!we_write];
	return fd_set_nonblock(*ret_ours, true);
}

static int spawn_ssh(struct session *s, char *const *argv, struct errmsg *msg)
{
	int theirs[3] = {-1, -1, -1}, r = 0;

	for (int i = 0; i < 3 && r == 0; i++)
		r = make_pipe(&s->fds[i], &theirs[i], i == 0);
	if (r == 0)
		r = process_start(&(struct process){.argv = argv,
						    .fds = {theirs[0], theirs[1], theirs[2]},
						    .n_fds = 3},
				  &s->pid);
	for (int i = 0; i < 3; i++) {
		if (theirs[i] >= 0)
			close(theirs[i]);
	}
	return r < 0 ? errmsg_set(msg, r, "can't start %s: %s", argv[0], err_text(r)) : 0;
}

static void end_child(const struct session *s)
{
	(void)kill(s->pid, SIGKILL);
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int session_start(struct plain *p, char *const *argv, const struct buf *script, const char *token,
		  const struct session_ops *ops, void *data, struct session **ret,
		  struct errmsg *msg)
{
	struct session *s = xcalloc(1, sizeof(*s));
	int r;

	s->plain = p;
	s->ops = ops;
	s->data = data;
	s->fds[0] = s->fds[1] = s->fds[2] = -1;
	for (int i = 0; i < 2; i++)
		marks_init(&s->marks[i], token);
	r = spawn_ssh(s, argv, msg);
	if (r < 0) {
		session_delete(s);
		return r;
	}
	s->child = loop_add_child(p->loop, s->pid, on_child, s);
	if (!s->child) {
		r = errmsg_set(msg, -errno, "can't watch %s: %s", argv[0], err_text(-errno));
		end_child(s);
		session_delete(s);
		return r;
	}
	s->sources[0] = loop_add_fd(p->loop, s->fds[0], 0, on_stdin, s);
	s->sources[1] = loop_add_fd(p->loop, s->fds[1], LOOP_READ, on_stdout, s);
	s->sources[2] = loop_add_fd(p->loop, s->fds[2], LOOP_READ, on_stderr, s);
	s->script_left = script->len;
	session_write(s, script->data, script->len);
	*ret = s;
	return 0;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	s->over = true;
	s->freed = true;
	for (int i = 0; i < 3; i++)
		close_fd(s, i);
	if (s->exited) {
		session_delete(s);
		return;
	}
	/* Not reaped yet, so the number is ours. */
	if (!s->plain->ending) {
		(void)kill(s->pid, SIGTERM); /* then on_child() frees */
		return;
	}
	loop_remove(s->child);
	end_child(s);
	session_delete(s);
}
