/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * One object on its way from a shared cache or to it, with libcurl: what it may say, and how long
 * that may take.  Of the thread that runs it; nothing blocks.
 */
#ifndef CONCC_CACHE_TRANSFER_H
#define CONCC_CACHE_TRANSFER_H

#include "concc/cache_remote.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/map.h"

/*
 * What answers keep in memory, whatever a server says: those that come, and those that are not yet
 * written to the disk.  At most CACHE_REMOTE_MAX bytes; any thread may take and give back.
 */
struct held {
	pthread_mutex_t lock;
	size_t n;
};

/* False: there is no room, and nothing was taken. */
bool held_take(struct held *h, struct cache_reply *reply, size_t n);
void held_give_back(struct held *h, struct cache_reply *reply, size_t n);

struct transfer {
	struct list of_queue; /* the owner's */
	struct cache_reply reply;
	CURL *easy; /* while it runs */
	struct curl_slist *headers;
	bool sends;  /* the bytes; else they are fetched */
	bool is_put; /* a fetch is then only the first half: what is there is added to */
	size_t sent;
	size_t max;	   /* bytes that it may have, */
	size_t expected;   /* so many are held for it when it begins; */
	size_t n_words;	   /* those that are not the object's */
	uint64_t until_ms; /* it is of use that long; of a fetch for somebody */
	int err;	   /* why we gave it up: -EMSGSIZE, -ENOBUFS; or 0 */
	struct held *held;
	char *url;
};

/* Of url's object key, which has size bytes; 0: that is not known. */
struct transfer *transfer_new(const char *url, const struct cache_key *key, size_t size,
			      struct held *held);
/* Gives back what it holds. */
void transfer_free(struct transfer *t);

bool transfer_start(struct transfer *t, CURLM *multi);
void transfer_stop(struct transfer *t, CURLM *multi);
struct transfer *transfer_of(CURL *easy);

/* Of one that has ended, and is not stopped yet: that of HTTP, */
long transfer_status(const struct transfer *t);
/* and whether it came as it should, and too late for who waited: by a slow line, or behind others.
 */
bool transfer_is_late(const struct transfer *t, CURLcode code);

#endif
