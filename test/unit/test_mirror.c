/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "../lib/mirror_sim.h"

#include "mirror/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

TestSuite(mirror, .timeout = 1000);

Test(mirror, shows_what_the_client_has)
{
	struct sim *s = sim_new_served();

	sim_change("mkdir -p a/b/c empty; echo hello >a/hello; ln a/hello a/b/link; "
		   "ln -s ../hello a/b/sym; head -c 3000000 /dev/urandom >big; chmod 4755 a/hello; "
		   ": >zero; mkdir -m 700 private; echo x >'a/sp ace'; "
		   "touch -d '2001-02-03 04:05:06.789' a/b/c");
	sim_check_same(s);
	/* Names of a file, and the same inode for both; a directory has one as in overlayfs. */
	sim_expect(
		s,
		"stat -c '%h %u' $M/a $M/a/hello; cat $M/a/b/sym; [ $M/a/hello -ef $M/a/b/link ]",
		"1 0\n2 0\nhello\n");
	/* The parents of what is served, and nothing else. */
	sim_expect(s, "ls $T/mnt; ls $T/mnt/tmp | wc -l; ls $T/mnt$T; ls -d $T/mnt/etc 2>/dev/null",
		   "tmp\n1\nsrc\nstatus 2\n");
	sim_free(s);
}

/*
 * Of a file with several names an overlay does not mark what it copies up, so that a file that was
 * written to looks like another in its place.  A kernel that tells of copies is the only one that
 * may see how many names there are.
 */
Test(mirror, files_have_one_name_where_copies_are_not_told)
{
	struct sim *s = sim_new_served();

	atomic_store(&s->m->tells_copies, false);
	sim_change("echo hello >a; ln a b");
	sim_expect(s, "stat -c %h $M/a", "1\n");
	sim_free(s);
}

static void list_counts(const struct mirror_counts *a, const struct mirror_counts *b)
{
	for (unsigned k = 0; k < MIRROR_OPCODES; k++)
		if (b->by_opcode[k] != a->by_opcode[k])
			fprintf(stderr, "  opcode %2u: %llu\n", k,
				(unsigned long long)(b->by_opcode[k] - a->by_opcode[k]));
}

/* Messages for the kernel's own housekeeping aside. */
static uint64_t asked(const struct mirror_counts *a, const struct mirror_counts *b)
{
	uint64_t n = b->total - a->total;

	n -= b->by_opcode[FUSE_FORGET] - a->by_opcode[FUSE_FORGET];
	n -= b->by_opcode[FUSE_BATCH_FORGET] - a->by_opcode[FUSE_BATCH_FORGET];
	return n;
}

static void make_project(void)
{
	sim_change("mkdir -p src out/deep/er $(seq -f inc%g 1 20); "
		   "for i in $(seq 1 300); do echo \"int f$i(void);\" >inc$((i % 20 + 1))/h$i.h; "
		   "echo \"#include <h$i.h>\" >>src/main.c; done; "
		   "echo '#include <stdio.h>\nint main(void) { return 0; }' >>src/main.c");
}

#define COMPILE "gcc -O1 $(seq -f -Iinc%g 1 20) -c src/main.c -o "

Test(mirror, warm_compile_sends_no_message)
{
	struct sim *s = sim_new_served();
	struct mirror_counts cold, warm;

	make_project();
	sim_expect(s, "cd $M && " COMPILE "/dev/null", "");
	cold = sim_counts(s);
	cr_assert_eq(cold.lists, 22, "%llu", (unsigned long long)cold.lists);
	cr_assert_eq(cold.fetches, 301);
	/* The kernel believes no attributes that it was told while it evicted any inode of the
	 * mirror, and asks for these once more ("fuse: check attributes staleness on
	 * fuse_iget()", 6.13). */
	for (unsigned i = 0; i < 5; i++) {
		sim_expect(s, "cd $M && " COMPILE "/dev/null", "");
		warm = sim_counts(s);
		list_counts(&cold, &warm);
		if (!asked(&cold, &warm))
			break;
		cold = warm;
	}
	cr_assert_eq(asked(&cold, &warm), 0);
	sim_free(s);
}

#define OVERLAY                                                                                    \
	"unshare -m sh -ec 'mkdir -p $T/job; mount -t tmpfs job $T/job; "                          \
	"mkdir $T/job/up $T/job/work $T/job/all; "                                                 \
	"mount -t overlay job -o lowerdir=$M,upperdir=$T/job/up,workdir=$T/job/work $T/job/all; "  \
	"cd $T/job/all; "

Test(mirror, warm_compile_under_an_overlay_sends_few_messages)
{
	struct sim *s = sim_new_served();
	struct mirror_counts cold, warm;

	make_project();
	sim_expect(s, OVERLAY COMPILE "out/deep/er/main.o; test -s $T/job/up/out/deep/er/main.o'",
		   "");
	cold = sim_counts(s);
	sim_expect(s, OVERLAY COMPILE "out/deep/er/main.o; test -s $T/job/up/out/deep/er/main.o'",
		   "");
	warm = sim_counts(s);
	fprintf(stderr, "messages of a warm compile under an overlay:\n");
	list_counts(&cold, &warm);
	cr_assert_leq(asked(&cold, &warm), 10);
	cr_assert_eq(warm.lists, cold.lists);
	cr_assert_eq(warm.fetches, cold.fetches);
	/* A third job makes up another random name, and asks about it, but not the client. */
	sim_expect(s, OVERLAY "test ! -e out/x.$$; mv src/main.c out/moved.c'", "");
	cr_assert_eq(sim_counts(s).lists, cold.lists);
	sim_free(s);
}

/* One change of each kind, each seen at once and in full. */
Test(mirror, shows_every_kind_of_change)
{
	static const char *const changes[] = {
		"echo second >file",
		"printf SECOND >>file; touch -r dir file",
		"printf 'same size 1' >same; touch -d @1000 same",
		"printf 'same size 2' >same; touch -d @1000 same",
		"rm file",
		"echo new >missing.h",
		"echo other >tmp; mv tmp missing.h",
		"rm -r dir; echo file >dir",
		"rm dir; mkdir dir; echo in >dir/in",
		"ln -s dir sym",
		"rm sym; ln -s missing.h sym",
		"rm sym; mkdir sym",
		"rmdir sym; ln -s nowhere sym",
		"chmod 600 missing.h",
		"chmod 711 dir",
		"echo deep >dir/deep; mkdir -p dir/x/y/z; echo 1 >dir/x/y/z/1",
		"rm -r dir/x",
		"mkdir -p dir/x/y/z; echo 2 >dir/x/y/z/2",
		"mv dir/x other",
		"mv other dir/x",
		"mv dir away; mkdir -p dir/x/y/z; echo 3 >dir/x/y/z/3",
		"rm -r dir; mv away dir",
		"rm -r dir",
		"mkdir -p dir/x/y",
		"ln missing.h dir/hard",
		"echo through >dir/hard",
		"touch -d @2000 dir",
		"rm missing.h",
	};
	struct sim *s = sim_new_served();
	struct mirror_counts before;

	sim_change("echo first >file; mkdir dir; echo x >dir/inside; printf 'same size 0' >same");
	sim_check_same(s);
	for (size_t k = 0; k < sizeof(changes) / sizeof(*changes); k++) {
		_cleanup_free_ char *cmd = xasprintf("set -e; cd $S; %s", changes[k]);

		/* Known to be absent, with endless time-outs. */
		sim_expect(s,
			   "cat $M/nothing $M/dir/nothing >/dev/null 2>&1; "
			   "ls $M/missing.h $M/dir/x/y/z/2 $M/other/y $M/sym/ >/dev/null 2>&1",
			   "status 2\n");
		cr_assert_eq(system(cmd), 0, "%s", cmd);
		sim_sync(s);
		sim_check_same(s);
	}
	before = sim_counts(s);
	sim_check_same(s);
	cr_assert_eq(sim_counts(s).lists, before.lists);
	sim_free(s);
}

static void random_path(unsigned *seed, char path[16])
{
	unsigned deep = (unsigned)rand_r(seed) % 3;

	*path++ = (char)('0' + rand_r(seed) % 3);
	while (deep--) {
		*path++ = '/';
		*path++ = (char)('0' + rand_r(seed) % 3);
	}
	*path = '\0';
}

static void random_change(unsigned *seed)
{
	static const char *const ops[] = {
		"mkdir -p $A",	"rm -rf $A",   "echo $$ >$A", "touch $A",     "chmod 755 $A",
		"ln -sfn x $A", "mv -T $A $B", "ln -f $A $B", "cp -rT $A $B", "chmod 711 $A",
	};
	_cleanup_free_ char *cmd = NULL;
	char a[16], b[16];

	random_path(seed, a);
	random_path(seed, b);
	cmd = xasprintf("cd $S && A=%s B=%s && { %s; } 2>/dev/null", a, b,
			ops[(unsigned)rand_r(seed) % (sizeof(ops) / sizeof(*ops))]);
	(void)!system(cmd); /* some can't succeed */
}

/* A directory of which only the name was asked: what happens in it changes its times. */
Test(mirror, shows_times_of_unlisted_directories)
{
	struct sim *s = sim_new_served();

	sim_change("mkdir -p dir/sub; touch -d @1000 dir");
	sim_expect(s, "stat -c %Y $M/dir", "1000\n");
	sim_change("echo x >dir/x; touch -d @2000 dir/sub dir");
	sim_sync(s);
	sim_expect(s, "stat -c %Y $M/dir", "2000\n");
	sim_expect(s, "stat -c %Y $M/dir/sub", "2000\n");
	sim_change("echo x >dir/sub/x; touch -d @3000 dir/sub");
	sim_sync(s);
	sim_expect(s, "stat -c %Y $M/dir/sub", "3000\n");
	sim_free(s);
}

/* Some changes between two looks, by chance. */
Test(mirror, follows_random_changes)
{
	struct sim *s = sim_new_served();
	unsigned seed = 12345;

	sim_change("mkdir -p 0/0/0 0/1 1/0 1/1; echo a >0/2; echo b >1/2");
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned k = 0; k < 4; k++)
			random_change(&seed);
		sim_sync(s);
		sim_check_same(s);
	}
	sim_free(s);
}

/* ---- what runs on must not break ---- */

struct cwd_task {
	const char *dir;
	int go_fd;
	int ready_fd;
	char before[4096], after[4096];
};

static void *stay_inside(void *arg)
{
	struct cwd_task *t = arg;
	uint64_t n = 1;

	/* A working directory of this thread's own. */
	if (unshare(CLONE_FS) < 0 || chdir(t->dir) < 0)
		return (void *)"can't enter";
	if (syscall(SYS_getcwd, t->before, sizeof(t->before)) < 0)
		return (void *)"no cwd before";
	(void)!write(t->ready_fd, &n, sizeof(n));
	(void)!read(t->go_fd, &n, sizeof(n));
	if (syscall(SYS_getcwd, t->after, sizeof(t->after)) < 0)
		return (void *)"no cwd after";
	if (!streq(t->before, t->after))
		return (void *)"another cwd after";
	if (access("made.h", F_OK) < 0)
		return (void *)"made.h is not seen";
	return NULL;
}

Test(mirror, keeps_working_directories)
{
	struct sim *s = sim_new_served();
	struct cwd_task t = {.go_fd = eventfd(0, 0), .ready_fd = eventfd(0, 0)};
	_cleanup_free_ char *dir = xasprintf("%s%s/a/b", s->mnt, s->src);
	_cleanup_free_ char *a = xasprintf("%s/a", s->src);
	struct sim_task *task;
	const char *result;
	uint64_t n = 1;

	sim_change("mkdir -p a/b; echo x >a/b/x");
	t.dir = dir;
	task = sim_begin(stay_inside, &t);
	for (;;) {
		struct pollfd p = {.fd = t.ready_fd, .events = POLLIN};

		if (poll(&p, 1, 0) == 1)
			break;
		sim_wait_event(s, t.ready_fd);
	}
	sim_change("echo y >a/b/made.h; rm a/b/x; chmod 711 a/b; chmod 750 a; echo z >a/z");
	sim_sync(s);
	sim_check_same(s);
	/* Not looked at before the end: a look-up would revive it. */
	cr_assert_eq(mirror_dir_stale(s->m, sim_dir_by_path(s, a)->dir_id), 0);
	sim_flush(s);
	(void)!write(t.go_fd, &n, sizeof(n));
	result = sim_finish(s, task);
	cr_assert_null(result, "%s", result);
	sim_free(s);
}

static int open_fifo(const struct sim *s, const char *name)
{
	_cleanup_free_ char *path = path_join(s->tmp, name);
	int fd;

	cr_assert_eq(mkfifo(path, 0600), 0);
	/* For both ends, so that it blocks for neither. */
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	return fd;
}

static void check_line(struct sim *s, int fd, const char *expected)
{
	char line[64];
	ssize_t n;

	sim_wait_fd(s, fd);
	n = read(fd, line, sizeof(line) - 1);
	cr_assert_gt(n, 0);
	line[n] = '\0';
	cr_assert_str_eq(line, expected);
}

Test(mirror, replaced_executables_run_on)
{
	struct sim *s = sim_new_served();
	int in = open_fifo(s, "in"), out = open_fifo(s, "out");
	struct sim_task *task;
	_cleanup_free_ char *rest = NULL;

	sim_change("cp /bin/sed prog; echo one >data");
	task = sim_begin_sh(
		"exec 3<$M/data; cat $M/data >/dev/null; $M/prog -u -e 's/b/B/' -e '2s/.*/ &/;2q' <$T/in "
		">$T/out; cat <&3");
	cr_assert_eq(write(in, "abc\n", 4), 4);
	check_line(s, out, "aBc\n");
	sim_change("cp /bin/true new; mv new prog; echo two >data");
	sim_sync(s);
	/* On pages that it did not need before, too. */
	cr_assert_eq(write(in, "cba\n", 4), 4);
	check_line(s, out, " cBa\n");
	rest = sim_finish(s, task);
	cr_assert_str_eq(rest, "one\n", "%s", rest);
	sim_expect(s, "$M/prog; cat $M/data", "two\n");
	close(in);
	close(out);
	sim_free(s);
}

/* ---- waiting ---- */

static void wait_held(struct sim *s, unsigned n)
{
	while (s->n_held < n)
		sim_wait_event(s, -1);
}

/* Two look-ups in one directory, both waiting for the client: each goes on by itself. */
Test(mirror, looks_up_in_parallel)
{
	struct sim *s = sim_new();
	_cleanup_free_ char *one = xasprintf("%s/one", s->src);
	_cleanup_free_ char *two = xasprintf("%s/two", s->src);
	struct sim_task *a, *b;
	_cleanup_free_ char *out_a = NULL;
	_cleanup_free_ char *out_b = NULL;

	sim_change("mkdir one two; echo 1 >one/file; echo 2 >two/file");
	cr_assert_eq(mirror_serve(s->m, one), 0);
	cr_assert_eq(mirror_serve(s->m, two), 0);
	sim_expect(s, "ls $M", "one\ntwo\n");
	s->hold_lists = true;
	a = sim_begin_sh("cat $M/one/file");
	b = sim_begin_sh("cat $M/two/file");
	wait_held(s, 2);
	s->hold_lists = false;
	sim_answer(s, two);
	out_b = sim_finish(s, b);
	cr_assert_str_eq(out_b, "2\n");
	cr_assert_not(sim_task_done(a));
	sim_answer(s, one);
	out_a = sim_finish(s, a);
	cr_assert_str_eq(out_a, "1\n");
	sim_free(s);
}

Test(mirror, asks_once_for_many)
{
	struct sim *s = sim_new_served();
	struct sim_task *t[8];
	struct mirror_counts before;

	sim_change("mkdir dir; head -c 100000 /dev/urandom >dir/file");
	sim_expect(s, "ls $M", "dir\n");
	before = sim_counts(s);
	for (unsigned k = 0; k < 8; k++)
		t[k] = sim_begin_sh("cmp $M/dir/file $S/dir/file");
	for (unsigned k = 0; k < 8; k++) {
		_cleanup_free_ char *out = sim_finish(s, t[k]);

		cr_assert_str_eq(out, "");
	}
	cr_assert_eq(sim_counts(s).lists - before.lists, 1);
	cr_assert_eq(sim_counts(s).fetches - before.fetches, 1);
	sim_free(s);
}

Test(mirror, stop_ends_every_wait)
{
	struct sim *s = sim_new_served();
	struct sim_task *reads, *lists;
	_cleanup_free_ char *out_reads = NULL;
	_cleanup_free_ char *out_lists = NULL;

	sim_change("mkdir dir; echo x >file");
	sim_expect(s, "ls $M", "dir\nfile\n");
	s->hold_lists = s->hold_fetches = true;
	reads = sim_begin_sh("cat $M/file 2>/dev/null || echo failed");
	lists = sim_begin_sh("cat $M/dir/file 2>/dev/null || echo failed");
	wait_held(s, 2);
	sim_stop(s);
	out_reads = sim_finish(s, reads);
	out_lists = sim_finish(s, lists);
	cr_assert_str_eq(out_reads, "failed\n");
	cr_assert_str_eq(out_lists, "failed\n");
	/* And nothing is mounted any more. */
	cr_assert_eq(rmdir(s->mnt), 0);
	sim_free(s);
}

static void *look_after_the_end(void *arg)
{
	struct cwd_task *t = arg;
	uint64_t n = 1;

	if (unshare(CLONE_FS) < 0 || chdir(t->dir) < 0)
		return (void *)"can't enter";
	(void)!write(t->ready_fd, &n, sizeof(n));
	(void)!read(t->go_fd, &n, sizeof(n));
	if (access("file", F_OK) == 0)
		return (void *)"file is seen";
	return errno == ENOENT ? (void *)"file is said to be absent" : NULL;
}

/* A process that keeps the file system busy, even one that inherited the device, hinders nothing.
 */
Test(mirror, stop_needs_no_idle_mount)
{
	struct sim *s = sim_new_served();
	int pipes[2];
	struct cwd_task t = {.go_fd = eventfd(0, 0), .ready_fd = eventfd(0, 0)};
	_cleanup_free_ char *dir = xasprintf("%s%s", s->mnt, s->src);
	struct sim_task *task;
	const char *result;
	uint64_t n = 1;
	pid_t pid;

	sim_change("echo x >file");
	t.dir = dir;
	task = sim_begin(look_after_the_end, &t);
	sim_wait_fd(s, t.ready_fd);
	cr_assert_eq(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		char c;

		close(pipes[1]);
		_exit(read(pipes[0], &c, 1) != 0);
	}
	close(pipes[0]);
	sim_stop(s);
	(void)!write(t.go_fd, &n, sizeof(n));
	result = sim_finish(s, task);
	cr_assert_null(result, "%s", result);
	close(pipes[1]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	sim_free(s);
}

/* ---- contents ---- */

Test(mirror, reads_what_has_arrived)
{
	struct sim *s = sim_new_served();
	struct sim_task *all, *first;
	_cleanup_free_ char *out_first = NULL;
	_cleanup_free_ char *out_all = NULL;
	struct sim_want *w;
	struct digest d;
	static char bytes[4 << 20];

	memset(bytes, 'x', sizeof(bytes));
	bytes[sizeof(bytes) - 1] = '\n';
	digest_of(bytes, sizeof(bytes), &d);
	sim_change("head -c 4194303 /dev/zero | tr '\\0' x >file; echo >>file");
	s->hold_fetches = true;
	all = sim_begin_sh("sha256sum <$M/file");
	wait_held(s, 1);
	first = sim_begin_sh("head -c 10 $M/file");
	w = list_first(&s->held, struct sim_want, link);
	cr_assert_eq(sim_data(s, w->fetch.fetch_id, 0, bytes, 1 << 20), 0);
	cr_assert_eq(sim_data(s, w->fetch.fetch_id, 1 << 20, bytes, 1 << 20), 0);
	out_first = sim_finish(s, first);
	cr_assert_str_eq(out_first, "xxxxxxxxxx");
	cr_assert_not(sim_task_done(all));
	cr_assert_eq(sim_data(s, w->fetch.fetch_id, 2 << 20, bytes + (2 << 20), 2 << 20), 0);
	cr_assert_eq(sim_end(s, w->fetch.fetch_id, &d), 0);
	out_all = sim_finish(s, all);
	{
		_cleanup_free_ char *want = sim_sh(s, "sha256sum <$S/file");

		cr_assert_str_eq(out_all, want);
	}
	cr_assert_eq(sim_counts(s).fetches, 1);
	cr_assert(store_has(s->store, &d));
	sim_free(s);
}

Test(mirror, known_digests_need_no_fetch)
{
	struct sim *s = sim_new_served();

	sim_change("echo one >a; echo one >b; echo two >c");
	sim_expect(s, "cat $M/a $M/c", "one\ntwo\n");
	cr_assert_eq(sim_counts(s).fetches, 2);
	sim_stop(s);
	/* Another session with the same store, and a client that knows its digests. */
	s->with_digests = true;
	sim_mount(s);
	cr_assert_eq(mirror_serve(s->m, s->src), 0);
	sim_expect(s, "cat $M/a $M/b $M/c", "one\none\ntwo\n");
	cr_assert_eq(sim_counts(s).fetches, 0);
	/* What a job wrote, put back by the client with its digest, is here already. */
	sim_change("echo two >d");
	sim_sync(s);
	sim_expect(s, "cat $M/d", "two\n");
	cr_assert_eq(sim_counts(s).fetches, 0);
	sim_free(s);
}

Test(mirror, learns_and_tells)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *file = xasprintf("%s/file", s->src);
	_cleanup_free_ char *absent = xasprintf("%s/absent", s->src);
	_cleanup_free_ char *deep = xasprintf("%s/dir/deep", s->src);
	_cleanup_free_ char *dir = xasprintf("%s/dir", s->src);
	struct entry_attr a;
	struct store_writer *w;
	struct digest d;

	sim_change("echo one >file; mkdir -m 751 dir");
	cr_assert_eq(mirror_peek(s->m, file, &a), -EAGAIN);
	cr_assert_eq(mirror_peek(s->m, s->src, &a), -EAGAIN);
	cr_assert_eq(mirror_peek(s->m, "/nowhere", &a), -ENOENT);
	sim_expect(s, "ls $M", "dir\nfile\n");
	cr_assert_eq(mirror_peek(s->m, s->src, &a), 0);
	cr_assert_eq(mirror_peek(s->m, dir, &a), 0);
	cr_assert_eq(a.mode, 0751);
	cr_assert_eq(mirror_peek(s->m, deep, &a), -EAGAIN);
	cr_assert_eq(mirror_peek(s->m, absent, &a), -ENOENT);
	cr_assert_eq(mirror_peek(s->m, file, &a), 0);
	cr_assert_eq(a.size, 4);
	cr_assert_not(a.has_digest);
	cr_assert_eq(store_begin(s->store, &w), 0);
	cr_assert_eq(store_write(w, "one\n", 4), 0);
	cr_assert_eq(store_commit(w, NULL, &d, NULL), 0);
	mirror_learn(s->m, file, a.version + 1, &d);
	cr_assert_eq(mirror_peek(s->m, file, &a), 0);
	cr_assert_not(a.has_digest, "that was of another version");
	mirror_learn(s->m, file, a.version, &d);
	cr_assert_eq(mirror_peek(s->m, file, &a), 0);
	cr_assert(a.has_digest && digest_eq(&a.digest, &d));
	sim_expect(s, "cat $M/file", "one\n");
	cr_assert_eq(sim_counts(s).fetches, 0);
	sim_free(s);
}

Test(mirror, survives_the_store)
{
	struct sim *s = sim_new_served();

	sim_change("echo one >a; echo two >b; echo three >c");
	sim_expect(s, "cat $M/a", "one\n");
	sim_expect(s, "rm -r $T/store; cat $M/a $M/b", "one\ntwo\n");
	/* Where it can't be made again, what streams by is not kept, and reading fails cleanly. */
	sim_expect(s, "rm -r $T/store; echo >$T/store; cat $M/a $M/b", "one\ntwo\n");
	sim_expect(s, "cat $M/c 2>&1 | sed 's/.*: //'", "Input/output error\n");
	cr_assert_geq(s->n_failed, 1);
	sim_expect(s, "rm $T/store; cat $M/c", "three\n");
	sim_free(s);
}

/* The object was lost after it was known, and nothing has it open: fetched again. */
Test(mirror, fetches_lost_objects_again)
{
	struct sim *s = sim_new_served();

	s->with_digests = true;
	sim_change("echo one >a");
	sim_expect(s, "cat $M/a", "one\n");
	sim_stop(s);
	sim_mount(s);
	cr_assert_eq(mirror_serve(s->m, s->src), 0);
	sim_expect(s, "rm -r $T/store; cat $M/a", "one\n");
	cr_assert_eq(sim_counts(s).fetches, 1);
	sim_free(s);
}

Test(mirror, says_what_can_not_be_read)
{
	struct sim *s = sim_new_served();

	sim_change("echo one >a");
	s->gone = true;
	sim_expect(s, "cat $M/a 2>&1 | sed 's/.*: //'", "Input/output error\n");
	cr_assert_geq(s->n_failed, 1);
	cr_assert_eq(s->last_failed, CONCC_E_STALE);
	cr_assert(str_ends(s->last_failed_path, "/src/a"), "%s", s->last_failed_path);
	s->gone = false;
	s->fetch_error = EACCES;
	sim_expect(s, "cat $M/a 2>&1 | sed 's/.*: //'", "Input/output error\n");
	cr_assert_eq(s->last_failed, -EACCES);
	s->fetch_error = 0;
	sim_expect(s, "cat $M/a", "one\n");
	sim_free(s);
}

/* ---- large and moving directories ---- */

Test(mirror, large_directory)
{
	struct sim *s = sim_new_served();
	struct mirror_counts before;

	sim_change("mkdir big; cd big; seq -f 'file-number-%g.h' 1 100000 | xargs touch");
	sim_expect(s, "ls -f $M/big | sort -u | wc -l", "100002\n");
	sim_expect(s, "ls -f $M/big | wc -l; test -e $M/big/file-number-777.h", "100002\n");
	before = sim_counts(s);
	sim_change("cd big; rm $(seq -f 'file-number-%g.h' 1 2 40000); echo >new.h");
	sim_sync(s);
	sim_expect(s,
		   "ls -f $M/big | wc -l; ls $M/big/file-number-777.h 2>&1 | grep -c No; "
		   "ls $S/big >$T/names; ls $M/big | diff - $T/names",
		   "80003\n1\n");
	cr_assert_eq(sim_counts(s).lists, before.lists);
	sim_free(s);
}

struct scan {
	const char *dir;
	int half_fd, go_fd;
	unsigned n, doubles;
	unsigned seen[1000];
};

static void count_names(struct scan *sc, const char *buf, long n)
{
	for (long at = 0; at < n;) {
		const struct dirent64 *e = (const void *)(buf + at);
		unsigned k;

		if (sscanf(e->d_name, "stay%u", &k) == 1 && k < 1000 && sc->seen[k]++ > 0)
			sc->doubles++;
		sc->n++;
		at += e->d_reclen;
	}
}

static void *scan_slowly(void *arg)
{
	struct scan *sc = arg;
	_cleanup_close_ int fd = open(sc->dir, O_RDONLY | O_DIRECTORY);
	char buf[2048];
	uint64_t one = 1;
	bool told = false;
	long n;

	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
		count_names(sc, buf, n);
		if (!told && sc->n > 1300) {
			told = true;
			(void)!write(sc->half_fd, &one, sizeof(one));
			(void)!read(sc->go_fd, &one, sizeof(one));
		}
	}
	return n < 0 ? (void *)"getdents failed" : NULL;
}

/* A listing half read shows once what stays, whatever comes, goes or is replaced meanwhile. */
Test(mirror, directory_changes_while_it_is_read)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *dir = xasprintf("%s%s/d", s->mnt, s->src);
	struct scan sc = {.dir = dir, .half_fd = eventfd(0, 0), .go_fd = eventfd(0, 0)};
	struct sim_task *task;
	const char *result;
	uint64_t one = 1;

	sim_change(
		"mkdir d; cd d; seq -f stay%g 0 999 | xargs touch; seq -f go%g 0 999 | xargs touch");
	sim_expect(s, "ls $M", "d\n");
	task = sim_begin(scan_slowly, &sc);
	for (;;) {
		struct pollfd p = {.fd = sc.half_fd, .events = POLLIN};

		if (poll(&p, 1, 0) == 1)
			break;
		sim_wait_event(s, sc.half_fd);
	}
	sim_change("cd d; rm go*; seq -f come%g 0 999 | xargs touch; "
		   "for i in $(seq 0 7 999); do echo >x; mv x stay$i; done");
	sim_sync(s);
	(void)!write(sc.go_fd, &one, sizeof(one));
	result = sim_finish(s, task);
	cr_assert_null(result, "%s", result);
	cr_assert_eq(sc.doubles, 0);
	for (unsigned k = 0; k < 1000; k++)
		cr_assert_eq(sc.seen[k], 1, "stay%u: %u", k, sc.seen[k]);
	sim_check_same(s);
	sim_free(s);
}

/* ---- listings that are no longer kept right ---- */

Test(mirror, stale_directories_are_asked_anew)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *dir = xasprintf("%s/dir", s->src);
	struct mirror_counts before;

	sim_change(
		"mkdir -p dir/sub; echo old >dir/file; echo same >dir/same; touch -d @1 dir/gone");
	sim_check_same(s);
	sim_expect(s, "cat $M/dir/file $M/dir/same; ls $M/dir/new $M/dir/never >/dev/null 2>&1",
		   "old\nsame\nstatus 2\n");
	/* No update says so. */
	sim_change("rm dir/gone; echo new >dir/new; echo newer >dir/file; rmdir dir/sub; "
		   "echo x >dir/sub");
	cr_assert_eq(mirror_dir_stale(s->m, sim_dir_by_path(s, dir)->dir_id), 0);
	sim_flush(s);
	sim_expect(s, "cat $M/dir/new", "new\n");
	sim_check_same(s);
	/* What is still absent is asked for again, too. */
	before = sim_counts(s);
	sim_expect(s, "test -e $M/dir/never", "status 1\n");
	cr_assert_eq(sim_counts(s).by_opcode[FUSE_LOOKUP], before.by_opcode[FUSE_LOOKUP] + 1);
	sim_expect(s, "cat $M/dir/file $M/dir/new $M/dir/sub; ls $M/dir/never 2>/dev/null",
		   "newer\nnew\nx\nstatus 2\n");
	/* What did not change was not fetched again. */
	cr_assert_eq(sim_counts(s).fetches, 5, "%llu", (unsigned long long)sim_counts(s).fetches);
	/* The served root itself. */
	sim_change("chmod 711 .; echo x >rootfile");
	cr_assert_eq(mirror_dir_stale(s->m, sim_dir_by_path(s, s->src)->dir_id), 0);
	sim_flush(s);
	sim_check_same(s);
	sim_free(s);
}

Test(mirror, directory_that_is_none_any_more)
{
	struct sim *s = sim_new_served();

	sim_change("mkdir -p dir/deep; echo x >dir/deep/x");
	sim_expect(s, "ls $M", "dir\n");
	/* The client lists after a change of which it has not told yet. */
	sim_change("rm -r dir; echo file >dir");
	sim_expect(s, "cat $M/dir/x 2>&1 | grep -c .", "1\n");
	sim_flush(s); /* the kernel has what was known before until the notifier has told it */
	sim_expect(s, "cat $M/dir", "file\n");
	sim_sync(s);
	sim_check_same(s);
	sim_change("rm dir; mkdir dir; echo y >dir/x");
	sim_sync(s);
	sim_expect(s, "cat $M/dir/x", "y\n");
	sim_free(s);
}

static void expect_failure(struct sim *s, unsigned n, const char *name, int err)
{
	_cleanup_free_ char *path = path_join(s->src, name);

	mirror_dispatch(s->m);
	cr_assert_eq(s->n_failed, n, "%u failures", s->n_failed);
	cr_assert_str_eq(s->last_failed_path, path);
	cr_assert_eq(s->last_failed, err);
	cr_assert_eq(s->last_failed_job, 7);
}

/* Opened here they would lead elsewhere than on the client, a fifo to a wait without end. */
Test(mirror, special_files_are_listed_and_never_found)
{
	struct sim *s = sim_new_served();

	sim_change("echo x >file; echo x >later; mkfifo fifo; mknod null c 1 3; "
		   "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'");
	sim_expect(s, "ls $M; cat $M/file $M/later", "fifo\nfile\nlater\nnull\nsock\nx\nx\n");
	mirror_dispatch(s->m);
	cr_assert_eq(s->n_failed, 0);
	sim_expect(s, "cat $M/fifo 2>/dev/null", "status 1\n");
	expect_failure(s, 1, "fifo", CONCC_E_SPECIAL);
	sim_expect(s, "stat $M/sock 2>/dev/null", "status 1\n");
	expect_failure(s, 2, "sock", CONCC_E_SPECIAL);
	/* Remembered nowhere. */
	sim_expect(s, "test -e $M/null", "status 1\n");
	expect_failure(s, 3, "null", CONCC_E_SPECIAL);
	sim_expect(s, "test -e $M/null", "status 1\n");
	expect_failure(s, 4, "null", CONCC_E_SPECIAL);
	/* A file becomes one, and one a file; a name that was not there, too. */
	sim_expect(s, "test -e $M/new", "status 1\n");
	sim_change("rm later fifo; mkfifo later new; echo was one >fifo");
	sim_sync(s);
	sim_expect(s, "cat $M/fifo", "was one\n");
	cr_assert_eq(s->n_failed, 4);
	sim_expect(s, "cat $M/later 2>/dev/null", "status 1\n");
	expect_failure(s, 5, "later", CONCC_E_SPECIAL);
	sim_expect(s, "cat $M/new 2>/dev/null", "status 1\n");
	expect_failure(s, 6, "new", CONCC_E_SPECIAL);
	sim_free(s);
}

/* A fifo of a job's own is in its upper layer, and works. */
Test(mirror, special_files_that_a_job_makes_are_its_own)
{
	struct sim *s = sim_new_served();

	sim_change("echo x >file");
	sim_expect(s,
		   OVERLAY "mkfifo mine; echo through >mine & cat mine; rm mine; mkfifo mine; ls'",
		   "through\nfile\nmine\n");
	cr_assert_eq(s->n_failed, 0);
	sim_free(s);
}

/* No look-up is answered "absent" or "denied" for what the client can't tell. */
Test(mirror, what_cannot_be_told_is_an_error_that_is_told)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *dir = xasprintf("%s/dir", s->src);
	_cleanup_free_ char *file = xasprintf("%s/dir/file", s->src);

	sim_change("mkdir dir; echo x >dir/file; echo y >dir/other");
	s->unknown = dir;
	sim_expect(s, "cat $M/dir/file 2>&1 | sed 's/.*: //'", "Input/output error\n");
	expect_failure(s, 1, "dir", -ENFILE);
	sim_expect(s, "ls $M/dir 2>&1 | sed 's/.*: //'", "Input/output error\n");
	cr_assert_eq(s->last_failed_job, 7);
	/* Told ahead of need, nobody waits for it. */
	s->n_failed = 0;
	sim_send_unknown(s, dir);
	mirror_dispatch(s->m);
	cr_assert_eq(s->n_failed, 0);
	/* Asked anew. */
	s->unknown = NULL;
	sim_expect(s, "cat $M/dir/file", "x\n");
	cr_assert_eq(s->n_failed, 0);
	/* Of one name, and then told. */
	s->unknown = file;
	sim_sync(s);
	sim_expect(s, "ls $M/dir; cat $M/dir/other", "file\nother\ny\n");
	sim_expect(s, "cat $M/dir/file 2>&1 | sed 's/.*: //'", "Input/output error\n");
	expect_failure(s, 1, "dir/file", CONCC_E_UNAVAIL);
	s->unknown = NULL;
	sim_sync(s);
	sim_expect(s, "cat $M/dir/file", "x\n");
	sim_free(s);
}

/* It was seen, and has moved with all that is in it: what was a name there is not known, and not
 * "nothing". */
Test(mirror, what_has_moved_is_an_error_that_is_told)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *dir = xasprintf("%s/dir", s->src);

	sim_change("mkdir dir; echo x >dir/file; echo y >dir/other");
	sim_expect(s, "cat $M/dir/file", "x\n");
	cr_assert_eq(mirror_dir_stale(s->m, sim_dir_by_path(s, dir)->dir_id), 0);
	sim_flush(s);
	sim_change("mv dir away");
	sim_expect(s, "cat $M/dir/other 2>&1 | sed 's/.*: //'", "Input/output error\n");
	expect_failure(s, 1, "dir", CONCC_E_STALE);
	/* Its parent was asked anew, so who comes when the kernel has been told of that knows. */
	sim_flush(s);
	sim_expect(s, "cat $M/dir/other 2>&1 | sed 's/.*: //'; cat $M/away/file",
		   "No such file or directory\nx\n");
	cr_assert_eq(s->n_failed, 1);
	sim_free(s);
}

Test(mirror, denied_directory_is_asked_each_time)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *dir = xasprintf("%s/secret", s->src);

	sim_change("mkdir -m 711 secret; echo x >secret/x");
	s->denied = dir;
	sim_expect(s,
		   "ls $M; cat $M/secret/x 2>&1 | sed 's/.*: //'; stat -c %a $M/secret; "
		   "ls $M/secret 2>&1 | sed 's/.*: //'",
		   "secret\nPermission denied\n711\nPermission denied\n");
	s->denied = NULL;
	sim_expect(s, "cat $M/secret/x", "x\n");
	sim_free(s);
}

Test(mirror, serves_more_at_any_time)
{
	struct sim *s = sim_new();
	_cleanup_free_ char *one = xasprintf("%s/a/b/one", s->src);
	_cleanup_free_ char *two = xasprintf("%s/a/two", s->src);
	_cleanup_free_ char *all = xasprintf("%s/a", s->src);

	sim_change("mkdir -p a/b/one a/two a/three; echo 1 >a/b/one/f; echo 2 >a/two/f; "
		   "echo 3 >a/three/f; echo 0 >a/f");
	sim_expect(s, "ls $M 2>&1 | grep -c No", "1\n");
	cr_assert_eq(mirror_serve(s->m, one), 0);
	sim_flush(s);
	sim_expect(s, "ls -R $M | grep -v :; cat $M/a/b/one/f; cat $M/a/two/f 2>/dev/null",
		   "a\n\nb\n\none\n\nf\n1\nstatus 1\n");
	cr_assert_eq(mirror_serve(s->m, two), 0);
	cr_assert_eq(mirror_serve(s->m, two), 0);
	sim_flush(s);
	sim_expect(s, "ls $M/a; cat $M/a/two/f; ls $M/a/three $M/a/f >/dev/null 2>&1",
		   "b\ntwo\n2\nstatus 2\n");
	/* One that holds both. */
	cr_assert_eq(mirror_serve(s->m, all), 0);
	cr_assert_eq(mirror_serve(s->m, one), 0);
	sim_flush(s);
	sim_expect(s, "cat $M/a/b/one/f $M/a/two/f $M/a/three/f $M/a/f", "1\n2\n3\n0\n");
	sim_expect(s, "cd $M/a && find . -type f | sort", "./b/one/f\n./f\n./three/f\n./two/f\n");
	cr_assert_eq(mirror_serve(s->m, "relative"), CONCC_E_PROTO);
	cr_assert_eq(mirror_serve(s->m, "/a/../b"), CONCC_E_PROTO);
	cr_assert_eq(mirror_serve(s->m, "/a//b"), CONCC_E_PROTO);
	sim_free(s);
}

static void expect_reports(struct sim *s, const char *want)
{
	sim_flush(s);
	cr_assert_str_eq(buf_cstr(&s->outside), want, "%s", buf_cstr(&s->outside));
	buf_reset(&s->outside);
}

/* The rest of the client's root: mount points, and a report of all else that is looked for. */
Test(mirror, sees_what_is_looked_up_outside)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *place = xasprintf("%s/" MIRROR_OUTSIDE, s->mnt);
	_cleanup_free_ char *reports = xasprintf(
		"7 /home/x\n7 /home/x\n7 list /home/me\n7 list /home/me\n7 %s/f\n", s->src);
	struct mirror_counts before, after;

	setenv("O", place, 1);
	sim_change("echo 1 >f");
	cr_assert_eq(mirror_outside(s->m, "/home/me/tools", true), 0);
	cr_assert_eq(mirror_outside(s->m, "/home/me", true), 0);
	cr_assert_eq(mirror_outside(s->m, "/home/../x", true), CONCC_E_PROTO);
	/* No listing of the root has it. */
	sim_expect(s, "ls -A $T/mnt; cat $M/f", "tmp\n1\n");
	sim_expect(s, "cd $O/home/me/tools && test -d .. && test -d $O$S && pwd -P | grep -c tools",
		   "1\n");
	expect_reports(s, "");
	/* Asked anew each time, though nothing has changed. */
	sim_expect(s, "test -e $O/home/x", "status 1\n");
	sim_expect(s, "test -e $O/home/x", "status 1\n");
	cr_assert_eq(mirror_outside(s->m, "/home/me/of-path", false), 0);
	sim_expect(s, "ls -A $O/home/me; ls $O/home/me | wc -l", "tools\n1\n");
	/* Of what is served it has the place only. */
	sim_expect(s, "test -e $O$S/f", "status 1\n");
	expect_reports(s, reports);
	cr_assert_eq(mirror_outside(s->m, "/home/x", true), 0);
	before = sim_counts(s);
	sim_expect(s, "test -d $O/home/x", "");
	sim_expect(s, "test -d $O/home/x/../me/tools", "");
	after = sim_counts(s);
	cr_assert_leq(asked(&before, &after), 2); /* the new name, and its attributes at most */
	expect_reports(s, "");
	sim_free(s);
}

/* For a launcher it is there; in a job's hands each use is told of, and merely to have it is none.
 */
Test(mirror, tells_who_uses_what_stands_for_a_descriptor)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *path = xasprintf("%s/" MIRROR_OUTSIDE "/" MIRROR_STAND_IN, s->mnt);
	struct flock lock = {.l_type = F_WRLCK};
	struct pollfd both, in;
	struct winsize ws;
	struct stat st;
	char c = 'x';
	int fd, other;

	s->of_no_job = true;
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0, "%s", strerror(errno));
	s->of_no_job = false;
	both = (struct pollfd){.fd = fd, .events = POLLIN | POLLOUT};
	in = (struct pollfd){.fd = fd, .events = POLLIN};
	other = dup(fd);
	cr_assert_geq(other, 0);
	cr_expect_eq(fcntl(other, F_GETFL) & O_ACCMODE, O_RDWR);
	cr_expect_eq(close(other), 0);
	cr_expect_eq(poll(&both, 1, 0), 1);
	mirror_dispatch(s->m);
	cr_assert_eq(s->n_failed, 0);
#define USE(call)                                                                                  \
	do {                                                                                       \
		unsigned n = s->n_failed;                                                          \
                                                                                                   \
		(void)!(call);                                                                     \
		mirror_dispatch(s->m);                                                             \
		cr_expect_gt(s->n_failed, n, #call);                                               \
		cr_expect_eq(s->last_failed, CONCC_E_DESCRIPTOR, #call);                           \
		cr_expect_eq(s->last_failed_job, 7, #call);                                        \
	} while (0)
	USE(read(fd, &c, 1));
	USE(pread(fd, &c, 1, 1 << 30));
	USE(write(fd, &c, 1));
	USE(fstat(fd, &st));
	USE(lseek(fd, 0, SEEK_END));
	USE(ftruncate(fd, 0));
	USE(fchmod(fd, 0600));
	USE(fsync(fd));
	USE(posix_fallocate(fd, 0, 1));
	USE(flock(fd, LOCK_SH | LOCK_NB));
	USE(fcntl(fd, F_SETLK, &lock));
	USE(fcntl(fd, F_GETLK, &lock));
	USE(ioctl(fd, TIOCGWINSZ, &ws));
	USE(poll(&in, 1, 0));
	USE(open(path, O_RDONLY | O_CLOEXEC));
#undef USE
	cr_expect_eq(close(fd), 0);
	sim_expect(s, "ls -A $T/mnt", "tmp\n");
	sim_free(s);
}

/* Each bash opens it to learn whether it is there; that is no use of it. */
Test(mirror, tells_who_uses_what_stands_for_a_terminal)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *path = xasprintf("%s/" MIRROR_OUTSIDE "/" MIRROR_TERMINAL, s->mnt);
	struct winsize ws;
	struct stat st;
	char c = 'x';
	int fd;

	cr_expect_eq(stat(path, &st), 0);
	cr_expect_eq(close(open(path, O_RDONLY | O_CLOEXEC)), 0);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	cr_assert_geq(fd, 0, "%s", strerror(errno));
	cr_expect_eq(fstat(fd, &st), 0);
	mirror_dispatch(s->m);
	cr_assert_eq(s->n_failed, 0);
#define USE(call)                                                                                  \
	do {                                                                                       \
		unsigned n = s->n_failed;                                                          \
                                                                                                   \
		(void)!(call);                                                                     \
		mirror_dispatch(s->m);                                                             \
		cr_expect_gt(s->n_failed, n, #call);                                               \
		cr_expect_eq(s->last_failed, CONCC_E_SPECIAL, #call);                              \
		cr_expect_eq(s->last_failed_job, 7, #call);                                        \
	} while (0)
	USE(read(fd, &c, 1));
	USE(write(fd, &c, 1));
	USE(ioctl(fd, TIOCGWINSZ, &ws));
	USE(chmod(path, 0600));
#undef USE
	cr_expect_eq(close(fd), 0);
	sim_expect(s, "ls -A $T/mnt", "tmp\n");
	sim_free(s);
}

static int make_link(struct sim *s, const char *path, const char *target)
{
	const struct msg_link l = {.path = (char *)path, .target = (char *)target};

	return mirror_link(s->m, &l);
}

/* A link is one until it is taken back; what may be mounted on stays a directory. */
Test(mirror, shows_links_outside)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *place = xasprintf("%s/" MIRROR_OUTSIDE, s->mnt);
	char many[32];

	setenv("O", place, 1);
	cr_assert_eq(mirror_outside(s->m, "/home/me/tools", true), 0);
	cr_assert_eq(mirror_outside(s->m, "/home/path/bin", false), 0);
	sim_expect(s, "test -e $O/home/link", "status 1\n");
	expect_reports(s, "7 /home/link\n");
	cr_assert_eq(make_link(s, "/home/link", "me/tools"), 0);
	sim_expect(s, "readlink $O/home/link; cd $O/home/link && pwd -P | grep -c tools",
		   "me/tools\n1\n");
	sim_expect(s, "stat -c '%F %s' $O/home/link", "symbolic link 8\n");
	cr_assert_eq(make_link(s, "/home/link", "me"), 0);
	sim_expect(s, "readlink $O/home/link; test -d $O/home/link/tools && echo yes", "me\nyes\n");
	/* A directory of PATH, of which it turns out that it is called by a link. */
	sim_expect(s, "test -d $O/home/path/bin && echo yes", "yes\n");
	cr_assert_eq(make_link(s, "/home/path", "me"), 0);
	cr_assert_eq(mirror_outside(s->m, "/home/path/bin", false), 0);
	sim_expect(s, "readlink $O/home/path; test -d $O/home/path/tools && echo yes", "me\nyes\n");
	cr_assert_eq(make_link(s, "/home/me", "x"), -EISDIR);
	cr_assert_eq(make_link(s, "/home/path/tools", "x"), -ENOTDIR);
	expect_reports(s, "");
	cr_assert_eq(make_link(s, "/home/link", ""), 0);
	sim_expect(s, "test -L $O/home/link", "status 1\n");
	expect_reports(s, "7 /home/link\n");
	for (int i = 1; i < PROTO_OUTSIDE_LINKS_MAX; i++) {
		snprintf(many, sizeof(many), "/home/many%d", i);
		cr_assert_eq(make_link(s, many, "x"), 0, "%s", many);
	}
	cr_assert_eq(make_link(s, "/home/more", "x"), CONCC_E_TOOBIG);
	sim_free(s);
}

static int make_bare(struct sim *s, const char *path, bool there, int64_t time)
{
	return mirror_bare(s->m, &(struct msg_bare){(char *)path, there, 0700, time, 5});
}

/* It looks as it does at home, and what is sought in it is told. */
Test(mirror, shows_bare_directories)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *place = xasprintf("%s/" MIRROR_OUTSIDE, s->mnt);
	char many[32];

	setenv("O", place, 1);
	cr_assert_eq(mirror_outside(s->m, "/home/me/tools", true), 0);
	cr_assert_eq(make_bare(s, "/home/me/.config", true, 77), 0);
	cr_assert_eq(make_bare(s, "/home/me/.config/app", true, 78), 0);
	sim_expect(s, "stat -c '%F %a %Y' $O/home/me/.config", "directory 700 77\n");
	sim_expect(s, "ls $O/home/me", "tools\n");
	expect_reports(s, "7 list /home/me\n");
	sim_expect(s, "test -e $O/home/me/.config/app/rc", "status 1\n");
	expect_reports(s, "7 /home/me/.config/app/rc\n");
	cr_assert_eq(make_bare(s, "/home/me/.config", true, 79), 0);
	sim_expect(s, "stat -c '%a %Y' $O/home/me/.config", "700 79\n");
	/* With what is in it; but not with what is mounted there. */
	cr_assert_eq(make_bare(s, "/home/me/.config", false, 0), 0);
	sim_expect(s, "test -e $O/home/me/.config/app", "status 1\n");
	expect_reports(s, "7 /home/me/.config\n");
	cr_assert_eq(make_bare(s, "/home/me", true, 80), 0);
	sim_expect(s, "stat -c '%a %Y' $O/home/me", "700 80\n");
	cr_assert_eq(make_bare(s, "/home/me", false, 0), 0);
	sim_expect(s, "test -d $O/home/me/tools; stat -c %a $O/home/me", "755\n");
	for (int i = 0; i < PROTO_BARE_MAX; i++) {
		snprintf(many, sizeof(many), "/home/many%d", i);
		cr_assert_eq(make_bare(s, many, true, i), 0, "%s", many);
	}
	cr_assert_eq(make_bare(s, "/home/more", true, 1), CONCC_E_TOOBIG);
	sim_free(s);
}

/* Told as such, however it is done, and whether or not its absence is news; and refused. */
Test(mirror, sees_what_is_changed_outside)
{
	static const struct {
		const char *command;
		const char *reports;
	} ways[] = {
		{"echo x >$O/home/new", "7 change /home/new\n"},
		{"echo x >>$O/home/new", "7 change /home/new\n"},
		{"mkdir $O/home/new", "7 change /home/new\n"},
		{"ln -s x $O/home/new", "7 change /home/new\n"},
		{"mkfifo $O/home/new", "7 change /home/new\n"},
		{"rmdir $O/home/me", "7 change /home/me\n"},
		{"chmod 700 $O/home/me", "7 change /home/me\n"},
		{"touch $O/home/me", "7 change /home/me\n"},
		{"python3 -c 'import os; os.rename(\"'$O'/home/me\", \"'$O'/home/new\")'",
		 "7 change /home/me\n7 change /home/new\n"},
	};
	struct sim *s = sim_new_served();
	_cleanup_free_ char *place = xasprintf("%s/" MIRROR_OUTSIDE, s->mnt);
	char *const names[] = {(char *)"new", NULL}, *const none[] = {NULL};
	struct msg_outside absent = {.dir = (char *)"/home", .names = (char **)names};
	struct mirror_counts before, after;

	setenv("O", place, 1);
	cr_assert_eq(mirror_outside(s->m, "/home/me", true), 0);
	mirror_outside_absent(s->m, &absent);
	/* No news, and not asked for again. */
	sim_expect(s, "test -e $O/home/new", "status 1\n");
	before = sim_counts(s);
	sim_expect(s, "test -e $O/home/new", "status 1\n");
	after = sim_counts(s);
	cr_assert_eq(after.by_opcode[FUSE_LOOKUP], before.by_opcode[FUSE_LOOKUP]);
	expect_reports(s, "");
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		setenv("WAY", ways[i].command, 1);
		sim_expect(s, "sh -c \"$WAY\" 2>&1 | grep -c 'Permission denied'", "1\n");
		expect_reports(s, ways[i].reports);
	}
	/* All is news again. */
	absent.names = (char **)none;
	mirror_outside_absent(s->m, &absent);
	sim_expect(s, "test -e $O/home/new", "status 1\n");
	expect_reports(s, "7 /home/new\n");
	/* And what was absent becomes a directory. */
	absent.names = (char **)names;
	mirror_outside_absent(s->m, &absent);
	sim_expect(s, "test -e $O/home/new", "status 1\n");
	cr_assert_eq(mirror_outside(s->m, "/home/new/sub", true), 0);
	sim_expect(s, "test -d $O/home/new/sub", "");
	expect_reports(s, "");
	sim_free(s);
}

struct absent {
	const char *dir;
	unsigned from, to;
};

static void *look_for_absent(void *arg)
{
	const struct absent *a = arg;
	char path[256];

	for (unsigned k = a->from; k < a->to; k++) {
		snprintf(path, sizeof(path), "%s/absent%u", a->dir, k);
		if (access(path, F_OK) == 0 || errno != ENOENT)
			return (void *)"it is there";
	}
	return NULL;
}

#define N_ABSENT  (256 * 1024 + 100)
#define AT_A_TIME 8192 /* each of these waits has an end, however long all of them take */

static void look_for_all_absent(struct sim *s, const char *dir)
{
	for (unsigned from = 0; from < N_ABSENT; from += AT_A_TIME) {
		unsigned to = from + AT_A_TIME;
		struct absent some = {dir, from, to < N_ABSENT ? to : N_ABSENT};

		cr_assert_null(sim_finish(s, sim_begin(look_for_absent, &some)));
	}
}

/* More names known to be absent than are kept on record: the oldest are asked for again. */
Test(mirror, absent_names_are_bounded)
{
	struct sim *s = sim_new_served();
	_cleanup_free_ char *dir = xasprintf("%s%s", s->mnt, s->src);
	struct absent young = {dir, 200, 300};
	struct absent old = {dir, 2, 52};
	struct mirror_counts before, after;

	look_for_all_absent(s, dir);
	sim_flush(s);
	before = sim_counts(s);
	cr_assert_eq(before.notifications, 101, "100 names and the first listing's attributes");
	cr_assert_null(sim_finish(s, sim_begin(look_for_absent, &young)));
	after = sim_counts(s);
	cr_assert_eq(after.by_opcode[FUSE_LOOKUP], before.by_opcode[FUSE_LOOKUP]);
	cr_assert_null(sim_finish(s, sim_begin(look_for_absent, &old)));
	after = sim_counts(s);
	cr_assert_eq(after.by_opcode[FUSE_LOOKUP] - before.by_opcode[FUSE_LOOKUP], 50);
	sim_change(": >absent0; : >absent3; : >absent200; : >absent262243");
	sim_sync(s);
	sim_expect(s, "cd $M && ls absent0 absent3 absent200 absent262243",
		   "absent0\nabsent200\nabsent262243\nabsent3\n");
	sim_free(s);
}

/* ---- a client that breaks the rules ---- */

Test(mirror, refuses_wrong_contents)
{
	struct sim *s = sim_new_served();
	struct sim_want *w;
	struct sim_task *task;
	_cleanup_free_ char *out = NULL;
	struct digest wrong;
	uint32_t id;

	digest_of("wrong", 5, &wrong);
	sim_change("echo one >a; echo two >b");
	s->hold_fetches = true;
	cr_assert_eq(sim_data(s, 77, 0, "x", 1), CONCC_E_PROTO, "no such fetch");

	task = sim_begin_sh("cat $M/a 2>&1 | sed 's/.*: //'");
	wait_held(s, 1);
	w = list_first(&s->held, struct sim_want, link);
	id = w->fetch.fetch_id;
	cr_assert_eq(sim_data(s, id, 1, "ne", 2), CONCC_E_PROTO, "a gap");
	out = sim_finish(s, task);
	cr_assert_str_eq(out, "Input/output error\n");
	free(steal_ptr(&out));
	sim_want_free(s, w);

	task = sim_begin_sh("cat $M/b 2>&1 | sed 's/.*: //'");
	wait_held(s, 1);
	w = list_first(&s->held, struct sim_want, link);
	id = w->fetch.fetch_id;
	cr_assert_eq(sim_data(s, id, 0, "tw", 2), 0);
	cr_assert_eq(sim_data(s, id, 2, "o\ntoo much", 10), CONCC_E_PROTO, "beyond its size");
	out = sim_finish(s, task);
	cr_assert_str_eq(out, "Input/output error\n");
	sim_free(s);
}

Test(mirror, refuses_other_bytes_than_named)
{
	struct sim *s = sim_new_served();
	struct sim_task *task;
	_cleanup_free_ char *out = NULL;
	struct digest right, wrong;
	uint32_t id;

	digest_of("one\n", 4, &right);
	digest_of("won\n", 4, &wrong);
	sim_change("echo one >a");
	s->with_digests = true;
	s->hold_fetches = true;
	task = sim_begin_sh("cat $M/a >/dev/null 2>&1");
	wait_held(s, 1);
	id = list_first(&s->held, struct sim_want, link)->fetch.fetch_id;
	cr_assert_eq(sim_data(s, id, 0, "won\n", 4), 0);
	/* The listing named another digest for this version. */
	cr_assert_eq(sim_end(s, id, &wrong), CONCC_E_PROTO);
	out = sim_finish(s, task);
	cr_assert_not(store_has(s->store, &right));
	cr_assert_not(store_has(s->store, &wrong));
	sim_free(s);
}

Test(mirror, refuses_wrong_listings)
{
	struct sim *s = sim_new_served();
	struct buf none = BUF_INIT;
	struct entry_attr dir = {.type = ENTRY_DIR, .mode = 0755, .version = 1, .ino = 1};
	struct entry_attr file = {.type = ENTRY_FILE, .mode = 0644, .version = 2, .ino = 2};
	_cleanup_free_ char *sub = xasprintf("%s/sub", s->src);
	uint32_t id;

	sim_change("mkdir sub");
	sim_expect(s, "ls $M", "sub\n");
	id = sim_dir_by_path(s, s->src)->dir_id;
	cr_assert_eq(sim_send_dir(s, 0, DIR_LISTED, s->src, &dir, 0, &none), CONCC_E_PROTO);
	cr_assert_eq(sim_send_dir(s, 9, DIR_LISTED, "/tmp", &dir, 0, &none), CONCC_E_PROTO);
	cr_assert_eq(sim_send_dir(s, id, DIR_LISTED, sub, &dir, 0, &none), CONCC_E_PROTO);
	cr_assert_eq(sim_send_dir(s, 9, DIR_LISTED, s->src, &file, 0, &none), CONCC_E_PROTO);
	cr_assert_eq(sim_send_update(s, 0, &dir, 0, &none), CONCC_E_PROTO);
	cr_assert_eq(sim_send_update(s, id, &file, 0, &none), CONCC_E_PROTO);
	cr_assert_eq(mirror_dir_stale(s->m, 0), CONCC_E_PROTO);
	/* Of what is no longer known nothing is wanted, and nothing is wrong. */
	cr_assert_eq(sim_send_update(s, 999, &dir, 0, &none), 0);
	cr_assert_eq(mirror_dir_stale(s->m, 999), 0);
	cr_assert_eq(sim_send_dir(s, 998, DIR_LISTED, "/elsewhere", &dir, 0, &none), 0);
	sim_check_same(s);
	sim_free(s);
}

/* How a directory is told twice: its own listing has a version of its own, its entry stays. */
Test(mirror, what_is_in_a_directory_stays_when_that_is_listed_again)
{
	struct sim *s = sim_new_served();
	struct buf none = BUF_INIT;
	_cleanup_free_ char *a = xasprintf("%s/a", s->src), *b = xasprintf("%s/a/b", s->src);
	char target[PROTO_PATH_MAX];
	struct entry_attr dir;
	uint64_t lists;

	sim_change("mkdir -p a/b");
	sim_expect(s, "ls $M/a/b", "");
	cr_assert(sim_attr(s, b, &dir, target));
	dir.version += 1000;
	cr_assert_eq(sim_send_dir(s, sim_dir_by_path(s, b)->dir_id, DIR_LISTED, b, &dir, 0, &none),
		     0);
	lists = sim_counts(s).lists;
	sim_list(s, a);
	sim_expect(s, "ls $M/a && ls $M/a/b", "b\n");
	cr_assert_eq(sim_counts(s).lists, lists);
	sim_free(s);
}

static void guess_all(struct sim *s, const char *dir, int n)
{
	_cleanup_free_ char *path = path_join(s->src, dir);
	_cleanup_strv_ char **names = xcalloc(1, sizeof(*names));
	struct msg_prefetch m = {.dir_id = sim_dir_by_path(s, path)->dir_id};

	for (int i = 1; i <= n; i++)
		strv_push(&names, xasprintf("f%d", i));
	m.names = names;
	mirror_guess(s->m, &m);
	mirror_dispatch(s->m);
}

static size_t n_guessed(struct sim *s)
{
	char **names;
	uint32_t id;
	size_t n = 0;

	while ((names = mirror_guessed(s->m, &id))) {
		n += strv_len(names);
		cr_assert_neq(id, 0);
		strv_free(names);
	}
	return n;
}

/* 40 files of 64 KiB. */
#define MAKE_GUESSED                                                                               \
	"mkdir d; for i in $(seq 40); do yes $i | head -c 65536 >d/f$i; done; echo other >d/other"

/* What a read makes room for is asked for by the owner, who may not have come to it. */
static uint64_t fetches_after_all(struct sim *s)
{
	mirror_dispatch(s->m);
	return sim_counts(s).fetches;
}

Test(mirror, of_guesses_as_much_is_asked_for_as_they_were_of_use)
{
	struct sim *s = sim_new_served();

	sim_change(MAKE_GUESSED);
	sim_expect(s, "ls $M/d | wc -l", "41\n");
	guess_all(s, "d", 40);
	cr_assert_eq(fetches_after_all(s), GUESS_BYTES_MIN / 65536);
	cr_assert_eq(n_guessed(s), 0);
	/* One was right: there is room for its bytes, and as many again. */
	sim_expect(s, "cmp $M/d/f1 $S/d/f1", "");
	cr_assert_eq(fetches_after_all(s), GUESS_BYTES_MIN / 65536 + 2);
	cr_assert_eq(n_guessed(s), 1);
	sim_expect(s, "cat $M/d/f? $M/d/f?? | wc -c", "2621440\n");
	cr_assert_eq(fetches_after_all(s), 40);
	cr_assert_eq(n_guessed(s), 39);
	cr_assert_eq(n_guessed(s), 0);
	sim_free(s);
}

Test(mirror, guesses_that_are_of_no_use_end)
{
	struct sim *s = sim_new_served();

	sim_change(MAKE_GUESSED);
	sim_expect(s, "ls $M/d | wc -l", "41\n");
	guess_all(s, "d", 40);
	guess_all(s, "d", 40);
	sim_expect(s, "cat $M/d/other", "other\n");
	cr_assert_eq(fetches_after_all(s), GUESS_BYTES_MIN / 65536 + 1);
	/* One that still waits is asked for like any other, and is told of. */
	sim_expect(s, "cat $M/d/f40 | wc -c", "65536\n");
	cr_assert_eq(fetches_after_all(s), GUESS_BYTES_MIN / 65536 + 3);
	cr_assert_eq(n_guessed(s), 1);
	/* What became another file meanwhile is no guess any more. */
	sim_change("echo new >d/f39; mv d/f38 d/g38");
	sim_sync(s);
	sim_expect(s, "cat $M/d/f39", "new\n");
	cr_assert_eq(n_guessed(s), 0);
	sim_free(s);
}

Test(mirror, says_why_it_can_not_start)
{
	struct sim *s = sim_new();
	struct mirror_config c = {.mountpoint = "/nonexistent/mirror", .store = s->store};
	struct errmsg msg = {0};
	struct mirror *m = NULL;

	cr_assert_eq(mirror_start(&c, &sim_ops, s, &m, &msg), -ENOENT);
	cr_assert(strstr(msg.text, "/nonexistent/mirror"), "%s", msg.text);
	cr_assert_null(m);
	sim_free(s);
}
