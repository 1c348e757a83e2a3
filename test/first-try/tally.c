/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* tally FILE: what wrappers counted there, a line "KIND:NAME COUNT" each. */
#include <inttypes.h>
#include <stdio.h>

#include "concc/wrapper.h"

int main(int argc, char **argv)
{
	struct tally_entry e[TALLY_ENTRIES];
	size_t n = argc == 2 ? tally_read(argv[1], e, TALLY_ENTRIES) : 0;

	for (size_t i = 0; i < n; i++)
		printf("%s %" PRIu64 "\n", e[i].name, e[i].n);
	return argc == 2 ? 0 : 1;
}
