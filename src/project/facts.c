/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"
#include "shown.h"
#include "workspaces.h"

#define FACTS_MAX   (256 * 1024) /* files: some 20 MB */
#define SCAN_CHUNK  (256 * 1024)
#define SCAN_BEHIND 16 /* a word that two chunks share is found in the second */
/* What one look reads on the loop's thread: some 4 ms.  To open a file takes as long as to read
 * about so much of it. */
#define AT_ONCE_MAX   (1024 * 1024)
#define BYTES_TO_OPEN (8 * 1024)
/* A disk that takes longer is not worth what would be kept, or found. */
#define WAIT_MS 4000

/* A file as it was seen, and what a thread has found in it. */
struct facts_file {
	char *path;
	struct stat st;
	bool with_facts; /* these are wanted, too */
	bool has_digest; /* which is known already */
	bool racy;	 /* it may have been changed since within one tick of its clock */
	bool stamps;	 /* struct fs_traits */
	int err;
	struct digest digest;
	unsigned facts;
};

/* Files that a thread reads for somebody who waits. */
struct reading {
	struct results *results;
	struct list queue;	  /* of results.readings, until it is that thread's */
	void (*go_on)(void *arg); /* NULL: nobody waits any more */
	void *arg;
	struct loop_source *timer;
	uint64_t mounts; /* when it began: so many changes */
	bool hung;	 /* for so long that nobody waits */
	struct facts_file *files;
	size_t n_files;
	atomic_size_t at; /* the one that is read */
	atomic_bool useless;
};

/* ---- what bytes are: on any thread ---- */

static const struct {
	const char *word;
	unsigned fact;
} words[] = {
	{"__DATE__", FACT_TIME},
	{"__TIME__", FACT_TIME},
	{"__TIMESTAMP__", FACT_TIMESTAMP},
};

static void look_for_words(const char *p, size_t n, unsigned *facts)
{
	for (size_t i = 0; i < N_OF(words); i++)
		if (memmem(p, n, words[i].word, strlen(words[i].word)))
			*facts |= words[i].fact;
}

static unsigned kind_of(const char *p, size_t n)
{
	static const char *const precompiled[] = {"gpch", "CPCH"};

	if (n >= 4 && memcmp(p, "\177ELF", 4) == 0)
		return FACT_ELF;
	if (n >= 2 && memcmp(p, "#!", 2) == 0)
		return FACT_SCRIPT;
	for (size_t i = 0; i < N_OF(precompiled); i++)
		if (n >= 4 && memcmp(p, precompiled[i], 4) == 0)
			return FACT_PRECOMPILED;
	return 0;
}

static bool is_elf(int fd)
{
	char magic[4];

	return pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	       kind_of(magic, sizeof(magic)) == FACT_ELF;
}

/*
 * Scans, and hashes at one go when ctx is not NULL.  useless, or NULL: set, when nobody waits.  Of
 * no more than so many bytes: what has more has changed, or is one of the kernel's files, which
 * have no size, and some no end.
 */
static int scan(int fd, uint64_t max, struct digest_ctx *ctx, const atomic_bool *useless,
		unsigned *ret_facts)
{
	_cleanup_free_ char *buf = NULL;
	uint64_t total = 0;
	size_t behind = 0;
	bool first = true;
	ssize_t n = 0;

	*ret_facts = FACT_ELF;
	if (!ctx && is_elf(fd))
		return 0; /* nothing more is asked of those */
	*ret_facts = 0;
	buf = xmalloc(SCAN_BEHIND + SCAN_CHUNK);
	while ((n = read_full(fd, buf + behind, SCAN_CHUNK)) > 0) {
		size_t all = behind + (size_t)n;

		if (useless && atomic_load(useless))
			return CONCC_E_CLOSED;
		total += (uint64_t)n;
		if (total > max)
			return CONCC_E_STALE;
		if (ctx)
			digest_update(ctx, buf + behind, (size_t)n);
		if (first)
			*ret_facts = kind_of(buf, all);
		first = false;
		if (!(*ret_facts & FACT_ELF))
			look_for_words(buf, all, ret_facts);
		behind = all < SCAN_BEHIND ? all : SCAN_BEHIND;
		memmove(buf, buf + all - behind, behind);
	}
	return n < 0 ? (int)n : 0;
}

static int hash_and_scan(int fd, uint64_t max, const atomic_bool *useless, struct digest *ret,
			 unsigned *ret_facts)
{
	struct digest_ctx *ctx = digest_new();
	int err = scan(fd, max, ctx, useless, ret_facts);

	digest_final(ctx, ret);
	digest_free(ctx);
	return err;
}

/* What its path leads to, while it is f->st before and after it was read. */
static int read_file(struct facts_file *f, const atomic_bool *useless)
{
	/* Whatever it has become by now, opening it must neither wait nor act. */
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct fs_traits traits;
	struct stat now;
	uint64_t size;
	int err;

	if (fd < 0)
		return -errno;
	traits = fs_traits(fd);
	f->racy = stat_is_racy(&f->st, clock_ns(), traits.network);
	f->stamps = traits.stamps;
	if (fstat(fd, &now) < 0)
		return -errno;
	if (!stat_is_unchanged(&now, &f->st))
		return CONCC_E_STALE;
	size = (uint64_t)f->st.st_size;
	err = f->has_digest ? scan(fd, size, NULL, useless, &f->facts)
			    : hash_and_scan(fd, size, useless, &f->digest, &f->facts);
	if (err == 0 && (fstat(fd, &now) < 0 || !stat_is_unchanged(&now, &f->st)))
		err = CONCC_E_STALE;
	return err;
}

/* ---- what is known of them ---- */

static void know(struct results *r, const struct facts_file *f)
{
	if (r->facts.n >= FACTS_MAX) {
		map_release(&r->facts);
		r->facts = MAP_INIT;
	}
	(void)map_put(&r->facts, f->digest.b, DIGEST_SIZE, (void *)((uintptr_t)f->facts + 1));
	if (!f->racy && !f->has_digest)
		hash_cache_put(r->server->hashes, &f->st, &f->digest, f->stamps);
}

static bool has_digest(struct results *r, const struct stat *st, struct digest *ret)
{
	return !stat_is_racy(st, clock_ns(), false) && hash_cache_get(r->server->hashes, st, ret);
}

/* Fills in f what is known of f->st; true: there is nothing to be read. */
static bool is_known(struct results *r, struct facts_file *f)
{
	uintptr_t known;

	f->has_digest = has_digest(r, &f->st, &f->digest);
	if (!f->has_digest || !f->with_facts)
		return f->has_digest;
	known = (uintptr_t)map_get(&r->facts, f->digest.b, DIGEST_SIZE);
	f->facts = known ? (unsigned)(known - 1) : 0;
	return known;
}

static void files_free(struct facts_file *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i].path);
	free(v);
}

static void forget_left(struct results *r)
{
	files_free(steal_ptr(&r->left), r->n_left);
	r->n_left = 0;
}

static void files_add(struct facts_file **v, size_t *n, const struct facts_file *f)
{
	if ((*n & (*n - 1)) == 0)
		*v = xrealloc(*v, (*n ? 2 * *n : 1) * sizeof(**v));
	(*v)[*n] = *f;
	(*v)[(*n)++].path = xstrdup(f->path);
}

void facts_begin(struct results *r, enum facts_at_once what)
{
	bool hangs = r->reading && r->reading->hung;

	forget_left(r);
	r->may_read = AT_ONCE_MAX;
	r->may_read_young = what == FACTS_YOUNG && !hangs;
}

/* Of files that are the same each time it is once for each, so most looks read next to nothing. */
static bool may_read(struct results *r, const struct facts_file *f)
{
	uint64_t cost = BYTES_TO_OPEN + (uint64_t)f->st.st_size;

	if (r->may_read_young && stat_is_racy(&f->st, clock_ns(), true)) {
		server_pulse(r->server);
		return true;
	}
	if (cost > r->may_read) {
		r->may_read = 0; /* nor what is smaller: it is read by the thread */
		files_add(&r->left, &r->n_left, f);
		return false;
	}
	r->may_read -= cost;
	return true;
}

/* To any worker, be it by showing it what is on this disk. */
static bool is_served(const struct server *s, const char *real)
{
	bool found = tree_root_of(s->tree, real, NULL);

	for (unsigned i = 0; i < s->n_peers && !found; i++)
		found = shown_has(s->peers[i], real);
	return found;
}

/*
 * May a key tell of this?  Keys go to a shared cache, and the name is a worker's or comes from
 * there: who chooses both could guess what is in any file.  What everybody here may read is none of
 * the user's secrets, but for what he keeps among these; and workers see what is served.
 */
static bool may_tell(const struct results *r, const char *path, const struct stat *st)
{
	_cleanup_free_ char *real = NULL, *secret = NULL;
	bool is_open = st->st_mode & S_IROTH;

	if (is_open && workspaces_is_system_path(path) && !strstr(path, "/.."))
		return true;
	real = realpath(path, NULL);
	if (!real)
		return false;
	if (is_served(r->server, real))
		return true;
	if (!is_open || workspaces_is_system_path(real))
		return is_open;
	secret = path_secret(real);
	return !secret;
}

bool facts_may_list(void *data, const char *dir, const struct stat *st)
{
	return may_tell(data, dir, st);
}

int results_facts(struct results *r, const char *path, const struct stat *st, struct digest *ret,
		  unsigned *ret_facts)
{
	struct facts_file f = {.path = (char *)path, .st = *st, .with_facts = true};
	int err;

	if (!is_known(r, &f)) {
		if (!may_tell(r, path, st))
			return -EACCES;
		if (!may_read(r, &f))
			return CONCC_E_LATER;
		err = read_file(&f, NULL);
		if (err < 0)
			return err;
		know(r, &f);
	}
	*ret = f.digest;
	*ret_facts = f.facts;
	return 0;
}

int facts_digest(void *data, const char *path, const struct stat *st, struct digest *ret)
{
	struct results *r = data;
	unsigned facts = 0;
	int err = 0;

	if (r->wants_facts || !has_digest(r, st, ret))
		err = results_facts(r, path, st, ret, &facts);
	r->read_facts |= err < 0 ? FACT_UNREADABLE : facts;
	return err;
}

/* ---- more of it ---- */

/* Each file once, whatever its names. */
static void collect_file(struct reading *g, struct map *known, const struct facts_file *f)
{
	const uint64_t key[] = {f->st.st_dev, f->st.st_ino};
	uintptr_t at = (uintptr_t)map_get(known, key, sizeof(key));

	if (at) {
		g->files[at - 1].with_facts |= f->with_facts;
		return;
	}
	files_add(&g->files, &g->n_files, f);
	(void)map_put(known, key, sizeof(key), (void *)(uintptr_t)g->n_files);
}

static void collect(struct reading *g, const struct cache_names *names, bool with_facts)
{
	struct results *r = g->results;
	struct map known = MAP_INIT;

	for (size_t i = 0; i < r->n_left; i++)
		collect_file(g, &known, &r->left[i]);
	forget_left(r);
	for (size_t i = 0; i < names->n; i++) {
		const char how = names->v[i][0];
		struct facts_file f = {
			.path = names->v[i] + 1,
			.with_facts = with_facts || how == TRACE_EXEC,
		};

		if ((how == TRACE_READ || how == TRACE_EXEC) && stat(f.path, &f.st) == 0 &&
		    S_ISREG(f.st.st_mode) && !is_known(r, &f) && may_tell(r, f.path, &f.st))
			collect_file(g, &known, &f);
	}
	map_release(&known);
}

static void read_all(void *arg)
{
	struct reading *g = arg;

	for (size_t i = 0; i < g->n_files && !atomic_load(&g->useless); i++) {
		atomic_store(&g->at, i);
		g->files[i].err = read_file(&g->files[i], &g->useless);
	}
}

static void destroy(struct reading *g)
{
	loop_remove(g->timer);
	files_free(g->files, g->n_files);
	free(g);
}

static void all_read(void *arg);

/* The one that waits for longest: what was read since it began to is left out. */
static void read_next(struct results *r)
{
	struct reading *g;
	size_t n = 0;

	if (r->reading || list_empty(&r->readings))
		return;
	g = r->reading = list_first(&r->readings, struct reading, queue);
	list_remove(&g->queue);
	for (size_t i = 0; i < g->n_files; i++) {
		if (is_known(r, &g->files[i]))
			free(g->files[i].path);
		else
			g->files[n++] = g->files[i];
	}
	g->mounts = tree_mounts(r->server->tree);
	for (size_t i = 0; i < n; i++)
		g->files[i].err = CONCC_E_LATER; /* until it is read */
	g->n_files = n;
	(void)offload_put(r->to_look, read_all, all_read, g, 0); /* one at once */
}

static void all_read(void *arg)
{
	struct reading *g = arg;
	struct results *r = g->results;
	void (*go_on)(void *arg) = g->go_on;
	void *whose = g->arg;

	r->reading = NULL;
	for (struct facts_file *f = g->files; f < g->files + g->n_files; f++) {
		f->racy |= !f->stamps && g->mounts != tree_mounts(r->server->tree);
		if (f->err == 0)
			know(r, f);
	}
	destroy(g);
	read_next(r);
	if (go_on)
		go_on(whose);
}

/* It goes on with what is known. */
static void on_timer(void *data)
{
	struct reading *g = data, *now = g->results->reading;
	void (*go_on)(void *arg) = g->go_on;
	void *whose = g->arg;

	g->timer = NULL;
	if (now && !now->hung && now->n_files)
		log_warn("reading %s takes long; until it is done, results are neither kept nor "
			 "found that need more than is known",
			 now->files[atomic_load(&now->at)].path);
	if (now)
		now->hung = true;
	reading_free(g);
	go_on(whose);
}

struct reading *facts_wait(struct results *r, const struct cache_names *names, bool with_facts,
			   void (*go_on)(void *arg), void *arg)
{
	struct reading *g;

	if (r->reading && r->reading->hung)
		return NULL;
	g = xcalloc(1, sizeof(*g));
	g->results = r;
	g->go_on = go_on;
	g->arg = arg;
	collect(g, names, with_facts);
	g->timer = loop_add_timer(r->server->loop, WAIT_MS, on_timer, g);
	list_append(&r->readings, &g->queue);
	read_next(r);
	return g;
}

void reading_free(struct reading *g)
{
	if (!g)
		return;
	if (g->results->reading != g) {
		list_remove(&g->queue);
		destroy(g);
		return;
	}
	/* The thread's: it is freed when that has done with it. */
	g->go_on = NULL;
	loop_remove(steal_ptr(&g->timer));
	/* What hangs, or takes long, is read for who comes next. */
	if (!g->hung)
		atomic_store(&g->useless, true);
}

void facts_stop(struct results *r)
{
	if (r->reading)
		atomic_store(&r->reading->useless, true);
}

void facts_release(struct results *r)
{
	forget_left(r);
	map_release(&r->facts);
}
