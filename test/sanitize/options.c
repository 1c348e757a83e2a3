/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * How sanitizers behave in our programs, linked into each of them by a build with SANITIZE=.
 * Wrappers, launchers and jobs' inits get the environment of a build, or none, so that *_OPTIONS
 * in the environment would not reach them; where it is set it still has the last word.
 *
 * Reports go to files CONCC_SANITIZE_LOG.PID when that is set, as the lab does, since standard
 * error is the build's, or nobody's; and to standard error where that directory is out of reach.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/str.h"

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__tsan_default_options(void);
int __lsan_is_turned_off(void);

/* These run before the sanitizer and before there is an environment. */
const char *__asan_default_options(void)
{
	return "detect_stack_use_after_return=1";
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1";
}

const char *__tsan_default_options(void)
{
	return "halt_on_error=1:second_deadlock_stack=1";
}

/* Each library of gcc's has a report file of its own. */
__attribute__((constructor)) static void report_to_file(void)
{
	static const char *const libraries[] = {"libasan.so.8", "libubsan.so.1", "libtsan.so.2"};
	const char *log = getenv("CONCC_SANITIZE_LOG");
	const char *slash = log ? strrchr(log, '/') : NULL;
	char *dir = slash ? strndup(log, (size_t)(slash - log)) : NULL;

	/* A path that can't be written would be reported instead of what was found. */
	for (size_t i = 0; dir && access(dir, W_OK | X_OK) == 0 && i < 3; i++) {
		void *lib = dlopen(libraries[i], RTLD_NOW | RTLD_NOLOAD);
		void *set = lib ? dlsym(lib, "__sanitizer_set_report_path") : NULL;

		if (set)
			((void (*)(const char *))set)(log);
	}
	free(dir);
}

/*
 * Who runs one command and exits leaves its memory to the kernel, on purpose; what lives for days
 * is the project server and the worker.
 */
int __lsan_is_turned_off(void)
{
	return !streq(program_invocation_short_name, "concc-project") &&
	       !streq(program_invocation_short_name, "concc-worker");
}
