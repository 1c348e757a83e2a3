/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_PRINTOPS_H
#define CONCC_TEST_PRINTOPS_H

/*
 * What a job does that prints while it works, as lines of text: one operation
 * on files each, done beneath the current directory, and what it returned.
 * Nothing that is printed depends on the clock, on inode numbers, on the number
 * of names of a directory or on the order in which it is read, so the same
 * lines say the same wherever they run.
 *
 * Names that begin with "x" are somebody else's: no operation tells of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fslook.h"

#define WORDS_MAX  8
#define LINE_MAX_  1024 /* of a script */
#define CONTENT	   400000
#define SLOTS	   2
#define ANY	   (O_CLOEXEC | O_NONBLOCK) /* may be a fifo */
#define LOOK_FLAGS (LOOK_OLD_TIME | LOOK_MINE)

/* ---- what is said ---- */

static FILE *results; /* not yet printed */
static char *results_text;
static size_t results_len;

static void write_out(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);

		if (k < 0)
			_exit(98);
		p += k;
		n -= (size_t)k;
	}
}

static void flush_results(void)
{
	if (!results)
		return;
	fclose(results);
	write_out(1, results_text, results_len);
	free(results_text);
	results = NULL;
}

static FILE *result_file(void)
{
	if (!results)
		results = open_memstream(&results_text, &results_len);
	return results;
}

/* ---- contents ---- */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 20;
}

static const char *content(const char *len, const char *seed)
{
	static char b[CONTENT + 1];
	uint64_t s = strtoull(seed, NULL, 10) * 0x9E3779B97F4A7C15u + 1;
	size_t n = strtoul(len, NULL, 10);

	for (size_t i = 0; i < n; i++)
		b[i] = (char)('a' + next_random(&s) % 26);
	if (n)
		b[n - 1] = '\n';
	return b;
}

static long put_bytes(int fd, char **w)
{
	size_t n = strtoul(w[0], NULL, 10);
	long r;

	if (fd < 0)
		return -1;
	r = write(fd, content(w[0], w[1]), n);
	if (close(fd) < 0)
		return -1;
	return r;
}

/* ---- operations: w[0] is the name, w[1] and on its arguments ---- */

static int slots[SLOTS] = {-1, -1};

static mode_t octal(const char *w)
{
	return (mode_t)strtoul(w, NULL, 8);
}

static long op_say(char **w)
{
	size_t n = strtoul(w[2], NULL, 10);

	flush_results();
	write_out(atoi(w[1]), content(w[2], w[3]), n);
	return 0;
}

static long op_flush(char **w)
{
	(void)w;
	flush_results();
	return 0;
}

/* Says so and goes on when whoever reads that has answered. */
static long op_sync(char **w)
{
	char line[32], c = 0;

	flush_results();
	snprintf(line, sizeof(line), "sync %s\n", w[1]);
	write_out(1, line, strlen(line));
	while (c != '\n' && read(0, &c, 1) > 0)
		;
	return 0;
}

static long op_mkdir(char **w)
{
	return mkdir(w[1], octal(w[2]));
}

static long op_rmdir(char **w)
{
	return rmdir(w[1]);
}

static long op_unlink(char **w)
{
	return unlink(w[1]);
}

static long op_symlink(char **w)
{
	return symlink(w[1], w[2]);
}

static long op_link(char **w)
{
	return link(w[1], w[2]);
}

static long op_rename(char **w)
{
	return rename(w[1], w[2]);
}

static long op_noreplace(char **w)
{
	return renameat2(AT_FDCWD, w[1], AT_FDCWD, w[2], RENAME_NOREPLACE);
}

static long op_exchange(char **w)
{
	return renameat2(AT_FDCWD, w[1], AT_FDCWD, w[2], RENAME_EXCHANGE);
}

static bool is_full_dir(const char *p)
{
	char **v = look_names(p, 0);
	bool full = v && *v;

	look_free(v);
	return full;
}

/* Where rename(2) of a directory is refused (EXDEV), as between file systems, mv(1) copies it. */
static long op_move(char **w)
{
	int st;
	pid_t pid;

	if (rename(w[1], w[2]) == 0)
		return 0;
	if (errno != EXDEV)
		return -1;
	if (is_full_dir(w[2])) {
		errno = ENOTEMPTY;
		return -1;
	}
	pid = fork();
	if (pid == 0) {
		execlp("mv", "mv", "-T", w[1], w[2], (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &st, 0) < 0)
		return -1;
	errno = ECHILD;
	return st ? -1 : 0;
}

static long op_write(char **w)
{
	return put_bytes(open(w[1], O_WRONLY | O_CREAT | O_TRUNC | ANY, 0666), w + 2);
}

static long op_excl(char **w)
{
	return put_bytes(open(w[1], O_WRONLY | O_CREAT | O_EXCL | ANY, 0666), w + 2);
}

static long op_append(char **w)
{
	return put_bytes(open(w[1], O_WRONLY | O_APPEND | O_CREAT | ANY, 0666), w + 2);
}

/* In the middle of what is there. */
static long op_patch(char **w)
{
	int fd = open(w[1], O_RDWR | ANY);

	if (fd >= 0 && lseek(fd, atol(w[4]), SEEK_SET) < 0)
		return -1;
	return put_bytes(fd, w + 2);
}

static long op_truncate(char **w)
{
	return truncate(w[1], atol(w[2]));
}

static long op_replace(char **w)
{
	char tmp[LINE_MAX_];
	long r;

	snprintf(tmp, sizeof(tmp), "%s.tmp", w[1]);
	r = put_bytes(open(tmp, O_WRONLY | O_CREAT | O_TRUNC | ANY, 0666), w + 2);
	if (r < 0)
		return -1;
	if (rename(tmp, w[1]) < 0) {
		int err = errno;

		unlink(tmp);
		errno = err;
		return -1;
	}
	return r;
}

static long op_copy(char **w)
{
	static char b[CONTENT * 4];
	int from = open(w[1], O_RDONLY | ANY), to;
	ssize_t n = from < 0 ? -1 : read(from, b, sizeof(b));
	int err = errno;

	if (from >= 0)
		close(from);
	errno = err;
	to = n < 0 ? -1 : open(w[2], O_WRONLY | O_CREAT | O_TRUNC | ANY, 0666);
	if (to < 0)
		return -1;
	if (write(to, b, (size_t)n) != n)
		n = -1;
	close(to);
	return n;
}

static long op_chmod(char **w)
{
	return chmod(w[1], octal(w[2]));
}

static long op_settime(char **w)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
				{.tv_sec = atol(w[2]), .tv_nsec = atol(w[3])}};

	return utimensat(AT_FDCWD, w[1], t, AT_SYMLINK_NOFOLLOW);
}

/* As cp -p and touch -r do. */
static long op_astime(char **w)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}};
	struct stat st;

	if (lstat(w[2], &st) < 0)
		return -1;
	t[1] = st.st_mtim;
	return utimensat(AT_FDCWD, w[1], t, AT_SYMLINK_NOFOLLOW);
}

static long op_now(char **w)
{
	return utimensat(AT_FDCWD, w[1], NULL, AT_SYMLINK_NOFOLLOW);
}

static long op_fifo(char **w)
{
	return mkfifo(w[1], octal(w[2]));
}

static long op_open(char **w)
{
	int i = atoi(w[1]);

	if (slots[i] >= 0)
		close(slots[i]);
	slots[i] = open(w[2], O_WRONLY | O_APPEND | O_CREAT | ANY, 0666);
	return slots[i] < 0 ? -1 : 0;
}

static long op_into(char **w)
{
	return write(slots[atoi(w[1])], content(w[2], w[3]), strtoul(w[2], NULL, 10));
}

static long op_close(char **w)
{
	int i = atoi(w[1]), fd = slots[i];

	slots[i] = -1;
	return close(fd);
}

static long op_list(char **w)
{
	look_list(result_file(), w[1], LOOK_FLAGS);
	return 0;
}

static long op_look(char **w)
{
	look_at_path(result_file(), w[1], LOOK_FLAGS);
	return 0;
}

static long op_links(char **w)
{
	struct stat st;

	return lstat(w[1], &st) < 0 ? -1 : (long)st.st_nlink;
}

static long op_same(char **w)
{
	struct stat a, b;

	if (stat(w[1], &a) < 0 || stat(w[2], &b) < 0)
		return -1;
	return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* All that is beneath, with all there is to know of it. */
static long op_walk(char **w)
{
	look_walk(result_file(), w[1], LOOK_FLAGS);
	return 0;
}

static void tell_names(const char *dir)
{
	char **v = look_names(dir, LOOK_MINE | LOOK_TYPES), child[PATH_MAX];

	for (char **n = v; n && *n; n++) {
		char *type = strrchr(*n, '/');

		fprintf(result_file(), "%s/%s ", dir, *n);
		snprintf(child, sizeof(child), "%s/%.*s", dir, (int)(type - *n), *n);
		if (atoi(type + 1) == 4) /* DT_DIR */
			tell_names(child);
	}
	look_free(v);
}

static long op_names(char **w)
{
	tell_names(w[1]);
	return 0;
}

/* As rm -r: in order of the names, and on after an error. */
static long remove_all(const char *p)
{
	char **v, child[PATH_MAX];
	struct stat st;
	long failed = 0;

	if (lstat(p, &st) < 0 || !S_ISDIR(st.st_mode))
		return unlink(p) < 0;
	v = look_names(p, 0);
	for (char **n = v; n && *n; n++) {
		snprintf(child, sizeof(child), "%s/%s", p, *n);
		failed += remove_all(child);
	}
	look_free(v);
	return failed + (rmdir(p) < 0);
}

static long op_rmtree(char **w)
{
	return remove_all(w[1]);
}

/* A new directory with as many files as LEN, and one more directory in it. */
static long op_mktree(char **w)
{
	char p[PATH_MAX], len[] = "30", *put[] = {len, w[3]};

	if (mkdir(w[1], 0777) < 0)
		return -1;
	for (int i = 0; i < atoi(w[2]); i++) {
		snprintf(p, sizeof(p), "%s/f%d", w[1], i);
		if (put_bytes(open(p, O_WRONLY | O_CREAT | O_EXCL | ANY, 0666), put) < 0)
			return -1;
	}
	snprintf(p, sizeof(p), "%s/t0", w[1]);
	return mkdir(p, 0777);
}

/* The same by a name that is relative to a directory which is the current one for a while. */
static long op_within(char **w)
{
	int top = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long r = chdir(w[1]);

	if (r == 0) {
		look_list(result_file(), ".", LOOK_FLAGS);
		look_at_path(result_file(), w[2], LOOK_FLAGS);
		if (fchdir(top) < 0)
			_exit(97);
	}
	close(top);
	return r;
}

static long op_exit(char **w)
{
	flush_results();
	exit(atoi(w[1]));
}

static long op_die(char **w)
{
	flush_results();
	signal(atoi(w[1]), SIG_DFL);
	raise(atoi(w[1]));
	return -1;
}

static const struct {
	const char *name;
	int n_args;
	long (*fn)(char **w);
} operations[] = {
	{"say", 3, op_say},	      {"flush", 0, op_flush},
	{"sync", 1, op_sync},	      {"mkdir", 2, op_mkdir},
	{"rmdir", 1, op_rmdir},	      {"unlink", 1, op_unlink},
	{"symlink", 2, op_symlink},   {"link", 2, op_link},
	{"rename", 2, op_rename},     {"noreplace", 2, op_noreplace},
	{"exchange", 2, op_exchange}, {"move", 2, op_move},
	{"write", 3, op_write},	      {"excl", 3, op_excl},
	{"append", 3, op_append},     {"patch", 4, op_patch},
	{"truncate", 2, op_truncate}, {"replace", 3, op_replace},
	{"copy", 2, op_copy},	      {"chmod", 2, op_chmod},
	{"settime", 3, op_settime},   {"astime", 2, op_astime},
	{"now", 1, op_now},	      {"fifo", 2, op_fifo},
	{"open", 2, op_open},	      {"into", 3, op_into},
	{"close", 1, op_close},	      {"list", 1, op_list},
	{"look", 1, op_look},	      {"links", 1, op_links},
	{"same", 2, op_same},	      {"walk", 1, op_walk},
	{"names", 1, op_names},	      {"rmtree", 1, op_rmtree},
	{"mktree", 3, op_mktree},     {"within", 2, op_within},
	{"exit", 1, op_exit},	      {"die", 1, op_die},
};

/* Quiet ones are about printing itself. */
static bool is_quiet(const char *name)
{
	return strcmp(name, "say") == 0 || strcmp(name, "flush") == 0 || strcmp(name, "sync") == 0;
}

/* Does what a line says.  Ends the process when there is no such operation. */
static long operate(const char *line)
{
	char copy[LINE_MAX_], *w[WORDS_MAX] = {0}, *save;
	size_t n = 0;
	long r;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *p = strtok_r(copy, " \n", &save); p && n < WORDS_MAX;
	     p = strtok_r(NULL, " \n", &save))
		w[n++] = p;
	for (size_t i = 0; n && i < sizeof(operations) / sizeof(*operations); i++) {
		if (strcmp(operations[i].name, w[0]) != 0 || (int)n != operations[i].n_args + 1)
			continue;
		errno = 0;
		r = operations[i].fn(w);
		if (is_quiet(w[0]))
			return r;
		fprintf(result_file(), "%.*s: ", (int)strcspn(line, "\n"), line);
		if (r < 0)
			fprintf(result_file(), "%s\n", strerrorname_np(errno));
		else
			fprintf(result_file(), "%ld\n", r);
		return r;
	}
	fprintf(stderr, "printing: no operation: %s\n", line);
	exit(2);
}

/* root of the client has powers which a job's has not. */
static void drop_powers(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};

	if (syscall(SYS_capset, &h, d) < 0)
		_exit(96);
}

#endif
