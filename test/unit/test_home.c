/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Reading an upper directory: real overlays, whose effects are both compared
 * with what is expected and repeated on a copy of the lower tree, which must
 * then be like the merged one.  Bodies run in a forked child with a mount
 * namespace of its own, as root and as an unprivileged user.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/mirror.h"
#include "concc/store.h"
#include "concc/str.h"
#include "worker/home.h"
#include "worker/leftover.h"
#include "sandbox/overlay.h"
#include "../lib/check.h"

#define USER 1001
#define WS   "/w" /* the workspace, for the mirror; its overlay is elsewhere here */

struct fixture {
	bool any_command;
	enum upper_kind kind;
	struct home *home;
	struct mirror *mirror;
	struct store *store;
	char **lines;
	bool replay;
	time_t clock_was_s; /* so much later than it is now, when the job began */
	bool keep_order;
};

static void sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void sh(const char *fmt, ...)
{
	char *cmd;
	va_list ap;

	va_start(ap, fmt);
	CHECK(vasprintf(&cmd, fmt, ap) > 0);
	va_end(ap);
	CHECK(system(cmd) == 0, "%s", cmd);
	free(cmd);
}

/* ---- repeating effects, as a client does ---- */

static int open_parent(const char *path, const char **ret_name)
{
	_cleanup_free_ char *dir = xasprintf("client/%s", path);
	char *slash = strrchr(dir, '/');
	int fd;

	*ret_name = path_base(path);
	*slash = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0, "%s comes before its directory", path);
	return fd;
}

static void copy_file(const struct msg_file *f, int fd, int dir)
{
	_cleanup_close_ int to = openat(dir, ".new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char buf[65536];
	ssize_t n;
	off_t at = 0;

	CHECK(to >= 0);
	while ((n = pread(fd, buf, sizeof(buf), at)) > 0) {
		CHECK(write_full(to, buf, (size_t)n) == 0);
		at += n;
	}
	CHECK((uint64_t)at == f->size && fchmod(to, f->mode) == 0);
}

static void remove_tree(const char *path)
{
	sh("find 'client/%s' -type d ! -perm -700 -exec chmod u+rwx {} \\; 2>/dev/null; "
	   "rm -rf 'client/%s'",
	   path, path);
}

static void replay(const struct msg_file *f, int fd)
{
	const char *name;
	int dir;

	if (!*f->path) {
		CHECK(f->kind == EFFECT_DIR && chmod("client", f->mode) == 0);
		return;
	}
	dir = open_parent(f->path, &name);
	switch (f->kind) {
	case EFFECT_REMOVE:
		remove_tree(f->path);
		break;
	case EFFECT_DIR:
		if (f->flags & EFFECT_F_OPAQUE)
			remove_tree(f->path);
		CHECK(mkdirat(dir, name, 0700) == 0 || errno == EEXIST, "%s", f->path);
		CHECK(fchmodat(dir, name, f->mode, 0) == 0);
		break;
	case EFFECT_SYMLINK:
		CHECK(symlinkat(f->target, dir, ".new") == 0);
		CHECK(renameat(dir, ".new", dir, name) == 0, "symlink %s", f->path);
		break;
	case EFFECT_META:
		CHECK(fchmodat(dir, name, f->mode, 0) == 0, "meta %s", f->path);
		break;
	case EFFECT_LINK: {
		_cleanup_free_ char *target = xasprintf("client/%s", f->target);

		CHECK(linkat(AT_FDCWD, target, dir, ".new", 0) == 0, "%s -> %s", f->path,
		      f->target);
		CHECK(renameat(dir, ".new", dir, name) == 0 && (unlinkat(dir, ".new", 0) || 1));
		break;
	}
	case EFFECT_FILE:
		if (f->flags & EFFECT_F_FIFO)
			CHECK(mkfifoat(dir, ".new", f->mode) == 0 &&
			      fchmodat(dir, ".new", f->mode, 0) == 0);
		else
			copy_file(f, fd, dir);
		CHECK(renameat(dir, ".new", dir, name) == 0, "file %s", f->path);
		break;
	default:
		CHECK(false, "kind %d", f->kind);
	}
	close(dir);
}

/* ---- effects as text ---- */

static char *describe(const struct msg_file *f)
{
	static const char *const kinds[] = {"?",      "file", "symlink", "dir",
					    "remove", "meta", "link"};
	const char *opaque = f->flags & EFFECT_F_OPAQUE ? " opaque" : "";
	const char *mtime = f->flags & EFFECT_F_MTIME ? " mtime" : "";
	const char *atime = f->flags & EFFECT_F_ATIME ? " atime" : "";
	const char *touched = f->flags & EFFECT_F_TOUCHED ? " touched" : "";
	const char *fifo = f->flags & EFFECT_F_FIFO	   ? " fifo"
			   : f->flags & EFFECT_F_NO_DIGEST ? " unhashed"
							   : "";
	char size[32] = "", mode[16] = "";

	if (f->kind == EFFECT_FILE)
		snprintf(size, sizeof(size), " %llu", (unsigned long long)f->size);
	if (f->kind == EFFECT_FILE || f->kind == EFFECT_DIR || f->kind == EFFECT_META)
		snprintf(mode, sizeof(mode), " %03o", f->mode);
	return xasprintf("%s %s%s%s%s%s%s%s%s%s%s\n", kinds[f->kind], f->path,
			 *f->target ? " -> " : "", f->target, mode, size, opaque, mtime, touched,
			 atime, fifo);
}

static int on_effect(void *data, const struct msg_file *f, int fd)
{
	struct fixture *t = data;
	struct digest d;
	uint64_t size;

	CHECK(f->workspace == 3);
	if (f->kind == EFFECT_FILE && !(f->flags & EFFECT_F_FIFO)) {
		if (!(f->flags & EFFECT_F_NO_DIGEST)) {
			CHECK(digest_of_fd(fd, &d, &size) == 0 && digest_eq(&d, &f->digest));
			CHECK(size == f->size);
		}
	} else {
		CHECK(fd == -1);
	}
	strv_push(&t->lines, describe(f));
	if (t->replay)
		replay(f, fd);
	return 0;
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void begin(struct fixture *t)
{
	strv_free(t->lines);
	t->lines = xcalloc(1, sizeof(*t->lines));
}

/* Compares what was reported, by default in any order: replay() looks after that. */
static void expect_lines(struct fixture *t, const char *want)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!t->keep_order)
		qsort(t->lines, strv_len(t->lines), sizeof(*t->lines), compare_lines);
	for (size_t i = 0; t->lines[i]; i++)
		buf_append(&b, t->lines[i], strlen(t->lines[i]));
	CHECK(!want || streq(buf_cstr(&b), want), "got:\n%swanted:\n%s", buf_cstr(&b), want);
}

static void expect(struct fixture *t, const char *want)
{
	begin(t);
	CHECK(home_scan(t->home, on_effect, t) == 0, "%s", home_refusal(t->home));
	expect_lines(t, want);
}

static void expect_refused(struct fixture *t, const char *why)
{
	begin(t);
	CHECK(home_scan(t->home, on_effect, t) == CONCC_E_UNSAFE);
	CHECK(strstr(home_refusal(t->home), why), "%s", home_refusal(t->home));
}

static void expect_announced(struct fixture *t, const char *path, const char *want)
{
	begin(t);
	CHECK(home_announce(t->home, path, on_effect, t) == 0);
	expect_lines(t, want);
}

/* The client's tree is like what the job saw in the end. */
static void expect_same_trees(void)
{
#define LIST                                                                                       \
	"find . \\( -type f -printf '%%P f %%m %%n %%s\n' \\) -o -printf '%%P %%y %%m %%l\n' | sort"
	sh("cd merged && " LIST " >../want; cd ../client && " LIST " >../got; cd .. && "
	   "diff want got >&2");
	sh("cd merged && find . -type f -print0 | sort -z | xargs -0r md5sum >../want; cd ../client && "
	   "find . -type f -print0 | sort -z | xargs -0r md5sum >../got; cd .. && diff want got >&2");
}

/* ---- fixture ---- */

static void write_id(const char *path, const char *fmt, unsigned id)
{
	char text[64];
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	snprintf(text, sizeof(text), fmt, id);
	CHECK(fd >= 0 && write_full(fd, text, strlen(text)) == 0, "%s", path);
	close(fd);
}

static void enter_namespace(uid_t uid)
{
	if (uid != 0) {
		CHECK(setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
		CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
		CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
		write_id("/proc/self/setgroups", "deny", 0);
		write_id("/proc/self/uid_map", "4242 %u 1", uid);
		write_id("/proc/self/gid_map", "4242 %u 1", uid);
	} else {
		CHECK(unshare(CLONE_NEWNS) == 0);
	}
	CHECK(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) == 0);
}

/* The work directory is a tmpfs with lower, upper, work, merged and client. */
static void set_up(struct fixture *t, const char *lower_script)
{
	CHECK(mount("t", "/mnt", "tmpfs", MS_NOATIME, NULL) == 0 && chdir("/mnt") == 0);
	umask(022);
	sh("mkdir lower upper work merged mount && cd lower && { %s; }", lower_script);
	/* As the mirror shows it. */
	sh("find lower -depth -exec sh -c "
	   "'for f; do touch -h -a -d \"$(stat -c %%y \"$f\")\" \"$f\"; done' sh {} +");
	sh("cp -a lower client");
	CHECK(overlay_mount(t->kind, "lower", "upper", "work", "merged") == 0);
}

/* As before the job: what it did is told once more, and from the start. */
static void new_client(void)
{
	sh("chmod -R u+rwx client; rm -rf client; cp -a lower client");
}

static void new_home(struct fixture *t)
{
	struct home_config c = {.mirror = t->mirror, .workspace = WS, .index = 3};

	home_free(t->home);
	c.any_command = t->any_command;

	c.upper_fd = open("upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)clock_gettime(CLOCK_REALTIME, &c.started);
	c.started.tv_sec += t->clock_was_s;
	c.started_ms = now_ms();
	t->home = home_new(&c);
}

static void job(const char *script)
{
	sh("cd merged && { %s; }", script);
}

static void with_fixture(uid_t uid, enum upper_kind kind, void (*body)(struct fixture *t))
{
	struct fixture t = {.kind = kind, .replay = true};
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		enter_namespace(uid);
		body(&t);
		home_free(t.home);
		mirror_stop(t.mirror);
		store_close(t.store);
		exit(0);
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "body ended with %x", status);
}

/* With both kinds of extended attributes, and without any privilege. */
#define TEST_ALL(name)                                                                             \
	static void name(struct fixture *t);                                                       \
	Test(home, name##_root)                                                                    \
	{                                                                                          \
		with_fixture(0, UPPER_TMPFS_TRUSTED, name);                                        \
	}                                                                                          \
	Test(home, name##_root_userxattr)                                                          \
	{                                                                                          \
		with_fixture(0, UPPER_TMPFS_USER, name);                                           \
	}                                                                                          \
	Test(home, name##_user)                                                                    \
	{                                                                                          \
		with_fixture(USER, UPPER_TMPFS_USER, name);                                        \
	}                                                                                          \
	static void name(struct fixture *t)

/* ---- without a mirror: everything is new ---- */

TEST_ALL(nothing)
{
	set_up(t, "echo 1 >a; mkdir d; echo 2 >d/b");
	new_home(t);
	job("cat a d/b >/dev/null; ls -R >/dev/null; test -e none || true");
	expect(t, "");
}

TEST_ALL(files_and_kinds)
{
	set_up(t, "echo 1 >a; echo 2 >b; mkdir d e; echo 3 >d/c; echo 4 >e/f");
	new_home(t);
	job("echo hello >new; chmod 755 new; ln -s some/where soft; mkfifo -m 622 pipe; rm a; "
	    "rm -r d; rm -r e; mkdir e; echo x >e/g; mkdir -p n/o; : >n/o/empty; echo t >t; mv t b");
	expect(t, "dir e 755 opaque\n"
		  "dir n 755\n"
		  "dir n/o 755\n"
		  "file b 644 2\n"
		  "file e/g 644 2\n"
		  "file n/o/empty 644 0\n"
		  "file new 755 6\n"
		  "file pipe 622 0 fifo\n"
		  "remove a\n"
		  "remove d\n"
		  "symlink soft -> some/where\n");
	expect_same_trees();
}

TEST_ALL(hard_links)
{
	set_up(t, "echo 1 >a; mkdir d");
	new_home(t);
	job("echo x >one; ln one two; ln one d/three; ln a b");
	expect(t, NULL);
	CHECK(strv_len(t->lines) == 6, "%zu", strv_len(t->lines)); /* d, two files, three links */
	expect_same_trees();
	new_client();
	/* The name the others were links to goes, or all get other bytes. */
	job("rm one; echo yy >>a");
	expect(t, NULL);
	expect_same_trees();
}

TEST_ALL(odd_names)
{
	set_up(t, "true");
	new_home(t);
	t->replay = false;
	job("echo x >'sp ace'; echo x >\"$(printf 'new\\nline')\"; echo x >\"$(printf '\\377\\376')\"; "
	    "echo x >'back\\slash,:'; mkdir -- -d; echo x >./-d/...");
	expect(t, "dir -d 755\nfile -d/... 644 2\nfile back\\slash,: 644 2\nfile new\nline 644 2\n"
		  "file sp ace 644 2\nfile \xff\xfe 644 2\n");
}

TEST_ALL(modes_that_lock_out)
{
	set_up(t, "true");
	new_home(t);
	t->keep_order = true;
	job("mkdir d; echo x >d/f; chmod 000 d/f; chmod 555 d");
	expect(t, "dir d 755\nfile d/f 000 2\ndir d 555\n");
}

TEST_ALL(order_of_writing)
{
	set_up(t, "true");
	new_home(t);
	t->keep_order = true;
	job("mkdir z; : >a; : >m; : >z/b; touch -d '2001-01-03' a; touch -d '2001-01-01' m; "
	    "touch -d '2001-01-02' z/b");
	expect(t,
	       "dir z 755\nfile m 644 0 mtime atime\nfile z/b 644 0 mtime atime\nfile a 644 0 mtime atime\n");
	job("rm -r a m z; touch -d '2099-01-01' n; echo now >o");
	expect(t, "file o 644 4\nfile n 644 0 mtime atime\n");
}

/* As an upper on disk is. */
Test(home, emptying)
{
	char dir[] = "/tmp/concc-test-XXXXXX";
	int fd;

	cr_assert(mkdtemp(dir));
	sh("cd %s && mkdir -p a/b && i=0 && while [ $i -lt 20 ]; do : >a/b/$i; i=$((i+1)); done",
	   dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_eq(path_empty_dir(fd), 0);
	cr_expect_eq(unlinkat(fd, "a", 0), -1);
	cr_expect_eq(errno, ENOENT);
	close(fd);
	cr_assert_eq(rmdir(dir), 0);
}

/* Who sets the clock in the middle of a job does not set the times of its files. */
TEST_ALL(clock_set_back)
{
	set_up(t, "true");
	t->clock_was_s = 3600;
	new_home(t);
	job("echo now >written; touch -d '2001-01-01' old; touch -d '2099-01-01' new");
	expect(t, "file new 644 0 mtime atime\nfile old 644 0 mtime atime\nfile written 644 4\n");
}

TEST_ALL(clock_set_forward)
{
	set_up(t, "true");
	t->clock_was_s = -3600;
	new_home(t);
	job("echo now >written; touch -d '2001-01-01' old; touch -d '2099-01-01' new");
	expect(t, "file new 644 0 mtime atime\nfile old 644 0 mtime atime\nfile written 644 4\n");
}

/* What takes long is left to a thread, before anything was told of it. */
TEST_ALL(few_and_many)
{
	set_up(t, "true");
	new_home(t);
	t->replay = false;
	job("i=0; while [ $i -lt 20 ]; do : >f$i; i=$((i+1)); done; head -c 4000000 /dev/zero >z");
	begin(t);
	CHECK(home_scan_few(t->home, on_effect, t) == 0);
	CHECK(strv_len(t->lines) == 21);
	job("i=0; while [ $i -lt 20 ]; do : >g$i; i=$((i+1)); done");
	begin(t);
	CHECK(home_scan_few(t->home, on_effect, t) == CONCC_E_LATER);
	job("rm g*; head -c 5000000 /dev/zero >y");
	CHECK(home_scan_few(t->home, on_effect, t) == CONCC_E_LATER);
	job("mkdir d; cat y z >d/large");
	CHECK(home_announce_few(t->home, "d/large", on_effect, t) == CONCC_E_LATER);
	CHECK(strv_len(t->lines) == 0);
	CHECK(home_announce_few(t->home, "d/none", on_effect, t) == -ENOENT);
	CHECK(home_announce_few(t->home, "f1", on_effect, t) == 0);
	CHECK(home_announce(t->home, "d/large", on_effect, t) == 0);
	CHECK(strv_len(t->lines) == 3);
}

TEST_ALL(deep_and_many)
{
	char path[256] = "";

	set_up(t, "true");
	new_home(t);
	t->replay = false;
	job("i=0; while [ $i -lt 2000 ]; do : >f$i; i=$((i+1)); done; "
	    "p=; i=0; while [ $i -lt 1500 ]; do p=${p}d/; i=$((i+1)); done; mkdir -p $p; : >${p}end");
	expect(t, NULL);
	CHECK(strv_len(t->lines) == 2000 + 1500 + 1);
	/* One that no message can name is an error, and neither a crash nor silence. */
	snprintf(path, sizeof(path), "merged");
	CHECK(chdir("merged") == 0);
	for (int i = 0; i < 2500; i++)
		CHECK((mkdir("d", 0755) == 0 || errno == EEXIST) && chdir("d") == 0);
	CHECK(chdir("/mnt") == 0);
	CHECK(home_scan(t->home, on_effect, t) == -ENAMETOOLONG);
}

TEST_ALL(sparse_and_big)
{
	set_up(t, "true");
	new_home(t);
	t->replay = false;
	job("truncate -s 300M big; printf x | dd of=big bs=1 seek=200000000 conv=notrunc 2>/dev/null");
	/* No scan may take longer than the client waits for a sign of life. */
	expect(t, "file big 644 314572800 unhashed\n");
	job("truncate -s 20G huge");
	expect_refused(t, "/huge is a sparse file");
}

/* ---- announced files ---- */

TEST_ALL(announced_and_the_rest)
{
	set_up(t, "mkdir d; echo 1 >d/one");
	new_home(t);
	job("mkdir -p n/m; echo b >n/m/lib.rmeta; echo other >n/m/other; mkdir only");
	expect_announced(t, "n/m/lib.rmeta", "dir n 755\ndir n/m 755\nfile n/m/lib.rmeta 644 2\n");
	/* Said twice is sent once. */
	expect_announced(t, "n/m/lib.rmeta", "");
	job("ln n/m/lib.rmeta only/incremental; rm d/one");
	expect(t, "dir d 755\ndir n 755\ndir n/m 755\ndir only 755\nfile n/m/other 644 6\n"
		  "link only/incremental -> n/m/lib.rmeta\nremove d/one\n");
	expect_same_trees();
}

TEST_ALL(announced_and_then_changed)
{
	set_up(t, "true");
	new_home(t);
	job("echo a >x; echo a >y; echo a >z; mkdir d e; echo a >d/x; echo a >e/x");
	expect_announced(t, "x", "file x 644 2\n");
	expect_announced(t, "y", "file y 644 2\n");
	expect_announced(t, "z", "file z 644 2\n");
	expect_announced(t, "d/x", "dir d 755\nfile d/x 644 2\n");
	expect_announced(t, "e/x", "dir e 755\nfile e/x 644 2\n");
	job("echo more >>x; chmod 755 y; rm z; rm -r d; rm -r e; echo b >e");
	expect(t,
	       "file e 644 2\nfile x 644 7\nmeta y 755\nremove d\nremove e\nremove e/x\nremove z\n");
	expect_same_trees();
}

TEST_ALL(announced_and_then_another_kind)
{
	set_up(t, "true");
	new_home(t);
	job("echo a >x; mkdir y; echo b >y/f");
	expect_announced(t, "x", "file x 644 2\n");
	expect_announced(t, "y/f", "dir y 755\nfile y/f 644 2\n");
	job("rm x; mkdir x; echo c >x/g; rm -r y; echo d >y");
	expect(t, NULL);
	expect_same_trees();
}

TEST_ALL(announced_but_not_there)
{
	set_up(t, "echo 1 >below; mkdir real; ln -s real link");
	new_home(t);
	job("echo x >link/f; mkdir d");
	begin(t);
	CHECK(home_announce(t->home, "none", on_effect, t) == -ENOENT);
	CHECK(home_announce(t->home, "none/f", on_effect, t) == -ENOENT);
	CHECK(home_announce(t->home, "below", on_effect, t) == -ENOENT);
	CHECK(home_announce(t->home, "link/f", on_effect, t) < 0);
	expect_lines(t, "");
	expect_announced(t, "real/f", "dir real 755\nfile real/f 644 2\n");
	expect(t, NULL);
	expect_same_trees();
}

/* ---- with a mirror: only what differs ---- */

static void on_want_dir(void *data, const char *path)
{
}

static void on_want_file(void *data, const struct msg_fetch *f)
{
}

static void on_failed(void *data, int64_t job, const char *path, int err)
{
}

static void attr_of(const char *path, struct entry_attr *ret)
{
	static uint64_t version;
	struct stat st;

	CHECK(lstat(path, &st) == 0, "%s", path);
	*ret = (struct entry_attr){
		.type = S_ISDIR(st.st_mode)   ? ENTRY_DIR
			: S_ISLNK(st.st_mode) ? ENTRY_SYMLINK
					      : ENTRY_FILE,
		.mode = st.st_mode & 07777,
		.nlink = (uint32_t)st.st_nlink,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.mtime_s = st.st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st.st_mtim.tv_nsec,
		.version = ++version,
	};
	/* A name that says so stands for a file with others, which no mirror shows (fuse.c). */
	if (strstr(path, "linked"))
		ret->nlink = 2;
	/* A name that says so stands for a file whose digest nobody knows. */
	if (ret->type == ENTRY_FILE && !strstr(path, "nodigest")) {
		_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

		ret->has_digest = true;
		CHECK(digest_of_fd(fd, &ret->digest, NULL) == 0);
	}
}

/* Tells the mirror what is in lower/rel, and beneath. */
static void list_dir(struct mirror *m, const char *rel)
{
	static uint32_t dir_id;
	_cleanup_free_ char *real = xasprintf("lower%s", rel), *path = xasprintf(WS "%s", rel);
	_cleanup_buf_ struct buf entries = BUF_INIT, b = BUF_INIT;
	struct entry_attr attr;
	struct dirent **names;
	struct msg_dir d;
	int n = scandir(real, &names, NULL, alphasort);
	uint32_t count = 0;

	CHECK(n >= 2);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *full = path_join(real, names[i]->d_name);
		char target[PATH_MAX] = "";

		if (streq(names[i]->d_name, ".") || streq(names[i]->d_name, ".."))
			continue;
		attr_of(full, &attr);
		if (attr.type == ENTRY_SYMLINK)
			CHECK(readlink(full, target, sizeof(target) - 1) > 0);
		dir_entry_encode(&entries, names[i]->d_name, strlen(names[i]->d_name), &attr,
				 attr.type == ENTRY_SYMLINK ? target : NULL);
		count++;
	}
	attr_of(real, &attr);
	msg_dir_encode(&b, ++dir_id, DIR_LISTED, path, &attr, count);
	buf_append(&b, entries.data, entries.len);
	CHECK(msg_dir_decode((struct blob){b.data, b.len}, &d) == 0);
	CHECK(mirror_dir(m, &d) == 0, "%s", path);
	msg_dir_release(&d);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *below = xasprintf("%s/%s", rel, names[i]->d_name);

		if (names[i]->d_type == DT_DIR && names[i]->d_name[0] != '.')
			list_dir(m, below);
		free(names[i]);
	}
	free(names);
}

static void add_mirror(struct fixture *t)
{
	static const struct mirror_ops ops = {on_want_dir, on_want_file, on_failed};
	struct mirror_config c = {.mountpoint = "/mnt/mount"};
	struct errmsg msg = {""};

	CHECK(store_open("/mnt/store", 1 << 20, &t->store, &msg) == 0, "%s", msg.text);
	c.store = t->store;
	CHECK(mirror_start(&c, &ops, t, &t->mirror, &msg) == 0, "%s", msg.text);
	CHECK(mirror_serve(t->mirror, WS) == 0);
	list_dir(t->mirror, "");
}

#define TEST_MIRROR(name)                                                                          \
	static void name(struct fixture *t);                                                       \
	Test(home, name)                                                                           \
	{                                                                                          \
		with_fixture(0, UPPER_TMPFS_USER, name);                                           \
	}                                                                                          \
	static void name(struct fixture *t)

TEST_MIRROR(silent_when_nothing_changed)
{
	set_up(t, "echo 1 >a; echo 1 >b; mkdir d; echo 2 >d/c; : >nodigest-empty; "
		  "echo 3 >nodigest; echo 4 >same; touch -d 2001-01-01 a b d/c nodigest*");
	add_mirror(t);
	new_home(t);
	/* Opened for writing only: copied up with all its directories. */
	job("for f in a d/c nodigest nodigest-empty; do : >>$f; done; echo x >d/t; rm d/t");
	expect(t, "file nodigest 644 2 mtime\n");
	/* The same bytes written again are no new ones. */
	job("echo 4 >same; chmod 755 a; touch d/c; touch -d 2002-01-01 b; chmod 700 d; chmod 750 .");
	expect(t, "dir  750\ndir d 700\nfile nodigest 644 2 mtime\nmeta a 755 mtime\n"
		  "meta b 644 mtime touched atime\nmeta d/c 644 touched\nmeta same 644 touched\n");
	new_client();
	job("echo 5 >same");
	expect(t, NULL);
	expect_same_trees();
}

TEST_MIRROR(replaces_other_kinds)
{
	set_up(t,
	       "echo 1 >file; mkdir dir; echo 2 >dir/x; ln -s x soft; mkdir keep; echo 3 >keep/y");
	add_mirror(t);
	new_home(t);
	t->keep_order = true;
	job("rm -r dir file soft; echo a >dir; mkdir file; echo b >file/z; mkdir soft");
	expect(t, NULL);
	expect_same_trees();
	new_client();
	job("rm -r dir file soft; mkdir dir; echo c >file; ln -s y soft; rm -r keep; mkdir keep");
	expect(t, NULL);
	expect_same_trees();
}

/* Who reads a file by another name than that by which it is written to does not see it. */
TEST_MIRROR(files_with_several_names)
{
	set_up(t, "for f in 1 2 3 4; do echo $f >linked$f; done; touch -d 2001-01-01 linked*");
	add_mirror(t);
	new_home(t);
	job(": >>linked1; rm linked2; echo x >linked2; rm linked3");
	expect(t, "file linked2 644 2\nremove linked3\n");
	job("echo x >>linked4");
	expect(t, "file linked2 644 2\nfile linked4 644 4\nremove linked3\n");
	t->any_command = true;
	new_home(t);
	expect_refused(t, "/linked4 is a file with several names");
}

TEST_MIRROR(links_to_what_is_there)
{
	set_up(t, "echo 1 >a; echo 2 >b; echo 22 >c; echo 3 >linked; echo 4 >f; "
		  "touch -d 2001-01-01 a b c linked f");
	add_mirror(t);
	new_home(t);
	/* Its bytes are there by the name that it had. */
	job("ln a aa; ln -f b c; echo new >>f; ln f g");
	expect(t, "file f 644 6\nlink aa -> a\nlink c -> b\nlink g -> f\n");
	expect_same_trees();
	job("rm aa c g; ln linked other");
	expect(t, NULL);
	t->any_command = true;
	new_home(t);
	expect_refused(t, "/linked is a file with several names");
}

TEST_MIRROR(linked_and_then_written_to)
{
	set_up(t, "echo 1 >a; echo 2 >b");
	add_mirror(t);
	new_home(t);
	job("ln -f a b; echo more >>b");
	expect_refused(t, "was linked and written to");
}

/* Where nothing was below, a new directory must not wipe out what another job puts there. */
TEST_MIRROR(new_directories_replace_nothing)
{
	set_up(t, "mkdir d");
	add_mirror(t);
	new_home(t);
	job("mkdir new; mkdir t; echo 1 >t/f; mv t d/moved");
	expect(t, "dir d/moved 755\ndir new 755\nfile d/moved/f 644 2\n");
	expect_same_trees();
}

static const char *random_name(void)
{
	static const char *const names[] = {"a",     "b",     "c", "d",	  "d/a", "d/b",	 "d/e",
					    "d/e/a", "d/e/b", "f", "f/a", "f/g", "f/g/a"};

	return names[(size_t)rand() % (sizeof(names) / sizeof(names[0]))];
}

static void random_step(struct buf *script)
{
	static const char *const steps[] = {
		"echo %2$d >%1$s",
		"echo %2$d >>%1$s",
		"rm -rf %1$s",
		"mkdir -p %1$s",
		"mkdir %1$s",
		"mv -T %1$s %3$s",
		"ln -T %1$s %3$s",
		"ln -sfT %2$d %1$s",
		"mkfifo %1$s",
		"chmod %4$o %1$s",
		"cp -aT %1$s %3$s",
		"touch -c -d 2001-01-01 %1$s",
		"rmdir %1$s",
		"rm -f %1$s; echo %2$d >%1$s",
		"rm -rf %1$s; mkdir %1$s",
		"cp -a %1$s t; mv -T t %3$s",
	};
	size_t i = (size_t)rand() % (sizeof(steps) / sizeof(steps[0]));
	static const int modes[] = {0755, 0700, 0644, 0777, 0500};
	char step[256], *line = step;

/* Each step uses what it needs of four arguments, by position. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
	snprintf(step, sizeof(step), steps[i], random_name(), rand() % 3, random_name(),
		 modes[(size_t)rand() % 5]);
#pragma GCC diagnostic pop
	buf_putf(script, "%s; ", line);
}

/* Of those that are there. */
static void announce_any(struct fixture *t)
{
	const char *name = random_name();
	_cleanup_free_ char *path = xasprintf("upper/%s", name);
	struct stat st;

	begin(t);
	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
		CHECK(home_announce(t->home, name, on_effect, t) == 0);
}

/* Any sequence of changes, with files announced in between, ends with equal trees. */
TEST_MIRROR(random_changes)
{
	set_up(t, "echo 1 >a; echo 2 >b; mkdir -p d/e f; echo 3 >d/a; echo 4 >d/e/a; echo 5 >f/a; "
		  "ln -s 7 f/g");
	add_mirror(t);
	for (unsigned round = 0; round < 60; round++) {
		_cleanup_buf_ struct buf all = BUF_INIT;

		srand(round);
		new_home(t);
		for (int part = 0; part < 3; part++) {
			_cleanup_buf_ struct buf script = BUF_INIT;

			for (int i = rand() % 6; i >= 0; i--)
				random_step(&script);
			buf_putf(&all, "%s\n", buf_cstr(&script));
			sh("cd merged && { %s } 2>/dev/null; true", buf_cstr(&script));
			if (part < 2 && rand() % 2)
				announce_any(t);
		}
		setenv("ROUND", buf_cstr(&all), 1); /* for who debugs a failure */
		expect(t, NULL);
		expect_same_trees();
		home_free(t->home);
		t->home = NULL;
		sh("umount merged && chmod -R u+rwx upper work client && "
		   "rm -rf upper work client && mkdir upper work && cp -a lower client");
		CHECK(overlay_mount(t->kind, "lower", "upper", "work", "merged") == 0);
	}
}

/* What is left in /tmp: of many names a thread is to see which, and what may stay is not entered.
 */
Test(home, many_names_in_tmp)
{
	char dir[] = "/tmp/concc-test-left.XXXXXX", name[64], left[256] = "";
	int fd, err;

	cr_assert(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(mkdirat(fd, "node-compile-cache", 0700), 0);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "node-compile-cache/%d", i);
		cr_assert_eq(mkdirat(fd, name, 0700), 0);
	}
	err = leftover_in_tmp_few(fd, left, sizeof(left));
	cr_assert_eq(err, 0, "%d %s", err, left);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), ".java_pid%d", i);
		cr_assert_eq(mkdirat(fd, name, 0700), 0);
	}
	cr_assert_eq(leftover_in_tmp_few(fd, left, sizeof(left)), CONCC_E_LATER);
	cr_assert_eq(leftover_in_tmp(fd, left, sizeof(left)), 0, "%s", left);
	cr_assert_eq(mkdirat(fd, "other", 0700), 0);
	cr_assert_eq(leftover_in_tmp(fd, left, sizeof(left)), 1);
	cr_assert_str_eq(left, "other");
	(void)path_empty_dir(fd);
	close(fd);
	cr_assert_eq(rmdir(dir), 0);
}
