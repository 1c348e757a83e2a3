/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

struct toolchain {
	struct msg_exe exe;
	bool checked;
	int result;
	struct errmsg msg;
};

struct toolchain *toolchain_new(struct blob payload)
{
	struct toolchain *t = xcalloc(1, sizeof(*t));

	if (msg_exe_decode(payload, &t->exe) < 0) {
		free(t);
		return NULL;
	}
	return t;
}

void toolchain_free(struct toolchain *t)
{
	if (!t)
		return;
	msg_exe_release(&t->exe);
	free(t);
}

const char *toolchain_exe(const struct toolchain *t)
{
	return t->exe.path;
}

uint32_t toolchain_id(const struct toolchain *t)
{
	return t->exe.exe_id;
}

static int check_file(const struct exe_file *f, struct errmsg *msg)
{
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;
	struct digest d;

	if (err_is_fact(r))
		return errmsg_set(msg, CONCC_E_UNAVAIL,
				  "it can't open %s: %s; install the same compiler there", f->path,
				  err_text(r));
	if (r == 0)
		r = digest_of_fd(fd, &d, NULL);
	if (r < 0)
		return errmsg_set(msg, r, "it can't read %s: %s", f->path, err_text(r));
	if (!digest_eq(&d, &f->digest))
		return errmsg_set(
			msg, CONCC_E_UNAVAIL,
			"its %s is another version than yours; install the same compiler there",
			f->path);
	return 0;
}

int toolchain_check(struct toolchain *t, struct errmsg *msg)
{
	int r = 0;

	for (uint32_t i = 0; !t->checked && i < t->exe.n_files && r == 0; i++)
		r = check_file(&t->exe.files[i], &t->msg);
	*msg = t->msg;
	/* What can't be read now, the next job may read. */
	if (r < 0 && r != CONCC_E_UNAVAIL)
		return r;
	if (!t->checked)
		t->result = r;
	t->checked = true;
	return t->result;
}
