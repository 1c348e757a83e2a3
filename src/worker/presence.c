/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "presence.h"

#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "agent.h"

#define HOST_SHOWN 256
#define AT_ONCE	   16 /* answers in one turn of the loop: jobs go first */

struct presence {
	struct agent *agent;
	struct loop_source *source;
	int fd;
	uint32_t uid; /* of the login, as its host numbers it */
	uint64_t since_ms;
};

static json_t *loop_json(const struct loop *l)
{
	struct loop_counts c;
	json_t *o = json_object();

	loop_counts(l, &c);
	json_object_set_new(o, "long", json_integer((json_int_t)c.n_long));
	json_object_set_new(o, "longest_us", json_integer((json_int_t)c.longest_us));
	return o;
}

static json_t *disk_json(struct offload *disk)
{
	struct offload_counts c = {0};

	if (disk)
		offload_counts(disk, &c);
	return json_pack("{sI sI sI sI sI sI sI}", "queued", (json_int_t)c.queued, "bytes",
			 (json_int_t)c.bytes, "done", (json_int_t)c.n_done, "refused",
			 (json_int_t)c.n_refused, "most_queued", (json_int_t)c.most_queued,
			 "most_bytes", (json_int_t)c.most_bytes, "longest_us",
			 (json_int_t)c.longest_us);
}

static char *describe(const struct presence *p)
{
	const struct agent *a = p->agent;
	struct store_counts k = {0};
	struct mirror_counts c = {0};
	/* A name of any bytes, as a client says it. */
	_cleanup_free_ char *client = str_escape(a->client.host ?: "", strlen(a->client.host ?: ""),
						 HOST_SHOWN);
	json_t *o = json_object();
	char *text;

	if (a->store)
		store_counts(a->store, &k);
	if (a->mirror)
		mirror_counts(a->mirror, &c);
	json_object_set_new(o, "pid", json_integer(getpid()));
	json_object_set_new(o, "login", json_integer(p->uid));
	json_object_set_new(o, "client", json_string(client));
	json_object_set_new(o, "seconds",
			    json_integer((json_int_t)(now_ms() - p->since_ms) / 1000));
	json_object_set_new(o, "running",
			    json_integer((json_int_t)a->jobs.n - (json_int_t)a->n_queued));
	json_object_set_new(o, "waiting", json_integer(a->n_queued));
	json_object_set_new(o, "slots", json_integer(a->max_jobs));
	json_object_set_new(o, "jobs", json_integer((json_int_t)a->n_jobs));
	json_object_set_new(o, "refused", json_integer((json_int_t)a->n_refused));
	json_object_set_new(o, "lost", json_integer((json_int_t)a->n_lost));
	json_object_set_new(o, "store", json_string(a->store_dir ?: ""));
	json_object_set_new(o, "store_hits", json_integer((json_int_t)k.hits));
	json_object_set_new(o, "store_added", json_integer((json_int_t)k.added));
	json_object_set_new(o, "own_disk_files", json_integer((json_int_t)c.own_files));
	json_object_set_new(o, "own_disk_bytes", json_integer((json_int_t)c.own_bytes));
	json_object_set_new(o, "disk", disk_json(a->disk));
	json_object_set_new(o, "loop", loop_json(a->loop));
	text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(o);
	return text;
}

static void on_asked(void *data, uint32_t events)
{
	struct presence *p = data;

	(void)events;
	for (int i = 0; i < AT_ONCE; i++) {
		_cleanup_close_ int fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		_cleanup_free_ char *text = fd < 0 ? NULL : describe(p);

		if (fd < 0)
			return;
		/* Less than a socket holds: it is taken at once, or lost. */
		if (text)
			(void)send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

struct presence *presence_new(struct agent *a)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int n = snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, PRESENCE_PREFIX "%d", getpid());
	struct presence *p;

	if (fd < 0 ||
	    bind(fd, (struct sockaddr *)&sa,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->agent = a;
	p->fd = steal_fd(&fd);
	p->uid = getuid();
	p->since_ms = now_ms();
	p->source = loop_add_fd(a->loop, p->fd, LOOP_READ, on_asked, p);
	return p;
}

void presence_free(struct presence *p)
{
	if (!p)
		return;
	loop_remove(p->source);
	close(p->fd);
	free(p);
}
