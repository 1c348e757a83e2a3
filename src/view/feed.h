/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_FEED_H
#define CONCC_VIEW_FEED_H

/*
 * What the project servers of this user tell who looks at them: the one of this environment, and
 * those of `concc run -w`, found as they come and go by the events of their directories.  Starts
 * none.  Nothing here blocks; whoever owns it polls feed_poll()'s descriptors.
 */
#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/err.h"
#include "concc/wrapper.h"

#define FEED_SERVERS_MAX                                                                           \
	32 /* builds with workers of their own at once: more than a screen holds                   \
	    */
#define FEED_SAMPLES 64

struct feed_server {
	char *dir;
	int wd; /* the inotify watch of dir, or -1 */
	struct conn conn;
	struct buf message; /* the frames of one that came so far */
	json_t *status;	    /* as told last; NULL: nothing yet, or it has ended */
	uint64_t status_ms; /* when that was, by now_ms() */
	uint64_t n_ended;   /* jobs, as told last */
	/* The same at some times before, for the rate; oldest first. */
	struct {
		uint64_t ms, n;
	} samples[FEED_SAMPLES];
	unsigned n_samples;
};

struct feed {
	int inotify_fd, tmp_wd;
	struct feed_server servers[FEED_SERVERS_MAX]; /* the first is this environment's */
	unsigned n;
	/* A job ended: an element of "recent".  May be NULL. */
	void (*ended)(void *data, const json_t *job);
	void *data;
};

#define FEED_FDS (FEED_SERVERS_MAX + 1)

/* 0, or negative and msg. */
int feed_open(struct feed *f, struct errmsg *msg);
void feed_close(struct feed *f);
/* Fills at most FEED_FDS, returns how many. */
unsigned feed_poll(const struct feed *f, struct pollfd *ret);
/* After poll(2), with what it filled.  True when there is something new to be seen. */
bool feed_handle(struct feed *f, const struct pollfd *p, unsigned n);
/* Has each server that is there told something? */
bool feed_is_complete(const struct feed *f);
bool feed_is_there(const struct feed_server *s); /* it is connected */
/* Jobs per second, of the last ten. */
double feed_rate(const struct feed *f);

#endif
