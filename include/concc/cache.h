/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_H
#define CONCC_CACHE_H

/*
 * Results of jobs, kept so that the same job need not be done again: keys, what a job looked at,
 * what it did, and the store of both on the client's disk.  No thread of its own, no loop, no
 * server; whoever runs jobs says what to keep.  What looks at files or the store may block as long
 * as the disk does; encoders, decoders and keys never do.  A decoder returns 0, or CONCC_E_PROTO
 * with nothing in ret; the store 0 or -errno where no more is said.
 *
 * A result is found in two steps.  The *call* (argv, cwd, environment ...) leads to the sets of
 * names that earlier runs of it looked at; for each set, what these names mean now makes the
 * *state*; call and state lead to the result.  So what was absent counts as much as what was there,
 * and nothing has to be known of the program but what it asked the kernel for.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "concc/buf.h"
#include "concc/digest.h"
#include "concc/err.h"
#include "concc/map.h"
#include "concc/proto.h"

/* Part of every key: what is kept by one version is nothing to another. */
#define CACHE_FORMAT 10

/* ---- what a job looked at: src/cache/names.c ---- */

/* Of one job.  A precompiled C++ library has some 1500. */
#define CACHE_NAMES_MAX PROTO_TRACE_NAMES_MAX

/* Each name: a letter of enum trace_how, then an absolute path as the job passed it. */
struct cache_names {
	char **v; /* sorted by path, each once; the vector is owned */
	size_t n;
	char *all;  /* where most of them are; owned, or NULL */
	char **own; /* n_own others; owned */
	size_t n_own;
};

void cache_names_release(struct cache_names *s);
/* Into an empty one: takes the vector, and all, in which its n names are.  Quickly when they are
 * sorted. */
void cache_names_set(struct cache_names *s, char **v, size_t n, char *all);
/* Takes a vector of n names more, each on the heap. */
void cache_names_add(struct cache_names *s, char **more, size_t n);
void cache_names_encode(struct buf *b, const struct cache_names *s);
int cache_names_decode(struct blob payload, struct cache_names *ret);
/* What it costs to keep them and to look at them all once, in bytes: of 32 K names some 5 MB. */
size_t cache_names_cost(struct blob payload);

/* ---- what that means now: src/cache/look.c ---- */

/*
 * Looks at files as the command would, by the kernel, as this process's user.  One thread.  What
 * was absent is not looked for again in a directory whose times say that no name came or went.
 */
struct cache_look;

/* As struct tree_place; where is what that has for the directory. */
struct cache_place {
	const void *where;
	uint64_t stamp, route;
};

struct cache_look_ops {
	/* The digest of the bytes of what `path` leads to, which has just been seen as st; or
	 * -errno. */
	int (*digest)(void *data, const char *path, const struct stat *st, struct digest *ret);
	/* Both may be NULL, which is never.  Is this regular file surely what it was when lstat(2)
	 * said st? */
	bool (*is_same)(void *data, const char *path, const struct stat *st);
	/* The directory has just been seen as st: would a name that comes from now on show in it?
	 */
	bool (*shows_changes)(void *data, const char *dir, const struct stat *st);
	/* All four may be NULL.  As tree_place(), tree_vouches(), tree_name_version() and
	 * tree_place_root(). */
	struct cache_place (*place)(void *data, const char *dir, size_t n);
	bool (*vouches)(void *data, const void *where, const char *name, const struct stat *st);
	uint64_t (*version)(void *data, const void *where, const char *name);
	const char *(*root)(void *data, const char *dir, size_t n);
	/* May be NULL.  This directory and names in it are looked at again and again: it may be
	 * worth knowing what changes in it, for place() and is_same().  Where it is of no use, it
	 * is called once more after as many looks. */
	void (*looks_often)(void *data, const char *dir);
	/* May be NULL.  May a state tell what is in this directory, or not: -EACCES then? */
	bool (*may_list)(void *data, const char *dir, const struct stat *st);
};

struct cache_look *cache_look_new(const struct cache_look_ops *ops, void *data);
void cache_look_free(struct cache_look *l);

/*
 * The state: a digest over what each name means.  With ret_fingerprints (s->n of them), a short one
 * of each, by which one can tell which changed; not of which names are the same file.  0; or -errno
 * when something can't be told now: then nothing is known.
 */
int cache_look_state(struct cache_look *l, const struct cache_names *s, struct digest *ret,
		     uint64_t *ret_fingerprints);
/* The same, of names with this digest: only those are looked at of which nothing would have told
 * that they mean something else than the last time. */
int cache_look_again(struct cache_look *l, const struct digest *set, const struct cache_names *s,
		     struct digest *ret);

/*
 * From now on these paths (a map of them to anything, borrowed; NULL: none) are taken for absent
 * when they are looked at by just this name.
 */
void cache_look_without(struct cache_look *l, const struct map *paths);

/* Of all sets that are looked at from now on together, no more names are listed than four times as
 * many as of one. */
void cache_look_begin(struct cache_look *l);

/* That of the calls whose names are looked at from now on: what outputs are made with. */
void cache_look_umask(struct cache_look *l, unsigned umask);

/* The digest op notes in *facts (borrowed; NULL: it does not) what it finds in files; of names of
 * which it is not asked again, what it had noted of them is noted once more. */
void cache_look_facts(struct cache_look *l, unsigned *facts);

/* What lstat(2) said, for who must know it of all names: of the last cache_look_state(). */
struct cache_looked {
	int err; /* positive errno; 0: it is there, as */
	struct stat st;
	uint64_t stamp; /* see cache_look_stamp() */
};
/* Of name i of that set; borrowed until the next.  NULL: it was not asked for. */
const struct cache_looked *cache_look_last(const struct cache_look *l, size_t i);
/* The name means what was found as long as its directory has that stamp; 0: no stamp would tell. */
uint64_t cache_look_stamp(const struct cache_look *l, size_t i);

/* What has become of a name of which there are two fingerprints that differ: words for a person. */
const char *cache_look_change(char how, uint64_t before, uint64_t now);

/* ---- results: src/cache/entry.c ---- */

#define CACHE_EFFECTS_MAX 4096
#define CACHE_OUTPUT_MAX  (4 * 1024 * 1024) /* bytes said; who says more is not kept */

#define CACHE_ENTRY_MAX (16u * 1024 * 1024) /* bytes of it all, as an object */

/* What a job did. */
struct cache_entry {
	char **workspaces; /* which effects name by index; owned */
	size_t n_effects;
	/* In the order in which they are repeated.  The bytes of EFFECT_FILE are in the store by
	 * digest; job_id is 0; owned. */
	struct msg_file *effects;
	bool announced;	   /* files were in place before what it said: others went on by that */
	struct buf output; /* for each chunk: u8 stream, blob */
	uint32_t input;	   /* bytes of its standard input that it has read */
	uint64_t utime_us, stime_us, wall_us, maxrss_kb;
	uint64_t kept_s;	/* CLOCK_REALTIME */
	size_t n_fingerprints;	/* of the names of its set, in their order */
	uint64_t *fingerprints; /* owned */
	char *worker;		/* that did it; owned */
};

void cache_entry_release(struct cache_entry *e);
void cache_entry_encode(struct buf *b, const struct cache_entry *e);
int cache_entry_decode(struct blob payload, struct cache_entry *ret);

/* ---- keys: src/cache/key.c ---- */

/* What decides a job beside files. */
struct cache_call {
	const struct msg_run *run;
	uint32_t uid, gid;
	bool client_root;
};

/*
 * May results of it be kept, as far as its words tell?  NULL, or why not, in a word.  Only drivers
 * of GCC and clang, of which it is known what of their environment they read; and what the caller
 * asks it for (JOB_F_KEEP), of which nothing is known: all that it is given counts then.
 */
const char *cache_refuses(const struct msg_run *m);
/* The same of all its arguments, those in the files that it names (@FILE) included, which must be
 * true when something is kept. */
const char *cache_refuses_args(char *const *args);
bool cache_has_argfiles(char *const *argv);
/* The same of a program that it started (a base name): NULL, or why not. */
bool cache_knows_tool(const char *name);
void cache_call_digest(const struct cache_call *c, struct digest *ret);
/* A compiler of which it is only known that it goes by no times, and what of all that it reads does
 * not matter. */
bool cache_is_rustc(const struct msg_run *m);
/* Does this variable of its environment matter? */
bool cache_reads_variable(const struct msg_run *m, const char *name, size_t len);

/* ---- the parts of a call, for a person: src/cache/parts.c ---- */

#define CACHE_PARTS_MAX (64 * 1024) /* bytes of one call's; longer ones are not kept */
#define CACHE_SHOWN_MAX 200	    /* bytes of an argument */

/* What a call is told apart by.  Of a variable there is its name, and no more of its value than
 * shows that it is another one. */
struct cache_parts {
	struct digest call;
	char **argv;		/* owned */
	char **names;		/* "variable LANG", "the umask" ...; n of them, owned */
	uint64_t *fingerprints; /* of each, owned */
	size_t n;
};

void cache_parts_of(const struct cache_call *c, struct cache_parts *ret);
void cache_parts_release(struct cache_parts *w);
/* By what calls of one program for one output in one directory have in common. */
void cache_parts_key(const struct cache_call *c, struct digest *ret);
void cache_parts_encode(struct buf *b, const struct cache_parts *w);
int cache_parts_decode(struct blob payload, struct cache_parts *ret);
/* A line for each difference, and how many there are. */
size_t cache_parts_compare(const struct cache_parts *before, const struct cache_parts *now,
			   struct buf *ret);

/* ---- the store: src/cache/store.c ---- */

/*
 * A folder shared by all processes of the user.  Every object has a name of its own, is written
 * beside it and renamed, or behind what is there, and is checked against its digest whenever it is
 * read; nothing is synced, so a crash or a power cut leaves a whole object or none that counts.
 * When it holds more than it may, what was not used for longest goes.  Any thread may call; all
 * calls may block.
 */
struct cache_store;

/* dir is made when missing.  max_bytes: of all objects, by the blocks they take. */
int cache_store_open(const char *dir, uint64_t max_bytes, struct cache_store **ret,
		     struct errmsg *msg);
void cache_store_close(struct cache_store *s);

/* By contents.  The first copies what fd holds from its begin, unless it is there: CONCC_E_STALE
 * when that is something else. */
int cache_put_fd(struct cache_store *s, int fd, const struct digest *d);
int cache_put_bytes(struct cache_store *s, const void *p, size_t n, struct digest *ret);
/* At most max bytes; -ENOENT when it is not there or not what it should be (it is removed then). */
int cache_get_bytes(struct cache_store *s, const struct digest *d, size_t max, struct buf *ret);
bool cache_has(struct cache_store *s, const struct digest *d);

/* One way in which a call has gone: the set of names that it looked at, and the state that they
 * were in.  A call has as many results as it has variants.  */
struct cache_variant {
	struct digest set, state;
};

/* Those of this call, used last first.  A set may be there several times, once for each state. */
#define CACHE_VARIANTS_MAX 32
/* As an object. */
#define CACHE_VARIANTS_BYTES (DIGEST_SIZE + CACHE_VARIANTS_MAX * sizeof(struct cache_variant))
#define CACHE_STATES_MAX     4 /* of one set: others are found all the same, and only not told of */
int cache_get_variants(struct cache_store *s, const struct digest *call, struct cache_variant *ret,
		       size_t *ret_n);
/* Puts it first; the oldest goes when there are too many. */
int cache_add_variant(struct cache_store *s, const struct digest *call,
		      const struct cache_variant *variant);

/* The result of a call in a state; -ENOENT when none is kept. */
int cache_get_entry(struct cache_store *s, const struct digest *call, const struct digest *set,
		    const struct digest *state, struct cache_entry *ret);
int cache_put_entry(struct cache_store *s, const struct digest *call, const struct digest *set,
		    const struct digest *state, const struct cache_entry *e);

/*
 * What is kept of a call first: a result, its set of names, and of its files those that are small,
 * as one object, which is one file to be made, and to be opened when it is found again.
 */
#define CACHE_FIRST_FILES_MAX                                                                      \
	(256 * 1024) /* bytes, of all its files: larger ones may be shared                         \
		      */

struct cache_first {
	struct cache_variant variant;
	struct blob set, entry; /* as encoded */
	size_t n_files;
	struct cache_first_file {
		struct digest digest;
		struct blob bytes;
	} * files;
	struct buf bytes; /* of one that was read: owned as files are, and what blobs are in */
};

/* Is nothing kept of it yet? */
bool cache_is_new(struct cache_store *s, const struct digest *call);
/* Is that of this set of names, if it is whole? */
bool cache_first_seems_of(struct cache_store *s, const struct digest *call,
			  const struct digest *set);
int cache_put_first(struct cache_store *s, const struct digest *call, const struct cache_first *f);
/* -ENOENT as for other results. */
int cache_get_first(struct cache_store *s, const struct digest *call, struct cache_first *ret);
void cache_first_release(struct cache_first *f);
/* All of one that may be zero, which is none.  Its variant is behind those that were used later. */
void cache_first_add(const struct cache_first *f, struct cache_variant ret[CACHE_VARIANTS_MAX],
		     size_t *n);
/* -ENOENT: it is of another state. */
int cache_first_entry(const struct cache_first *f, const struct cache_variant *variant,
		      struct cache_entry *ret);
/* Borrowed; NULL: it has it not. */
const struct blob *cache_first_set(const struct cache_first *f, const struct digest *set);
const struct blob *cache_first_file(const struct cache_first *f, const struct digest *d);

/* Parts of calls whose results were kept, by cache_parts_key(), the newest first. */
#define CACHE_PARTS_KEPT 4
int cache_get_parts(struct cache_store *s, const struct digest *key,
		    struct cache_parts ret[CACHE_PARTS_KEPT], size_t *ret_n);
/* -EMSGSIZE: they are too long to be kept. */
int cache_add_parts(struct cache_store *s, const struct digest *key, const struct cache_parts *w);

/* Objects as they are in the store, for who moves them from one to another. */
enum cache_kind {
	CACHE_BYTES = 'c',    /* contents and sets of names; by their digest */
	CACHE_RESULT = 'r',   /* by cache_entry_key() */
	CACHE_VARIANTS = 'w', /* by the call */
};

struct cache_key {
	enum cache_kind kind;
	struct digest digest;
};

void cache_entry_key(const struct digest *call, const struct cache_variant *variant,
		     struct digest *ret);
/* Whole, and checked as whenever it is read.  Writes nothing. */
int cache_read_object(struct cache_store *s, const struct cache_key *key, size_t max,
		      struct buf *ret);
/* Checked in the same way: CONCC_E_PROTO when it is none.  The variants of a call are added to
 * those that are there. */
int cache_write_object(struct cache_store *s, const struct cache_key *key, const struct buf *b);
/* What a result is, as an object. */
int cache_decode_result(const struct digest *key, const struct buf *b, struct cache_entry *ret);
/* Two objects with variants of a call: to becomes both.  What is none counts as nothing. */
void cache_merge_variants(const struct digest *call, struct buf *to, const struct buf *from);

/* Has it grown beyond its bound since it was last trimmed, as far as its processes have counted? */
bool cache_is_full(const struct cache_store *s);
/* Removes what was not used for longest; what is being trimmed by another is left to it.  Reads all
 * folders: not for a loop's thread.  0 or -errno. */
int cache_trim(struct cache_store *s);
int cache_clear(struct cache_store *s); /* removes all */

/* Of all processes that ever used it, since it was cleared. */
struct cache_counts {
	uint64_t bytes, objects; /* as last counted, and written since */
	uint64_t hits, misses, kept, uncacheable;
	uint64_t saved_us; /* CPU of jobs that need not be done */
};
void cache_counts(const struct cache_store *s, struct cache_counts *ret);
void cache_count_hit(struct cache_store *s, uint64_t saved_us);
void cache_count_miss(struct cache_store *s);
void cache_count_kept(struct cache_store *s);
/* why: a short word, as in concc(7); the first 62 different ones are told apart. */
void cache_count_uncacheable(struct cache_store *s, const char *why);
/* What this process has counted, for the others, and what they have; unless all: only if that is
 * much.  These other calls count in memory, and never block. */
void cache_write_counts(struct cache_store *s, bool all);
/* The words and how often; index from 0 until it is false. */
bool cache_reason(const struct cache_store *s, size_t index, char ret_why[32], uint64_t *ret_n);

#endif
