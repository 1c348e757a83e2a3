/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/record.h"

#include <stdlib.h>
#include <string.h>

#include "concc/io.h"
#include "concc/str.h"

/* Each format has the numbers of those before it, and some more: what an older concc left is read.
 */
#define FORMAT	   2
#define N_NUMBERS1 14
/* Bytes; together with the numbers less than RECORD_MAX. */
#define NAME_MAX_ 120
#define TEXT_MAX  400

static const size_t numbers[] = {
	offsetof(struct record, arrived_us),	offsetof(struct record, slot_us),
	offsetof(struct record, sent_us),	offsetof(struct record, first_output_us),
	offsetof(struct record, ended_us),	offsetof(struct record, committed_us),
	offsetof(struct record, utime_us),	offsetof(struct record, stime_us),
	offsetof(struct record, wall_us),	offsetof(struct record, maxrss_kb),
	offsetof(struct record, bytes_back),	offsetof(struct record, files_fetched),
	offsetof(struct record, bytes_fetched), offsetof(struct record, fuse_messages),
	offsetof(struct record, worker_slots),	offsetof(struct record, all_slots),
};

static const struct text {
	size_t offset;
	uint32_t max;
} texts[] = {
	{offsetof(struct record, worker), NAME_MAX_},  {offsetof(struct record, rule), NAME_MAX_},
	{offsetof(struct record, why), TEXT_MAX},      {offsetof(struct record, build), NAME_MAX_},
	{offsetof(struct record, program), NAME_MAX_}, {offsetof(struct record, command), TEXT_MAX},
	{offsetof(struct record, subject), TEXT_MAX},  {offsetof(struct record, cwd), TEXT_MAX},
};

#define N(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t *number(const struct record *r, size_t i)
{
	return (uint64_t *)((char *)r + numbers[i]);
}

static char **text(const struct record *r, size_t i)
{
	return (char **)((char *)r + texts[i].offset);
}

void record_init(struct record *r)
{
	*r = (struct record){0};
	for (size_t i = 0; i < N(texts); i++)
		*text(r, i) = xstrdup("");
}

void record_release(struct record *r)
{
	for (size_t i = 0; i < N(texts); i++)
		free(*text(r, i));
	*r = (struct record){0};
}

void record_set(char **field, const char *value)
{
	free(*field);
	*field = xstrdup(value);
}

/* ---- words ---- */

#define WORDS_SHOWN 160

static char *first_words(char *const *argv)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	for (; *argv && b.len <= WORDS_SHOWN; argv++)
		buf_putf(&b, "%s%.*s", b.len ? " " : "", WORDS_SHOWN + 1, *argv);
	return str_escape(b.data, b.len, WORDS_SHOWN);
}

/* What compilers are told to make, by the options that nearly all of them share; else the last word
 * that is none.  For a person: that it may be another word is no harm. */
static const char *subject_of(char *const *argv)
{
	const char *last = "";

	for (char *const *a = argv + 1; *argv && *a; a++) {
		if ((streq(*a, "-o") || streq(*a, "--crate-name")) && a[1])
			return a[1];
		if (str_starts(*a, "-o") && (*a)[2])
			return *a + 2;
		if (**a != '-')
			last = *a;
	}
	return last;
}

void record_set_words(struct record *r, char *const *argv)
{
	const char *subject = subject_of(argv), *name = *argv ? path_base(*argv) : "";

	free(r->command);
	free(r->subject);
	free(r->program);
	r->command = first_words(argv);
	r->subject = str_escape(subject, strlen(subject), TEXT_MAX);
	r->program = str_escape(name, strlen(name), NAME_MAX_);
}

/* ---- as bytes ---- */

void record_encode(struct buf *b, const struct record *r)
{
	buf_put_u8(b, FORMAT);
	buf_put_u32(b, r->pid);
	buf_put_u32(b, r->tries);
	buf_put_u8(b, r->how);
	buf_put_u32(b, r->code);
	for (size_t i = 0; i < N(numbers); i++)
		buf_put_u64(b, *number(r, i));
	for (size_t i = 0; i < N(texts); i++) {
		const char *t = *text(r, i);

		buf_put_blob(b, t, strnlen(t, texts[i].max));
	}
}

int record_decode(struct blob payload, struct record *ret)
{
	struct rd rd;
	uint8_t format;
	size_t n;

	*ret = (struct record){0};
	rd_init(&rd, payload.p, payload.n);
	format = rd_u8(&rd);
	n = format == FORMAT ? N(numbers) : N_NUMBERS1;
	ret->pid = rd_u32(&rd);
	ret->tries = rd_u32(&rd);
	ret->how = rd_u8(&rd);
	ret->code = rd_u32(&rd);
	for (size_t i = 0; i < n; i++)
		*number(ret, i) = rd_u64(&rd);
	for (size_t i = 0; i < N(texts); i++)
		*text(ret, i) = rd_strdup(&rd, texts[i].max);
	if (format >= 1 && format <= FORMAT && rd_done(&rd) == 0)
		return 0;
	record_release(ret);
	return CONCC_E_PROTO;
}
