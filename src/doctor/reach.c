/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "doctor.h"

#define PING_MS	 1000
#define DEAD_MS	 4000
#define GREET_MS 15000 /* as a project server gives it, from the first byte to READY */
#define REAP_MS	 5000  /* for transports that were told to end */

struct reaching {
	struct loop *loop;
	size_t n_left;
};

struct attempt {
	struct reaching *all;
	const struct conf *conf;
	struct sight *sight;
	struct link *link;
	struct loop_source *limit;
	uint32_t timeout_ms;
	uint64_t sent_us;
	char *remedy;
	bool done;
};

static uint64_t realtime_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t); /* fails for a bad address only */
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* The worker is known well enough; why: NULL when it is ready. */
static void finish(struct attempt *a, const char *why)
{
	if (a->done)
		return;
	a->done = true;
	if (why)
		a->sight->error = xstrdup(why);
	loop_timer_set(a->limit, 0);
	if (a->link)
		link_close(a->link);
	if (--a->all->n_left == 0)
		loop_quit(a->all->loop);
}

static void too_late(void *data)
{
	struct attempt *a = data;
	_cleanup_free_ char *why = xasprintf("it %s, and then did not become ready within %u s",
					     a->sight->greeted ? "greeted" : "was reached",
					     (unsigned)(GREET_MS + a->timeout_ms) / 1000);

	finish(a, why);
}

/* ---- messages ---- */

static int on_hello(struct attempt *a, struct blob payload)
{
	struct sight *s = a->sight;
	struct msg_hello m;
	struct utsname u = {0};
	int r;

	if (s->program)
		return CONCC_E_PROTO;
	r = msg_hello_decode(payload, &m);
	if (r < 0)
		return r;
	str_defuse(m.program);
	str_defuse(m.host);
	str_defuse(m.arch);
	s->program = xstrdup(m.program);
	s->host = xstrdup(m.host);
	s->heard = true;
	(void)uname(&u);
	if (m.version != PROTO_VERSION) {
		_cleanup_free_ char *what = msg_hello_other_version(&m);
		_cleanup_free_ char *why = xasprintf("%s: upgrade %s", what,
						     m.version < PROTO_VERSION ? "it" : "this one");

		finish(a, why);
	} else if (!streq(u.machine, m.arch)) {
		_cleanup_free_ char *why = xasprintf("it is a %s machine and this is %s", m.arch,
						     u.machine);

		finish(a, why);
	} else {
		s->greeted = true;
	}
	msg_hello_release(&m);
	return 0;
}

static int on_checkup(struct attempt *a, struct blob payload)
{
	struct sight *s = a->sight;
	int r;

	if (s->has_checkup)
		return CONCC_E_PROTO;
	r = msg_checkup_decode(payload, &s->checkup);
	if (r < 0)
		return r;
	str_defuse(s->checkup.kernel);
	str_defuse(s->checkup.cache);
	s->heard_us = realtime_us();
	s->trip_us = now_us() - a->sent_us;
	s->has_checkup = true;
	return 0;
}

static int on_bye(struct attempt *a, struct blob payload)
{
	_cleanup_free_ char *text = NULL, *shown = NULL;
	int r = msg_bye_decode(payload, &text);

	if (r < 0)
		return r;
	shown = str_escape(text, strlen(text), 1000);
	finish(a, shown);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct attempt *a = data;

	switch (type) {
	case MSG_HELLO:
		return on_hello(a, payload);
	case MSG_BYE:
		return on_bye(a, payload);
	}
	if (!a->sight->program)
		return CONCC_E_PROTO;
	if (type == MSG_CHECKUP)
		return on_checkup(a, payload);
	if (type == MSG_READY)
		finish(a, NULL);
	return 0; /* what else comes is for who serves it */
}

static void on_closed(void *data, int err, const char *text)
{
	finish(data, text && *text ? text : err_text(err));
}

static const struct link_ops ops = {.message = on_message, .closed = on_closed};

/* ---- connecting ---- */

static void say_hello(struct attempt *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char host[256] = "client";
	struct utsname u = {0};
	struct msg_hello m = {
		.version = PROTO_VERSION,
		.program = (char *)"concc " CONCC_VERSION,
		.host = host,
		.arch = u.machine,
		.flags = HELLO_F_CHECKUP |
			 (a->sight->worker->root == ROOT_CLIENT ? HELLO_F_CLIENT_ROOT : 0),
		.uid = getuid(),
		.gid = getgid(),
		.store_max = a->conf->store_max_bytes,
		.cpu_model = (char *)"",
	};

	(void)uname(&u);
	(void)gethostname(host, sizeof(host) - 1);
	msg_hello_encode(&b, &m);
	a->sight->asked_us = realtime_us();
	a->sent_us = now_us();
	link_send_buf(a->link, MSG_HELLO, LINK_PRIO, &b);
}

static void on_connected(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	struct attempt *a = data;
	const struct conf_worker *w = a->sight->worker;
	struct link_config c = {
		.end = LINK_CLIENT,
		.by_command = w->command,
		.remedy = a->remedy,
		.ping_ms = PING_MS,
		.dead_ms = DEAD_MS,
		.greet_ms = w->command ? a->timeout_ms : 0,
	};

	if (!s) {
		finish(a, msg && *msg ? msg : err_text(err));
		return;
	}
	a->sight->how = xstrdup(how);
	a->link = link_new(a->all->loop, s, &c, &ops, a);
	loop_timer_set(a->limit, GREET_MS + (w->command ? a->timeout_ms : 0));
	say_hello(a);
}

static void start(struct attempt *a)
{
	static const char *const plain[] = {
		[MIRROR_CONCC] = NULL, [MIRROR_SSHFS] = "sshfs", [MIRROR_NONE] = "none"};
	const struct conf_worker *w = a->sight->worker;
	struct transport_config c = {
		.name = w->name,
		.index = w->index,
		.plain = plain[w->mirror],
		.slots = w->slots,
		.address = w->address,
		.command = w->command,
		.ssh = w->ssh,
		.worker_program = w->worker_program,
		.install = w->install ? INSTALL_YES : INSTALL_NO,
	};

	a->timeout_ms = (w->connect_timeout_s ? w->connect_timeout_s : a->conf->connect_timeout_s) *
			1000;
	c.timeout_ms = a->timeout_ms;
	if (w->worker_program)
		a->remedy = xstrdup("correct `program` in its section, or remove it");
	else if (w->address && str_starts(w->address, "ssh://"))
		a->remedy = xasprintf("`concc push %s` puts this one there", conf_worker_word(w));
	a->limit = loop_add_timer(a->all->loop, 0, too_late, a);
	loop_timer_set(a->limit, 0);
	(void)transport_connect(a->all->loop, &c, on_connected, a); /* has its own end */
}

int reach(const struct conf *conf, struct sight *s, size_t n)
{
	struct attempt *attempts = xcalloc(n, sizeof(*attempts));
	_cleanup_free_ char *our_cache = cache_dir_of_workers();
	struct reaching all = {.n_left = n};
	int r = loop_new(&all.loop);

	for (size_t i = 0; r == 0 && i < n; i++) {
		attempts[i] = (struct attempt){.all = &all, .conf = conf, .sight = &s[i]};
		start(&attempts[i]);
	}
	if (r == 0 && n)
		r = loop_run(all.loop);
	for (size_t i = 0; i < n; i++) {
		link_free(attempts[i].link);
		free(attempts[i].remedy);
	}
	if (r == 0) {
		(void)loop_run_children(all.loop, REAP_MS); /* what stays is init's */
		loop_free(all.loop);
	}
	if (our_cache)
		(void)setenv("CONCC_CACHE_DIR", our_cache, 1);
	free(attempts);
	return r;
}

void sight_release(struct sight *s)
{
	free(s->how);
	free(s->error);
	free(s->program);
	free(s->host);
	if (s->has_checkup)
		msg_checkup_release(&s->checkup);
	*s = (struct sight){0};
}
