/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "script.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

/*
 * Nothing is kept for longer than the request that asked for it, by sshfs or by
 * the kernel: a name, its attributes, its absence and what a directory holds are
 * asked for each time.  Without kernel_cache and auto_cache the kernel drops a
 * file's pages when it is opened.  direct_io would not even keep those, but then
 * nothing could be mapped shared, and rustc maps what it reads.  */
#define SSHFS_OPTIONS                                                                              \
	"passive,dir_cache=no,attr_timeout=0,entry_timeout=0,negative_timeout=0,"                  \
	"ac_attr_timeout=0,idmap=user"

#define MOUNT_MS 20000 /* two round trips and fusermount3 */

static void put_mark_function(struct buf *out, const char *token)
{
	buf_putf(out, "mark() { printf '\\000concc-%s %%s\\n' \"$*\"; }\n", token);
}

/*
 * A process that has left its group is found by its ancestors, where there is a ps(1).  All are
 * found before any is killed, since an orphan has no ancestors.
 */
void script_control(struct buf *out, const char *token)
{
	buf_putf(out, "{\n");
	put_mark_function(out, token);
	buf_putf(
		out,
		"trap '' HUP PIPE\n"
		"cpus=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)\n"
		"mark begin \"$(uname -n)\" \"$(uname -m)\" \"$cpus\"\n"
		"mark begin >&2\n"
		"live=' '\n"
		"end() {\n"
		"all=$(ps -A -o pid= -o ppid= -o pgid= | awk -v g=\"$1\" '"
		"{ up[$1] = $2; if ($3 == g) in_it[$1] = 1 } END { do { more = 0; "
		"for (p in up) if (!(p in in_it) && (up[p] in in_it)) in_it[p] = more = 1 "
		"} while (more); for (p in in_it) print p }')\n"
		/* Not -KILL, with which dash takes no "--". */
		"kill -s KILL -- \"-$1\" $all\n"
		"} 2>/dev/null\n"
		"while read -r what id; do\n"
		"case $what in\n"
		"+) live=\"$live$id \" ;;\n"
		"-) case $live in *\" $id \"*) live=\"${live%%%% $id *} ${live#* $id }\" ;; esac ;;\n"
		"k) end \"$id\" ;;\n"
		"esac\n"
		"done\n"
		"for id in $live; do end \"$id\"; done\n"
		"exit\n"
		"}\n");
}

/*
 * A shell says on its own standard error when a command was ended by a signal,
 * which a status of 128 and more leaves open; but nothing of SIGINT and SIGPIPE,
 * nor some bash of SIGTERM.  So its standard error is kept apart from the job's,
 * in a file without a name: in a command substitution bash would not say it.
 */
/* What ulimit of a POSIX shell can set: with these letters, in these units. */
static const struct {
	enum caller_limit_id id;
	char letter;
	unsigned unit;
} limits[] = {
	{CALLER_CPU, 't', 1},	   {CALLER_FSIZE, 'f', 512}, {CALLER_DATA, 'd', 1024},
	{CALLER_STACK, 's', 1024}, {CALLER_AS, 'v', 1024},   {CALLER_NOFILE, 'n', 1},
};

static bool can_say(uint64_t value, unsigned unit)
{
	return value == CALLER_UNLIMITED || value % unit == 0;
}

bool script_can_say(const struct caller *c)
{
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		const struct caller_limit *l = &c->limits[limits[i].id];

		if (!can_say(l->soft, limits[i].unit) || !can_say(l->hard, limits[i].unit))
			return false;
	}
	return !c->persona && !c->blocked;
}

static void put_limit(struct buf *out, char kind, size_t i, uint64_t value)
{
	buf_putf(out, "ulimit -%c -%c ", kind, limits[i].letter);
	if (value == CALLER_UNLIMITED)
		buf_putf(out, "unlimited");
	else
		buf_putf(out, "%llu", (unsigned long long)(value / limits[i].unit));
}

/* A function that fails where there is less. */
static void put_caller_function(struct buf *out, const struct caller *c)
{
	buf_putf(out, "caller() {\n");
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		bool as_near = limits[i].id == CALLER_NOFILE; /* of the hard one: see caller.h */

		put_limit(out, 'S', i, c->limits[limits[i].id].soft);
		buf_putf(out, as_near ? " &&\n{ " : " &&\n");
		put_limit(out, 'H', i, c->limits[limits[i].id].hard);
		buf_putf(out, as_near ? " || :; } &&\n" : " &&\n");
	}
	buf_putf(out, ":\n} 2>/dev/null\n");
}

/* Two of the C library's own can't be named. */
static void put_ignored(struct buf *out, uint64_t ignored)
{
	for (int signo = 1; signo < NSIG; signo++)
		if (ignored >> (signo - 1) & 1 && (signo < 32 || signo >= SIGRTMIN))
			buf_putf(out, "trap '' %d\n", signo);
}

void script_job(struct buf *out, const char *token, const struct msg_job *m,
		const struct caller *caller, char *const *env, char *const *paths)
{
	_cleanup_free_ char *exe = strchr(m->path, '/') ? xstrdup(m->path)
							: path_join(".", m->path);

	buf_putf(out, "{\n");
	put_mark_function(out, token);
	buf_putf(out, "lost=0 i=0\nfor f in");
	for (char *const *p = paths; *p; p++) {
		buf_putf(out, " ");
		job_put_quoted(out, *p);
	}
	/* What a crash leaves behind would be left in the client's tree. */
	buf_putf(out, "; do i=$((i + 1)); [ \"$lost\" -ne 0 ] || [ -e \"$f\" ] || lost=$i; done\n"
		      "mark begin \"$$\" \"$lost\"\n"
		      "mark begin >&2\n"
		      "read -r go || exit\n"
		      "said=$(mktemp) && exec 3>&1 4>&2 2>\"$said\" 5<\"$said\" || exit\n"
		      "rm -f -- \"$said\"\n"
		      "ulimit -c 0\n");
	put_caller_function(out, caller);
	buf_putf(out, "if ! cd -- ");
	job_put_quoted(out, m->cwd);
	buf_putf(out, "; then end=cwd\nelif ! (caller); then end=caller\nelse\n(\ncaller\n");
	put_ignored(out, caller->ignored);
	job_script(out, m->argv, exe, m->cwd, env, m->umask);
	buf_putf(out, ") %s>&3 2>&%d 3>&- 4>&- 5<&-\nend=$?\n",
		 m->flags & JOB_F_STDIN ? "" : "</dev/null ", m->flags & JOB_F_MERGED ? 3 : 4);
	buf_putf(out, "if [ \"$end\" -gt 128 ] && [ -n \"$(cat <&5)\" ]; then\n"
		      "end=\"signal $((end - 128))\"\n"
		      "else end=\"code $end\"; fi\n"
		      "fi\n"
		      "mark end \"$end\" >&3\n"
		      "mark end \"$end\" >&4\n"
		      "kill -s KILL -- \"-$$\"\n"
		      "exit\n"
		      "}\n");
}

void script_check(struct buf *out, const char *token, const struct msg_exe *exe)
{
	buf_putf(out, "{\n");
	put_mark_function(out, token);
	buf_putf(out, "mark begin\nmark begin >&2\nfor f in");
	for (uint32_t i = 0; i < exe->n_files; i++) {
		buf_putf(out, " ");
		job_put_quoted(out, exe->files[i].path);
	}
	buf_putf(
		out,
		"; do\n"
		"if [ ! -r \"$f\" ]; then echo missing; else sha256sum <\"$f\" || echo unknown; fi\n"
		"done\n"
		"mark end\nmark end >&2\nexit\n}\n");
}

void script_probe(struct buf *out, const char *token, const char *path)
{
	buf_putf(out, "{\n");
	put_mark_function(out, token);
	buf_putf(out, "mark begin\nmark begin >&2\n[ -e ");
	job_put_quoted(out, path);
	buf_putf(out, " ] && answer=yes || answer=no\n"
		      "mark end\nmark end \"$answer\" >&2\nexit\n}\n");
}

/* A mount that a lost connection has left is taken away first. */
static void put_directory(struct buf *out)
{
	buf_putf(
		out,
		"stale=$(LC_ALL=C ls -d \"$dir/.\" 2>&1 >/dev/null)\n"
		"case $stale in *'not connected'*) fusermount3 -u -z \"$dir\" ;; esac\n"
		"set --\n"
		"up=$dir\n"
		"while [ ! -d \"$up\" ]; do set -- \"$@\" \"$up\"; up=${up%%/*}; up=${up:-/}; done\n"
		"mkdir -p -- \"$dir\" || fail \"it can't make $dir; as root there: "
		"install -d -o $(id -un) $dir\"\n"
		"[ -z \"$(ls -A \"$dir\")\" ] || fail \"$dir is not empty there, and would be hidden; "
		"move it away, or say mirror = none if it is this same directory\"\n"
		"[ -w \"$dir\" ] || fail \"$dir does not belong to $(id -un) there; as root: "
		"chown $(id -un) $dir\"\n");
}

void script_mount(struct buf *out, const char *token, const char *dir, const char *probe)
{
	buf_putf(out, "{\n");
	put_mark_function(out, token);
	buf_putf(out, "fail() { mark end \"$*\" >&2; exit; }\n"
		      "trap '' HUP PIPE\n"
		      "mark begin\nmark begin >&2\nread -r go || exit\ndir=");
	job_put_quoted(out, dir);
	buf_putf(out, "\nprobe=");
	job_put_quoted(out, probe);
	buf_putf(
		out,
		"\ncommand -v sshfs >/dev/null || fail \"it has no sshfs; install that package there\"\n"
		"[ -w /dev/fuse ] || fail \"it has no /dev/fuse that $(id -un) may use; as root there: "
		"modprobe fuse, chmod 666 /dev/fuse\"\n");
	put_directory(out);
	/* The kernel tells of the mount; sshfs itself has no word for it. */
	buf_putf(
		out,
		"(\n"
		"findmnt --poll=mount --first-only --timeout %d \"$dir\" >/dev/null 2>&1\n"
		"if [ -e \"$dir/$probe\" ]; then mark end yes; else mark end \"sshfs shows nothing "
		"in $dir\"; fi >&2\n"
		") </dev/null >/dev/null &\n"
		"watch=$!\n"
		"options=" SSHFS_OPTIONS "\n"
		/* Debian's has it on: links that lead out of the tree would be refused. */
		"! sshfs -h 2>&1 | grep -q no_contain_symlinks || options=$options,no_contain_symlinks\n"
		"sshfs -f -o \"$options\" \":$dir\" \"$dir\"\n"
		"kill \"$watch\" 2>/dev/null\n"
		"fusermount3 -u -q -z \"$dir\" 2>/dev/null\n"
		"for made in \"$@\"; do rmdir -- \"$made\"; done 2>/dev/null\n"
		"fail 'sshfs ended'\n"
		"}\n",
		MOUNT_MS);
}
