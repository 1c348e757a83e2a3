/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "moves.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "asker.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/sandbox.h"
#include "concc/str.h"
#include "trace_calls.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

#define NONE -1

/* Which arguments say what: NONE for a directory is the current one, for flags 0. */
static const struct call {
	int nr;
	bool links;
	int from_dir, from, to_dir, to, flags;
} calls[] = {
#ifdef SYS_link
	{SYS_link, true, NONE, 0, NONE, 1, NONE}, {SYS_rename, false, NONE, 0, NONE, 1, NONE},
#endif
#ifdef SYS_renameat
	{SYS_renameat, false, 0, 1, 2, 3, NONE},
#endif
	{SYS_linkat, true, 0, 1, 2, 3, 4},	  {SYS_renameat2, false, 0, 1, 2, 3, 4},
};

/* ---- what a process names ---- */

/* A name of /proc, by which we find what the process does; ret has room for PATH_MAX more. */
static void path_for(pid_t pid, int dir, const char *name, char *ret, size_t size)
{
	static const char *const selves[] = {"/proc/self/", "/proc/thread-self/"};

	for (size_t i = 0; i < N_OF(selves); i++) {
		if (str_starts(name, selves[i])) {
			(void)snprintf(ret, size, "/proc/%d/%s", pid, name + strlen(selves[i]));
			return;
		}
	}
	if (*name == '/')
		(void)snprintf(ret, size, "/proc/%d/root%s", pid, name);
	else if (dir == AT_FDCWD)
		(void)snprintf(ret, size, "/proc/%d/cwd/%s", pid, name);
	else
		(void)snprintf(ret, size, "/proc/%d/fd/%d%s%s", pid, dir, *name ? "/" : "", name);
}

static int dir_of(const struct filter_call *c, int arg)
{
	return arg == NONE ? AT_FDCWD : (int)c->args[arg];
}

/* O_PATH; or -errno. */
static int open_path(pid_t pid, int dir, const char *name, bool follow)
{
	char path[PATH_MAX + 64];
	int fd;

	path_for(pid, dir, name, path, sizeof(path));
	/* An empty one is a link of /proc's. */
	fd = open(path, O_PATH | O_CLOEXEC | (follow || !*name ? 0 : O_NOFOLLOW));
	return fd < 0 ? -errno : fd;
}

static int open_named(const struct filter_call *c, int dir_arg, const char *name, bool follow)
{
	return open_path(c->pid, dir_of(c, dir_arg), name, follow);
}

/* The directory that the last part of name is in. */
static int open_parent(const struct filter_call *c, int dir_arg, char *name)
{
	char *end = name + strlen(name);

	while (end > name && end[-1] == '/')
		end--;
	while (end > name && end[-1] != '/')
		end--;
	*end = '\0';
	return open_named(c, dir_arg, *name ? name : ".", true);
}

/* ---- where that is ---- */

#define ELSEWHERE SIZE_MAX /* in no workspace */

struct place {
	size_t workspace; /* index, or ELSEWHERE */
	bool is_apart;	  /* what is no file system of the client's, but /tmp, which may be */
	char path[PATH_MAX];
	const char *rel; /* within the workspace */
};

/* The innermost. */
static size_t workspace_of(const struct moves *m, const char *path)
{
	size_t found = ELSEWHERE;

	for (size_t i = 0; i < m->n; i++)
		if (path_is_below(path, m->workspaces[i]) &&
		    (found == ELSEWHERE || strlen(m->workspaces[i]) > strlen(m->workspaces[found])))
			found = i;
	return found;
}

static bool is_apart(const char *path)
{
	static const char *const dirs[] = {"/tmp", "/var/tmp", "/proc", "/dev", "/sys"};

	for (size_t i = 0; i < N_OF(dirs); i++)
		if (path_is_below(path, dirs[i]))
			return true;
	return false;
}

static bool find_place(const struct moves *m, int fd, struct place *ret)
{
	char link[32];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret->path, sizeof(ret->path) - 1);
	if (n <= 0 || *ret->path != '/')
		return false;
	ret->path[n] = '\0';
	ret->workspace = workspace_of(m, ret->path);
	if (ret->workspace != ELSEWHERE)
		ret->rel = path_below(ret->path, m->workspaces[ret->workspace]);
	ret->is_apart = ret->workspace == ELSEWHERE && is_apart(ret->path);
	return true;
}

/* Has the job made the file, or the last name of a symlink and its like? */
static bool made_file(const struct moves *m, const struct place *p)
{
	int upper = m->uppers[p->workspace];
	_cleanup_close_ int fd = openat_beneath(upper, p->rel, O_RDONLY | O_NONBLOCK);
	_cleanup_close_ int name = -1;

	if (fd >= 0)
		return !overlay_is_copied_up(fd);
	/* What can't be opened so is no file, but is it there? */
	name = openat_beneath(upper, p->rel, O_PATH);
	return name >= 0 && fd != -EACCES;
}

static bool is_in_mirror(const struct moves *m, const struct place *p)
{
	struct stat st;

	return fstatat(m->mirror, p->path + 1, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

/* Is nothing of the lower layer in it, nor was? */
static bool made_directory(const struct moves *m, const struct place *p)
{
	int upper = m->uppers[p->workspace];
	_cleanup_free_ char *at = xstrdup(p->rel);

	for (size_t len = strlen(at);; len--) {
		_cleanup_close_ int fd = -1;

		at[len] = '\0';
		fd = openat_beneath(upper, at, O_RDONLY | O_DIRECTORY);
		if (fd < 0)
			return false;
		if (len && overlay_is_opaque(fd) > 0)
			return true;
		while (len && at[len - 1] != '/')
			len--;
		if (!len)
			break;
	}
	return !is_in_mirror(m, p);
}

static bool is_the_jobs(const struct moves *m, const struct place *p, const struct stat *st,
			bool links)
{
	if (S_ISDIR(st->st_mode))
		return links || made_directory(m, p); /* no link is made to one */
	/* Without a name: of O_TMPFILE. */
	return !links || st->st_nlink == 0 || made_file(m, p);
}

/* ---- */

/*
 * A file of the client's gets another name: with its bytes in the upper layer, which the rename
 * would bring about as well, it is marked with the one that it had.
 */
static bool mark_moved(const struct moves *m, int fd, const struct place *p, const struct stat *st)
{
	_cleanup_close_ int copy = -1;
	char link[32];

	if (!S_ISREG(st->st_mode) || made_file(m, p))
		return true;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (chmod(link, st->st_mode & 07777) < 0)
		return false;
	copy = openat_beneath(m->uppers[p->workspace], p->rel, O_RDONLY | O_NONBLOCK);
	return copy >= 0 && overlay_mark_moved(copy, p->rel) == 0;
}

/* As far as what is there already tells: then nothing is moved. */
static bool moves_nothing(const struct filter_call *c, const struct call *k, const struct stat *st,
			  int dir, const char *to)
{
	uint64_t flags = k->flags == NONE ? 0 : c->args[k->flags];
	struct stat there;

	if (fstatat(dir, path_base(to), &there, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	return flags & RENAME_NOREPLACE ||
	       (there.st_dev == st->st_dev && there.st_ino == st->st_ino);
}

static bool can_move(const struct moves *m, const struct filter_call *c, const struct call *k,
		     const char *from, const char *to)
{
	bool follow = k->links && k->flags != NONE && c->args[k->flags] & AT_SYMLINK_FOLLOW;
	_cleanup_close_ int fd = open_named(c, k->from_dir, from, follow);
	_cleanup_free_ char *name = xstrdup(to);
	_cleanup_close_ int dir = fd < 0 ? -1 : open_parent(c, k->to_dir, name);
	struct place source, target;
	struct stat st;

	if (fd < 0 || dir < 0 || fstat(fd, &st) < 0 || !find_place(m, fd, &source) ||
	    !find_place(m, dir, &target))
		return true;
	if (source.workspace != ELSEWHERE && source.workspace == target.workspace)
		return is_the_jobs(m, &source, &st, k->links) &&
		       (k->links || moves_nothing(c, k, &st, dir, to) ||
			mark_moved(m, fd, &source, &st));
	/* As between file systems, which is what /tmp often is on the client; and what writes
	 * elsewhere is noticed there. */
	return source.is_apart || target.workspace == ELSEWHERE || st.st_nlink == 0;
}

/* F_RDLCK, F_WRLCK, F_UNLCK; of flock(2) no lock is one to read, see moves.h. */
static int kind_of_lock(const struct filter_call *c)
{
	struct flock l;

	if (c->nr == SYS_flock)
		return (c->args[1] & ~(uint64_t)LOCK_NB) == LOCK_UN ? F_UNLCK : F_WRLCK;
	return peek(c->pid, c->args[2], &l, sizeof(l)) == sizeof(l) ? l.l_type : F_WRLCK;
}

/* A lock keeps others away, and the others are on the client. */
static bool locks_clients_file(const struct moves *m, const struct filter_call *c)
{
	_cleanup_close_ int fd = open_named(c, 0, "", true);
	int kind = kind_of_lock(c);
	struct place p;
	struct stat st;

	if (kind == F_UNLCK || fd < 0 || !find_place(m, fd, &p) || p.workspace == ELSEWHERE ||
	    made_file(m, &p) || !is_in_mirror(m, &p))
		return false;
	return kind != F_RDLCK || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !m->looks ||
	       !m->looks(m->data, true, p.workspace, p.rel);
}

/* Above a workspace a job sees no more than the way to it. */
static bool leads_to_workspace(const struct moves *m, const char *path)
{
	for (size_t i = 0; i < m->n; i++)
		if (path_is_below(m->workspaces[i], path))
			return true;
	return false;
}

/* What the client changes while a job runs is nothing that the job is told of. */
static bool watches_clients_file(const struct moves *m, const struct filter_call *c)
{
	char path[PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct place p;
	struct stat st;

	if (!peek_path(c->pid, c->args[1], path))
		return false;
	fd = open_path(c->pid, AT_FDCWD, path, !(c->args[2] & IN_DONT_FOLLOW));
	if (fd < 0 || fstat(fd, &st) < 0 || !find_place(m, fd, &p))
		return false;
	if (p.workspace == ELSEWHERE)
		return leads_to_workspace(m, p.path);
	return !(S_ISDIR(st.st_mode) ? made_directory(m, &p) : made_file(m, &p));
}

/* Which arguments of those that ask for attributes say what. */
static const struct asking {
	int nr, dir, path, name;
	bool follow;
} askings[] = {
	{SYS_getxattr, NONE, 0, 1, true},	{SYS_lgetxattr, NONE, 0, 1, false},
	{SYS_fgetxattr, 0, NONE, 1, true},	{SYS_listxattr, NONE, 0, NONE, true},
	{SYS_llistxattr, NONE, 0, NONE, false}, {SYS_flistxattr, 0, NONE, NONE, true},
	{SYS_getxattrat, 0, 1, NONE, true},	{SYS_listxattrat, 0, 1, NONE, true},
};

/* Those that a file's copy can have; of the others the system has its own on each machine. */
static bool names_attribute(const struct filter_call *c, const struct asking *k)
{
	char name[PATH_MAX];

	return k->name == NONE || !peek_path(c->pid, c->args[k->name], name) ||
	       !str_starts(name, "security.") || streq(name, "security.capability");
}

static bool asks_for_attributes(const struct moves *m, const struct filter_call *c,
				const struct asking *k)
{
	char path[PATH_MAX] = "";
	_cleanup_close_ int fd = -1;
	struct place p;
	struct stat st;

	/* With a directory's descriptor it may be none: then that is meant. */
	if (!names_attribute(c, k) || (k->path != NONE && (k->dir == NONE || c->args[k->path]) &&
				       !peek_path(c->pid, c->args[k->path], path)))
		return false;
	fd = open_named(c, k->dir, path, k->follow);
	if (fd < 0 || fstat(fd, &st) < 0 || !find_place(m, fd, &p) || p.workspace == ELSEWHERE ||
	    !*p.rel || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return false;
	if (S_ISDIR(st.st_mode) ? made_directory(m, &p) : made_file(m, &p))
		return false;
	return is_in_mirror(m, &p) && m->looks && !m->looks(m->data, false, p.workspace, p.rel);
}

bool moves_ask(const void *moves, const struct filter_call *c)
{
	char from[PATH_MAX], to[PATH_MAX];

	if (c->nr == SYS_flock || c->nr == SYS_fcntl)
		return locks_clients_file(moves, c);
	if (c->nr == SYS_inotify_add_watch)
		return watches_clients_file(moves, c);
	for (size_t i = 0; i < N_OF(askings); i++)
		if (askings[i].nr == c->nr)
			return asks_for_attributes(moves, c, &askings[i]);
	for (size_t i = 0; i < N_OF(calls); i++) {
		const struct call *k = &calls[i];

		if (k->nr != c->nr)
			continue;
		if (!peek_path(c->pid, c->args[k->from], from) ||
		    !peek_path(c->pid, c->args[k->to], to))
			return false;
		if (!can_move(moves, c, k, from, to))
			return true;
		return k->flags != NONE && !k->links && c->args[k->flags] & RENAME_EXCHANGE &&
		       !can_move(moves, c, k, to, from);
	}
	return false;
}
