/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/project_conf.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <ini.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "value.h"

#define FILE_MAX (64 * 1024)
#define JOBS_MAX 1024 /* of build tools: more is a mistake, or meant to hurt */

static int set_jobs(struct project_conf *p, const char *v, struct errmsg *why)
{
	return value_number(v, 1, JOBS_MAX, &p->jobs, why);
}

static int set_require_remote(struct project_conf *p, const char *v, struct errmsg *why)
{
	return value_number(v, 0, 100, &p->require_remote, why);
}

static int set_local(struct project_conf *p, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"no", "yes"};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		p->local = i == 1;
	return r;
}

static const struct {
	const char *name;
	int (*set)(struct project_conf *p, const char *v, struct errmsg *why);
} keys[] = {{"jobs", set_jobs}, {"require-remote", set_require_remote}, {"local", set_local}};

#define N_KEYS (N_OF(keys))

struct reading {
	struct project_conf *conf;
	struct errmsg why;
};

/* For inih: 0 is a failure, of which it tells the line. */
static int take(void *user, const char *section, const char *name, const char *value)
{
	struct reading *k = user;

	if (*k->why.text)
		return 0;
	if (!streq(section, "run")) {
		errmsg_set(&k->why, CONCC_E_CONF,
			   "a project has one section, [run]; [%s] is for ~/.concc.ini", section);
		return 0;
	}
	for (size_t i = 0; i < N_KEYS; i++) {
		struct errmsg why = {0};

		if (!streq(name, keys[i].name))
			continue;
		if (keys[i].set(k->conf, value, &why) == 0)
			return 1;
		errmsg_set(&k->why, CONCC_E_CONF, "%s: %s", name, why.text);
		return 0;
	}
	errmsg_set(&k->why, CONCC_E_CONF,
		   "a project may say jobs, require-remote and local, not '%s'", name);
	return 0;
}

int project_conf_load(const char *dir, struct project_conf *ret, struct errmsg *msg)
{
	_cleanup_free_ char *path = path_join(dir, PROJECT_CONF);
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct project_conf c = {0};
	struct reading k = {.conf = &c};
	int r, line;

	*ret = (struct project_conf){0};
	r = read_regular_file(path, FILE_MAX, &text);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, err_text(r));
	line = ini_parse_string(buf_cstr(&text), take, &k);
	if (line != 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s:%d: %s", path, line,
				  *k.why.text ? k.why.text : "neither [section] nor key = value");
	*ret = c;
	return 0;
}
