/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

struct toolchain {
	struct msg_exe exe;
	unsigned n_checks; /* under way, or waiting to be: `seen` is the thread's then */
	struct stat *seen; /* of its files, when they were right; else NULL */
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
	free(t->seen);
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

static int differs(const struct exe_file *f, const struct stat *st, const struct digest *d,
		   struct errmsg *msg)
{
	char ours[DIGEST_HEX], theirs[DIGEST_HEX];

	digest_hex(d, ours);
	digest_hex(&f->digest, theirs);
	return errmsg_set(msg, CONCC_E_UNAVAIL,
			  "its %s is another version than yours (%lld bytes with SHA-256 %.12s; "
			  "yours has %.12s): `root = client` lets it use yours; or install the "
			  "same compiler there",
			  f->path, (long long)st->st_size, ours, theirs);
}

static int check_file(const struct exe_file *f, struct stat *ret, bool *young, struct errmsg *msg)
{
	int64_t since = clock_ns();
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;
	struct digest d;

	/* Before it is read: what changes meanwhile is another one next time. */
	if (r == 0 && fstat(fd, ret) < 0)
		r = -errno;
	if (err_is_fact(r))
		return errmsg_set(msg, CONCC_E_UNAVAIL,
				  "it can't open %s: %s; `root = client` lets it use yours; or "
				  "install the same compiler there",
				  f->path, err_text(r));
	if (r == 0)
		r = digest_of_fd(fd, &d, NULL);
	if (r < 0)
		return errmsg_set(msg, r, "it can't read %s: %s", f->path, err_text(r));
	if (!digest_eq(&d, &f->digest))
		return differs(f, ret, &d, msg);
	*young |= stat_is_racy(ret, since, true);
	return 0;
}

/* They were right once, and a package that is installed meanwhile replaces them. */
static bool is_current(const struct toolchain *t)
{
	for (uint32_t i = 0; i < t->exe.n_files; i++) {
		if (!file_is_unchanged(t->exe.files[i].path, &t->seen[i]))
			return false;
	}
	return true;
}

bool toolchain_is_right(const struct toolchain *t)
{
	return !t->n_checks && (!t->exe.n_files || (t->seen && is_current(t)));
}

void toolchain_begin_check(struct toolchain *t)
{
	t->n_checks++;
}

void toolchain_end_check(struct toolchain *t)
{
	t->n_checks--;
}

int toolchain_check(struct toolchain *t, struct errmsg *msg)
{
	_cleanup_free_ struct stat *seen = NULL;
	bool young = false; /* one that may change again and look the same */
	int r = 0;

	if (t->seen && is_current(t))
		return 0;
	free(steal_ptr(&t->seen));
	seen = xcalloc(t->exe.n_files + 1, sizeof(*seen));
	for (uint32_t i = 0; i < t->exe.n_files && r == 0; i++)
		r = check_file(&t->exe.files[i], &seen[i], &young, msg);
	if (r == 0 && !young)
		t->seen = steal_ptr(&seen);
	return r;
}
