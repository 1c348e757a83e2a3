/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Programs look for settings of their own in directories that all homes have: python in
 * ~/.local/lib, what draws letters in ~/.config/fontconfig, GHC in ~/.ghc.  Mostly there are none,
 * which no job could know as long as it did not find the directory.  So a worker shows such
 * directories, with nothing in them; what is looked for there is told to us like any other name
 * outside, and only what is there makes a job run here.
 */
#include "bare.h"
#include "links.h"
#include "peer.h"
#include "server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

static void tell(struct peer *p, const char *path, const struct stat *st)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_bare m = {.path = (char *)path, .there = st != NULL};

	if (st) {
		m.mode = st->st_mode & 07777;
		m.mtime_s = st->st_mtim.tv_sec;
		m.mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	}
	msg_bare_encode(&b, &m);
	link_send_buf(p->link, MSG_BARE, LINK_PRIO, &b);
}

/* To jobs all is their user's own, so no other's; and what its owner is refused is refused here. */
static bool is_bare(const char *path, struct stat *ret)
{
	return lstat(path, ret) == 0 && S_ISDIR(ret->st_mode) && ret->st_uid == geteuid() &&
	       (ret->st_mode & S_IRWXU) == S_IRWXU;
}

void bare_tell(struct peer *p, const char *path)
{
	struct stat st;

	if (p->bare.n >= PROTO_BARE_MAX || bare_is(p, path) || !links_may_show(p, path) ||
	    tree_root_of(p->server->tree, path, NULL) || tree_serves_below(p->server->tree, path) ||
	    tree_triggers(p->server->tree, path) || !is_bare(path, &st))
		return;
	tell(p, path, &st);
	map_put_str(&p->bare, path, xmemdup(&st, sizeof(st)));
}

bool bare_is(const struct peer *p, const char *path)
{
	return map_get_str(&p->bare, path) != NULL;
}

void bare_greet(struct peer *p)
{
	static const char *const usual[] = {"~/.cache", "~/.config",	  "~/.ghc",
					    "~/.local", "~/.local/share", "~/.local/state"};

	for (size_t i = 0; i < N_OF(usual); i++) {
		_cleanup_free_ char *full = path_expand_home(usual[i]);
		_cleanup_free_ char *clean = path_clean("/", full);

		bare_tell(p, clean);
	}
}

/* And all that was in it: it may be another one by now. */
static void take_back(struct peer *p, const char *dir)
{
	_cleanup_free_ char *gone = xstrdup(dir);
	const char *path;
	size_t it = 0;

	tell(p, gone, NULL);
	while (map_next(&p->bare, &it, &path)) {
		if (!path_is_below(path, gone))
			continue;
		free(map_del_str(&p->bare, path));
		it = 0; /* what is left may have moved */
	}
}

void bare_check(struct peer *p)
{
	const char *path;
	size_t it = 0;
	struct stat *was, st;

	while ((was = map_next(&p->bare, &it, &path))) {
		if (!is_bare(path, &st)) {
			take_back(p, path);
			it = 0;
		} else if (st.st_mode != was->st_mode ||
			   !time_is_same(&st.st_mtim, &was->st_mtim)) {
			tell(p, path, &st);
			*was = st;
		}
	}
}

void bare_forget(struct peer *p)
{
	struct stat *was;
	size_t it = 0;

	while ((was = map_next(&p->bare, &it, NULL)))
		free(was);
	map_release(&p->bare);
}
