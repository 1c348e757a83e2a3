/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "state.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/process.h"
#include "concc/record.h"
#include "concc/str.h"
#include "exec.h"
#include "self.h"

bool local_mark_started(struct wrapper *w)
{
	w->marked = w->marked || self_start(w->exe);
	return w->marked;
}

static int not_found(const struct wrapper *w)
{
	words_say(&w->words, WORDS_ERROR, "can't run %s: %s%s", w->argv[0], err_text(-ENOENT),
		  wrapper_meant(w->argv[0]));
	return 127; /* of a shell */
}

/* What becomes of it is the server's to see. */
static void tell_server(const struct wrapper *w, const char *rule, const char *why)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct record r;

	if (!w->dir)
		return;
	record_init(&r);
	r.arrived_us = w->arrived_us;
	r.slot_us = w->slot_us;
	r.sent_us = wrapper_now_us() - w->arrived_us + 1;
	r.tries = w->tries;
	record_set(&r.rule, rule);
	record_set(&r.why, why);
	record_set(&r.build, getenv("CONCC_RUN_ID") ?: "");
	record_set(&r.cwd, w->cwd ? w->cwd : "");
	record_set_words(&r, w->argv);
	record_encode(&b, &r);
	record_release(&r);
	server_tell(w->dir, MSG_RUN_HERE, &b);
}

int local_run(struct wrapper *w, bool gated, const char *rule, const char *why)
{
	struct exec_call h = {.path = w->path, .argv = w->argv, .out = &w->output};
	int r;

	if (w->ourselves && !w->exe)
		return not_found(w); /* execvp(3) would find us */
	if (w->exe && !local_mark_started(w)) {
		words_say(&w->words, WORDS_ERROR, "%s starts itself without end", w->exe);
		return WRAPPER_EXIT_FAILED;
	}
	r = input_replay(&w->input, &h.stdin_fd);
	if (r < 0) {
		words_say(&w->words, WORDS_ERROR,
			  "can't run %s again: its input can't be given to it: %s", w->argv[0],
			  err_text(r));
		return WRAPPER_EXIT_FAILED;
	}
	if (gated && w->dir)
		exec_take_slot(w->dir);
	tell_server(w, rule, why);
	return exec_child(&h);
}

int local_ccache(struct wrapper *w)
{
	_cleanup_free_ char *us = program_path("concc-cc");

	/* One of the user's variable stays; his file (prefix_command) gives way to this. */
	setenv("CCACHE_PREFIX", us, 0);
	return local_run(w, false, "", "");
}

static void explain_local(const struct wrapper *w, const char *rule, const char *why)
{
	bool is_try = streq(rule, "probe") || streq(rule, "query");

	words_say(&w->words, is_try ? WORDS_OF_TRY : WORDS_ASKED, "local: %s%s%s%s", rule,
		  *why ? " (" : "", why, *why ? ")" : "");
	wrapper_count(w, "local", rule);
}

int local_by_rule(struct wrapper *w, const char *rule, const char *why)
{
	explain_local(w, rule, why);
	return local_run(w, false, rule, why);
}

int local_in_slot(struct wrapper *w, const char *rule, const char *why)
{
	if (process_policy() == SCHED_OTHER)
		process_set_policy(SCHED_BATCH);
	conn_release(&w->waiting);
	exec_keep_slot(&w->slot);
	return local_by_rule(w, rule, why);
}

int local_straggler(struct wrapper *w, const char *why)
{
	struct pool_request q = {.cwd = w->cwd, .only = POOL_LOCAL, .local_ok = true};
	int r;

	do
		r = pool_acquire(w->pool, &q, &w->slot);
	while (r == -EINTR);
	return r < 0 ? local_by_rule(w, "straggler", why) : local_in_slot(w, "straggler", why);
}

int local_come_home(struct wrapper *w, const char *rule, const char *what, int err)
{
	_cleanup_free_ char *why = xasprintf("%s: %s", what, err_text(err));

	pool_release(w->pool, &w->slot);
	explain_local(w, rule, why);
	return local_run(w, true, rule, why);
}

static bool may_say(const struct wrapper *w, const char *rule, const char *text)
{
	_cleanup_free_ char *key = xasprintf("said:%s", rule);

	return !w->counters || counters_may_say_why(w->counters, key, text, SAY_PERIOD_S);
}

int local_fall_back(struct wrapper *w, const char *rule, const char *text)
{
	if (!words_say(&w->words, WORDS_ASKED, "local: %s (%s)", rule, text) &&
	    may_say(w, rule, text))
		words_say(&w->words, WORDS_TROUBLE, "%s; running it here", text);
	wrapper_count(w, "fallback", rule);
	return local_run(w, true, rule, text);
}
