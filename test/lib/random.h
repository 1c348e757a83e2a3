/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_RANDOM_H
#define CONCC_TEST_RANDOM_H

/* The same numbers for the same seed. */
#include <stdint.h>

static uint64_t rng;

static uint32_t random_below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 33) % n;
}

static void random_seed(uint64_t seed)
{
	rng = seed * 0x9E3779B97F4A7C15u + 1;
	random_below(2);
}

#endif
