/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What workers have asked for in a workspace, remembered across sessions: told
 * to a new worker ahead of its first job, so that a cold start costs one round
 * trip and not one per directory and header.
 *
 * Of the system's trees a project is told those that its jobs have used, and others when a job
 * begins to: what a C compiler needs is no reason to send a Rust toolchain.
 *
 * A job's own sources are left out: each is compiled on one worker, so telling
 * all of them would only cost bytes.  They go ahead of their job instead.
 */
#include "working_set.h"
#include "ahead.h"
#include "disk.h"
#include "run.h"
#include "workspaces.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/* More than a large project's headers; a workspace beyond is served on demand for the rest. */
#define ENTRIES_MAX 50000
#define FILE_MAX    (16 * 1024 * 1024)
/* Larger ones are waited for when they are read: they would delay all the others. */
#define PREFETCH_BYTES_MAX (4 * 1024 * 1024)
/* Of a toolchain the largest file is what all jobs wait for: a compiler. */
#define PREFETCH_TREE_BYTES_MAX (64 * 1024 * 1024)

static const char magic[] = "concc working set 1";

struct working_set {
	char *root;
	char *file; /* where it is kept */
	/* "Dpath" and "Fpath", relative to root, in the order they were wanted; of a workspace also
	 * "Tpath", absolute: a tree of the system's that its jobs have used */
	char **entries;
	size_t n, cap;
	struct map known; /* the entries, and "Mpath": a job's source, wanted by nobody else */
	bool changed;
};

static bool add(struct working_set *w, char kind, const char *rel)
{
	_cleanup_free_ char *entry = xasprintf("%c%s", kind, rel);

	if (w->n >= ENTRIES_MAX || w->known.n >= 4 * ENTRIES_MAX || map_get_str(&w->known, entry))
		return false;
	map_put_str(&w->known, entry, w);
	if (kind == 'M')
		return true;
	if (w->n == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 64;
		w->entries = xrealloc(w->entries, w->cap * sizeof(*w->entries));
	}
	w->entries[w->n++] = steal_ptr(&entry);
	w->changed = true;
	return true;
}

/* ---- on disk: the magic, then each entry with its NUL ---- */

static bool is_entry(const struct working_set *w, const char *entry)
{
	_cleanup_free_ char *path = NULL;

	if (*entry == 'T')
		return path_is_clean(entry + 1);
	if (*entry != 'D' && *entry != 'F')
		return false; /* it may be empty */
	path = path_join(w->root, entry + 1);
	return !entry[1] || (path_is_clean_relative(entry + 1) && path_is_clean(path));
}

static void load(struct working_set *w)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *p, *end;

	if (read_file_at(AT_FDCWD, w->file, FILE_MAX, &b) < 0 || b.len < sizeof(magic) ||
	    memcmp(b.data, magic, sizeof(magic)) != 0 || b.data[b.len - 1] != '\0')
		return; /* none yet, or not ours: it will be written anew */
	end = (const char *)b.data + b.len;
	for (p = (const char *)b.data + sizeof(magic); p < end; p += strlen(p) + 1) {
		if (is_entry(w, p))
			(void)add(w, *p, p + 1);
	}
	w->changed = false;
}

static void save(struct server *s, struct working_set *w)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!w->changed)
		return;
	buf_append(&b, magic, sizeof(magic));
	for (size_t i = 0; i < w->n; i++)
		buf_append(&b, w->entries[i], strlen(w->entries[i]) + 1);
	disk_replace(s, w->file, &b);
	w->changed = false;
}

static struct working_set *set_of(struct server *s, const char *root)
{
	_cleanup_free_ char *dir = NULL;
	struct working_set *w = map_get_str(&s->working_sets, root);
	char hex[DIGEST_HEX];
	struct digest d;

	if (w)
		return w;
	w = xcalloc(1, sizeof(*w));
	w->root = xstrdup(root);
	map_put_str(&s->working_sets, root, w);
	dir = path_join(s->cache, "working-sets");
	(void)mkdir(dir, 0700); /* then nothing is kept, and disk.c says so */
	digest_of(root, strlen(root), &d);
	digest_hex(&d, hex);
	w->file = path_join(dir, hex);
	load(w);
	return w;
}

void working_sets_save(struct server *s)
{
	struct working_set *w;
	size_t it = 0;

	while ((w = map_next(&s->working_sets, &it, NULL))) {
		if (w->file)
			save(s, w);
	}
}

void working_sets_free(struct server *s)
{
	struct working_set *w;
	size_t it = 0;

	while ((w = map_next(&s->working_sets, &it, NULL))) {
		for (size_t i = 0; i < w->n; i++)
			free(w->entries[i]);
		free(w->entries);
		map_release(&w->known);
		free(w->root);
		free(w->file);
		free(w);
	}
	map_release(&s->working_sets);
}

/* ---- telling ---- */

static void send_prefetch(struct peer *p, uint32_t dir_id, char ***names)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (*names) {
		msg_prefetch_encode(&b, dir_id, *names);
		link_send_buf(p->link, MSG_PREFETCH, LINK_PRIO, &b);
	}
	strv_free(steal_ptr(names));
}

/* The directory's id for this peer and the name in it, when there is such a file now. */
static uint32_t locate(struct peer *p, const char *path, const char **ret_name)
{
	const char *base = path_base(path);
	_cleanup_free_ char *dir = xstrndup(path, (size_t)(base - path - (base - path > 1)));
	uint32_t id = tree_dir_id(p->server->tree, p->index, dir);
	uint64_t max = PREFETCH_BYTES_MAX;
	struct entry_attr a;
	bool writable;

	if (!id)
		return 0;
	if (tree_root_of(p->server->tree, path, &writable) && !writable)
		max = PREFETCH_TREE_BYTES_MAX;
	tree_entry(p->server->tree, id, base, &a);
	*ret_name = base;
	return a.type == ENTRY_FILE && a.size <= max ? id : 0;
}

static void push_files(struct peer *p, const struct working_set *w)
{
	char **names = NULL;
	uint32_t dir_id = 0;
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++) {
		_cleanup_free_ char *path = path_join(w->root, w->entries[i] + 1);
		const char *name;
		uint32_t id = *w->entries[i] == 'F' ? locate(p, path, &name) : 0;

		if (!id)
			continue;
		if (id != dir_id || n == PROTO_PREFETCH_MAX) {
			send_prefetch(p, dir_id, &names);
			n = 0;
		}
		dir_id = id;
		strv_push(&names, xstrdup(name));
		n++;
	}
	send_prefetch(p, dir_id, &names);
}

static void push_dirs(struct peer *p, const struct working_set *w)
{
	for (size_t i = 0; i < w->n; i++) {
		const char *rel = w->entries[i] + 1;
		_cleanup_free_ char *path = *rel ? path_join(w->root, rel) : xstrdup(w->root);

		if (*w->entries[i] == 'D')
			ahead_dir(p, path);
	}
}

bool working_set_is_tree(const struct peer *p, const char *path)
{
	bool writable = false;
	const char *root = tree_root_of(p->server->tree, path, &writable);

	return p->conf->root == ROOT_CLIENT && root && streq(root, path) && !writable;
}

static void push_trees(struct peer *p, const struct working_set *w)
{
	for (size_t i = 0; i < w->n; i++) {
		const char *tree = w->entries[i] + 1;

		if (*w->entries[i] == 'T' && working_set_is_tree(p, tree))
			working_set_push(p, tree); /* which has none of its own */
	}
}

void working_set_push(struct peer *p, const char *root)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct working_set *w;
	bool writable = false;

	/* One that sees the tree by other means takes no listings. */
	if (p->conf->mirror != MIRROR_CONCC || workspaces_is_passing(p->server, root) ||
	    map_put_str(&p->pushed, root, p))
		return; /* nor are such names there again */
	w = set_of(p->server, root);
	/* Others than workspaces were told before. */
	if (tree_root_of(p->server->tree, root, &writable) && writable) {
		msg_serve_encode(&b, root, SERVE_WORKSPACE);
		link_send_buf(p->link, MSG_SERVE, LINK_PRIO, &b);
	}
	push_trees(p, w);
	push_dirs(p, w);
	push_files(p, w);
}

/* Others that work in this tree will want it, too. */
static void offer(struct peer *from, const char *root, char kind, const char *path)
{
	struct server *s = from->server;

	for (unsigned i = 0; i < s->n_peers; i++) {
		struct peer *p = s->peers[i];
		char **names = NULL;
		const char *name;
		uint32_t id;

		if (p == from || p->state != PEER_UP || !map_get_str(&p->pushed, root))
			continue;
		if (kind == 'D') {
			if (!tree_dir_id(s->tree, p->index, path))
				tree_list(s->tree, p->index, path);
			continue;
		}
		id = locate(p, path, &name);
		if (!id)
			continue;
		strv_push(&names, xstrdup(name));
		send_prefetch(p, id, &names);
	}
}

/* Whatever runs there may be what uses it. */
static void note_tree(struct peer *p, const char *tree)
{
	const struct run *r;
	size_t it = 0;

	while ((r = map_next(&p->jobs, &it, NULL)))
		for (char **root = r->workspaces; *root; root++)
			if (map_get_str(&p->pushed, *root))
				(void)add(set_of(p->server, *root), 'T', tree); /* once is enough */
}

static void note(struct peer *p, char kind, const char *path)
{
	const char *root = tree_root_of(p->server->tree, path, NULL);
	_cleanup_free_ char *source = NULL;
	struct working_set *w;
	const char *rel;

	/* That every worker lists the trees themselves, for its jobs' root, is no use of them. */
	if (root && working_set_is_tree(p, root) && !streq(root, path)) {
		note_tree(p, root);
		(void)add(set_of(p->server, root), 'D', ""); /* first: it leads to all others */
		working_set_push(p, root);
	}
	if (!root || !map_get_str(&p->pushed, root))
		return;
	w = set_of(p->server, root);
	rel = path_below(path, root);
	source = xasprintf("M%s", rel);
	if (!map_get_str(&w->known, source) && add(w, kind, rel))
		offer(p, root, kind, path);
}

void working_set_note_dir(struct peer *p, const char *path)
{
	note(p, 'D', path);
}

void working_set_note_file(struct peer *p, uint32_t dir_id, const char *name)
{
	const char *dir = tree_dir_path(p->server->tree, dir_id);
	_cleanup_free_ char *path = dir ? path_join(dir, name) : NULL;

	if (path && !ahead_is_guess(p, path))
		note(p, 'F', path);
}

/* Nobody has asked for the directories that lead there. */
static void note_way(struct peer *p, const char *root, const char *dir)
{
	_cleanup_free_ char *parent = NULL;

	if (!streq(dir, root)) {
		parent = path_parent(dir);
		note_way(p, root, parent);
	}
	note(p, 'D', dir);
}

void working_set_note_guess(struct peer *p, uint32_t dir_id, const char *name)
{
	const char *known = tree_dir_path(p->server->tree, dir_id);
	_cleanup_free_ char *dir = known ? xstrdup(known) : NULL;
	const char *root = dir ? tree_root_of(p->server->tree, dir, NULL) : NULL;
	_cleanup_free_ char *path = NULL;

	if (!root)
		return;
	note_way(p, root, dir);
	path = path_join(dir, name);
	note(p, 'F', path);
}

/* Tells of one source unless the peer was told of this version of it. */
static void push_source(struct peer *p, const char *path)
{
	const char *root = tree_root_of(p->server->tree, path, NULL), *name;
	char **names = NULL;
	struct entry_attr a;
	uint32_t id;

	if (!root || workspaces_is_passing(p->server, root))
		return;
	(void)add(set_of(p->server, root), 'M', path_below(path, root)); /* once is enough */
	id = locate(p, path, &name);
	if (!id)
		return;
	tree_entry(p->server->tree, id, name, &a);
	if (map_put_str(&p->sources, path, (void *)(uintptr_t)a.version) ==
	    (void *)(uintptr_t)a.version)
		return;
	strv_push(&names, xstrdup(name));
	send_prefetch(p, id, &names);
}

void working_set_sources(struct peer *p, const char *cwd, char *const *argv)
{
	for (char *const *a = argv + 1; *a && p->conf->mirror == MIRROR_CONCC; a++) {
		_cleanup_free_ char *path = NULL;

		/* Options, and what is written rather than read. */
		if (**a == '-' || streq(a[-1], "-o"))
			continue;
		path = path_clean(cwd, *a);
		push_source(p, path);
	}
}
