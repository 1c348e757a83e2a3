/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/conf.h"

#include <fcntl.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "parse.h"
#include "value.h"
#include "workers.h"

DEFINE_CLEANUP(struct conf, conf, conf_free);

struct conf *conf_new(void)
{
	struct conf *c = xcalloc(1, sizeof(*c));

	c->local_slots = CONF_LOCAL_AUTO;
	c->straggler_after_s = 1;
	c->idle_timeout_s = 15 * 60;
	c->connect_timeout_s = 10;
	c->store_max_bytes = 20ULL << 30;
	return c;
}

const char *conf_worker_word(const struct conf_worker *w)
{
	return w->listed ? w->listed : w->group ? w->group : w->name;
}

bool conf_worker_is_here(const struct conf_worker *w)
{
	return w->address && streq(w->address, "local:");
}

void conf_free(struct conf *c)
{
	if (!c)
		return;
	free(c->asked);
	free(c->file);
	free(c->path);
	strv_free(c->workspaces);
	free(c->workspaces_from);
	free(c->cache_url);
	strv_free(c->toolchains);
	workers_free(c->workers, c->n_workers);
	workers_free(c->known, c->n_known);
	free(c);
}

/* ret_must: whether the user named it, so that a missing file is an error. */
static char *choose_file(const char *path, bool *ret_must)
{
	const char *env = getenv("CONCC_CONFIG");

	*ret_must = true;
	if (path)
		return path_expand_home(path);
	if (env && *env)
		return path_expand_home(env);
	*ret_must = false;
	return path_expand_home("~/.concc.ini");
}

/* A worker's command is run by a shell, so nobody else may write it. */
static int check_mode(const char *path, struct errmsg *msg)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return errmsg_set(msg, CONCC_E_CONF, "%s: is a directory, not a file", path);
	/* To open a FIFO would wait for a writer. */
	if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
		return errmsg_set(msg, CONCC_E_CONF,
				  "%s: is a FIFO, a socket or a device, not a file", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & S_IWOTH))
		return errmsg_set(
			msg, CONCC_E_CONF,
			"%s: everyone may write it, and it names commands to run; chmod o-w %s",
			path, path);
	return 0;
}

/* It names commands that other users run: whoever could write to it would be them. */
static int check_system(const char *path, struct errmsg *msg)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, strerror(errno));
	return conf_check_roots(path, &st, msg);
}

static int read_text(struct conf *c, const char *path, struct errmsg *msg)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	int r = read_file_at(AT_FDCWD, path, CONF_FILE_MAX, &text);

	if (r < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, err_text(r));
	return conf_parse_text(c, path, (const char *)text.data, text.len, msg);
}

static int read_system(struct conf *c, struct errmsg *msg)
{
	int r;

	if (access(CONF_SYSTEM_FILE, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = check_system(CONF_SYSTEM_FILE, msg);
	if (r == 0)
		r = read_text(c, CONF_SYSTEM_FILE, msg);
	c->n_system = c->n_known;
	return r;
}

static int read_conf(struct conf *c, const char *path, bool must, struct errmsg *msg)
{
	int r;

	if (!must && access(path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	r = check_mode(path, msg);
	if (r < 0)
		return r;
	c->path = realpath(path, NULL);
	return read_text(c, path, msg);
}

void conf_finish(struct conf *c)
{
	if (c->n_workers > 0)
		return;
	for (size_t i = 0; i < c->n_known; i++)
		worker_copy(&c->known[i], workers_add(&c->workers, &c->n_workers));
	if (c->n_known == 0 && workers_from_list(c, "local: local:", NULL) < 0)
		abort(); /* a constant list is right */
}

int conf_load(const char *path, struct conf **ret, struct errmsg *msg)
{
	_cleanup_(cleanup_conf) struct conf *c = conf_new();
	bool must;
	int r;

	c->asked = path ? xstrdup(path) : NULL;
	c->file = choose_file(path, &must);
	conf_look(c, &c->seen);
	r = must ? 0 : read_system(c, msg);
	if (r == 0)
		r = read_conf(c, c->file, must, msg);
	if (r < 0)
		return r;
	r = conf_parse_env(c, msg);
	if (r < 0)
		return r;
	conf_finish(c);
	*ret = steal_ptr(&c);
	return 0;
}

void conf_look(const struct conf *c, struct stat *ret)
{
	if (stat(c->file, ret) < 0)
		*ret = (struct stat){0};
}

int conf_set_workers(struct conf *c, const char *list, struct errmsg *msg)
{
	struct errmsg why = {0};
	int r = workers_from_list(c, list, &why);

	if (r < 0)
		return errmsg_set(msg, r, "worker list: %s", why.text);
	return 0;
}

int conf_check_workspaces(const struct conf *c, struct errmsg *msg)
{
	for (char **w = c->workspaces; w && *w; w++) {
		_cleanup_close_ int fd = open(*w, O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return errmsg_set(
				msg, CONCC_E_CONF,
				"%s: can't serve the workspace %s: %s; %scorrect the list",
				c->workspaces_from, *w, strerror(errno),
				errno == ENOENT ? "make it, or " : "");
	}
	return 0;
}
