/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_REMOTE_H
#define CONCC_CACHE_REMOTE_H

/*
 * Objects of a store that others share: an HTTP server that takes GET and PUT.  URL/cas/SHA256 has
 * contents and sets of names, URL/ac/SHA256 results and the variants of calls.  A thread of its
 * own does the transfers; whoever asks is answered through a descriptor.  What comes back is
 * verified here as what lies on the disk is, and no more: who may write there is believed.
 *
 * What it costs is bounded whatever the server says: bytes of one object, bytes of all that are
 * held, and the time for which it is asked.  One that fails is left alone for a while, and for
 * longer each time that it fails again.
 *
 * All functions are one thread's, the owner's, and none but cache_remote_free() blocks.
 */
#include "concc/cache.h"

struct cache_remote;

/* Bytes of one object, and of all that are held at once: more of one would not be written. */
#define CACHE_REMOTE_MAX (64u * 1024 * 1024)

struct cache_wanted {
	struct cache_key key;
	uint64_t size; /* bytes that it must have, at most CACHE_REMOTE_MAX; 0: that is not known */
};

struct cache_reply {
	uint64_t tag;
	struct cache_key key;
	int err;	  /* 0; -ENOENT; or it can't be told now, which is a miss */
	struct buf bytes; /* the receiver's, until cache_remote_done() */
	size_t held;	  /* of the bytes that all may be */
};

/* url: without a slash at its end.  store: what is sent is read from it, by the thread.  NULL when
 * there can be no thread. */
struct cache_remote *cache_remote_new(const char *url, struct cache_store *store);
/* Ends; what is still to be sent gets limit_ms for that.  Blocks as long, and two seconds.  False:
 * the disk of the store hangs; it uses that still, and ends with the process. */
bool cache_remote_free(struct cache_remote *r, uint64_t limit_ms);
int cache_remote_fd(const struct cache_remote *r); /* readable: there may be replies */
/* Answered once, by a reply with this tag; until_ms, as of now_ms(), and no later where it is asked
 * for at all: others may be before it. */
void cache_remote_get(struct cache_remote *r, uint64_t tag, const struct cache_wanted *what,
		      uint64_t until_ms);
/* False: there is no reply now. */
bool cache_remote_next(struct cache_remote *r, struct cache_reply *ret);
/* Of each reply, when its bytes are used no more. */
void cache_remote_done(struct cache_remote *r, struct cache_reply *reply);
/* In this order, one after the other.  Nothing is told of it; too many at once are left out. */
void cache_remote_put(struct cache_remote *r, const struct cache_key *key);

#endif
