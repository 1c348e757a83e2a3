/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Names in a directory that has the stamp it had when they were looked at, if it would have another
 * one had they changed: of these it is known what they mean, whatever set they are in.  The jobs of
 * a build look at the same headers, in ever other sets.  When the directory has got another stamp,
 * as each output in it gives it one, a name that has the version it had means what it meant.
 */
#include "look.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"

#define STATES_MAX (128 * 1024) /* names and their directories: some 40 MB */
#define LINKS_MAX  8

/*
 * Sets are sorted, and most of what one job looks at in a directory others do: the name that came
 * behind this one the last time comes again, and need not be sought.
 */
struct place_name {
	struct name_state *state;
	struct place_name *next; /* or NULL */
	char name[];		 /* letter and base name */
};

struct look_place {
	uint64_t route;
	struct map names;	  /* letter and base name -> struct place_name *, owned */
	struct place_name *first; /* of the last look, or NULL; */
	struct place_name *at;	  /* that of the name before, in this look */
};

struct name_state {
	uint64_t fingerprint; /* 0: it was not asked for */
	uint64_t stamp;	      /* of its directory when it last meant that; or by its */
	uint64_t version;     /* 0: another stamp may be another meaning */
	bool has_facts;
	unsigned facts;
	size_t n_state, n_ids; /* bytes */
	uint8_t bytes[];       /* both, one behind the other */
};

static void forget_place(struct cache_look *l, struct look_place *p)
{
	struct place_name *n;

	l->n_states -= p->names.n;
	for (size_t it = 0; (n = map_next(&p->names, &it, NULL));) {
		free(n->state);
		free(n);
	}
	map_release(&p->names);
	p->names = MAP_INIT;
	p->first = p->at = NULL;
}

void look_leave_place(struct cache_look *l)
{
	l->place_path = NULL;
	l->place = NULL;
}

void look_forget_states(struct cache_look *l)
{
	struct look_place *p;

	look_leave_place(l);
	for (size_t it = 0; (p = map_next(&l->places, &it, NULL));) {
		forget_place(l, p);
		free(p);
	}
	map_release(&l->places);
	l->places = MAP_INIT;
	l->n_states = 0;
}

static struct look_place *place_at(struct cache_look *l, const char *path, size_t n, uint64_t route)
{
	struct look_place *p = map_get(&l->places, path, n);

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		(void)map_put(&l->places, path, n, p);
		l->n_states++;
	}
	if (p->route != route)
		forget_place(l, p);
	p->route = route;
	return p;
}

/* Mostly it is that of the name before.  Its stamp is taken before anything in it is looked at. */
static void enter_place(struct cache_look *l, const char *path)
{
	const struct cache_place *now = &l->place_now;
	size_t n = l->place_len;

	if (l->place_path && strncmp(l->place_path, path, n) == 0 && !strchr(path + n, '/'))
		return;
	n = (size_t)(path_base(path) - path);
	if (l->n_states >= STATES_MAX)
		look_forget_states(l);
	l->place_now = l->ops->place(l->data, path, n);
	l->place = now->stamp ? place_at(l, path, n, now->route) : NULL;
	if (l->place)
		l->place->at = NULL;
	l->place_path = path;
	l->place_len = n;
}

static struct place_name **next_of(struct look_place *p)
{
	return p->at ? &p->at->next : &p->first;
}

static bool is_name(const struct place_name *p, const char *name, const char *base)
{
	return p->name[0] == name[0] && streq(p->name + 1, base);
}

/* False: no name in a directory is so long. */
static bool key_of(const struct cache_look *l, const char *name, char key[NAME_MAX + 2],
		   size_t *ret_n)
{
	const char *base = name + 1 + l->place_len;
	size_t n = strlen(base);

	if (n > NAME_MAX)
		return false;
	key[0] = name[0];
	memcpy(key + 1, base, n + 1);
	*ret_n = n + 1;
	return true;
}

static void put(struct cache_look *l, const struct name_state *s)
{
	size_t at = l->ids.len;

	buf_append(&l->ids, s->bytes, s->n_ids);
	for (; at < l->ids.len; at += sizeof(struct look_id))
		((struct look_id *)(l->ids.data + at))->index = (uint32_t)l->index;
	buf_append(&l->state, s->bytes + s->n_ids, s->n_state);
	if (l->facts)
		*l->facts |= s->facts;
	l->looked[l->index].stamp = l->place_now.stamp;
}

/* What a build looks at is more than a cache of the processor has, and a compiler has been there.
 */
static void fetch_next(const struct place_name *p)
{
	if (!p)
		return;
	__builtin_prefetch(p->state);
	__builtin_prefetch(p->next);
}

static struct name_state *find(struct cache_look *l, const char *name)
{
	struct place_name **next = next_of(l->place);
	char key[NAME_MAX + 2];
	size_t n;

	if (!*next || !is_name(*next, name, name + 1 + l->place_len)) {
		struct place_name *p = key_of(l, name, key, &n) ? map_get(&l->place->names, key, n)
								: NULL;

		if (!p)
			return NULL;
		*next = p;
	}
	l->place->at = *next;
	fetch_next(l->place->at->next);
	return l->place->at->state;
}

static uint64_t version_of(struct cache_look *l, const char *name)
{
	return l->ops->version(l->data, l->place_now.where, name + 1 + l->place_len);
}

static bool is_still(struct cache_look *l, const char *name, struct name_state *s)
{
	if (s->stamp == l->place_now.stamp)
		return true;
	if (!s->version || s->version != version_of(l, name))
		return false;
	s->stamp = l->place_now.stamp;
	return true;
}

bool look_put_known(struct cache_look *l, const char *name, uint64_t *ret_fingerprint)
{
	struct name_state *s;

	if (!l->ops->place || l->without)
		return false;
	enter_place(l, name + 1);
	if (!l->place || !l->place->names.n)
		return false;
	s = find(l, name);
	if (!s || (l->facts && !s->has_facts) || (ret_fingerprint && !s->fingerprint) ||
	    !is_still(l, name, s))
		return false;
	if (ret_fingerprint)
		*ret_fingerprint = s->fingerprint;
	put(l, s);
	return true;
}

/* What else a listing or a place depends on no stamp of this directory tells. */
static bool is_of_the_name(char how)
{
	return how != TRACE_LIST && how != TRACE_PLACE && how != TRACE_MAKE && how != TRACE_WAY;
}

static bool vouch(struct cache_look *l, const char *name, const struct stat *st)
{
	return l->ops->vouches(l->data, l->place_now.where, name, st);
}

/*
 * Does this symlink lead to a file beside it, by others or at once?  So are those of shared
 * libraries and compilers.  Of what is elsewhere this stamp does not tell.
 */
static bool leads_to_neighbour(struct cache_look *l, const char *link)
{
	char at[PATH_MAX], target[NAME_MAX + 1];
	struct stat st;

	if (strlen(link) >= sizeof(at))
		return false;
	memcpy(at, link, strlen(link) + 1);
	for (unsigned n_links = 0; n_links < LINKS_MAX; n_links++) {
		ssize_t n = readlink(at, target, sizeof(target));

		if (n <= 0 || n == sizeof(target) || memchr(target, '/', (size_t)n) ||
		    l->place_len + (size_t)n >= sizeof(at))
			return false;
		memcpy(at + l->place_len, target, (size_t)n);
		at[l->place_len + (size_t)n] = '\0';
		if (lstat(at, &st) < 0 || !vouch(l, at + l->place_len, &st))
			return false;
		if (!S_ISLNK(st.st_mode))
			return S_ISREG(st.st_mode);
	}
	return false;
}

/* Of the name that was just looked at: did that go through a symlink? */
static bool was_followed(const struct cache_look *l, const char *name)
{
	return !l->err && S_ISLNK(l->st.st_mode) && name[0] != TRACE_LOOK && name[0] != TRACE_LINK;
}

/* Would the stamp be another one if the name were not what was just seen? */
static bool is_vouched(struct cache_look *l, const char *name)
{
	const char *path = name + 1;

	return l->path && streq(l->path, path) && (!l->err || l->err == ENOENT) &&
	       vouch(l, path + l->place_len, l->err ? NULL : &l->st) &&
	       (!was_followed(l, name) || leads_to_neighbour(l, path));
}

/* Takes s. */
static void note(struct cache_look *l, const char *key, size_t n, struct name_state *s)
{
	struct place_name *p = map_get(&l->place->names, key, n);

	if (!p) {
		p = xcalloc(1, sizeof(*p) + n + 1);
		memcpy(p->name, key, n);
		(void)map_put(&l->place->names, key, n, p);
		l->n_states++;
	}
	free(p->state);
	p->state = s;
}

void look_note_state(struct cache_look *l, const char *name, const struct look_mark *from,
		     uint64_t fingerprint)
{
	size_t n_ids = l->ids.len - from->ids, n_state = l->state.len - from->state, n;
	char key[NAME_MAX + 2];
	struct name_state *s;

	if (!l->place || l->without || l->is_unsure || !is_of_the_name(name[0]) ||
	    !is_vouched(l, name) || !key_of(l, name, key, &n))
		return;
	s = xmalloc(sizeof(*s) + n_ids + n_state);
	*s = (struct name_state){
		.fingerprint = fingerprint,
		.stamp = l->place_now.stamp,
		.version = was_followed(l, name) ? 0 : version_of(l, name),
		.has_facts = l->facts,
		.facts = l->facts ? *l->facts : 0,
		.n_state = n_state,
		.n_ids = n_ids,
	};
	memcpy(s->bytes, l->ids.data + from->ids, n_ids);
	memcpy(s->bytes + n_ids, l->state.data + from->state, n_state);
	l->looked[l->index].stamp = l->place_now.stamp;
	note(l, key, n, s);
}
