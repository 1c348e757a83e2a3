/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_FUZZ_CHECK_H
#define CONCC_TEST_FUZZ_CHECK_H

/* What must be true of any input: else the fuzzer keeps it. */
#include <stdlib.h>

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

#endif
