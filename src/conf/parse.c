/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "parse.h"

#include <stdio.h>
#include <string.h>

#include <ini.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/conf.h"
#include "concc/io.h"
#include "concc/str.h"

#include "keys.h"
#include "value.h"
#include "workers.h"

/* ---- the file ---- */

enum section { SECTION_NONE, SECTION_CONCC, SECTION_WORKER };

/*
 * inih cuts lines into names and values; what it does not do is done around
 * it: the reader below counts lines (a handler is not told the number), drops
 * comments, joins lines that end in a backslash (inih's own rule, indentation,
 * would swallow an indented key), and sees section lines itself, since inih
 * cuts their names at 49 bytes and says nothing of a section without keys.
 */
struct parser {
	struct conf *conf;
	const char *file;
	const char *text;
	size_t left;
	unsigned line;	/* of what the reader returned last */
	bool continues; /* the next line goes on with the value of this one */
	bool is_rest;	/* this line goes on with the value before */
	enum section section;
	unsigned section_line;
	uint32_t seen_concc; /* bits by index: keys given so far */
	uint32_t seen_worker;
	const struct key *key; /* whose value is being gathered, or NULL */
	unsigned key_line;
	struct buf value;
	struct errmsg *msg;
	int err; /* the first failure; nothing is read after it */
};

static int fail(struct parser *p, unsigned line, const char *text)
{
	if (p->err == 0)
		p->err = errmsg_set(p->msg, CONCC_E_CONF, "%s:%u: %s", p->file, line, text);
	return p->err;
}

static struct conf_worker *current_worker(struct parser *p)
{
	return &p->conf->known[p->conf->n_known - 1];
}

/* What is often the matter with a value that can't be parsed. */
static const char *hint_of(const char *value)
{
	if (strstr(value, " #") || strstr(value, "\t#"))
		return "; '#' begins a comment only at the start of a line, use ' ;'";
	return *value == '"' || *value == '\'' ? "; write it without quotes" : "";
}

/* The value is whole: parses it. */
static void end_key(struct parser *p)
{
	const struct key *key = p->key;
	void *obj = p->section == SECTION_CONCC ? (void *)p->conf : current_worker(p);
	struct errmsg why = {0};
	struct errmsg text = {0};

	p->key = NULL;
	if (p->err < 0)
		return;
	if (key->parse(obj, buf_cstr(&p->value), &why) == 0) {
		key_read_at(key, p->conf, p->file, p->key_line);
		return;
	}
	errmsg_set(&text, 0, "%s: %s%s", key->name, why.text, hint_of(buf_cstr(&p->value)));
	fail(p, p->key_line, text.text);
}

static void expand_home(char **path)
{
	char *full = path_expand_home(*path);

	free(*path);
	*path = full;
}

static void end_section(struct parser *p)
{
	struct conf_worker *w;
	struct errmsg text = {0};

	if (p->key)
		end_key(p);
	if (p->section == SECTION_WORKER && p->err == 0) {
		w = current_worker(p);
		if (!w->address && !w->command)
			errmsg_set(
				&text, 0,
				"worker %s has neither address nor command; give it one, like address = ssh://%s",
				w->name, w->name);
		else if (w->address && w->command)
			errmsg_set(&text, 0,
				   "worker %s has both address and command; remove one of them",
				   w->name);
		else if (w->mirror != MIRROR_CONCC &&
			 (!w->address || !str_starts(w->address, "ssh://")))
			errmsg_set(
				&text, 0,
				"worker %s: mirror = sshfs and mirror = none need an address like "
				"ssh://%s, since their jobs are run by ssh",
				w->name, w->name);
		else if (w->install && (!w->address || !str_starts(w->address, "ssh://") ||
					w->mirror != MIRROR_CONCC || w->worker_program))
			errmsg_set(
				&text, 0,
				"worker %s: install = yes puts concc's own concc-worker on a host at an "
				"ssh:// address; remove it, or %s",
				w->name,
				w->worker_program	    ? "program"
				: w->mirror != MIRROR_CONCC ? "mirror"
				: w->command		    ? "command"
							    : "give it such an address");
		if (text.text[0])
			fail(p, p->section_line, text.text);
		/* Elsewhere '~' is the worker's to expand. */
		else if (w->worker_program && w->address && streq(w->address, "local:"))
			expand_home(&w->worker_program);
		worker_set_defaults(w);
		if (p->err == 0 && w->count && workers_multiply(p->conf, &text) < 0)
			fail(p, p->section_line, text.text);
	}
	p->section = SECTION_NONE;
}

static void begin_worker(struct parser *p, const char *name)
{
	struct conf *c = p->conf;
	struct errmsg why = {0};

	if (!*name)
		errmsg_set(&why, 0, "a worker needs a name: [worker NAME]");
	else if (value_worker_name(name, &why) == 0)
		workers_replace(c, name);
	if (!why.text[0] && workers_has(c->known, c->n_known, name))
		errmsg_set(&why, 0, "worker %s has a section already; join them or rename one",
			   name);
	else if (!why.text[0] && c->n_known >= POOL_MEMBERS_MAX - 1)
		errmsg_set(&why, 0, "more than %d workers", POOL_MEMBERS_MAX - 1);
	if (why.text[0]) {
		fail(p, p->line, why.text);
		return;
	}
	workers_add(&c->known, &c->n_known)->name = xstrdup(name);
	p->section = SECTION_WORKER;
	p->seen_worker = 0;
}

/* head is what stands between the brackets, without blanks around it. */
static void begin_section(struct parser *p, const char *head)
{
	static const char *const names[] = {"concc", "worker"};
	_cleanup_free_ char *word = xstrndup(head, strcspn(head, " \t"));
	const char *rest = head + strlen(word);
	struct errmsg text = {0};
	char hint[64];

	rest += strspn(rest, " \t");
	p->section_line = p->line;
	if (streq(head, "concc")) {
		p->section = SECTION_CONCC;
	} else if (streq(word, "worker")) {
		begin_worker(p, rest);
	} else {
		errmsg_set(&text, 0, "unknown section [%s]; [concc] and [worker NAME] are%s", head,
			   did_you_mean(hint, sizeof(hint), word, names, 2));
		fail(p, p->line, text.text);
	}
}

/* A line that begins with '['. */
static void section_line(struct parser *p, const char *line, size_t n)
{
	const char *close = memchr(line, ']', n);
	const char *after;
	_cleanup_free_ char *head = NULL;
	size_t len;

	end_section(p);
	if (p->err < 0)
		return;
	if (!close) {
		fail(p, p->line, "a section's name is not closed with ']'");
		return;
	}
	after = close + 1;
	while (after < line + n && (*after == ' ' || *after == '\t'))
		after++;
	if (after < line + n) {
		fail(p, p->line, "text after the section's ']'; put it on the next line");
		return;
	}
	line++;
	while (line < close && (*line == ' ' || *line == '\t'))
		line++;
	len = (size_t)(close - line);
	while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t'))
		len--;
	head = xstrndup(line, len);
	begin_section(p, head);
}

/* The next line of the file without blanks around it; false at the end. */
static bool next_line(struct parser *p, const char **ret, size_t *ret_len)
{
	const char *start = p->text;
	const char *end = memchr(start, '\n', p->left);
	size_t used = end ? (size_t)(end - start) + 1 : p->left;
	size_t n = end ? used - 1 : used;

	if (used == 0)
		return false;
	p->text += used;
	p->left -= used;
	p->line++;
	while (n > 0 && strchr(" \t\r\f\v", start[n - 1]))
		n--;
	while (n > 0 && strchr(" \t\r\f\v", *start)) {
		start++;
		n--;
	}
	*ret = start;
	*ret_len = n;
	return true;
}

/*
 * The length without a comment: a whole line after ';' or '#', or what follows
 * a blank and ';'.  inih's releases differ about those in a line that goes on.
 */
static size_t cut_comment(const char *line, size_t n)
{
	if (n > 0 && (*line == ';' || *line == '#'))
		return 0;
	for (size_t i = 1; i < n; i++) {
		if (line[i] != ';' || !strchr(" \t", line[i - 1]))
			continue;
		while (i > 0 && strchr(" \t", line[i - 1]))
			i--;
		return i;
	}
	return n;
}

/* For ini_parse_stream(), like fgets(). */
static char *read_line(char *out, int size, void *stream)
{
	struct parser *p = stream;
	struct errmsg text = {0};
	const char *line;
	size_t n;

	if (p->err < 0 || !next_line(p, &line, &n))
		return NULL;
	n = cut_comment(line, n);
	p->is_rest = p->continues;
	p->continues = n > (p->is_rest ? 0 : 1) && line[n - 1] == '\\';
	if (p->continues)
		n--;
	/* Now it is known that the value before ended, and its mistake comes before this line's. */
	if (p->key && !p->is_rest)
		end_key(p);
	if (n > 0 && *line == '[' && !p->is_rest)
		section_line(p, line, n);
	if (n + 3 > (size_t)size) {
		errmsg_set(
			&text, 0,
			"the line is longer than %d bytes; end it in a backslash and go on in the next",
			size - 3);
		fail(p, p->line, text.text);
	}
	if (p->err < 0)
		return NULL;
	/* A blank in front is what tells inih that a value goes on. */
	snprintf(out, (size_t)size, "%s%.*s\n", p->is_rest ? " " : "", (int)n, line);
	return out;
}

/* Where a key of this name stands that the section does not have; NULL: nowhere. */
static const char *section_of(const struct parser *p, const char *name)
{
	const struct key *keys = p->section == SECTION_CONCC ? worker_keys : concc_keys;
	size_t n = p->section == SECTION_CONCC ? n_worker_keys : n_concc_keys;

	for (size_t i = 0; i < n; i++) {
		if (streq(name, keys[i].name))
			return p->section == SECTION_CONCC ? "[worker NAME]" : "[concc]";
	}
	return NULL;
}

static int unknown_key(struct parser *p, const char *name, const char *const *names, size_t n)
{
	const char *section = section_of(p, name);
	struct errmsg text = {0};
	char hint[64];

	if (section)
		errmsg_set(&text, 0, "unknown key '%s'; it belongs in %s", name, section);
	else
		errmsg_set(&text, 0, "unknown key '%s'%s", name,
			   did_you_mean(hint, sizeof(hint), name, names, n));
	return fail(p, p->line, text.text);
}

/* Takes note of a key; fails when it is unknown or given twice. */
static int begin_key(struct parser *p, const char *name)
{
	const struct key *keys = p->section == SECTION_CONCC ? concc_keys : worker_keys;
	size_t n = p->section == SECTION_CONCC ? n_concc_keys : n_worker_keys;
	uint32_t *seen = p->section == SECTION_CONCC ? &p->seen_concc : &p->seen_worker;
	const char *names[KEYS_MAX];
	struct errmsg text = {0};

	if (p->section == SECTION_NONE)
		return fail(p, p->line,
			    "a key before the first section; begin with [concc] or [worker NAME]");
	for (size_t i = 0; i < n; i++) {
		names[i] = keys[i].name;
		if (!streq(name, keys[i].name))
			continue;
		if (*seen & (1u << i)) {
			errmsg_set(&text, 0, "%s is given twice in this section", name);
			return fail(p, p->line, text.text);
		}
		*seen |= 1u << i;
		p->key = &keys[i];
		p->key_line = p->line;
		buf_reset(&p->value);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		/* "address ssh://x": a ':' separates too, so all before it looks like a key. */
		if (!str_starts(name, names[i]) || !strchr(" \t", name[strlen(names[i])]))
			continue;
		errmsg_set(&text, 0, "there is no '=' after '%s'", names[i]);
		return fail(p, p->line, text.text);
	}
	return unknown_key(p, name, names, n);
}

/* For ini_parse_stream(); the section is known already.  Returns 0 on failure. */
static int handle_value(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;
	struct errmsg text = {0};

	if (p->is_rest && p->key) {
		buf_putf(&p->value, " %s", value);
		return 1;
	}
	if (begin_key(p, name) < 0)
		return 0;
	if (!*value) {
		errmsg_set(&text, 0, "%s has no value; remove the line to leave it at its default",
			   name);
		fail(p, p->line, text.text);
		return 0;
	}
	buf_append(&p->value, value, strlen(value));
	return 1;
}

int conf_parse_text(struct conf *c, const char *file, const char *text, size_t n,
		    struct errmsg *msg)
{
	struct parser p = {.conf = c, .file = file, .text = text, .left = n, .msg = msg};
	int bad_line;

	if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
		p.text += 3;
		p.left -= 3;
	}
	if (memchr(text, '\0', n))
		return errmsg_set(msg, CONCC_E_CONF,
				  "%s: has a NUL byte in it, so it is not a text file", file);
	bad_line = ini_parse_stream(read_line, &p, handle_value, &p);
	/* A number: of a line that is neither section nor key.  Ours stopped the reading at once.
	 */
	if (bad_line > 0 && p.err == 0)
		fail(&p, (unsigned)bad_line, "neither [section] nor key = value");
	else if (bad_line < 0 && p.err == 0)
		p.err = errmsg_set(msg, -ENOMEM, "%s: no memory to read it", file);
	end_section(&p);
	buf_release(&p.value);
	return p.err;
}

/* ---- the environment ---- */

int conf_parse_env(struct conf *c, struct errmsg *msg)
{
	struct errmsg why = {0};
	const char *v;

	for (size_t i = 0; i < n_concc_keys; i++) {
		const struct key *k = &concc_keys[i];

		v = getenv(k->env);
		if (!v || !*v)
			continue;
		if ((k->parse_env ? k->parse_env : k->parse)(c, v, &why) < 0)
			return errmsg_set(msg, CONCC_E_CONF, "%s: %s", k->env, why.text);
	}
	v = getenv("CONCC_WORKERS");
	if (v && *v && workers_from_list(c, v, &why) < 0)
		return errmsg_set(msg, CONCC_E_CONF, "CONCC_WORKERS: %s", why.text);
	return 0;
}
