/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a job looked at. */
#include "concc/proto.h"

#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/str.h"

#define TRACE_WHY_MAX 31

bool trace_name_is_valid(const char *name, size_t len)
{
	static const char letters[] = {
		TRACE_LOOK,   TRACE_STAT,	 TRACE_LINK,	     TRACE_READ,  TRACE_EXEC,
		TRACE_LIST,   TRACE_WRITE,	 TRACE_MAKE,	     TRACE_PLACE, TRACE_TIMES,
		TRACE_OUTPUT, TRACE_OUTPUT_EXEC, TRACE_OUTPUT_MOVED, TRACE_WAY};

	return len >= 2 && len <= PROTO_PATH_MAX && memchr(letters, name[0], sizeof(letters)) &&
	       name[1] == '/';
}

void msg_trace_encode(struct buf *b, uint32_t job_id, const char *why, struct blob names)
{
	buf_put_u32(b, job_id);
	buf_put_str(b, why);
	buf_append(b, names.p, names.n);
}

static int take_names(struct blob bytes, struct msg_trace *m)
{
	const char *at = (const char *)bytes.p;
	size_t left = bytes.n, n = 0;

	if (left > PROTO_TRACE_BYTES_MAX || (left && at[left - 1]))
		return CONCC_E_PROTO;
	for (size_t i = 0; i < left; i++)
		n += !at[i];
	if (n > PROTO_TRACE_NAMES_MAX)
		return CONCC_E_PROTO;
	m->names = xcalloc(n + 1, sizeof(*m->names));
	m->all = xmalloc(left + 1);
	if (left)
		memcpy(m->all, at, left);
	for (char *at = m->all; left;) {
		size_t len = strlen(at);

		if (!trace_name_is_valid(at, len))
			return CONCC_E_PROTO;
		m->names[m->n++] = at;
		at += len + 1;
		left -= len + 1;
	}
	return 0;
}

int msg_trace_decode(struct blob payload, struct msg_trace *ret)
{
	struct blob names;
	struct rd r;
	int err;

	*ret = (struct msg_trace){0};
	rd_init(&r, payload.p, payload.n);
	ret->job_id = rd_u32(&r);
	ret->why = rd_strdup(&r, TRACE_WHY_MAX);
	names = rd_rest(&r);
	err = rd_done(&r);
	if (err == 0)
		err = take_names(names, ret);
	if (err < 0)
		msg_trace_release(ret);
	return err;
}

void msg_trace_release(struct msg_trace *m)
{
	free(m->why);
	free(m->names);
	free(m->all);
	*m = (struct msg_trace){0};
}
