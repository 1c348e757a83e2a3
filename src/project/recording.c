/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "recording.h"
#include "peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/str.h"

void recording_uncacheable(struct recording *r, const char *why)
{
	if (!r->why)
		r->why = why;
}

char *recording_path_of(const struct recording *r, const struct msg_file *f)
{
	const char *w = r->entry.workspaces[f->workspace];

	return f->path[0] ? path_join(w, f->path) : xstrdup(w);
}

static uint64_t count_mounts(const struct server *s)
{
	struct tree_counts c;

	tree_counts(s->tree, &c);
	return c.mounts;
}

/* What is mounted may have the number of what was. */
static struct map *known_disks(struct results *all, uint64_t mounts)
{
	if (mounts != all->disks_mounts)
		map_release(&all->disks);
	all->disks_mounts = mounts;
	return &all->disks;
}

bool recording_sees_our_files(const struct peer *p)
{
	return p->conf->mirror == MIRROR_CONCC &&
	       (p->conf->root == ROOT_CLIENT ||
		(p->conf->address && streq(p->conf->address, "local:")));
}

/*
 * Of crates that depend on others: which crates they are the metadata says, with a digest, so what
 * else is there does not matter; and in a build of several jobs it is never the same.
 */
static char **dependency_dirs(char *const *argv)
{
	static const char word[] = "dependency=";
	char **dirs = xcalloc(1, sizeof(*dirs));

	for (; *argv; argv++) {
		const char *value = str_starts(*argv, "-L") && (*argv)[2] ? *argv + 2 : *argv;

		if (str_starts(value, word))
			strv_push(&dirs, xstrdup(value + strlen(word)));
	}
	return dirs;
}

/* Where rustc puts what it makes, as cargo says it; on the heap, or NULL. */
static char *out_dir(const struct msg_run *m)
{
	static const char option[] = "--out-dir";

	for (char *const *a = m->argv; *a; a++) {
		if (streq(*a, option) && a[1])
			return path_clean(m->cwd, a[1]);
		if (str_starts(*a, option) && (*a)[strlen(option)] == '=')
			return path_clean(m->cwd, *a + sizeof(option));
	}
	return NULL;
}

/* Would it be kept as well when nobody had asked for it? */
static bool is_plain_compile(const struct msg_run *m)
{
	struct msg_run as = *m;

	as.flags = (m->flags | JOB_F_COMPILER) & ~(uint32_t)JOB_F_KEEP;
	return !cache_refuses(&as) && !cache_has_argfiles(m->argv);
}

struct recording *recording_new(struct peer *p, const struct msg_run *m, char *const *workspaces,
				uint64_t saw)
{
	struct server *s = p->server;
	struct cache_call call;
	struct recording *r;
	const char *why;

	if (!s->results)
		return NULL;
	call = (struct cache_call){m, geteuid(), getegid(), p->conf->root == ROOT_CLIENT};
	why = recording_sees_our_files(p) ? cache_refuses(m) : "worker-root";
	if (why) {
		results_reason(s->results, why);
		return NULL;
	}
	r = xcalloc(1, sizeof(*r));
	r->results = s->results;
	r->server = s;
	cache_parts_of(&call, &r->parts);
	cache_parts_key(&call, &r->parts_key);
	for (char *const *e = m->env; *e; e++)
		r->has_epoch |= str_starts(*e, "SOURCE_DATE_EPOCH=");
	if (!r->any && cache_has_argfiles(m->argv)) {
		r->argv = strv_copy(m->argv);
		r->cwd = xstrdup(m->cwd);
	}
	r->rust = cache_is_rustc(m);
	r->any = r->rust || m->flags & JOB_F_KEEP;
	r->no_times = r->rust || m->flags & JOB_F_NO_TIMES;
	if (r->rust)
		r->not_listed = dependency_dirs(m->argv);
	if (r->rust)
		r->out_dir = out_dir(m);
	r->unknown = r->any && !is_plain_compile(m);
	r->umask = m->umask;
	buf_append(&r->input, m->input.p, m->input.n);
	r->entry.workspaces = strv_copy(workspaces);
	r->mounts = count_mounts(s);
	baseline_init(&r->baseline, s->tree, saw, call.client_root ? NULL : r->entry.workspaces,
		      known_disks(r->results, r->mounts));
	return r;
}

void recording_free(struct recording *r)
{
	size_t it = 0;
	char *path;

	if (!r)
		return;
	reading_free(r->reading);
	for (size_t i = 0; r->fds && i < r->entry.n_effects; i++)
		if (r->fds[i] >= 0)
			(void)close(r->fds[i]);
	free(r->fds);
	cache_names_release(&r->names);
	cache_entry_release(&r->entry);
	cache_parts_release(&r->parts);
	baseline_release(&r->baseline);
	buf_release(&r->input);
	while ((path = map_next(&r->announced, &it, NULL)))
		free(path);
	map_release(&r->announced);
	strv_free(r->not_listed);
	free(r->out_dir);
	strv_free(r->argv);
	free(r->cwd);
	free(r);
}

/* ---- while it runs ---- */

/* Of all that it may have read the key tells; it may have read less. */
void recording_input(struct recording *r, struct blob bytes)
{
	size_t left;

	if (!r)
		return;
	left = r->input.len - r->n_input;
	if (bytes.n > left || memcmp(r->input.data + r->n_input, bytes.p, bytes.n) != 0 ||
	    (!bytes.n && left))
		recording_uncacheable(r, "stdin");
	else
		r->n_input += bytes.n;
}

void recording_input_read(struct recording *r, uint32_t n)
{
	if (r)
		r->entry.input += n;
}

void recording_output(struct recording *r, uint8_t stream, struct blob bytes)
{
	if (!r || r->why || !bytes.n)
		return;
	if (r->entry.output.len + bytes.n + 5 > CACHE_OUTPUT_MAX) {
		recording_uncacheable(r, "large-output");
		return;
	}
	buf_put_u8(&r->entry.output, stream);
	buf_put_blob(&r->entry.output, bytes.p, bytes.n);
}

void recording_file(struct recording *r, const struct msg_file *f)
{
	struct cache_entry *e;
	struct msg_file *to;

	if (!r || r->why)
		return;
	e = &r->entry;
	if (e->n_effects == CACHE_EFFECTS_MAX) {
		recording_uncacheable(r, "many-files");
		return;
	}
	if (e->n_effects == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 8;
		e->effects = xrealloc(e->effects, r->cap * sizeof(*e->effects));
	}
	to = &e->effects[e->n_effects++];
	*to = *f;
	to->job_id = 0;
	to->path = xstrdup(f->path);
	to->target = xstrdup(f->target ? f->target : "");
}

/* It was there, and is what it was. */
static bool is_that_dir(const struct msg_file *f, const char *path)
{
	struct stat st;

	return f->kind == EFFECT_DIR && !(f->flags & EFFECT_F_OPAQUE) && lstat(path, &st) == 0 &&
	       S_ISDIR(st.st_mode) && (st.st_mode & 07777) == f->mode;
}

/* What was absent can be taken for that later on; what was not is gone. */
void recording_announced(struct recording *r)
{
	if (!r || r->why)
		return;
	r->entry.announced = true;
	for (size_t i = 0; i < r->entry.n_effects; i++) {
		const struct msg_file *f = &r->entry.effects[i];
		_cleanup_free_ char *path = recording_path_of(r, f);
		struct stat st;

		if (map_get_str(&r->announced, path) || is_that_dir(f, path))
			continue;
		if (f->kind != EFFECT_FILE || lstat(path, &st) == 0 || errno != ENOENT)
			recording_uncacheable(r, "announced");
		(void)map_put_str(&r->announced, path, xstrdup(path));
	}
}

void recording_missing(struct recording *r)
{
	if (r)
		recording_uncacheable(r, "missing");
}

int recording_trace(struct recording *r, struct blob payload)
{
	struct msg_trace m;
	int err = msg_trace_decode(payload, &m);

	if (err < 0)
		return err;
	if (r && !r->traced && *m.why) {
		/* Its own words are not for us to keep. */
		log_debug("a trace is void: %s", m.why);
		recording_uncacheable(r, "trace-void");
	}
	if (r && !r->traced && !r->why && tree_names_trigger(r->server->tree, m.names, m.n))
		recording_uncacheable(r, "automount");
	if (r && !r->traced && !r->why) {
		cache_names_set(&r->names, steal_ptr(&m.names), m.n, steal_ptr(&m.all));
		r->traced = true;
	}
	msg_trace_release(&m);
	return 0;
}

/* ---- what it looked at ---- */

static bool follows(char how)
{
	return how != TRACE_LOOK && how != TRACE_LINK && how != TRACE_MAKE && !trace_is_output(how);
}

static void check_unchanged(struct recording *r)
{
	(void)tree_drain(r->server->tree);
	if (count_mounts(r->server) != r->mounts)
		recording_uncacheable(r, "mounts");
	for (size_t i = 0, end; i < r->names.n && !r->why; i = end) {
		const char *path = r->names.v[i] + 1;
		const struct cache_looked *looked = cache_look_last(r->results->look, i);
		bool follow = false, listed = false, links_count = false;
		uint64_t stamp = 0;

		for (end = i; end < r->names.n && streq(r->names.v[end] + 1, path); end++) {
			follow |= follows(r->names.v[end][0]);
			listed |= r->names.v[end][0] == TRACE_LIST;
			links_count |= r->names.v[end][0] == TRACE_TIMES;
			stamp = stamp ? stamp : cache_look_stamp(r->results->look, end);
		}
		if (map_get_str(&r->announced, path))
			continue; /* or it would not be in place */
		if ((baseline_is_quiet(&r->baseline, path, stamp, looked) ||
		     baseline_unchanged(&r->baseline, path, follow, links_count, looked)) &&
		    (!listed || baseline_same_names(&r->baseline, path)))
			continue;
		recording_uncacheable(r, "changed");
		log_debug("not kept: %s has changed since the job began", path);
	}
}

/* Before the files are looked at by name: what they held then is what they hold here. */
static void look_at_argfiles(struct recording *r)
{
	_cleanup_strv_ char **all = NULL;
	const char *why;

	if (!r->argv)
		return;
	all = job_expand_argfiles(r->argv + 1, r->cwd, read_regular_file);
	why = all ? cache_refuses_args(all) : "response-file";
	if (why)
		recording_uncacheable(r, why);
}

/* What is in a file about the time of the day is for preprocessors; rustc has none. */
static bool words_count(const struct recording *r)
{
	bool count = !r->rust;

	for (size_t i = 0; i < r->names.n && !count; i++) {
		const char *base = path_base(r->names.v[i] + 1);

		count = r->names.v[i][0] == TRACE_EXEC &&
			(str_starts(base, "cc1") || strstr(base, "clang") || strstr(base, "cpp"));
	}
	return count;
}

/* 0 or a negative code; CONCC_E_LATER: nothing was found out. */
static int look_at_state(struct recording *r)
{
	struct results *all = r->results;
	unsigned facts;
	int err;

	all->wants_facts = words_count(r);
	all->read_facts = 0;
	cache_look_without(all->look, &r->announced);
	cache_look_umask(all->look, r->umask);
	cache_look_facts(all->look, all->wants_facts ? &all->read_facts : NULL);
	err = cache_look_state(all->look, &r->names, &r->variant.state, r->entry.fingerprints);
	cache_look_without(all->look, NULL);
	cache_look_facts(all->look, NULL);
	facts = all->wants_facts ? all->read_facts : all->read_facts & FACT_UNREADABLE;
	all->wants_facts = false;
	if (err == CONCC_E_LATER)
		return err;
	if (facts & FACT_UNREADABLE)
		recording_uncacheable(r, "unreadable");
	else if (facts & FACT_PRECOMPILED)
		recording_uncacheable(r, "precompiled");
	else if (facts & FACT_TIMESTAMP || (facts & FACT_TIME && !r->has_epoch))
		recording_uncacheable(r, "time");
	return err;
}

/* Is there a name that leads to what is in place already, and would be taken for what was before?
 */
static bool sees_early(const struct recording *r)
{
	const char *path;
	size_t it = 0;

	while ((path = map_next(&r->announced, &it, NULL))) {
		struct stat st, other;

		if (lstat(path, &st) < 0)
			return true;
		for (size_t i = 0; i < r->names.n; i++)
			if (!streq(r->names.v[i] + 1, path) &&
			    stat(r->names.v[i] + 1, &other) == 0 && other.st_dev == st.st_dev &&
			    other.st_ino == st.st_ino)
				return true;
	}
	return false;
}

/* Which of the names count.  0 or CONCC_E_LATER. */
static int choose_names(struct recording *r)
{
	int err = 0;

	if (!r->chosen) {
		look_at_argfiles(r);
		recording_choose_names(r);
		r->chosen = true;
	}
	if (!r->why)
		err = recording_look_at_programs(r);
	if (err < 0)
		return err;
	recording_check_unforeseen(r);
	if (!r->why && r->unknown && !r->no_times)
		recording_add_times(r);
	if (!r->why && r->unknown)
		recording_add_ways(r);
	if (r->announced.n && (r->wants_places || sees_early(r)))
		recording_uncacheable(r, "announced");
	if (!r->why && (r->wants_places || r->wants_exe))
		recording_add_places(r);
	r->has_names = true;
	return 0;
}

static void add_outputs(struct recording *r)
{
	recording_add_outputs(r);
	r->entry.fingerprints = xcalloc(r->names.n + 1, sizeof(uint64_t));
	r->entry.n_fingerprints = r->names.n;
}

/* In this order: what is looked at, and only then whether anything had changed before. */
static int look(struct recording *r)
{
	int err = 0;

	facts_begin(r->results, r->n_readings ? FACTS_YOUNG : FACTS_FEW);
	(void)tree_drain(r->server->tree);
	if (!r->has_names)
		err = choose_names(r);
	if (!r->why && err == 0)
		recording_look_at_touched(r);
	if (!r->why && err == 0 && !r->entry.fingerprints)
		add_outputs(r);
	if (!r->why && err == 0)
		err = look_at_state(r);
	if (r->why)
		return 0;
	if (err == CONCC_E_LATER)
		return err;
	if (err < 0)
		recording_uncacheable(r, "unreadable");
	else
		check_unchanged(r);
	r->looked = !r->why;
	return 0;
}

static void on_read(void *arg)
{
	struct recording *r = arg;

	r->reading = NULL;
	r->go_on(r->go_on_arg);
}

/* Files that change again and again are never known. */
#define READINGS_MAX 4

static bool wait_for_facts(struct recording *r)
{
	if (r->n_readings++ < READINGS_MAX)
		r->reading = facts_wait(r->results, &r->names, words_count(r), on_read, r);
	if (!r->reading)
		recording_uncacheable(r, "unreadable");
	return r->reading;
}

bool recording_look(struct recording *r, const struct msg_exit *end, void (*go_on)(void *arg),
		    void *arg)
{
	if (!r)
		return true;
	if (r->reading)
		return false;
	if (end->how != EXIT_CODE || end->code)
		recording_uncacheable(r, "failed");
	if (!r->traced)
		recording_uncacheable(r, "no-trace");
	r->go_on = go_on;
	r->go_on_arg = arg;
	return r->why || look(r) == 0 || !wait_for_facts(r);
}
