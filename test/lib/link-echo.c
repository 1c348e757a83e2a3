/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The far end of a link for tests: greets, and sends every message back as it
 * came.  link-echo [--stdio] [--die TEXT STATUS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/link.h"
#include "concc/loop.h"
#include "concc/proto.h"

#define QUEUE_MAX (4 * 1024 * 1024)

struct echo {
	struct loop *loop;
	struct link *link;
};

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct echo *e = data;

	link_send(e->link, type, type == MSG_JOB_DATA ? LINK_BULK : LINK_PRIO, payload.p,
		  payload.n);
	if (link_queued_bulk(e->link) > QUEUE_MAX)
		link_pause_reading(e->link, true);
	return 0;
}

static void on_drained(void *data)
{
	struct echo *e = data;

	link_pause_reading(e->link, false);
}

static void on_closed(void *data, int err, const char *text)
{
	struct echo *e = data;

	loop_quit(e->loop);
}

int main(int argc, char **argv)
{
	static const struct link_ops ops = {
		.message = on_message,
		.closed = on_closed,
		.drained = on_drained,
	};
	static const struct link_config conf = {.send_magic = true, .compress = true};
	struct echo e = {0};

	if (argc == 4 && strcmp(argv[1], "--die") == 0) {
		fprintf(stderr, "%s\n", argv[2]);
		return atoi(argv[3]);
	}
	if (loop_new(&e.loop) < 0)
		return 1;
	e.link = link_new(e.loop, stream_from_fds(0, 1), &conf, &ops, &e);
	(void)loop_run(e.loop);
	link_free(e.link);
	loop_free(e.loop);
	return 0;
}
