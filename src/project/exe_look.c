/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "exe_look.h"
#include "exe.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/process.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "concc/tree.h"

/* Compilers asked for their parts answer in milliseconds; one that does not is not waited for. */
#define ASK_TIMEOUT_MS 2000
/* What is found beside what was asked for is of no use, or by far too much. */
#define FILES_MAX (4 * PROTO_EXE_FILES_MAX)

void exe_look_release(struct exe_look *l)
{
	for (size_t i = 0; i < l->n_files; i++)
		free(l->files[i].path);
	free(l->files);
	free(l->exe);
	free(l->cwd);
	free(l->path);
	strv_free(l->argv);
	*l = (struct exe_look){0};
}

/* ---- what a file is ---- */

static bool is_elf(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char magic[4];

	return fd >= 0 && pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	       memcmp(magic, "\177ELF", sizeof(magic)) == 0;
}

static bool has_text(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	bool found;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0)
		return false;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return false;
	found = memmem(p, (size_t)st.st_size, text, strlen(text));
	(void)munmap(p, (size_t)st.st_size);
	return found;
}

/*
 * A driver of GCC or clang, and not what is only called like one: a program that knows the
 * option which it will be asked by (clang's options may be in its library), under such a name
 * at the end of all links, too.  Scripts are none: whatever they do with their arguments.
 */
static bool is_driver(const char *path)
{
	_cleanup_free_ char *real = job_is_driver_name(path) ? realpath(path, NULL) : NULL;

	return real && job_is_driver_name(real) && is_elf(real) &&
	       (has_text(real, "print-prog-name") || has_text(real, "libclang-cpp.so"));
}

/* ---- the files of an identity ---- */

static bool is_known(const struct exe_look *l, const char *path)
{
	for (size_t i = 0; i < l->n_files; i++)
		if (streq(l->files[i].path, path))
			return true;
	return false;
}

static int add(struct exe_look *l, const char *path, enum exe_file_kind kind)
{
	if (is_known(l, path))
		return 0;
	if (l->n_files >= FILES_MAX)
		return CONCC_E_TOOBIG;
	l->files = xrealloc(l->files, (l->n_files + 1) * sizeof(*l->files));
	l->files[l->n_files++] = (struct exe_file_look){.path = xstrdup(path), .kind = kind};
	return 0;
}

static int add_part(struct exe_look *l, const char *path)
{
	_cleanup_free_ char *clean = path_clean("/", path);

	return add(l, clean, EXE_FILE_PART);
}

/* By an absolute path, whatever PATH has. */
static char *find_program(const char *name, const char *path_var, const char *cwd,
			  bool (*skip)(const char *path, void *data))
{
	_cleanup_free_ char *found = job_resolve(name, path_var, cwd, skip, NULL);

	return found ? job_exe(found, cwd) : NULL;
}

char *exe_part(const char *part, const char *answer, const char *path, const char *cwd)
{
	_cleanup_free_ char *line = xstrndup(answer, strcspn(answer, "\n"));

	if (*line == '/')
		return steal_ptr(&line);
	/* No place of its own for it: it takes what PATH has. */
	return streq(line, part) ? find_program(part, path, cwd, NULL) : NULL;
}

/* Where a driver finds this part of it, or NULL; negative when it can't be asked now. */
static int ask_part(const struct exe_look *l, const char *driver, const char *part, char **ret)
{
	_cleanup_free_ char *arg = xasprintf("-print-prog-name=%s", part);
	_cleanup_buf_ struct buf answer = BUF_INIT;
	char *argv[] = {(char *)driver, arg, NULL};
	char *env[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LC_ALL=C", NULL};
	int r = process_ask(argv, env, PROTO_PATH_MAX, l->deadline_ms, &answer, NULL);

	*ret = NULL;
	/* One that can't be executed, or says too much or too late, is none to be asked. */
	if (r < 0)
		return r > -4096 && !err_is_fact(r) && r != -ENOEXEC ? r : 0;
	*ret = exe_part(part, buf_cstr(&answer), l->path, l->cwd);
	return 0;
}

/*
 * The driver is not the compiler: cc1 and as make the object, ld the program, and a distribution
 * may update them without it.  What is not found is left out on both sides.
 */
static int add_c_parts(struct exe_look *l, const char *driver)
{
	static const char *const parts[] = {"cc1", "cc1plus", "as", "collect2", "ld"};
	size_t n = l->may_link ? 5 : 3;
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		_cleanup_free_ char *path = NULL, *dir = NULL;

		r = ask_part(l, driver, parts[i], &path);
		if (!path)
			continue;
		dir = path_clean(path, "..");
		r = add_part(l, path);
		/* Where others appear when a package is installed: cc1plus beside cc1. */
		if (i == 0 && r == 0)
			r = add(l, dir, EXE_FILE_PLACE);
	}
	return r;
}

/* For glob(3): the directories that can't be read for want of something end it. */
static int is_no_fact(const char *path, int err)
{
	return !err_is_fact(-err);
}

/* rustc is a small program over a large library. */
static int add_rust_parts(struct exe_look *l, const char *rustc)
{
	_cleanup_free_ char *pattern = xasprintf("%s/../../lib/librustc_driver-*.so", rustc);
	_cleanup_free_ char *clean = path_clean("/", pattern);
	glob_t g = {0};
	int found = glob(clean, GLOB_NOSORT, is_no_fact, &g);
	int r = found == 0 || found == GLOB_NOMATCH ? 0 : -EIO;

	for (size_t i = 0; i < g.gl_pathc && r == 0; i++)
		r = add_part(l, g.gl_pathv[i]);
	globfree(&g);
	return r;
}

/* ---- compilers that the program may run in turn ---- */

static bool is_no_driver(const char *path, void *data)
{
	return !is_driver(path);
}

static bool is_no_elf(const char *path, void *data)
{
	return !is_elf(path);
}

static int add_found(struct exe_look *l, const char *name, const char *path_var)
{
	bool rust = streq(name, "rustc");
	_cleanup_free_ char *found = find_program(name, path_var, l->cwd,
						  rust ? is_no_elf : is_no_driver);
	int r;

	if (!found || is_known(l, found))
		return 0;
	r = add_part(l, found);
	if (r == 0)
		r = rust ? add_rust_parts(l, found) : add_c_parts(l, found);
	return r;
}

/* Which it runs nobody knows: so each that it finds by a usual name, or by its own. */
static int add_compilers(struct exe_look *l, enum job_family family)
{
	static const char *const c[] = {"cc", "c++", "gcc", "g++", "clang", "clang++"};
	static const char *const system_path = "/usr/bin:/bin";
	int r = 0;

	if (family == JOB_FAMILY_RUST)
		return add_found(l, "rustc", l->path);
	for (size_t i = 0; i < sizeof(c) / sizeof(*c) && r == 0; i++) {
		r = add_found(l, c[i], l->path);
		if (r == 0)
			r = add_found(l, c[i], system_path);
	}
	return r < 0 ? r : add_found(l, path_base(l->argv[0]), l->path);
}

static int add_parts(struct exe_look *l)
{
	enum job_family family = job_family(l->argv);
	const char *path = l->exe;

	if (is_driver(path))
		return add_c_parts(l, path);
	if (family == JOB_FAMILY_RUST && is_elf(path))
		return add_rust_parts(l, path);
	if (family == JOB_FAMILY_ALONE || (family == JOB_FAMILY_OTHER && is_elf(path)))
		return 0;
	return add_compilers(l, family);
}

static void stat_all(struct exe_look *l)
{
	for (struct exe_file_look *f = l->files; f < l->files + l->n_files; f++)
		f->err = stat(f->path, &f->st) < 0 ? -errno : 0;
}

void exe_look_find(struct exe_look *l)
{
	l->deadline_ms = now_ms() + ASK_TIMEOUT_MS;
	l->err = add(l, l->exe, EXE_FILE_PROGRAM);
	if (l->err == 0 && l->compiler)
		l->err = add_parts(l);
	stat_all(l);
}

/* ---- what is in them ---- */

static int read_one(struct exe_file_look *f)
{
	/* Not a file any more by now?  Then opening must not wait. */
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int64_t since = clock_ns();
	struct fs_traits traits;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (!stat_is_unchanged(&st, &f->st))
		f->has_digest = false;
	f->st = st;
	traits = fs_traits(fd);
	f->young = stat_is_racy(&st, since, traits.network);
	f->stamps = traits.stamps;
	return f->has_digest ? 0 : digest_of_fd(fd, &f->digest, NULL);
}

void exe_look_read(struct exe_look *l)
{
	for (struct exe_file_look *f = l->files; f < l->files + l->n_files && l->err == 0; f++) {
		if (f->kind == EXE_FILE_PLACE || f->served)
			continue;
		f->err = read_one(f);
		/* A part that is not there is left out on both sides; one that can't be read now is
		 * not. */
		if (f->err &&
		    (f->kind == EXE_FILE_PROGRAM || (!err_is_fact(f->err) && f->err != -EINVAL)))
			l->err = f->err;
	}
}
