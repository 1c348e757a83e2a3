/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "doctor.h"

/* Words of ours, of OpenSSH's client, and of a shell; the first that fits counts. */
static const struct {
	const char *words;
	enum check check;
} causes[] = {
	{"another version than yours", CHECK_TOOLCHAIN},
	{"install the same compiler there", CHECK_TOOLCHAIN},
	{"no key of host", CHECK_HOST_KEY},
	{"has CHANGED", CHECK_HOST_KEY},
	{"HOST IDENTIFICATION HAS CHANGED", CHECK_HOST_KEY},
	{"Host key verification failed", CHECK_HOST_KEY},
	{"is revoked by", CHECK_HOST_KEY},
	{"the host showed no key", CHECK_HOST_KEY},
	{"was not let in", CHECK_KEY},
	{"Permission denied (", CHECK_KEY},
	{"Too many authentication failures", CHECK_KEY},
	{"speaks protocol", CHECK_VERSION},
	{"speaks another version", CHECK_VERSION},
	{"it runs concc", CHECK_VERSION},
	{" machine and this is ", CHECK_VERSION},
	{"install the same concc", CHECK_VERSION},
	{"Could not resolve", CHECK_SSH},
	{"Connection refused", CHECK_SSH},
	{"Connection timed out", CHECK_SSH},
	{"No route to host", CHECK_SSH},
	{"no shell there took the command", CHECK_PROGRAM},
	{"concc-worker could not be put there", CHECK_PROGRAM},
	{"no concc-worker", CHECK_PROGRAM},
	{"correct `program`", CHECK_PROGRAM},
	{"/dev/fuse", CHECK_FUSE},
	{"AppArmor restricts", CHECK_APPARMOR},
	{"user namespace", CHECK_NAMESPACES},
	{"can't make namespaces", CHECK_NAMESPACES},
	{"can't map uid", CHECK_NAMESPACES},
	{"id_map", CHECK_NAMESPACES},
	{"setgroups", CHECK_NAMESPACES},
	{"max_user_namespaces", CHECK_NAMESPACES},
	{"No space left", CHECK_DISK},
	{"Disk quota exceeded", CHECK_DISK},
	{"Read-only file system", CHECK_DISK},
	{"/.cache/concc", CHECK_DISK},
	{"/cache/concc", CHECK_DISK},
	{"overlay", CHECK_KERNEL},
};

enum check cause_of(const char *text, enum check from)
{
	for (size_t i = 0; i < N_OF(causes); i++) {
		if (causes[i].check >= from && strstr(text, causes[i].words))
			return causes[i].check;
	}
	return CHECK_NONE;
}

/* The next word of *at, in whatever quotes, and nothing but what no shell looks at in it; or NULL.
 */
static char *plain_word(const char **at)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				    "_./+@%:[]-";
	const char *p = *at + strspn(*at, " '\"");
	size_t n = strspn(p, plain);

	*at = p + n + strspn(p + n, "'\"");
	return n && *p != '-' ? xstrndup(p, n) : NULL;
}

char *forget_key_command(const char *text)
{
	const char *at = strstr(text, "ssh-keygen -f ");
	_cleanup_free_ char *file = NULL, *host = NULL;

	if (!at)
		return NULL;
	at += strlen("ssh-keygen -f ");
	file = plain_word(&at);
	if (!file || !str_starts(at, " -R "))
		return NULL;
	at += strlen(" -R ");
	host = plain_word(&at);
	return host ? xasprintf("ssh-keygen -f '%s' -R '%s'", file, host) : NULL;
}

static const struct {
	const char *rule;
	enum check check;
	const char *remedy;
} rules[] = {
	{"disabled", CHECK_JOB, "unset CONCC_DISABLE"},
	{"preload", CHECK_JOB, "unset LD_PRELOAD"},
	{"toolchain", CHECK_TOOLCHAIN, NULL},
	{"disk-full", CHECK_DISK_HERE, NULL},
	{"limits", CHECK_LIMITS, NULL},
	{"unserved", CHECK_TOOLCHAIN, NULL},
	{"missing", CHECK_TOOLCHAIN, NULL},
};

enum check cause_of_rule(const char *rule, const char **ret_remedy)
{
	*ret_remedy = NULL;
	for (size_t i = 0; i < N_OF(rules); i++) {
		if (!streq(rules[i].rule, rule))
			continue;
		*ret_remedy = rules[i].remedy;
		return rules[i].check;
	}
	return CHECK_JOB;
}
