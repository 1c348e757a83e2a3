/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What a job did comes home: files as they are told, what is announced, and all at its end.
 */
#include "commits.h"
#include "results.h"
#include "run.h"

#include <errno.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/str.h"

/* Of one run, while what it announced waits to be in place. */
#define LATER_MAX (16u * 1024 * 1024)

static const char *rule_of(int err)
{
	switch (err) {
	case CONCC_E_CONFLICT:
		return "conflict";
	case CONCC_E_NO_WAY:
		return "no-way-home";
	case -ENOSPC:
	case -EDQUOT:
		return "disk-full";
	}
	return "write-back";
}

/* 0: it is in place, or r->placing says that it waits for that; or what commit_apply() says. */
static int place(struct run *r, void (*done)(void *data, int err, const struct errmsg *msg),
		 struct errmsg *msg)
{
	struct commit_order order = {
		.commit = r->commit,
		.peer = r->peer->index,
		.wrapper = r->client ? r->client->job->record.arrived_us : 0,
		.done = done,
		.data = r,
	};

	speculation_won(r);
	return commits_place(r->peer->server, &order, &r->placing, msg);
}

/* What can't be put in place is remembered, and told by commit_apply(); a lie ends the link. */
static int unless_lie(int err)
{
	return err == CONCC_E_PROTO ? err : 0;
}

int run_file(struct run *r, struct blob payload)
{
	struct msg_file f;
	int err;

	err = msg_file_decode(payload, &f);
	if (err < 0)
		return err;
	r->bytes_back += payload.n;
	if (f.workspace >= strv_len(r->workspaces))
		err = CONCC_E_PROTO;
	else if (r->commit)
		err = unless_lie(commit_file(r->commit, &f));
	if (err == 0 && r->commit)
		recording_file(r->recording, &f);
	msg_file_release(&f);
	return err;
}

int run_data(struct run *r, struct blob bytes)
{
	r->comes_home = true;
	return unless_lie(commit_data(r->commit, bytes.p, bytes.n));
}

/* Negative: not what a worker may send. */
static int tell_end(struct run *r, int err, const struct errmsg *msg)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (err == CONCC_E_PROTO)
		return err;
	if (err < 0) {
		run_fail(r, RUN_FAIL_LOCAL, false, rule_of(err), msg->text);
		return 0;
	}
	if (!r->lost)
		(void)map_put_u64(&r->peer->exes_done, r->exe_id, r->peer);
	msg_run_exit_encode(&b, r->end.how, r->end.code, r->peer->conf->name);
	recording_keep(steal_ptr(&r->recording), &r->end, r->peer->conf->name);
	if (r->client) {
		jobs_placed(steal_ptr(&r->client->job), r->peer, &r->end, r->bytes_back);
		link_send_buf(r->client->link, MSG_RUN_EXIT, LINK_BULK, &b);
	}
	run_free(r);
	return 0;
}

static void in_place(void *data, int err, const struct errmsg *msg)
{
	struct run *r = data;
	struct peer *p = r->peer;
	bool lost = r->lost;

	r->placing = NULL;
	err = tell_end(r, err, msg);
	if (err < 0 && lost)
		run_fail(r, RUN_FAIL_RETRY, false, "worker-lost", err_text(err));
	else if (err < 0)
		peer_fail(p, err_text(err));
}

static int put_in_place(struct run *r)
{
	struct errmsg msg = {0};
	int err = place(r, in_place, &msg);

	return r->placing ? 0 : tell_end(r, err, &msg);
}

/* ---- what is announced before the end ---- */

void run_replay(void *data)
{
	struct run *r = data;
	struct peer *p = r->peer;
	_cleanup_buf_ struct buf later = r->later;
	struct rd rd;
	int err = 0;

	r->replay = NULL;
	r->later = BUF_INIT;
	rd_init(&rd, later.data, later.len);
	while (rd.left && err == 0) {
		uint8_t type = rd_u8(&rd);

		err = run_message(p, type, rd_blob(&rd, UINT32_MAX));
	}
	if (err < 0)
		peer_fail(p, err_text(err));
}

static int announced(struct run *r, int err, const struct errmsg *msg)
{
	if (err < 0 && err != CONCC_E_PROTO)
		run_give_up(r, rule_of(err), msg->text);
	return err == CONCC_E_PROTO ? err : 0;
}

static void announced_in_place(void *data, int err, const struct errmsg *msg)
{
	struct run *r = data;

	r->placing = NULL;
	err = announced(r, err, msg);
	if (err < 0)
		peer_fail(r->peer, err_text(err));
	else if (!r->replay)
		run_replay(r);
}

int run_announce(struct run *r)
{
	struct errmsg msg = {0};
	int err = place(r, announced_in_place, &msg);

	return r->placing ? 0 : announced(r, err, &msg);
}

bool run_keep_for_later(struct run *r, uint8_t type, struct blob payload)
{
	if (r->later.len + payload.n > LATER_MAX)
		return false;
	buf_put_u8(&r->later, type);
	buf_put_blob(&r->later, payload.p, payload.n);
	return true;
}

static void looked(void *arg);

/*
 * All that it said is out: what it did is put in place, and its end told.  Before that the wrapper
 * may still meet an error of its caller's output, and run the command itself.
 */
static int finish(struct run *r)
{
	speculation_won(r);
	return recording_look(r->recording, &r->end, looked, r) ? put_in_place(r) : 0;
}

static void looked(void *arg)
{
	struct run *r = arg;
	struct peer *p = r->peer;
	int err = finish(r);

	if (err < 0)
		peer_fail(p, err_text(err));
}

int run_output_credit(struct run *r, struct blob payload)
{
	struct peer *p = r->peer;
	uint32_t id, n;
	int err = msg_pair_decode(payload, &id, &n);

	if (err < 0)
		return err;
	if (n > r->untaken)
		return CONCC_E_PROTO;
	r->untaken -= n;
	err = r->ended && !r->untaken ? finish(r) : 0;
	if (err < 0)
		peer_fail(p, err_text(err)); /* its lie, and not the wrapper's */
	return 0;
}

int run_done(struct run *r, const struct msg_exit *m)
{
	struct errmsg msg;
	int err = 0;

	/* What it says of the files is not to be seen, if that can be helped. */
	if (r->commit)
		err = r->held.len ? commit_foresee(r->commit, &msg)
				  : commit_check_locks(r->commit, &msg);
	if (err) {
		run_fail(r, RUN_FAIL_LOCAL, false, rule_of(err), msg.text);
		return 0;
	}
	run_show_held(r);
	r->ended = true;
	r->end = *m;
	if (r->client)
		jobs_ended(r->client->job);
	return r->untaken ? 0 : finish(r);
}
