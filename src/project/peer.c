/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "server.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define RETRY_MAX_S 60
#define PING_MS	    2000
#define DEAD_MS	    6000
/* From the first byte to READY: name spaces, mounts and the store's folder. */
#define GREET_MS 15000

static void set_text(char **where, const char *text)
{
	free(*where);
	*where = xstrdup(text);
}

static void tell_pool(struct peer *p, enum pool_state state)
{
	struct errmsg msg = {0};
	int r;

	r = pool_set(p->server->pool, p->conf->name, p->slots, state, 1000, &msg);
	if (r < 0)
		log_err("can't tell the pool about %s: %s", p->conf->name, msg.text);
}

static void forget_link(struct peer *p)
{
	size_t it = 0;
	char *text;

	serve_drop(p);
	tree_peer_reset(p->server->tree, p->index);
	map_release(&p->envs);
	map_release(&p->exes_sent);
	map_release(&p->pushed);
	map_release(&p->sources);
	while ((text = map_next(&p->exes_refused, &it, NULL)))
		free(text);
	map_release(&p->exes_refused);
	msg_hello_release(&p->hello);
	p->fuse = (struct msg_mirror_counts){0};
	loop_remove(steal_ptr(&p->greet_timer));
}

static void add_counts(struct link_counts *sum, const struct link_counts *c)
{
	sum->msgs_in += c->msgs_in;
	sum->msgs_out += c->msgs_out;
	sum->bytes_in += c->bytes_in;
	sum->bytes_out += c->bytes_out;
	sum->raw_in += c->raw_in;
	sum->raw_out += c->raw_out;
	sum->turns += c->turns;
	for (int i = 0; i < 256; i++) {
		sum->msgs_by_type_in[i] += c->msgs_by_type_in[i];
		sum->msgs_by_type_out[i] += c->msgs_by_type_out[i];
	}
}

void peer_counts(const struct peer *p, struct link_counts *ret)
{
	*ret = p->past;
	if (p->link)
		add_counts(ret, link_counts(p->link));
}

static void free_link(void *data)
{
	link_free(data);
}

static void retry(void *data)
{
	peer_start(data);
}

/* The worker can't be used now, for this reason; tried again after 1, 2, 4 ... 60 s. */
static void peer_down(struct peer *p, const char *why)
{
	struct link *k = steal_ptr(&p->link);
	uint64_t delay_s = p->failures > 6 ? RETRY_MAX_S : 1ull << p->failures;

	log_warn("worker=%s down: %s", p->conf->name, why);
	if (delay_s > RETRY_MAX_S)
		delay_s = RETRY_MAX_S;
	p->failures++;
	p->state = PEER_DOWN;
	set_text(&p->error, why);
	p->retry_at_ms = now_ms() + delay_s * 1000;
	tell_pool(p, POOL_DOWN);
	run_peer_gone(p, why);
	forget_link(p);
	if (k) {
		add_counts(&p->past, link_counts(k));
		link_close(k);
		/* We may be inside one of its callbacks. */
		loop_defer(p->server->loop, free_link, k);
	}
	if (!p->server->stopping)
		loop_timer_set(p->retry_timer, delay_s * 1000);
	server_ready_check(p->server);
}

static void greet_timeout(void *data)
{
	peer_down(data, "it did not become ready in time");
}

static int check_hello(struct peer *p)
{
	struct utsname u;

	if (p->hello.version != PROTO_VERSION) {
		_cleanup_free_ char *why = xasprintf(
			"it runs %s, which speaks protocol %u, and this is protocol %u: install the same "
			"concc on both",
			p->hello.program, p->hello.version, PROTO_VERSION);

		peer_down(p, why);
		return -1;
	}
	if (uname(&u) == 0 && !streq(u.machine, p->hello.arch)) {
		_cleanup_free_ char *why = xasprintf("it is a %s machine and this is %s",
						     p->hello.arch, u.machine);

		peer_down(p, why);
		return -1;
	}
	return 0;
}

static int on_hello(struct peer *p, struct blob payload)
{
	struct msg_hello m;
	int r;

	if (p->state != PEER_GREETING || p->hello.program)
		return CONCC_E_PROTO;
	r = msg_hello_decode(payload, &m);
	if (r < 0)
		return r;
	p->hello = m;
	for (char **s = (char *[]){m.program, m.host, m.arch, m.cpu_model, NULL}; *s; s++) {
		for (char *c = *s; *c; c++) {
			if (*c < 0x20 || *c > 0x7e)
				*c = '?';
		}
	}
	(void)check_hello(p); /* has closed the link when it failed */
	return 0;
}

static int on_ready(struct peer *p)
{
	if (p->state != PEER_GREETING || !p->hello.program)
		return CONCC_E_PROTO;
	loop_remove(steal_ptr(&p->greet_timer));
	p->state = PEER_UP;
	p->slots = p->conf->slots ? p->conf->slots : p->hello.cpus ? p->hello.cpus : 1;
	if (p->slots > POOL_SLOTS_MAX)
		p->slots = POOL_SLOTS_MAX;
	set_text(&p->error, "");
	log_info("worker=%s up: %s, %u slots, %s, %s", p->conf->name, p->hello.host, p->slots,
		 p->hello.program, p->how);
	tell_pool(p, POOL_UP);
	server_ready_check(p->server);
	return 0;
}

static int on_list(struct peer *p, struct blob payload)
{
	_cleanup_free_ char *path = NULL;
	int r;

	r = msg_list_decode(payload, &path);
	if (r < 0)
		return r;
	p->lists++;
	tree_list(p->server->tree, p->index, path);
	if (tree_told_id(p->server->tree, p->index, path))
		working_set_note_dir(p, path);
	return 0;
}

static int on_bye(struct peer *p, struct blob payload)
{
	_cleanup_free_ char *text = NULL, *shown = NULL;
	int r;

	r = msg_bye_decode(payload, &text);
	if (r < 0)
		return r;
	shown = str_escape(text, strlen(text), 1000);
	peer_down(p, shown);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct peer *p = data;

	switch (type) {
	case MSG_HELLO:
		return on_hello(p, payload);
	case MSG_BYE:
		return on_bye(p, payload);
	}
	if (!p->hello.program)
		return CONCC_E_PROTO;
	switch (type) {
	case MSG_READY:
		return on_ready(p);
	case MSG_LIST:
		return on_list(p, payload);
	case MSG_FETCH:
		return serve_fetch(p, payload);
	case MSG_MIRROR_COUNTS:
		return msg_mirror_counts_decode(payload, &p->fuse);
	case MSG_JOB_OUTPUT:
	case MSG_JOB_FILE:
	case MSG_JOB_DATA:
	case MSG_JOB_COMMIT:
	case MSG_JOB_EXIT:
	case MSG_INPUT_CREDIT:
	case MSG_JOB_MISSING:
		return run_message(p, type, payload);
	}
	return CONCC_E_PROTO;
}

static void on_closed(void *data, int err, const char *text)
{
	peer_down(data, text && *text ? text : err_text(err));
}

static void on_drained(void *data)
{
	serve_more(data);
}

static const struct link_ops peer_link_ops = {
	.message = on_message,
	.closed = on_closed,
	.drained = on_drained,
};

/*
 * What a job looks up in these the mirror sees.  A link to a directory counts as
 * one, since what leads through it does not lead into a served tree.
 */
static char **top_names(void)
{
	char **names = xcalloc(1, sizeof(*names));
	DIR *dir = opendir("/");
	struct dirent *e;

	while (dir && strv_len(names) < PROTO_TOP_MAX && (e = readdir(dir))) {
		struct stat st;

		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		if (fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode))
			strv_push(&names, xstrdup(e->d_name));
	}
	if (dir)
		(void)closedir(dir);
	return names;
}

static void say_hello(struct peer *p)
{
	_cleanup_strv_ char **top = top_names();
	_cleanup_buf_ struct buf b = BUF_INIT;
	char host[256] = "client";
	struct utsname u = {0};
	struct msg_hello m = {
		.version = PROTO_VERSION,
		.program = (char *)"concc " CONCC_VERSION,
		.host = host,
		.arch = u.machine,
		.uid = getuid(),
		.gid = getgid(),
		.store_max = p->server->conf->store_max_bytes,
		.cpu_model = (char *)"",
		.top = top,
	};

	(void)uname(&u);
	(void)gethostname(host, sizeof(host) - 1);
	msg_hello_encode(&b, &m);
	link_send_buf(p->link, MSG_HELLO, LINK_PRIO, &b);
}

static void on_connected(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	struct peer *p = data;
	struct link_config c = {
		.expect_magic = true,
		/* A pipe to this same machine is faster than any compression. */
		.compress = !p->conf->address || !str_starts(p->conf->address, "local:"),
		.ping_ms = PING_MS,
		.dead_ms = DEAD_MS,
	};

	p->connecting = NULL;
	if (!s) {
		peer_down(p, msg && *msg ? msg : err_text(err));
		return;
	}
	set_text(&p->how, how);
	p->state = PEER_GREETING;
	p->link = link_new(p->server->loop, s, &c, &peer_link_ops, p);
	p->greet_timer = loop_add_timer(p->server->loop, GREET_MS, greet_timeout, p);
	say_hello(p);
}

void peer_start(struct peer *p)
{
	struct transport_config c = {
		.name = p->conf->name,
		.address = p->conf->address,
		.command = p->conf->command,
		.ssh = p->conf->ssh,
		.worker_program = p->conf->worker_program,
		.timeout_ms = p->server->conf->connect_timeout_s * 1000,
	};

	p->state = PEER_CONNECTING;
	p->connecting = transport_connect(p->server->loop, &c, on_connected, p);
}

struct peer *peer_new(struct server *s, unsigned index, const struct conf_worker *conf)
{
	struct peer *p = xcalloc(1, sizeof(*p));

	p->server = s;
	p->index = index;
	p->conf = conf;
	p->state = PEER_DOWN;
	p->slots = conf->slots;
	p->how = xstrdup("");
	p->error = xstrdup("");
	list_init(&p->fetches);
	p->retry_timer = loop_add_timer(s->loop, 0, retry, p);
	tell_pool(p, POOL_DOWN);
	return p;
}

void peer_free(struct peer *p)
{
	if (!p)
		return;
	if (p->connecting)
		transport_cancel(p->connecting);
	run_peer_gone(p, "the project server ends");
	forget_link(p);
	if (p->link) {
		link_close(p->link);
		link_free(p->link);
	}
	(void)pool_remove(p->server->pool, p->conf->name); /* may be gone by hand */
	loop_remove(p->retry_timer);
	map_release(&p->jobs);
	free(p->how);
	free(p->error);
	free(p);
}

struct peer *server_peer(struct server *s, const char *name)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (streq(s->peers[i]->conf->name, name))
			return s->peers[i];
	}
	return NULL;
}
