/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/* Configuration files and worker lists: any bytes give a configuration or one message. */
#include <stdlib.h>
#include <string.h>

#include "concc/conf.h"
#include "concc/pool.h"
#include "concc/str.h"
#include "conf/parse.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_worker(const struct conf_worker *w)
{
	CHECK(w->name && *w->name && strlen(w->name) <= POOL_NAME_MAX);
	CHECK(!streq(w->name, POOL_LOCAL) && !strchr(w->name, '/') && w->name[0] != '.');
	CHECK(!w->address != !w->command);
	CHECK(!w->address || streq(w->address, "local:") || str_starts(w->address, "ssh://"));
	/* never an option to ssh(1) */
	CHECK(!w->address || !str_starts(w->address, "ssh://-"));
	CHECK(w->slots <= POOL_SLOTS_MAX);
	CHECK(w->root == ROOT_WORKER || (w->root == ROOT_CLIENT && w->mirror == MIRROR_CONCC));
}

static void check_conf(const struct conf *c)
{
	CHECK(c->n_workers >= 1 && c->n_workers < POOL_MEMBERS_MAX);
	for (size_t i = 0; i < c->n_workers; i++) {
		check_worker(&c->workers[i]);
		for (size_t k = 0; k < i; k++)
			CHECK(!streq(c->workers[i].name, c->workers[k].name));
	}
	for (char **p = c->workspaces; p && *p; p++)
		CHECK((*p)[0] == '/' && (*p)[1]);
	CHECK(c->connect_timeout_s > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct conf *c = conf_new();
	struct errmsg msg = {0};
	char *list = xstrndup((const char *)data, n);

	if (conf_parse_text(c, "fuzz", (const char *)data, n, &msg) == 0) {
		conf_finish(c);
		check_conf(c);
	} else {
		CHECK(str_starts(msg.text, "fuzz:"));
	}
	conf_free(c);

	c = conf_new();
	msg.text[0] = '\0';
	if (conf_set_workers(c, list, &msg) == 0)
		check_conf(c);
	else
		CHECK(str_starts(msg.text, "worker list: "));
	conf_free(c);
	free(list);
	return 0;
}
