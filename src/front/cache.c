/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* `concc cache`: what is kept, by the store itself, whether or not a server runs. */
#include "concc/cache.h"

#include <inttypes.h>
#include <stdio.h>

#include "concc/cleanup.h"
#include "concc/front.h"
#include "concc/io.h"
#include "concc/wrapper.h"

static void print_size(uint64_t bytes)
{
	if (bytes >= 1ull << 30)
		printf("%.1f GB", (double)bytes / (1ull << 30));
	else
		printf("%.1f MB", (double)bytes / (1ull << 20));
}

static void print_counts(const struct cache_store *s)
{
	struct cache_counts c;
	char why[32];
	uint64_t n;

	cache_counts(s, &c);
	printf("size         ");
	print_size(c.bytes);
	printf(" in %" PRIu64 " files\n", c.objects);
	printf("hits         %" PRIu64 ", which saved %.1f s of CPU\n", c.hits,
	       (double)c.saved_us / 1e6);
	printf("misses       %" PRIu64 "\n", c.misses);
	printf("kept         %" PRIu64 "\n", c.kept);
	printf("not kept     %" PRIu64 "\n", c.uncacheable);
	for (size_t i = 0; cache_reason(s, i, why, &n); i++)
		printf("  %-18s %" PRIu64 "\n", why, n);
}

int front_cache(bool clear)
{
	_cleanup_free_ char *cache = NULL, *dir = NULL, *late = NULL;
	struct cache_store *s = NULL;
	struct errmsg msg = {0};
	int r = cache_dir(&cache, &msg);

	late = servers_flush(SERVERS_FLUSH_MS); /* what they have not written yet counts as well */
	if (late)
		fprintf(stderr,
			"concc: the project server of %s does not answer: its last jobs may be "
			"missing\n",
			late);
	if (r == 0) {
		dir = path_join(cache, "results");
		/* Nothing is written here, so any bound will do. */
		r = cache_store_open(dir, UINT64_MAX, &s, &msg);
	}
	if (r == 0 && clear && (r = cache_clear(s)) < 0)
		errmsg_set(&msg, r, "can't clear %s: %s", dir, err_text(r));
	if (r == 0 && !clear)
		print_counts(s);
	cache_store_close(s);
	if (r == 0)
		return 0;
	fprintf(stderr, "concc: %s\n", msg.text);
	return WRAPPER_EXIT_FAILED;
}
