/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_MASQUERADE_H
#define CONCC_FRONT_MASQUERADE_H

/*
 * Directories of symlinks named like the compilers of a PATH, that lead to concc-cc.  Build systems
 * write such paths down (CMakeCache.txt), for years maybe.  So a directory is never changed: which
 * compilers there are is its name.  And what the symlinks lead to is beside them, a copy of
 * concc-cc, which runs the compiler itself when concc is gone, and gives way to a newer one.
 *
 *	~/.cache/concc/masquerade/PLACE/concc-cc	PLACE: where concc is installed
 *	                               /concc-project	a symlink to the one there
 *	                               /NAMES/gcc ...	symlinks to ../concc-cc
 *
 * Where the cache directory can't be written or nothing in it may be executed, it is in the runtime
 * directory; where not even that may be, symlinks lead to the installed concc-cc.  Blocks on the
 * disk, some milliseconds.
 */
#include "concc/err.h"

struct masquerade {
	char *dir;	   /* for the front of PATH */
	char *cc;	   /* the copy of concc-cc, for what is written down */
	const char *cache; /* what stands before compilers in PATH already, and stays; or NULL */
	unsigned n;	   /* names in it */
};

enum masquerade_flags {
	MASQUERADE_RUST = 1 << 0, /* with rustc */
	/* With what is ccache by another's name; else that is told in `cache` only. */
	MASQUERADE_CCACHE = 1 << 1,
};

/*
 * For this PATH; other masquerade directories in it are looked through.  0 or a negative code, with
 * msg.
 */
int masquerade_make(const char *path_var, unsigned flags, struct masquerade *ret,
		    struct errmsg *msg);
void masquerade_release(struct masquerade *m);

/* path_var without our directories; a copy on the heap. */
char *masquerade_leave(const char *path_var);

#endif
