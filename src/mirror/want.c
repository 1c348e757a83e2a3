/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "want.h"

#include <stdlib.h>
#include <unistd.h>

#include "concc/str.h"
#include "inode.h"

void mirror_wake(struct mirror *m)
{
	uint64_t one = 1;

	/* Can fail only when the counter is at its end: then it is readable anyway. */
	(void)!write(m->event_fd, &one, sizeof(one));
}

static struct want *want_new(struct mirror *m, enum want_kind kind)
{
	struct want *w = xcalloc(1, sizeof(*w));

	w->kind = kind;
	list_append(&m->wants, &w->link);
	mirror_wake(m);
	return w;
}

void want_dir(struct mirror *m, struct inode *d)
{
	if (d->dir->asked)
		return;
	d->dir->asked = true;
	want_new(m, WANT_DIR)->path = inode_path(m, d);
}

void want_file(struct mirror *m, uint32_t fetch_id, const struct inode *i)
{
	want_new(m, WANT_FILE)->fetch = (struct msg_fetch){.fetch_id = fetch_id,
							   .dir_id = i->parent->dir->dir_id,
							   .version = i->attr.version,
							   .name = xstrdup(i->name)};
}

void want_guesses(struct mirror *m)
{
	(void)want_new(m, WANT_GUESSES);
}

void want_outside(struct mirror *m, const char *path, enum missing_how how, int64_t job)
{
	struct want *w = want_new(m, WANT_OUTSIDE);

	w->path = xstrdup(path);
	w->how = how;
	w->job = job;
}

void want_failed(struct mirror *m, int64_t job, const char *path, int err)
{
	struct want *w = want_new(m, WANT_FAILED);

	w->job = job;
	w->path = xstrdup(path);
	w->err = err;
}

void want_free(struct want *w)
{
	free(w->path);
	free(w->fetch.name);
	free(w);
}
