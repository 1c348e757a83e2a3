/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What `concc doctor` is told of this worker: facts only, the client says what follows of them. */
#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/sandbox.h"
#include "concc/str.h"
#include "agent.h"

static uint64_t realtime_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t); /* fails for a bad address only */
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t knob(long value)
{
	return value < 0 ? CHECKUP_NONE : (uint64_t)value;
}

static void look_at_cache(struct msg_checkup *m)
{
	struct statvfs fs;

	if (cache_dir(&m->cache, NULL) < 0) {
		m->cache = xstrdup("");
		return;
	}
	if (statvfs(m->cache, &fs) < 0)
		return;
	m->cache_free = (uint64_t)fs.f_bavail * fs.f_frsize;
	m->cache_size = (uint64_t)fs.f_blocks * fs.f_frsize;
}

void checkup_send(struct agent *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct utsname u = {0};
	struct userns_knobs k;
	struct msg_checkup m = {
		.uid = getuid(), .fuse_error = (uint32_t)-sandbox_try_fuse(), .own = a->own};

	userns_knobs_read(&k);
	m.max_user_namespaces = knob(k.max_user_namespaces);
	m.unprivileged_userns_clone = knob(k.unprivileged_userns_clone);
	m.apparmor_restricts = knob(k.apparmor_restrict_unprivileged_userns);
	(void)uname(&u);
	m.kernel = xstrdup(u.release);
	look_at_cache(&m);
	m.clock_us = realtime_us();
	msg_checkup_encode(&b, &m);
	link_send_buf(a->link, MSG_CHECKUP, LINK_PRIO, &b);
	msg_checkup_release(&m);
}
