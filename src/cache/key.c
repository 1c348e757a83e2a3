/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cache.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

/* ---- which commands ---- */

/*
 * Options by which a driver runs what is not known to be one of its own tools, or goes by the times
 * of files (clang's precompiled headers and modules).
 */
static const struct {
	const char *option; /* its begin */
	const char *why;
} refused[] = {
	{"-fplugin", "plugin"},
	{"-fpass-plugin", "plugin"},
	{"-load", "plugin"},
	{"-fuse-linker-plugin", "plugin"},
	{"-plugin", "plugin"},
	{"-Wl,-plugin", "plugin"},
	{"-Wl,--plugin", "plugin"},
	{"-specs", "specs"},
	{"--specs", "specs"},
	{"-wrapper", "wrapper"},
	{"--config", "config-file"},
	{"-include-pch", "precompiled"},
	{"-fmodule", "modules"},
	{"-fcxx-modules", "modules"},
	{"-fbuild-session", "modules"},
	{"-fprofile", "profile"},
	{"--coverage", "profile"},
	{"-coverage", "profile"},
	{"-ftest-coverage", "profile"},
	{"-fauto-profile", "profile"},
	{"-ftime-", "timing"},
	{"-time", "timing"},
	{"-flto=jobserver", "jobserver"},
	{"-B", "prefix"},
};

/* What it holds is for others to read, in another way. */
static bool is_tools_argfile(const char *arg)
{
	return str_starts(arg, "-W") && strstr(arg, ",@");
}

static const char *refuses_arg(const char *arg)
{
	if (is_tools_argfile(arg))
		return "response-file";
	for (size_t i = 0; i < N_OF(refused); i++)
		if (str_starts(arg, refused[i].option))
			return refused[i].why;
	return NULL;
}

bool cache_has_argfiles(char *const *argv)
{
	for (; *argv; argv++)
		if (**argv == '@')
			return true;
	return false;
}

const char *cache_refuses_args(char *const *args)
{
	const char *why = NULL;

	for (; *args && !why; args++) {
		/* It is not there, or the variables that are looked at are for another command. */
		if (**args == '@' || str_starts(*args, "-flto") || streq(*args, "-"))
			why = "response-file";
		else
			why = refuses_arg(*args);
	}
	return why;
}

/* What it adds reads what it likes. */
static bool is_foreign_code(const char *variable)
{
	static const char *const names[] = {
		"LD_PRELOAD=", "LD_AUDIT=", "GCC_EXEC_PREFIX=", "COMPILER_PATH="};

	for (size_t i = 0; i < N_OF(names); i++)
		if (str_starts(variable, names[i]))
			return true;
	return false;
}

bool cache_is_rustc(const struct msg_run *m)
{
	return m->flags & JOB_F_COMPILER && streq(path_base(m->exe), "rustc");
}

const char *cache_refuses(const struct msg_run *m)
{
	bool reads_unknown = m->flags & JOB_F_STDIN && !(m->flags & JOB_F_INPUT_KNOWN);

	if (m->flags & JOB_F_KEEP || cache_is_rustc(m))
		return reads_unknown ? "stdin" : NULL;
	if (!(m->flags & JOB_F_COMPILER) || !job_is_driver_name(m->exe))
		return "unknown-program";
	if (m->flags & JOB_F_STDIN)
		return "stdin";
	for (char *const *e = m->env; *e; e++)
		if (is_foreign_code(*e))
			return "preload";
	for (char *const *a = m->argv + 1; *a; a++) {
		const char *why = refuses_arg(*a);

		if (why)
			return why;
	}
	return NULL;
}

bool cache_knows_tool(const char *name)
{
	static const char *const tools[] = {"cc1", "cc1plus",  "cc1obj", "cc1objplus", "f951",
					    "as",  "ld",       "ld.bfd", "ld.gold",    "ld.lld",
					    "lld", "collect2", "objcopy"};
	const char *base = path_base(name), *last = strrchr(base, '-');

	if (job_is_driver_name(base))
		return true;
	for (size_t i = 0; i < N_OF(tools); i++)
		if (streq(base, tools[i]) || (last && streq(last + 1, tools[i])))
			return true;
	return false;
}

/* ---- what of the environment ---- */

/* What GCC, clang, their assemblers and linkers, the C library and its loader read; a '*' at the
 * end stands for the rest of a name. */
static const char *const variables[] = {
	"AS_*",
	"CC_*",
	"CCC_*",
	"CLANG_*",
	"CLICOLOR*",
	"COLLECT_*",
	"COLOR*",
	"COLUMNS",
	"COMPILER_PATH",
	"CPATH",
	"CPLUS_INCLUDE_PATH",
	"CPP_*",
	"C_INCLUDE_PATH",
	"CUDA_*",
	"DEPENDENCIES_OUTPUT",
	"DRIVERKIT_*",
	"FORCE_COLOR",
	"GCC*",
	"GCONV_PATH",
	"GLIBC_TUNABLES",
	"GNUTARGET",
	"GXX_*",
	"HIP_*",
	"HOME",
	"INCLUDE",
	"IPHONEOS_*",
	"LANG",
	"LANGUAGE",
	"LC_*",
	"KONSOLE_*",
	"LDEMULATION",
	"LD_*",
	"LIB",
	"LIBCLANG*",
	"LIBRARY_PATH",
	"LINES",
	"LLVM_*",
	"LOCPATH",
	"LPATH",
	"MACOSX_*",
	"MALLOC_*",
	"NIX_*",
	"NLSPATH",
	"NO_COLOR",
	"OBJCPLUS_INCLUDE_PATH",
	"OBJC_INCLUDE_PATH",
	"OFFLOAD_*",
	"OUTPUT_CHARSET",
	"PATH",
	"POSIXLY_CORRECT",
	"PWD",
	"QEMU_*",
	"RC_*",
	"ROCM_*",
	"SCE_*",
	"SDKROOT",
	"SOURCE_DATE_EPOCH",
	"SUNPRO_DEPENDENCIES",
	"TEMP",
	"TERM*",
	"TEXTDOMAIN*",
	"TMP",
	"TMPDIR",
	"TVOS_*",
	"TZ",
	"TZDIR",
	"VC*",
	"VTE_*",
	"WATCHOS_*",
	"XDG_*",
	"XROS_*",
	"ZERO_AR_DATE",
};

static bool is_like(const char *name, size_t len, const char *pattern)
{
	size_t n = strlen(pattern);

	if (pattern[n - 1] == '*')
		return len >= n - 1 && memcmp(name, pattern, n - 1) == 0;
	return len == n && memcmp(name, pattern, n) == 0;
}

/* GNU make's flags are for a link-time optimiser that runs a make of its own. */
static bool optimises_at_link(char *const *argv)
{
	for (; *argv; argv++)
		if (str_starts(*argv, "-flto"))
			return true;
	return false;
}

bool cache_reads_variable(const struct msg_run *m, const char *name, size_t len)
{
	if (m->flags & JOB_F_KEEP || cache_is_rustc(m))
		return true;
	for (size_t i = 0; i < N_OF(variables); i++)
		if (is_like(name, len, variables[i]))
			return true;
	return is_like(name, len, "MAKE*") && optimises_at_link(m->argv);
}

/* ---- the call ---- */

/* By where they are in the caller's, of two with one name: programs differ in which they take. */
static int compare_variables(const void *pa, const void *pb)
{
	char *const *a = *(char *const *const *)pa, *const *b = *(char *const *const *)pb;
	size_t na = strcspn(*a, "="), nb = strcspn(*b, "=");
	int r = memcmp(*a, *b, na < nb ? na : nb);

	if (!r)
		r = (na > nb) - (na < nb);
	return r ? r : (a > b) - (a < b);
}

/* A compiler does not see in which order they are; another command may print it. */
static void put_env(struct buf *b, const struct msg_run *m)
{
	_cleanup_free_ char *const **read = xcalloc(strv_len(m->env) + 1, sizeof(*read));
	size_t n = 0;

	for (char *const *e = m->env; *e; e++)
		if (cache_reads_variable(m, *e, strcspn(*e, "=")))
			read[n++] = e;
	if (!(m->flags & JOB_F_KEEP))
		qsort(read, n, sizeof(*read), compare_variables);
	for (size_t i = 0; i < n; i++)
		buf_put_str(b, *read[i]);
}

/*
 * The program is not among them: it is executed, so it is a name that the job looked at.  Of what
 * the caller has, limits count, since a compiler may be told of one and go on; niceness does not,
 * nor which descriptors a compiler has inherited.
 */
void cache_call_digest(const struct cache_call *c, struct digest *ret)
{
	const struct msg_run *m = c->run;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_caller caller = {.caller = m->caller};

	buf_put_str(&b, "concc call");
	buf_put_u32(&b, CACHE_FORMAT);
	buf_put_u32(&b, c->uid);
	buf_put_u32(&b, c->gid);
	buf_put_u8(&b, c->client_root);
	buf_put_u32(&b, m->flags & ~(uint32_t)(JOB_F_TRACE | JOB_F_WHY));
	buf_put_u32(&b, m->umask);
	buf_put_u16(&b, m->rows);
	buf_put_u16(&b, m->cols);
	buf_put_str(&b, m->path);
	buf_put_str(&b, m->exe);
	buf_put_str(&b, m->cwd);
	caller.caller.nice = 0;
	if (m->flags & JOB_F_COMPILER)
		caller.caller.fds_end = 0;
	msg_caller_encode(&b, &caller);
	buf_put_u32(&b, (uint32_t)strv_len(m->argv));
	for (char *const *a = m->argv; *a; a++)
		buf_put_str(&b, *a);
	put_env(&b, m);
	buf_put_blob(&b, m->input.p, m->input.n);
	digest_of(b.data, b.len, ret);
}
