/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The agent's disk: the store of contents, and the threads that do what may block. */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define STORE_DEFAULT (20ull << 30)
#define DISK_THREADS                                                                               \
	6 /* contents; outputs, that are kept or read; trims; toolchains; own files                \
	   */
/* Contents that have come and are not in the store yet, where the disk is slower than the line:
 * beyond that, what was expected to be read is not taken, and is fetched when it is. */
#define DISK_BYTES_MAX (256u << 20)

/* What the store's thread needs, which may outlive the agent when the disk hangs. */
struct upkeep {
	struct agent *agent; /* in `done` only */
	struct store *store;
};

static struct upkeep *upkeep_new(struct agent *a)
{
	struct upkeep *u = xcalloc(1, sizeof(*u));

	*u = (struct upkeep){a, a->store};
	return u;
}

static void trim(void *arg)
{
	(void)store_trim(
		((struct upkeep *)arg)->store); /* what can't be trimmed now can be later */
}

static void trimmed(void *arg)
{
	struct upkeep *u = arg;

	u->agent->trims = false;
	free(u);
}

static void probe(void *arg)
{
	(void)store_probe(((struct upkeep *)arg)->store); /* store_state() tells */
}

static void put_upkeep(struct agent *a, void (*run)(void *))
{
	if (a->trims)
		return;
	a->trims = true;
	(void)offload_put(a->trimming, run, trimmed, upkeep_new(a), 0); /* one at a time */
}

void agent_store_probe(struct agent *a)
{
	put_upkeep(a, probe);
}

/* Bounded while it is used; and a client whose contents can't be kept sends its jobs elsewhere. */
void agent_store_look(struct agent *a)
{
	int state = store_state(a->store);
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (store_wants_trim(a->store))
		put_upkeep(a, trim);
	if (state == a->storage_sent || !a->up)
		return;
	if (state < 0)
		log_warn("can't write to %s: %s", a->store_dir, err_text(state));
	a->storage_sent = state;
	msg_storage_encode(&b, &(struct msg_storage){.error = state < 0 && state > -4096
								      ? (uint32_t)-state
							      : state ? EIO
								      : 0,
						     .dir = a->store_dir});
	link_send_buf(a->link, MSG_STORAGE, LINK_PRIO, &b);
}

static void on_disk(void *data, uint32_t events)
{
	struct agent *a = data;

	offload_dispatch(a->disk);
	agent_store_look(a);
}

void agent_disk_start(struct agent *a)
{
	a->disk = offload_new(DISK_THREADS, DISK_BYTES_MAX);
	a->keeping = offload_lane(a->disk);
	a->trimming = offload_lane(a->disk);
	a->comparing = offload_lane(a->disk);
	a->scanning = offload_lane(a->disk);
	a->disk_source = loop_add_fd(a->loop, offload_event_fd(a->disk), LOOP_READ, on_disk, a);
}

int agent_store_open(struct agent *a, struct errmsg *msg)
{
	_cleanup_free_ char *cache = NULL, *dir = NULL;
	uint64_t max = a->client.store_max ? a->client.store_max : STORE_DEFAULT;
	uint64_t allowed = a->farm.store_max;
	int r;

	r = cache_dir(&cache, msg);
	if (r < 0)
		return r;
	dir = path_join(cache, "store");
	a->store_dir = xstrdup(dir);
	return store_open(dir, allowed && allowed < max ? allowed : max, &a->store, msg);
}
