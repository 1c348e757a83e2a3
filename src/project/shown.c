/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "shown.h"
#include "peer.h"
#include "peers.h"
#include "server.h"
#include "system.h"
#include "workspaces.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define SHOW_ENV "CONCC_WORKER_SHOW"

/* Who has a umask of 077 shows it in what is at the top of such a tree. */
#define CLOSED_DEPTH 3
#define CLOSED_MAX   4096 /* names that are looked at */

static bool is_real_dir(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);
	struct stat st;

	return real && streq(real, path) && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_closed(const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return (st->st_mode & (S_IROTH | S_IXOTH)) != (S_IROTH | S_IXOTH);
	return S_ISREG(st->st_mode) && !(st->st_mode & S_IROTH);
}

static DIR *opendir_at(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0)
		(void)close(fd);
	return dir;
}

static bool holds_closed(int at, const char *name, unsigned depth, unsigned *left)
{
	DIR *dir = opendir_at(at, name);
	struct dirent *e;
	bool closed = !dir;

	while (dir && !closed && *left && (e = readdir(dir))) {
		struct stat st;

		if (streq(e->d_name, ".") || streq(e->d_name, "..") ||
		    fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		--*left;
		closed = is_closed(&st) || (S_ISDIR(st.st_mode) && depth &&
					    holds_closed(dirfd(dir), e->d_name, depth - 1, left));
	}
	if (dir)
		(void)closedir(dir);
	return closed;
}

/*
 * Jobs of root are an ordinary user's on a worker here (sandbox_uid()), and can't read what only
 * root may: from the mirror they have that, too.  How far one looks is bounded, so that there may
 * be such files deep in a tree is said in doc/limits.md.
 */
static bool is_open_to_jobs(const char *tree)
{
	unsigned left = CLOSED_MAX;
	struct stat st;

	return geteuid() != 0 || (stat(tree, &st) == 0 && !is_closed(&st) &&
				  !holds_closed(AT_FDCWD, tree, CLOSED_DEPTH - 1, &left));
}

/* All trees of tools there are, but those of the system.  One that a symlink leads to would have
 * another name there than here. */
static char *all_trees(const struct server *s)
{
	_cleanup_buf_ struct buf list = BUF_INIT;

	for (char *const *t = system_wanted(s); t && *t; t++) {
		if (!workspaces_is_system_path(*t) && is_real_dir(*t) && is_open_to_jobs(*t))
			buf_putf(&list, "%s%s", list.len ? ":" : "", *t);
	}
	return xstrdup(buf_cstr(&list));
}

/* Threads that connect read the environment, so it is changed when there are none. */
static bool tell_workers(struct server *s)
{
	_cleanup_free_ char *list = s->shows_all ? all_trees(s) : NULL;
	const char *told = getenv(SHOW_ENV);

	if (!list || (told && streq(told, list)))
		return true;
	if (peers_any_connecting(s))
		return false;
	setenv(SHOW_ENV, list, 1);
	return true;
}

/* A person may have said anything: what is no tree of tools may hold projects. */
static void take(struct server *s, const char *word)
{
	_cleanup_free_ char *path = *word == '/' ? path_clean("/", word) : NULL;

	if (path && !workspaces_is_system_path(path) && system_tree_of(s, path) &&
	    is_real_dir(path) && is_open_to_jobs(path))
		strv_push(&s->shown, steal_ptr(&path));
}

bool shown_look(struct server *s)
{
	bool told = tell_workers(s);
	_cleanup_free_ char *list = xstrdup(getenv(SHOW_ENV));
	char *save = NULL;

	strv_free(steal_ptr(&s->shown));
	for (char *w = strtok_r(list, ":", &save); w; w = strtok_r(NULL, ":", &save))
		take(s, w);
	return told;
}

void shown_set_up(struct server *s)
{
	s->shows_all = !getenv(SHOW_ENV);
	(void)shown_look(s); /* nobody is connecting yet */
}

char *const *shown_trees(const struct server *s)
{
	return s->shown;
}

bool shown_sees_this_system(const struct peer *p)
{
	return conf_worker_is_here(p->conf) && p->conf->root == ROOT_WORKER &&
	       p->conf->mirror == MIRROR_CONCC;
}

bool shown_has(const struct peer *p, const char *path)
{
	if (!shown_sees_this_system(p))
		return false;
	for (char **t = p->server->shown; t && *t; t++) {
		if (path_is_below(path, *t))
			return true;
	}
	return false;
}
