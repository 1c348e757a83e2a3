/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_JSON_H
#define CONCC_VIEW_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "concc/buf.h"

uint64_t get_int(const json_t *o, const char *key); /* 0: not there, or below it */
void set_int(json_t *o, const char *key, uint64_t v);
/* Names of files may be of no encoding: what is none is told by its bytes' numbers. */
json_t *json_text(const char *text);
void set_text(json_t *o, const char *key, const char *text);
/* Takes o.  flags: of json_dumps(3). */
void put_json(struct buf *out, json_t *o, size_t flags);

#endif
