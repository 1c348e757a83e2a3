/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "results.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/str.h"

#define INTERPRETERS_MAX 4 /* of scripts, of scripts ... */
#define SELINUX		 "/sys/fs/selinux"
#define FILE_BYTES_MAX	 (256u * 1024 * 1024) /* a larger result is not kept */

struct recording {
	struct results *results;
	struct server *server;
	const char *why; /* it can't be kept, or NULL */
	struct digest state, words_key;
	struct cache_words words; /* of the call */
	char **argv; /* when there are options in files, which are looked into at the end */
	char *cwd;
	bool has_epoch;	   /* SOURCE_DATE_EPOCH is set */
	bool rust;	   /* it is rustc, which goes by no times, but may run any code */
	char **not_listed; /* the names in these directories say nothing */
	struct map early;  /* path -> a copy of it, owned: put in place before its end, and absent
			      before */
	bool any;	   /* command: nothing is known of it, but that its caller wants this */
	bool no_times;	   /* which its caller says it does not go by */
	bool asks_time;	   /* the time zone, that is */
	bool asks_random;
	bool asks_selinux; /* whether there is such a thing: libselinux, in cp and the like */
	bool unknown;	   /* some program of it was none of a compiler's */
	struct buf input;  /* what it was said to be; else nothing was to come */
	size_t n_input;	   /* of it, what has come */
	bool traced, looked;
	bool wants_places; /* it asked for the path of something that it had open */
	bool wants_exe;	   /* and of what it is itself */
	struct since since;
	uint64_t mounts; /* as the tree had counted at the dispatch */
	struct cache_names names;
	struct cache_entry entry;
	size_t cap;
	char **written; /* names that were opened for writing; in names */
	size_t n_written;
};

static void spoil(struct recording *r, const char *why)
{
	if (!r->why)
		r->why = why;
}

static uint64_t count_mounts(const struct server *s)
{
	struct tree_counts c;

	tree_counts(s->tree, &c);
	return c.mounts;
}

bool recording_sees_our_files(const struct peer *p)
{
	return p->conf->mirror == MIRROR_CONCC &&
	       (p->conf->root == ROOT_CLIENT ||
		(p->conf->address && streq(p->conf->address, "local:")));
}

/*
 * Of crates that depend on others: which crates they are the metadata says, with a digest, so what
 * else is there does not matter; and in a build of several jobs it is never the same.
 */
static char **dependency_dirs(char *const *argv)
{
	static const char word[] = "dependency=";
	char **dirs = xcalloc(1, sizeof(*dirs));

	for (; *argv; argv++) {
		const char *value = str_starts(*argv, "-L") && (*argv)[2] ? *argv + 2 : *argv;

		if (str_starts(value, word))
			strv_push(&dirs, xstrdup(value + strlen(word)));
	}
	return dirs;
}

/* Would it be kept as well when nobody had asked for it? */
static bool is_plain_compile(const struct msg_run *m)
{
	struct msg_run as = *m;

	as.flags = (m->flags | JOB_F_COMPILER) & ~(uint32_t)JOB_F_KEEP;
	return !cache_refuses(&as) && !cache_has_argfiles(m->argv);
}

struct recording *recording_new(struct peer *p, const struct msg_run *m, char *const *workspaces,
				uint64_t saw)
{
	struct server *s = p->server;
	struct cache_call call;
	struct recording *r;
	const char *why;

	if (!s->results)
		return NULL;
	call = (struct cache_call){m, geteuid(), getegid(), p->conf->root == ROOT_CLIENT};
	why = recording_sees_our_files(p) ? cache_refuses(m) : "worker-root";
	if (why) {
		results_reason(s->results, why);
		return NULL;
	}
	r = xcalloc(1, sizeof(*r));
	r->results = s->results;
	r->server = s;
	cache_words_of(&call, &r->words);
	cache_words_key(&call, &r->words_key);
	for (char *const *e = m->env; *e; e++)
		r->has_epoch |= str_starts(*e, "SOURCE_DATE_EPOCH=");
	if (!r->any && cache_has_argfiles(m->argv)) {
		r->argv = strv_copy(m->argv);
		r->cwd = xstrdup(m->cwd);
	}
	r->rust = cache_is_rustc(m);
	r->any = r->rust || m->flags & JOB_F_KEEP;
	r->no_times = r->rust || m->flags & JOB_F_NO_TIMES;
	if (r->rust)
		r->not_listed = dependency_dirs(m->argv);
	r->unknown = r->any && !is_plain_compile(m);
	buf_append(&r->input, m->input.p, m->input.n);
	r->entry.workspaces = strv_copy(workspaces);
	since_init(&r->since, s->tree, saw, call.client_root ? NULL : r->entry.workspaces);
	r->mounts = count_mounts(s);
	return r;
}

void recording_free(struct recording *r)
{
	size_t it = 0;
	char *path;

	if (!r)
		return;
	cache_names_release(&r->names);
	cache_entry_release(&r->entry);
	cache_words_release(&r->words);
	since_release(&r->since);
	buf_release(&r->input);
	while ((path = map_next(&r->early, &it, NULL)))
		free(path);
	map_release(&r->early);
	strv_free(r->not_listed);
	strv_free(r->argv);
	free(r->cwd);
	free(r->written);
	free(r);
}

/* ---- while it runs ---- */

/* Of all that it may have read the key tells; it may have read less. */
void recording_input(struct recording *r, struct blob bytes)
{
	size_t left;

	if (!r)
		return;
	left = r->input.len - r->n_input;
	if (bytes.n > left || memcmp(r->input.data + r->n_input, bytes.p, bytes.n) != 0 ||
	    (!bytes.n && left))
		spoil(r, "stdin");
	else
		r->n_input += bytes.n;
}

void recording_input_read(struct recording *r, uint32_t n)
{
	if (r)
		r->entry.input += n;
}

void recording_output(struct recording *r, uint8_t stream, struct blob bytes)
{
	if (!r || r->why || !bytes.n)
		return;
	if (r->entry.output.len + bytes.n + 5 > CACHE_OUTPUT_MAX) {
		spoil(r, "large-output");
		return;
	}
	buf_put_u8(&r->entry.output, stream);
	buf_put_blob(&r->entry.output, bytes.p, bytes.n);
}

void recording_file(struct recording *r, const struct msg_file *f)
{
	struct cache_entry *e;
	struct msg_file *to;

	if (!r || r->why)
		return;
	e = &r->entry;
	if (e->n_effects == CACHE_EFFECTS_MAX) {
		spoil(r, "many-files");
		return;
	}
	if (e->n_effects == r->cap) {
		r->cap = r->cap ? 2 * r->cap : 8;
		e->effects = xrealloc(e->effects, r->cap * sizeof(*e->effects));
	}
	to = &e->effects[e->n_effects++];
	*to = *f;
	to->job_id = 0;
	to->path = xstrdup(f->path);
	to->target = xstrdup(f->target ? f->target : "");
}

static char *path_of(const struct recording *r, const struct msg_file *f)
{
	const char *w = r->entry.workspaces[f->workspace];

	return f->path[0] ? path_join(w, f->path) : xstrdup(w);
}

/* It was there, and is what it was. */
static bool is_that_dir(const struct msg_file *f, const char *path)
{
	struct stat st;

	return f->kind == EFFECT_DIR && !(f->flags & EFFECT_F_OPAQUE) && lstat(path, &st) == 0 &&
	       S_ISDIR(st.st_mode) && (st.st_mode & 07777) == f->mode;
}

/* What was absent can be taken for that later on; what was not is gone. */
void recording_early(struct recording *r)
{
	if (!r || r->why)
		return;
	r->entry.announced = true;
	for (size_t i = 0; i < r->entry.n_effects; i++) {
		const struct msg_file *f = &r->entry.effects[i];
		_cleanup_free_ char *path = path_of(r, f);
		struct stat st;

		if (map_get_str(&r->early, path) || is_that_dir(f, path))
			continue;
		if (f->kind != EFFECT_FILE || lstat(path, &st) == 0 || errno != ENOENT)
			spoil(r, "announced");
		(void)map_put_str(&r->early, path, xstrdup(path));
	}
}

void recording_missing(struct recording *r)
{
	if (r)
		spoil(r, "missing");
}

int recording_trace(struct recording *r, struct blob payload)
{
	struct msg_trace m;
	int err = msg_trace_decode(payload, &m);

	if (err < 0)
		return err;
	if (r && !r->traced && *m.why) {
		/* Its own words are not for us to keep. */
		log_debug("a trace is void: %s", m.why);
		spoil(r, "trace-void");
	}
	if (r && !r->traced && !r->why) {
		cache_names_set(&r->names, steal_ptr(&m.names), m.n);
		r->traced = true;
	}
	msg_trace_release(&m);
	return 0;
}

/* ---- which names count ---- */

static bool has_dotdot(const char *path)
{
	return strstr(path, "/../") || str_ends(path, "/..");
}

/* Where its stack is, what memory it has, and how many processors; names for its linker's files. */
static bool says_nothing_to_rustc(const char *path)
{
	static const char *const paths[] = {
		"/dev/urandom",
		"/proc/self/maps",
		"/proc/self/statm",
		"/proc/self/cgroup",
		"/proc/self/mountinfo",
		"/proc/cpuinfo",
		"/sys/kernel/mm/transparent_hugepage/enabled",
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (streq(path, paths[i]))
			return true;
	return (path_is_below(path, "/sys/fs/cgroup") ||
		path_is_below(path, "/sys/devices/system/cpu")) &&
	       !has_dotdot(path);
}

/* What is the same for each process of each machine, or says nothing that a compiler keeps. */
static bool is_constant(const struct recording *r, const char *path)
{
	static const char *const paths[] = {
		"/dev/null", "/dev/zero",     "/dev/full",
		"/dev/tty",  "/proc/self/fd", "/proc/sys/vm/overcommit_memory",
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (streq(path, paths[i]))
			return true;
	if (r->asks_selinux && (streq(path, SELINUX) || streq(path, "/proc/filesystems")))
		return true;
	if (r->rust && says_nothing_to_rustc(path))
		return true;
	/* How many there are decides what some commands do. */
	return !r->any && str_starts(path, "/sys/devices/system/cpu/") && !has_dotdot(path);
}

static bool is_in_workspace(const struct recording *r, const char *path)
{
	for (char **w = r->entry.workspaces; w && *w; w++)
		if (path_is_below(path, *w))
			return true;
	return false;
}

/* clang finds out so what its headers are really called. */
static bool is_own_descriptor(const char *name)
{
	static const char dir[] = "/proc/self/fd/";
	const char *path = name + 1;

	return name[0] == TRACE_LINK && str_starts(path, dir) &&
	       strspn(path + strlen(dir), "0123456789") == strlen(path + strlen(dir));
}

/* Each job has a /tmp of its own, in which there is nothing. */
static bool is_private(const struct recording *r, const char *path)
{
	return (path_is_below(path, "/tmp") || path_is_below(path, "/var/tmp")) &&
	       !is_in_workspace(r, path);
}

static bool is_special(const char *path)
{
	return path_is_below(path, "/proc") || path_is_below(path, "/sys") ||
	       path_is_below(path, "/dev");
}

/* Compilers read these for the time, and for nothing else; others when they show one. */
static bool tells_time(const char *path)
{
	return streq(path, "/etc/localtime") || path_is_below(path, "/usr/share/zoneinfo");
}

/* Does something look for the time zone as it starts, whatever it does then? */
static bool has_python(const struct recording *r)
{
	for (size_t i = 0; i < r->names.n; i++)
		if (r->names.v[i][0] == TRACE_EXEC &&
		    str_starts(path_base(r->names.v[i] + 1), "python"))
			return true;
	return false;
}

/* Compilers have the time zone for __DATE__, and random bytes for the names of temporary files. */
static void check_unforeseen(struct recording *r)
{
	if (r->asks_random && r->unknown && !r->rust)
		spoil(r, "random");
	if (r->asks_time && (r->any && !r->rust ? !has_python(r) : !r->has_epoch))
		spoil(r, "time");
}

static bool is_not_listed(const struct recording *r, const char *path)
{
	for (char **d = r->not_listed; d && *d; d++)
		if (streq(*d, path))
			return true;
	return false;
}

/* Does it count?  May spoil. */
static bool counts(struct recording *r, const char *name)
{
	const char *path = name + 1;

	if (streq(path, "/proc/self/exe")) {
		r->wants_exe = true;
		return false;
	}
	if (name[0] == TRACE_LINK && streq(path, TRACE_GETRANDOM)) {
		r->asks_random = true;
		return false;
	}
	if (is_constant(r, path) || (name[0] == TRACE_LIST && is_not_listed(r, path)))
		return false;
	if (is_own_descriptor(name)) {
		r->wants_places = true;
		return false;
	}
	if (is_private(r, path)) {
		if (has_dotdot(path))
			spoil(r, "tmp");
		return false;
	}
	if (is_special(path))
		spoil(r, path_is_below(path, "/dev") ? "device" : "proc");
	if (tells_time(path) && name[0] == TRACE_READ)
		r->asks_time = true;
	if (name[0] == TRACE_EXEC && !r->any && !cache_knows_tool(path))
		spoil(r, "unknown-tool");
	return true;
}

static void choose_names(struct recording *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->names.n; i++)
		r->asks_selinux |= streq(r->names.v[i] + 1, SELINUX);
	for (size_t i = 0; i < r->names.n; i++) {
		char *name = r->names.v[i];

		if (counts(r, name))
			r->names.v[kept++] = name;
		else
			free(name);
	}
	r->names.n = kept;
}

static bool is_opened(const char *name)
{
	return name[0] == TRACE_READ || name[0] == TRACE_WRITE || name[0] == TRACE_EXEC;
}

static bool shows_times(const char *name)
{
	return name[0] == TRACE_LOOK || name[0] == TRACE_STAT || name[0] == TRACE_READ ||
	       name[0] == TRACE_EXEC;
}

/* What a command did with the times that it was told of nobody knows. */
static void add_times(struct recording *r)
{
	size_t n = r->names.n;
	char **all = xcalloc(2 * n + 1, sizeof(*all)), **v = r->names.v;

	memcpy(all, v, n * sizeof(*all));
	for (size_t i = 0; i < r->names.n; i++)
		if (shows_times(v[i]))
			all[n++] = xasprintf("%c%s", TRACE_TIMES, v[i] + 1);
	free(v);
	cache_names_set(&r->names, all, n);
	if (r->names.n > CACHE_NAMES_MAX)
		spoil(r, "many-names");
}

/* Of which descriptor it asked is not known: of each.  Nor which of its programs did. */
static void add_places(struct recording *r)
{
	size_t n = r->names.n;
	char **all = xcalloc(2 * n + 1, sizeof(*all)), **v = r->names.v;

	memcpy(all, v, n * sizeof(*all));
	for (size_t i = 0; i < r->names.n; i++)
		if (r->wants_places ? is_opened(v[i]) : v[i][0] == TRACE_EXEC)
			all[n++] = xasprintf("%c%s", TRACE_PLACE, v[i] + 1);
	free(v);
	cache_names_set(&r->names, all, n);
	if (r->names.n > CACHE_NAMES_MAX)
		spoil(r, "many-names");
}

/* ---- what they hold ---- */

/* The loader that the kernel reads for this program, on the heap; NULL: none, or *ret_bad. */
static char *loader_of(const char *path, bool *ret_bad)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char loader[PATH_MAX];
	Elf64_Ehdr h;
	Elf64_Phdr p;

	*ret_bad = true;
	if (fd < 0 || pread(fd, &h, sizeof(h), 0) != sizeof(h) ||
	    h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_phentsize != sizeof(p))
		return NULL;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		off_t at = (off_t)(h.e_phoff + i * sizeof(p));

		if (pread(fd, &p, sizeof(p), at) != sizeof(p))
			return NULL;
		if (p.p_type != PT_INTERP)
			continue;
		if (p.p_filesz < 2 || p.p_filesz > sizeof(loader) ||
		    pread(fd, loader, p.p_filesz, (off_t)p.p_offset) != (ssize_t)p.p_filesz ||
		    loader[0] != '/' || loader[p.p_filesz - 1])
			return NULL;
		*ret_bad = false;
		return xstrdup(loader);
	}
	*ret_bad = false;
	return NULL;
}

/* ccache and its like are called by the names of compilers, too, and read what those don't. */
static bool is_known_at_last(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);

	return real && cache_knows_tool(real);
}

/* What runs this script, on the heap; NULL: that can't be told, or depends on the directory. */
static char *interpreter_of(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char line[PATH_MAX];
	ssize_t n = fd < 0 ? -1 : pread(fd, line, sizeof(line) - 1, 0);
	char *name = line + 2;

	if (n < 3)
		return NULL;
	line[n] = '\0';
	name += strspn(name, " \t");
	n = (ssize_t)strcspn(name, " \t\n");
	return *name == '/' && name[n] ? xstrndup(name, (size_t)n) : NULL;
}

/* What the kernel opens by itself for an exec is no call of the job's. */
static void look_at_elf(struct recording *r, const char *path, char ***more)
{
	_cleanup_free_ char *loader = NULL;
	bool bad;

	loader = loader_of(path, &bad);
	if (bad)
		spoil(r, "loader");
	else if (loader)
		strv_push(more, xasprintf("%c%s", TRACE_READ, loader));
}

/* Scripts of scripts are followed as far as the kernel does. */
static void look_at_program(struct recording *r, const char *path, char ***more, unsigned depth)
{
	struct digest d;
	struct stat st;
	unsigned facts;

	if (stat(path, &st) < 0)
		return; /* looked for in PATH */
	if (!S_ISREG(st.st_mode))
		return;
	if (results_facts(r->results, path, &st, &d, &facts) < 0) {
		spoil(r, "unreadable");
		return;
	}
	if (facts & FACT_ELF && is_known_at_last(path)) {
		look_at_elf(r, path, more);
		return;
	}
	r->unknown = true;
	if (r->any && facts & FACT_SCRIPT && depth < INTERPRETERS_MAX) {
		_cleanup_free_ char *by = interpreter_of(path);

		if (!by) {
			spoil(r, "script");
			return;
		}
		strv_push(more, xasprintf("%c%s", TRACE_EXEC, by));
		look_at_program(r, by, more, depth + 1);
	} else if (r->any && facts & FACT_ELF) {
		look_at_elf(r, path, more);
	} else {
		spoil(r, facts & FACT_ELF ? "unknown-tool" : "script");
	}
}

static void look_at_programs(struct recording *r)
{
	char **more = xcalloc(1, sizeof(*more));
	size_t n = 0;

	for (size_t i = 0; i < r->names.n && !r->why; i++) {
		const char *name = r->names.v[i];

		if (name[0] == TRACE_EXEC)
			look_at_program(r, name + 1, &more, 0);
	}
	n = strv_len(more);
	if (n) {
		char **all = xcalloc(r->names.n + n + 1, sizeof(*all));

		memcpy(all, r->names.v, r->names.n * sizeof(*all));
		memcpy(all + r->names.n, more, n * sizeof(*all));
		free(r->names.v);
		cache_names_set(&r->names, all, r->names.n + n);
	}
	free(more);
}

static bool follows(char how)
{
	return how != TRACE_LOOK && how != TRACE_LINK && how != TRACE_MAKE;
}

static void check_unchanged(struct recording *r)
{
	(void)tree_drain(r->server->tree);
	if (count_mounts(r->server) != r->mounts)
		spoil(r, "mounts");
	for (size_t i = 0, end; i < r->names.n && !r->why; i = end) {
		const char *path = r->names.v[i] + 1;
		bool follow = false, listed = false;

		for (end = i; end < r->names.n && streq(r->names.v[end] + 1, path); end++) {
			follow |= follows(r->names.v[end][0]);
			listed |= r->names.v[end][0] == TRACE_LIST;
		}
		if (map_get_str(&r->early, path))
			continue; /* or it would not be in place */
		if (since_unchanged(&r->since, path, follow,
				    cache_look_last(r->results->look, i)) &&
		    (!listed || since_same_names(&r->since, path)))
			continue;
		spoil(r, "changed");
		log_debug("not kept: %s has changed since the job began", path);
	}
}

/* Before the files are looked at by name: what they held then is what they hold here. */
static void look_at_argfiles(struct recording *r)
{
	_cleanup_strv_ char **all = NULL;
	const char *why;

	if (!r->argv)
		return;
	all = job_expand_argfiles(r->argv + 1, r->cwd, read_regular_file);
	why = all ? cache_refuses_args(all) : "response-file";
	if (why)
		spoil(r, why);
}

static int look_at_state(struct recording *r)
{
	struct results *all = r->results;
	int err;

	all->wants_facts = true;
	all->read_facts = 0;
	cache_look_without(all->look, &r->early);
	err = cache_look_state(all->look, &r->names, &r->state, r->entry.prints);
	all->wants_facts = false;
	cache_look_without(all->look, NULL);
	if (all->read_facts & FACT_UNREADABLE)
		spoil(r, "unreadable");
	else if (all->read_facts & FACT_PRECOMPILED)
		spoil(r, "precompiled");
	else if (all->read_facts & FACT_TIMESTAMP || (all->read_facts & FACT_TIME && !r->has_epoch))
		spoil(r, "time");
	return err;
}

/* Is there a name that leads to what is in place already, and would be taken for what was before?
 */
static bool sees_early(const struct recording *r)
{
	const char *path;
	size_t it = 0;

	while ((path = map_next(&r->early, &it, NULL))) {
		struct stat st, other;

		if (lstat(path, &st) < 0)
			return true;
		for (size_t i = 0; i < r->names.n; i++)
			if (!streq(r->names.v[i] + 1, path) &&
			    stat(r->names.v[i] + 1, &other) == 0 && other.st_dev == st.st_dev &&
			    other.st_ino == st.st_ino)
				return true;
	}
	return false;
}

/* In this order: what is looked at, and only then whether anything had changed before. */
void recording_look(struct recording *r, const struct msg_exit *end)
{
	if (!r)
		return;
	if (end->how != EXIT_CODE || end->code)
		spoil(r, "failed");
	if (!r->traced)
		spoil(r, "no-trace");
	if (r->why)
		return;
	(void)tree_drain(r->server->tree);
	look_at_argfiles(r);
	choose_names(r);
	if (!r->why)
		look_at_programs(r);
	check_unforeseen(r);
	if (!r->why && r->unknown && !r->no_times)
		add_times(r);
	if (r->early.n && (r->wants_places || sees_early(r)))
		spoil(r, "announced");
	if (!r->why && (r->wants_places || r->wants_exe))
		add_places(r);
	if (r->why)
		return;
	r->entry.prints = xcalloc(r->names.n + 1, sizeof(uint64_t));
	r->entry.n_prints = r->names.n;
	if (look_at_state(r) < 0)
		spoil(r, "unreadable");
	else
		check_unchanged(r);
	r->looked = !r->why;
}

/* ---- keeping ---- */

/* The bytes that the job left there.  0, or why not. */
static const char *keep_bytes(struct recording *r, struct msg_file *f)
{
	_cleanup_free_ char *path = path_of(r, f);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool told = f->kind == EFFECT_FILE && !(f->flags & EFFECT_F_NO_DIGEST);
	struct digest d;
	struct stat st;
	uint64_t size;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return "result-gone";
	if (st.st_size > FILE_BYTES_MAX)
		return "large-file";
	if (cache_put_fd(r->results->store, fd, &d, &size) < 0)
		return "store";
	/* Somebody has changed it already. */
	if ((told && !digest_eq(&d, &f->digest)) || size != (uint64_t)st.st_size)
		return "result-gone";
	f->digest = d;
	f->size = size;
	f->flags &= (uint8_t)~EFFECT_F_NO_DIGEST;
	return NULL;
}

static bool was_written(const struct recording *r, const struct stat *st)
{
	for (size_t i = 0; i < r->names.n; i++) {
		struct stat other;

		if (r->names.v[i][0] == TRACE_WRITE && stat(r->names.v[i] + 1, &other) == 0 &&
		    other.st_dev == st->st_dev && other.st_ino == st->st_ino)
			return true;
	}
	return false;
}

/*
 * Of a file whose bytes are what was there before, a worker tells no more than that it was touched.
 * Next time there may be others in its place.
 */
static const char *keep_touched(struct recording *r, struct msg_file *f)
{
	_cleanup_free_ char *path = path_of(r, f);
	const char *why;
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || !was_written(r, &st))
		return "metadata";
	why = keep_bytes(r, f);
	f->kind = EFFECT_FILE;
	f->flags &= EFFECT_F_MTIME | EFFECT_F_ATIME;
	return why;
}

static const char *keep_effect(struct recording *r, struct msg_file *f)
{
	switch (f->kind) {
	case EFFECT_FILE:
		if (f->flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET))
			return "special-file";
		return keep_bytes(r, f);
	case EFFECT_META:
		return keep_touched(r, f);
	case EFFECT_DIR:
		return f->flags & EFFECT_F_OPAQUE ? "replaced-directory" : NULL;
	case EFFECT_LINK:
		return "hard-link";
	}
	return NULL;
}

static bool has_effect_on(const struct recording *r, const struct stat *st)
{
	for (size_t i = 0; i < r->entry.n_effects; i++) {
		_cleanup_free_ char *path = path_of(r, &r->entry.effects[i]);
		struct stat other;

		if (lstat(path, &other) == 0 && other.st_dev == st->st_dev &&
		    other.st_ino == st->st_ino)
			return true;
	}
	return false;
}

/* Is something there that it opened for writing, of which nothing was told? */
static bool left_out(const struct recording *r)
{
	for (size_t i = 0; i < r->names.n; i++) {
		struct stat st;

		if (r->names.v[i][0] == TRACE_WRITE && stat(r->names.v[i] + 1, &st) == 0 &&
		    S_ISREG(st.st_mode) && !has_effect_on(r, &st))
			return true;
	}
	return false;
}

static void share_one(struct recording *r, enum cache_kind kind, const struct digest *d)
{
	struct cache_key key = {kind, *d};

	cache_remote_put(r->results->remote, &key);
}

/* In the same order. */
static void share(struct recording *r, const struct cache_seen *seen)
{
	struct digest entry;

	for (size_t i = 0; i < r->entry.n_effects; i++)
		if (r->entry.effects[i].kind == EFFECT_FILE && r->entry.effects[i].size)
			share_one(r, CACHE_BYTES, &r->entry.effects[i].digest);
	cache_entry_key(&r->words.call, seen, &entry);
	share_one(r, CACHE_BYTES, &seen->set);
	share_one(r, CACHE_RESULT, &entry);
	share_one(r, CACHE_SEEN, &r->words.call);
}

static int put(struct recording *r)
{
	struct cache_store *store = r->results->store;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct cache_seen seen = {.state = r->state};
	int err;

	cache_names_encode(&b, &r->names);
	err = cache_put_bytes(store, b.data, b.len, &seen.set);
	if (err == 0)
		err = cache_put_entry(store, &r->words.call, &seen.set, &seen.state, &r->entry);
	/* Last: what it leads to is there by then. */
	if (err == 0)
		err = cache_add_seen(store, &r->words.call, &seen);
	if (err == 0)
		(void)cache_add_words(store, &r->words_key, &r->words);
	if (err == 0 && r->results->remote && r->server->conf->cache_push)
		share(r, &seen);
	return err;
}

static void fill(struct recording *r, const struct msg_exit *end, const char *worker)
{
	struct cache_entry *e = &r->entry;

	e->utime_us = end->utime_us;
	e->stime_us = end->stime_us;
	e->wall_us = end->wall_us;
	e->maxrss_kb = end->maxrss_kb;
	e->kept_s = (uint64_t)time(NULL);
	e->worker = xstrdup(worker);
}

void recording_keep(struct recording *r, const struct msg_exit *end, const char *worker)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->entry.n_effects && !r->why; i++)
		r->why = keep_effect(r, &r->entry.effects[i]);
	if (!r->why && left_out(r))
		spoil(r, "unchanged-output");
	if (!r->why) {
		fill(r, end, worker);
		if (put(r) < 0)
			spoil(r, "store");
	}
	results_remember(r->results, &r->words.call, r->why);
	if (r->why) {
		results_reason(r->results, r->why);
		return;
	}
	r->results->n_kept++;
	cache_count_kept(r->results->store);
	results_trim(r->results);
}
