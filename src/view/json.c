/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"

uint64_t get_int(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 ? (uint64_t)n : 0;
}

void set_int(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

json_t *json_text(const char *text)
{
	json_t *s = json_string(text);

	if (!s) {
		_cleanup_free_ char *shown = str_escape(text, strlen(text), strlen(text));

		s = json_string(shown);
	}
	return s;
}

void set_text(json_t *o, const char *key, const char *text)
{
	json_object_set_new(o, key, json_text(text));
}

static int append(const char *p, size_t n, void *out)
{
	buf_append(out, p, n);
	return 0;
}

void put_json(struct buf *out, json_t *o, size_t flags)
{
	/* Into memory, of what we made. */
	(void)json_dump_callback(o, append, out, flags | JSON_ENSURE_ASCII);
	json_decref(o);
}
