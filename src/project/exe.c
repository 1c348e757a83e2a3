/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "exe.h"
#include "exe_look.h"
#include "peer.h"
#include "run.h"
#include "shown.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"

/* A disk that takes longer is slower than running the command here. */
#define WAIT_MS 4000
/* Calls that are remembered, by program and PATH: beyond that all are looked at anew. */
#define CALLS_MAX 4096

/* A file or directory as it was when the identity was made. */
struct seen {
	char *path;
	struct stat st;
};

struct exes {
	struct map all;	    /* encoded EXE but for its id -> struct exe, owned */
	struct map by_call; /* what decides which it is -> one of those */
	struct map looking; /* the same -> struct looking, which a thread has */
	unsigned n_hung;    /* of them */
	bool stopped;
	uint32_t next_id;
};

struct exe {
	struct msg_exe msg;
	struct seen *seen; /* while all of them are so, it is the identity */
	size_t n_seen;
	bool young; /* one may change again and look the same: it is looked at anew for each job */
	bool passing;	 /* others may look the same when mounts have changed (struct fs_traits) */
	uint64_t mounts; /* before they were looked at: so many changes */
};

/* A program that a thread looks at, for all who wait for that. */
struct looking {
	struct server *server;
	struct peer *peer; /* one of those it is the same for; lives until exes_stop() */
	uint64_t mounts;   /* when it began: so many changes */
	struct buf call;   /* by which it is found */
	struct exe_look look;
	struct list waiting; /* struct exe_wait.in_looking */
	bool hung;	     /* somebody waits no more, since it takes so long */
};

struct exe_wait {
	struct list in_looking;
	struct looking *looking;
	struct loop_source *timer;
	exe_fn done;
	void *arg;
};

static void forget_seen(struct exe *e)
{
	for (size_t i = 0; i < e->n_seen; i++)
		free(e->seen[i].path);
	free(steal_ptr(&e->seen));
	e->n_seen = 0;
}

static void exe_free(struct exe *e)
{
	if (!e)
		return;
	msg_exe_release(&e->msg);
	forget_seen(e);
	free(e);
}

DEFINE_CLEANUP(struct exe, exe, exe_free);

void exes_free(struct server *s)
{
	struct exe *e;
	size_t it = 0;

	if (!s->exes)
		return;
	while ((e = map_next(&s->exes->all, &it, NULL)))
		exe_free(e);
	map_release(&s->exes->all);
	map_release(&s->exes->by_call);
	map_release(&s->exes->looking); /* what is left hangs, and ends with the process */
	free(steal_ptr(&s->exes));
}

static void add_seen(struct exe *e, const char *path, const struct stat *st)
{
	e->seen = xrealloc(e->seen, (e->n_seen + 1) * sizeof(*e->seen));
	e->seen[e->n_seen++] = (struct seen){xstrdup(path), *st};
}

/*
 * The very files of this machine: what is mounted on them, mounted.h compares.  A program that is
 * not ours may take jobs wherever it likes.
 */
static bool has_our_programs(const struct peer *p)
{
	return p->conf->root == ROOT_CLIENT ||
	       (shown_sees_this_system(p) && !p->conf->worker_program);
}

/* ---- what is known already ---- */

static bool is_as_seen(const struct exe *e)
{
	for (size_t i = 0; i < e->n_seen; i++) {
		if (!file_is_unchanged(e->seen[i].path, &e->seen[i].st))
			return false;
	}
	return true;
}

static bool may_look_the_same(struct server *s, const struct exe *e)
{
	return e->young || (e->passing && e->mounts != tree_mounts(s->tree));
}

static const char *path_of(char *const *env)
{
	while (*env && !str_starts(*env, "PATH="))
		env++;
	return *env ? *env + strlen("PATH=") : "";
}

/* What decides which files they are, but for the files themselves. */
static void put_call(const struct peer *p, const struct msg_run *m, struct buf *key)
{
	bool all_ours = has_our_programs(p), compiler = m->flags & JOB_F_COMPILER;

	buf_put_u8(key, all_ours || run_serves_exe(p, m->exe));
	buf_put_u8(key, (uint8_t)p->conf->root);
	buf_put_u8(key, compiler);
	buf_put_str(key, m->exe);
	if (!compiler || all_ours)
		return;
	buf_put_u8(key, (uint8_t)job_family(m->argv));
	buf_put_u8(key, job_may_link(m->argv));
	buf_put_str(key, path_base(m->argv[0]));
	buf_put_str(key, path_of(m->env));
}

/* The one with the same files, which workers know already, or else e; takes e. */
static struct exe *keep(struct server *s, struct exe *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct exe *known;

	msg_exe_encode(&b, &e->msg);
	known = map_get(&s->exes->all, b.data, b.len);
	if (!known) {
		map_put(&s->exes->all, b.data, b.len, e);
		e->msg.exe_id = ++s->exes->next_id;
		return e;
	}
	forget_seen(known);
	known->n_seen = e->n_seen;
	known->seen = steal_ptr(&e->seen);
	known->young = e->young;
	known->passing = e->passing;
	known->mounts = e->mounts;
	e->n_seen = 0;
	exe_free(e);
	return known;
}

const struct msg_exe *exe_msg(const struct exe *e)
{
	return &e->msg;
}

static struct exe *remember(struct server *s, const struct buf *call, struct exe *e)
{
	struct exe *kept = keep(s, e);

	if (s->exes->by_call.n >= CALLS_MAX)
		map_release(&s->exes->by_call);
	map_put(&s->exes->by_call, call->data, call->len, kept);
	return kept;
}

static struct exe *exe_new(const char *path)
{
	struct exe *e = xcalloc(1, sizeof(*e));

	e->msg.path = xstrdup(path);
	return e;
}

int exe_get(struct peer *p, const struct msg_run *m, const struct exe *fresh, struct exe **ret,
	    struct errmsg *msg)
{
	struct server *s = p->server;
	_cleanup_buf_ struct buf call = BUF_INIT;
	struct exe *known;

	if (!s->exes)
		s->exes = xcalloc(1, sizeof(*s->exes));
	put_call(p, m, &call);
	known = map_get(&s->exes->by_call, call.data, call.len);
	/* It is there if it is what was seen first; with a client's root nothing was. */
	if (!(known && known->n_seen && streq(known->seen[0].path, m->exe)) &&
	    access(m->exe, F_OK) < 0)
		return errmsg_set(msg, -errno, "can't find %s: %s", m->exe, err_text(-errno));
	if (!known && has_our_programs(p)) /* there is nothing there that is not from here */
		known = remember(s, &call, exe_new(m->exe));
	if (!known || (known != fresh && may_look_the_same(s, known)) || !is_as_seen(known))
		return CONCC_E_LATER;
	*ret = known;
	return 0;
}

/* ---- looking ---- */

static void looking_free(struct looking *l)
{
	struct exes *x = l->server->exes;

	(void)map_del(&x->looking, l->call.data, l->call.len);
	x->n_hung -= l->hung;
	list_for_each_safe (i, &l->waiting) {
		container_of(i, struct exe_wait, in_looking)->looking = NULL;
		list_remove(i);
	}
	buf_release(&l->call);
	exe_look_release(&l->look);
	free(l);
}

/* Each is told of it, and may have it looked at anew. */
static void tell(struct looking *l, struct exe *e, const struct errmsg *msg)
{
	struct list waiting;

	list_init(&waiting);
	while (!list_empty(&l->waiting)) {
		struct list *i = l->waiting.next;

		list_remove(i);
		list_append(&waiting, i);
	}
	looking_free(l);
	while (!list_empty(&waiting)) {
		struct exe_wait *w = list_first(&waiting, struct exe_wait, in_looking);
		exe_fn done = w->done;
		void *arg = w->arg;

		w->looking = NULL;
		exe_wait_free(w);
		done(arg, e, msg);
	}
}

static struct exe *made_of(struct looking *l)
{
	struct exe *e = exe_new(l->look.exe);
	struct msg_exe *m = &e->msg;

	e->mounts = l->mounts;
	for (struct exe_file_look *f = l->look.files; f < l->look.files + l->look.n_files; f++) {
		if (f->err || f->served)
			continue;
		add_seen(e, f->path, &f->st);
		if (f->kind == EXE_FILE_PLACE)
			continue;
		e->young |= f->young;
		e->passing |= !f->stamps;
		if (!f->young && f->stamps)
			hash_cache_put(l->server->hashes, &f->st, &f->digest, true);
		m->files = xrealloc(m->files, (m->n_files + 1) * sizeof(*m->files));
		m->files[m->n_files++] = (struct exe_file){.path = xstrdup(f->path),
							   .digest = f->digest};
	}
	return e;
}

static void read_files(void *arg)
{
	exe_look_read(&((struct looking *)arg)->look);
}

static void files_read(void *arg)
{
	struct looking *l = arg;
	struct server *s = l->server;
	struct errmsg msg = {0};
	struct exe *e = NULL;

	if (s->exes->stopped) {
		looking_free(l);
		return;
	}
	if (l->look.err < 0)
		(void)errmsg_set(&msg, l->look.err, "can't read %s: %s", l->look.exe,
				 err_text(l->look.err));
	else
		e = made_of(l);
	if (e && e->msg.n_files > PROTO_EXE_FILES_MAX) {
		(void)errmsg_set(&msg, CONCC_E_TOOBIG, "%s is made of %u files", l->look.exe,
				 e->msg.n_files);
		exe_free(steal_ptr(&e));
	}
	tell(l, e ? remember(s, &l->call, e) : NULL, &msg);
}

static void find_files(void *arg)
{
	exe_look_find(&((struct looking *)arg)->look);
}

/* What of it need not be read. */
static void files_found(void *arg)
{
	struct looking *l = arg;
	struct server *s = l->server;

	if (s->exes->stopped) {
		looking_free(l);
		return;
	}
	for (struct exe_file_look *f = l->look.files; f < l->look.files + l->look.n_files; f++) {
		f->served = f->kind != EXE_FILE_PLACE && run_serves_exe(l->peer, f->path);
		f->has_digest = f->err == 0 && hash_cache_get(s->hashes, &f->st, &f->digest);
	}
	(void)offload_put(s->looking, read_files, files_read, l, 0); /* one of each program */
}

static struct looking *begin_to_look(struct peer *p, const struct msg_run *m, struct buf *call)
{
	struct server *s = p->server;
	struct looking *l = xcalloc(1, sizeof(*l));

	l->server = s;
	l->peer = p;
	l->mounts = tree_mounts(s->tree);
	l->call = *call;
	*call = (struct buf)BUF_INIT;
	list_init(&l->waiting);
	l->look = (struct exe_look){
		.exe = xstrdup(m->exe),
		.cwd = xstrdup(m->cwd),
		.path = xstrdup(path_of(m->env)),
		.argv = strv_copy(m->argv),
		.compiler = m->flags & JOB_F_COMPILER,
		.may_link = job_may_link(m->argv),
	};
	map_put(&s->exes->looking, l->call.data, l->call.len, l);
	(void)offload_put(s->looking, find_files, files_found, l, 0); /* one of each program */
	return l;
}

static void on_timer(void *data)
{
	struct exe_wait *w = data;
	struct looking *l = w->looking;
	exe_fn done = w->done;
	void *arg = w->arg;
	struct errmsg msg = {0};

	w->timer = NULL;
	(void)errmsg_set(&msg, -ETIMEDOUT, "reading %s, or what it is made of, takes long",
			 l->look.exe);
	if (!l->hung) {
		l->hung = true;
		l->server->exes->n_hung++;
		log_warn("%s; until it is done, programs run here that are not known yet",
			 msg.text);
	}
	exe_wait_free(w);
	done(arg, NULL, &msg);
}

struct exe_wait *exe_wait(struct peer *p, const struct msg_run *m, exe_fn done, void *arg,
			  struct errmsg *msg)
{
	struct exes *x = p->server->exes;
	_cleanup_buf_ struct buf call = BUF_INIT;
	struct looking *l;
	struct exe_wait *w;

	if (x->n_hung || x->stopped) {
		(void)errmsg_set(msg, -ETIMEDOUT, "a program takes long to be read");
		return NULL;
	}
	put_call(p, m, &call);
	l = map_get(&x->looking, call.data, call.len);
	if (!l)
		l = begin_to_look(p, m, &call);
	w = xcalloc(1, sizeof(*w));
	w->looking = l;
	w->done = done;
	w->arg = arg;
	w->timer = loop_add_timer(p->server->loop, WAIT_MS, on_timer, w);
	list_append(&l->waiting, &w->in_looking);
	return w;
}

void exe_wait_free(struct exe_wait *w)
{
	if (!w)
		return;
	list_remove(&w->in_looking);
	loop_remove(w->timer);
	free(w);
}

void exes_stop(struct server *s)
{
	if (s->exes)
		s->exes->stopped = true;
}
