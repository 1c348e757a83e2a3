/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "greeting.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"
#include "bare.h"
#include "peer.h"
#include "server.h"
#include "system.h"

/*
 * What a job looks up in these the mirror sees.  A link to a directory counts as
 * one, since what leads through it does not lead into a served tree.
 */
static int top_names(char ***ret)
{
	_cleanup_strv_ char **names = xcalloc(1, sizeof(*names));
	DIR *dir = opendir("/");
	struct dirent *e = NULL;
	int err;

	if (!dir)
		return -errno;
	while (strv_len(names) < PROTO_TOP_MAX && (errno = 0, e = readdir(dir))) {
		struct stat st;

		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		/* What can't be told is named, so that whoever looks there is noticed. */
		if (fstatat(dirfd(dir), e->d_name, &st, 0) == 0 ? S_ISDIR(st.st_mode)
								: !err_is_fact(-errno))
			strv_push(&names, xstrdup(e->d_name));
	}
	err = e ? 0 : -errno;
	(void)closedir(dir);
	if (!err)
		*ret = steal_ptr(&names);
	return err;
}

void greeting_say(struct peer *p)
{
	_cleanup_strv_ char **top = NULL;
	_cleanup_buf_ struct buf b = BUF_INIT;
	char host[256] = "client";
	struct utsname u = {0};
	int r = top_names(&top);
	struct msg_hello m = {
		.version = PROTO_VERSION,
		.program = (char *)"concc " CONCC_VERSION,
		.host = host,
		.arch = u.machine,
		.uid = getuid(),
		.gid = getgid(),
		.store_max = p->server->conf->store_max_bytes,
		.cpu_model = (char *)"",
		.top = top,
	};
	bool ours = p->conf->root == ROOT_CLIENT;

	if (r < 0) {
		_cleanup_free_ char *why = xasprintf("can't list / here: %s", err_text(r));

		peer_fail(p, why);
		return;
	}
	(void)uname(&u);
	(void)gethostname(host, sizeof(host) - 1);
	if (conf_worker_is_here(p->conf))
		m.flags |= HELLO_F_NEAR;
	if (ours) {
		m.flags |= HELLO_F_CLIENT_ROOT;
		m.links = (char **)system_links(p->server);
	}
	msg_hello_encode(&b, &m);
	link_send_buf(p->link, MSG_HELLO, LINK_PRIO, &b);
	if (ours)
		system_greet(p);
	bare_greet(p);
}

static int check_hello(struct peer *p)
{
	struct utsname u;

	if (p->hello.version != PROTO_VERSION) {
		_cleanup_free_ char *what = msg_hello_other_version(&p->hello);
		bool older = p->hello.version < PROTO_VERSION;
		_cleanup_free_ char *why = xasprintf(
			"%s: %s%s", what, older ? "" : "upgrade this one, or ",
			p->remedy ? p->remedy : "install the same concc on both");

		peer_fail(p, why);
		return -1;
	}
	if (uname(&u) == 0 && !streq(u.machine, p->hello.arch)) {
		_cleanup_free_ char *why = xasprintf("it is a %s machine and this is %s",
						     p->hello.arch, u.machine);

		peer_fail(p, why);
		return -1;
	}
	return 0;
}

int greeting_hear(struct peer *p, struct blob payload)
{
	struct msg_hello m;
	int r;

	if (p->state != PEER_GREETING || p->hello.program)
		return CONCC_E_PROTO;
	r = msg_hello_decode(payload, &m);
	if (r < 0)
		return r;
	p->hello = m;
	for (char **s = (char *[]){m.program, m.host, m.arch, m.cpu_model, NULL}; *s; s++)
		str_defuse(*s);
	if (check_hello(p) == 0) /* which has closed the link otherwise */
		link_measure(p->link);
	return 0;
}
