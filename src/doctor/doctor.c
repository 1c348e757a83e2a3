/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "doctor.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

#define TEXT_MAX 1200 /* of an error with the words of two sides */

static const char *const names[] = {
	[CHECK_CONFIGURATION] = "configuration",
	[CHECK_RUNTIME] = "runtime directory",
	[CHECK_DISK_HERE] = "disk here",
	[CHECK_LIMITS_HERE] = "limits here",
	[CHECK_COMPILER] = "compiler",
	[CHECK_SSH] = "ssh",
	[CHECK_HOST_KEY] = "host key",
	[CHECK_KEY] = "key",
	[CHECK_AGENT] = "ssh agent",
	[CHECK_PROGRAM] = "concc-worker",
	[CHECK_VERSION] = "version",
	[CHECK_KERNEL] = "kernel",
	[CHECK_NAMESPACES] = "namespaces",
	[CHECK_APPARMOR] = "AppArmor",
	[CHECK_FUSE] = "FUSE",
	[CHECK_DISK] = "disk",
	[CHECK_LIMITS] = "limits",
	[CHECK_CLOCK] = "clock",
	[CHECK_START] = "start",
	[CHECK_TOOLCHAIN] = "toolchain",
	[CHECK_JOB] = "job",
	[CHECK_ROUND_TRIP] = "round trip",
};

static const char *const states[] = {
	[FINDING_OK] = "ok", [FINDING_WARNING] = "warning", [FINDING_FAILED] = "failed"};

const char *check_name(enum check c)
{
	return c < CHECK_N ? names[c] : "?";
}

/* ---- what is printed ---- */

static void set_text(json_t *o, const char *key, const char *text)
{
	json_t *s = json_string(text);

	if (!s) { /* of no encoding, as names of files may be */
		_cleanup_free_ char *shown = str_escape(text, strlen(text), strlen(text));

		s = json_string(shown);
	}
	json_object_set_new(o, key, s);
}

static void note(struct doctor *d, enum check c, enum finding_state s, const char *text,
		 const char *remedy)
{
	json_t *o = json_object();

	set_text(o, "worker", d->where ?: "");
	set_text(o, "check", check_name(c));
	set_text(o, "state", states[s]);
	set_text(o, "text", text);
	set_text(o, "remedy", remedy ?: "");
	json_array_append_new(d->findings, o);
}

void say(struct doctor *d, enum check c, enum finding_state s, const char *remedy, const char *fmt,
	 ...)
{
	char text[TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap); /* cut when too long */
	va_end(ap);
	str_defuse(text);
	if (s == FINDING_FAILED) {
		d->n_failed++;
		if (!d->first)
			d->first = xasprintf("%s%s%s: %s", d->where ?: "", d->where ? ": " : "",
					     check_name(c), text);
	}
	if (d->findings) {
		note(d, c, s, text, remedy);
		return;
	}
	if (d->o->brief)
		return;
	printf("  %-8s %-18s %s\n", states[s], check_name(c), text);
	if (remedy && *remedy)
		printf("                              %s\n", remedy);
	(void)fflush(stdout); /* as each is done: some take long */
}

static void title(const struct doctor *d, const char *text)
{
	if (!d->findings && !d->o->brief)
		printf("%s\n", text);
}

static char *verdict(const struct doctor *d, bool will)
{
	if (will && d->o->brief)
		return xasprintf("nothing is wrong here; %zu worker%s to be tried",
				 d->conf->n_workers, str_plural(d->conf->n_workers));
	if (will)
		return xasprintf("builds will be distributed: %u of %u worker%s can be used",
				 d->n_good, d->n_tried, str_plural(d->n_tried));
	return xasprintf("builds will not be distributed: %s", d->first ?: "no worker can be used");
}

static void print_end(struct doctor *d, bool will)
{
	_cleanup_free_ char *text = verdict(d, will);
	json_t *o;

	if (!d->findings) {
		puts(text);
		return;
	}
	o = json_object();
	json_object_set_new(o, "distributed", json_boolean(will));
	set_text(o, "verdict", text);
	json_object_set(o, "checks", d->findings);
	(void)json_dumpf(o, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
	(void)putchar('\n');
	json_decref(o);
}

/* ---- workers ---- */

/* Of many alike one is enough: to start them all only to look would take all that there is. */
static size_t choose(const struct conf *c, struct sight *s)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_workers; i++) {
		if (c->workers[i].index <= 1)
			s[n++].worker = &c->workers[i];
	}
	return n;
}

static bool any_by_ssh(const struct sight *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i].worker->address && str_starts(s[i].worker->address, "ssh://"))
			return true;
	}
	return false;
}

static void look_at(struct doctor *d, const struct sight *s)
{
	_cleanup_free_ char *text = xasprintf("worker %s", s->worker->name);
	unsigned before = d->n_failed;

	title(d, text);
	d->where = s->worker->name;
	d->n_failed = 0;
	d->n_tried++;
	if (worker_look(d, s) && d->compiler)
		trial(d, s);
	d->n_good += d->n_failed == 0;
	d->n_failed += before;
	d->where = NULL;
}

static void look_at_workers(struct doctor *d)
{
	struct sight *s = xcalloc(d->conf->n_workers, sizeof(*s));
	size_t n = choose(d->conf, s);
	int r;

	if (any_by_ssh(s, n))
		client_agent(d);
	r = reach(d->conf, s, n);
	if (r < 0)
		say(d, CHECK_SSH, FINDING_FAILED, NULL, "can't connect to anything: %s",
		    err_text(r));
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			look_at(d, &s[i]);
		sight_release(&s[i]);
	}
	free(s);
}

int doctor_run(const struct doctor_options *o)
{
	struct doctor d = {.o = o, .findings = o->json ? json_array() : NULL};
	bool here, will;

	title(&d, "this machine");
	client_configuration(&d);
	client_look(&d);
	here = d.n_failed == 0;
	if (here && !o->brief)
		look_at_workers(&d);
	will = here && (o->brief || d.n_good);
	print_end(&d, will);
	json_decref(d.findings);
	free(d.first);
	conf_free(d.conf);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		err_say("can't write to standard output: %s", err_text(-errno));
		return 1;
	}
	return will ? 0 : 1;
}
