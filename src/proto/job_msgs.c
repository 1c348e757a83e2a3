/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Jobs, and what they need before: environments, programs, callers. */
#include "concc/proto.h"

#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"
#include "wire.h"

void msg_u64_encode(struct buf *b, uint64_t v)
{
	buf_put_u64(b, v);
}

int msg_u64_decode(struct blob payload, uint64_t *ret)
{
	struct rd r;
	uint64_t v;

	rd_init(&r, payload.p, payload.n);
	v = rd_u64(&r);
	if (rd_done(&r) < 0)
		return CONCC_E_PROTO;
	*ret = v;
	return 0;
}

void msg_u32_encode(struct buf *b, uint32_t v)
{
	buf_put_u32(b, v);
}

int msg_u32_decode(struct blob payload, uint32_t *ret)
{
	struct rd r;
	uint32_t v;

	rd_init(&r, payload.p, payload.n);
	v = rd_u32(&r);
	if (rd_done(&r) < 0)
		return CONCC_E_PROTO;
	*ret = v;
	return 0;
}

void msg_env_encode(struct buf *b, uint32_t env_id, char *const *env)
{
	buf_put_u32(b, env_id);
	put_strv(b, env);
}

int msg_env_decode(struct blob payload, struct msg_env *ret)
{
	struct msg_env m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.env_id = rd_u32(&r);
	m.env = rd_strv(&r, STRINGS_MAX);
	if (rd_done(&r) < 0) {
		msg_env_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_env_release(struct msg_env *m)
{
	strv_free(m->env);
	m->env = NULL;
}

void msg_caller_encode(struct buf *b, const struct msg_caller *m)
{
	buf_put_u32(b, m->caller_id);
	put_caller(b, &m->caller);
}

int msg_caller_decode(struct blob payload, struct msg_caller *ret)
{
	struct msg_caller m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.caller_id = rd_u32(&r);
	rd_caller(&r, &m.caller);
	if (rd_done(&r) < 0)
		return CONCC_E_PROTO;
	*ret = m;
	return 0;
}

void msg_exe_encode(struct buf *b, const struct msg_exe *m)
{
	buf_put_u32(b, m->exe_id);
	buf_put_str(b, m->path);
	buf_put_u32(b, m->n_files);
	for (uint32_t i = 0; i < m->n_files; i++) {
		buf_put_str(b, m->files[i].path);
		buf_append(b, m->files[i].digest.b, DIGEST_SIZE);
	}
}

int msg_exe_decode(struct blob payload, struct msg_exe *ret)
{
	struct msg_exe m = {0};
	struct rd r;
	uint32_t n;

	rd_init(&r, payload.p, payload.n);
	m.exe_id = rd_u32(&r);
	m.path = rd_abs_path(&r);
	n = rd_count(&r, 4 + DIGEST_SIZE);
	if (n > PROTO_EXE_FILES_MAX)
		r.bad = true;
	if (!r.bad)
		m.files = xcalloc(n, sizeof(*m.files));
	for (; m.n_files < n && !r.bad; m.n_files++) {
		struct exe_file *f = &m.files[m.n_files];

		f->path = rd_abs_path(&r);
		rd_digest(&r, &f->digest);
	}
	if (rd_done(&r) < 0) {
		msg_exe_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_exe_release(struct msg_exe *m)
{
	for (uint32_t i = 0; i < m->n_files; i++)
		free(m->files[i].path);
	free(m->files);
	free(m->path);
	*m = (struct msg_exe){0};
}

void msg_job_encode(struct buf *b, const struct msg_job *m)
{
	buf_put_u32(b, m->job_id);
	buf_put_u32(b, m->env_id);
	buf_put_u32(b, m->exe_id);
	buf_put_u32(b, m->caller_id);
	buf_put_u32(b, m->flags);
	buf_put_u32(b, m->umask);
	buf_put_u16(b, m->rows);
	buf_put_u16(b, m->cols);
	buf_put_str(b, m->path);
	buf_put_str(b, m->cwd);
	put_strv(b, m->workspaces);
	put_strv(b, m->argv);
}

static void rd_workspaces(struct rd *r, struct msg_job *m)
{
	uint32_t n = rd_count(r, 4);
	bool found = false;

	if (n == 0 || n > PROTO_WORKSPACES_MAX)
		r->bad = true;
	if (r->bad)
		return;
	m->workspaces = xcalloc((size_t)n + 1, sizeof(*m->workspaces));
	for (uint32_t i = 0; i < n && !r->bad; i++) {
		m->workspaces[i] = rd_abs_path(r);
		if (r->bad)
			return;
		for (uint32_t j = 0; j < i; j++) {
			if (path_is_below(m->workspaces[i], m->workspaces[j]) ||
			    path_is_below(m->workspaces[j], m->workspaces[i]))
				r->bad = true;
		}
		found |= path_is_below(m->cwd, m->workspaces[i]);
	}
	if (!found)
		r->bad = true;
}

int msg_job_decode(struct blob payload, struct msg_job *ret)
{
	struct msg_job m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.job_id = rd_u32(&r);
	m.env_id = rd_u32(&r);
	m.exe_id = rd_u32(&r);
	m.caller_id = rd_u32(&r);
	m.flags = rd_u32(&r);
	m.umask = rd_u32(&r);
	m.rows = rd_u16(&r);
	m.cols = rd_u16(&r);
	m.path = rd_any_path(&r);
	m.cwd = rd_abs_path(&r);
	if (m.cwd)
		rd_workspaces(&r, &m);
	m.argv = rd_strv(&r, STRINGS_MAX);
	if (m.umask > 0777 || (m.argv && !m.argv[0]))
		r.bad = true;
	if (rd_done(&r) < 0) {
		msg_job_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_job_release(struct msg_job *m)
{
	free(m->path);
	free(m->cwd);
	strv_free(m->workspaces);
	strv_free(m->argv);
	*m = (struct msg_job){0};
}

void msg_bytes_encode(struct buf *b, uint32_t id, const void *p, size_t n)
{
	buf_put_u32(b, id);
	buf_append(b, p, n);
}

int msg_bytes_decode(struct blob payload, uint32_t *ret_id, struct blob *ret)
{
	struct rd r;
	uint32_t id;

	rd_init(&r, payload.p, payload.n);
	id = rd_u32(&r);
	if (r.bad)
		return CONCC_E_PROTO;
	*ret_id = id;
	*ret = rd_rest(&r);
	return 0;
}

void msg_output_encode(struct buf *b, uint32_t id, uint8_t stream, const void *p, size_t n)
{
	buf_put_u32(b, id);
	buf_put_u8(b, stream);
	buf_append(b, p, n);
}

int msg_output_decode(struct blob payload, uint32_t *ret_id, uint8_t *ret_stream, struct blob *ret)
{
	uint8_t stream;
	struct rd r;
	uint32_t id;

	rd_init(&r, payload.p, payload.n);
	id = rd_u32(&r);
	stream = rd_u8(&r);
	if (r.bad || (stream != 1 && stream != 2))
		return CONCC_E_PROTO;
	*ret_id = id;
	*ret_stream = stream;
	*ret = rd_rest(&r);
	return 0;
}

void msg_pair_encode(struct buf *b, uint32_t id, uint32_t value)
{
	buf_put_u32(b, id);
	buf_put_u32(b, value);
}

int msg_pair_decode(struct blob payload, uint32_t *ret_id, uint32_t *ret_value)
{
	uint32_t id, value;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	id = rd_u32(&r);
	value = rd_u32(&r);
	if (rd_done(&r) < 0)
		return CONCC_E_PROTO;
	*ret_id = id;
	*ret_value = value;
	return 0;
}

void msg_file_encode(struct buf *b, const struct msg_file *m)
{
	buf_put_u32(b, m->job_id);
	buf_put_u8(b, m->kind);
	buf_put_u8(b, m->flags);
	buf_put_u16(b, m->mode);
	buf_put_u32(b, m->workspace);
	buf_put_u64(b, m->size);
	buf_put_u64(b, (uint64_t)m->mtime_s);
	buf_put_u32(b, m->mtime_ns);
	if (m->flags & EFFECT_F_ATIME) {
		buf_put_u64(b, (uint64_t)m->atime_s);
		buf_put_u32(b, m->atime_ns);
	}
	buf_append(b, m->digest.b, DIGEST_SIZE);
	buf_put_str(b, m->path);
	buf_put_str(b, m->target ? m->target : "");
}

int msg_file_decode(struct blob payload, struct msg_file *ret)
{
	struct msg_file m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.job_id = rd_u32(&r);
	m.kind = rd_u8(&r);
	m.flags = rd_u8(&r);
	m.mode = rd_u16(&r);
	m.workspace = rd_u32(&r);
	m.size = rd_u64(&r);
	m.mtime_s = (int64_t)rd_u64(&r);
	m.mtime_ns = rd_u32(&r);
	if (m.flags & EFFECT_F_ATIME) {
		m.atime_s = (int64_t)rd_u64(&r);
		m.atime_ns = rd_u32(&r);
	}
	rd_digest(&r, &m.digest);
	/* Only a workspace's own directory may have its mode set: the empty path. */
	m.path = rd_rel_path(&r, m.kind == EFFECT_DIR);
	m.target = m.kind == EFFECT_LINK ? rd_rel_path(&r, 0) : rd_strdup(&r, PROTO_PATH_MAX);
	if (m.kind < EFFECT_FILE || m.kind > EFFECT_ASKED || m.mode > 07777 || m.size > INT64_MAX ||
	    m.mtime_ns >= 1000000000 || m.atime_ns >= 1000000000 ||
	    (m.kind == EFFECT_SYMLINK && m.target && !*m.target) ||
	    (m.flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET) && m.size))
		r.bad = true;
	if (rd_done(&r) < 0) {
		msg_file_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_file_release(struct msg_file *m)
{
	free(m->path);
	free(m->target);
	*m = (struct msg_file){0};
}

void msg_exit_encode(struct buf *b, const struct msg_exit *m)
{
	buf_put_u32(b, m->job_id);
	buf_put_u8(b, m->how);
	buf_put_u32(b, m->code);
	put_text(b, m->text);
	buf_put_u64(b, m->utime_us);
	buf_put_u64(b, m->stime_us);
	buf_put_u64(b, m->wall_us);
	buf_put_u64(b, m->maxrss_kb);
	put_strv(b, m->outside);
}

int msg_exit_decode(struct blob payload, struct msg_exit *ret)
{
	struct msg_exit m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.job_id = rd_u32(&r);
	m.how = rd_u8(&r);
	m.code = rd_u32(&r);
	m.text = rd_strdup(&r, PROTO_TEXT_MAX);
	m.utime_us = rd_u64_max(&r, PROTO_USED_MAX);
	m.stime_us = rd_u64_max(&r, PROTO_USED_MAX);
	m.wall_us = rd_u64_max(&r, PROTO_USED_MAX);
	m.maxrss_kb = rd_u64_max(&r, PROTO_USED_MAX);
	m.outside = rd_strv(&r, 8);
	if (m.how > EXIT_FAILED ||
	    (m.how != EXIT_REFUSED && m.how != EXIT_FAILED && !is_process_end(m.how, m.code)))
		r.bad = true;
	if (rd_done(&r) < 0) {
		msg_exit_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_exit_release(struct msg_exit *m)
{
	free(m->text);
	strv_free(m->outside);
	*m = (struct msg_exit){0};
}

void msg_missing_encode(struct buf *b, uint32_t job_id, enum missing_how how, char *const *paths)
{
	buf_put_u32(b, job_id);
	buf_put_u8(b, how);
	put_strv(b, paths);
}

int msg_missing_decode(struct blob payload, struct msg_missing *ret)
{
	struct msg_missing m;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.job_id = rd_u32(&r);
	m.how = rd_u8(&r);
	m.paths = rd_strv(&r, 8);
	for (char **p = m.paths; p && *p; p++) {
		if (**p != '/' || strlen(*p) >= PROTO_PATH_MAX)
			r.bad = true;
	}
	if (rd_done(&r) < 0 || m.how > MISSING_LISTED) {
		strv_free(m.paths);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_missing_release(struct msg_missing *m)
{
	strv_free(m->paths);
}
