/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "ssh_command.h"

#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/str.h"
#include "ssh_config.h"

static char *shell_quote(const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-./+:@%,";
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (*s && strspn(s, plain) == strlen(s))
		return xstrdup(s);
	buf_putf(&b, "'");
	for (; *s; s++) {
		if (*s == '\'')
			buf_putf(&b, "'\\''");
		else
			buf_append(&b, s, 1);
	}
	buf_putf(&b, "'");
	return xstrdup(buf_cstr(&b));
}

char *ssh_command_remote(const char *program, enum install install, const struct worker_file *file)
{
	bool home = program && str_starts(program, "~/");
	char *quoted, *all;

	if (!program)
		return push_command(install, file);
	quoted = shell_quote(home ? program + 2 : program);
	all = xasprintf("exec %s%s --stdio", home ? "~/" : "", quoted);
	free(quoted);
	return all;
}

const char *ssh_command_program(const char *ssh)
{
	return ssh ? ssh : "ssh";
}

static void push(char ***argv, const char *word)
{
	strv_push(argv, xstrdup(word));
}

void ssh_command_push_target(char ***argv, const struct ssh_address *a)
{
	if (a->port) {
		push(argv, "-p");
		strv_push(argv, xasprintf("%u", a->port));
	}
	if (a->user) {
		push(argv, "-l");
		push(argv, a->user);
	}
	push(argv, "--");
	push(argv, a->host);
}

/*
 * Nothing of the user's configuration may ask, forward or share: there is no
 * terminal, no credential goes to a worker, and the stream is ours alone.
 */
char **ssh_command_argv(const struct ssh_command *c)
{
	static const char *const options[] = {
		"-T",
		"-a",
		"-x",
		"-o",
		"BatchMode=yes",
		"-o",
		"ControlMaster=no",
		"-o",
		"ControlPath=none",
		"-o",
		"Compression=no",
		"-o",
		"ServerAliveInterval=15",
		"-o",
		"ClearAllForwardings=yes",
		"-o",
		"RemoteCommand=none",
		"-o",
		"PermitLocalCommand=no",
		"-o",
		"EscapeChar=none",
		"-o",
		"LogLevel=ERROR",
	};
	char **argv = NULL;

	push(&argv, ssh_command_program(c->ssh));
	for (size_t i = 0; i < N_OF(options); i++)
		push(&argv, options[i]);
	push(&argv, "-o");
	strv_push(&argv, xasprintf("ConnectTimeout=%u", (c->timeout_ms + 999) / 1000));
	ssh_command_push_target(&argv, c->target);
	strv_push(&argv, ssh_command_remote(c->program, c->install, c->file));
	return argv;
}
