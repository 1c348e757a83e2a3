/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "shown.h"
#include "peer.h"
#include "peers.h"
#include "server.h"
#include "system.h"
#include "workspaces.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define SHOW_ENV "CONCC_WORKER_SHOW"

static bool is_real_dir(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);
	struct stat st;

	return real && streq(real, path) && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* All trees of tools there are, but those of the system.  One that a symlink leads to would have
 * another name there than here. */
static char *all_trees(const struct server *s)
{
	_cleanup_buf_ struct buf list = BUF_INIT;

	for (char *const *t = system_wanted(s); t && *t; t++) {
		if (!workspaces_is_system_path(*t) && is_real_dir(*t))
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
	    is_real_dir(path))
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
