/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "preload.h"

#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/*
 * By the beginning of their file names.  libfakeroot talks to a daemon of the
 * client's and ends the program when it can't; bear's watches for exec calls;
 * the rest are allocators, terminal and disk helpers.
 */
static const char *const stay[] = {
	"libfakeroot", "libeatmydata", "libexec.so",  "libear.so",     "libjemalloc",
	"libtcmalloc", "libmimalloc",  "libstderred", "libgtk3-nocsd", "libnosync",
};

static bool stays(const char *path)
{
	const char *base = path_base(path);

	for (size_t i = 0; i < N_OF(stay); i++) {
		if (str_starts(base, stay[i]))
			return true;
	}
	return false;
}

char *preload_rest(const char *value)
{
	_cleanup_buf_ struct buf rest = BUF_INIT;

	/* ld.so(8): separated by spaces or colons, and neither can be escaped. */
	while (*(value += strspn(value, " :"))) {
		_cleanup_free_ char *lib = xstrndup(value, strcspn(value, " :"));

		value += strlen(lib);
		if (!stays(lib))
			buf_putf(&rest, "%s%s", rest.len ? ":" : "", lib);
	}
	return rest.len ? xstrdup(buf_cstr(&rest)) : NULL;
}
