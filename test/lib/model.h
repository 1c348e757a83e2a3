/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_MODEL_H
#define CONCC_TEST_MODEL_H

/*
 * What programs share that run the same commands twice, through concc in a directory DIR and
 * without it on a copy that another process has at the same path, and compare what each tells.
 * Whatever fails ends the program.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIDE_MAX (4 * 1024 * 1024)
#define N_OF(a)	 (sizeof(a) / sizeof(*(a)))

/* What a side tells of a step. */
struct side {
	size_t n;
	char text[SIDE_MAX];
	size_t before;	 /* bytes of text: the state in which the command began */
	bool done_again; /* by what concc said */
	int status;
};

/* [0]: without concc, [1]: with it; both processes see them. */
static struct side *side[2];

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

/* On the heap. */
__attribute__((format(printf, 1, 2))) static inline char *text(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	va_end(ap);
	return s;
}

__attribute__((format(printf, 2, 3))) static inline void tell(struct side *s, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(s->text + s->n, SIDE_MAX - s->n, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= SIDE_MAX - s->n)
		fail("too much was told");
	s->n += (size_t)n;
}

static inline uint64_t hash_of(const char *p, size_t n, uint64_t h)
{
	while (n--)
		h = (h ^ (uint8_t)*p++) * UINT64_C(1099511628211);
	return h;
}

/* Of the file's bytes, and how many names it has. */
static inline void tell_file(struct side *s, const char *p, const struct stat *st)
{
	static char buf[65536];
	int fd = open(p, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? fd : read(fd, buf, sizeof(buf));

	if (n < 0)
		fail(p);
	close(fd);
	tell(s, " %lu", (unsigned long)st->st_nlink);
	if (n >= 200 || memchr(buf, '\0', (size_t)n))
		tell(s, " %zd bytes, %llx", n, (unsigned long long)hash_of(buf, (size_t)n, 1));
	else
		tell(s, " \"%.*s\"", (int)n, buf);
}

static inline void tell_link(struct side *s, const char *p)
{
	char buf[4096];
	ssize_t n = readlink(p, buf, sizeof(buf));

	if (n < 0)
		fail(p);
	tell(s, " -> %.*s", (int)n, buf);
}

/* All that is beneath p; of the time of each, what tell_time says. */
static inline void tell_tree(struct side *s, const char *p,
			     void (*tell_time)(struct side *s, const struct stat *st))
{
	struct dirent **v;
	int n = scandir(p, &v, NULL, alphasort);

	if (n < 0)
		fail(p);
	for (int i = 0; i < n; i++) {
		char *sub = text("%s/%s", p, v[i]->d_name);
		bool dots = strcmp(v[i]->d_name, ".") == 0 || strcmp(v[i]->d_name, "..") == 0;
		struct stat st;

		if (!dots && lstat(sub, &st) < 0)
			fail(sub);
		if (!dots) {
			tell(s, "%s %o", sub, st.st_mode);
			if (S_ISREG(st.st_mode))
				tell_file(s, sub, &st);
			if (S_ISLNK(st.st_mode))
				tell_link(s, sub);
			tell_time(s, &st);
			tell(s, "\n");
		}
		if (!dots && S_ISDIR(st.st_mode))
			tell_tree(s, sub, tell_time);
		free(sub);
		free(v[i]);
	}
	free(v);
}

/* All that the command says, until it ends. */
static inline void tell_output(struct side *s, int fd)
{
	ssize_t n;

	while ((n = read(fd, s->text + s->n, SIDE_MAX - 1 - s->n)) > 0)
		s->n += (size_t)n;
	if (n < 0 || s->n == SIDE_MAX - 1)
		fail("the command's output");
	close(fd);
}

/* The lines that are ours, of a job that was done again, or here. */
static inline void cut_our_words(struct side *s, size_t from)
{
	static const char us[] = "concc: ";
	char *at = s->text + from, *end;

	s->text[s->n] = '\0';
	for (; *at; at = end) {
		end = at + strcspn(at, "\n");
		end += *end != '\0';
		if (strncmp(at, us, sizeof(us) - 1) != 0)
			continue;
		memmove(at, end, strlen(end) + 1);
		s->done_again = true;
		end = at;
	}
	s->n = (size_t)(at - s->text);
}

/* What concc said of the place, which is taken away; "" when it ran here without having been tried.
 */
static inline void take_explanation(const char *path, char *buf, size_t n)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ssize_t r = fd < 0 ? fd : read(fd, buf, n - 1);

	if (r < 0 || ftruncate(fd, 0) < 0)
		fail(path);
	close(fd);
	buf[r] = '\0';
}

static inline bool sides_differ(void)
{
	side[0]->text[side[0]->n] = side[1]->text[side[1]->n] = '\0';
	return side[0]->status != side[1]->status || side[0]->n != side[1]->n ||
	       memcmp(side[0]->text, side[1]->text, side[0]->n) != 0;
}

/* From the line in which they do. */
static inline const char *first_difference(int which)
{
	size_t i = 0, line = 0;

	while (side[0]->text[i] && side[0]->text[i] == side[1]->text[i])
		line = side[0]->text[i++] == '\n' ? i : line;
	return side[which]->text + line;
}

static inline void remove_tree(const char *p)
{
	struct dirent *e;
	DIR *d;

	if (unlink(p) == 0 || errno != EISDIR)
		return;
	d = opendir(p);
	while (d && (e = readdir(d))) {
		char *sub = text("%s/%s", p, e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_tree(sub);
		free(sub);
	}
	if (d)
		closedir(d);
	(void)rmdir(p);
}

/* In seconds. */
static inline void set_time(const char *p, time_t s)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = s}};

	(void)utimensat(AT_FDCWD, p, t, AT_SYMLINK_NOFOLLOW);
}

/* Memory that processes share. */
static inline void *shared(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static inline void share_sides(void)
{
	side[0] = shared(sizeof(**side));
	side[1] = shared(sizeof(**side));
}

static inline void enter_tree(const char *dir)
{
	if (chdir(dir) < 0 || chdir("t") < 0)
		fail(dir);
}

/* This process has other at dir from now on. */
static inline void become_other(const char *other, const char *dir)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(other, dir, NULL, MS_BIND, NULL) < 0)
		fail(other);
	enter_tree(dir);
}

#endif
