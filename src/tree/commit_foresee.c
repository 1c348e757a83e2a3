/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What would come of a batch as things are, before anybody is shown what its job printed. */
#include "commit.h"

#include "concc/io.h"

/* As long as a piece of what is put in place.  Who has so much to be checked goes without. */
#define FORESEE_MS 4

int commit_foresee(struct commit *c, struct errmsg *msg)
{
	int err;

	if (!c->any_command || commit_is_empty(c))
		return commit_check_locks(c, msg);
	c->at = c->n_fresh = 0;
	c->checked = c->tree->version;
	c->until_ms = now_ms() + FORESEE_MS;
	err = commit_check_effects(c);
	commit_end_walk(c);
	commit_end_listening(c);
	commit_forget_dir(c);
	c->at = c->n_fresh = 0;
	c->others = NULL;
	c->made = false;
	if (err == CONCC_E_LATER)
		return commit_check_locks(c, msg);
	if (err)
		*msg = c->msg;
	return err;
}
