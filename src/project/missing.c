/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "missing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"
#include "absent.h"
#include "bare.h"
#include "eligible.h"
#include "etc.h"
#include "run.h"
#include "workspaces.h"

/* ---- what follows ---- */

enum missing_verdict missing_decide(const struct missing_facts *f)
{
	/* Is it there?  Who asks for it here finds out. */
	if (f->unseen)
		return f->how == MISSING_NAMED ? MISSING_HOLD : MISSING_RUN_HERE;
	switch (f->how) {
	case MISSING_NAMED:
		return f->here ? MISSING_HOLD : MISSING_NOTHING;
	case MISSING_LOOKED_UP:
		if (!f->here)
			return MISSING_ABSENT;
		/* The search goes on after it: the dispatch has found the command elsewhere. */
		return f->own_name ? MISSING_NOTHING : MISSING_RUN_HERE;
	case MISSING_LISTED:
		return f->marks || (f->own && f->more) ? MISSING_RUN_HERE
		       : f->more		       ? MISSING_HOLD
						       : MISSING_NOTHING;
	case MISSING_CHANGED:
		/* Where the user can't write, the worker's refusal is the answer here too. */
		return f->here || f->writable ? MISSING_RUN_HERE : MISSING_NOTHING;
	}
	return MISSING_NOTHING;
}

/* ---- words ---- */

/* As the configuration takes it; false when it can't. */
static bool put_path(struct buf *b, const char *path)
{
	const char *quote = !strpbrk(path, " \t'\"") ? "" : !strchr(path, '"') ? "\"" : "'";

	if (*quote == '\'' && strchr(path, '\''))
		return false;
	buf_putf(b, " %s%s%s", quote, path, quote);
	return true;
}

static bool put_line(struct buf *b, const char *key, char *const *listed, const char *tree)
{
	buf_putf(b, ": %s =", key);
	for (; listed && *listed; listed++) {
		if (!put_path(b, *listed))
			return false;
	}
	return put_path(b, tree);
}

char *missing_remedy(const struct missing_remedy *m)
{
	bool toolchain = m->client_root && !m->writes;
	_cleanup_buf_ struct buf b = BUF_INIT;

	buf_putf(&b, "list its tree as a `%s` in ~/.concc.ini to run this remotely",
		 toolchain ? "toolchain` (read-only) or `workspace" : "workspace");
	if (m->tree && put_line(&b, toolchain ? "toolchain" : "workspace",
				toolchain ? m->toolchains : m->workspaces, m->tree))
		return xstrdup(buf_cstr(&b));
	return xstrdup("set CONCC_DISABLE=1 for such commands");
}

/* Links lead elsewhere: what they are in is what can be shown. */
static bool is_dir(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Not where listing it would change nothing. */
static char *etc_tree(const char *path)
{
	const char *below = path_below(path, "/etc");

	return etc_may_show(path) ? xstrndup(path, strlen("/etc/") + strcspn(below, "/")) : NULL;
}

/* With things of all programs in it, what they log in with among them. */
static bool is_everybodys(const char *dir, const char *home)
{
	static const char *const dirs[] = {".cache", ".config", ".local", ".local/share",
					   ".local/state"};
	const char *below = path_below(dir, home);

	for (size_t i = 0; below && i < N_OF(dirs); i++)
		if (streq(below, dirs[i]))
			return true;
	return false;
}

char *missing_tree(const char *path, bool client_root)
{
	/* Jobs have their own, or it is shown as it is. */
	static const char *const never[] = {"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp"};
	_cleanup_free_ char *dir = path_clean(path, is_dir(path) ? "." : "..");
	_cleanup_free_ char *home = path_expand_home("~");
	_cleanup_free_ char *secret = NULL;

	for (size_t i = 0; i < sizeof(never) / sizeof(*never); i++) {
		if (path_is_below(dir, never[i]))
			return NULL;
	}
	if (client_root && path_is_below(path, "/etc"))
		return etc_tree(path);
	if (streq(dir, "/") || path_is_below(home, dir) || is_everybodys(dir, home) || !is_dir(dir))
		return NULL;
	if (!client_root && workspaces_is_system_path(dir))
		return NULL;
	secret = path_secret(dir);
	return secret ? NULL : steal_ptr(&dir);
}

/* Which jobs have one of, by all of these names. */
static const char *const tmps[] = {"/tmp", "/var/tmp", "/dev/shm"};

static const char *tmp_of(const char *path)
{
	for (size_t i = 0; i < N_OF(tmps); i++) {
		if (path_is_below(path, tmps[i]))
			return tmps[i];
	}
	return NULL;
}

/* What often holds things that are nobody else's, and git does without when it is told. */
static const char *done_without(const char *path)
{
	static const char *const gits[] = {"~/.gitconfig", "~/.config/git", "/etc/gitconfig"};

	for (size_t i = 0; i < N_OF(gits); i++) {
		_cleanup_free_ char *place = path_expand_home(gits[i]);

		if (path_is_below(path, place))
			return "GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 has git do "
			       "without it, to run this remotely";
	}
	return NULL;
}

/* They read git's settings themselves, whatever git is told, and write below the home. */
const char *missing_instead(const char *program)
{
	static const struct {
		const char *program, *instead;
	} known[] = {
		{"cargo", "`concc run -- cargo` has the compilers that it calls run remotely"},
		{"npm", "`concc-dispatch node_modules/.bin/TOOL` runs the tool itself remotely"},
		{"npx", "`concc-dispatch node_modules/.bin/TOOL` runs the tool itself remotely"},
	};

	for (size_t i = 0; i < N_OF(known); i++)
		if (streq(path_base(program), known[i].program))
			return known[i].instead;
	return NULL;
}

char *missing_text(const struct peer *p, char *const *workspaces, const char *program,
		   const char *path, bool writes)
{
	bool client_root = p->conf->root == ROOT_CLIENT;
	_cleanup_free_ char *shown = str_escape(path, strlen(path), 200);
	_cleanup_free_ char *tree = missing_tree(path, client_root);
	struct missing_remedy m = {
		.client_root = client_root,
		.writes = writes,
		.tree = tree,
		.toolchains = p->server->conf->toolchains,
		.workspaces = workspaces,
	};
	const char *without = missing_instead(program) ?: done_without(path);
	_cleanup_free_ char *remedy = without ? xstrdup(without) : missing_remedy(&m);
	const char *tmp = tmp_of(path);

	if (tmp)
		return xasprintf("%s is this machine's, and a job has a %s of its own; have it use "
				 "a directory of the project to run this remotely (TMPDIR=DIR, "
				 "java -Djava.io.tmpdir=DIR)",
				 shown, tmp);
	/* There the worker has its own things: serving ours is no remedy. */
	if (!client_root && workspaces_is_system_path(path))
		return xasprintf("%s is not on worker %s; install it there, or set CONCC_DISABLE=1 "
				 "for such commands",
				 shown, p->conf->name);
	if (writes)
		return xasprintf("it writes to %s, which is outside every workspace; %s", shown,
				 remedy);
	return xasprintf("%s is outside every %s, so worker %s can't see it; %s", shown,
			 client_root ? "workspace and toolchain" : "workspace", p->conf->name,
			 remedy);
}

/* ---- looking ---- */

static bool is_own_name(const struct run *r, const char *path)
{
	_cleanup_free_ char *parent = path_clean(path, "..");

	if (streq(path, r->exe) || !streq(path_base(path), r->name))
		return false;
	for (char **d = r->search; *d; d++) {
		if (streq(*d, parent))
			return true;
	}
	return false;
}

/* By a listing that has the names of what is served, and no others. */
static bool is_listed(const struct run *r, const char *dir, const char *name)
{
	_cleanup_free_ char *path = path_join(dir, name);

	return streq(name, ".") || streq(name, "..") ||
	       tree_serves_below(r->peer->server->tree, path) || map_get_str(&r->peer->links, path);
}

/* A worker may name any directory, any number of times: so many names are looked at for one job. */
#define LISTED_MAX 100000

/* What the directory has beside. */
static void look_for_more(struct run *r, const char *path, struct missing_facts *f)
{
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && !f->marks && (errno = 0, e = readdir(dir))) {
		f->marks = job_is_listed_mark(e->d_name) || ++r->n_listed > LISTED_MAX;
		f->more |= !is_listed(r, path, e->d_name);
	}
	/* What can't be told now may be there. */
	f->marks |= dir ? !f->marks && errno != 0 : !err_is_fact(-errno);
	if (dir)
		(void)closedir(dir);
}

static bool is_in_any_tmp(const char *in_tmp)
{
	for (size_t i = 0; i < N_OF(tmps); i++) {
		_cleanup_free_ char *path = path_join(tmps[i], in_tmp);
		struct stat st;

		if (lstat(path, &st) == 0 || !err_is_fact(-errno))
			return true;
	}
	return false;
}

static void look(struct run *r, const char *path, struct missing_facts *f)
{
	_cleanup_free_ char *parent = path_clean(path, "..");
	const char *in_tmp = path_below(path, tmps[0]);
	struct stat st;

	/* A worker may name any path: none is to have the kernel mount something. */
	f->unseen = tree_triggers(r->peer->server->tree, path);
	if (f->unseen)
		return;
	/* But GNU make, which links with -flto run on a makefile there, lists its directory. */
	f->own = (in_tmp && !(r->compiler && f->how == MISSING_LISTED)) || bare_is(r->peer, path);
	f->here = in_tmp ? is_in_any_tmp(in_tmp) : lstat(path, &st) == 0;
	/* The worker has looked on its own system, where no links are that only jobs see. */
	if (f->here && f->how == MISSING_NAMED && run_leads_there(r->peer, path))
		f->here = false;
	if (f->how == MISSING_LISTED)
		look_for_more(r, path, f);
	f->own_name = f->here && is_own_name(r, path);
	f->writable = f->how == MISSING_CHANGED &&
		      faccessat(AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS) == 0;
}

static char *why(const struct run *r, const char *path, const struct missing_facts *f)
{
	bool writes = f->how == MISSING_CHANGED;

	if (f->unseen) {
		_cleanup_free_ char *shown = str_escape(path, strlen(path), 200);

		return xasprintf(
			"%s is where file systems are mounted when one looks, which is not "
			"done for worker %s",
			shown, r->peer->conf->name);
	}
	/* What it was to make is not there, but where. */
	_cleanup_free_ char *there = path_clean(path, f->here ? "." : "..");

	return missing_text(r->peer, r->workspaces, r->name, there, writes);
}

void missing_on(struct run *r, const struct msg_missing *m)
{
	for (char **p = m->paths; *p && !r->failure; p++) {
		struct missing_facts f = {.how = m->how};
		_cleanup_free_ char *text = NULL;

		look(r, *p, &f);
		switch (missing_decide(&f)) {
		case MISSING_NOTHING:
			break;
		case MISSING_ABSENT:
			if (!f.own) /* where names come and go */
				absent_tell(r->peer, *p);
			break;
		case MISSING_HOLD:
			if (!r->missing)
				r->missing = why(r, *p, &f);
			break;
		case MISSING_RUN_HERE:
			text = why(r, *p, &f);
			run_give_up(r, "missing", text);
			if (m->how == MISSING_LOOKED_UP && !f.unseen)
				bare_tell(r->peer, *p);
			break;
		}
	}
}
