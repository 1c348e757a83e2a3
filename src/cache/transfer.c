/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/io.h"
#include "concc/str.h"

#define CONNECT_MS 3000L
#define STALL_S	   3L		 /* a transfer that moves nothing for so long has failed */
#define PUT_MS	   (600 * 1000L) /* and one to the server that takes so long */
/* Whose answer takes longer than it may, at so many bytes in a second, is a slow line; else it is
 * the server. */
#define SLOW_BYTES_S   (64 * 1024)
#define NAME_MAX_BYTES (DIGEST_HEX + 8)
/* Of an answer whose size is not known so much is expected; where it has more and there is no room
 * left, it is given up. */
#define EXPECTED  (256 * 1024)
#define WORDS_MAX (64 * 1024) /* headers of one answer, and what is said of a PUT */

/* ---- what is held ---- */

bool held_take(struct held *h, struct cache_reply *reply, size_t n)
{
	bool fits;

	(void)pthread_mutex_lock(&h->lock);
	fits = h->n + n <= CACHE_REMOTE_MAX;
	if (fits)
		h->n += n;
	(void)pthread_mutex_unlock(&h->lock);
	if (fits)
		reply->held += n;
	return fits;
}

void held_give_back(struct held *h, struct cache_reply *reply, size_t n)
{
	reply->held -= n;
	(void)pthread_mutex_lock(&h->lock);
	h->n -= n;
	(void)pthread_mutex_unlock(&h->lock);
}

/* ---- one object ---- */

/* One folder may have both kinds of keys: digests of different things. */
static void name_of(const struct cache_key *key, char ret[NAME_MAX_BYTES])
{
	struct digest d = key->digest;
	char hex[DIGEST_HEX];

	if (key->kind == CACHE_VARIANTS) {
		uint8_t both[1 + DIGEST_SIZE] = {CACHE_VARIANTS};

		memcpy(both + 1, d.b, DIGEST_SIZE);
		digest_of(both, sizeof(both), &d);
	}
	digest_hex(&d, hex);
	(void)snprintf(ret, NAME_MAX_BYTES, "%s/%s", key->kind == CACHE_BYTES ? "cas" : "ac", hex);
}

/* Bytes that an object has at most, if no more is known of it. */
static size_t max_of(const struct cache_key *key)
{
	switch (key->kind) {
	case CACHE_BYTES:
		return PROTO_TRACE_BYTES_MAX;
	case CACHE_VARIANTS:
		return CACHE_VARIANTS_BYTES;
	case CACHE_RESULT:
		return CACHE_ENTRY_MAX;
	}
	return 0;
}

struct transfer *transfer_new(const char *url, const struct cache_key *key, size_t size,
			      struct held *held)
{
	char name[NAME_MAX_BYTES];
	struct transfer *t = xcalloc(1, sizeof(*t));

	name_of(key, name);
	t->url = xasprintf("%s/%s", url, name);
	t->reply.key = *key;
	t->held = held;
	t->max = size ? size : max_of(key);
	t->expected = size || t->max < EXPECTED ? t->max : EXPECTED;
	return t;
}

void transfer_free(struct transfer *t)
{
	held_give_back(t->held, &t->reply, t->reply.held);
	buf_release(&t->reply.bytes);
	free(t->url);
	free(t);
}

/* ---- while it runs ---- */

static size_t give_up(struct transfer *t, int err)
{
	t->err = err;
	return 0;
}

/* Headers, and what is said of a PUT or of a failure: of no use. */
static size_t on_words(char *p, size_t one, size_t n, void *data)
{
	struct transfer *t = data;

	t->n_words += n;
	return t->n_words > WORDS_MAX ? give_up(t, -EMSGSIZE) : n;
}

long transfer_status(const struct transfer *t)
{
	long status = 0;

	(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static bool is_object(const struct transfer *t)
{
	long status = transfer_status(t);

	return !t->sends && status >= 200 && status < 300;
}

static size_t on_bytes(char *p, size_t one, size_t n, void *data)
{
	struct transfer *t = data;
	size_t len = t->reply.bytes.len + n;

	if (!is_object(t))
		return on_words(p, one, n, data);
	if (len > t->max)
		return give_up(t, -EMSGSIZE);
	if (len > t->reply.held && !held_take(t->held, &t->reply, len - t->reply.held))
		return give_up(t, -ENOBUFS);
	buf_append(&t->reply.bytes, p, n);
	return n;
}

static size_t give_bytes(char *p, size_t one, size_t n, void *data)
{
	struct transfer *t = data;
	size_t left = t->reply.bytes.len - t->sent;

	n = n * one < left ? n * one : left;
	memcpy(p, t->reply.bytes.data + t->sent, n);
	t->sent += n;
	return n;
}

/* Not 0, which is for ever. */
static long left_ms(const struct transfer *t)
{
	uint64_t now = now_ms();

	if (t->is_put)
		return PUT_MS;
	return t->until_ms > now ? (long)(t->until_ms - now) : 1;
}

static void set_up(struct transfer *t)
{
	CURL *e = t->easy;

	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, t);
	(void)curl_easy_setopt(e, CURLOPT_URL, t->url);
	(void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_OPTIONAL);
	(void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	(void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, STALL_S);
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	(void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_words);
	(void)curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	(void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, left_ms(t));
	if (!t->sends)
		return;
	/* No word before the bytes: most objects are small. */
	t->headers = curl_slist_append(NULL, "Expect:");
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
	(void)curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
	(void)curl_easy_setopt(e, CURLOPT_READFUNCTION, give_bytes);
	(void)curl_easy_setopt(e, CURLOPT_READDATA, t);
	(void)curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->reply.bytes.len);
}

static void clean_up(struct transfer *t)
{
	curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->headers);
	t->easy = NULL;
	t->headers = NULL;
}

bool transfer_start(struct transfer *t, CURLM *multi)
{
	t->easy = curl_easy_init();
	if (!t->easy)
		return false;
	set_up(t);
	if (curl_multi_add_handle(multi, t->easy) == CURLM_OK)
		return true;
	clean_up(t);
	return false;
}

void transfer_stop(struct transfer *t, CURLM *multi)
{
	(void)curl_multi_remove_handle(multi, t->easy);
	clean_up(t);
}

struct transfer *transfer_of(CURL *easy)
{
	struct transfer *t = NULL;

	(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
	return t;
}

bool transfer_is_late(const struct transfer *t, CURLcode code)
{
	curl_off_t us = 0;

	if (code != CURLE_OPERATION_TIMEDOUT || t->is_put)
		return false;
	(void)curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &us);
	return us < STALL_S * 1000000 ||
	       (t->reply.bytes.len && t->reply.bytes.len / SLOW_BYTES_S >= (size_t)us / 1000000);
}
