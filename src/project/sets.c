/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "sets.h"

#include <errno.h>

#include "concc/cleanup.h"
#include "concc/tree.h"

#define LOOKED_MAX 65536 /* some 4 MB */

bool sets_read(struct cache_store *s, const struct cache_first *first, const struct digest *set,
	       struct sets_left *left, struct cache_names *ret, size_t *ret_cost)
{
	const struct blob *here = cache_first_set(first, set);
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct blob in;
	size_t cost;

	if (!left->to_keep)
		return false;
	if (!here && cache_get_bytes(s, set, PROTO_TRACE_BYTES_MAX, &b) < 0)
		return false;
	in = here ? *here : (struct blob){b.data, b.len};
	cost = cache_names_cost(in);
	if (cost > left->to_keep || cache_names_decode(in, ret) < 0)
		return false;
	left->to_keep -= cost;
	*ret_cost = cost;
	return true;
}

/* Would looking at them have the kernel mount something?  Once for each set, while mounts are as
 * they are. */
static bool names_trigger(struct results *r, const struct digest *set,
			  const struct cache_names *names)
{
	struct tree_counts c;

	tree_counts(r->server->tree, &c);
	if (c.mounts != r->looked_mounts || r->looked_sets.n >= LOOKED_MAX) {
		map_release(&r->looked_sets);
		r->looked_sets = MAP_INIT;
	}
	r->looked_mounts = c.mounts;
	if (map_get(&r->looked_sets, set->b, DIGEST_SIZE))
		return false;
	if (tree_names_trigger(r->server->tree, names->v, names->n))
		return true;
	(void)map_put(&r->looked_sets, set->b, DIGEST_SIZE, r);
	return false;
}

int sets_check(struct results *r, const struct digest *set, const struct cache_names *names,
	       size_t cost, struct sets_left *left)
{
	if (cost > left->to_look)
		return -E2BIG;
	left->to_look -= cost;
	server_pulse(r->server); /* before some 100 ms, of the largest */
	return names_trigger(r, set, names) ? -EACCES : 0;
}
