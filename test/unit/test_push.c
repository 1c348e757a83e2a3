/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a host may answer while concc-worker is put there, and the command it is asked by.
 * test/integration/push.sh does it for real. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "link/push.h"
#include "link/spawn.h"

#define SILENCE_MS 2000
#define WAIT_MS	   60000 /* only ever reached by a failing test */

struct near {
	struct loop *loop;
	int err, calls;
	char text[512], how[512], rest[64];
};

/* The stream is handed over at the byte behind the answer. */
static void on_pushed(void *data, struct stream *s, int err, const char *text, const char *how)
{
	struct near *n = data;

	n->calls++;
	n->err = err;
	snprintf(n->text, sizeof(n->text), "%s", text);
	snprintf(n->how, sizeof(n->how), "%s", how);
	if (s) {
		ssize_t r = s->ops->read(s, n->rest, sizeof(n->rest) - 1);

		n->rest[r > 0 ? r : 0] = '\0';
	}
	stream_free(s);
	loop_quit(n->loop);
}

static void too_late(void *data)
{
	fprintf(stderr, "the loop did not end in time\n");
	abort();
}

/* A far end that is this script, and a file of so many bytes. */
static void talk(struct near *n, const char *far, size_t size, uint32_t silence_ms)
{
	char path[] = "/tmp/test-push-XXXXXX";
	struct worker_file f = {.fd = mkstemp(path), .size = size};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)far, NULL};
	struct loop_source *limit;
	struct errmsg msg;
	struct stream *s;

	unlink(path);
	cr_assert_eq(ftruncate(f.fd, (off_t)size), 0);
	cr_assert_eq(loop_new(&n->loop), 0);
	limit = loop_add_timer(n->loop, WAIT_MS, too_late, NULL);
	cr_assert_eq(spawn_stream(n->loop, argv, false, false, "w", &s, &msg), 0, "%s", msg.text);
	(void)push_new(n->loop, s, &f, silence_ms, on_pushed, n);
	cr_assert_eq(loop_run(n->loop), 0);
	loop_remove(limit);
	(void)loop_run_children(n->loop, WAIT_MS);
	loop_free(n->loop);
	close(f.fd);
	cr_assert_eq(n->calls, 1);
}

Test(push, a_file_is_sent_when_it_is_asked_for)
{
	struct near n = {0};

	talk(&n,
	     "echo noise; printf 'no newline '; echo CONCC-PUSH: need; "
	     "n=$(head -c 3000000 | wc -c); printf 'CONCC-PUSH: have /x/%s\\nREST' $n; cat",
	     3000000, WAIT_MS);
	cr_expect_eq(n.err, 0, "%s", n.text);
	cr_expect_str_eq(n.how, "pushed 3.0 MB to /x/3000000");
	cr_expect_str_eq(n.rest, "REST");
}

Test(push, nothing_is_sent_unasked)
{
	struct near n = {0};

	talk(&n, "echo CONCC-PUSH: have /x; n=$(wc -c); echo $n >&2", 3000000, WAIT_MS);
	cr_expect_eq(n.err, 0, "%s", n.text);
	cr_expect_str_eq(n.how, "is there already: /x");
}

static const struct {
	const char *far;
	const char *text;
} bad[] = {
	{"echo 'CONCC-PUSH: fail no \033[1mroom'",
	 "concc-worker could not be put there: no \\x1b[1mroom"},
	{"echo CONCC-PUSH: need; echo CONCC-PUSH: fail full; exec <&-; exit 1",
	 "concc-worker could not be put there: full"},
	{"echo CONCC-PUSH: need; echo CONCC-PUSH: have /x; exec cat >/dev/null",
	 "the answer is not that of our script"},
	{"echo CONCC-PUSH: need; echo CONCC-PUSH: need; exec cat >/dev/null",
	 "the answer is not that of our script"},
	{"echo CONCC-PUSH: what; exec cat >/dev/null", "the answer is not that of our script"},
	{"yes | head -c 70000; exec cat >/dev/null", "64 KB of other output came before an answer"},
	{"printf '\\nCONCC-LINK/1\\n'; exec cat >/dev/null",
	 "the host runs a concc-worker whatever it is asked for; remove `install = yes`"},
	{"echo go away; echo why >&2; exit 3",
	 "no shell there took the command: it printed \"go away\": exit status 3: \"why\""},
	{"echo CONCC-PUSH: need; head -c 1000 >/dev/null; kill -9 $$",
	 "the connection ended after"},
	{"exec sleep 100", "no answer for 2.0 s while concc-worker was put there"},
};

Test(push, what_a_host_may_answer)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct near n = {0};

		/* Only who is to be silent may be taken for it. */
		talk(&n, bad[i].far, 3000000,
		     strstr(bad[i].text, "no answer") ? SILENCE_MS : WAIT_MS);
		cr_expect_lt(n.err, 0, "%s", bad[i].far);
		cr_expect(strstr(n.text, bad[i].text), "%s: %s", bad[i].far, n.text);
	}
}

/* sh, csh and fish read the same between single quotes if there is none of these. */
Test(push, all_login_shells_read_the_command_alike)
{
	struct worker_file f = {.size = 123};
	char *command, *first, *last;

	memset(f.hex, 'a', sizeof(f.hex) - 1);
	command = push_command(INSTALL_YES, &f);
	first = strchr(command, '\'');
	last = strrchr(command, '\'');
	cr_assert(first && last && first != last);
	cr_expect_null(strpbrk(command, "\\!\n"));
	cr_expect_eq(strchr(first + 1, '\''), last);
	cr_expect(str_ends(command, " aaaaaaaaaaaaaaaa"));
	free(command);
	command = push_command(INSTALL_NO, NULL);
	cr_expect(strstr(command, " no none 0 "));
	free(command);
}

Test(push, only_static_programs_go)
{
	struct worker_file *f;
	struct errmsg msg = {0};

	cr_assert_eq(worker_file_open("/proc/self/exe", &f, &msg), 0, "%s", msg.text);
	cr_expect_eq(worker_file_check(f, "this", &msg), -ENOEXEC);
	cr_expect(strstr(msg.text, "this is linked to this machine's libraries"), "%s", msg.text);
	worker_file_free(f);
	cr_assert_eq(worker_file_open("/etc/passwd", &f, &msg), 0, "%s", msg.text);
	cr_expect_eq(worker_file_check(f, "that", &msg), -ENOEXEC);
	worker_file_free(f);
	cr_expect_eq(worker_file_open("/nonexistent/x", &f, &msg), -ENOENT);
	cr_expect(strstr(msg.text, "/nonexistent/x"), "%s", msg.text);
}
