/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "parse.h"

#include <stdio.h>
#include <string.h>

#include <ini.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/conf.h"
#include "concc/io.h"
#include "concc/worker_spec.h"
#include "concc/str.h"

#include "value.h"
#include "workers.h"

#define HOUR_S 3600

/* ---- keys ---- */

struct key {
	const char *name;
	int (*parse)(void *obj, const char *value, struct errmsg *why);
	const char *env; /* the variable that overrides it, NULL for keys of workers */
	/* For the variable, where it is written differently; NULL: as in the file. */
	int (*parse_env)(void *obj, const char *value, struct errmsg *why);
};

static int check_secrets(char *const *paths, const char *of, const char *like, struct errmsg *why)
{
	for (; *paths; paths++) {
		_cleanup_free_ char *secret = path_secret(*paths);

		if (secret)
			return errmsg_set(why, CONCC_E_CONF,
					  "'%s' would show workers your keys in %s; list the "
					  "directories %s themselves, like %s",
					  *paths, secret, of, like);
	}
	return 0;
}

static int check_workspaces(const struct conf *c, struct errmsg *why)
{
	return check_secrets(c->workspaces, "of the projects", "~/src", why);
}

static int set_workspaces(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths(v, &c->workspaces, why);

	return r < 0 ? r : check_workspaces(c, why);
}

/* Takes where; for messages about directories that turn out to be none. */
static void listed_by(struct conf *c, char *where)
{
	free(c->workspaces_from);
	c->workspaces_from = where;
}

static int set_workspaces_env(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths_colon(v, &c->workspaces, why);

	if (r == 0)
		r = check_workspaces(c, why);
	if (r == 0)
		listed_by(obj, xstrdup("CONCC_WORKSPACE"));
	return r;
}

static int set_toolchains(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths(v, &c->toolchains, why);

	return r < 0 ? r : check_secrets(c->toolchains, "of the toolchains", "~/opt/gcc", why);
}

static int set_toolchains_env(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths_colon(v, &c->toolchains, why);

	return r < 0 ? r : check_secrets(c->toolchains, "of the toolchains", "~/opt/gcc", why);
}

static int set_local_slots(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;

	if (streq(v, "auto")) {
		c->local_slots = CONF_LOCAL_AUTO;
		return 0;
	}
	if (value_number(v, 0, POOL_SLOTS_MAX, &c->local_slots, NULL) < 0)
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is neither auto nor a number from 0 to %d", v,
				  POOL_SLOTS_MAX);
	return 0;
}

static int set_idle_timeout(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 0, 30 * 24 * HOUR_S, &((struct conf *)obj)->idle_timeout_s, why);
}

static int set_connect_timeout(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, HOUR_S, &((struct conf *)obj)->connect_timeout_s, why);
}

static int set_straggler_after(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 0, 24 * HOUR_S, &((struct conf *)obj)->straggler_after_s, why);
}

/* The least is there to catch "20" where 20G was meant. */
static int set_store_size(void *obj, const char *v, struct errmsg *why)
{
	return value_size(v, 1ULL << 20, 1ULL << 50, &((struct conf *)obj)->store_max_bytes, why);
}

static int set_cache(void *obj, const char *v, struct errmsg *why)
{
	uint64_t *max = &((struct conf *)obj)->cache_max_bytes;

	if (streq(v, "off")) {
		*max = 0;
		return 0;
	}
	return value_size(v, 16ULL << 20, 1ULL << 50, max, why);
}

#define URL_MAX 1000

/* Who asks for it with a password has it in ~/.netrc, which is not shown to everybody. */
static int set_cache_url(void *obj, const char *v, struct errmsg *why)
{
	char **url = &((struct conf *)obj)->cache_url;
	size_t n = strlen(v);

	free(steal_ptr(url));
	if (streq(v, "off"))
		return 0;
	if (!str_starts(v, "http://") && !str_starts(v, "https://"))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is no URL; write one like http://host/path, or off", v);
	if (strpbrk(v, " \t?#\"\\") || n > URL_MAX)
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is no plain URL: without blanks, quotes, '?' and '#'", v);
	if (strchr(v, '@'))
		return errmsg_set(why, CONCC_E_CONF,
				  "the name and the password in the URL belong into ~/.netrc");
	while (v[n - 1] == '/')
		n--;
	*url = xstrndup(v, n);
	return 0;
}

static int set_cache_push(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"no", "yes"};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		((struct conf *)obj)->cache_push = i == 1;
	return r;
}

static int set_address(void *obj, const char *v, struct errmsg *why)
{
	struct conf_worker *w = obj;
	int r = value_address(v, why);

	if (r == 0)
		w->address = xstrdup(v);
	return r;
}

static int set_command(void *obj, const char *v, struct errmsg *why)
{
	((struct conf_worker *)obj)->command = xstrdup(v);
	return 0;
}

static int set_program(void *obj, const char *v, struct errmsg *why)
{
	((struct conf_worker *)obj)->worker_program = xstrdup(v);
	return 0;
}

static int set_slots(void *obj, const char *v, struct errmsg *why)
{
	return value_number(v, 1, POOL_SLOTS_MAX, &((struct conf_worker *)obj)->slots, why);
}

static int set_count(void *obj, const char *v, struct errmsg *why)
{
	return value_number(v, 1, POOL_MEMBERS_MAX - 1, &((struct conf_worker *)obj)->count, why);
}

static int set_worker_idle(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 0, 30 * 24 * HOUR_S, &((struct conf_worker *)obj)->idle_timeout_s,
			      why);
}

static int set_worker_connect(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, HOUR_S, &((struct conf_worker *)obj)->connect_timeout_s, why);
}

static int set_ssh(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"auto", "libssh2", "openssh"};
	static const enum ssh_mode modes[] = {SSH_AUTO, SSH_LIBSSH2, SSH_OPENSSH};
	size_t i;
	int r = value_choice(v, names, 3, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->ssh = modes[i];
	return r;
}

static int set_root(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"worker", "client"};
	static const enum conf_root roots[] = {ROOT_WORKER, ROOT_CLIENT};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->root = roots[i];
	return r;
}

/* The least are what no compiler gets by with: to catch a missing unit. */
static int set_job_memory(void *obj, const char *v, struct errmsg *why)
{
	return value_size(v, 1ULL << 20, 1ULL << 50, &((struct conf_worker *)obj)->job_memory, why);
}

static int set_job_processes(void *obj, const char *v, struct errmsg *why)
{
	return value_number(v, 16, 4000000, &((struct conf_worker *)obj)->job_processes, why);
}

static int set_job_time(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, 30 * 24 * HOUR_S, &((struct conf_worker *)obj)->job_time_s,
			      why);
}

static int set_mirror(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"concc", "sshfs", "none"};
	static const enum conf_mirror mirrors[] = {MIRROR_CONCC, MIRROR_SSHFS, MIRROR_NONE};
	size_t i;
	int r = value_choice(v, names, 3, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->mirror = mirrors[i];
	return r;
}

static int set_install(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"no", "yes"};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->install = i == 1;
	return r;
}

static const struct key concc_keys[] = {
	{"workspace", set_workspaces, "CONCC_WORKSPACE", set_workspaces_env},
	{"toolchain", set_toolchains, "CONCC_TOOLCHAIN", set_toolchains_env},
	{"local-slots", set_local_slots, "CONCC_LOCAL_SLOTS", NULL},
	{"idle-timeout", set_idle_timeout, "CONCC_IDLE_TIMEOUT", NULL},
	{"connect-timeout", set_connect_timeout, "CONCC_CONNECT_TIMEOUT", NULL},
	{"straggler-after", set_straggler_after, "CONCC_STRAGGLER_AFTER", NULL},
	{"store-size", set_store_size, "CONCC_STORE_SIZE", NULL},
	{"cache", set_cache, "CONCC_CACHE", NULL},
	{"cache-url", set_cache_url, "CONCC_CACHE_URL", NULL},
	{"cache-push", set_cache_push, "CONCC_CACHE_PUSH", NULL},
};

static const struct key worker_keys[] = {
	{"address", set_address},
	{"command", set_command},
	{"program", set_program},
	{"slots", set_slots},
	{"ssh", set_ssh},
	{"root", set_root},
	{"count", set_count},
	{"idle-timeout", set_worker_idle},
	{"connect-timeout", set_worker_connect},
	{"job-memory", set_job_memory},
	{"job-processes", set_job_processes},
	{"job-time", set_job_time},
	{"mirror", set_mirror},
	{"install", set_install},
};

#define N_CONCC_KEYS  (sizeof(concc_keys) / sizeof(concc_keys[0]))
#define N_WORKER_KEYS (sizeof(worker_keys) / sizeof(worker_keys[0]))

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
		if (key->parse == set_workspaces)
			listed_by(p->conf, xasprintf("%s:%u", p->file, p->key_line));
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

/* Takes note of a key; fails when it is unknown or given twice. */
static int begin_key(struct parser *p, const char *name)
{
	const struct key *keys = p->section == SECTION_CONCC ? concc_keys : worker_keys;
	size_t n = p->section == SECTION_CONCC ? N_CONCC_KEYS : N_WORKER_KEYS;
	uint32_t *seen = p->section == SECTION_CONCC ? &p->seen_concc : &p->seen_worker;
	const char *names[N_CONCC_KEYS > N_WORKER_KEYS ? N_CONCC_KEYS : N_WORKER_KEYS];
	struct errmsg text = {0};
	char hint[64];

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
	errmsg_set(&text, 0, "unknown key '%s'%s", name,
		   did_you_mean(hint, sizeof(hint), name, names, n));
	return fail(p, p->line, text.text);
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

	for (size_t i = 0; i < N_CONCC_KEYS; i++) {
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
