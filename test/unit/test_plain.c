/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The marks around what a plain worker's session prints, and its scripts under real shells. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"
#include "plain/marks.h"
#include "plain/script.h"

#define TOKEN "0123456789abcdef0123456789abcdef"
#define MARK  "\0concc-" TOKEN " "

/* sizeof without the NUL at the end: the bytes themselves have some. */
#define BYTES(s) (s), sizeof(s) - 1

/* Feeds it in pieces of each size; what is between the marks must be the same. */
static void feed(const char *p, size_t n, const char *want, size_t n_want, const char *begin,
		 const char *end)
{
	for (size_t piece = 1; piece <= n; piece++) {
		struct buf out = BUF_INIT;
		struct marks m;

		marks_init(&m, TOKEN);
		for (size_t at = 0; at < n; at += piece) {
			size_t k = n - at < piece ? n - at : piece;

			cr_assert_eq(marks_feed(&m, p + at, k, &out), 0);
		}
		cr_assert_eq(out.len, n_want, "%zu bytes, in pieces of %zu", out.len, piece);
		cr_assert(n_want == 0 || memcmp(out.data, want, n_want) == 0);
		cr_assert_eq(m.begun, begin != NULL);
		cr_assert_eq(m.ended, end != NULL);
		cr_assert(!begin || streq(m.texts[0], begin));
		cr_assert(!end || streq(m.texts[1], end));
		marks_release(&m);
		buf_release(&out);
	}
}

Test(marks, between)
{
	feed(BYTES("Welcome\n" MARK "begin 7 0\none\ntwo" MARK "end code 3\nlate"),
	     BYTES("one\ntwo"), "begin 7 0", "end code 3");
	feed(BYTES(MARK "b\n" MARK "e\n"), NULL, 0, "b", "e");
	feed(BYTES("noise only \0concc-"), NULL, 0, NULL, NULL);
}

/* NULs, beginnings of marks and foreign tokens are what the job printed. */
Test(marks, lookalikes)
{
	feed(BYTES(MARK "b\n\0\0\0concc-\0concc-ffff \n" MARK "e\n"),
	     BYTES("\0\0\0concc-\0concc-ffff \n"), "b", "e");
}

Test(marks, bounds)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	char noise[4096];
	struct marks m;
	int r = 0;

	memset(noise, 'x', sizeof(noise));
	marks_init(&m, TOKEN);
	for (int i = 0; i < 100 && r == 0; i++)
		r = marks_feed(&m, noise, sizeof(noise), &out);
	cr_expect_eq(r, CONCC_E_PROTO, "noise without end");
	marks_release(&m);
	marks_init(&m, TOKEN);
	r = marks_feed(&m, BYTES(MARK), &out);
	for (int i = 0; i < 3 && r == 0; i++)
		r = marks_feed(&m, noise, sizeof(noise), &out);
	cr_expect_eq(r, CONCC_E_PROTO, "a mark without end");
	marks_release(&m);
	marks_init(&m, TOKEN);
	cr_expect_eq(marks_feed(&m, BYTES(MARK "a\n" MARK "b\n" MARK "c\n"), &out), CONCC_E_PROTO);
	marks_release(&m);
}

/* Runs the script by that shell in a group of its own; what came on the stream is in out. */
static void run(const char *shell, const struct buf *script, const char *input, int stream,
		struct buf *out)
{
	int in[2], result[2];
	char part[4096];
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe2(in, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(result, O_CLOEXEC), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		setsid();
		dup2(in[0], 0);
		dup2(result[1], stream);
		execlp(shell, "sh", (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(result[1]);
	cr_assert_eq(write_full(in[1], script->data, script->len), 0);
	/* Shells read ahead, so the input may not come before the script's word. */
	while ((n = read(result[0], part, sizeof(part))) > 0) {
		buf_append(out, part, (size_t)n);
		if (in[1] >= 0 && memchr(out->data, '\n', out->len)) {
			cr_assert_eq(write_full(in[1], input, strlen(input)), 0);
			close(in[1]);
			in[1] = -1;
		}
	}
	close(result[0]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

static struct caller caller; /* of the next jobs; as this process's until it is set */

static char *job_says(const char *shell, const char *text, const char *cwd, char *const *named,
		      char **ret_begin, struct buf *ret_out)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)text, NULL};
	char *env[] = {(char *)"PATH=/usr/bin:/bin", NULL}, *none[] = {NULL};
	struct msg_job m = {.path = (char *)"/bin/sh",
			    .argv = argv,
			    .cwd = (char *)cwd,
			    .umask = 022,
			    .flags = JOB_F_STDIN};
	_cleanup_buf_ struct buf script = BUF_INIT, all = BUF_INIT;
	struct marks marks;
	char *end;

	if (!caller.limits[CALLER_NOFILE].soft)
		caller_read(&caller);
	script_job(&script, TOKEN, &m, &caller, env, named ? named : none);
	run(shell, &script, "go\nits own input\n", 1, &all);
	marks_init(&marks, TOKEN);
	cr_assert_eq(marks_feed(&marks, all.data, all.len, ret_out), 0);
	cr_assert(marks.begun && marks.ended, "%s: %s", shell, text);
	end = xstrdup(marks.texts[1]);
	*ret_begin = xstrdup(marks.texts[0]);
	marks_release(&marks);
	return end;
}

static void expect_job(const char *text, const char *cwd, const char *want, const char *output)
{
	static const char *const shells[] = {"dash", "bash", "busybox"};

	for (size_t i = 0; i < sizeof(shells) / sizeof(*shells); i++) {
		struct buf out = BUF_INIT;
		_cleanup_free_ char *path = xasprintf("/bin/%s", shells[i]);
		char *begin, *end;

		if (access(path, X_OK) != 0)
			continue;
		end = job_says(shells[i], text, cwd, NULL, &begin, &out);
		cr_expect_str_eq(end, want, "%s: %s: %s", shells[i], text, end);
		cr_expect_str_eq(buf_cstr(&out), output, "%s: %s", shells[i], text);
		buf_release(&out);
		free(begin);
		free(end);
	}
}

Test(script, ends, .timeout = 300)
{
	expect_job("exit 0", "/", "end code 0", "");
	expect_job("exit 255", "/", "end code 255", "");
	expect_job("exit 139", "/", "end code 139", "");
	expect_job("kill -s SEGV $$", "/", "end signal 11", "");
	expect_job("kill -s KILL $$", "/", "end signal 9", "");
	expect_job("true", "/no such place", "end cwd", "");
}

/* What follows the line is the job's own, also for shells that read ahead. */
Test(script, input, .timeout = 300)
{
	expect_job("cat; pwd", "/usr", "end code 0", "its own input\n/usr\n");
}

/* Limits and ignored signals are the caller's; a shell that may not give them says so. */
Test(script, callers, .timeout = 300)
{
	struct caller own;

	caller_read(&own);
	caller = own;
	caller.limits[CALLER_FSIZE] = (struct caller_limit){512 * 7, 512 * 9};
	caller.limits[CALLER_CPU] = (struct caller_limit){50, 60};
	caller.limits[CALLER_NOFILE].soft = 40;
	caller.limits[CALLER_NOFILE].hard = CALLER_UNLIMITED; /* as near as may be */
	caller.ignored = 1ull << (SIGTERM - 1) | 1ull << 31 | 1ull << 63;
	cr_expect(script_can_say(&caller));
	expect_job("ulimit -S -f; ulimit -H -f; ulimit -t; ulimit -n; kill -s TERM $$; echo on",
		   "/", "end code 0", "7\n9\n50\n40\non\n");
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20}), 0);
	caller = own;
	caller.limits[CALLER_FSIZE] = (struct caller_limit){1 << 20, 2 << 20};
	expect_job("echo", "/", "end caller", "");
}

Test(script, says_not_all)
{
	caller_read(&caller);
	caller.persona = 0;
	caller.blocked = 0;
	cr_expect(script_can_say(&caller));
	caller.persona = 8;
	cr_expect_not(script_can_say(&caller));
	caller.persona = 0;
	caller.blocked = 1;
	cr_expect_not(script_can_say(&caller));
	caller.blocked = 0;
	caller.limits[CALLER_FSIZE] = (struct caller_limit){1000, CALLER_UNLIMITED};
	cr_expect_not(script_can_say(&caller), "no whole number of blocks");
}

Test(script, names_what_is_missing, .timeout = 300)
{
	char *named[] = {(char *)"/etc/passwd", (char *)"/no/it's not", (char *)"/nor this", NULL};
	struct buf out = BUF_INIT;
	unsigned group, missing;
	char *begin, *end = job_says("sh", "true", "/", named, &begin, &out);

	cr_expect_eq(sscanf(begin, "begin %u %u", &group, &missing), 2);
	cr_expect_eq(missing, 2);
	free(begin);
	free(end);
	buf_release(&out);
}

/* Those that are still in the list at the end of the input are killed, and those that were told. */
Test(script, control_kills, .timeout = 300)
{
	_cleanup_buf_ struct buf script = BUF_INIT, out = BUF_INIT;
	_cleanup_free_ char *input = NULL;
	pid_t pids[3];
	int status;

	for (int i = 0; i < 3; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			setsid();
			for (;;)
				pause();
		}
		while (getpgid(pids[i]) != pids[i])
			sched_yield();
	}
	script_control(&script, TOKEN);
	input = xasprintf("+ %d\n+ %d\n+ %d\nk %d\n- %d\n- %d\n", pids[0], pids[1], pids[2],
			  pids[0], pids[0], pids[1]);
	run("sh", &script, input, 1, &out);
	for (int i = 0; i < 3; i += 2) {
		cr_expect_eq(waitpid(pids[i], &status, 0), pids[i]);
		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	cr_expect_eq(waitpid(pids[1], &status, WNOHANG), 0, "one that had ended was killed");
	kill(pids[1], SIGKILL);
}
