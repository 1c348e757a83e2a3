/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "text.h"

void put_span(struct buf *out, uint64_t us)
{
	unsigned long long s = (us + 500000) / 1000000;

	if (us < 59950000)
		buf_putf(out, "%.*f s", us < 995000 ? 2 : 1, (double)us / 1e6);
	else if (s < 3600)
		buf_putf(out, "%llu min %02llu s", s / 60, s % 60);
	else
		buf_putf(out, "%llu h %02llu min", s / 3600, s / 60 % 60);
}

void put_size(struct buf *out, uint64_t bytes)
{
	static const char *const units[] = {"KB", "MB", "GB", "TB"};
	double n = (double)bytes / 1024;
	unsigned i = 0;

	if (bytes < 1024) {
		buf_putf(out, "%llu B", (unsigned long long)bytes);
		return;
	}
	for (; n >= 1023.5 && i < 3; i++)
		n /= 1024;
	buf_putf(out, "%.*f %s", n < 9.95 ? 1 : 0, n, units[i]);
}
