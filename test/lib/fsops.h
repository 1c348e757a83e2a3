/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_FSOPS_H
#define CONCC_TEST_FSOPS_H

/*
 * Random changes of a tree, the same ones for the same seed and the same tree.
 * The names are few, so that a path is missing, a file, a directory and a link
 * in turn, again and again.  Works beneath the current directory; each change
 * tells by note() what it did and by touch_path() to what.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"

/* By who includes this. */
static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void touch_path(const char *p);
static void fail_in(const char *where, const char *what) __attribute__((noreturn));
#define fail(what) fail_in(__func__, what)

static const char *outside; /* a directory beside the tree; NULL: there is none */
static bool in_job;

/* ---- names ---- */

/* One of 4 + 12 directories. */
static void random_dir(char *ret, size_t n)
{
	uint32_t d = random_below(4), s = random_below(4);

	if (s == 3)
		snprintf(ret, n, "d%u", d);
	else
		snprintf(ret, n, "d%u/s%u", d, s);
}

/* Mostly files; what is one may have been a directory, in another case, deep. */
static void random_file(char *ret, size_t n)
{
	char dir[64];
	uint32_t f = random_below(5);

	random_dir(dir, sizeof(dir));
	switch (random_below(24)) {
	case 0:
		snprintf(ret, n, "%s", dir);
		break;
	case 1:
	case 2:
		snprintf(ret, n, "%s/F%u", dir, f);
		break;
	case 3:
		snprintf(ret, n, "%s/f%u/f%u", dir, f, random_below(2));
		break;
	case 4:
		snprintf(ret, n, "%s/deep/1/2/3/4/5/6/7/8/9/10/11/12/f%u", dir, f);
		break;
	default:
		snprintf(ret, n, "%s/f%u", dir, f);
	}
}

static int remove_one(const char *p, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	if (remove(p) < 0 && errno != ENOENT)
		fail(p);
	return 0;
}

static void remove_tree(const char *p)
{
	if (unlink(p) == 0 || errno == ENOENT || errno == ENOTDIR)
		return;
	(void)nftw(p, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* What stands in the way of a directory goes. */
static void make_dir(const char *p)
{
	struct stat st;

	if (lstat(p, &st) == 0 && S_ISDIR(st.st_mode))
		return;
	unlink(p);
	if (mkdir(p, 0755) < 0)
		fail(p);
	touch_path(p);
}

static void make_parents(const char *p)
{
	char part[256];

	for (const char *s = strchr(p, '/'); s; s = strchr(s + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(s - p), p);
		make_dir(part);
	}
}

static void clear_for_file(const char *p)
{
	struct stat st;

	make_parents(p);
	if (lstat(p, &st) == 0 && !S_ISREG(st.st_mode))
		remove_tree(p);
}

/* True when a is b or one is in the other: no rename can do that. */
static bool overlap(const char *a, const char *b)
{
	size_t n = strlen(a) < strlen(b) ? strlen(a) : strlen(b);

	return strncmp(a, b, n) == 0 && (a[n] == '\0' || a[n] == '/') &&
	       (b[n] == '\0' || b[n] == '/');
}

static size_t random_bytes(char *buf, size_t size)
{
	for (size_t i = 0; i < size; i++)
		buf[i] = (char)('a' + random_below(26));
	if (size)
		buf[size - 1] = '\n';
	return size;
}

static void write_bytes(const char *p, int flags, const char *b, size_t n)
{
	int fd = open(p, O_WRONLY | O_CLOEXEC | flags, 0644);

	if (fd < 0 || write(fd, b, n) != (ssize_t)n)
		fail(p);
	close(fd);
}

static void some_file(const char *p)
{
	char b[100];
	struct stat st;

	clear_for_file(p);
	if (lstat(p, &st) < 0)
		write_bytes(p, O_CREAT | O_TRUNC, b, random_bytes(b, 1 + random_below(99)));
}

/* As mv(1) does: in a job a directory of the client's is copied. */
static void move(const char *from, const char *to)
{
	pid_t pid;
	int st;

	if (rename(from, to) == 0)
		return;
	if (errno != EXDEV || !in_job)
		fail(from);
	pid = fork();
	if (pid == 0) {
		execlp("mv", "mv", "-T", from, to, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &st, 0) < 0 || st != 0)
		fail("mv");
}

/* ---- changes ---- */

static void op_write(const char *p)
{
	char b[8192];
	size_t n = random_bytes(b, random_below(8) == 0 ? sizeof(b) : random_below(60));

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_TRUNC, b, n);
	note("write %s %zu", p, n);
}

/* Same size, and half the time the same mtime too: only the ctime tells. */
static void op_same_size(const char *p)
{
	struct timespec t[2];
	struct stat st;
	char b[8192];
	bool same_time = random_below(2);

	some_file(p);
	if (lstat(p, &st) < 0 || (size_t)st.st_size > sizeof(b)) {
		op_write(p);
		return;
	}
	write_bytes(p, 0, b, random_bytes(b, (size_t)st.st_size));
	t[0] = st.st_atim;
	t[1] = st.st_mtim;
	if (same_time && utimensat(AT_FDCWD, p, t, 0) < 0)
		fail(p);
	note("same size%s %s %ld", same_time ? " and time" : "", p, (long)st.st_size);
}

static void op_append(const char *p)
{
	char b[16];

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_APPEND, b, random_bytes(b, 9));
	note("append %s", p);
}

static void op_truncate(const char *p)
{
	off_t n = random_below(200);
	int fd = -1;

	some_file(p);
	if (random_below(2))
		fd = open(p, O_RDWR | O_CLOEXEC);
	if (fd >= 0 ? ftruncate(fd, n) < 0 : truncate(p, n) < 0)
		fail(p);
	if (fd >= 0)
		close(fd);
	note("truncate %s %ld", p, (long)n);
}

static void op_replace(const char *p)
{
	char b[200], tmp[256];

	clear_for_file(p);
	snprintf(tmp, sizeof(tmp), "%s.tmp", p);
	write_bytes(tmp, O_CREAT | O_TRUNC, b, random_bytes(b, 1 + random_below(199)));
	if (rename(tmp, p) < 0)
		fail(p);
	touch_path(tmp);
	note("replace %s", p);
}

static void op_mmap(const char *p)
{
	char b[300], *m;
	int fd;

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_TRUNC, b, random_bytes(b, sizeof(b)));
	fd = open(p, O_RDWR | O_CLOEXEC);
	m = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(b), PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		fail(p);
	random_bytes(m, sizeof(b));
	munmap(m, sizeof(b));
	close(fd);
	note("mmap %s", p);
}

static int kept = -1; /* a file that a writer keeps open, opened as kept_path */
static char kept_path[256];

static void close_kept(void)
{
	if (kept >= 0)
		close(kept);
	kept = -1;
}

/* A writer that does not close for a while; the file may get another name meanwhile. */
static void op_keep_open(const char *p)
{
	struct stat st;
	char b[32];

	if (kept >= 0) {
		if (write(kept, b, random_bytes(b, 20)) != 20)
			fail(kept_path);
		touch_path(kept_path);
		note("write through the open file once %s", kept_path);
		if (random_below(3) == 0)
			close_kept();
		return;
	}
	clear_for_file(p);
	if (lstat(p, &st) == 0 && st.st_nlink > 1)
		remove_tree(p);
	kept = open(p, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (kept < 0 || write(kept, b, random_bytes(b, 20)) != 20)
		fail(p);
	snprintf(kept_path, sizeof(kept_path), "%s", p);
	note("open and write %s", p);
}

/*
 * The one thing left out: a write through a descriptor that was opened by one of several names of
 * a file, when that name is gone and the directory of the last one was read since.  The kernel
 * tells nobody of it, and nothing about the file is special any more.
 */
static void close_kept_if(const char *p)
{
	struct stat st, open_st;

	if (kept >= 0 && lstat(p, &st) == 0 && fstat(kept, &open_st) == 0 &&
	    st.st_ino == open_st.st_ino)
		close_kept();
}

static void op_remove(const char *p)
{
	remove_tree(p);
	note("remove %s", p);
}

static void op_chmod(const char *p)
{
	static const mode_t modes[] = {0644, 0755, 0600, 0700, 0444, 0555, 0664};
	mode_t m = modes[random_below(sizeof(modes) / sizeof(*modes))];
	struct stat st;

	if (lstat(p, &st) < 0 || S_ISLNK(st.st_mode)) {
		op_write(p);
		return;
	}
	if (chmod(p, S_ISDIR(st.st_mode) ? m | 0500 : m) < 0)
		fail(p);
	note("chmod %o %s", m, p);
}

static void op_touch(const char *p)
{
	struct timespec t[2] = {
		{.tv_nsec = UTIME_OMIT},
		{.tv_sec = 1600000000 + random_below(1000), .tv_nsec = random_below(999999999)}};

	some_file(p);
	if (utimensat(AT_FDCWD, p, t, AT_SYMLINK_NOFOLLOW) < 0)
		fail(p);
	note("touch %s", p);
}

static void op_symlink(const char *p)
{
	char target[PATH_MAX], other[256], cwd[1024];

	random_file(other, sizeof(other));
	if (random_below(4) == 0)
		random_dir(other, sizeof(other));
	switch (random_below(6)) {
	case 0:
	case 1:
		snprintf(target, sizeof(target), "f%u", random_below(5));
		break;
	case 2:
		snprintf(target, sizeof(target), "../%s",
			 strchr(other, '/') ? strchr(other, '/') + 1 : "f1");
		break;
	case 3:
		snprintf(target, sizeof(target), "nowhere/%u", random_below(3));
		break;
	case 4:
		snprintf(target, sizeof(target), "%s", strrchr(p, '/') ? strrchr(p, '/') + 1 : p);
		break;
	default:
		/* Absolute ones lead into the tree of whoever made them. */
		if (in_job || !getcwd(cwd, sizeof(cwd)))
			cwd[0] = '\0';
		snprintf(target, sizeof(target), "%s%s%s", cwd, *cwd ? "/" : "", other);
	}
	make_parents(p);
	remove_tree(p);
	if (symlink(target, p) < 0)
		fail(p);
	note("symlink %s -> %s", p, target);
}

static void op_rename(const char *p)
{
	char to[256];

	random_file(to, sizeof(to));
	if (overlap(p, to))
		return;
	some_file(p);
	make_parents(to);
	make_parents(p);
	if (access(p, F_OK) < 0)
		return;
	clear_for_file(to);
	if (access(p, F_OK) < 0)
		return;
	move(p, to);
	touch_path(to);
	note("rename %s %s", p, to);
}

static void op_exchange(const char *p)
{
	char to[256];
	unsigned kind = random_below(3);

	random_file(to, sizeof(to));
	if (overlap(p, to))
		return;
	some_file(p);
	make_parents(to);
	if (kind == 0 && !in_job) /* the client's directories can't be exchanged in a job */
		make_dir(to);
	else
		some_file(to);
	if (access(p, F_OK) < 0)
		return;
	if (renameat2(AT_FDCWD, p, AT_FDCWD, to, RENAME_EXCHANGE) < 0)
		fail(p);
	touch_path(to);
	note("exchange %s %s", p, to);
}

static void op_mkdir(const char *p)
{
	make_parents(p);
	remove_tree(p);
	if (mkdir(p, 0755) < 0)
		fail(p);
	note("mkdir %s", p);
	if (random_below(3) == 0 && rmdir(p) == 0)
		note("rmdir %s", p);
}

static void op_rename_dir(const char *p)
{
	char from[64], to[64];

	(void)p;
	random_dir(from, sizeof(from));
	random_dir(to, sizeof(to));
	if (overlap(from, to))
		return;
	make_parents(from);
	make_dir(from);
	make_parents(to);
	if (access(from, F_OK) < 0)
		return;
	remove_tree(to);
	move(from, to);
	touch_path(from);
	touch_path(to);
	note("rename directory %s %s", from, to);
}

/* Leaves the workspace, is changed there, where nobody watches, and comes back. */
static void op_out_and_back(const char *p)
{
	char b[40], inside[512];
	char dir[64];

	if (!outside) {
		op_write(p);
		return;
	}
	snprintf(dir, sizeof(dir), "d%u", random_below(4));
	make_dir(dir);
	if (rename(dir, outside) < 0)
		fail(dir);
	snprintf(inside, sizeof(inside), "%s/f%u", outside, random_below(5));
	remove_tree(inside);
	write_bytes(inside, O_CREAT | O_TRUNC, b, random_bytes(b, sizeof(b)));
	if (rename(outside, dir) < 0)
		fail(dir);
	snprintf(inside, sizeof(inside), "%s/f%u", dir, random_below(5));
	touch_path(dir);
	touch_path(inside);
	note("out, edit, back %s", dir);
}

/*
 * Files that got a further name in this round, since there was a look at the tree.  What is done to
 * them through that name is left out: its directory may be one that nobody has asked for, and then
 * the kernel tells nobody of it.
 */
static struct {
	ino_t inodes[64];
	size_t n;
} linked;

static void forget_links(void)
{
	linked.n = 0;
}

static bool is_just_linked(const char *p)
{
	struct stat st;

	if (linked.n == sizeof(linked.inodes) / sizeof(linked.inodes[0]))
		return true;
	for (size_t i = 0; stat(p, &st) == 0 && i < linked.n; i++)
		if (linked.inodes[i] == st.st_ino)
			return true;
	return false;
}

static void remember_link(const char *p)
{
	struct stat st;

	if (stat(p, &st) == 0)
		linked.inodes[linked.n++] = st.st_ino;
}

static void op_hard_link(const char *p)
{
	char to[256], b[64];
	unsigned then = random_below(3);

	random_file(to, sizeof(to));
	if (overlap(p, to))
		return;
	some_file(p);
	make_parents(to);
	remove_tree(to);
	make_parents(p);
	if (access(p, F_OK) < 0 || access(to, F_OK) == 0)
		return;
	close_kept_if(p);
	if (link(p, to) < 0)
		fail(p);
	remember_link(p);
	touch_path(to);
	note("link %s %s", p, to);
	if (then == 0)
		return;
	write_bytes(p, O_TRUNC, b, random_bytes(b, sizeof(b)));
	note("write through %s, is also %s", p, to);
	if (then == 1)
		return;
	unlink(p);
	write_bytes(to, O_APPEND, b, 5);
	note("unlink %s, append to %s", p, to);
}

/* A file without a name gets one. */
static void op_tmpfile(const char *p)
{
	char dir[256], b[80], proc[64];
	const char *slash = strrchr(p, '/');
	int fd;

	make_parents(p);
	remove_tree(p);
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - p) : 1, slash ? p : ".");
	fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
	random_bytes(b, sizeof(b));
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		write_bytes(p, O_CREAT, b, sizeof(b));
		note("no O_TMPFILE: write %s", p);
		return;
	}
	if (fd < 0 || write(fd, b, sizeof(b)) != sizeof(b))
		fail(dir);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, proc, AT_FDCWD, p, AT_SYMLINK_FOLLOW) < 0)
		fail(p);
	if (random_below(3) == 0 && write(fd, b, 10) != 10)
		fail(p);
	close(fd);
	note("O_TMPFILE, linkat %s", p);
}

/* By one of the calls that move bytes within the kernel. */
static void op_copy(const char *p)
{
	char to[256];
	unsigned how = random_below(3);
	int in, out, pipe_fds[2];
	ssize_t n = 0;
	struct stat st;

	random_file(to, sizeof(to));
	if (overlap(p, to) || is_just_linked(to))
		return;
	some_file(p);
	clear_for_file(to);
	if (access(p, F_OK) < 0)
		return;
	in = open(p, O_RDONLY | O_CLOEXEC);
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (in < 0 || out < 0 || fstat(in, &st) < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
		fail(to);
	if (how == 0)
		n = copy_file_range(in, NULL, out, NULL, (size_t)st.st_size, 0);
	/* What reads the client's file writes to another file system, which tools are prepared for.
	 */
	if (how == 0 && n < 0 && errno == EXDEV && in_job)
		how = 1;
	if (how == 1)
		n = sendfile(out, in, NULL, (size_t)st.st_size);
	if (how == 2)
		n = splice(in, NULL, pipe_fds[1], NULL, (size_t)st.st_size, 0);
	if (how == 2 && n > 0)
		n = splice(pipe_fds[0], NULL, out, NULL, (size_t)n, 0);
	if (n != st.st_size && !(how == 2 && n >= 0))
		fail(to);
	close(in);
	close(out);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	touch_path(to);
	note("copied %s %s %zd", p, to, n);
}

static void op_case(const char *p)
{
	char to[256], *base;

	snprintf(to, sizeof(to), "%s", p);
	base = strrchr(to, '/') ? strrchr(to, '/') + 1 : to;
	*base ^= 'a' ^ 'A';
	some_file(p);
	remove_tree(to);
	move(p, to);
	touch_path(to);
	note("rename %s %s, the other case", p, to);
}

/* A directory in place of a file, and half the time a file again. */
static void op_dir_and_back(const char *p)
{
	char inside[300];

	some_file(p);
	remove_tree(p);
	snprintf(inside, sizeof(inside), "%s/f%u", p, random_below(3));
	make_parents(inside);
	write_bytes(inside, O_CREAT, "in\n", 3);
	touch_path(inside);
	note("directory in place of %s, with %s", p, inside);
	if (random_below(2))
		return;
	remove_tree(p);
	write_bytes(p, O_CREAT | O_EXCL, "file\n", 5);
	note("a file again %s", p);
}

static void op_hole(const char *p)
{
	int fd;

	some_file(p);
	fd = open(p, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail(p);
	if (random_below(2)) {
		if (fallocate(fd, 0, 0, 3000) < 0 && errno != EOPNOTSUPP)
			fail(p);
	} else if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 &&
		   errno != EOPNOTSUPP) {
		fail(p);
	}
	close(fd);
	note("fallocate %s", p);
}

/* Gone again before the next look: a job that looks at one runs here. */
static void op_special(const char *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd;

	make_parents(p);
	remove_tree(p);
	if (random_below(2) || strlen(p) >= sizeof(a.sun_path)) {
		if (mkfifo(p, 0640) < 0)
			fail(p);
		note("fifo %s", p);
		remove_tree(p);
		return;
	}
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", p);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail(p);
	close(fd);
	note("socket %s", p);
	remove_tree(p);
}

static void op_script(const char *p)
{
	char b[64];
	int n = snprintf(b, sizeof(b), "#!/bin/sh\necho %u\n", random_below(100000));

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_TRUNC, b, (size_t)n);
	if (chmod(p, random_below(4) ? 0755 : 0644) < 0)
		fail(p);
	note("script %s", p);
}

static void op_make_tree(const char *p)
{
	char dir[64], f[128], b[64];

	(void)p;
	random_dir(dir, sizeof(dir));
	make_parents(dir);
	remove_tree(dir);
	make_dir(dir);
	for (unsigned i = 0; i < 5; i++) {
		snprintf(f, sizeof(f), "%s/f%u", dir, i);
		write_bytes(f, O_CREAT | O_TRUNC, b, random_bytes(b, sizeof(b)));
		touch_path(f);
	}
	touch_path(dir);
	note("new tree %s", dir);
}

typedef void (*op_fn)(const char *p);

static const op_fn ops[] = {
	op_write,     op_write,	       op_same_size, op_same_size, op_append,	 op_truncate,
	op_replace,   op_mmap,	       op_remove,    op_remove,	   op_chmod,	 op_touch,
	op_symlink,   op_symlink,      op_rename,    op_exchange,  op_mkdir,	 op_rename_dir,
	op_hard_link, op_out_and_back, op_tmpfile,   op_copy,	   op_case,	 op_dir_and_back,
	op_hole,      op_special,      op_script,    op_make_tree, op_keep_open,
};

static void random_step(void)
{
	char path[256];

	random_file(path, sizeof(path));
	if (is_just_linked(path))
		return;
	touch_path(path);
	ops[random_below(sizeof(ops) / sizeof(*ops))](path);
}

#endif
