/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/link.h"
#include "concc/str.h"
#include "doctor.h"

#define KERNEL_MAJOR   5 /* overlays in user namespaces, that FUSE is below */
#define KERNEL_MINOR   11
#define DISK_LITTLE    (64ull << 20) /* a compiler's files are some 100 MB: it can hardly begin */
#define DISK_SHORT     (1ull << 30)
#define CLOCK_OFF_US   2000000 /* more is no matter of how the clocks are read */
#define NAMESPACES_FEW 64      /* some for each job that runs */

/* ---- commands for a person ---- */

static char *quoted(const char *word)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	job_put_quoted(&b, word);
	return xstrdup(buf_cstr(&b));
}

char *worker_command(const struct conf_worker *w, bool root, uint32_t uid, const char *command)
{
	_cleanup_free_ char *words = transport_words(w->address), *shown = quoted(command);
	bool sudo = root && uid != 0;

	if (words && sudo)
		return xasprintf("ssh -t %s sudo sh -c %s", words, shown);
	if (words)
		return xasprintf("ssh %s %s", words, shown);
	return sudo ? xasprintf("sudo sh -c %s", shown) : xstrdup(command);
}

/* Is this worker's concc-worker ours to put there? */
static char *push_remedy(const struct conf_worker *w)
{
	if (w->worker_program)
		return xasprintf("sed -i '/^program *=/d' ~/.concc.ini   # of [worker %s]",
				 conf_worker_word(w));
	if (!w->address || !str_starts(w->address, "ssh://"))
		return NULL;
	return xasprintf("concc push %s", conf_worker_word(w));
}

/* As the link says it; a login that gives no shell, or one that hangs, is not cured by another
 * file. */
static bool may_be_missing(const char *text)
{
	return strstr(text, "`concc push") || strstr(text, "correct `program`");
}

/* What ssh itself would type; else for whatever the host is called. */
static char *host_key_remedy(const struct conf_worker *w, const char *text)
{
	_cleanup_free_ char *words = transport_words(w->address);
	_cleanup_free_ char *forget = forget_key_command(text);
	bool changed = strstr(text, "CHANGED") || strstr(text, "has changed");

	if (!words)
		return NULL;
	if (!forget && changed)
		forget = xasprintf("ssh-keygen -R \"$(ssh -G %s | sed -n 's/^hostname //p')\"",
				   words);
	return xasprintf("%s%sssh -o StrictHostKeyChecking=accept-new %s true", forget ?: "",
			 forget ? " && " : "", words);
}

/* Of "(tried: FILE, FILE (can't be read: Permission denied), ...": quoted, of one's own; else NULL.
 */
static char *unreadable_key(const char *text)
{
	const char *end = strstr(text, " (can't be read: Permission denied)"), *from = end;
	_cleanup_free_ char *path = NULL;
	struct stat st;

	while (from && from > text && !str_starts(from, "tried: ") && !str_starts(from, ", "))
		from--;
	if (!from || from == text)
		return NULL;
	from += strcspn(from, " ") + 1;
	path = xstrndup(from, (size_t)(end - from));
	return stat(path, &st) == 0 && st.st_uid == geteuid() ? quoted(path) : NULL;
}

static char *key_remedy(const struct conf_worker *w, const char *text)
{
	_cleanup_free_ char *words = transport_words(w->address), *unreadable = NULL;

	if (!words)
		return NULL;
	if (strstr(text, "needs its passphrase"))
		return xstrdup("ssh-add");
	unreadable = unreadable_key(text);
	if (unreadable)
		return xasprintf("chmod u+r %s", unreadable);
	if (strstr(text, "there is no key"))
		return xasprintf("ssh-keygen -t ed25519 && ssh-copy-id %s", words);
	return xasprintf("ssh-copy-id %s", words);
}

static char *namespaces_remedy(const struct sight *s)
{
	const struct msg_checkup *m = &s->checkup;
	const char *what = !s->has_checkup ? "sysctl -w user.max_user_namespaces=15000"
			   : m->unprivileged_userns_clone == 0
				   ? "sysctl -w kernel.unprivileged_userns_clone=1"
			   : m->max_user_namespaces < NAMESPACES_FEW
				   ? "sysctl -w user.max_user_namespaces=15000"
				   : NULL;

	/* Else the text has what there is to do: it is no setting. */
	return what ? worker_command(s->worker, true, m->uid, what) : NULL;
}

static char *fuse_remedy(const struct sight *s)
{
	bool refused = s->checkup.fuse_error == EACCES || s->checkup.fuse_error == EPERM;

	return worker_command(s->worker, true, s->checkup.uid,
			      refused ? "chmod 0666 /dev/fuse" : "modprobe fuse");
}

static char *disk_remedy(const struct sight *s)
{
	_cleanup_free_ char *store = NULL, *shown = NULL, *command = NULL;
	bool by_command = !s->worker->address;

	/* Where a command leads, we don't know; here the path would be another's, or ours. */
	if (!s->has_checkup || !*s->checkup.cache || by_command)
		return NULL;
	/* Contents only: they are fetched again, and agents that run do without. */
	store = path_join(s->checkup.cache, "store");
	shown = quoted(store);
	command = xasprintf("rm -rf %s", shown);
	return worker_command(s->worker, false, s->checkup.uid, command);
}

static char *remedy_of(enum check c, const struct sight *s)
{
	switch (c) {
	case CHECK_HOST_KEY:
		return host_key_remedy(s->worker, s->error);
	case CHECK_KEY:
		return key_remedy(s->worker, s->error);
	case CHECK_PROGRAM:
		return may_be_missing(s->error) ? push_remedy(s->worker) : NULL;
	case CHECK_VERSION:
		return push_remedy(s->worker);
	case CHECK_NAMESPACES:
		return namespaces_remedy(s);
	case CHECK_APPARMOR:
		return worker_command(s->worker, true, s->checkup.uid,
				      "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
	case CHECK_FUSE:
		return fuse_remedy(s);
	case CHECK_DISK:
		return disk_remedy(s);
	default:
		return NULL;
	}
}

/* ---- what was seen ---- */

static bool by_ssh(const struct conf_worker *w)
{
	return w->address && str_starts(w->address, "ssh://");
}

/* What must have been right for the worker to fail where it failed. */
static void reached(struct doctor *d, const struct sight *s, enum check failed)
{
	const struct conf_worker *w = s->worker;

	if (failed > CHECK_SSH) {
		if (by_ssh(w))
			say(d, CHECK_SSH, FINDING_OK, NULL, "%s%s%s", w->address,
			    s->how ? ", by " : "", s->how ?: "");
		else
			say(d, CHECK_SSH, FINDING_OK, NULL, "none is needed: %s",
			    w->address ?: "its command");
	}
	if (by_ssh(w) && failed > CHECK_HOST_KEY)
		say(d, CHECK_HOST_KEY, FINDING_OK, NULL, "is the known one");
	if (by_ssh(w) && failed > CHECK_KEY)
		say(d, CHECK_KEY, FINDING_OK, NULL, "the login takes one of yours");
	if (s->heard && failed > CHECK_PROGRAM)
		say(d, CHECK_PROGRAM, FINDING_OK, NULL, "answers, on %s", s->host);
	if (s->greeted && failed > CHECK_VERSION)
		say(d, CHECK_VERSION, FINDING_OK, NULL, "%s, like this one", s->program);
}

static void look_at_kernel(struct doctor *d, const struct msg_checkup *m)
{
	unsigned major = 0, minor = 0;
	bool old = sscanf(m->kernel, "%u.%u", &major, &minor) == 2 &&
		   (major < KERNEL_MAJOR || (major == KERNEL_MAJOR && minor < KERNEL_MINOR));

	say(d, CHECK_KERNEL, old ? FINDING_WARNING : FINDING_OK, NULL, "Linux %s%s", m->kernel,
	    old ? "; 5.11 or newer is needed" : "");
}

static void look_at_namespaces(struct doctor *d, const struct sight *s)
{
	const struct msg_checkup *m = &s->checkup;
	_cleanup_free_ char *remedy = NULL;

	if (m->max_user_namespaces < NAMESPACES_FEW || m->unprivileged_userns_clone == 0) {
		remedy = namespaces_remedy(s);
		say(d, CHECK_NAMESPACES, FINDING_WARNING, remedy,
		    m->unprivileged_userns_clone == 0
			    ? "only root may make user namespaces there"
			    : "user.max_user_namespaces is too low for many jobs");
	} else {
		say(d, CHECK_NAMESPACES, FINDING_OK, NULL, "can be made");
	}
}

static void look_at_apparmor(struct doctor *d, const struct msg_checkup *m)
{
	say(d, CHECK_APPARMOR, FINDING_OK, NULL, "%s",
	    m->apparmor_restricts == 1 ? "restricts user namespaces, but not this worker's"
				       : "restricts nothing that is needed");
}

static void look_at_disk(struct doctor *d, const struct sight *s, enum check failed)
{
	const struct msg_checkup *m = &s->checkup;
	_cleanup_free_ char *remedy = NULL;
	bool little = m->cache_size && m->cache_free < DISK_LITTLE;

	if (failed <= CHECK_DISK)
		return;
	if (!*m->cache) {
		say(d, CHECK_DISK, FINDING_WARNING, NULL,
		    "the login there has no directory of its own for a cache");
		return;
	}
	if (m->cache_free < DISK_SHORT && m->cache_size)
		remedy = disk_remedy(s);
	say(d, CHECK_DISK,
	    little   ? FINDING_FAILED
	    : remedy ? FINDING_WARNING
		     : FINDING_OK,
	    remedy, "%llu MB free for %s", (unsigned long long)m->cache_free >> 20, m->cache);
}

static void look_at_limits(struct doctor *d, const struct sight *s)
{
	struct caller mine;
	int lacking;

	caller_read(&mine);
	lacking = caller_lacking(&s->checkup.own, &mine);
	if (lacking < 0) {
		say(d, CHECK_LIMITS, FINDING_OK, NULL, "are no lower than here");
		return;
	}
	say(d, CHECK_LIMITS, FINDING_FAILED, NULL,
	    "of %s the login there has less than you have here, so it gets no job of yours: raise "
	    "it in its /etc/security/limits.conf, or lower yours",
	    caller_limit_name(lacking));
}

static void look_at_clock(struct doctor *d, const struct sight *s)
{
	/* Of ours; as doubles, since what a worker calls its time may be any number. */
	double middle = (double)s->asked_us + (double)s->trip_us / 2;
	double ahead = (double)s->checkup.clock_us - middle;
	double off = (ahead < 0 ? -ahead : ahead) / 1e6;
	bool bad = off * 1e6 > CLOCK_OFF_US;
	_cleanup_free_ char *remedy = bad ? worker_command(s->worker, true, s->checkup.uid,
							   "timedatectl set-ntp true")
					  : NULL;

	say(d, CHECK_CLOCK, bad ? FINDING_WARNING : FINDING_OK, remedy,
	    bad ? "is %.1f s %s ours: what a job reads of the time (__DATE__) differs"
		: "is %.1f s %s ours",
	    off, ahead < 0 ? "behind" : "ahead of");
}

/* What the worker says of itself, as far as it is not what failed. */
static void look_at_checkup(struct doctor *d, const struct sight *s, enum check failed)
{
	const struct msg_checkup *m = &s->checkup;

	if (failed > CHECK_KERNEL)
		look_at_kernel(d, m);
	if (failed > CHECK_NAMESPACES && m->uid != 0)
		look_at_namespaces(d, s);
	if (failed > CHECK_APPARMOR)
		look_at_apparmor(d, m);
	if (failed > CHECK_FUSE && m->fuse_error == 0)
		say(d, CHECK_FUSE, FINDING_OK, NULL, "/dev/fuse can be opened");
	look_at_disk(d, s, failed);
	if (failed > CHECK_LIMITS)
		look_at_limits(d, s);
	if (failed > CHECK_CLOCK)
		look_at_clock(d, s);
}

/* The first that can still have failed. */
static enum check not_passed(const struct sight *s)
{
	if (s->greeted)
		return CHECK_VERSION + 1;
	if (s->heard)
		return CHECK_VERSION;
	/* The library has logged in by then; of a process one knows only that it began. */
	return s->how && (!by_ssh(s->worker) || str_starts(s->how, "libssh2")) ? CHECK_PROGRAM
									       : CHECK_SSH;
}

/* Before anything answered it is the way there; after that, the worker. */
static enum check failed_check(const struct sight *s)
{
	enum check from = not_passed(s), c = s->error ? cause_of(s->error, from) : CHECK_NONE;

	if (!s->error || (c != CHECK_NONE && (s->greeted || c <= CHECK_VERSION)))
		return c;
	return s->greeted ? CHECK_START : from;
}

bool worker_look(struct doctor *d, const struct sight *s)
{
	enum check failed = failed_check(s);
	_cleanup_free_ char *remedy = s->error ? remedy_of(failed, s) : NULL;

	reached(d, s, failed);
	if (s->has_checkup)
		look_at_checkup(d, s, failed);
	if (s->error)
		say(d, failed, FINDING_FAILED, remedy, "%s", s->error);
	else if (s->trip_us)
		say(d, CHECK_START, FINDING_OK, NULL, "ready; an answer takes %.1f ms",
		    (double)s->trip_us / 1000);
	return d->n_failed == 0;
}
