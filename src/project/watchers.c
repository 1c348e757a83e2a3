/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "watchers.h"
#include "client.h"

#include <jansson.h>
#include <stdlib.h>

#include "concc/io.h"
#include "concc/str.h"

/* No more often than this does anybody hear: a busy build has thousands of events in a second, and
 * a person reads five at most. */
#define PAUSE_MS 200
/* Jobs that ended, for those who look now: more than a screen has lines. */
#define RECENT_MAX 64

struct watchers {
	struct server *server;
	struct observer observer;
	struct loop_source *timer;
	bool armed;
	uint64_t sent_ms;     /* when anybody was told last */
	uint64_t n_changes;   /* never 0, which is what a new one has seen */
	json_t *recent;	      /* oldest first */
	uint64_t n_ended;     /* since somebody looks */
	unsigned n_listening; /* clients that are told */
};

/* ---- jobs that ended ---- */

/* What is no UTF-8 is left out. */
static json_t *recent_item(const struct job *j)
{
	const struct record *r = &j->record;
	uint64_t end = r->committed_us ? r->committed_us : r->ended_us;
	json_t *o = json_object();

	json_object_set_new(o, "worker", json_string(r->worker));
	json_object_set_new(o, "rule", json_string(r->rule));
	json_object_set_new(o, "why", json_string(r->why));
	json_object_set_new(o, "program", json_string(r->program));
	json_object_set_new(o, "subject", json_string(r->subject));
	json_object_set_new(o, "directory", json_string(r->cwd));
	json_object_set_new(o, "command", json_string(r->command));
	json_object_set_new(o, "us",
			    json_integer(end > r->sent_us ? (json_int_t)(end - r->sent_us) : 0));
	json_object_set_new(o, "signal", json_boolean(r->how == RECORD_END_SIGNAL));
	json_object_set_new(o, "code", json_integer(r->code));
	return o;
}

static void note_ended(struct watchers *w, const struct job *j)
{
	json_array_append_new(w->recent, recent_item(j));
	w->n_ended++;
	if (json_array_size(w->recent) > RECENT_MAX)
		(void)json_array_remove(w->recent, 0);
}

/* ---- telling ---- */

/* It asked, there is something new, and it has read what it was told before: so what waits for a
 * reader is one reply, however slow it is and however often it asks. */
static bool is_due(const struct watchers *w, const struct client *c)
{
	return c->watch_asked && c->watch_seen != w->n_changes && !link_queued(c->link);
}

static void tell(struct watchers *w, struct client *c)
{
	_cleanup_buf_ struct buf text = BUF_INIT, b = BUF_INIT;

	status_watch(w->server, w->recent, w->n_ended, &text);
	msg_ctl_reply_encode(&b, 0, buf_cstr(&text));
	c->watch_asked = false;
	c->watch_seen = w->n_changes;
	w->sent_ms = now_ms();
	link_send_buf(c->link, MSG_CTL_REPLY, LINK_BULK, &b);
}

static void on_timer(void *data)
{
	struct watchers *w = data;

	w->armed = false;
	list_for_each_safe (l, &w->server->clients) {
		struct client *c = container_of(l, struct client, of_server);

		if (is_due(w, c))
			tell(w, c);
	}
}

/* After the pause, or at once when it has passed. */
static void arm(struct watchers *w)
{
	uint64_t now = now_ms(), at = w->sent_ms + PAUSE_MS;

	if (w->armed)
		return;
	w->armed = true;
	loop_timer_set(w->timer, at > now ? at - now : 1);
}

static bool anybody_asks(const struct watchers *w)
{
	list_for_each (l, &w->server->clients) {
		if (is_due(w, container_of(l, struct client, of_server)))
			return true;
	}
	return false;
}

static void change(struct watchers *w)
{
	w->n_changes++;
	if (!w->armed && anybody_asks(w))
		arm(w);
}

static void on_event(void *data, enum job_event what, struct job *j)
{
	struct watchers *w = data;

	if (what == JOB_EVENT_ENDED)
		note_ended(w, j);
	change(w);
}

/* ---- who looks ---- */

static struct watchers *watchers_new(struct server *s)
{
	struct watchers *w = xcalloc(1, sizeof(*w));

	w->server = s;
	w->n_changes = 1;
	w->recent = json_array();
	w->timer = loop_add_timer(s->loop, 0, on_timer, w);
	w->observer = (struct observer){.event = on_event, .data = w};
	jobs_observe(s, &w->observer);
	return w;
}

static void watchers_free(struct watchers *w)
{
	list_remove(&w->observer.of_server);
	loop_remove(w->timer);
	json_decref(w->recent);
	free(w);
}

void watch_ask(struct client *c)
{
	struct server *s = c->server;

	if (!s->watchers)
		s->watchers = watchers_new(s);
	if (!c->watches) {
		c->watches = true;
		s->watchers->n_listening++;
	}
	c->watch_asked = true;
	if (is_due(s->watchers, c))
		arm(s->watchers);
	/* One that only waits for its last clients does not for this one; of one that is not in use
	 * the idle time goes on. */
	if (s->abandoned)
		server_busy(s);
}

void watch_read(struct client *c)
{
	if (c->watches && is_due(c->server->watchers, c))
		arm(c->server->watchers);
}

void watch_leave(struct client *c)
{
	struct server *s = c->server;

	if (!c->watches)
		return;
	c->watches = false;
	if (--s->watchers->n_listening == 0)
		watchers_free(steal_ptr(&s->watchers));
}

void watchers_tell(struct server *s)
{
	if (s->watchers)
		change(s->watchers);
}

unsigned watchers_count(const struct server *s)
{
	return s->watchers ? s->watchers->n_listening : 0;
}
