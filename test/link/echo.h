/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_LINK_ECHO_H
#define CONCC_TEST_LINK_ECHO_H

/* The far end of a link for tests: greets on fds 0 and 1, and sends every message back as it came,
 * JOB_DATA as BULK. */
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/proto.h"

#define ECHO_QUEUE_MAX (4 * 1024 * 1024)

struct echo {
	struct loop *loop;
	struct link *link;
};

static int echo_message(void *data, uint8_t type, struct blob payload)
{
	struct echo *e = data;

	link_send(e->link, type, type == MSG_JOB_DATA ? LINK_BULK : LINK_PRIO, payload.p,
		  payload.n);
	if (link_queued_bulk(e->link) > ECHO_QUEUE_MAX)
		link_pause_reading(e->link, true);
	return 0;
}

static void echo_drained(void *data)
{
	struct echo *e = data;

	link_pause_reading(e->link, false);
}

static void echo_closed(void *data, int err, const char *text)
{
	struct echo *e = data;

	loop_quit(e->loop);
}

static int echo_main(void)
{
	static const struct link_ops ops = {
		.message = echo_message,
		.closed = echo_closed,
		.drained = echo_drained,
	};
	static const struct link_config conf = {.end = LINK_WORKER, .compress = true};
	struct echo e = {0};

	if (loop_new(&e.loop) < 0)
		return 1;
	e.link = link_new(e.loop, stream_from_fds(0, 1), &conf, &ops, &e);
	(void)loop_run(e.loop);
	link_free(e.link);
	loop_free(e.loop);
	return 0;
}

#endif
