/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_BENCH_COMPILE_H
#define CONCC_BENCH_COMPILE_H

/* Which commands the launchers of the benchmark treat as compiles: those that concc sends away. */
#include <stdbool.h>
#include <string.h>

/* gcc -c FILE... -o OUT, or a crate of cargo's; not a link, not a question, not a probe. */
static inline bool is_compile(char *const *argv)
{
	bool c = false, crate = false, out = false, out_dir = false;

	for (char *const *a = argv + 1; *a; a++) {
		if (strcmp(*a, "/dev/null") == 0 || strcmp(*a, "-") == 0)
			return false;
		c = c || strcmp(*a, "-c") == 0;
		out = out || strcmp(*a, "-o") == 0;
		crate = crate || strcmp(*a, "--crate-name") == 0;
		out_dir = out_dir || strcmp(*a, "--out-dir") == 0;
	}
	return (c && out) || (crate && out_dir);
}

#endif
