/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "ahead.h"
#include "elf_file.h"
#include "mentions.h"
#include "peer.h"
#include "server.h"
#include "system.h"
#include "working_set.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

/* From this round trip on a guess is worth what it costs here, to read each file that is asked for
 * once more: some 30 us. */
#define FAR_US 8000
/* Larger headers are worth their round trip. */
#define FILE_BYTES_MAX (1024 * 1024)
/* In which #include lines are looked for: they come first. */
#define SCAN_BYTES (256 * 1024)
/* In one turn of the loop. */
#define FILES_AT_ONCE 16
/* Of one link.  A compiler has some ten directories in which it looks. */
#define BASES_MAX 64
#define NAMES_MAX 16384
#define FILES_MAX 65536
/* Listings that are guesses: so many, and for each that was asked for two. */
#define DIRS_MIN 64
/* Of one that was asked for: directories in it, and in those, when they are few and small. */
#define CHAIN_MAX 16
#define FEW_DIRS  8
#define SMALL_DIR 4096
/* On the way to a file. */
#define LINKS_MAX 4

/* Names of one kind, and where they are looked for. */
struct search {
	uint64_t max;	    /* bytes of a file that is worth a guess */
	struct map is_name; /* of names */
	char **names;	    /* as files name others, in that order */
	size_t n_names;
	char **bases; /* directories in which such were found */
};

struct ahead {
	struct peer *peer;
	struct search headers, libraries;
	struct map seen; /* path -> version that was asked for, or told of */
	struct map told; /* path -> ahead: of those, guesses of which nothing is known */
	char **todo;	 /* a stack: files to be told of, if they are not asked for, and read */
	size_t n_todo, n_dirs, n_trees; /* n_dirs: listings that were guesses */
	struct loop_source *turn;
	uint32_t dir_id; /* of the GUESS that is being made */
	char **guess;
};

static void search_init(struct search *s, uint64_t max)
{
	s->max = max;
	s->names = xcalloc(1, sizeof(*s->names));
	s->bases = xcalloc(1, sizeof(*s->bases));
}

static void search_release(struct search *s)
{
	map_release(&s->is_name);
	strv_free(s->names);
	strv_free(s->bases);
}

struct ahead *ahead_new(struct peer *p)
{
	struct ahead *a = xcalloc(1, sizeof(*a));

	a->peer = p;
	search_init(&a->headers, FILE_BYTES_MAX);
	search_init(&a->libraries, UINT64_MAX); /* a program that is run opens them all */
	a->todo = xcalloc(1, sizeof(*a->todo));
	return a;
}

void ahead_free(struct ahead *a)
{
	if (!a)
		return;
	loop_remove(a->turn);
	search_release(&a->headers);
	search_release(&a->libraries);
	map_release(&a->seen);
	map_release(&a->told);
	strv_free(a->todo);
	strv_free(a->guess);
	free(a);
}

static bool is_far(const struct peer *p)
{
	return p->conf->mirror == MIRROR_CONCC && link_counts(p->link)->rtt_min_us >= FAR_US;
}

/* ---- listings ---- */

/* What the peer knows of path: its directory's id and the name in it; 0: nothing. */
static uint32_t known_to_peer(const struct peer *p, const char *path, const char **ret_name,
			      struct entry_attr *ret)
{
	_cleanup_free_ char *dir = path_parent(path);
	uint32_t id = tree_dir_id(p->server->tree, p->index, dir);

	*ret_name = path_base(path);
	if (id)
		tree_entry(p->server->tree, id, *ret_name, ret);
	return id;
}

/*
 * Has the peer know the directory at path, and all on the way from its root; false when there is no
 * such directory, or no more than *left listings may be told.
 */
static bool tell_dir(struct peer *p, const char *root, const char *path, size_t *left)
{
	struct tree *t = p->server->tree;
	struct entry_attr a = {.type = ENTRY_DIR};
	_cleanup_free_ char *parent = NULL;
	const char *name;

	if (tree_dir_id(t, p->index, path))
		return true;
	if (!streq(path, root)) {
		parent = path_parent(path);
		if (!tell_dir(p, root, parent, left))
			return false;
		(void)known_to_peer(p, path, &name, &a);
	}
	if (a.type != ENTRY_DIR || !*left)
		return false;
	--*left;
	tree_list(t, p->index, path);
	return tree_dir_id(t, p->index, path) != 0;
}

/* The root that holds path, when jobs of the peer see it; borrowed. */
static const char *told_root(const struct peer *p, const char *path)
{
	const char *root = tree_root_of(p->server->tree, path, NULL);

	if (!root || (!map_get_str(&p->pushed, root) && !working_set_is_tree(p, root)))
		return NULL;
	return root;
}

/* The same, when as many guesses are allowed. */
static bool tell_guessed_dir(struct peer *p, const char *root, const char *path)
{
	size_t max = DIRS_MIN + 2 * p->lists, before, left;
	bool known;

	before = left = max > p->ahead->n_dirs ? max - p->ahead->n_dirs : 0;
	known = tell_dir(p, root, path, &left);
	p->ahead->n_dirs += before - left;
	return known;
}

void ahead_dir(struct peer *p, const char *dir)
{
	const char *root = told_root(p, dir);
	size_t left = SIZE_MAX;

	if (root)
		(void)tell_dir(p, root, dir, &left);
}

static void tell_way(struct peer *p, const char *path)
{
	_cleanup_free_ char *dir = path_parent(path);

	ahead_dir(p, dir);
}

/* The launcher opens them all, one after the other. */
static void tell_trees(struct peer *p)
{
	for (; p->ahead->n_trees < p->n_trees; p->ahead->n_trees++)
		ahead_dir(p, system_tree(p, p->ahead->n_trees));
}

static const char *search_path(char *const *env)
{
	static const char name[] = "PATH=";

	for (; *env; env++)
		if (str_starts(*env, name))
			return *env + strlen(name);
	return NULL;
}

/* Where a program is looked for by its name: up to where it is. */
static void tell_path(struct peer *p, const struct msg_run *m)
{
	const char *program = *m->argv ?: "", *at = search_path(m->env);

	if (!is_far(p) || !at || strchr(program, '/'))
		return;
	for (bool found = false; *at && !found;) {
		size_t n = strcspn(at, ":");
		_cleanup_free_ char *dir = xstrndup(at, n), *path = path_join(dir, program);

		if (*dir == '/')
			ahead_dir(p, dir);
		found = access(path, X_OK) == 0;
		at += n + (at[n] == ':');
	}
}

void ahead_job(struct peer *p, const struct msg_run *m)
{
	if (p->conf->mirror != MIRROR_CONCC)
		return;
	tell_trees(p);
	tell_path(p, m);
	ahead_dir(p, m->cwd);
	for (char *const *a = m->argv + 1; *m->argv && *a; a++) {
		_cleanup_free_ char *full = **a == '-' ? NULL : path_clean(m->cwd, *a);

		if (full)
			tell_way(p, full);
	}
}

void ahead_listed(struct peer *p, const char *path)
{
	_cleanup_strv_ char **dirs = xcalloc(1, sizeof(*dirs));
	const char *root = told_root(p, path);
	size_t n = 0;

	if (!root || !is_far(p))
		return;
	strv_push(&dirs, xstrdup(path));
	for (size_t i = 0; i <= n && n < CHAIN_MAX; i++) {
		_cleanup_strv_ char **names = tree_few_dirs(p->server->tree, dirs[i], FEW_DIRS,
							    SMALL_DIR);

		for (char **name = names; name && *name && n < CHAIN_MAX; name++) {
			_cleanup_free_ char *dir = path_join(dirs[i], *name);

			if (!tell_guessed_dir(p, root, dir))
				continue;
			strv_push(&dirs, steal_ptr(&dir));
			n++;
		}
	}
}

/* ---- guesses ---- */

static void send_guess(struct ahead *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!a->guess)
		return;
	msg_prefetch_encode(&b, a->dir_id, a->guess);
	link_send_buf(a->peer->link, MSG_GUESS, LINK_PRIO, &b);
	strv_free(steal_ptr(&a->guess));
}

static void tell_guess(struct ahead *a, uint32_t dir_id, const char *name)
{
	if (dir_id != a->dir_id)
		send_guess(a);
	a->dir_id = dir_id;
	strv_push(&a->guess, xstrdup(name)); /* few at once: FILES_AT_ONCE */
}

/* The stack takes path. */
static void push(struct ahead *a, char *path)
{
	strv_push(&a->todo, path);
	a->n_todo++;
}

static char *pop(struct ahead *a)
{
	char *path = a->todo[--a->n_todo];

	a->todo[a->n_todo] = NULL;
	return path;
}

static bool want(struct ahead *a, const char *path, uint64_t max, int links);

/* The same by the path without symlinks, as /lib often is one. */
static bool want_real(struct ahead *a, const char *path, uint64_t max, int links)
{
	_cleanup_free_ char *dir = path_parent(path), *real = realpath(dir, NULL), *there = NULL;

	if (!real || streq(real, dir) || links >= LINKS_MAX)
		return false;
	there = path_join(real, path_base(path));
	return want(a, there, max, links + 1);
}

/* The file at path, through so many links, unless it is larger: on the stack as a guess, when
 * nothing was told of it.  False: there is none. */
static bool want(struct ahead *a, const char *path, uint64_t max, int links)
{
	const char *root = told_root(a->peer, path), *name;
	_cleanup_free_ char *dir = path_parent(path);
	struct entry_attr attr = {0};
	const char *target;
	uint32_t id;

	if (!root)
		return want_real(a, path, max, links);
	if (!tell_guessed_dir(a->peer, root, dir))
		return false;
	id = known_to_peer(a->peer, path, &name, &attr);
	target = tree_link(a->peer->server->tree, id, name);
	if (target && links < LINKS_MAX) {
		_cleanup_free_ char *there = path_clean(dir, target);

		return want(a, there, max, links + 1);
	}
	if (attr.type != ENTRY_FILE)
		return false;
	if (attr.size > max || a->seen.n >= FILES_MAX)
		return true;
	if (map_put_str(&a->seen, path, (void *)(uintptr_t)attr.version) ==
	    (void *)(uintptr_t)attr.version)
		return true;
	map_put_str(&a->told, path, a);
	push(a, xstrdup(path));
	return true;
}

static bool want_in(struct ahead *a, const char *dir, const char *name, uint64_t max)
{
	_cleanup_free_ char *path = path_clean(dir, name);

	return path_is_clean(path) && want(a, path, max, 0);
}

/* In all directories where such names were found: there may be several of them. */
static void want_name(struct ahead *a, struct search *s, const char *name)
{
	if (s->n_names < NAMES_MAX && !map_put_str(&s->is_name, name, a)) {
		strv_push(&s->names, xstrdup(name));
		s->n_names++;
	}
	for (char **b = s->bases; *b; b++)
		(void)want_in(a, *b, name, s->max);
}

/* What files name is looked for in this directory. */
static void learn_base(struct ahead *a, struct search *s, const char *dir)
{
	size_t n = 0;

	for (char **b = s->bases; *b; b++, n++)
		if (streq(*b, dir))
			return;
	if (n == BASES_MAX)
		return;
	strv_push(&s->bases, xstrdup(dir));
	/* Backwards, since it is a stack: what was named first is read first. */
	for (size_t i = s->n_names; i-- > 0;)
		(void)want_in(a, dir, s->names[i], s->max);
}

/* By a name that a file was asked for by. */
static void learn_bases(struct ahead *a, const char *path)
{
	const char *root = told_root(a->peer, path);
	size_t min = root ? strlen(root) : SIZE_MAX;

	for (size_t n = strlen(path); n-- > min;) {
		_cleanup_free_ char *dir = NULL;

		if (path[n] != '/' || !map_get_str(&a->headers.is_name, path + n + 1))
			continue;
		dir = xstrndup(path, n);
		learn_base(a, &a->headers, dir);
	}
}

/* The names of libraries are symlinks, mostly, beside the files that these lead to. */
static void learn_library_base(struct ahead *a, uint32_t dir_id, const char *path)
{
	_cleanup_free_ char *dir = path_parent(path);

	for (char **name = a->libraries.names; *name; name++) {
		struct entry_attr attr = {0};

		tree_entry(a->peer->server->tree, dir_id, *name, &attr);
		if (attr.type == ENTRY_FILE || attr.type == ENTRY_SYMLINK) {
			learn_base(a, &a->libraries, dir);
			return;
		}
	}
}

/* It looks for libraries beside itself, too: it is one of them. */
static void want_loader(struct ahead *a, const char *loader)
{
	_cleanup_free_ char *real = realpath(loader, NULL), *dir = real ? path_parent(real) : NULL;

	if (!real || !want(a, loader, a->libraries.max, 0))
		return;
	learn_base(a, &a->libraries, dir);
}

static void scan_program(struct ahead *a, int fd)
{
	_cleanup_strv_ char **needed = NULL;
	_cleanup_free_ char *loader = NULL;

	if (elf_needed(fd, &needed) == 0)
		for (size_t i = strv_len(needed); i-- > 0;)
			want_name(a, &a->libraries, needed[i]);
	if (elf_loader(fd, &loader) == 0 && loader)
		want_loader(a, loader);
}

static void scan_text(struct ahead *a, const char *dir, const char *text, size_t n)
{
	struct mentions found;

	mentions_find(text, n, &found);
	for (size_t i = found.n_names; i-- > 0;)
		if (!found.quoted[i] || !want_in(a, dir, found.names[i], FILE_BYTES_MAX))
			want_name(a, &a->headers, found.names[i]);
	mentions_release(&found);
}

/* Reads the file for what it names.  It may be gone or changed by now: then nothing is guessed. */
static void scan(struct ahead *a, const char *path, uint32_t id, const char *name, uint64_t version)
{
	static char text[SCAN_BYTES];
	_cleanup_free_ char *dir = path_parent(path);
	_cleanup_close_ int fd = -1;
	struct entry_attr attr;
	ssize_t n;

	if (tree_open_file(a->peer->server->tree, id, name, version, &fd, &attr) < 0)
		return;
	n = pread(fd, text, sizeof(text), 0);
	if (n > SELFMAG && memcmp(text, ELFMAG, SELFMAG) == 0)
		scan_program(a, fd);
	else if (n > 0)
		scan_text(a, dir, text, (size_t)n);
}

static void take_next(struct ahead *a)
{
	_cleanup_free_ char *path = pop(a);
	struct entry_attr attr = {0};
	const char *name;
	uint32_t id = known_to_peer(a->peer, path, &name, &attr);

	if (!id || attr.type != ENTRY_FILE)
		return;
	if (map_get_str(&a->told, path))
		tell_guess(a, id, name);
	scan(a, path, id, name, attr.version);
}

static void take_turn(void *data)
{
	struct ahead *a = data;

	a->turn = NULL;
	for (int i = 0; i < FILES_AT_ONCE && a->n_todo; i++)
		take_next(a);
	send_guess(a);
	if (a->n_todo)
		a->turn = loop_defer(a->peer->server->loop, take_turn, a);
}

void ahead_asked(struct peer *p, uint32_t dir_id, const char *name)
{
	const char *dir = tree_dir_path(p->server->tree, dir_id);
	_cleanup_free_ char *path = dir ? path_join(dir, name) : NULL;
	struct ahead *a = p->ahead;
	struct entry_attr attr;

	if (!path || map_get_str(&a->told, path))
		return;
	p->asked_files++;
	if (!is_far(p) || a->seen.n >= FILES_MAX)
		return;
	tree_entry(p->server->tree, dir_id, name, &attr);
	if (attr.type != ENTRY_FILE ||
	    map_put_str(&a->seen, path, (void *)(uintptr_t)attr.version) ==
		    (void *)(uintptr_t)attr.version)
		return;
	learn_bases(a, path);
	learn_library_base(a, dir_id, path);
	push(a, steal_ptr(&path));
	if (!a->turn)
		a->turn = loop_defer(p->server->loop, take_turn, a);
}

bool ahead_is_guess(const struct peer *p, const char *path)
{
	return map_get_str(&p->ahead->told, path) != NULL;
}

int ahead_guessed(struct peer *p, struct blob payload)
{
	struct msg_prefetch m;
	int r = msg_prefetch_decode(payload, &m);

	if (r < 0)
		return r;
	for (char **n = m.names; *n; n++) {
		const char *dir = tree_dir_path(p->server->tree, m.dir_id);
		_cleanup_free_ char *path = dir ? path_join(dir, *n) : NULL;

		if (path && map_del_str(&p->ahead->told, path))
			working_set_note_guess(p, m.dir_id, *n);
	}
	msg_prefetch_release(&m);
	return 0;
}
