/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "wake.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "disk.h"
#include "peer.h"
#include "server.h"

/* Lines of "MICROSECONDS SECTION". */
#define FILE_NAME "starts"
#define FILE_MAX  (64 * 1024)
/* Longer than any that is waited for: a damaged file. */
#define START_MAX_US (24 * 3600 * 1000000ULL)
/* The last one counts as much as all before: a machine is booted, or an image is there by now. */
#define PARTS 2

struct wake {
	struct map takes; /* of a section: microseconds, as a pointer */
	struct loop_source *timer;
	uint64_t since_us; /* since when there is a queue that is left alone; 0: there is none */
};

static const char *section_of(const struct peer *p)
{
	return p->conf->group ? p->conf->group : p->conf->name;
}

uint64_t wake_takes_us(const struct peer *p)
{
	const struct wake *w = p->server->wake;

	return w ? (uintptr_t)map_get_str(&w->takes, section_of(p)) : 0;
}

/* ---- what is remembered ---- */

static void remember_line(struct wake *w, char *line)
{
	char *name = strchr(line, ' ');
	unsigned long long us;

	if (!name || !name[1])
		return;
	*name++ = '\0';
	if (str_to_u64(line, START_MAX_US, &us) && us)
		(void)map_put_str(&w->takes, name, (void *)(uintptr_t)us);
}

static void load(struct server *s)
{
	_cleanup_free_ char *path = path_join(s->cache, FILE_NAME);
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *rest = NULL;

	if (read_file_at(AT_FDCWD, path, FILE_MAX, &b) < 0)
		return; /* none yet */
	buf_put_u8(&b, '\0');
	for (char *line = strtok_r((char *)b.data, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest))
		remember_line(s->wake, line);
}

static void save(struct server *s)
{
	_cleanup_free_ char *path = path_join(s->cache, FILE_NAME);
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *section;
	size_t it = 0;
	void *us;

	while ((us = map_next(&s->wake->takes, &it, &section)))
		buf_putf(&b, "%llu %s\n", (unsigned long long)(uintptr_t)us, section);
	disk_replace(s, path, &b);
}

void wake_learn(const struct peer *p, uint64_t us)
{
	struct server *s = p->server;
	uint64_t before = wake_takes_us(p);

	if (!s->wake)
		return;
	us = before ? (us + (PARTS - 1) * before) / PARTS : us;
	us = us > START_MAX_US ? START_MAX_US : us;
	(void)map_put_str(&s->wake->takes, section_of(p), (void *)(uintptr_t)(us ?: 1));
	save(s);
}

/* ---- who is started ---- */

static uint32_t starting_slots(const struct server *s)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (p->state == PEER_CONNECTING || p->state == PEER_GREETING)
			n += p->slots ? p->slots : 1;
	}
	return n;
}

/*
 * Not for a queue that what is up will be through with by then.  How long jobs take may not be
 * known, and others may come: what has lasted as long as the start takes is likely to last.
 */
static bool pays(const struct server *s, const struct peer *p, uint64_t queue_us, uint64_t now)
{
	uint64_t takes = wake_takes_us(p), since = s->wake->since_us;

	return queue_us >= takes || (since && now - since >= takes);
}

static void look_again(struct server *s, uint64_t now, uint64_t after_us)
{
	struct wake *w = s->wake;

	if (!w->since_us)
		w->since_us = now;
	loop_timer_set(w->timer, (w->since_us + after_us - now) / 1000 + 1);
}

void wake_workers(struct server *s)
{
	uint64_t now = now_us(), queue_us, soonest = UINT64_MAX;
	uint32_t wanted, coming;

	if (!s->wake || s->stopping || s->replaced)
		return;
	wanted = pool_waiters(s->pool);
	queue_us = wanted ? pool_queue_us(s->pool) : 0;
	coming = starting_slots(s);
	for (unsigned i = 0; i < s->n_peers && coming < wanted; i++) {
		struct peer *p = s->peers[i];

		if (p->state != PEER_ASLEEP)
			continue;
		if (pays(s, p, queue_us, now)) {
			coming += p->slots ? p->slots : 1;
			peer_start(p);
		} else if (wake_takes_us(p) < soonest) {
			soonest = wake_takes_us(p);
		}
	}
	if (coming < wanted && soonest != UINT64_MAX)
		look_again(s, now, soonest);
	else
		s->wake->since_us = 0;
}

static void on_timer(void *data)
{
	wake_workers(data);
}

void wake_open(struct server *s)
{
	s->wake = xcalloc(1, sizeof(*s->wake));
	s->wake->timer = loop_add_timer(s->loop, 0, on_timer, s);
	load(s);
}

void wake_close(struct server *s)
{
	struct wake *w = steal_ptr(&s->wake);

	if (!w)
		return;
	loop_remove(w->timer);
	map_release(&w->takes);
	free(w);
}
