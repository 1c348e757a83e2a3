/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/project_conf.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "one_section.h"
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

static void take(void *data, const char *name, const char *value, struct errmsg *why)
{
	for (size_t i = 0; i < N_KEYS; i++) {
		struct errmsg text = {0};

		if (!streq(name, keys[i].name))
			continue;
		if (keys[i].set(data, value, &text) < 0)
			errmsg_set(why, CONCC_E_CONF, "%s: %s", name, text.text);
		return;
	}
	errmsg_set(why, CONCC_E_CONF, "a project may say jobs, require-remote and local, not '%s'",
		   name);
}

int project_conf_load(const char *dir, struct project_conf *ret, struct errmsg *msg)
{
	_cleanup_free_ char *path = path_join(dir, PROJECT_CONF);
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct project_conf c = {0};
	const struct one_section section = {
		.name = "run",
		.only = "a project has one section, [run]; others are for ~/.concc.ini",
		.take = take,
		.data = &c,
	};
	struct errmsg why;
	unsigned line;
	int r;

	*ret = (struct project_conf){0};
	r = read_regular_file(path, FILE_MAX, &text);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return errmsg_set(msg, CONCC_E_CONF, "%s: %s", path, err_text(r));
	r = one_section_parse(&section, buf_cstr(&text), &line, &why);
	if (r < 0)
		return errmsg_set(msg, r, "%s:%u: %s", path, line, why.text);
	*ret = c;
	return 0;
}
