/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The rule "link": does a command put together what was compiled before? */
#include <string.h>

#include "concc/io.h"
#include "concc/str.h"
#include "policy.h"

/* Options that stop before the link. */
static bool stops_early(const char *arg)
{
	static const char *const exact[] = {
		"-c",
		"-S",
		"-E",
		"-M",
		"-MM",
		"--compile",
		"--assemble",
		"--preprocess",
		"-fsyntax-only",
		"--syntax-only",
		"--precompile",
		"--analyze",
		"-emit-ast",
		"-emit-pch",
		"-emit-module",
		"-emit-llvm-bc",
		"-cc1",
		"-cc1as",
		"-rewrite-objc",
		"-extract-api",
		"-dc",
		"-dw",
		"--device-c",
		"--device-w",
		"-ptx",
		"--ptx",
		"-cubin",
		"--cubin",
		"-fatbin",
		"--fatbin",
		"-cuda",
		"--cuda",
		"--ptx-only",
		"-module-file-info",
		"-fmodule-only",
		"-fmodules-only",
		"-verify-pch",
	};

	return ONE_OF(arg, exact);
}

bool job_may_link(char *const *argv)
{
	for (char *const *a = argv; *a; a++) {
		if (stops_early(*a))
			return false;
	}
	return true;
}

static bool ends_in_one_of(const char *arg, const char *const *suffixes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (str_ends(arg, suffixes[i]))
			return true;
	}
	return false;
}

static bool is_link_input(const char *arg)
{
	static const char *const suffixes[] = {".o", ".obj", ".a", ".so", ".lo", ".lib", ".ltrans"};

	return ends_in_one_of(arg, suffixes, N_OF(suffixes)) || strstr(arg, ".so.") != NULL;
}

static bool is_link_option(const char *arg)
{
	return streq(arg, "-shared") || streq(arg, "-pie") || streq(arg, "-rdynamic") ||
	       str_starts(arg, "-Wl,") || (str_starts(arg, "-l") && arg[2]);
}

/* A driver's call that neither stops early nor compiles anything. */
static bool c_link(struct policy_call *c)
{
	bool language = false; /* -x says that operands are sources whatever they are called */
	bool link = false, unknown = false;

	for (char *const *a = c->args; *a; a++) {
		if (stops_early(*a))
			return false;
		if (str_starts(*a, "-x")) {
			const char *lang = (*a)[2] ? *a + 2 : a[1];

			language = lang && !streq(lang, "none");
		}
		link = link || is_link_option(*a);
		if (c_option_takes_next(*a)) {
			if (!*++a)
				break;
			continue;
		}
		if ((*a)[0] == '@')
			unknown = true;
		else if (is_stdin_name(*a))
			return false;
		else if ((*a)[0] != '-' && (language || c_is_source(*a)))
			return false;
		link = link || is_link_input(*a);
	}
	/* An @file alone may hold anything; beside an object or -l it holds more of them. */
	return (link || !unknown) && policy_because(c, c->in->argv[0]);
}

/* Nothing but what such a compiler has made before. */
static bool plain_link(struct policy_call *c)
{
	static const char *const sources[] = {".d", ".di", ".c", ".asm", ".nasm", ".s", ".S"};
	bool link = false;

	for (char *const *a = c->args; *a; a++) {
		if (streq(*a, "-o") && a[1])
			a++;
		else if (stops_early(*a) || ends_in_one_of(*a, sources, N_OF(sources)))
			return false;
		else
			link = link || is_link_input(*a);
	}
	return link && policy_because(c, c->in->argv[0]);
}

bool policy_link(struct policy_call *c)
{
	if (policy_is_set(env_get(c->in->env, "CONCC_REMOTE_LINK")))
		return false;
	switch (c->tool) {
	case TOOL_C:
		return c_link(c);
	case TOOL_LINK:
		return policy_because(c, c->in->argv[0]);
	case TOOL_PLAIN:
		return plain_link(c);
	case TOOL_GO: {
		static const char *const names[] = {"link", "pack", "buildid"};

		return ONE_OF(path_base(c->in->argv[0]), names) &&
		       policy_because(c, c->in->argv[0]);
	}
	default:
		return false;
	}
}
