/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/view.h"

#include "builds.h"
#include "concc/wrapper.h"
#include "summary.h"

void view_gain_read(struct view_gain *ret, const char *build, unsigned cores)
{
	struct builds all = {0};
	const struct build *b;
	struct summary s;

	*ret = (struct view_gain){.limit = ""};
	if (builds_read(&all, SERVERS_FLUSH_MS, NULL) == 0 && (b = builds_find(&all, build))) {
		summary_make(&s, &all, b, cores);
		*ret = (struct view_gain){summary_speed_up(&s), summary_limit(&s)};
		summary_release(&s);
	}
	builds_release(&all);
}
