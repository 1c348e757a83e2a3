/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cache_remote.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/str.h"
#include "transfer.h"

#define GETS_MAX    16	  /* at once */
#define PUTS_MAX    10000 /* that wait: some 400 KB */
#define DOWN_MS	    30000 /* a server that fails is left alone for so long, then for longer */
#define DOWN_MAX_MS (3600 * 1000)
#define IDLE_MS	    (3600 * 1000)
#define JOIN_S	    2 /* a thread that takes longer to end than it has time hangs */

struct cache_remote {
	char *url;
	struct cache_store *store;
	CURLM *multi; /* the thread's, but for curl_multi_wakeup() */
	pthread_t thread;
	int fd;
	uint64_t down_until_ms; /* the thread's, and so is what follows */
	uint64_t down_ms;	/* for how long it was left alone the last time */
	bool told, refuses;
	unsigned n_gets, n_puts; /* that run */
	struct list running;
	pthread_mutex_t lock; /* of the rest */
	struct list gets, puts, done;
	size_t n_waiting_puts;
	uint64_t ends_ms; /* 0: not yet */
	struct held held; /* has a lock of its own */
};

/* ---- words ---- */

static void say_once(struct cache_remote *r, const char *what, const char *why)
{
	if (!r->told)
		log_warn("the shared cache %s %s: %s; going on without it", r->url, what, why);
	r->told = true;
}

/* A server that fails again and again is asked less and less often. */
static void leave_alone(struct cache_remote *r)
{
	uint64_t now = now_ms(), since = r->down_until_ms;

	if (now < since)
		return; /* of several at once, the first */
	if (!r->down_ms || now - since > r->down_ms)
		r->down_ms = DOWN_MS;
	else
		r->down_ms = r->down_ms < DOWN_MAX_MS / 2 ? 2 * r->down_ms : DOWN_MAX_MS;
	r->down_until_ms = now + r->down_ms;
}

/* ---- one transfer ---- */

static bool start(struct cache_remote *r, struct transfer *t)
{
	if (!transfer_start(t, r->multi))
		return false;
	list_append(&r->running, &t->of_queue);
	*(t->is_put ? &r->n_puts : &r->n_gets) += 1;
	return true;
}

static void stop(struct cache_remote *r, struct transfer *t)
{
	transfer_stop(t, r->multi);
	list_remove(&t->of_queue);
	*(t->is_put ? &r->n_puts : &r->n_gets) -= 1;
}

/* ---- its end ---- */

static void answer(struct cache_remote *r, struct transfer *t, int err)
{
	uint64_t one = 1;

	t->reply.err = err;
	if (err < 0)
		buf_release(&t->reply.bytes);
	held_give_back(&r->held, &t->reply, t->reply.held - t->reply.bytes.len);
	(void)pthread_mutex_lock(&r->lock);
	list_append(&r->done, &t->of_queue);
	(void)pthread_mutex_unlock(&r->lock);
	(void)!write(r->fd, &one, sizeof(one));
}

static bool is_down(const struct cache_remote *r)
{
	return now_ms() < r->down_until_ms;
}

static void start_put(struct cache_remote *r, struct transfer *t)
{
	if (!start(r, t))
		transfer_free(t);
}

/* What is there of the call, and what is here. */
static void add_variants(struct cache_remote *r, struct transfer *t, int err)
{
	_cleanup_buf_ struct buf here = BUF_INIT;
	struct buf *there = &t->reply.bytes;

	if (cache_read_object(r->store, &t->reply.key, CACHE_REMOTE_MAX, &here) < 0) {
		transfer_free(t);
		return;
	}
	if (err < 0)
		buf_reset(there);
	cache_merge_variants(&t->reply.key.digest, &here, there);
	buf_reset(there);
	buf_append(there, here.data, here.len);
	t->sends = true;
	start_put(r, t);
}

static int failed(struct cache_remote *r, struct transfer *t, CURLcode code)
{
	if (t->err == -ENOBUFS || transfer_is_late(t, code))
		return -EAGAIN;
	leave_alone(r);
	if (t->err)
		say_once(r, "is not used", "it says more than it may");
	else
		say_once(r, "can't be reached", curl_easy_strerror(code));
	return -EHOSTDOWN;
}

static int result_of(struct cache_remote *r, struct transfer *t, CURLcode code)
{
	char why[64];
	long status;

	if (code != CURLE_OK)
		return failed(r, t, code);
	status = transfer_status(t);
	if (status >= 200 && status < 300) {
		r->told = false;
		return 0;
	}
	if (status == 404 && !t->sends)
		return -ENOENT;
	(void)snprintf(why, sizeof(why), "HTTP status %ld", status);
	say_once(r, t->sends ? "takes nothing" : "gives nothing", why);
	r->refuses |= t->sends;
	return -EREMOTEIO;
}

static void ended(struct cache_remote *r, CURL *easy, CURLcode code)
{
	struct transfer *t = transfer_of(easy);
	int err = result_of(r, t, code);

	stop(r, t);
	if (!t->is_put)
		answer(r, t, err);
	else if (t->sends || (err < 0 && err != -ENOENT))
		transfer_free(t);
	else
		add_variants(r, t, err);
}

/* ---- the thread ---- */

static struct transfer *take(struct cache_remote *r, struct list *queue, size_t *n)
{
	struct transfer *t = NULL;

	(void)pthread_mutex_lock(&r->lock);
	if (!list_empty(queue)) {
		t = container_of(queue->next, struct transfer, of_queue);
		list_remove(&t->of_queue);
		if (n)
			--*n;
	}
	(void)pthread_mutex_unlock(&r->lock);
	return t;
}

/* The first that is asked for, when there is room for it. */
static struct transfer *take_get(struct cache_remote *r)
{
	struct transfer *t = NULL;

	(void)pthread_mutex_lock(&r->lock);
	if (!list_empty(&r->gets)) {
		struct transfer *first = list_first(&r->gets, struct transfer, of_queue);

		if (held_take(&r->held, &first->reply, first->expected))
			t = first;
	}
	if (t)
		list_remove(&t->of_queue);
	(void)pthread_mutex_unlock(&r->lock);
	return t;
}

static void begin_get(struct cache_remote *r, struct transfer *t)
{
	if (is_down(r))
		answer(r, t, -EHOSTDOWN);
	else if (now_ms() >= t->until_ms)
		answer(r, t, -ETIMEDOUT);
	else if (!start(r, t))
		answer(r, t, -ENOMEM);
}

static void begin_put(struct cache_remote *r, struct transfer *t)
{
	/* What others have put there is kept. */
	t->sends = t->reply.key.kind != CACHE_VARIANTS;
	if (is_down(r) || r->refuses ||
	    (t->sends &&
	     cache_read_object(r->store, &t->reply.key, CACHE_REMOTE_MAX, &t->reply.bytes) < 0))
		transfer_free(t);
	else
		start_put(r, t);
}

static void begin_all(struct cache_remote *r)
{
	struct transfer *t;

	while (r->n_gets < GETS_MAX && (t = take_get(r)))
		begin_get(r, t);
	while (!r->n_puts && (t = take(r, &r->puts, &r->n_waiting_puts)))
		begin_put(r, t);
}

static bool is_over(struct cache_remote *r)
{
	bool over;

	(void)pthread_mutex_lock(&r->lock);
	over = r->ends_ms && (now_ms() >= r->ends_ms || (list_empty(&r->puts) && !r->n_puts));
	(void)pthread_mutex_unlock(&r->lock);
	return over;
}

static int wait_ms(struct cache_remote *r)
{
	uint64_t ends, now = now_ms();

	(void)pthread_mutex_lock(&r->lock);
	ends = r->ends_ms;
	(void)pthread_mutex_unlock(&r->lock);
	if (!ends)
		return IDLE_MS;
	return ends > now ? (int)(ends - now) : 0;
}

static void *run(void *data)
{
	struct cache_remote *r = data;
	sigset_t all;
	int n;

	/* SIGPIPE, too, which TLS may raise. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (!is_over(r)) {
		CURLMsg *m;

		begin_all(r);
		(void)curl_multi_perform(r->multi, &n);
		while ((m = curl_multi_info_read(r->multi, &n)))
			if (m->msg == CURLMSG_DONE)
				ended(r, m->easy_handle, m->data.result);
		begin_all(r);
		if (!is_over(r))
			(void)curl_multi_poll(r->multi, NULL, 0, wait_ms(r), NULL);
	}
	return NULL;
}

/* ---- for the others ---- */

static void queue(struct cache_remote *r, struct list *to, struct transfer *t)
{
	(void)pthread_mutex_lock(&r->lock);
	list_append(to, &t->of_queue);
	(void)pthread_mutex_unlock(&r->lock);
	(void)curl_multi_wakeup(r->multi);
}

void cache_remote_get(struct cache_remote *r, uint64_t tag, const struct cache_wanted *what,
		      uint64_t until_ms)
{
	struct transfer *t = transfer_new(r->url, &what->key, what->size, &r->held);

	t->reply.tag = tag;
	t->until_ms = until_ms;
	queue(r, &r->gets, t);
}

void cache_remote_put(struct cache_remote *r, const struct cache_key *key)
{
	struct transfer *t = NULL;

	(void)pthread_mutex_lock(&r->lock);
	if (r->n_waiting_puts < PUTS_MAX) {
		r->n_waiting_puts++;
		t = transfer_new(r->url, key, 0, &r->held);
	}
	(void)pthread_mutex_unlock(&r->lock);
	if (!t)
		return;
	t->is_put = true;
	queue(r, &r->puts, t);
}

bool cache_remote_next(struct cache_remote *r, struct cache_reply *ret)
{
	struct transfer *t;
	uint64_t n;

	(void)!read(r->fd, &n, sizeof(n));
	t = take(r, &r->done, NULL);
	if (!t)
		return false;
	*ret = t->reply;
	t->reply.bytes = BUF_INIT;
	t->reply.held = 0;
	transfer_free(t);
	return true;
}

void cache_remote_done(struct cache_remote *r, struct cache_reply *reply)
{
	buf_release(&reply->bytes);
	held_give_back(&r->held, reply, reply->held);
	(void)curl_multi_wakeup(r->multi); /* what waited for room */
}

int cache_remote_fd(const struct cache_remote *r)
{
	return r->fd;
}

static void free_queue(struct list *l)
{
	while (!list_empty(l)) {
		struct transfer *t = container_of(l->next, struct transfer, of_queue);

		list_remove(&t->of_queue);
		transfer_free(t);
	}
}

static void release(struct cache_remote *r)
{
	while (!list_empty(&r->running)) {
		struct transfer *t = container_of(r->running.next, struct transfer, of_queue);

		stop(r, t);
		transfer_free(t);
	}
	free_queue(&r->gets);
	free_queue(&r->puts);
	free_queue(&r->done);
	if (r->multi)
		(void)curl_multi_cleanup(r->multi);
	(void)pthread_mutex_destroy(&r->lock);
	(void)pthread_mutex_destroy(&r->held.lock);
	if (r->fd >= 0)
		(void)close(r->fd);
	free(r->url);
	free(r);
}

struct cache_remote *cache_remote_new(const char *url, struct cache_store *store)
{
	struct cache_remote *r = xcalloc(1, sizeof(*r));

	r->url = xstrdup(url);
	r->store = store;
	list_init(&r->running);
	list_init(&r->gets);
	list_init(&r->puts);
	list_init(&r->done);
	(void)pthread_mutex_init(&r->lock, NULL);
	(void)pthread_mutex_init(&r->held.lock, NULL);
	r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->multi = curl_global_init(CURL_GLOBAL_DEFAULT) == 0 ? curl_multi_init() : NULL;
	if (r->fd < 0 || !r->multi || pthread_create(&r->thread, NULL, run, r) != 0) {
		release(r);
		return NULL;
	}
	return r;
}

/* It reads the store, whose disk may hang. */
static bool join(struct cache_remote *r, uint64_t limit_ms)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(limit_ms / 1000) + JOIN_S;
	return pthread_clockjoin_np(r->thread, NULL, CLOCK_MONOTONIC, &until) == 0;
}

bool cache_remote_free(struct cache_remote *r, uint64_t limit_ms)
{
	if (!r)
		return true;
	(void)pthread_mutex_lock(&r->lock);
	r->ends_ms = now_ms() + limit_ms;
	(void)pthread_mutex_unlock(&r->lock);
	(void)curl_multi_wakeup(r->multi);
	if (!join(r, limit_ms))
		return false;
	release(r);
	return true;
}
