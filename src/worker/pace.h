/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_PACE_H
#define CONCC_WORKER_PACE_H

/*
 * Whether this host's processors are as fast as they were when we came up: they are slowed down
 * where they are too hot, or by who lends them and keeps their time without a word.  By CPU time,
 * so that who else uses them does not matter: for that, and for quotas, see crowd.h.
 */
#include <stdbool.h>
#include <stdint.h>

struct offload;
struct pace;

/* speed: of core_speed(), then.  It is measured on a thread of `threads`, which is borrowed;
 * changed(data) is called when something else was found, in offload_dispatch(). */
struct pace *pace_new(uint32_t speed, struct offload *threads, void (*changed)(void *data),
		      void *data);
void pace_free(struct pace *p); /* NULL is fine; after offload_free() */
/*
 * Thousandths of it, as was found last; 1000 as long as they are at least half as fast, since one
 * that shares its core, or is one of many that are busy, is somewhat slower, too.  With jobs it is
 * measured again: half a millisecond, or 0.1 s each 10 s where they seem slow.
 */
uint32_t pace_look(struct pace *p, bool has_jobs);

#endif
