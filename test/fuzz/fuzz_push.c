/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * What a host answers to the script that puts concc-worker there: shells' words, ours, and the
 * first bytes of a link.  The first byte says in how large pieces it comes.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "link/push.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define SILENCE_MS 5000
#define FILE_SIZE  100000 /* of what is pushed: more than is written at once */

struct host {
	struct stream stream;
	const uint8_t *data;
	size_t n, at, piece;
	bool pause; /* the next read finds nothing */
	int fd;	    /* always readable and writable */
	uint64_t taken;
};

struct outcome {
	struct loop *loop;
	struct stream *stream;
	unsigned n;
	int err;
};

static ssize_t host_read(struct stream *s, void *p, size_t n)
{
	struct host *h = (struct host *)s;

	h->pause = !h->pause && h->piece && h->at % h->piece == 0;
	if (h->pause)
		return -EAGAIN;
	if (h->at == h->n)
		return 0;
	n = n < h->n - h->at ? n : h->n - h->at;
	memcpy(p, h->data + h->at, n);
	h->at += n;
	return (ssize_t)n;
}

static ssize_t host_write(struct stream *s, const void *p, size_t n)
{
	struct host *h = (struct host *)s;

	h->taken += n;
	CHECK(h->taken <= FILE_SIZE);
	return (ssize_t)n;
}

static void host_want(struct stream *s, bool reading, bool blocked, int fds[2], uint32_t events[2])
{
	struct host *h = (struct host *)s;

	fds[0] = h->fd;
	events[0] = (reading ? LOOP_READ : 0) | (blocked ? LOOP_WRITE : 0);
	fds[1] = -1;
	events[1] = 0;
}

static void host_free(struct stream *s)
{
	struct host *h = (struct host *)s;

	(void)close(h->fd);
	free(h);
}

static const struct stream_ops ops = {
	.read = host_read, .write = host_write, .want = host_want, .free = host_free};

static void done(void *data, struct stream *s, int err, const char *text, const char *how)
{
	struct outcome *o = data;

	o->n++;
	o->err = err;
	o->stream = s;
	CHECK((s != NULL) == (err == 0));
	CHECK(err == 0 || *text);
	for (const char *c = err ? text : how; *c; c++)
		CHECK((unsigned char)*c >= ' ');
	loop_quit(o->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct worker_file file = {.size = FILE_SIZE, .hex = "abc"};
	struct outcome o = {0};
	struct host *h;
	struct push *p;
	int fds[2];

	if (n == 0)
		return 0;
	log_init("fuzz", LOG_LEVEL_ERR);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	CHECK(write(fds[1], "x", 1) == 1);
	h = xcalloc(1, sizeof(*h));
	*h = (struct host){.stream = {.ops = &ops},
			   .data = data + 1,
			   .n = n - 1,
			   .piece = data[0],
			   .fd = fds[0]};
	file.fd = openat(scratch(), "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(file.fd >= 0 && ftruncate(file.fd, FILE_SIZE) == 0);
	CHECK(loop_new(&o.loop) == 0);
	p = push_new(o.loop, &h->stream, &file, SILENCE_MS, done, &o);
	CHECK(p);
	CHECK(loop_run(o.loop) == 0);
	CHECK(o.n == 1);
	stream_free(o.stream);
	loop_free(o.loop);
	(void)close(file.fd);
	(void)close(fds[1]);
	return 0;
}
