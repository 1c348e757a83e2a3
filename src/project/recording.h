/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_RECORDING_H
#define CONCC_PROJECT_RECORDING_H

/*
 * What is known of a job of which a result may be kept, between the files that fill it in: see
 * results.h.
 */
#include "facts.h"
#include "results.h"

struct recording {
	struct results *results;
	struct server *server;
	const char *why; /* it can't be kept, or NULL */
	struct digest parts_key;
	struct cache_variant variant; /* the set when it is kept */
	struct cache_parts parts;     /* of the call */
	char **argv; /* when there are options in files, which are looked into at the end */
	char *cwd;
	bool has_epoch;	   /* SOURCE_DATE_EPOCH is set */
	bool rust;	   /* it is rustc, which goes by no times, but may run any code */
	char **not_listed; /* the names in these directories say nothing */
	bool has_names;	   /* those that count are chosen */
	char *out_dir;	   /* rustc's, or NULL */
	unsigned umask;
	struct map announced; /* path -> a copy of it, owned: put in place before its end, and
			     absent before */
	bool any;	      /* command: nothing is known of it, but that its caller wants this */
	bool no_times;	      /* which its caller says it does not go by */
	bool asks_time;	      /* the time zone, that is */
	bool asks_random;
	bool asks_selinux; /* whether there is such a thing: libselinux, in cp and the like */
	bool unknown;	   /* some program of it was none of a compiler's */
	struct buf input;  /* what it was said to be; else nothing was to come */
	size_t n_input;	   /* of it, what has come */
	bool traced, chosen, looked;
	/* What it looked at is read by a thread, since it is much; then, and how often it was. */
	struct reading *reading;
	void (*go_on)(void *arg);
	void *go_on_arg;
	unsigned n_readings;
	bool wants_places; /* it asked for the path of something that it had open */
	bool wants_exe;	   /* and of what it is itself */
	struct baseline baseline;
	uint64_t mounts; /* as the tree had counted at the dispatch */
	struct cache_names names;
	struct cache_entry entry;
	size_t cap;
	/* Once it is kept: of each effect, -1: none; how many; their bytes. */
	int *fds;
	unsigned n_fds;
	uint64_t n_bytes;
};

/* The first reason is the one that counts. */
void recording_uncacheable(struct recording *r, const char *why);
/* Where an effect is, on the heap. */
char *recording_path_of(const struct recording *r, const struct msg_file *f);

/* ---- recording_names.c: in this order, when it has ended; each may spoil ---- */

/* Leaves out what says nothing. */
void recording_choose_names(struct recording *r);
/* The programs that it executed: are they known, and what the kernel opened for them.
 * CONCC_E_LATER: nothing was done. */
int recording_look_at_programs(struct recording *r);
void recording_check_unforeseen(struct recording *r);
void recording_add_times(struct recording *r);
void recording_add_ways(struct recording *r);
void recording_add_places(struct recording *r);
/* Of what a compiler has written anew. */
void recording_add_outputs(struct recording *r);

/* ---- keep.c ---- */

/* Before anything is in place: files that it wrote as they were are outputs like others.  May
 * spoil. */
void recording_look_at_touched(struct recording *r);

#endif
