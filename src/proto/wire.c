/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "wire.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "concc/proto.h"
#include "concc/str.h"

void put_strv(struct buf *b, char *const *v)
{
	size_t n = strv_len(v);

	buf_put_u32(b, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		buf_put_str(b, v[i]);
}

char **rd_strv(struct rd *r, uint32_t max_n)
{
	uint32_t n = rd_count(r, 4);
	char **v;

	if (n > max_n)
		r->bad = true;
	if (r->bad)
		return NULL;
	v = xcalloc((size_t)n + 1, sizeof(*v));
	for (uint32_t i = 0; i < n && !r->bad; i++)
		v[i] = rd_strdup(r, PROTO_ARGS_MAX);
	if (r->bad) {
		strv_free(v);
		return NULL;
	}
	return v;
}

/* Parts between slashes: none empty, "." or "..", none over the name limit. */
static bool parts_are_clean(const char *p)
{
	for (;;) {
		size_t n = strcspn(p, "/");

		if (n == 0 || n > PROTO_NAME_MAX || (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

char *rd_abs_path(struct rd *r)
{
	char *s = rd_strdup(r, PROTO_PATH_MAX);

	if (s && s[0] == '/' && (s[1] == '\0' || parts_are_clean(s + 1)))
		return s;
	free(s);
	r->bad = true;
	return NULL;
}

char *rd_rel_path(struct rd *r, int may_be_empty)
{
	char *s = rd_strdup(r, PROTO_PATH_MAX);

	if (s && ((may_be_empty && !*s) || (*s != '/' && parts_are_clean(s))))
		return s;
	free(s);
	r->bad = true;
	return NULL;
}
