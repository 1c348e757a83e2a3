/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_RESULTS_H
#define CONCC_PROJECT_RESULTS_H

/*
 * Results that are kept and found again (concc/cache.h), when the configuration says so:
 *
 *   results.c    the store
 *   facts.c      what is known of files' bytes
 *   recording.c  one job, from its dispatch to its end: what is to be kept of it
 *   recording_names.c  which of the names that it looked at count
 *   keep.c       what it did, into the store
 *   unchanged.c  whether what a job looked at is still what it saw
 *   lookup.c     a job that need not be done
 *   seek.c       what is kept of it, out of the store
 *   sets.c       the sets of names in there, and what they may cost
 *   why.c        what a person is told of that
 *
 * The store is read and written by threads, since its disk may be slow, full, or of a host that
 * does not answer.  So are files that have to be hashed for a job's end or a look-up, and large
 * results put in place, if that is more than some milliseconds' work.  What stays on the loop's
 * thread: looking at the names of a job (of the client's own files, by lstat(2) and the like), as a
 * job's dispatch and end do too.
 */
#include "concc/cache.h"
#include "concc/cache_remote.h"
#include "server.h"

struct results {
	struct server *server;
	struct cache_store *store;
	struct cache_look *look;
	struct map facts;      /* digest -> enum fact bits + 1 */
	struct map loaders;    /* digest of a program -> path of its loader or "", owned */
	struct map disks;      /* device -> enum disk_kind, of directories; while there are: */
	uint64_t disks_mounts; /* so many changes of mounts */
	/* facts.c */
	bool wants_facts;
	unsigned read_facts;	 /* of all files that were digested since it was reset */
	uint64_t may_read;	 /* bytes more, in this look */
	uint64_t may_read_young; /* the same, of what has just changed */
	struct facts_file *left; /* what was not read for that, n_left of them; owned */
	size_t n_left;
	struct list readings;	 /* struct reading, which wait for the thread */
	struct reading *reading; /* what it has, or NULL */
	/* Threads, and what they do: each of these one after the other. */
	struct offload *offload;
	struct offload_lane *to_keep, *to_read, *to_trim, *to_look, *to_place;
	struct loop_source *source;
	struct map keeping; /* call -> how many results of it wait for the disk */
	unsigned n_keeping; /* of all calls */
	unsigned n_open;    /* files of those */
	unsigned n_hung;    /* readings that nobody waits for any more, and have not ended */
	bool trimming, shares;
	uint64_t n_lost;		   /* results: the disk was too slow */
	uint64_t n_hits, n_misses, n_kept; /* of this server */
	struct map reasons;		   /* why not -> uint64_t *, of this server */
	struct cache_remote *remote;	   /* others' results, or NULL */
	struct loop_source *replies;
	struct map seeks; /* tag -> struct seek *, which waits for some of them */
	uint64_t last_tag;
	struct map looked_sets; /* digests of names that trigger no mount, while there are: */
	uint64_t looked_mounts; /* so many changes of mounts */
	struct map refused;	/* call -> why not, of its last job; static words */
};

/* Without a store, when none is wanted or it can't be opened, which is told. */
void results_open(struct server *s);
/* False: a thread hangs, and uses what there is. */
bool results_close(struct server *s);
void results_reason(struct results *r, const char *why); /* one job of which nothing is kept */
/* why: of the last job of this call nothing was kept; NULL: it was. */
void results_remember(struct results *r, const struct digest *call, const char *why);
void results_forget_loaders(struct results *r);
/* After something was put into the store. */
void results_trim(struct results *r);

struct client;
struct seek;
/* `concc why`: answers with a line or some.  Nothing is put in place, nothing is counted.  False: k
 * (NULL in a server that keeps no results) goes on when files were read, to ask again. */
bool why_explain(struct client *c, const struct msg_run *m, struct seek *k);
struct why;
void why_free(struct why *w); /* NULL is fine */

/* Something from others has come. */
void seek_replies(void *data, uint32_t events);
/* Is a result of this call on its way into the store? */
bool results_is_keeping(const struct results *r, const struct digest *call);
/* The answer to `flush`, when all that is known of now is kept. */
void results_flush(struct client *c);

struct run;
struct recording;

/* Do its jobs see what is on this machine's disks, and nothing else? */
bool recording_sees_our_files(const struct peer *p);
/* NULL: nothing is kept of this job, for a reason that is counted, or because nothing ever is. */
struct recording *recording_new(struct peer *p, const struct msg_run *m, char *const *workspaces,
				uint64_t saw);
void recording_free(struct recording *r); /* NULL is fine, here and below */
/* More of its input; none: its end. */
void recording_input(struct recording *r, struct blob bytes);
void recording_input_read(struct recording *r, uint32_t n); /* bytes more, by the job */
void recording_output(struct recording *r, uint8_t stream, struct blob bytes);
void recording_file(struct recording *r, const struct msg_file *f);
/* Some of it, all that was told of so far, will now be put in place while it runs. */
void recording_announced(struct recording *r);
/* It was looked for in vain by the job, and is here. */
void recording_missing(struct recording *r);
int recording_trace(struct recording *r, struct blob payload);
/* It has ended, and nothing of it is in place yet: what did it look at?  Then, in place: keep.
 * False: go_on(arg) is called when more is known, to ask again, unless r is freed before. */
bool recording_look(struct recording *r, const struct msg_exit *end, void (*go_on)(void *arg),
		    void *arg);
/* Takes r. */
void recording_keep(struct recording *r, const struct msg_exit *end, const char *worker);

enum disk_kind { DISK_LOCAL = 1, DISK_NETWORK };

/* How a job saw files at its dispatch, by which one tells what has changed since. */
struct baseline {
	struct tree *tree;
	char *const *mirrored; /* see baseline_init() */
	uint64_t version, stamp;
	struct timespec when; /* CLOCK_REALTIME, coarse */
	/* Of the name before: its directory, the same in the tree, and its stamp. */
	const char *dir;
	size_t dir_len;
	struct tree_place place;
	struct map *disks; /* see baseline_init() */
	struct map dirs;   /* clean path of a directory -> what its times tell, as in unchanged.c */
	struct map seen;   /* clean path -> what was found there; of names on the way */
};

/* mirrored: trees that the job sees by our listings only (lives as long as s); NULL: all.  disks:
 * of several baselines, between which nothing was mounted. */
void baseline_init(struct baseline *s, struct tree *t, uint64_t version, char *const *mirrored,
		   struct map *disks);
void baseline_release(struct baseline *s);
/* After a drain: is it sure that this name is what was found under that stamp (0: what lstat(2) has
 * just said), and was so then?  Quickly, of names one directory after the other, while the tree is
 * used for nothing else; path lives on. */
bool baseline_is_quiet(struct baseline *s, const char *path, uint64_t stamp,
		       const struct cache_looked *looked);
/* After a drain: does this absolute path, however written, lead to what it led to then?  follow:
 * through a symlink that it ends with.  links_count: with as many names.  looked: what lstat(2) of
 * it has just said, or NULL.  False also when that can't be told. */
bool baseline_unchanged(struct baseline *s, const char *path, bool follow, bool links_count,
			const struct cache_looked *looked);
/* Does it hold the names that it held then?  Of a directory that is the same one. */
bool baseline_same_names(struct baseline *s, const char *dir);

#endif
