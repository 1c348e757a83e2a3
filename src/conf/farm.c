/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/farm.h"

#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/worker_spec.h"

#include "one_section.h"
#include "value.h"

#define FILE_MAX   (64 * 1024)
#define PASSWD_MAX (4 * 1024 * 1024)
#define GROUPS_MAX 65536 /* NGROUPS_MAX */
#define USERS_MAX  1024

/* ---- keys ---- */

static int set_nice(struct farm *f, const char *v, struct errmsg *why)
{
	return value_number(v, 0, 19, &f->nice, why);
}

static int set_memory(struct farm *f, const char *v, struct errmsg *why)
{
	return value_size(v, 1ULL << 20, 1ULL << 50, &f->memory, why);
}

static int set_processes(struct farm *f, const char *v, struct errmsg *why)
{
	return value_number(v, 16, 1000000, &f->processes, why);
}

static int set_job_time(struct farm *f, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, 30 * 24 * 3600, &f->job_time_s, why);
}

static int set_slots(struct farm *f, const char *v, struct errmsg *why)
{
	return value_number(v, 1, POOL_SLOTS_MAX, &f->slots, why);
}

static int set_store_size(struct farm *f, const char *v, struct errmsg *why)
{
	return value_size(v, 1ULL << 20, 1ULL << 50, &f->store_max, why);
}

static int set_users(struct farm *f, const char *v, struct errmsg *why)
{
	_cleanup_free_ char *copy = xstrdup(v);
	char *save = NULL;

	for (char *w = strtok_r(copy, " \t,", &save); w; w = strtok_r(NULL, " \t,", &save)) {
		if (strv_len(f->users) >= USERS_MAX)
			return errmsg_set(why, CONCC_E_CONF, "more than %d names; use a @group",
					  USERS_MAX);
		strv_push(&f->users, xstrdup(w));
	}
	/* Nobody, or everybody?  Whoever wrote it knows. */
	if (!f->users)
		return errmsg_set(why, CONCC_E_CONF,
				  "it names nobody; without the line all logins may");
	return 0;
}

static int set_log(struct farm *f, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"none", "sessions", "jobs"};
	size_t i;
	int r = value_choice(v, names, 3, &i, why);

	if (r == 0)
		f->log = (enum farm_log)i;
	return r;
}

static int set_own_disk(struct farm *f, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"yes", "no"};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		f->own_disk = (enum farm_own)i;
	return r;
}

static const struct {
	const char *name;
	int (*set)(struct farm *f, const char *v, struct errmsg *why);
} keys[] = {
	{"nice", set_nice},	    {"memory", set_memory}, {"processes", set_processes},
	{"job-time", set_job_time}, {"slots", set_slots},   {"store-size", set_store_size},
	{"users", set_users},	    {"log", set_log},	    {"own-disk", set_own_disk},
};

#define N_KEYS (N_OF(keys))

/* ---- the file ---- */

struct reading {
	struct farm *farm;
	uint32_t seen;
};

static void take(void *data, const char *name, const char *value, struct errmsg *why)
{
	struct reading *k = data;
	const char *names[N_KEYS];
	char hint[64];

	for (size_t i = 0; i < N_KEYS; i++) {
		struct errmsg text = {0};

		names[i] = keys[i].name;
		if (!streq(name, keys[i].name))
			continue;
		if (k->seen & (1u << i))
			errmsg_set(why, CONCC_E_CONF, "%s is given twice", name);
		else if (keys[i].set(k->farm, value, &text) < 0)
			errmsg_set(why, CONCC_E_CONF, "%s: %s", name, text.text);
		k->seen |= 1u << i;
		return;
	}
	errmsg_set(why, CONCC_E_CONF, "unknown key '%s'%s", name,
		   did_you_mean(hint, sizeof(hint), name, names, N_KEYS));
}

static int check_mode(const char *path, int fd, struct errmsg *msg)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, err_text(-errno));
	return conf_check_roots(path, &st, msg);
}

int farm_load(const char *path, struct farm *ret, struct errmsg *msg)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct farm f = {0};
	struct reading k = {.farm = &f};
	const struct one_section section = {
		.name = "worker",
		.only = "its one section is [worker]",
		.take = take,
		.data = &k,
	};
	struct errmsg why;
	unsigned line;
	int r;

	*ret = (struct farm){0};
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return errmsg_set(msg, CONCC_E_CONF,
				  "%s: %s; its administrator has to let all logins read it", path,
				  err_text(-errno));
	r = check_mode(path, fd, msg);
	if (r < 0)
		return r;
	r = read_file_at(AT_FDCWD, path, FILE_MAX, &text);
	if (r < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, err_text(r));
	/* What a crash leaves of a file, or an editor: all behind it would not be read. */
	if (memchr(text.data, '\0', text.len))
		return errmsg_set(
			msg, CONCC_E_CONF,
			"%s has a NUL byte in it, so it is not a text file; nobody can use "
			"this worker until its administrator has corrected that",
			path);
	if (one_section_parse(&section, buf_cstr(&text), &line, &why) == 0) {
		*ret = f;
		return 0;
	}
	farm_release(&f);
	return errmsg_set(msg, CONCC_E_CONF,
			  "%s:%u: %s; nobody can use this worker until its "
			  "administrator has corrected that",
			  path, line, why.text);
}

void farm_release(struct farm *f)
{
	strv_free(f->users);
	*f = (struct farm){0};
}

/* ---- who may use it ---- */

/* The third field of the line of that name, in the text of passwd or group; false: there is none.
 */
static bool id_of(const char *text, const char *name, uint32_t *ret)
{
	size_t n = strlen(name);

	for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		unsigned long long id;
		const char *at;

		if (strncmp(p, name, n) != 0 || p[n] != ':')
			continue;
		at = p + n + 1 + strcspn(p + n + 1, ":\n");
		if (*at == ':') {
			_cleanup_free_ char *digits = xstrndup(at + 1, strcspn(at + 1, ":\n"));

			if (str_to_u64(digits, UINT32_MAX, &id)) {
				*ret = (uint32_t)id;
				return true;
			}
		}
	}
	return false;
}

static bool means(const char *text, const char *name, uint32_t *ret)
{
	unsigned long long id;

	if (str_to_u64(name, UINT32_MAX, &id)) {
		*ret = (uint32_t)id;
		return true;
	}
	return id_of(text, name, ret);
}

bool farm_names(const struct farm *f, const char *passwd, const char *group, uint32_t uid,
		const uint32_t *groups, unsigned n)
{
	if (!f->users)
		return true;
	for (char **u = f->users; *u; u++) {
		uint32_t id;

		if (**u != '@') {
			if (means(passwd, *u, &id) && id == uid)
				return true;
			continue;
		}
		for (unsigned i = 0; means(group, *u + 1, &id) && i < n; i++) {
			if (groups[i] == id)
				return true;
		}
	}
	return false;
}

bool farm_lets_in(const struct farm *f)
{
	_cleanup_buf_ struct buf passwd = BUF_INIT, group = BUF_INIT;
	_cleanup_free_ gid_t *groups = xcalloc(GROUPS_MAX + 1, sizeof(*groups));
	int n = f->users ? getgroups(GROUPS_MAX, groups) : 0;

	if (!f->users)
		return true;
	groups[n > 0 ? n : 0] = getgid();
	/* What can't be read names nobody. */
	(void)read_file_at(AT_FDCWD, "/etc/passwd", PASSWD_MAX, &passwd);
	(void)read_file_at(AT_FDCWD, "/etc/group", PASSWD_MAX, &group);
	return farm_names(f, buf_cstr(&passwd), buf_cstr(&group), getuid(), groups,
			  (unsigned)(n > 0 ? n : 0) + 1);
}
