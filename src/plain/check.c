/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Whether a program there is the client's: asked once, by sha256sum(1). */
#include "plain.h"
#include "script.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/digest.h"
#include "concc/str.h"

#define ANSWER_MAX (PROTO_EXE_FILES_MAX * 128) /* a digest and " -" each */

static void bad(struct program *g, char *why)
{
	g->state = STATE_BAD;
	g->why = why;
}

/* The next line of the answer, without its newline; "" at the end. */
static char *next_line(const char **at)
{
	size_t n = strcspn(*at, "\n");
	char *line = xstrndup(*at, n);

	*at += n + ((*at)[n] == '\n');
	return line;
}

char *program_differs(const struct msg_exe *exe, const char *answer)
{
	for (uint32_t i = 0; i < exe->n_files; i++) {
		const struct exe_file *f = &exe->files[i];
		_cleanup_free_ char *line = next_line(&answer);
		char hex[DIGEST_HEX];

		digest_hex(&f->digest, hex);
		if (strncmp(line, hex, DIGEST_HEX - 1) == 0)
			continue;
		if (streq(line, "missing"))
			return xasprintf("it can't open %s; install the same compiler there",
					 f->path);
		if (strlen(line) < DIGEST_HEX - 1)
			return xasprintf("its sha256sum has no word about %s; is coreutils there?",
					 f->path);
		return xasprintf("its %s is another version than yours; install the same compiler "
				 "there",
				 f->path);
	}
	return NULL;
}

static void compare(struct program *g)
{
	char *why = program_differs(&g->exe, buf_cstr(&g->answer));

	if (why)
		bad(g, why);
	else
		g->state = STATE_GOOD;
}

static void on_output(void *data, int stream, const void *p, size_t n)
{
	struct program *g = data;

	if (stream == 1 && g->answer.len + n <= ANSWER_MAX)
		buf_append(&g->answer, p, n);
}

static void on_end(void *data, const char *text, const char *why)
{
	struct program *g = data;

	session_free(steal_ptr(&g->session));
	if (text)
		compare(g);
	else
		bad(g, xasprintf("it could not be asked for the digest of its compiler: %s", why));
	buf_release(&g->answer);
	plain_go_on(g->plain);
}

static const struct session_ops check_ops = {.output = on_output, .end = on_end};

static void ask(struct program *g)
{
	_cleanup_buf_ struct buf script = BUF_INIT;
	char token[TOKEN_LEN + 1];
	struct errmsg msg = {0};

	token_new(token);
	script_check(&script, token, &g->exe);
	g->state = STATE_BUSY;
	if (ssh_conn_session(g->plain->conns[0], &script, token, &check_ops, g, &g->session, &msg) <
	    0)
		bad(g, xstrdup(msg.text));
}

enum state program_get(struct program *g, const char **ret_why)
{
	/* What is in a workspace is seen there as it is here. */
	if (g->state == STATE_NEW && !g->exe.n_files)
		g->state = STATE_GOOD;
	if (g->state == STATE_NEW)
		ask(g);
	*ret_why = g->why;
	return g->state;
}

void program_free(struct program *g)
{
	session_free(g->session);
	buf_release(&g->answer);
	msg_exe_release(&g->exe);
	free(g->why);
	free(g);
}
