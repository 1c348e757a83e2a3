/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_FSLOOK_H
#define CONCC_TEST_FSLOOK_H

/*
 * Tells all there is to know about a path, as text: what lstat, stat, access,
 * open and read, readlink, readdir and execve say of it.  The same on a client
 * and in a job, where all is right.
 *
 * Not told: inode numbers, number of links, ctime and atime; of directories
 * neither sizes nor, unless asked for, times.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum look_flags {
	LOOK_NO_TIME = 1 << 0,	/* no file's mtime */
	LOOK_OLD_TIME = 1 << 1, /* only what can't be a clock's: older than LOOK_OLD */
	LOOK_DIR_TIME = 1 << 2, /* directories' too */
	LOOK_EXEC = 1 << 3,	/* scripts are run */
	LOOK_SFTP = 1 << 4,	/* what SFTP can tell: whole seconds, and not who may */
	LOOK_MINE = 1 << 5,	/* in no listing: names that begin with "x" */
	LOOK_TYPES = 1 << 6,	/* of look_names(): NAME/TYPE */
};
#define LOOK_OLD 1700000000

static inline uint64_t look_hash(uint64_t h, const void *p, size_t n)
{
	for (const uint8_t *b = p; n--; b++)
		h = (h ^ *b) * 1099511628211u;
	return h;
}

static inline void look_stat(FILE *f, const struct stat *st, unsigned flags)
{
	bool dir = S_ISDIR(st->st_mode);
	bool timed = !(flags & LOOK_NO_TIME) && (!dir || flags & LOOK_DIR_TIME) &&
		     (!(flags & LOOK_OLD_TIME) || st->st_mtim.tv_sec < LOOK_OLD);

	fprintf(f, "%06o", st->st_mode);
	if (!dir)
		fprintf(f, " %lld", (long long)st->st_size);
	if (timed)
		fprintf(f, " %lld.%09ld", (long long)st->st_mtim.tv_sec,
			flags & LOOK_SFTP ? 0 : st->st_mtim.tv_nsec);
}

static inline void look_read(FILE *f, const char *p, unsigned flags)
{
	int fd = open(p, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	uint64_t h = 14695981039346656037u, size = 0;
	char b[16384], first[2] = "";
	ssize_t n;

	(void)flags;
	if (fd < 0) {
		fprintf(f, " read=%d", errno);
		return;
	}
	while ((n = read(fd, b, sizeof(b))) > 0) {
		if (!size)
			memcpy(first, b, n > 1 ? 2 : 1);
		h = look_hash(h, b, (size_t)n);
		size += (uint64_t)n;
	}
	if (n < 0)
		fprintf(f, " read=%d", errno);
	else
		fprintf(f, " read=%llu:%016llx", (unsigned long long)size, (unsigned long long)h);
	close(fd);
	if (flags & LOOK_EXEC && memcmp(first, "#!", 2) == 0 && access(p, X_OK) == 0) {
		char cmd[600];
		FILE *out;

		snprintf(cmd, sizeof(cmd), "./%s", p);
		fflush(f);
		out = popen(cmd, "r");
		n = out ? (ssize_t)fread(b, 1, 64, out) : 0;
		b[n] = '\0';
		fprintf(f, " ran=%.*s", (int)strcspn(b, "\n"), b);
		if (out)
			fprintf(f, ":%d", WEXITSTATUS(pclose(out)));
	}
}

static inline int look_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted names, NULL-ended; NULL when p can't be read. */
static inline char **look_names(const char *p, unsigned flags)
{
	DIR *d = opendir(p);
	struct dirent *e;
	char **v = NULL;
	size_t n = 0;

	if (!d)
		return NULL;
	v = calloc(1, sizeof(*v));
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    (flags & LOOK_MINE && e->d_name[0] == 'x'))
			continue;
		v = realloc(v, (n + 2) * sizeof(*v));
		if (asprintf(&v[n], flags & LOOK_TYPES ? "%s/%d" : "%s", e->d_name, e->d_type) < 0)
			abort();
		v[++n] = NULL;
	}
	closedir(d);
	qsort(v, n, sizeof(*v), look_compare);
	return v;
}

static inline void look_free(char **v)
{
	for (char **n = v; v && *n; n++)
		free(*n);
	free(v);
}

static inline void look_list(FILE *f, const char *p, unsigned flags)
{
	char **v = look_names(p, flags | LOOK_TYPES);

	if (!v) {
		fprintf(f, " list=%d", errno);
		return;
	}
	fprintf(f, " list=");
	for (char **n = v; *n; n++)
		fprintf(f, "%s,", *n);
	look_free(v);
}

/* One line. */
static inline void look_at_path(FILE *f, const char *p, unsigned flags)
{
	char target[4096];
	struct stat st;
	ssize_t n;

	fprintf(f, "%s", p);
	if (lstat(p, &st) < 0)
		fprintf(f, " lstat=%d", errno);
	else
		fputc(' ', f), look_stat(f, &st, flags);
	n = readlink(p, target, sizeof(target));
	if (n < 0)
		fprintf(f, " link=%d", errno);
	else
		fprintf(f, " link=%.*s", (int)n, target);
	if (stat(p, &st) < 0) {
		fprintf(f, " stat=%d access=%d%d%d read=%d", errno, access(p, F_OK) ? errno : 0,
			access(p, R_OK) ? errno : 0, access(p, X_OK) ? errno : 0,
			open(p, O_RDONLY | O_NONBLOCK | O_CLOEXEC) < 0 ? errno : 0);
	} else {
		fprintf(f, " stat=");
		look_stat(f, &st, flags);
		if (!(flags & LOOK_SFTP))
			fprintf(f, " access=%d%d%d", access(p, F_OK) ? errno : 0,
				access(p, R_OK) ? errno : 0, access(p, X_OK) ? errno : 0);
		if (S_ISREG(st.st_mode))
			look_read(f, p, flags);
		else if (S_ISDIR(st.st_mode))
			look_list(f, p, flags);
	}
	fputc('\n', f);
}

/* p and all beneath it, by readdir; symlinks are not followed. */
static inline void look_walk(FILE *f, const char *p, unsigned flags)
{
	struct stat st;
	char **v;

	look_at_path(f, p, flags);
	if (lstat(p, &st) < 0 || !S_ISDIR(st.st_mode))
		return;
	v = look_names(p, flags & LOOK_MINE);
	for (char **n = v; v && *n; n++) {
		char *child;

		if (asprintf(&child, "%s/%s", p, *n) < 0)
			abort();
		look_walk(f, child, flags);
		free(child);
	}
	look_free(v);
}

#endif
