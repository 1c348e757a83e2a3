/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What jobs did, put in place on real directories, beside users who change the same files. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/tree.h"

#include "../lib/refuse.h"
#include "../lib/unit.h"

struct seen {
	unsigned updates;
	char name[256]; /* of the last entry in an UPDATE */
	struct entry_attr attr;
};

struct bed {
	struct tree *tree;
	struct commit *job;
	char root[64];
	char *workspaces[2];
	struct tree_limits limits;
	struct seen seen[3];
	struct errmsg msg;
};

static void on_send(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	struct seen *s = &((struct bed *)data)->seen[peer];
	struct msg_update m;

	if (type != MSG_UPDATE)
		return;
	s->updates++;
	cr_assert_eq(msg_update_decode((struct blob){b->data, b->len}, &m), 0);
	for (uint32_t i = 0; i < m.n; i++) {
		struct dir_entry d;

		dir_entry_decode(&m.entries, &d);
		snprintf(s->name, sizeof(s->name), "%.*s", (int)d.name.n, (const char *)d.name.p);
		s->attr = d.attr;
	}
}

static char *at(const struct bed *b, const char *rel)
{
	static char bufs[8][512];
	static unsigned i;
	char *p = bufs[i++ % 8];

	snprintf(p, 512, "%s%s%s", b->root, *rel ? "/" : "", rel);
	return p;
}

#define cr_file(b, rel, text)                                                                      \
	do {                                                                                       \
		struct buf got_ = BUF_INIT;                                                        \
		cr_assert_eq(read_file_at(AT_FDCWD, at(b, rel), 1 << 20, &got_), 0, "%s", rel);    \
		cr_assert_str_eq(buf_cstr(&got_), text, "%s", rel);                                \
		buf_release(&got_);                                                                \
	} while (0)

static bool exists(const struct bed *b, const char *rel)
{
	struct stat st;

	return lstat(at(b, rel), &st) == 0;
}

static mode_t mode_of(const struct bed *b, const char *rel)
{
	struct stat st;

	cr_assert_eq(lstat(at(b, rel), &st), 0, "%s", rel);
	return st.st_mode;
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void rm_rf(const char *path)
{
	(void)nftw(path, rm_one, 32, FTW_DEPTH | FTW_PHYS);
}

static unsigned n_temps;
static int count_temp(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	n_temps += str_starts(path + ftw->base, ".concc-tmp-");
	return 0;
}

static unsigned temps(const struct bed *b)
{
	n_temps = 0;
	(void)nftw(b->root, count_temp, 32, FTW_PHYS);
	return n_temps;
}

static void bed_serve(struct bed *b, bool writable)
{
	static const struct tree_ops ops = {.send = on_send};

	cr_assert_eq(tree_new_limited(&ops, b, NULL, &b->limits, &b->tree, &b->msg), 0);
	cr_assert_eq(tree_serve(b->tree, b->root, writable, &b->msg), 0);
	b->workspaces[0] = b->root;
}

static void bed_init_limited(struct bed *b, struct tree_limits limits)
{
	*b = (struct bed){.limits = limits};
	strcpy(b->root, "/tmp/concc-test-commit.XXXXXX");
	cr_assert(mkdtemp(b->root));
	bed_serve(b, true);
}

static void bed_init(struct bed *b)
{
	bed_init_limited(b, (struct tree_limits){0});
}

static void bed_release(struct bed *b)
{
	commit_free(b->job);
	cr_assert_eq(temps(b), 0, "temporaries left behind");
	tree_free(b->tree);
	rm_rf(b->root);
}

/* A job is dispatched: as the server does, after a drain. */
static void start(struct bed *b)
{
	commit_free(b->job);
	tree_drain(b->tree);
	b->job = commit_new(b->tree, b->workspaces, tree_version(b->tree));
}

static int effect(struct bed *b, struct msg_file f)
{
	if (!f.target)
		f.target = (char *)"";
	return commit_file(b->job, &f);
}

static int put(struct bed *b, const char *path, const char *text, unsigned mode)
{
	struct msg_file f = {
		.kind = EFFECT_FILE,
		.path = (char *)path,
		.size = strlen(text),
		.mode = (uint16_t)mode,
	};
	int err;

	digest_of(text, strlen(text), &f.digest);
	err = effect(b, f);
	/* In two pieces, as frames cut it. */
	if (!err && *text)
		err = commit_data(b->job, text, 1);
	if (!err && strlen(text) > 1)
		err = commit_data(b->job, text + 1, strlen(text) - 1);
	return err;
}

static int simple(struct bed *b, enum effect_kind kind, const char *path, unsigned mode,
		  unsigned flags)
{
	return effect(b, (struct msg_file){.kind = (uint8_t)kind,
					   .path = (char *)path,
					   .mode = (uint16_t)mode,
					   .flags = (uint8_t)flags});
}

static bool piece(struct bed *b, int *ret_err)
{
	b->msg = (struct errmsg){0};
	return commit_apply_some(b->job, 0, 0, ret_err, &b->msg);
}

/* In the smallest pieces, between which the tree hears what there is to be heard. */
static int apply(struct bed *b)
{
	int err;

	while (!piece(b, &err))
		tree_on_event(b->tree);
	return err;
}

static void applies(struct bed *b)
{
	int err = apply(b);

	cr_assert_eq(err, 0, "%d %s", err, b->msg.text);
}

static void conflicts(struct bed *b, const char *path)
{
	int err = apply(b);

	cr_assert_eq(err, CONCC_E_CONFLICT, "%s: %d %s", path, err, b->msg.text);
	cr_assert(strstr(b->msg.text, path), "%s is not named: %s", path, b->msg.text);
	cr_assert_eq(temps(b), 0);
}

Test(commit, a_new_file_is_whole_and_told)
{
	struct commit_totals t;
	struct digest d;
	struct bed b;

	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	tree_list(b.tree, 1, b.root);
	start(&b);
	umask(077); /* the server's own must not count */
	cr_assert_eq(put(&b, "out.o", "object", 0664), 0);
	cr_assert_not(exists(&b, "out.o"), "in place before the commit");
	applies(&b);
	cr_file(&b, "out.o", "object");
	cr_assert_eq(mode_of(&b, "out.o"), S_IFREG | 0664);
	digest_of("object", 6, &d);
	cr_assert_str_eq(b.seen[0].name, "out.o");
	cr_assert(b.seen[0].attr.has_digest && digest_eq(&b.seen[0].attr.digest, &d));
	/* A worker's word counts for that worker only. */
	cr_assert_str_eq(b.seen[1].name, "out.o");
	cr_assert_not(b.seen[1].attr.has_digest);
	cr_assert_eq(b.seen[0].attr.version, b.seen[1].attr.version);
	cr_assert_eq(b.seen[0].updates, 1);
	/* Our own events make no further version. */
	tree_drain(b.tree);
	tree_drain(b.tree);
	cr_assert_eq(b.seen[0].updates, 1);
	commit_totals(b.job, &t);
	cr_assert(t.files == 1 && t.bytes == 6);
	/* Nor does a peer that takes the number over inherit the claim. */
	tree_peer_reset(b.tree, 0);
	tree_list(b.tree, 0, b.root);
	b.seen[1].updates = 0;
	IN_CHILD(write_file(at(&b, "out.o"), "edited"));
	tree_drain(b.tree);
	cr_assert_eq(b.seen[1].updates, 1);
	cr_assert_not(b.seen[0].attr.has_digest);
	bed_release(&b);
}

static void *write_there(void *w)
{
	commit_write(w);
	return NULL;
}

static int files_in(const char *dir)
{
	DIR *d = opendir(dir);
	int n = -2; /* . and .. */

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

Test(commit, bytes_that_a_thread_writes)
{
	const size_t size = 3 << 20;
	char *bytes = xcalloc(1, size);
	struct msg_file f = {
		.kind = EFFECT_FILE, .path = (char *)"big", .size = size, .mode = 0640};
	struct commit_writing *w;
	struct buf got = BUF_INIT;
	struct stat st;
	pthread_t thread;
	struct bed b;

	bed_init(&b);
	start(&b);
	memset(bytes, 'x', size / 2); /* then a hole */
	digest_of(bytes, size, &f.digest);
	cr_assert_eq(effect(&b, f), 0);
	w = commit_data_later(b.job, bytes, size);
	cr_assert_not_null(w);
	cr_assert_eq(pthread_create(&thread, NULL, write_there, w), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert(!exists(&b, "big"));
	commit_written(w);
	cr_assert_eq(apply(&b), 0);
	cr_assert_eq(read_file_at(AT_FDCWD, at(&b, "big"), size + 1, &got), 0);
	cr_assert_eq(got.len, size);
	cr_assert_eq(memcmp(got.data, bytes, size), 0);
	cr_assert_eq(stat(at(&b, "big"), &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0640);
	cr_assert_lt((size_t)st.st_blocks * 512, size);
	/* Not as many as it announced. */
	cr_assert_eq(effect(&b, f), 0);
	cr_assert_null(commit_data_later(b.job, bytes, size - 1));
	cr_assert_neq(apply(&b), 0);
	buf_release(&got);
	free(bytes);
	bed_release(&b);
}

Test(commit, a_commit_that_goes_while_a_thread_writes)
{
	struct msg_file f = {.kind = EFFECT_FILE, .path = (char *)"big", .size = 4, .mode = 0644};
	struct commit_writing *w;
	struct bed b;

	bed_init(&b);
	start(&b);
	cr_assert_eq(effect(&b, f), 0);
	w = commit_data_later(b.job, "text", 4);
	cr_assert_not_null(w);
	cr_assert_eq(files_in(b.root), 1);
	commit_free(b.job);
	b.job = NULL;
	cr_assert_eq(files_in(b.root), 0);
	commit_write(w);
	commit_written(w);
	cr_assert_eq(files_in(b.root), 0);
	bed_release(&b);
}

/* A file may only be so large, as if the disk were full. */
Test(commit, a_thread_that_can_not_write)
{
	struct msg_file f = {
		.kind = EFFECT_FILE, .path = (char *)"big", .size = 4096, .mode = 0644};
	struct rlimit limit = {.rlim_cur = 100, .rlim_max = RLIM_INFINITY};
	struct commit_writing *w;
	char bytes[4096];
	struct bed b;

	bed_init(&b);
	start(&b);
	memset(bytes, 'x', sizeof(bytes));
	cr_assert_eq(effect(&b, f), 0);
	w = commit_data_later(b.job, bytes, sizeof(bytes));
	cr_assert_not_null(w);
	(void)signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	commit_write(w);
	limit.rlim_cur = RLIM_INFINITY;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	commit_written(w);
	cr_assert_eq(apply(&b), -EFBIG);
	cr_assert_eq(files_in(b.root), 0);
	bed_release(&b);
}

Test(commit, batches_of_one_job)
{
	struct bed b;

	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	start(&b);
	for (int i = 0; i < 5; i++) {
		/* New directory first, its files before it exists; then all again over it. */
		cr_assert_eq(simple(&b, EFFECT_DIR, "d", 0750, 0), 0);
		cr_assert_eq(simple(&b, EFFECT_DIR, "d/e", 0755, 0), 0);
		cr_assert_eq(put(&b, "d/e/lib.rmeta", i % 2 ? "meta1" : "meta0", 0644), 0);
		cr_assert_eq(put(&b, "top", i % 2 ? "top1" : "top0", 0644), 0);
		applies(&b);
		cr_file(&b, "d/e/lib.rmeta", i % 2 ? "meta1" : "meta0");
		if (i == 2) /* another worker looks at it meanwhile */
			tree_list(b.tree, 1, at(&b, "d/e"));
		if (i == 3) {
			cr_assert_eq(simple(&b, EFFECT_REMOVE, "d", 0, 0), 0);
			applies(&b);
			cr_assert_not(exists(&b, "d"));
		}
	}
	cr_assert_eq(mode_of(&b, "d"), S_IFDIR | 0750);
	cr_assert_eq(temps(&b), 0);
	bed_release(&b);
}

Test(commit, what_others_changed_meanwhile_is_a_conflict)
{
	struct bed b;

	bed_init(&b);
	mkdir(at(&b, "d"), 0755);
	mkdir(at(&b, "d/sub"), 0755);
	write_file(at(&b, "f"), "user");
	write_file(at(&b, "d/g"), "user");
	tree_list(b.tree, 0, b.root);
	tree_list(b.tree, 0, at(&b, "d"));
	tree_list(b.tree, 0, at(&b, "d/sub"));
	/* Edited. */
	start(&b);
	cr_assert_eq(put(&b, "other", "job", 0644), 0);
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	IN_CHILD(write_file(at(&b, "f"), "USER"));
	conflicts(&b, "/f");
	cr_file(&b, "f", "USER");
	cr_assert_not(exists(&b, "other"), "part of a failed batch is in place");
	/* Seen by the next job: no conflict. */
	start(&b);
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	applies(&b);
	cr_file(&b, "f", "job");
	/* Removed. */
	start(&b);
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	IN_CHILD(unlink(at(&b, "f")));
	conflicts(&b, "/f");
	/* Made where the job saw nothing. */
	start(&b);
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	IN_CHILD(write_file(at(&b, "f"), "user"));
	conflicts(&b, "/f");
	/* Replaced by a symlink. */
	start(&b);
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	IN_CHILD({
		unlink(at(&b, "f"));
		if (symlink("d/g", at(&b, "f")))
			_exit(1);
	});
	conflicts(&b, "/f");
	cr_file(&b, "d/g", "user");
	/* A changed mode, a removal, a link's source. */
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_META, "d/g", 0600, 0), 0);
	IN_CHILD(write_file(at(&b, "d/g"), "USER"));
	conflicts(&b, "/d/g");
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "d", 0, 0), 0);
	IN_CHILD(write_file(at(&b, "d/sub/new"), "user"));
	conflicts(&b, "/d/sub/new");
	start(&b);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
						  .path = (char *)"h",
						  .target = (char *)"d/g"}),
		     0);
	IN_CHILD(write_file(at(&b, "d/g"), "User"));
	conflicts(&b, "/d/g");
	/* The whole directory swapped under it. */
	start(&b);
	cr_assert_eq(put(&b, "d/sub/x", "job", 0644), 0);
	IN_CHILD({
		if (rename(at(&b, "d"), at(&b, "old")) || mkdir(at(&b, "d"), 0755) ||
		    mkdir(at(&b, "d/sub"), 0755))
			_exit(1);
	});
	conflicts(&b, "/d");
	cr_assert_not(exists(&b, "d/sub/x"));
	bed_release(&b);
}

/* A further name, or one less, is no change of what the job saw: cargo links what was just made. */
static uint64_t looks(const struct bed *b)
{
	struct tree_counts c;

	tree_counts(b->tree, &c);
	return c.stats;
}

/* A job's own files are no flood of news: as many as the kernel's queue has no room for. */
Test(commit, many_outputs_are_no_flood, .timeout = 1000)
{
	struct tree_counts c;
	uint64_t before;
	struct bed b;
	char name[64];

	bed_init(&b);
	path_mkdirs(at(&b, "d"), 0755);
	path_mkdirs(at(&b, "gone"), 0755);
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "gone/f%d", i);
		write_file(at(&b, name), "");
	}
	for (const char *const *p = (const char *const[]){"", "d", "gone", NULL}; *p; p++)
		tree_list(b.tree, 0, at(&b, *p));
	start(&b);
	before = looks(&b);
	for (int i = 0; i < 6000; i++) {
		snprintf(name, sizeof(name), "d/f%d", i);
		cr_assert_eq(put(&b, name, "job", 0644), 0);
	}
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "gone", 0, 0), 0);
	applies(&b);
	tree_drain(b.tree);
	tree_counts(b.tree, &c);
	cr_expect_eq(c.overflows, 0, "%llu overflows", (unsigned long long)c.overflows);
	cr_expect_leq(c.stats - before, 2 * 6000 + 20000 + 100, "%llu looks",
		      (unsigned long long)(c.stats - before));
	/* Dropped ones leave as many. */
	start(&b);
	for (int i = 0; i < 6000; i++) {
		snprintf(name, sizeof(name), "d/f%d", i);
		cr_assert_eq(put(&b, name, "another", 0644), 0);
	}
	start(&b);
	tree_counts(b.tree, &c);
	cr_expect_eq(c.overflows, 0, "%llu overflows", (unsigned long long)c.overflows);
	bed_release(&b);
}

/* Where no event tells of changes, a commit looks at what it is going to change, and at no more. */
Test(commit, conflicts_where_nothing_is_watched)
{
	struct bed b;
	uint64_t before;
	char name[64];

	/* For / and /tmp. */
	bed_init_limited(&b, (struct tree_limits){.max_watches = 2});
	path_mkdirs(at(&b, "d/e"), 0755);
	path_mkdirs(at(&b, "many"), 0755);
	write_file(at(&b, "d/e/f"), "1");
	write_file(at(&b, "g"), "1");
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "many/f%d", i);
		write_file(at(&b, name), "1");
	}
	/* Nothing is younger than a tick of the clock. */
	(void)poll(NULL, 0, 50);
	for (const char *const *p = (const char *const[]){"", "d", "d/e", "many", NULL}; *p; p++)
		tree_list(b.tree, 0, at(&b, *p));
	start(&b);
	before = looks(&b);
	cr_assert_eq(put(&b, "g", "job", 0644), 0);
	cr_assert_eq(put(&b, "d/e/new", "job", 0644), 0);
	applies(&b);
	cr_file(&b, "g", "job");
	cr_expect_lt(looks(&b) - before, 30, "%llu looks",
		     (unsigned long long)(looks(&b) - before));

	(void)poll(NULL, 0, 50);
	start(&b);
	IN_CHILD(write_file(at(&b, "g"), "user"));
	cr_assert_eq(put(&b, "g", "job 2", 0644), 0);
	conflicts(&b, "g");
	/* What is beneath a directory that goes counts as well. */
	(void)poll(NULL, 0, 50);
	start(&b);
	IN_CHILD(write_file(at(&b, "d/e/f"), "user"));
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "d", 0, 0), 0);
	conflicts(&b, "d/e/f");
	/* And what is above. */
	(void)poll(NULL, 0, 50);
	start(&b);
	IN_CHILD({
		if (rename(at(&b, "d"), at(&b, "old")) < 0)
			_exit(1);
		path_mkdirs(at(&b, "d/e"), 0755);
		write_file(at(&b, "d/e/f"), "user's other");
	});
	cr_assert_eq(put(&b, "d/e/f", "job", 0644), 0);
	conflicts(&b, "/d");
	bed_release(&b);
}

static void lock_to_write(struct bed *b, const char *path, int *ret_fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 1};

	*ret_fd = open(at(b, path), O_RDWR | O_CLOEXEC);
	cr_assert_eq(fcntl(*ret_fd, F_OFD_SETLK, &l), 0);
}

/* What a job has read by a lock is so, and nobody else's lock would have kept it away. */
Test(commit, a_lock_to_read)
{
	struct bed b;
	int fd;

	bed_init(&b);
	write_file(at(&b, "f"), "user");
	cr_assert_eq(symlink("f", at(&b, "s")), 0);
	tree_list(b.tree, 0, b.root);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "f", 0, 0), 0);
	cr_assert_eq(put(&b, "out", "job", 0644), 0);
	cr_assert_eq(commit_check_locks(b.job, &b.msg), 0);
	applies(&b);
	cr_file(&b, "f", "user");
	cr_file(&b, "out", "job");

	start(&b);
	lock_to_write(&b, "f", &fd);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "f", 0, 0), 0);
	cr_assert_eq(put(&b, "out", "job 2", 0644), 0);
	cr_assert_eq(commit_check_locks(b.job, &b.msg), CONCC_E_CONFLICT);
	conflicts(&b, "f");
	cr_file(&b, "out", "job");
	(void)close(fd); /* which tells that somebody has had it open */
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "f", 0, 0), 0);
	applies(&b);

	start(&b);
	lock_to_write(&b, "f", &fd);
	(void)close(fd);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "f", 0, 0), 0);
	conflicts(&b, "f");
	/* No file, or not one that the job can have read. */
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "none", 0, 0), 0);
	conflicts(&b, "none");
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "s", 0, 0), 0);
	conflicts(&b, "s");
	bed_release(&b);
}

/* Who waits at a fifo would go on, and a device may act. */
Test(commit, a_lock_opens_files_only)
{
	int notes = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	char note[sizeof(struct inotify_event) + NAME_MAX + 1];
	struct bed b;

	bed_init(&b);
	cr_assert_eq(mkfifo(at(&b, "p"), 0644), 0);
	write_file(at(&b, "f"), "user");
	tree_list(b.tree, 0, b.root);
	cr_assert_geq(inotify_add_watch(notes, at(&b, "p"), IN_OPEN), 0);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "p", 0, 0), 0);
	cr_assert_eq(commit_check_locks(b.job, &b.msg), CONCC_E_CONFLICT);
	conflicts(&b, "p");
	cr_assert_eq(read(notes, note, sizeof(note)), -1, "it was opened");
	/* It would have been heard. */
	cr_assert_geq(inotify_add_watch(notes, at(&b, "f"), IN_OPEN), 0);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_LOCKED, "f", 0, 0), 0);
	applies(&b);
	cr_assert_gt(read(notes, note, sizeof(note)), 0);
	(void)close(notes);
	bed_release(&b);
}

Test(commit, further_names_are_no_conflict)
{
	struct bed b;

	bed_init(&b);
	mkdir(at(&b, "deps"), 0755);
	mkdir(at(&b, "incremental"), 0755);
	write_file(at(&b, "deps/lib.rmeta"), "old");
	cr_assert_eq(link(at(&b, "deps/lib.rmeta"), at(&b, "incremental/lib.rmeta")), 0);
	write_file(at(&b, "f"), "user");
	/* So it is watched itself; how young one may be that is not, the clock would have to tell.
	 */
	cr_assert_eq(link(at(&b, "f"), at(&b, "g")), 0);
	tree_list(b.tree, 0, b.root);
	tree_list(b.tree, 0, at(&b, "deps"));
	tree_list(b.tree, 0, at(&b, "incremental"));
	start(&b);
	IN_CHILD({
		if (link(at(&b, "f"), at(&b, "uplifted")))
			_exit(1);
	});
	/* Announced, and so in place: by it the other name has lost a link. */
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_FILE,
						  .path = (char *)"deps/lib.rmeta",
						  .flags = EFFECT_F_REPLACED,
						  .mode = 0644}),
		     0);
	applies(&b);
	cr_file(&b, "incremental/lib.rmeta", "old");
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "incremental", 0, 0), 0);
	cr_assert_eq(simple(&b, EFFECT_DIR, "incremental", 0755, 0), 0);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
						  .path = (char *)"incremental/new.rmeta",
						  .target = (char *)"deps/lib.rmeta"}),
		     0);
	applies(&b);
	cr_file(&b, "uplifted", "job");
	/* What is written by that other name is one. */
	start(&b);
	cr_assert_eq(put(&b, "f", "job2", 0644), 0);
	IN_CHILD(write_file(at(&b, "uplifted"), "user"));
	conflicts(&b, "/f");
	bed_release(&b);
}

/* A look that is refused, anywhere, makes no job win over the user. */
Test(commit, what_cant_be_looked_at_is_not_replaced)
{
	static const char *const changed[] = {"d/f", "d/sub/f", "d/new", "d/sub/new"};
	unsigned n = 0;
	struct bed b;

	bed_init(&b);
	cr_assert_eq(path_mkdirs(at(&b, "d/sub"), 0755), 0);
	for (unsigned seed = 1; seed <= 300; seed++) {
		const char *file = changed[seed % 4];
		int err;

		unlink(at(&b, "d/new"));
		unlink(at(&b, "d/sub/new"));
		write_file(at(&b, "d/f"), "before");
		write_file(at(&b, "d/sub/f"), "before");
		for (unsigned i = 0; i < 3; i++)
			tree_list(b.tree, 0, at(&b, ((const char *[]){"", "d", "d/sub"})[i]));
		start(&b);
		if (seed % 3)
			cr_assert_eq(simple(&b, EFFECT_REMOVE, "d", 0, 0), 0);
		else
			cr_assert_eq(put(&b, file, "job", 0644), 0);
		IN_CHILD(write_file(at(&b, file), "user"));
		refuse_seed = seed;
		refuse_one_in = 1 + seed % 12;
		err = apply(&b);
		refuse_one_in = 0;
		cr_assert_lt(err, 0, "seed %u", seed);
		cr_file(&b, file, "user");
		n += err != CONCC_E_CONFLICT;
	}
	/* Not only conflicts: some were refused before one was seen. */
	cr_assert_gt(n, 10);
	bed_release(&b);
}

Test(commit, a_directory_the_job_never_saw)
{
	struct bed b;

	bed_init(&b);
	mkdir(at(&b, "d"), 0755);
	write_file(at(&b, "d/f"), "user");
	start(&b);
	cr_assert_eq(put(&b, "d/f", "job", 0644), 0);
	conflicts(&b, "/d/f");
	cr_file(&b, "d/f", "user");
	start(&b);
	cr_assert_eq(put(&b, "d/new", "job", 0644), 0);
	applies(&b);
	cr_assert_eq(put(&b, "d/new", "again", 0644), 0);
	applies(&b);
	cr_file(&b, "d/new", "again");
	/* Its own file, but not any more. */
	cr_assert_eq(put(&b, "d/new", "third", 0644), 0);
	IN_CHILD(write_file(at(&b, "d/new"), "user"));
	conflicts(&b, "/d/new");
	bed_release(&b);
}

Test(commit, directories_made_by_two_jobs)
{
	struct bed b;

	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_DIR, "out", 0700, 0), 0);
	cr_assert_eq(put(&b, "out/a", "job", 0644), 0);
	IN_CHILD({
		mkdir(at(&b, "out"), 0755);
		write_file(at(&b, "out/b"), "other");
	});
	applies(&b);
	cr_file(&b, "out/a", "job");
	cr_file(&b, "out/b", "other");
	cr_assert_eq(mode_of(&b, "out"), S_IFDIR | 0755, "the other's mode is kept");
	/* Known when the job started: then the mode is what the job made it. */
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_DIR, "out", 0700, 0), 0);
	applies(&b);
	cr_assert_eq(mode_of(&b, "out"), S_IFDIR | 0700);
	/* The workspace itself. */
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_DIR, "", 0711, 0), 0);
	applies(&b);
	cr_assert_eq(mode_of(&b, ""), S_IFDIR | 0711);
	bed_release(&b);
}

Test(commit, symlinks_and_other_names)
{
	struct stat before;
	struct stat after;
	struct bed b;

	bed_init(&b);
	write_file(at(&b, "real"), "user");
	cr_assert_eq(symlink("real", at(&b, "link")), 0);
	write_file(at(&b, "one"), "shared bytes");
	cr_assert_eq(link(at(&b, "one"), at(&b, "two")), 0);
	tree_list(b.tree, 0, b.root);
	start(&b);
	/* The job replaced the symlink by a file (through it, it would have changed `real`). */
	cr_assert_eq(put(&b, "link", "job", 0644), 0);
	/* Of a file with other names the bytes change, for all of them. */
	cr_assert_eq(stat(at(&b, "two"), &before), 0);
	cr_assert_eq(put(&b, "one", "new", 0600), 0);
	applies(&b);
	cr_assert_eq(mode_of(&b, "link"), S_IFREG | 0644);
	cr_file(&b, "link", "job");
	cr_file(&b, "real", "user");
	cr_file(&b, "two", "new");
	cr_assert_eq(stat(at(&b, "two"), &after), 0);
	cr_assert(after.st_ino == before.st_ino && after.st_nlink == 2);
	cr_assert_eq(after.st_mode & 07777, 0600);
	/* Again, by the same job: what it wrote over is its own. */
	cr_assert_eq(put(&b, "one", "longer than it was before", 0600), 0);
	applies(&b);
	cr_file(&b, "two", "longer than it was before");
	/* Directory and file change places. */
	cr_assert_eq(simple(&b, EFFECT_DIR, "real", 0755, 0), 0);
	cr_assert_eq(put(&b, "real/in", "job", 0644), 0);
	applies(&b);
	cr_file(&b, "real/in", "job");
	cr_assert_eq(put(&b, "real", "file again", 0644), 0);
	applies(&b);
	cr_file(&b, "real", "file again");
	bed_release(&b);
}

Test(commit, every_kind)
{
	struct timespec now;
	struct stat st;
	struct stat st2;
	struct bed b;
	char target[64] = "";

	bed_init(&b);
	mkdir(at(&b, "d"), 0755);
	write_file(at(&b, "d/old"), "user");
	write_file(at(&b, "meta"), "user");
	tree_list(b.tree, 0, b.root);
	tree_list(b.tree, 0, at(&b, "d"));
	start(&b);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_SYMLINK,
						  .path = (char *)"s",
						  .target = (char *)"/anything at all"}),
		     0);
	cr_assert_eq(simple(&b, EFFECT_DIR, "d", 0711, EFFECT_F_OPAQUE), 0);
	cr_assert_eq(put(&b, "d/new", "job", 0644), 0);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
						  .path = (char *)"d/hard",
						  .target = (char *)"d/new"}),
		     0);
	cr_assert_eq(simple(&b, EFFECT_FILE, "fifo", 0620, EFFECT_F_FIFO), 0);
	cr_assert_eq(put(&b, "empty", "", 0444), 0);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_META,
						  .path = (char *)"meta",
						  .mode = 0755,
						  .flags = EFFECT_F_TOUCHED | EFFECT_F_MTIME,
						  .mtime_s = 1000000000,
						  .mtime_ns = 123456789}),
		     0);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_DIR,
						  .path = (char *)"dated",
						  .mode = 0755,
						  .flags = EFFECT_F_MTIME,
						  .mtime_s = 1000000001}),
		     0);
	cr_assert_eq(put(&b, "dated/f", "x", 0644), 0);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "was never there", 0, 0), 0);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "nor/this", 0, 0), 0);
	applies(&b);
	cr_assert_eq(readlink(at(&b, "s"), target, sizeof(target)), 16);
	cr_assert_str_eq(target, "/anything at all");
	cr_assert_not(exists(&b, "d/old"));
	cr_assert_eq(mode_of(&b, "d"), S_IFDIR | 0711);
	cr_assert_eq(stat(at(&b, "d/new"), &st), 0);
	cr_assert_eq(stat(at(&b, "d/hard"), &st2), 0);
	cr_assert_eq(st.st_ino, st2.st_ino);
	cr_assert_eq(mode_of(&b, "fifo"), S_IFIFO | 0620);
	cr_assert_eq(mode_of(&b, "empty"), S_IFREG | 0444);
	cr_assert_eq(mode_of(&b, "meta"), S_IFREG | 0755);
	cr_assert_eq(stat(at(&b, "meta"), &st), 0);
	cr_assert(st.st_mtim.tv_sec == 1000000000 && st.st_mtim.tv_nsec == 123456789);
	cr_assert_eq(stat(at(&b, "dated"), &st), 0);
	cr_assert_eq(st.st_mtim.tv_sec, 1000000001);
	/* Without a time of its own: this machine's clock. */
	cr_assert_eq(stat(at(&b, "empty"), &st), 0);
	clock_gettime(CLOCK_REALTIME, &now);
	cr_assert_leq(st.st_mtim.tv_sec, now.tv_sec);
	/* The same link once more: rename(2) does nothing then, and must leave nothing. */
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
						  .path = (char *)"d/hard",
						  .target = (char *)"d/new"}),
		     0);
	applies(&b);
	cr_assert_eq(temps(&b), 0);
	bed_release(&b);
}

Test(commit, removal_stays_inside)
{
	char outside[] = "/tmp/concc-test-outside.XXXXXX";
	struct bed b;
	char *file;

	bed_init(&b);
	cr_assert(mkdtemp(outside));
	file = path_join(outside, "precious");
	write_file(file, "x");
	cr_assert_eq(path_mkdirs(at(&b, "d/e/f"), 0755), 0);
	cr_assert_eq(symlink(outside, at(&b, "d/e/link")), 0);
	for (const char *const *p = (const char *const[]){"", "d", "d/e", "d/e/f", NULL}; *p; p++)
		tree_list(b.tree, 0, at(&b, *p));
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "d", 0, 0), 0);
	applies(&b);
	cr_assert_not(exists(&b, "d"));
	cr_assert_eq(access(file, F_OK), 0, "removed through a symlink");
	/* A parent that is a symlink is no parent, wherever it leads. */
	mkdir(at(&b, "in"), 0755);
	cr_assert_eq(symlink("in", at(&b, "to-in")), 0);
	cr_assert_eq(symlink(outside, at(&b, "to-out")), 0);
	start(&b);
	cr_assert_eq(put(&b, "to-in/f", "job", 0644), 0);
	cr_assert_lt(apply(&b), 0);
	cr_assert_not(exists(&b, "in/f"));
	cr_assert_eq(put(&b, "to-out/f", "job", 0644), 0);
	cr_assert_lt(apply(&b), 0);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "to-out/precious", 0, 0), 0);
	cr_assert_lt(apply(&b), 0);
	cr_assert_eq(access(file, F_OK), 0);
	cr_assert_eq(simple(&b, EFFECT_META, "to-out/precious", 0777, 0), 0);
	cr_assert_lt(apply(&b), 0);
	free(file);
	rm_rf(outside);
	bed_release(&b);
}

/* Somebody else's files, and a way in: what a worker would like to have served. */
static void lay_trap(struct bed *b, char victim[64])
{
	strcpy(victim, "/tmp/concc-test-victim.XXXXXX");
	cr_assert(mkdtemp(victim));
	cr_assert_eq(path_mkdirs(at(b, "sub/in"), 0755), 0);
	cr_assert_eq(tree_serve(b->tree, at(b, "sub/in"), true, &b->msg), 0);
	tree_list(b->tree, 0, b->root);
	tree_list(b->tree, 0, at(b, "sub"));
	tree_list(b->tree, 0, at(b, "sub/in"));
}

static void expect_not_served(struct bed *b, const char *victim)
{
	_cleanup_free_ char *secret = path_join(victim, "in");

	tree_drain(b->tree);
	start(b);
	(void)put(b, "sub/in/key", "worker", 0644);
	(void)put(b, "sub/in/in/key", "worker", 0644);
	(void)apply(b);
	cr_assert_eq(access(secret, F_OK), -1, "%s was made", secret);
	(void)rmdir(victim);
	cr_assert_eq(access(victim, F_OK), -1, "something was written to %s", victim);
}

/* A root in a root is not what a symlink makes of its path, whoever has made that. */
Test(commit, a_nested_root_is_not_led_elsewhere)
{
	struct bed b;
	char victim[64];
	struct msg_file f = {.kind = EFFECT_SYMLINK, .path = (char *)"sub", .target = victim};

	bed_init(&b);
	lay_trap(&b, victim);
	/* By the job itself: what holds another tree is not replaced. */
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "sub", 0, 0), 0);
	cr_assert_eq(effect(&b, f), 0);
	cr_assert_eq(apply(&b), CONCC_E_NO_WAY);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "sub/in", 0, 0), 0);
	cr_assert_eq(apply(&b), CONCC_E_NO_WAY);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_DIR, "sub", 0755, EFFECT_F_OPAQUE), 0);
	cr_assert_eq(apply(&b), CONCC_E_NO_WAY);
	start(&b);
	cr_assert_eq(simple(&b, EFFECT_DIR, "sub", 0700, 0), 0);
	applies(&b);
	/* By the user, in the middle of which a symlink of the worker's is there. */
	IN_CHILD({
		if (rename(at(&b, "sub"), at(&b, "old")) || symlink(victim, at(&b, "sub")))
			_exit(1);
	});
	expect_not_served(&b, victim);
	bed_release(&b);
}

/* What is only read is not written by a further name either. */
Test(commit, a_read_only_root_in_a_workspace)
{
	struct bed b;
	struct msg_file f = {
		.kind = EFFECT_LINK, .path = (char *)"mine", .target = (char *)"tools/cc"};

	bed_init(&b);
	cr_assert_eq(mkdir(at(&b, "tools"), 0755), 0);
	write_file(at(&b, "tools/cc"), "user");
	cr_assert_eq(tree_serve(b.tree, at(&b, "tools"), false, &b.msg), 0);
	start(&b);
	cr_assert_eq(put(&b, "tools/cc", "worker", 0755), 0);
	cr_assert_eq(apply(&b), -EROFS);
	start(&b);
	cr_assert_eq(effect(&b, f), 0);
	cr_assert_eq(apply(&b), -EROFS, "%s", b.msg.text);
	start(&b);
	(void)put(&b, "mine", "worker", 0755);
	(void)apply(&b);
	cr_file(&b, "tools/cc", "user");
	/* Nor when it is served so between what the job did and its end. */
	cr_assert_eq(mkdir(at(&b, "later"), 0755), 0);
	start(&b);
	cr_assert_eq(put(&b, "later/cc", "worker", 0755), 0);
	cr_assert_eq(tree_serve(b.tree, at(&b, "later"), false, &b.msg), 0);
	cr_assert_eq(apply(&b), -EROFS);
	cr_assert(!exists(&b, "later/cc"));
	bed_release(&b);
}

Test(commit, a_nested_root_that_is_a_symlink)
{
	struct bed b;
	char victim[64];

	bed_init(&b);
	lay_trap(&b, victim);
	IN_CHILD({
		if (rename(at(&b, "sub/in"), at(&b, "old")) || symlink(victim, at(&b, "sub/in")))
			_exit(1);
	});
	expect_not_served(&b, victim);
	/* Nor is one served in the first place. */
	strcpy(victim, "/tmp/concc-test-victim.XXXXXX");
	cr_assert(mkdtemp(victim));
	cr_assert_eq(symlink(victim, at(&b, "new")), 0);
	cr_assert_eq(tree_serve(b.tree, at(&b, "new"), true, &b.msg), -ELOOP);
	cr_assert_eq(rmdir(victim), 0);
	bed_release(&b);
}

/* Symlinks of the user's own, where no worker writes, lead where they lead. */
Test(commit, a_root_by_a_symlink_of_the_user)
{
	char dir[64] = "/tmp/concc-test-link.XXXXXX", *link, *real, *real2;
	struct bed b;

	bed_init(&b);
	cr_assert(mkdtemp(dir));
	link = xasprintf("%s/current", dir);
	real = xasprintf("%s/v1", dir);
	real2 = xasprintf("%s/v2", dir);
	cr_assert(mkdir(real, 0755) == 0 && mkdir(real2, 0755) == 0 && symlink("v1", link) == 0);
	cr_assert_eq(tree_serve(b.tree, link, true, &b.msg), 0, "%s", b.msg.text);
	b.workspaces[0] = link;
	start(&b);
	cr_assert_eq(put(&b, "f", "one", 0644), 0);
	applies(&b);
	IN_CHILD({
		if (unlink(link) || symlink("v2", link))
			_exit(1);
	});
	start(&b);
	cr_assert_eq(put(&b, "f", "two", 0644), 0);
	applies(&b);
	free(real);
	real = xasprintf("%s/f", real2);
	cr_assert_eq(access(real, F_OK), 0);
	rm_rf(dir);
	free(link);
	free(real);
	free(real2);
	b.workspaces[0] = b.root;
	bed_release(&b);
}

Test(commit, hostile_messages)
{
	static const char *const bad[] = {"..", "../x", "a/../../x", "/etc/x", "a//b",
					  "a/", "./a",	"a/.",	     ""};
	static const char *const ours[] = {".concc-tmp-x", "d/.concc-tmp-1-2-3-4"};
	static const mode_t ids[] = {04755, 02755, 06711, 03755};
	struct bed b;

	bed_init(&b);
	start(&b);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		cr_assert_eq(simple(&b, EFFECT_FILE, bad[i], 0644, 0), CONCC_E_PROTO, "%s", bad[i]);
		cr_assert_eq(apply(&b), CONCC_E_PROTO);
		cr_assert_eq(simple(&b, EFFECT_REMOVE, bad[i], 0, 0), CONCC_E_PROTO, "%s", bad[i]);
		cr_assert_eq(apply(&b), CONCC_E_PROTO);
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
							  .path = (char *)"l",
							  .target = (char *)bad[i]}),
			     CONCC_E_PROTO, "%s", bad[i]);
		cr_assert_eq(apply(&b), CONCC_E_PROTO);
	}
	cr_assert_eq(
		effect(&b,
		       (struct msg_file){.kind = EFFECT_DIR, .path = (char *)"x", .workspace = 1}),
		CONCC_E_PROTO);
	cr_assert_eq(apply(&b), CONCC_E_PROTO);
	cr_assert_eq(simple(&b, (enum effect_kind)9, "x", 0, 0), CONCC_E_PROTO);
	cr_assert_eq(apply(&b), CONCC_E_PROTO);
	cr_assert_eq(simple(&b, EFFECT_DIR, "", 0755, EFFECT_F_OPAQUE), CONCC_E_PROTO);
	cr_assert_eq(apply(&b), CONCC_E_PROTO);
	/* Bytes out of turn, too many, too few. */
	cr_assert_eq(commit_data(b.job, "x", 1), CONCC_E_PROTO);
	cr_assert_eq(apply(&b), CONCC_E_PROTO);
	cr_assert_eq(
		effect(&b, (struct msg_file){.kind = EFFECT_FILE, .path = (char *)"f", .size = 3}),
		0);
	cr_assert_eq(commit_data(b.job, "four", 4), CONCC_E_PROTO);
	cr_assert_eq(apply(&b), CONCC_E_PROTO);
	cr_assert_eq(
		effect(&b, (struct msg_file){.kind = EFFECT_FILE, .path = (char *)"f", .size = 3}),
		0);
	cr_assert_eq(simple(&b, EFFECT_DIR, "d", 0755, 0), CONCC_E_PROTO);
	cr_assert_eq(apply(&b), CONCC_E_PROTO);
	/* A job may make such names in good faith: no lie of the worker's, and not here. */
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++) {
		cr_assert_eq(simple(&b, EFFECT_FILE, ours[i], 0644, 0), 0, "%s", ours[i]);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE);
		cr_assert_eq(simple(&b, EFFECT_REMOVE, ours[i], 0, 0), 0, "%s", ours[i]);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE);
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
							  .path = (char *)"l",
							  .target = (char *)ours[i]}),
			     0);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE);
	}
	/* Bytes that a worker chose, with the user's rights for everyone. */
	write_file(at(&b, "tool"), "x");
	for (size_t i = 0; i < N_OF(ids); i++) {
		cr_assert_eq(put(&b, "suid", "x", ids[i]), 0);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE, "%o", ids[i]);
		cr_assert_eq(simple(&b, EFFECT_FILE, "suid", ids[i], EFFECT_F_FIFO), 0);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE, "%o", ids[i]);
		cr_assert_eq(simple(&b, EFFECT_META, "tool", ids[i], 0), 0);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE, "%o", ids[i]);
	}
	cr_assert_not(exists(&b, "suid"));
	cr_assert_eq(mode_of(&b, "tool") & 06000, 0);
	cr_assert_not(exists(&b, "f"));
	/* And after all that the job can go on. */
	cr_assert_eq(put(&b, "f", "fine", 0644), 0);
	applies(&b);
	bed_release(&b);
}

/* What runs when the user asks git for the state of things: no worker writes that. */
Test(commit, nothing_that_git_runs)
{
	static const char *const bad[] = {".git/hooks/post-checkout",
					  ".git/config",
					  "sub/.git/config",
					  ".git/config.worktree",
					  ".git/modules/m/config",
					  ".git/modules/m/hooks/x",
					  ".git/worktrees/w/commondir",
					  ".git",
					  "sub/.git",
					  ".Git/Config",
					  ".hg/hgrc",
					  ".hg/sharedpath",
					  ".hg/hgrc-not-shared",
					  ".jj/repo/config.toml",
					  ".jj/repo",
					  ".jj/repo/store/git_target",
					  ".sl/config",
					  "_darcs/prefs/defaults",
					  ".bzr/branch/branch.conf",
					  ".bzr/branch/location",
					  "CVS",
					  "CVS/Root",
					  "sub/CVS/Root",
					  ".fos",
					  ".git/rebase-merge/git-rebase-todo",
					  ".git/worktrees/w/rebase-merge/git-rebase-todo",
					  ".git/sequencer/todo",
					  ".repo",
					  ".repo/repo",
					  ".repo/repo/main.py",
					  ".p4config",
					  "sub/.fslckout",
					  "_FOSSIL_",
					  "mirror.git/config",
					  "mirror.git/hooks/x",
					  "bare/config",
					  "bare/hooks/post-index-change",
					  "new/HEAD",
					  "GIT~1/config",
					  "git~1/hooks/x",
					  "GIT~1",
					  "GI7EBA~1/config",
					  ".git/CONFIG~1.WOR",
					  "sub/HG~2/hgrc",
					  ".g\342\200\214it/config",
					  ".git/hoo\342\204\252s/x",
					  ".git/hook\305\277/x",
					  "new/H\342\200\213EAD",
					  ".git./config",
					  ".git. . /hooks/x",
					  ".git/config.",
					  ".git::$INDEX_ALLOCATION/config",
					  ".git/config::$DATA",
					  "GIT~1./config",
					  "mirror.git./config",
					  "sub/CVS./Root ",
					  "new/HEAD."};
	static const char *const good[] = {".git/index",
					   ".git/objects/ab/cdef",
					   ".git/HEAD",
					   "config",
					   "hooks/x",
					   ".gitignore",
					   "git/hooks/x",
					   ".git/x.config",
					   "x.git/HEAD",
					   ".git/refs/heads/repo",
					   "sub/HEADER.h",
					   "defaults",
					   ".repo/project.list",
					   "repo/main.py",
					   "Root",
					   "CVS/Entries",
					   "rebase-merge",
					   "GIT~1/a.o",
					   "a.c~1",
					   "a.c.~1~",
					   "file~",
					   "sub/a:HEAD",
					   "sub/\303\274ber.config"};
	struct bed b;

	bed_init(&b);
	for (size_t i = 0; i < 11; i++) {
		static const char *const dirs[] = {
			"GIT~1", ".git/objects/ab", "hooks", "git/hooks", "sub", "bare",
			"x.git", ".git/refs/heads", ".repo", "repo",	  "CVS"};

		cr_assert_eq(path_mkdirs(at(&b, dirs[i]), 0755), 0);
	}
	write_file(at(&b, "bare/HEAD"), "ref: refs/heads/master");
	start(&b);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		cr_assert_eq(put(&b, bad[i], "x", 0755), 0, "%s", bad[i]);
		cr_expect_eq(apply(&b), CONCC_E_NO_WAY, "%s", bad[i]);
		cr_expect(strstr(b.msg.text, bad[i]), "%s: %s", bad[i], b.msg.text);
		cr_assert_eq(simple(&b, EFFECT_REMOVE, bad[i], 0, 0), 0);
		cr_expect_eq(apply(&b), CONCC_E_NO_WAY, "%s", bad[i]);
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
							  .path = (char *)"l",
							  .target = (char *)bad[i]}),
			     0);
		cr_expect_eq(apply(&b), CONCC_E_NO_WAY, "%s", bad[i]);
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_SYMLINK,
							  .path = (char *)bad[i],
							  .target = (char *)"/tmp"}),
			     0);
		cr_expect_eq(apply(&b), CONCC_E_NO_WAY, "%s", bad[i]);
	}
	cr_assert_eq(simple(&b, EFFECT_DIR, ".git", 0755, EFFECT_F_OPAQUE), 0);
	cr_expect_eq(apply(&b), CONCC_E_NO_WAY);
	/* What jobs that ask git do change: the index, its directory's times. */
	cr_assert_eq(simple(&b, EFFECT_DIR, ".git", 0755, EFFECT_F_MTIME), 0);
	applies(&b);
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		cr_assert_eq(put(&b, good[i], "x", 0644), 0);
		applies(&b);
	}
	bed_release(&b);
}

/* The names of a batch are kept in memory: a worker can't fill it with them. */
Test(commit, names_are_bounded)
{
	char *path = xmalloc(3901), *target = xmalloc(4001);
	struct bed b;
	int err = 0;

	bed_init(&b);
	start(&b);
	for (int i = 0; i < 3900; i++)
		path[i] = i % 2 ? '/' : 'a';
	path[3899] = target[4000] = '\0';
	memset(target, 't', 4000);
	for (int i = 0; i < 100000 && !err; i++)
		err = effect(&b, (struct msg_file){
					 .kind = EFFECT_SYMLINK, .path = path, .target = target});
	cr_assert_eq(err, CONCC_E_TOOBIG);
	/* A worker that does not know goes on in good faith. */
	cr_assert_eq(commit_data(b.job, "bytes", 5), CONCC_E_TOOBIG);
	cr_assert_eq(apply(&b), CONCC_E_TOOBIG);
	free(path);
	free(target);
	bed_release(&b);
}

Test(commit, errors_name_the_file)
{
	char long_name[300];
	struct bed b;

	bed_init(&b);
	write_file(at(&b, "file"), "user");
	tree_list(b.tree, 0, b.root);
	start(&b);
	memset(long_name, 'n', 255);
	strcpy(long_name + 255, "");
	cr_assert_eq(put(&b, "file/below", "x", 0644), 0);
	cr_assert_eq(apply(&b), -ENOTDIR, "%s", b.msg.text);
	cr_assert(strstr(b.msg.text, "file/below"), "%s", b.msg.text);
	cr_assert_eq(put(&b, "no/such/dir", "x", 0644), 0);
	cr_assert_eq(apply(&b), -ENOENT);
	cr_assert_eq(put(&b, long_name, "x", 0644), 0);
	applies(&b);
	if (geteuid() == 0 && mknod(at(&b, "null"), S_IFCHR | 0666, makedev(1, 3)) == 0) {
		start(&b);
		tree_list(b.tree, 0, b.root);
		cr_assert_eq(put(&b, "null", "x", 0644), 0);
		cr_assert_eq(apply(&b), CONCC_E_UNSAFE);
		cr_assert(S_ISCHR(mode_of(&b, "null")));
	}
	/* Served for reading only. */
	commit_free(steal_ptr(&b.job));
	tree_free(b.tree);
	bed_serve(&b, false);
	start(&b);
	cr_assert_eq(put(&b, "new", "x", 0644), 0);
	cr_assert_eq(apply(&b), -EROFS);
	bed_release(&b);
}

Test(commit, a_full_disk)
{
	IN_CHILD({
		struct bed b;
		char *big = xmalloc(1 << 20);
		int err = 0;

		if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
			_exit(77);
		bed_init(&b);
		tree_free(b.tree);
		if (mount("tmpfs", b.root, "tmpfs", 0, "size=256k"))
			_exit(78);
		bed_serve(&b, true);
		write_file(at(&b, "one"), "user");
		cr_assert_eq(link(at(&b, "one"), at(&b, "two")), 0);
		tree_list(b.tree, 0, b.root);
		start(&b);
		memset(big, 'x', 1 << 20);
		cr_assert_eq(put(&b, "small", "x", 0644), 0);
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_FILE,
							  .path = (char *)"big",
							  .size = 1 << 20,
							  .mode = 0644}),
			     0);
		for (int i = 0; i < 16 && !err; i++)
			err = commit_data(b.job, big, 64 * 1024);
		cr_assert_eq(err, 0);
		/* More of the same job still comes, and is dropped. */
		cr_assert_eq(put(&b, "late", "x", 0644), 0);
		cr_assert_eq(apply(&b), -ENOSPC, "%s", b.msg.text);
		cr_assert(strstr(b.msg.text, "/big"), "%s", b.msg.text);
		cr_assert_not(exists(&b, "small") || exists(&b, "big") || exists(&b, "late"));
		cr_assert_eq(temps(&b), 0);
		/* Over a file with two names: no room for both copies, and nothing is harmed. */
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_FILE,
							  .path = (char *)"one",
							  .size = 160 * 1024,
							  .mode = 0644}),
			     0);
		cr_assert_eq(commit_data(b.job, big, 160 * 1024), 0);
		cr_assert_eq(apply(&b), -ENOSPC, "%s", b.msg.text);
		cr_file(&b, "one", "user");
		cr_assert_eq(put(&b, "small", "x", 0644), 0);
		applies(&b);
		commit_free(steal_ptr(&b.job));
		tree_free(b.tree);
		cr_assert_eq(umount(b.root), 0);
		rmdir(b.root);
		free(big);
	});
}

Test(commit, without_the_right_to_write)
{
	IN_CHILD({
		struct bed b;

		if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
			_exit(77);
		bed_init(&b);
		mkdir(at(&b, "d"), 0755);
		write_file(at(&b, "d/f"), "user");
		tree_list(b.tree, 0, b.root);
		tree_list(b.tree, 0, at(&b, "d"));
		chmod(at(&b, "d"), 0555);
		start(&b);
		cr_assert_eq(put(&b, "d/f", "job", 0644), 0);
		cr_assert_eq(apply(&b), -EACCES, "%s", b.msg.text);
		cr_assert(strstr(b.msg.text, "/d/f"));
		tree_list(b.tree, 0, at(&b, "d"));
		cr_assert_eq(simple(&b, EFFECT_REMOVE, "d/f", 0, 0), 0);
		cr_assert_eq(apply(&b), -EACCES, "%s", b.msg.text);
		cr_file(&b, "d/f", "user");
		/* Unreadable for its owner, and with two names: written over all the same. */
		write_file(at(&b, "one"), "user");
		cr_assert_eq(link(at(&b, "one"), at(&b, "two")), 0);
		start(&b);
		cr_assert_eq(put(&b, "one", "job", 0200), 0);
		applies(&b);
		chmod(at(&b, "one"), 0600);
		cr_file(&b, "two", "job");
		chmod(at(&b, "d"), 0755);
		bed_release(&b);
	});
}

Test(commit, temporaries_of_the_dead_are_removed)
{
	struct bed b;

	bed_init(&b);
	mkdir(at(&b, "d"), 0755);
	/* A server that dies in the middle of a file. */
	IN_CHILD({
		struct bed mine = {0};

		strcpy(mine.root, b.root);
		bed_serve(&mine, true);
		start(&mine);
		if (effect(&mine, (struct msg_file){.kind = EFFECT_FILE,
						    .path = (char *)"d/f",
						    .size = 10,
						    .mode = 0644}))
			_exit(1);
		if (commit_data(mine.job, "half", 4))
			_exit(2);
	});
	cr_assert_eq(temps(&b), 1);
	/* One of this process is alive. */
	start(&b);
	cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_FILE,
						  .path = (char *)"d/g",
						  .size = 10,
						  .mode = 0644}),
		     0);
	cr_assert_eq(temps(&b), 2);
	tree_list(b.tree, 0, at(&b, "d"));
	cr_assert_eq(temps(&b), 1);
	cr_assert_not(exists(&b, "d/f"));
	bed_release(&b);
}

/* How many extents of the only temporary have no place on the disk yet; -1 when the file system
 * does not say. */
static int unplaced_extents(const struct bed *b)
{
	_cleanup_free_ struct fiemap *map = xcalloc(1,
						    sizeof(*map) + 256 * sizeof(*map->fm_extents));
	_cleanup_close_ int fd = -1;
	DIR *d = opendir(b->root);
	struct dirent *e;
	int n = 0;

	while ((e = readdir(d)) && !str_starts(e->d_name, ".concc-tmp-"))
		;
	cr_assert_not_null(e);
	fd = open(at(b, e->d_name), O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	closedir(d);
	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_extent_count = 256;
	if (ioctl(fd, FS_IOC_FIEMAP, map) < 0)
		return -1;
	cr_assert_gt(map->fm_mapped_extents, 0);
	for (unsigned i = 0; i < map->fm_mapped_extents; i++)
		n += !!(map->fm_extents[i].fe_flags & FIEMAP_EXTENT_DELALLOC);
	return n;
}

/* Or its rename would wait until they are written. */
Test(commit, a_large_file_over_another_has_its_blocks)
{
	const size_t size = 6 << 20;
	char *bytes = xcalloc(1, size + 1);
	struct msg_file f = {.kind = EFFECT_FILE, .path = (char *)"f", .size = size, .mode = 0644};
	struct buf got = BUF_INIT;
	struct stat st;
	struct bed b;

	bed_init(&b);
	write_file(at(&b, "f"), "old");
	tree_list(b.tree, 0, b.root);
	start(&b);
	memset(bytes, 'x', size / 2); /* then a hole, and an end */
	bytes[size - 1] = 'y';
	digest_of(bytes, size, &f.digest);
	cr_assert_eq(effect(&b, f), 0);
	for (size_t i = 0; i < size; i += 1 << 16)
		cr_assert_eq(commit_data(b.job, bytes + i, 1 << 16), 0);
	cr_assert_leq(unplaced_extents(&b), 0);
	applies(&b);
	cr_assert_eq(read_file_at(AT_FDCWD, at(&b, "f"), size, &got), 0);
	cr_assert(got.len == size && memcmp(got.data, bytes, size) == 0);
	cr_assert_eq(stat(at(&b, "f"), &st), 0);
	cr_assert_lt((size_t)st.st_blocks * 512, size / 2 + (1 << 18));
	buf_release(&got);
	free(bytes);
	bed_release(&b);
}

/* ---- in pieces ---- */

/* All that goes on until the first file of a batch is there, or the batch is refused. */
static int pieces_until(struct bed *b, const char *first, unsigned *ret_n)
{
	int err = 0;

	for (*ret_n = 1; !piece(b, &err); ++*ret_n) {
		tree_drain(b->tree);
		if (exists(b, first))
			break;
	}
	return err;
}

Test(commit, what_changes_while_a_batch_is_checked)
{
	static const char *const how[] = {"edited", "removed", "beneath", "linked", "above"};

	for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
		struct bed b;
		unsigned n;
		int err;

		bed_init(&b);
		path_mkdirs(at(&b, "gone/sub"), 0755);
		path_mkdirs(at(&b, "dir/sub"), 0755);
		write_file(at(&b, "f"), "user");
		tree_list(b.tree, 0, b.root);
		tree_list(b.tree, 0, at(&b, "gone"));
		tree_list(b.tree, 0, at(&b, "gone/sub"));
		tree_list(b.tree, 0, at(&b, "dir"));
		tree_list(b.tree, 0, at(&b, "dir/sub"));
		start(&b);
		cr_assert_eq(put(&b, "f", "job", 0644), 0);
		cr_assert_eq(put(&b, "dir/sub/f", "job", 0644), 0);
		cr_assert_eq(simple(&b, EFFECT_REMOVE, "gone", 0, 0), 0);
		cr_assert_eq(effect(&b, (struct msg_file){.kind = EFFECT_LINK,
							  .path = (char *)"link",
							  .target = (char *)"f"}),
			     0);
		for (int k = 0; k < 20; k++) {
			char name[16];

			snprintf(name, sizeof(name), "new%d", k);
			cr_assert_eq(put(&b, name, "job", 0644), 0);
		}
		for (int k = 0; k < 10; k++) /* by now all that is changed below is checked */
			cr_assert_not(piece(&b, &err));
		cr_assert_not(exists(&b, "new0"));
		IN_CHILD({
			if (i == 0 || i == 3)
				write_file(at(&b, "f"), "USER");
			else if (i == 1)
				unlink(at(&b, "f"));
			else if (i == 2)
				write_file(at(&b, "gone/sub/new"), "USER");
			else {
				rename(at(&b, "dir"), at(&b, "moved"));
				path_mkdirs(at(&b, "dir/sub"), 0755);
			}
		});
		err = pieces_until(&b, "new0", &n);
		cr_expect_eq(err, CONCC_E_CONFLICT, "%s: %d %s", how[i], err, b.msg.text);
		cr_expect(*b.msg.text, "%s: the last piece has no words", how[i]);
		cr_expect_not(exists(&b, "new0"), "%s", how[i]);
		cr_expect(exists(&b, "gone/sub"), "%s", how[i]);
		cr_expect_eq(exists(&b, "f"), i != 1, "%s", how[i]);
		bed_release(&b);
	}
}

/* What is heard of is compared then, with what it is about: nothing goes through all once more. */
Test(commit, a_change_ends_the_check)
{
	char name[16];
	unsigned n;
	struct bed b;
	int err;

	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	start(&b);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		cr_assert_eq(put(&b, name, "job", 0644), 0);
	}
	for (int i = 0; i < 5; i++)
		cr_assert_not(piece(&b, &err));
	IN_CHILD(write_file(at(&b, "f2"), "user"));
	tree_drain(b.tree);
	cr_assert_eq(temps(&b), 500);
	cr_assert_not(piece(&b, &err));
	cr_assert_lt(temps(&b), 500); /* it knows, and begins to clean up */
	cr_assert_eq(pieces_until(&b, "f0", &n), CONCC_E_CONFLICT);
	cr_assert_leq(n, 500);
	cr_assert(strstr(b.msg.text, "/f2"), "%s", b.msg.text);
	cr_assert_not(exists(&b, "f0"));
	cr_file(&b, "f2", "user");
	bed_release(&b);
}

/* What others do is none of its business, nor a directory that somebody else makes, too. */
Test(commit, what_others_do_while_a_batch_is_checked)
{
	struct bed b;
	unsigned n;
	int err;

	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	start(&b);
	cr_assert_eq(put(&b, "f", "job", 0644), 0);
	cr_assert_eq(simple(&b, EFFECT_DIR, "d", 0755, 0), 0);
	cr_assert_eq(put(&b, "d/g", "job", 0644), 0);
	cr_assert_not(piece(&b, &err));
	cr_assert_not(piece(&b, &err));
	IN_CHILD({
		mkdir(at(&b, "d"), 0755);
		write_file(at(&b, "other"), "user");
	});
	cr_assert_eq(pieces_until(&b, "f", &n), 0, "%s", b.msg.text);
	while (!piece(&b, &err))
		tree_drain(b.tree);
	cr_assert_eq(err, 0, "%s", b.msg.text);
	cr_file(&b, "f", "job");
	cr_file(&b, "d/g", "job");
	cr_file(&b, "other", "user");
	bed_release(&b);
}

/* Each piece tells what it has done, and its own events make no further version. */
Test(commit, what_is_told_between_pieces)
{
	char name[16];
	unsigned n;
	struct bed b;
	int err = 0;

	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	start(&b);
	for (int i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		cr_assert_eq(put(&b, name, "job", 0644), 0);
	}
	cr_assert_eq(pieces_until(&b, "f0", &n), 0);
	cr_assert_not(exists(&b, "f1"));
	cr_assert_str_eq(b.seen[0].name, "f0");
	for (n = 1; !piece(&b, &err); n++) {
		tree_drain(b.tree);
		cr_assert_leq(b.seen[0].updates, n + 1);
	}
	cr_assert_eq(err, 0);
	cr_assert_eq(b.seen[0].updates, 30);
	tree_drain(b.tree);
	cr_assert_eq(b.seen[0].updates, 30);
	bed_release(&b);
}

/* However many names there are, a piece is some of them. */
Test(commit, pieces_are_small)
{
	unsigned n_check, n = 0;
	char name[32];
	struct bed b;
	int err;

	bed_init(&b);
	path_mkdirs(at(&b, "d/e"), 0755);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "d/e/f%d", i);
		write_file(at(&b, name), "1");
	}
	tree_list(b.tree, 0, b.root);
	tree_list(b.tree, 0, at(&b, "d"));
	tree_list(b.tree, 0, at(&b, "d/e"));
	start(&b);
	cr_assert_eq(put(&b, "new", "job", 0644), 0);
	cr_assert_eq(simple(&b, EFFECT_REMOVE, "d", 0, 0), 0);
	cr_assert_eq(pieces_until(&b, "new", &n_check), 0);
	cr_assert_geq(n_check, 500);
	cr_assert(exists(&b, "d/e"));
	for (; !piece(&b, &err); n++)
		tree_drain(b.tree);
	cr_assert_eq(err, 0, "%s", b.msg.text);
	cr_assert_geq(n, 500);
	cr_assert_not(exists(&b, "d"));
	/* And what comes to nothing. */
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		cr_assert_eq(put(&b, name, "job", 0644), 0);
	}
	for (n = 1; !commit_drop_some(b.job, 0); n++)
		tree_drain(b.tree);
	b.job = NULL;
	cr_assert_geq(n, 500);
	cr_assert_eq(temps(&b), 0);
	bed_release(&b);
}

/* Over the bytes of a file with other names; a refused batch leaves nothing. */
Test(commit, pieces_of_one_file)
{
	const size_t size = 1 << 20;
	char *bytes = xcalloc(1, size + 1);
	struct buf got = BUF_INIT;
	unsigned n = 0;
	struct bed b;
	int err;

	bed_init(&b);
	for (size_t i = 0; i < size; i++)
		bytes[i] = (char)('a' + i / 1000 % 26);
	write_file(at(&b, "f"), "old");
	cr_assert_eq(link(at(&b, "f"), at(&b, "other")), 0);
	tree_list(b.tree, 0, b.root);
	start(&b);
	cr_assert_eq(put(&b, "f", bytes, 0644), 0);
	for (n = 0; !piece(&b, &err); n++)
		tree_drain(b.tree);
	cr_assert_eq(err, 0, "%s", b.msg.text);
	cr_assert_geq(n, 16);
	cr_assert_eq(read_file_at(AT_FDCWD, at(&b, "other"), size, &got), 0);
	cr_assert_str_eq(buf_cstr(&got), bytes);
	cr_assert_eq(temps(&b), 0);
	buf_release(&got);
	free(bytes);
	bed_release(&b);
}

Test(commit, many_jobs_beside_a_user, .timeout = 1000)
{
	struct bed b;
	unsigned done = 0;
	unsigned refused = 0;
	uint64_t seed = (uint64_t)time(NULL) * 2654435761u | 1;

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	srand((unsigned)seed);
	bed_init(&b);
	tree_list(b.tree, 0, b.root);
	tree_list(b.tree, 1, b.root);
	for (int i = 0; i < 400; i++) {
		char name[16];
		char text[32];
		bool touched = rand() % 4 == 0;

		snprintf(name, sizeof(name), "f%d", rand() % 5);
		snprintf(text, sizeof(text), "job %d", i);
		start(&b);
		cr_assert_eq(put(&b, name, text, 0644), 0);
		if (touched)
			IN_CHILD(write_file(at(&b, name), "user"));
		if (apply(&b) == 0) {
			cr_assert_not(touched, "the user's edit was overwritten");
			cr_file(&b, name, text);
			done++;
		} else {
			cr_assert(touched, "refused for nothing: %s", b.msg.text);
			cr_file(&b, name, "user");
			refused++;
		}
	}
	cr_assert_gt(done, 0);
	cr_assert_gt(refused, 0);
	bed_release(&b);
}
