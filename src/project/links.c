/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A project may be called by a symbolic link outside of it: in $PWD, which compilers write into
 * debug information when it leads to the current directory, or in an argument.  A worker shows such
 * links as links, so that both names lead there.  What is told of them is looked at again before
 * each job.
 */
#include "links.h"
#include "peer.h"
#include "shown.h"
#include "server.h"
#include "system.h"
#include "workspaces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* Of one path, as the kernel has it. */
#define FOLLOW_MAX 40

struct walk {
	struct peer *peer;
	char ***trees; /* of the job: those that the path leads through are added */
	char *at;      /* as far as it was followed, clean */
	char *rest;
	unsigned n;
};

static void tell(struct peer *p, const char *path, const char *target)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_link_encode(&b, path, target);
	link_send_buf(p->link, MSG_LINK, LINK_PRIO, &b);
}

/* Where the worker has other things, and what jobs have of their own. */
bool links_may_show(const struct peer *p, const char *path)
{
	static const char *const own[] = {"/dev", "/proc", "/run", "/sys", "/tmp"};

	if (p->conf->mirror != MIRROR_CONCC || !strchr(path + 1, '/'))
		return false;
	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
		if (path_is_below(path, own[i]))
			return false;
	}
	return p->conf->root == ROOT_CLIENT ||
	       (!workspaces_is_system_path(path) && !path_is_below(path, "/var"));
}

/* Is it there as a link anyway?  Beneath a tree it is, and in a system that is the same. */
static bool is_seen(struct walk *w, const char *path)
{
	const struct peer *p = w->peer;
	const char *root = tree_root_of(p->server->tree, path, NULL);

	if (p->conf->root == ROOT_CLIENT ? system_has(p->server, path)
					 : shown_has(p, path) || (workspaces_is_system_path(path) &&
								  conf_worker_is_here(p->conf)))
		return true;
	if (!root || streq(root, path))
		return false;
	workspaces_add(w->trees, root);
	return true;
}

/* False: no job can see that link as one. */
static bool show(struct walk *w, const char *path, const char *target)
{
	struct peer *p = w->peer;
	const char *sent;

	if (is_seen(w, path))
		return true;
	if (!links_may_show(p, path) || tree_serves_below(p->server->tree, path))
		return false;
	sent = map_get_str(&p->links, path);
	if (sent && streq(sent, target))
		return true;
	if (!sent && p->links.n >= PROTO_OUTSIDE_LINKS_MAX)
		return false;
	tell(p, path, target);
	free(map_put_str(&p->links, path, xstrdup(target)));
	return true;
}

static bool follow_link(struct walk *w, const char *path)
{
	_cleanup_free_ char *rest = w->rest;
	char target[PROTO_PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	w->rest = NULL;
	if (n <= 0 || ++w->n > FOLLOW_MAX)
		return false;
	target[n] = '\0';
	if (!show(w, path, target))
		return false;
	w->rest = path_join(target, rest);
	if (*target == '/')
		strcpy(w->at, "/");
	return true;
}

/* One name of the rest; false when it can't be followed. */
static bool step(struct walk *w)
{
	size_t n = strcspn(w->rest, "/");
	_cleanup_free_ char *name = xstrndup(w->rest, n);
	_cleanup_free_ char *next = path_clean(w->at, name);
	struct stat st;

	memmove(w->rest, w->rest + n, strlen(w->rest + n) + 1);
	/* What is not there has no links. */
	if (!streq(name, "..") && lstat(next, &st) == 0 && S_ISLNK(st.st_mode))
		return follow_link(w, next);
	free(w->at);
	w->at = steal_ptr(&next);
	return true;
}

char *links_follow(struct peer *p, const char *path, char ***trees)
{
	struct walk w = {.peer = p, .trees = trees, .at = xstrdup("/"), .rest = xstrdup(path)};
	bool ok = true;

	while (ok && w.rest) {
		memmove(w.rest, w.rest + strspn(w.rest, "/"),
			strlen(w.rest + strspn(w.rest, "/")) + 1);
		if (!*w.rest)
			break;
		ok = step(&w);
	}
	free(w.rest);
	if (!ok)
		free(steal_ptr(&w.at));
	return w.at;
}

static bool is_as_sent(const char *path, const char *sent)
{
	char target[PROTO_PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	return n > 0 && strlen(sent) == (size_t)n && memcmp(target, sent, (size_t)n) == 0;
}

void links_check(struct peer *p)
{
	const char *path;
	size_t it = 0;
	char *sent;

	while ((sent = map_next(&p->links, &it, &path))) {
		if (is_as_sent(path, sent))
			continue;
		tell(p, path, "");
		free(map_del_str(&p->links, path));
		it = 0; /* what is left may have moved */
	}
}

void links_forget(struct peer *p)
{
	char *sent;
	size_t it = 0;

	while ((sent = map_next(&p->links, &it, NULL)))
		free(sent);
	map_release(&p->links);
}
