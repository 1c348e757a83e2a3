/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a job's program is made of: found out by a thread, while the loop goes on. */
#include "project/exe.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"
#include "project/peer.h"
#include "project/server.h"

#include "../lib/unit.h"

static char dir[64];
static struct server server;
static struct conf_worker worker;
static struct peer peer;

static void setup(void)
{
	_cleanup_free_ char *hashes = NULL;
	struct errmsg msg;

	log_init("test", LOG_LEVEL_ERR);
	strcpy(dir, "/tmp/concc-test-exe.XXXXXX");
	cr_assert(mkdtemp(dir));
	hashes = xasprintf("%s/hashes", dir);
	cr_assert_eq(loop_new(&server.loop), 0);
	server_set_up_hashing(&server);
	cr_assert_eq(tree_new(&(struct tree_ops){0}, NULL, NULL, &server.tree, &msg), 0);
	cr_assert_eq(hash_cache_open(hashes, &server.hashes), 0);
	worker.root = ROOT_WORKER;
	worker.name = (char *)"w";
	worker.address = (char *)"ssh:host";
	peer.server = &server;
	peer.conf = &worker;
}

static void teardown(void)
{
	_cleanup_free_ char *cmd = xasprintf("rm -rf %s", dir);

	cr_assert_eq(system(cmd), 0);
}

TestSuite(exe, .init = setup, .fini = teardown);

static char *at(const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static void put_file(const char *name, const char *text)
{
	_cleanup_free_ char *path = at(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write_full(fd, text, strlen(text)), 0);
	close(fd);
}

static struct msg_run call_of(const char *name, bool compiler)
{
	static char *argv[2], *env[2];

	argv[0] = at(name);
	env[0] = (char *)"PATH=/usr/bin:/bin";
	return (struct msg_run){
		.exe = argv[0],
		.path = argv[0],
		.cwd = dir,
		.argv = argv,
		.env = env,
		.flags = compiler ? JOB_F_COMPILER : 0,
	};
}

struct answer {
	unsigned n;
	struct exe *exe;
	char text[512];
};

static void told(void *arg, struct exe *e, const struct errmsg *msg)
{
	struct answer *a = arg;

	a->n++;
	a->exe = e;
	snprintf(a->text, sizeof(a->text), "%s", e ? "" : msg->text);
	loop_quit(server.loop);
}

static void quit(void *data)
{
	(void)data;
	loop_quit(server.loop);
}

static void once(void)
{
	(void)loop_add_timer(server.loop, 0, quit, NULL);
	cr_assert_eq(loop_run(server.loop), 0);
}

static struct answer look(struct msg_run *m)
{
	struct answer a = {0};
	struct errmsg msg = {0};

	cr_assert(exe_wait(&peer, m, told, &a, &msg));
	while (!a.n)
		cr_assert_eq(loop_run(server.loop), 0);
	cr_assert(a.exe, "%s", a.text);
	return a;
}

/* What the one lane waits for: nothing is looked at before it is told to. */
static int gate[2];

static void wait_for_gate(void *arg)
{
	char c;

	(void)!read(gate[0], &c, 1);
}

static void close_gate(void)
{
	cr_assert_eq(pipe2(gate, O_CLOEXEC), 0);
	cr_assert(offload_put(server.looking, wait_for_gate, NULL, NULL, 0));
}

static void open_gate(void)
{
	cr_assert_eq(write(gate[1], "", 1), 1);
	close(gate[0]);
	close(gate[1]);
}

static size_t queued(void)
{
	struct offload_counts c;

	offload_counts(server.hashing, &c);
	return c.queued;
}

/* A compiler that notes that it was run, and does not answer before somebody opens the fifo. */
static void put_compiler(const char *name, const char *knows)
{
	_cleanup_free_ char *source = at("gcc.c"), *exe = at(name);
	_cleanup_free_ char *cmd = xasprintf("gcc -o %s %s", exe, source);
	_cleanup_free_ char *text = xasprintf(
		"#include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>\n"
		"const char is[] = \"%s\";\n"
		"int main(void) { char c; close(creat(\"%s/run\", 0600));"
		" return read(open(\"%s/gate\", O_RDONLY), &c, 1) < 0; }\n",
		knows, dir, dir);

	put_file("gcc.c", text);
	cr_assert_eq(system(cmd), 0);
}

static bool was_run(void)
{
	_cleanup_free_ char *path = at("run");

	return access(path, F_OK) == 0;
}

/* All who wait for the same are told of one look; then it is known, until the file changes. */
Test(exe, a_program)
{
	struct msg_run m = call_of("prog", false);
	struct answer a = {0}, b = {0}, c = {0};
	struct errmsg msg = {0};
	struct exe_wait *gone;
	struct exe *e = NULL;

	cr_assert_eq(exe_get(&peer, &m, NULL, &e, &msg), -ENOENT);
	put_file("prog", "one");
	cr_assert_eq(exe_get(&peer, &m, NULL, &e, &msg), CONCC_E_LATER);
	close_gate();
	cr_assert(exe_wait(&peer, &m, told, &a, &msg));
	cr_assert(exe_wait(&peer, &m, told, &b, &msg));
	gone = exe_wait(&peer, &m, told, &c, &msg);
	cr_assert(gone);
	exe_wait_free(gone);
	cr_assert_eq(queued(), 2, "%zu", queued()); /* the gate, and one look for all */
	open_gate();
	while (!a.n)
		cr_assert_eq(loop_run(server.loop), 0);
	cr_assert_eq(a.n, 1);
	cr_assert_eq(b.n, 1);
	cr_assert_eq(c.n, 0);
	cr_assert(a.exe && a.exe == b.exe, "%s", a.text);
	cr_assert_eq(exe_msg(a.exe)->n_files, 1);
	cr_assert_str_eq(exe_msg(a.exe)->files[0].path, m.exe);
	cr_assert_eq(exe_get(&peer, &m, a.exe, &e, &msg), 0);
	cr_assert_eq(e, a.exe);
	/* It is young: for this very job it is good, for another one it is looked at anew.  On a
	 * busy machine it may have grown old before it was looked at. */
	for (int i = 0; i < 100 && exe_get(&peer, &m, NULL, &e, &msg) == 0; i++) {
		put_file("prog", "one");
		a = look(&m);
	}
	cr_assert_eq(exe_get(&peer, &m, a.exe, &e, &msg), 0);
	cr_assert_eq(exe_get(&peer, &m, NULL, &e, &msg), CONCC_E_LATER);
	put_file("prog", "another");
	cr_assert_eq(exe_get(&peer, &m, a.exe, &e, &msg), CONCC_E_LATER);
	cr_assert(exe_wait(&peer, &m, told, &b, &msg));
	while (b.n < 2)
		cr_assert_eq(loop_run(server.loop), 0);
	cr_assert_neq(b.exe, a.exe);
	cr_assert_eq(exe_get(&peer, &m, b.exe, &e, &msg), 0);
}

/* A compiler that does not answer when it is asked for its parts: the loop goes round. */
Test(exe, a_compiler_that_is_asked)
{
	_cleanup_free_ char *fifo = at("gate");
	struct msg_run m = call_of("gcc", true);
	struct answer a = {0};
	struct errmsg msg = {0};
	struct exe *e = NULL;
	int fd;

	put_compiler("gcc", "print-prog-name");
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	cr_assert_eq(exe_get(&peer, &m, NULL, &e, &msg), CONCC_E_LATER);
	close_gate();
	cr_assert(exe_wait(&peer, &m, told, &a, &msg));
	cr_assert_not(was_run(), "by the loop's thread");
	open_gate();
	while ((fd = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0 && !a.n)
		once();
	for (int i = 0; i < 100 && fd >= 0; i++)
		once(); /* while it is asked, and does not answer */
	cr_assert_eq(unlink(fifo), 0);
	fd_close(&fd);
	while (!a.n)
		cr_assert_eq(loop_run(server.loop), 0);
	cr_assert(a.exe, "%s", a.text);
	cr_assert(was_run());
	cr_assert_eq(exe_get(&peer, &m, a.exe, &e, &msg), 0);
}

/* What is only called like a compiler is not run, whatever it does. */
Test(exe, no_compiler_is_asked)
{
	static const char *const names[] = {"gcc", "gcc-sync"};

	for (size_t i = 0; i < N_OF(names); i++) {
		struct msg_run m = call_of(names[i], true);
		struct errmsg msg = {0};
		struct exe *e = NULL;

		put_compiler(names[i], i ? "print-prog-name" : "nothing");
		cr_assert_eq(exe_get(&peer, &m, NULL, &e, &msg), CONCC_E_LATER);
		(void)look(&m);
		cr_assert_not(was_run(), "%s", names[i]);
	}
}

/* Who waits when the server ends is not told, and nothing of its peers is touched. */
Test(exe, the_servers_end)
{
	struct msg_run m = call_of("prog", false);
	struct errmsg msg = {0};
	struct exe_wait *w;
	struct answer a = {0};
	struct exe *e;

	put_file("prog", "one");
	cr_assert_eq(exe_get(&peer, &m, NULL, &e, &msg), CONCC_E_LATER);
	w = exe_wait(&peer, &m, told, &a, &msg);
	cr_assert(w);
	exes_stop(&server);
	peer.server = NULL;
	loop_remove(server.hashing_source);
	cr_assert(offload_free(server.hashing, 60));
	exes_free(&server);
	exe_wait_free(w);
	cr_assert_eq(a.n, 0);
}
