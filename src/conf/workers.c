/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "workers.h"

#include <ctype.h>
#include <sched.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/conf.h"
#include "concc/worker_spec.h"
#include "concc/str.h"

#include "value.h"

#define WORKERS_MAX (POOL_MEMBERS_MAX - 1) /* one member is this machine itself */
#define SEPARATORS  ", \t\r\n"

void worker_release(struct conf_worker *w)
{
	free(w->name);
	free(w->group);
	free(w->listed);
	free(w->address);
	free(w->command);
	free(w->worker_program);
	memset(w, 0, sizeof(*w));
}

void workers_free(struct conf_worker *w, size_t n)
{
	for (size_t i = 0; i < n; i++)
		worker_release(&w[i]);
	free(w);
}

static char *copy_or_null(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

void worker_copy(const struct conf_worker *from, struct conf_worker *ret)
{
	*ret = *from;
	ret->name = copy_or_null(from->name);
	ret->group = copy_or_null(from->group);
	ret->listed = copy_or_null(from->listed);
	ret->address = copy_or_null(from->address);
	ret->command = copy_or_null(from->command);
	ret->worker_program = copy_or_null(from->worker_program);
}

void worker_set_defaults(struct conf_worker *w)
{
	/* Without our mirror only the worker's own system can be shown. */
	if (w->mirror != MIRROR_CONCC)
		w->root = ROOT_WORKER;
	else if (w->root == ROOT_DEFAULT)
		w->root = w->address && str_starts(w->address, "ssh://") ? ROOT_CLIENT
									 : ROOT_WORKER;
}

struct conf_worker *workers_add(struct conf_worker **w, size_t *n)
{
	struct conf_worker *last;

	*w = xrealloc(*w, (*n + 1) * sizeof(**w));
	last = &(*w)[(*n)++];
	memset(last, 0, sizeof(*last));
	return last;
}

struct conf_worker *workers_find(struct conf_worker *w, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (streq(w[i].name, name))
			return &w[i];
	}
	return NULL;
}

bool workers_has(struct conf_worker *w, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (streq(w[i].name, name) || (w[i].group && streq(w[i].group, name)))
			return true;
	}
	return false;
}

/* text with each %n replaced by the number; takes text, which may be NULL. */
static char *put_index(char *text, uint32_t index)
{
	_cleanup_free_ char *from = text;
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *at;

	if (!text)
		return NULL;
	for (const char *s = text; *s; s = at + 2) {
		at = strstr(s, "%n");
		if (!at) {
			buf_putf(&b, "%s", s);
			break;
		}
		buf_putf(&b, "%.*s%u", (int)(at - s), s, index);
	}
	return xstrdup(buf_cstr(&b));
}

static int check_copies(const struct conf *c, const struct conf_worker *w, struct errmsg *why)
{
	if (c->n_known - 1 + w->count > WORKERS_MAX)
		return errmsg_set(why, CONCC_E_CONF, "more than %d workers", WORKERS_MAX);
	for (uint32_t i = 1; i <= w->count; i++) {
		_cleanup_free_ char *name = xasprintf("%s-%u", w->name, i);

		if (value_worker_name(name, why) < 0)
			return CONCC_E_CONF;
		if (workers_has(c->known, c->n_known - 1, name))
			return errmsg_set(why, CONCC_E_CONF,
					  "count = %u makes a worker %s, and there is one already",
					  w->count, name);
	}
	return 0;
}

int workers_multiply(struct conf *c, struct errmsg *why)
{
	struct conf_worker model = c->known[c->n_known - 1];
	int r = check_copies(c, &model, why);

	if (r < 0)
		return r;
	c->n_known--;
	for (uint32_t i = 1; i <= model.count; i++) {
		struct conf_worker *w = workers_add(&c->known, &c->n_known);

		worker_copy(&model, w);
		free(w->name);
		w->name = xasprintf("%s-%u", model.name, i);
		free(w->group);
		w->group = xstrdup(model.name);
		w->index = i;
		w->address = put_index(w->address, i);
		w->command = put_index(w->command, i);
		w->worker_program = put_index(w->worker_program, i);
	}
	worker_release(&model);
	return 0;
}

static uint32_t count_cores(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return (uint32_t)CPU_COUNT(&set);
	/* More cores than a cpu_set_t holds; a worker counts them itself. */
	return CPU_SETSIZE;
}

/* Workers on this machine without a number of slots share its cores. */
static void share_cores(struct conf_worker *w, size_t n)
{
	uint32_t n_local = 0;
	uint32_t share;

	for (size_t i = 0; i < n; i++)
		n_local += w[i].address && streq(w[i].address, "local:") && !w[i].slots;
	if (n_local < 2)
		return; /* alone it has all of them, which is what 0 means */
	share = count_cores() / n_local;
	for (size_t i = 0; i < n; i++) {
		if (w[i].address && streq(w[i].address, "local:") && !w[i].slots)
			w[i].slots = share ? share : 1;
	}
}

/* The host of an ssh:// address as a worker's name: other characters become '-'. */
static char *name_from_address(const char *address)
{
	const char *at = strrchr(address, '@');
	const char *host = at ? at + 1 : address + strlen("ssh://");
	bool bracket = *host == '[';
	size_t n = strcspn(host, bracket ? "]" : ":") - bracket;
	char *name;

	host += bracket;
	/* A host called "local" or one that begins oddly would be refused as a name. */
	if (!isalnum((unsigned char)*host) ||
	    (n == strlen(POOL_LOCAL) && !strncmp(host, POOL_LOCAL, n)))
		name = xasprintf("host-%.*s", (int)(n > 40 ? 40 : n), host);
	else
		name = xstrndup(host, n > 48 ? 48 : n);
	for (char *p = name; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			*p = '-';
	}
	return name;
}

/* base, or base with the first number that makes it unlike every other name. */
static char *unique_name(const struct conf *c, struct conf_worker *w, size_t n, const char *base,
			 const char *joint, unsigned first)
{
	char *name = first ? xasprintf("%s%s%u", base, joint, first) : xstrdup(base);

	for (unsigned i = first ? first + 1 : 2;
	     workers_find(w, n, name) || workers_find(c->known, c->n_known, name); i++) {
		free(name);
		name = xasprintf("%s%s%u", base, joint, i);
	}
	return name;
}

/* Cuts "/SLOTS" off an item. */
static int cut_slots(char *item, uint32_t *ret, struct errmsg *why)
{
	char *from = str_starts(item, "ssh://") ? item + strlen("ssh://") : item;
	char *slash = strchr(from, '/');

	*ret = 0;
	if (!slash || strstr(from, "://"))
		return 0;
	/* As addresses are copied. */
	if (!slash[1])
		return errmsg_set(why, CONCC_E_CONF, "'%s' goes on after the host; remove '/'",
				  item);
	*slash = '\0';
	return value_number(slash + 1, 1, POOL_SLOTS_MAX, ret, why);
}

/* A worker that has no section: local: or a host. */
static int fill_address(const struct conf *c, struct conf_worker *w, size_t n, const char *item,
			struct conf_worker *ret, struct errmsg *why)
{
	_cleanup_free_ char *address = NULL;
	_cleanup_free_ char *base = NULL;
	int r;

	if (str_starts(item, "local") && (!item[5] || item[5] == ':'))
		address = xstrdup(item);
	else if (strstr(item, "://"))
		address = xstrdup(item);
	else
		address = xasprintf("ssh://%s", item);
	r = value_address(address, why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (!streq(address, "local:") && w[i].address && streq(w[i].address, address))
			return errmsg_set(why, CONCC_E_CONF, "'%s' is listed twice", item);
	}
	if (streq(address, "local:")) {
		ret->name = unique_name(c, w, n, "local", "", 1);
	} else {
		base = name_from_address(address);
		ret->name = unique_name(c, w, n, base, "-", 0);
	}
	ret->listed = xstrdup(item);
	ret->address = steal_ptr(&address);
	worker_set_defaults(ret);
	return 0;
}

/* w[0..n) are the items before this one; ret is filled even on failure, for worker_release(). */
static int fill_item(const struct conf *c, struct conf_worker *w, size_t n, char *item,
		     struct conf_worker *ret, struct errmsg *why)
{
	const struct conf_worker *known;
	uint32_t slots;
	int r = cut_slots(item, &slots, why);

	if (r < 0)
		return r;
	known = workers_find(c->known, c->n_known, item);
	if (known) {
		if (workers_find(w, n, item))
			return errmsg_set(why, CONCC_E_CONF, "'%s' is listed twice", item);
		worker_copy(known, ret);
	} else {
		r = fill_address(c, w, n, item, ret, why);
	}
	if (slots)
		ret->slots = slots;
	return r;
}

static int add_item(const struct conf *c, struct conf_worker **w, size_t *n, char *item,
		    struct errmsg *why)
{
	struct conf_worker *last = workers_add(w, n);

	if (*n > WORKERS_MAX)
		return errmsg_set(why, CONCC_E_CONF, "more than %d workers", WORKERS_MAX);
	return fill_item(c, *w, *n - 1, item, last, why);
}

/* A section with `count`: all that it stands for.  False when item names none. */
static bool add_group(const struct conf *c, struct conf_worker **w, size_t *n, const char *item,
		      int *ret, struct errmsg *why)
{
	size_t len = strcspn(item, "/");
	bool found = false;

	*ret = 0;
	for (size_t i = 0; i < c->n_known && *ret == 0; i++) {
		const struct conf_worker *k = &c->known[i];
		_cleanup_free_ char *one = NULL;

		if (!k->group || strlen(k->group) != len || strncmp(k->group, item, len) != 0)
			continue;
		found = true;
		one = xasprintf("%s%s", k->name, item + len);
		*ret = add_item(c, w, n, one, why);
	}
	return found;
}

int workers_from_list(struct conf *c, const char *list, struct errmsg *why)
{
	struct conf_worker *w = NULL;
	size_t n = 0;
	int r = 0;

	while (r == 0 && *(list += strspn(list, SEPARATORS))) {
		_cleanup_free_ char *item = xstrndup(list, strcspn(list, SEPARATORS));

		list += strlen(item);
		if (!add_group(c, &w, &n, item, &r, why))
			r = add_item(c, &w, &n, item, why);
	}
	if (r == 0 && n == 0)
		r = errmsg_set(why, CONCC_E_CONF, "the list names no worker");
	if (r < 0) {
		workers_free(w, n);
		return r;
	}
	share_cores(w, n);
	workers_free(c->workers, c->n_workers);
	c->workers = w;
	c->n_workers = n;
	return 0;
}

void workers_replace(struct conf *c, const char *name)
{
	size_t to = 0, n_system = c->n_system;

	for (size_t i = 0; i < c->n_known; i++) {
		struct conf_worker *w = &c->known[i];

		if (i < c->n_system &&
		    (streq(w->name, name) || (w->group && streq(w->group, name)))) {
			worker_release(w);
			n_system--;
		} else if (to++ != i) {
			c->known[to - 1] = *w;
		}
	}
	c->n_known = to;
	c->n_system = n_system;
}
