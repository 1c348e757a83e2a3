/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A job's input and output on their way between its wrapper and its worker. */
#include "run.h"

#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "results.h"

/* Errors are short: a job that prints more than this while we hold its output runs at home. */
#define HELD_MAX (8 * 1024 * 1024)
/*
 * Any command may print what it prints otherwise the next time (a name of its own, a time, where it
 * ran), and most end soon or are sent home soon: so what is shown of it is shown when it has ended
 * well, or after this time, or when it is more than that.
 */
#define SHOW_AFTER_MS	200
#define SHOW_MORE_BYTES (64 * 1024)

/* ---- input ---- */

int run_input(struct run *r, struct blob payload)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct blob bytes;
	uint32_t id;
	int err;

	err = msg_bytes_decode(payload, &id, &bytes);
	if (err < 0)
		return err;
	if (bytes.n > r->input_credit)
		return CONCC_E_PROTO;
	r->input_credit -= (uint32_t)bytes.n;
	recording_input(r->recording, bytes);
	msg_bytes_encode(&b, r->job_id, bytes.p, bytes.n);
	link_send_buf(r->peer->link, MSG_JOB_INPUT, LINK_PRIO, &b);
	return 0;
}

int run_input_credit(struct run *r, uint32_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (n > PROTO_INPUT_WINDOW || r->input_credit + n > PROTO_INPUT_WINDOW)
		return CONCC_E_PROTO;
	r->input_credit += n;
	recording_input_read(r->recording, n);
	if (!r->client)
		return 0;
	msg_pair_encode(&b, 0, n);
	link_send_buf(r->client->link, MSG_RUN_INPUT_CREDIT, LINK_PRIO, &b);
	return 0;
}

/* ---- output ---- */

static void give_credit(struct run *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!r->uncredited)
		return;
	/* A build that is paused in a pager must not fill our memory. */
	if (r->client && link_queued_bulk(r->client->link) >= LINK_BULK_LOW)
		return;
	msg_pair_encode(&b, r->job_id, r->uncredited);
	link_send_buf(r->peer->link, MSG_JOB_CREDIT, LINK_PRIO, &b);
	r->uncredited = 0;
}

void run_client_drained(struct run *r)
{
	give_credit(r);
}

static void show(struct run *r, uint8_t stream, struct blob bytes)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!bytes.n || !r->client)
		return;
	speculation_won(r);
	jobs_output(r->client->job);
	r->untaken += bytes.n;
	msg_output_encode(&b, 0, stream, bytes.p, bytes.n);
	link_send_buf(r->client->link, MSG_RUN_OUTPUT, LINK_BULK, &b);
}

static void hold(struct run *r, uint8_t stream, struct blob bytes)
{
	buf_put_u8(&r->held, stream);
	buf_put_blob(&r->held, bytes.p, bytes.n);
}

void run_show_held(struct run *r)
{
	struct rd rd;

	rd_init(&rd, r->held.data, r->held.len);
	while (rd.left) {
		uint8_t stream = rd_u8(&rd);

		show(r, stream, rd_blob(&rd, UINT32_MAX));
	}
	buf_reset(&r->held);
}

/* From now on it is shown as it comes. */
static void show_on(void *data)
{
	struct run *r = data;

	loop_remove(steal_ptr(&r->show_timer));
	r->shows = true;
	if (!r->missing && !r->failure)
		run_show_held(r);
}

int run_output(struct run *r, uint8_t stream, struct blob bytes)
{
	if (r->failure)
		return 0;
	/* More than the window was never allowed. */
	if (bytes.n > PROTO_OUTPUT_WINDOW || r->uncredited + bytes.n > PROTO_OUTPUT_WINDOW)
		return CONCC_E_PROTO;
	r->uncredited += (uint32_t)bytes.n;
	recording_output(r->recording, stream, bytes);
	if (!r->missing && r->held.len + bytes.n > SHOW_MORE_BYTES)
		show_on(r);
	if (!r->missing && r->shows)
		show(r, stream, bytes);
	else if (r->held.len + bytes.n <= HELD_MAX)
		hold(r, stream, bytes);
	else
		run_give_up(r, "missing", r->missing);
	if (!r->shows && !r->show_timer)
		r->show_timer = loop_add_timer(r->peer->server->loop, SHOW_AFTER_MS, show_on, r);
	give_credit(r);
	return 0;
}
