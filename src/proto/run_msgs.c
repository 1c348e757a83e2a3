/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the wrapper and the project server say to each other. */
#include "concc/proto.h"

#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/str.h"
#include "wire.h"

void msg_run_encode(struct buf *b, const struct msg_run *m)
{
	buf_put_u32(b, m->version);
	buf_put_u32(b, m->flags);
	buf_put_u32(b, m->umask);
	buf_put_u16(b, m->rows);
	buf_put_u16(b, m->cols);
	buf_put_u32(b, m->attempt);
	buf_put_u64(b, m->arrived_us);
	buf_put_u64(b, m->slot_us);
	buf_put_str(b, m->worker);
	buf_put_str(b, m->run_id);
	buf_put_str(b, m->path);
	buf_put_str(b, m->exe);
	buf_put_str(b, m->cwd);
	buf_put_str(b, m->workspace);
	put_caller(b, &m->caller);
	put_strv(b, m->argv);
	put_strv(b, m->env);
	buf_put_blob(b, m->input.p, m->input.n);
}

/* The reader's bytes are not for long. */
static struct blob copy_blob(struct blob from)
{
	return (struct blob){from.n ? xmemdup(from.p, from.n) : NULL, from.n};
}

int msg_run_decode(struct blob payload, struct msg_run *ret)
{
	struct msg_run m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.version = rd_u32(&r);
	if (!r.bad && m.version != PROTO_VERSION)
		return CONCC_E_VERSION;
	m.flags = rd_u32(&r);
	m.umask = rd_u32(&r);
	m.rows = rd_u16(&r);
	m.cols = rd_u16(&r);
	m.attempt = rd_u32(&r);
	m.arrived_us = rd_u64(&r);
	m.slot_us = rd_u64(&r);
	m.worker = rd_strdup(&r, 256);
	m.run_id = rd_strdup(&r, 256);
	m.path = rd_any_path(&r);
	m.exe = rd_abs_path(&r);
	m.cwd = rd_abs_path(&r);
	m.workspace = rd_strdup(&r, PROTO_PATH_MAX);
	rd_caller(&r, &m.caller);
	m.argv = rd_strv(&r, STRINGS_MAX);
	m.env = rd_strv(&r, STRINGS_MAX);
	m.input = copy_blob(rd_blob(&r, PROTO_KNOWN_INPUT_MAX));
	if (m.umask > 0777 || (m.argv && !m.argv[0]) ||
	    (m.input.n && !(m.flags & JOB_F_INPUT_KNOWN)))
		r.bad = true;
	if (rd_done(&r) < 0) {
		msg_run_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_run_release(struct msg_run *m)
{
	free(m->worker);
	free(m->run_id);
	free(m->path);
	free(m->exe);
	free(m->cwd);
	free(m->workspace);
	strv_free(m->argv);
	strv_free(m->env);
	free((void *)m->input.p);
	*m = (struct msg_run){0};
}

void msg_run_fail_encode(struct buf *b, const struct msg_run_fail *m)
{
	buf_put_u8(b, m->what);
	buf_put_u8(b, m->quiet);
	buf_put_str(b, m->rule);
	put_text(b, m->text);
}

int msg_run_fail_decode(struct blob payload, struct msg_run_fail *ret)
{
	struct msg_run_fail m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.what = rd_u8(&r);
	m.quiet = rd_u8(&r);
	m.rule = rd_strdup(&r, 64);
	m.text = rd_strdup(&r, PROTO_TEXT_MAX);
	if (m.what < RUN_FAIL_LOCAL || m.what > RUN_FAIL_MISS)
		r.bad = true;
	if (rd_done(&r) < 0) {
		msg_run_fail_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_run_fail_release(struct msg_run_fail *m)
{
	free(m->rule);
	free(m->text);
	*m = (struct msg_run_fail){0};
}

void msg_run_exit_encode(struct buf *b, uint8_t how, uint32_t code, const char *worker)
{
	buf_put_u8(b, how);
	buf_put_u32(b, code);
	buf_put_str(b, worker);
}

int msg_run_exit_decode(struct blob payload, uint8_t *ret_how, uint32_t *ret_code,
			char **ret_worker)
{
	_cleanup_free_ char *worker = NULL;
	struct rd r;
	uint32_t code;
	uint8_t how;

	rd_init(&r, payload.p, payload.n);
	how = rd_u8(&r);
	code = rd_u32(&r);
	worker = rd_strdup(&r, 256);
	if (rd_done(&r) < 0 || !is_process_end(how, code))
		return CONCC_E_PROTO;
	*ret_how = how;
	*ret_code = code;
	*ret_worker = steal_ptr(&worker);
	return 0;
}

void msg_ctl_encode(struct buf *b, char *const *words)
{
	put_strv(b, words);
}

int msg_ctl_decode(struct blob payload, char ***ret_words)
{
	struct rd r;
	char **words;

	rd_init(&r, payload.p, payload.n);
	words = rd_strv(&r, 64);
	if (rd_done(&r) < 0 || !words[0]) {
		strv_free(words);
		return CONCC_E_PROTO;
	}
	*ret_words = words;
	return 0;
}

void msg_ctl_reply_encode(struct buf *b, uint32_t status, const char *text)
{
	buf_put_u32(b, status);
	buf_put_str(b, text);
}

int msg_ctl_reply_decode(struct blob payload, uint32_t *ret_status, char **ret_text)
{
	uint32_t status;
	struct rd r;
	char *text;

	rd_init(&r, payload.p, payload.n);
	status = rd_u32(&r);
	text = rd_strdup(&r, PROTO_MSG_MAX);
	if (rd_done(&r) < 0) {
		free(text);
		return CONCC_E_PROTO;
	}
	*ret_status = status;
	*ret_text = text;
	return 0;
}
