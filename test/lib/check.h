/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_LIB_CHECK_H
#define CONCC_TEST_LIB_CHECK_H

#include <stdio.h>
#include <stdlib.h>

/* For a process of its own, where Criterion's don't work: says what failed, and ends it; the test
 * looks at its status. */
#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);                 \
			fprintf(stderr, " " __VA_ARGS__);                                          \
			fprintf(stderr, "\n");                                                     \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#endif
