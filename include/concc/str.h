/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_STR_H
#define CONCC_STR_H

/*
 * Memory for sizes we choose ourselves (abort when there is none), strings,
 * and NULL-terminated string vectors.  Sizes from outside are checked against
 * a maximum before they come here.  What returns a char * has it on the heap, but for
 * str_nearest(), which gives one of the candidates.  From any thread; nothing blocks.
 */
#include <stdbool.h>
#include <stddef.h>

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n); /* all of n bytes are copied */
void *xmemdup(const void *p, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define N_OF(a)	    (sizeof(a) / sizeof((a)[0])) /* of an array */
#define streq(a, b) (strcmp((a), (b)) == 0)
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* Decimal digits only, no sign or space, at most max; false leaves *ret alone. */
bool str_to_u64(const char *s, unsigned long long max, unsigned long long *ret);

/* "s", but not for 1. */
static inline const char *str_plural(unsigned long long n)
{
	return n == 1 ? "" : "s";
}

/* s with bytes outside printable ASCII as \xNN, at most max bytes shown: for text a peer sent. */
char *str_escape(const void *s, size_t n, size_t max);
/*
 * '?' for each byte of s that may control a terminal: control characters, those of 0x80 to 0x9f
 * too (ISO 6429, C1), whether they stand alone or in UTF-8, what turns the direction of a line, and
 * whatever is no UTF-8.  Other text stays as it is: for messages that name files.
 */
void str_defuse(char *s);
void str_defuse_lines(char *s); /* the same of a text of several lines */

/* NULL-terminated vectors; strv_free(NULL) is fine. */
void strv_free(char **v);
size_t strv_len(char *const *v);
char **strv_copy(char *const *v);
void strv_push(char ***v, char *s); /* takes s */
static inline void cleanup_strv(char ***v)
{
	strv_free(*v);
}
#define _cleanup_strv_ __attribute__((cleanup(cleanup_strv)))

/* The candidate nearest to word by edit distance, or NULL when none is near enough to suggest. */
const char *str_nearest(const char *word, const char *const *candidates, size_t n);

#endif
