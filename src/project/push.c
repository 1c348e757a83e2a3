/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* `concc push`: concc-worker put on hosts, without a link or a server. */
#include "push.h"

#include <stdio.h>
#include <stdlib.h>

#include "concc/conf.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/project.h"
#include "concc/str.h"

#define REAP_MS 10000 /* for ssh processes that were told to end */

struct target {
	struct pushes *all;
	const struct conf_worker *worker;
};

struct pushes {
	struct loop *loop;
	size_t n_left;
	int failed;
};

const char *push_refused(const struct conf_worker *w)
{
	if (w->mirror != MIRROR_CONCC)
		return "its `mirror` needs no concc-worker";
	if (w->worker_program)
		return "its `program` is what runs there; remove that line first";
	if (w->command)
		return "its `command` brings a concc-worker of its own";
	if (!w->address || !str_starts(w->address, "ssh://"))
		return "it is this machine, which has one";
	return NULL;
}

static void report(struct pushes *all, const struct conf_worker *w, bool done, const char *text)
{
	printf("%s: %s%s\n", w->name, done ? "" : "failed: ", text);
	(void)fflush(stdout); /* as each is done; a lost line is no lost push */
	all->failed += !done;
}

static void on_done(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	struct target *t = data;

	stream_free(s);
	report(t->all, t->worker, err == 0, err < 0 ? *msg ? msg : err_text(err) : how);
	if (--t->all->n_left == 0)
		loop_quit(t->all->loop);
}

static void start(struct pushes *all, struct target *t, uint32_t timeout_s)
{
	const struct conf_worker *w = t->worker;
	struct transport_config c = {
		.name = w->name,
		.index = w->index,
		.address = w->address,
		.ssh = w->ssh,
		.install = INSTALL_ONLY,
		.timeout_ms = (w->connect_timeout_s ? w->connect_timeout_s : timeout_s) * 1000,
	};

	all->n_left++;
	(void)transport_connect(all->loop, &c, on_done, t); /* ends before the loop does */
}

int project_push(const struct conf *conf)
{
	struct target *targets = xcalloc(conf->n_workers, sizeof(*targets));
	struct pushes all = {0};
	int r = loop_new(&all.loop);

	for (size_t i = 0; r == 0 && i < conf->n_workers; i++) {
		const char *why = push_refused(&conf->workers[i]);

		targets[i] = (struct target){.all = &all, .worker = &conf->workers[i]};
		if (why)
			report(&all, &conf->workers[i], false, why);
		else
			start(&all, &targets[i], conf->connect_timeout_s);
	}
	if (r == 0 && all.n_left)
		r = loop_run(all.loop);
	if (r == 0)
		(void)loop_run_children(all.loop, REAP_MS); /* what stays is init's */
	loop_free(all.loop);
	free(targets);
	return r < 0 ? r : all.failed;
}
