/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* counters FILE: what wrappers counted there, a line "KIND:NAME COUNT" each. */
#include <inttypes.h>
#include <stdio.h>

#include "concc/wrapper.h"

int main(int argc, char **argv)
{
	struct counter e[COUNTERS_MAX];
	size_t n = argc == 2 ? counters_read(argv[1], e, COUNTERS_MAX) : 0;

	for (size_t i = 0; i < n; i++)
		printf("%s %" PRIu64 "\n", e[i].name, e[i].n);
	return argc == 2 ? 0 : 1;
}
