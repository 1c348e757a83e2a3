/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * This machine's system, as jobs of workers with root = client see it: the
 * toolchain trees, the links that lead into them from the root directory, and
 * what is shown of /etc.
 */
#include "system.h"
#include "etc.h"
#include "peer.h"
#include "server.h"
#include "shown.h"
#include "workspaces.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

struct system {
	char **wanted; /* trees, whether they are there or not */
	char **trees;  /* those that are served: grows only, in the order in which peers are told */
	char **links;  /* of the root directory: name, target, name... */
	struct etc *etc; /* NULL: no worker sees it */
};

/* ---- trees ---- */

static bool is_in(char *const *dirs, const char *path)
{
	for (; dirs && *dirs; dirs++)
		if (path_is_below(path, *dirs))
			return true;
	return false;
}

static bool is_real_dir(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void want(struct system *y, const char *path)
{
	_cleanup_free_ char *full = path_expand_home(path);
	_cleanup_free_ char *clean = path_clean("/", full);
	_cleanup_free_ char *secret = path_secret(clean);

	if (path_is_below(clean, "/etc"))
		return; /* shown otherwise: etc.h */
	if (secret)
		log_warn("workers don't see %s, since %s would be in it", clean, secret);
	else if (!is_in(y->wanted, clean))
		strv_push(&y->wanted, steal_ptr(&clean));
}

static void want_all(struct system *y, char *const *listed)
{
	static const char *const usual[] = {
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt",
		"/nix/store", "/gnu/store", "~/.rustup", "~/.cargo/bin", "~/.cargo/registry",
		"~/.cargo/git", "~/go/pkg/mod", "~/.local/lib",
		/* what managers of versions and packages have unpacked, and compilers read */
		"~/.asdf/installs", "~/.cabal/store", "~/.cache/node-gyp", "~/.conan/data",
		"~/.conan2/p", "~/.dub/packages", "~/.ghcup/ghc", "~/.local/share/mise/installs",
		"~/.local/share/uv/python", "~/.local/state/cabal/store", "~/.nimble/pkgs",
		"~/.nimble/pkgs2", "~/.nvm/versions", "~/.opam", "~/.platformio/packages",
		"~/.pyenv/versions", "~/.rbenv/versions", "~/.stack/snapshots", "/var/lib/chicken",
		"/var/lib/gems", "/var/lib/ghc", "/var/lib/ghostscript", "/var/lib/texmf",
		"/var/lib/xml-core", "/var/cache/fontconfig"};

	for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		/* Of the root directory only what is no link: those are told as such. */
		if (*usual[i] == '~' || is_real_dir(usual[i]))
			want(y, usual[i]);
	}
	for (; listed && *listed; listed++)
		want(y, *listed);
}

char *const *system_wanted(const struct server *s)
{
	return s->system->wanted;
}

const char *system_tree_of(const struct server *s, const char *path)
{
	for (char **w = s->system->wanted; w && *w; w++) {
		if (path_is_below(path, *w))
			return *w;
	}
	return NULL;
}

/* Serves what is there by now: a first `cargo fetch` makes its registry in mid-session. */
static void serve_trees(struct server *s)
{
	struct system *y = s->system;

	for (char **w = y->wanted; w && *w; w++) {
		struct errmsg msg = {0};

		if (is_in(y->trees, *w) || access(*w, F_OK) < 0)
			continue;
		if (strv_len(y->trees) >= PROTO_TREES_MAX || strlen(*w) >= PROTO_PATH_MAX)
			continue;
		if (tree_serve(s->tree, *w, false, &msg) == 0)
			strv_push(&y->trees, xstrdup(*w));
		else
			log_debug("%s", msg.text);
	}
}

/* Links of the root directory into trees, as /bin is one where /usr holds all. */
static void find_links(struct system *y)
{
	DIR *dir = opendir("/");
	struct dirent *e;

	while (dir && strv_len(y->links) + 2 <= PROTO_LINKS_MAX && (e = readdir(dir))) {
		_cleanup_free_ char *path = path_join("/", e->d_name);
		_cleanup_free_ char *real = NULL;
		char target[PROTO_PATH_MAX];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		real = realpath(path, NULL);
		if (!real || !is_in(y->trees, real))
			continue;
		strv_push(&y->links, xstrdup(e->d_name));
		strv_push(&y->links, xstrdup(target));
	}
	if (dir)
		(void)closedir(dir);
}

/* ---- for the server ---- */

static bool any_wants_it(const struct server *s)
{
	for (size_t i = 0; i < s->conf->n_workers; i++) {
		if (s->conf->workers[i].root == ROOT_CLIENT)
			return true;
	}
	return false;
}

static int show_etc(struct server *s, struct errmsg *msg)
{
	struct system *y = s->system;
	int r = etc_new(s->dir, s->dir_fd, s->conf->toolchains, &y->etc, msg);

	if (r == 0)
		r = tree_serve_part(s->tree, "/etc", etc_copy(y->etc), msg);
	if (r == 0)
		strv_push(&y->trees, xstrdup("/etc"));
	return r;
}

bool system_is_partial(const struct server *s, const char *path)
{
	return s->system->etc && etc_is_partial(s->system->etc, path);
}

static bool all_are_here(const struct server *s)
{
	for (size_t i = 0; i < s->conf->n_workers; i++) {
		if (!conf_worker_is_here(&s->conf->workers[i]))
			return false;
	}
	return true;
}

/* Do jobs here see it as it is? */
static bool is_seen_here(const struct server *s, const char *tree)
{
	bool seen = workspaces_is_system_path(tree);

	for (char *const *t = shown_trees(s); t && *t && !seen; t++)
		seen = streq(*t, tree);
	return seen;
}

/*
 * What jobs here look at in this machine's system is known like the project's own files, so that a
 * look-up need not look at it again.  Nobody else is served it.
 */
static void watch_for_results(struct server *s)
{
	if (!s->conf->cache_max_bytes || !all_are_here(s))
		return;
	for (char **w = s->system->wanted; w && *w; w++) {
		struct errmsg msg = {0};

		if (is_seen_here(s, *w) && tree_serve(s->tree, *w, false, &msg) < 0)
			log_debug("%s", msg.text); /* looked at each time, then */
	}
}

int system_set_up(struct server *s, struct errmsg *msg)
{
	s->system = xcalloc(1, sizeof(*s->system));
	want_all(s->system, s->conf->toolchains);
	shown_set_up(s);
	if (!any_wants_it(s)) {
		watch_for_results(s);
		return 0;
	}
	serve_trees(s);
	find_links(s->system);
	return show_etc(s, msg);
}

void system_free(struct system *y)
{
	if (!y)
		return;
	strv_free(y->wanted);
	strv_free(y->trees);
	strv_free(y->links);
	etc_free(y->etc);
	free(y);
}

static void tell_trees(struct peer *p)
{
	char **trees = p->server->system->trees;
	size_t n = strv_len(trees);

	for (; p->n_trees < n; p->n_trees++) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		msg_serve_encode(&b, trees[p->n_trees], SERVE_TREE);
		link_send_buf(p->link, MSG_SERVE, LINK_PRIO, &b);
	}
}

int system_refresh(struct peer *p, struct errmsg *msg)
{
	serve_trees(p->server);
	tell_trees(p);
	return etc_refresh(p->server->system->etc, msg);
}

void system_greet(struct peer *p)
{
	tell_trees(p);
}

const char *system_tree(const struct peer *p, size_t i)
{
	return p->server->system->trees[i];
}

char *const *system_links(const struct server *s)
{
	return s->system->links;
}

/* As jobs get there: through the links of the root directory. */
static char *follow_link(const struct system *y, const char *path)
{
	size_t n = strcspn(path + 1, "/");

	for (char **l = y->links; l && *l; l += 2) {
		_cleanup_free_ char *target = NULL, *full = NULL;

		if (strlen(l[0]) != n || strncmp(path + 1, l[0], n) != 0)
			continue;
		target = path_clean("/", l[1]);
		full = path_join(target, path + 1 + n);
		return path_clean("/", full);
	}
	return path_clean("/", path);
}

bool system_has(const struct server *s, const char *path)
{
	_cleanup_free_ char *there = follow_link(s->system, path);

	return is_in(s->system->trees, there);
}

bool system_shows(const struct server *s, const char *path)
{
	_cleanup_free_ char *there = follow_link(s->system, path);
	const char *root = tree_root_of(s->tree, there, NULL);

	if (!root || !streq(root, "/etc"))
		return root || path_is_below(there, "/dev") || path_is_below(there, "/proc");
	return etc_shows(s->system->etc, there);
}
