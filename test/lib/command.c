/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * command OP...: a command that looks at files, and makes some, in the ways that an operand each
 * says
 * ("stat:PATH", "mv:FROM:TO"), and tells what it sees.  What can't be done is told, too, and the
 * next one follows.  With the name of a script as its only operand ("#!/dir/command -" is its first
 * line), what that says, by lines.  What it tells depends on nothing but the files, as far as two
 * trees that are made alike are alike; with times among them when "times" is an operand.
 * After "times:SECONDS" later ones are told as new: the clock's, of what the command itself has
 * made.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES_MAX  4096
#define FOLLOW_MAX 8

static bool with_times;
static long long new_after = LLONG_MAX; /* s since 1970 */
static int status;

static void tell(const char *what)
{
	printf("\t%s\n", what);
}

static void tell_errno(void)
{
	tell(strerrorname_np(errno));
}

/* ---- looks ---- */

static const char *type_of(mode_t m)
{
	switch (m & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "link";
	}
	return "other";
}

static void tell_times(const struct stat *st)
{
	if (st->st_mtim.tv_sec > new_after)
		printf(" new");
	else
		printf(" %lld", (long long)st->st_mtim.tv_sec);
	printf(" %lu", (unsigned long)st->st_nlink);
}

static void tell_stat(int r, const struct stat *st)
{
	if (r < 0) {
		tell_errno();
		return;
	}
	printf("\t%s %o %u", type_of(st->st_mode), st->st_mode & 07777, st->st_uid);
	if (!S_ISDIR(st->st_mode))
		printf(" %lld", (long long)st->st_size);
	if (with_times && S_ISREG(st->st_mode))
		tell_times(st);
	putchar('\n');
}

static void op_stat(const char *p, const char *unused)
{
	struct stat st;

	(void)unused;
	tell_stat(stat(p, &st), &st);
}

static void op_lstat(const char *p, const char *unused)
{
	struct stat st;

	(void)unused;
	tell_stat(lstat(p, &st), &st);
}

/* As with a descriptor that is good for nothing else. */
static void op_path(const char *p, const char *unused)
{
	int fd = open(p, O_PATH | O_CLOEXEC);
	struct stat st;

	(void)unused;
	tell_stat(fd < 0 ? fd : fstat(fd, &st), &st);
	if (fd >= 0)
		close(fd);
}

static void op_access(const char *p, const char *unused)
{
	(void)unused;
	if (access(p, X_OK) < 0)
		tell_errno();
	else
		tell("can be run, or searched");
}

static void op_same(const char *a, const char *b)
{
	struct stat sa, sb;

	if (stat(a, &sa) < 0 || stat(b, &sb) < 0)
		tell_errno();
	else
		tell(sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino ? "same" : "another");
}

static ssize_t read_all(int fd, char *buf)
{
	ssize_t n = 0, r;

	while ((r = read(fd, buf + n, (size_t)(BYTES_MAX - n))) > 0)
		n += r;
	return r < 0 ? r : n;
}

/* Ends with a NUL. */
static ssize_t read_file(const char *p, char *buf)
{
	int fd = open(p, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? fd : read_all(fd, buf);

	if (n < 0)
		tell_errno();
	else
		buf[n] = '\0';
	if (fd >= 0)
		close(fd);
	return n;
}

static void op_read(const char *p, const char *unused)
{
	char buf[BYTES_MAX + 1];

	(void)unused;
	if (read_file(p, buf) >= 0)
		tell(buf);
}

static void op_map(const char *p, const char *unused)
{
	int fd = open(p, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *m;

	(void)unused;
	if (fd < 0 || fstat(fd, &st) < 0) {
		tell_errno();
		return;
	}
	m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (m == MAP_FAILED)
		tell_errno();
	else
		printf("\t%.*s\n", (int)st.st_size, m);
	close(fd);
}

/* By a descriptor of the directory. */
static void op_at(const char *in, const char *name)
{
	int dir = open(in, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
	char buf[BYTES_MAX + 1];
	ssize_t n = -1;

	if (dir >= 0)
		fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read_all(fd, buf);
	if (n < 0)
		tell_errno();
	else
		printf("\t%.*s\n", (int)n, buf);
	if (fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
}

/* As headers name each other. */
static void op_follow(const char *p, const char *unused)
{
	char buf[BYTES_MAX + 1], next[PATH_MAX];

	(void)unused;
	snprintf(next, sizeof(next), "%s", p);
	for (int i = 0; i < FOLLOW_MAX && read_file(next, buf) > 0; i++) {
		tell(buf);
		snprintf(next, sizeof(next), "%.*s", (int)strcspn(buf, "\n"), buf);
	}
}

static void op_readlink(const char *p, const char *unused)
{
	char buf[PATH_MAX];
	ssize_t n = readlink(p, buf, sizeof(buf) - 1);

	(void)unused;
	if (n < 0) {
		tell_errno();
		return;
	}
	buf[n] = '\0';
	tell(buf);
}

static void op_real(const char *p, const char *unused)
{
	char buf[PATH_MAX];

	(void)unused;
	if (realpath(p, buf))
		tell(buf);
	else
		tell_errno();
}

static void op_list(const char *p, const char *unused)
{
	struct dirent **v;
	int n = scandir(p, &v, NULL, alphasort);

	(void)unused;
	if (n < 0)
		tell_errno();
	for (int i = 0; i < n; i++) {
		printf("\t%s %u\n", v[i]->d_name, v[i]->d_type);
		free(v[i]);
	}
	if (n >= 0)
		free(v);
}

static void op_cd(const char *p, const char *unused)
{
	(void)unused;
	if (chdir(p) < 0)
		tell_errno();
}

static void op_env(const char *name, const char *unused)
{
	const char *value = getenv(name);

	(void)unused;
	tell(value ? value : "unset");
}

static void op_run(const char *p, const char *unused)
{
	int st = 0;
	pid_t pid;

	(void)unused;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		execl(p, p, (char *)NULL);
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (pid < 0 || waitpid(pid, &st, 0) < 0)
		tell_errno();
	printf("\tended with %x\n", (unsigned)st);
}

/* ---- effects ---- */

static void tell_done(int r)
{
	if (r < 0)
		tell_errno();
}

static void write_to(const char *p, int flags, const char *bytes)
{
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);

	tell_done(fd < 0 || write(fd, bytes, strlen(bytes)) < 0 ? -1 : 0);
	if (fd >= 0)
		close(fd);
}

static void op_put(const char *p, const char *bytes)
{
	write_to(p, O_TRUNC, bytes);
}

static void op_new(const char *p, const char *bytes)
{
	tell_done(unlink(p));
	write_to(p, O_EXCL, bytes);
}

static void op_add(const char *p, const char *bytes)
{
	write_to(p, O_APPEND, bytes);
}

static void op_copy(const char *from, const char *to)
{
	char buf[BYTES_MAX + 1];

	if (read_file(from, buf) >= 0)
		write_to(to, O_TRUNC, buf);
}

/* A directory of the client's can't be renamed in a job, which mv(1) expects. */
static void op_mv(const char *from, const char *to)
{
	struct stat st;

	if (lstat(from, &st) == 0 && S_ISDIR(st.st_mode))
		tell("a directory");
	else
		tell_done(rename(from, to));
}

/* Of files and symlinks, for the same reason. */
static void op_swap(const char *a, const char *b)
{
	struct stat sa, sb;

	if (lstat(a, &sa) < 0 || lstat(b, &sb) < 0)
		tell_errno();
	else if (S_ISDIR(sa.st_mode) || S_ISDIR(sb.st_mode))
		tell("a directory");
	else
		tell_done(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE));
}

/* A directory that is made elsewhere first, as installers do. */
static void op_tree(const char *p, const char *target)
{
	if (mkdir("made", 0777) < 0) {
		tell_errno();
		return;
	}
	write_to("made/f0", O_EXCL, "made");
	tell_done(symlink(target, "made/s0"));
	if (rename("made", p) < 0) {
		tell_errno();
		(void)unlink("made/f0");
		(void)unlink("made/s0");
		(void)rmdir("made");
	}
}

/* Whether the time of one that is so long is another one then depends on the file system. */
static void op_cut(const char *p, const char *n)
{
	struct stat st;

	if (stat(p, &st) == 0 && st.st_size == atoi(n))
		tell("it is so long");
	else
		tell_done(truncate(p, atoi(n)));
}

static void op_map_write(const char *p, const char *bytes)
{
	int fd = open(p, O_RDWR | O_CLOEXEC);
	size_t n = strlen(bytes);
	struct stat st;
	char *m = MAP_FAILED;

	if (fd < 0 || fstat(fd, &st) < 0)
		tell_errno();
	else if ((size_t)st.st_size >= n && n)
		m = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m != MAP_FAILED) {
		memcpy(m, bytes, n);
		(void)munmap(m, n);
	}
	if (fd >= 0)
		close(fd);
}

static void op_rm(const char *p, const char *unused)
{
	(void)unused;
	tell_done(unlink(p));
}

static void op_mkdir(const char *p, const char *unused)
{
	(void)unused;
	tell_done(mkdir(p, 0777));
}

static void op_rmdir(const char *p, const char *unused)
{
	(void)unused;
	tell_done(rmdir(p));
}

static void op_symlink(const char *target, const char *p)
{
	tell_done(symlink(target, p));
}

static void op_chmod(const char *p, const char *mode)
{
	tell_done(chmod(p, (mode_t)strtoul(mode, NULL, 8)));
}

static void op_touch(const char *p, const char *s)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = strtol(s, NULL, 10)}};

	tell_done(utimensat(AT_FDCWD, p, t, 0));
}

static void op_touch_open(const char *p, const char *s)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = strtol(s, NULL, 10)}};
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

	tell_done(fd < 0 ? fd : futimens(fd, t));
	if (fd >= 0)
		close(fd);
}

/* In a directory, by a descriptor of it. */
static void op_put_at(const char *in, const char *name)
{
	int dir = open(in, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;

	if (dir >= 0)
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	tell_done(fd < 0 || write(fd, name, strlen(name)) < 0 ? -1 : 0);
	if (fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
}

/* So many kilobytes, by what the environment says. */
static void op_big(const char *p, const char *n)
{
	const char *seed = getenv("MODEL");
	uint64_t x = strtoull(seed ? seed : "0", NULL, 10) * 2 + 1;
	FILE *f = fopen(p, "we");

	if (!f) {
		tell_errno();
		return;
	}
	for (int i = atoi(n) * 128; i > 0; i--) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		fwrite(&x, sizeof(x), 1, f);
	}
	fclose(f);
}

/* Lets others do something meanwhile. */
static void op_yield(const char *n, const char *unused)
{
	(void)unused;
	for (int i = atoi(n); i > 0; i--)
		(void)sched_yield();
}

static void op_exit(const char *n, const char *unused)
{
	(void)unused;
	status = atoi(n);
}

static void op_times(const char *after, const char *unused)
{
	(void)unused;
	with_times = true;
	if (*after)
		new_after = strtoll(after, NULL, 10);
}

static const struct op {
	const char *name;
	void (*run)(const char *, const char *);
} ops[] = {
	{"stat", op_stat},	 {"lstat", op_lstat},
	{"path", op_path},	 {"access", op_access},
	{"same", op_same},	 {"read", op_read},
	{"map", op_map},	 {"follow", op_follow},
	{"list", op_list},	 {"readlink", op_readlink},
	{"real", op_real},	 {"cd", op_cd},
	{"env", op_env},	 {"run", op_run},
	{"put", op_put},	 {"new", op_new},
	{"add", op_add},	 {"copy", op_copy},
	{"mv", op_mv},		 {"rm", op_rm},
	{"mkdir", op_mkdir},	 {"rmdir", op_rmdir},
	{"symlink", op_symlink}, {"chmod", op_chmod},
	{"touch", op_touch},	 {"times", op_times},
	{"exit", op_exit},	 {"at", op_at},
	{"put-at", op_put_at},	 {"touch-open", op_touch_open},
	{"swap", op_swap},	 {"tree", op_tree},
	{"cut", op_cut},	 {"map-write", op_map_write},
	{"yield", op_yield},	 {"big", op_big},
};

/* "NAME:ARGUMENT:ARGUMENT", which is cut into its parts. */
static void do_op(char *text)
{
	const char *name, *arg[2] = {"", ""};

	printf("%s\n", text);
	name = strsep(&text, ":");
	for (int i = 0; i < 2 && text; i++)
		arg[i] = strsep(&text, ":");
	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (strcmp(ops[i].name, name) == 0)
			ops[i].run(arg[0], arg[1]);
	fflush(stdout);
}

static void do_script(const char *p)
{
	char buf[BYTES_MAX + 1], *at = buf, *line;

	if (read_file(p, buf) < 0)
		exit(1);
	strsep(&at, "\n");
	while ((line = strsep(&at, "\n")))
		if (*line)
			do_op(line);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "-") == 0)
		do_script(argv[2]);
	else
		for (int i = 1; i < argc; i++)
			do_op(argv[i]);
	return status;
}
