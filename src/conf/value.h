/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_VALUE_H
#define CONCC_CONF_VALUE_H

/*
 * From the text of one value to what it means.  Each returns 0, or CONCC_E_CONF
 * and says in why what is wrong with the value, without saying where it stood.
 */
#include <stddef.h>
#include <stdint.h>

struct errmsg;

int value_number(const char *s, uint32_t min, uint32_t max, uint32_t *ret, struct errmsg *why);
/* Seconds, or a number with s, m or h. */
int value_duration(const char *s, uint32_t min_s, uint32_t max_s, uint32_t *ret_s,
		   struct errmsg *why);
/* Bytes, or a number with K, M, G or T (powers of 1024). */
int value_size(const char *s, uint64_t min, uint64_t max, uint64_t *ret, struct errmsg *why);
/* The index of s in names. */
int value_choice(const char *s, const char *const *names, size_t n, size_t *ret,
		 struct errmsg *why);
/* Paths separated by blanks ('..' and ".." quote) or by colons: absolute, clean, each once. */
int value_paths(const char *s, char ***ret, struct errmsg *why);
int value_paths_colon(const char *s, char ***ret, struct errmsg *why);
/* A worker's name, fit for a file name. */
int value_worker_name(const char *s, struct errmsg *why);
/* "local:" or "ssh://[user@]host[:port]". */
int value_address(const char *s, struct errmsg *why);

/* "; did you mean 'x'?" for the candidate nearest to word, or "" when none is near. */
const char *did_you_mean(char *out, size_t size, const char *word, const char *const *names,
			 size_t n);

struct stat;
/* Is the file at path, which is st, root's alone to write?  Else CONCC_E_CONF and what to do. */
int conf_check_roots(const char *path, const struct stat *st, struct errmsg *msg);

#endif
