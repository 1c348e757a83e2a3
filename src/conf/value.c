/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "value.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/worker_spec.h"
#include "concc/str.h"

#define LIST_MAX 256 /* paths in one list: more is a mistake, and each costs watches */

const char *did_you_mean(char *out, size_t size, const char *word, const char *const *names,
			 size_t n)
{
	const char *near = str_nearest(word, names, n);

	out[0] = '\0';
	if (near)
		snprintf(out, size, "; did you mean '%s'?", near);
	return out;
}

/* The leading digits as a number, and what follows them; false when there are none or too many. */
static bool split_number(const char *s, unsigned long long *ret, const char **ret_unit)
{
	char digits[20];
	size_t n = strspn(s, "0123456789");

	if (n == 0 || n >= sizeof(digits))
		return false;
	memcpy(digits, s, n);
	digits[n] = '\0';
	*ret_unit = s + n + strspn(s + n, " \t");
	return str_to_u64(digits, UINT64_MAX, ret);
}

int value_number(const char *s, uint32_t min, uint32_t max, uint32_t *ret, struct errmsg *why)
{
	unsigned long long n;

	if (!str_to_u64(s, max, &n) || n < min)
		return errmsg_set(why, CONCC_E_CONF, "'%s' is not a number from %u to %u", s, min,
				  max);
	*ret = (uint32_t)n;
	return 0;
}

/* The factor of a one-letter unit out of units ("smh" or the like); 0 when it is none. */
static uint64_t unit_factor(const char *unit, const char *units, const uint64_t *factors)
{
	const char *at;

	if (!*unit)
		return 1;
	at = unit[1] ? NULL : strchr(units, tolower((unsigned char)*unit));
	return at ? factors[at - units] : 0;
}

/* In the largest unit that fits. */
static char *duration_text(uint32_t s)
{
	if (s && s % 3600 == 0)
		return xasprintf("%uh", s / 3600);
	return s && s % 60 == 0 ? xasprintf("%um", s / 60) : xasprintf("%us", s);
}

int value_duration(const char *s, uint32_t min_s, uint32_t max_s, uint32_t *ret_s,
		   struct errmsg *why)
{
	static const uint64_t factors[] = {1, 60, 3600};
	unsigned long long n;
	const char *unit;
	uint64_t factor;

	if (!split_number(s, &n, &unit))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is not a duration; write a number with s, m or h, like 15m",
				  s);
	factor = unit_factor(unit, "smh", factors);
	if (!factor)
		return errmsg_set(
			why, CONCC_E_CONF,
			"'%s' is not a unit of time; s, m and h are (seconds, minutes, hours)",
			unit);
	if (n > max_s / factor || n * factor < min_s) {
		_cleanup_free_ char *min = duration_text(min_s), *max = duration_text(max_s);

		return errmsg_set(why, CONCC_E_CONF, "'%s' is not between %s and %s", s, min, max);
	}
	*ret_s = (uint32_t)(n * factor);
	return 0;
}

int value_size(const char *s, uint64_t min, uint64_t max, uint64_t *ret, struct errmsg *why)
{
	static const uint64_t factors[] = {1ULL << 10, 1ULL << 20, 1ULL << 30, 1ULL << 40};
	unsigned long long n;
	const char *unit;
	uint64_t factor;

	if (!split_number(s, &n, &unit))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is not a size; write a number with K, M or G, like 20G", s);
	factor = unit_factor(unit, "kmgt", factors);
	if (!factor)
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is not a unit of size; K, M, G and T are (powers of 1024)",
				  unit);
	if (n > max / factor)
		return errmsg_set(why, CONCC_E_CONF, "'%s' is larger than anything sensible", s);
	if (n * factor < min && !*unit)
		return errmsg_set(why, CONCC_E_CONF,
				  "%llu bytes is too small; did you mean '%lluG'?", n, n);
	if (n * factor < min)
		return errmsg_set(why, CONCC_E_CONF, "'%s' is too small; %lluM is the least", s,
				  (unsigned long long)(min >> 20));
	*ret = n * factor;
	return 0;
}

int value_choice(const char *s, const char *const *names, size_t n, size_t *ret, struct errmsg *why)
{
	_cleanup_buf_ struct buf all = BUF_INIT;
	char hint[64];

	for (size_t i = 0; i < n; i++) {
		if (streq(s, names[i])) {
			*ret = i;
			return 0;
		}
		buf_putf(&all, "%s%s", i ? ", " : "", names[i]);
	}
	return errmsg_set(why, CONCC_E_CONF, "'%s' is none of %s%s", s, buf_cstr(&all),
			  did_you_mean(hint, sizeof(hint), s, names, n));
}

/* Takes word; adds it to the list as an absolute, clean path unless it is there already. */
static int add_path(char ***list, char *word, struct errmsg *why)
{
	_cleanup_free_ char *given = word;
	_cleanup_free_ char *full = path_expand_home(given);
	_cleanup_free_ char *clean = NULL;

	if (full[0] != '/')
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is not an absolute path; begin it with / or ~/", given);
	clean = path_clean("/", full);
	if (streq(clean, "/"))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is the whole file system; name the directories to serve",
				  given);
	for (char **p = *list; p && *p; p++) {
		if (streq(*p, clean))
			return 0;
	}
	if (strv_len(*list) >= LIST_MAX)
		return errmsg_set(why, CONCC_E_CONF, "more than %d paths", LIST_MAX);
	strv_push(list, steal_ptr(&clean));
	return 0;
}

/* One word up to a blank, its quotes removed; moves *s behind it.  NULL when a quote stays open. */
static char *next_word(const char **s)
{
	_cleanup_buf_ struct buf word = BUF_INIT;
	char quote = '\0';
	const char *p = *s;

	for (; *p && (quote || (*p != ' ' && *p != '\t')); p++) {
		if (quote ? *p == quote : (*p == '"' || *p == '\''))
			quote = quote ? '\0' : *p;
		else
			buf_append(&word, p, 1);
	}
	*s = p;
	return quote ? NULL : xstrdup(buf_cstr(&word));
}

int value_paths(const char *s, char ***ret, struct errmsg *why)
{
	_cleanup_strv_ char **list = NULL;

	while (*(s += strspn(s, " \t"))) {
		const char *start = s;
		char *word = next_word(&s);
		int r;

		if (!word)
			return errmsg_set(why, CONCC_E_CONF, "a quote is not closed: %s", start);
		r = add_path(&list, word, why);
		if (r < 0)
			return r;
	}
	strv_free(*ret);
	*ret = steal_ptr(&list);
	return 0;
}

int value_paths_colon(const char *s, char ***ret, struct errmsg *why)
{
	_cleanup_strv_ char **list = NULL;

	while (*(s += strspn(s, ":"))) {
		size_t n = strcspn(s, ":");
		int r = add_path(&list, xstrndup(s, n), why);

		if (r < 0)
			return r;
		s += n;
	}
	strv_free(*ret);
	*ret = steal_ptr(&list);
	return 0;
}

int value_worker_name(const char *s, struct errmsg *why)
{
	size_t n = strlen(s);

	for (const char *p = s; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return errmsg_set(
				why, CONCC_E_CONF,
				"'%s' is no name for a worker; use letters, digits, '.', '_' and '-'",
				s);
	}
	if (!isalnum((unsigned char)s[0]))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is no name for a worker; begin it with a letter or digit",
				  s);
	if (n > POOL_NAME_MAX)
		return errmsg_set(why, CONCC_E_CONF,
				  "the worker's name is longer than %d characters", POOL_NAME_MAX);
	if (streq(s, POOL_LOCAL))
		return errmsg_set(
			why, CONCC_E_CONF,
			"'%s' is this machine itself (see local-slots); choose another name",
			POOL_LOCAL);
	return 0;
}

/* The text after the host: nothing, or ":" and a port. */
static int check_port(const char *s, const char *address, struct errmsg *why)
{
	unsigned long long port;

	if (!*s)
		return 0;
	if (*s == '/' && str_to_u64(s + 1, POOL_SLOTS_MAX, &port))
		return errmsg_set(
			why, CONCC_E_CONF,
			"'%s' goes on after the host; the number of slots has a key of its own: slots = %s",
			address, s + 1);
	if (*s == '/')
		return errmsg_set(why, CONCC_E_CONF, "'%s' goes on after the host; remove '%s'",
				  address, s);
	if (*s != ':' || !str_to_u64(s + 1, 65535, &port) || port == 0)
		return errmsg_set(why, CONCC_E_CONF, "'%s': a port is a number from 1 to 65535",
				  address);
	return 0;
}

static bool is_bare_ipv6(const char *s)
{
	const char *colon = strchr(s, ':');

	return colon && strchr(colon + 1, ':') && !s[strspn(s, "0123456789abcdefABCDEF:.")];
}

/* [user@]host[:port], the host in brackets when it is an IPv6 address. */
static int check_host(const char *s, const char *address, struct errmsg *why)
{
	const char *at = strrchr(s, '@');
	const char *host = at ? at + 1 : s;
	const char *end;

	/* What begins with a dash would be an option to ssh(1). */
	if (*s == '-' || *host == '-')
		return errmsg_set(why, CONCC_E_CONF, "'%s': a name can't begin with '-'", address);
	if (at && (at == s || memchr(s, ':', (size_t)(at - s)) || memchr(s, '/', (size_t)(at - s))))
		return errmsg_set(
			why, CONCC_E_CONF,
			"'%s': before the '@' stands a user's name alone (passwords are never used)",
			address);
	if (*host == '[') {
		end = strchr(host, ']');
		if (!end || end == host + 1)
			return errmsg_set(why, CONCC_E_CONF, "'%s': write [ADDRESS] for IPv6",
					  address);
		end++;
	} else if (is_bare_ipv6(host)) {
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s': an IPv6 address stands in brackets: ssh://%.*s[%s]",
				  address, (int)(host - s), s, host);
	} else {
		end = host + strcspn(host, ":/[]");
		if (end == host)
			return errmsg_set(why, CONCC_E_CONF, "'%s' names no host", address);
	}
	return check_port(end, address, why);
}

int value_address(const char *s, struct errmsg *why)
{
	const char *host;

	if (streq(s, "local:"))
		return 0;
	if (*s == '"' || *s == '\'')
		return errmsg_set(why, CONCC_E_CONF, "'%s' is no address", s);
	for (const char *p = s; *p; p++) {
		if (isspace((unsigned char)*p) || iscntrl((unsigned char)*p))
			return errmsg_set(why, CONCC_E_CONF, "'%s' has blanks in it%s", s,
					  strchr(s, '#') ? ""
							 : "; a command goes to the key 'command'");
	}
	if (str_starts(s, "ssh://"))
		return check_host(s + strlen("ssh://"), s, why);
	if (str_starts(s, "local"))
		return errmsg_set(why, CONCC_E_CONF, "'%s' is no address; did you mean 'local:'?",
				  s);
	if (strstr(s, "://"))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is no address; ssh://[user@]host[:port] and local: are", s);
	host = str_starts(s, "ssh:") ? s + strlen("ssh:") : s;
	host += strspn(host, "/");
	if (!*host)
		return errmsg_set(why, CONCC_E_CONF, "'%s' names no host", s);
	return errmsg_set(why, CONCC_E_CONF, "'%s' is no address; did you mean 'ssh://%s'?", s,
			  host);
}

int conf_check_roots(const char *path, const struct stat *st, struct errmsg *msg)
{
	if (S_ISREG(st->st_mode) && st->st_uid == 0 && !(st->st_mode & (S_IWGRP | S_IWOTH)))
		return 0;
	return errmsg_set(msg, CONCC_E_CONF,
			  "%s has to be a file of root's that nobody else may write to; as "
			  "root, chown root %s && chmod 644 %s",
			  path, path, path);
}
