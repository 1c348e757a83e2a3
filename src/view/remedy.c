/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stddef.h>
#include <string.h>

#include "concc/job.h"
#include "concc/str.h"
#include "concc/view.h"

/* Where nothing can be changed, or should (query, probe), there is nothing to say. */
static const struct {
	const char *rule, *remedy;
} remedies[] = {
	{"disabled", "unset CONCC_DISABLE"},
	{"tmp-output", "set TMPDIR, and build, somewhere else than in /tmp"},
	{"native", "name the processor instead of -march=native"},
	{"preload", "unset LD_PRELOAD"},
	{"descriptor", "name a file instead of a descriptor, or close that (3<&-)"},
	{"incremental", "CARGO_INCREMENTAL=0 lets workers have them"},
	{"launcher", "leave out what stands between concc-cc and the compiler, or use `concc run`"},
	{"symlinked-cwd", "go to the directory by its own path: cd \"$(pwd -P)\""},
	{"default-acl", "the directory's default access list decides modes here only"},
	{"outside", "list the directory's tree as a `workspace` in [concc] of ~/.concc.ini"},
	{"unserved",
	 "list what they name as a `toolchain` or `workspace` in [concc] of ~/.concc.ini"},
	{"outside-write", "set TMPDIR to a directory of the project"},
	{"missing",
	 "list what they look up as a `toolchain` or `workspace` in [concc] of ~/.concc.ini"},
	{"no-worker", "`concc doctor` says why no worker can be used"},
	{"no-server", "`concc doctor` says why"},
	{"toolchain", "root = client lets workers use this machine's compiler"},
	{"disk-full", "make room here"},
	{"gave-up", "`concc doctor` says what is wrong with the workers"},
};

const char *view_remedy(const char *rule)
{
	for (size_t i = 0; i < sizeof(remedies) / sizeof(*remedies); i++)
		if (streq(rule, remedies[i].rule))
			return remedies[i].remedy;
	return NULL;
}

const char *view_rule_text(const char *rule)
{
	for (size_t i = 0; i < policy_n_rules; i++)
		if (streq(rule, policy_rules[i].name))
			return policy_rules[i].text;
	return NULL;
}
