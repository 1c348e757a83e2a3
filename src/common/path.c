/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

#define LINKS_MAX 40 /* as the kernel follows: MAXSYMLINKS */

char *path_join(const char *a, const char *b)
{
	size_t n = strlen(a);

	while (n > 0 && a[n - 1] == '/')
		n--;
	while (*b == '/')
		b++;
	return xasprintf("%.*s/%s", (int)n, a, b);
}

char *path_clean(const char *base, const char *path)
{
	_cleanup_free_ char *joined = *path == '/' ? xstrdup(path) : path_join(base, path);
	char *out = xmalloc(strlen(joined) + 2), *o = out, *save = NULL;

	*o = '\0';
	for (char *part = strtok_r(joined, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		if (streq(part, "."))
			continue;
		if (streq(part, "..")) {
			while (o > out && *--o != '/')
				;
			*o = '\0';
			continue;
		}
		*o++ = '/';
		o = stpcpy(o, part);
	}
	if (o == out)
		strcpy(out, "/");
	return out;
}

bool path_is_clean_relative(const char *path)
{
	const char *p = path;

	if (strlen(path) >= PATH_MAX)
		return false;
	for (;;) {
		size_t n = strcspn(p, "/");

		if (n == 0 || n > NAME_MAX || (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

bool path_is_clean(const char *path)
{
	return path[0] == '/' && (!path[1] || path_is_clean_relative(path + 1)) &&
	       strlen(path) < PATH_MAX;
}

const char *path_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (n == 1 && *dir == '/')
		return path + 1;
	if (strncmp(path, dir, n) != 0)
		return NULL;
	if (path[n] == '\0')
		return path + n;
	return path[n] == '/' ? path + n + 1 : NULL;
}

bool path_is_below(const char *path, const char *dir)
{
	return path_below(path, dir) != NULL;
}

const char *path_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *path_parent(const char *path)
{
	size_t n = (size_t)(path_base(path) - path);

	return n > 1 ? xstrndup(path, n - 1) : xstrdup("/");
}

/* How much of it is left without its last part. */
static size_t without_last(const char *path, size_t n)
{
	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n > 1 && path[n - 1] != '/')
		n--;
	return n;
}

/* The longest part of it that is there, by O_PATH; cuts it off.  -1: not even "/". */
static int open_what_is_there(const char *path, bool follow, size_t *ret_n)
{
	_cleanup_free_ char *at = xstrdup(path);
	int flags = O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW), fd;
	size_t n = strlen(at), less;

	while ((fd = open(at, flags)) < 0 && (less = without_last(at, n)) < n) {
		n = less;
		at[n] = '\0';
		flags = O_PATH | O_CLOEXEC;
	}
	*ret_n = n;
	return fd;
}

static char *place_of_fd(int fd)
{
	char link[32], place[PATH_MAX];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, place, sizeof(place));
	return n < 0 ? NULL : xstrndup(place, (size_t)n);
}

/* One symlink further: of what follows what is there, the first part is one, which leads nowhere.
 */
static char *past_link(int fd, const char *place, const char *rest, bool follow)
{
	size_t n = strcspn(rest, "/");
	_cleanup_free_ char *name = xstrndup(rest, n);
	char target[PATH_MAX];
	ssize_t len = n && (follow || rest[n]) ? readlinkat(fd, name, target, sizeof(target)) : -1;

	if (len < 0)
		return NULL;
	return xasprintf("%s/%.*s%s", *target == '/' ? "" : place, (int)len, target, rest + n);
}

char *path_way(const char *path, bool follow)
{
	return path_way_missing(path, follow, NULL);
}

char *path_way_missing(const char *path, bool follow, size_t *ret_n)
{
	_cleanup_free_ char *at = xstrdup(path);

	if (ret_n)
		*ret_n = 0;
	for (unsigned n_links = 0; n_links < LINKS_MAX; n_links++) {
		size_t n;
		_cleanup_close_ int fd = open_what_is_there(at, follow, &n);
		_cleanup_free_ char *place = fd < 0 ? NULL : place_of_fd(fd);
		char *next;

		if (!place)
			return NULL;
		next = past_link(fd, place, at + n, follow);
		if (!next && ret_n && !n_links && at[n])
			*ret_n = n + strcspn(at + n, "/");
		if (!next)
			return at[n] ? xasprintf("%s/%s", place, at + n) : steal_ptr(&place);
		free(at);
		at = next;
	}
	errno = ELOOP;
	return NULL;
}

bool path_is_mark(const char *path)
{
	_cleanup_free_ char *dir = path_parent(path);
	struct stat st, around;

	if (access(path, F_OK) < 0)
		return false;
	if (str_ends(path, "/.git/HEAD"))
		return path_is_mark(dir);
	if (lstat(path, &st) < 0 || stat(dir, &around) < 0)
		return false;
	if (around.st_mode & S_ISVTX && around.st_mode & S_IWOTH)
		return false;
	return st.st_uid == geteuid() || st.st_uid == 0 || st.st_uid == around.st_uid;
}

int path_mkdirs(const char *path, mode_t mode)
{
	_cleanup_free_ char *copy = xstrdup(path);

	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			return -errno;
		*p = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

static int check_private_dir(int fd, const char *path, struct errmsg *msg)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return errmsg_set(msg, -errno, "%s: %s", path, err_text(-errno));
	if (st.st_uid != geteuid())
		return errmsg_set(
			msg, CONCC_E_UNSAFE,
			"%s belongs to uid %u, not to you (uid %u): somebody else made it; "
			"remove it or set CONCC_RUNTIME_DIR to a directory of yours",
			path, st.st_uid, geteuid());
	if (st.st_mode & 077)
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "%s is open to other users (mode %04o): run `chmod 700 %s`", path,
				  st.st_mode & 07777, path);
	return 0;
}

int runtime_dir_open(char **ret_path, int *ret_fd, struct errmsg *msg)
{
	const char *set = getenv("CONCC_RUNTIME_DIR");
	_cleanup_free_ char *path = set && *set ? path_clean("/", set)
						: xasprintf("/tmp/concc-%u", geteuid());
	_cleanup_close_ int fd = -1;
	int r;

	/* Each caller's would be another one. */
	if (set && *set && *set != '/')
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "CONCC_RUNTIME_DIR is %s; set it to an absolute path", set);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return errmsg_set(msg, -errno, "can't make %s: %s", path, err_text(-errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
		return errmsg_set(
			msg, CONCC_E_UNSAFE,
			"%s is a symbolic link or no directory: somebody else made it; remove "
			"it or set CONCC_RUNTIME_DIR to a directory of yours",
			path);
	if (fd < 0)
		return errmsg_set(msg, -errno, "can't open %s: %s", path, err_text(-errno));
	r = check_private_dir(fd, path, msg);
	if (r < 0)
		return r;
	if (ret_fd)
		*ret_fd = steal_fd(&fd);
	*ret_path = steal_ptr(&path);
	return 0;
}
