/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * The scripts are run, by every shell there is.  The job they repeat is this
 * very program: called with DUMP as its first argument it prints what it got,
 * before Criterion sees anything of it.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

#define DUMP "--dump-what-the-job-got"

static void put(struct buf *out, char kind, const char *s)
{
	buf_put_u8(out, (uint8_t)kind);
	buf_append(out, s, strlen(s) + 1);
}

static void put_job(struct buf *out, char *const *argv, char *const *env, const char *cwd,
		    unsigned mask)
{
	char text[16];

	for (; *argv; argv++)
		put(out, 'a', *argv);
	for (; *env; env++)
		put(out, 'e', *env);
	put(out, 'c', cwd);
	snprintf(text, sizeof(text), "%04o", mask);
	put(out, 'u', text);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

__attribute__((constructor)) static void dump_and_exit(int argc, char **argv, char **envp)
{
	struct buf out = BUF_INIT;
	char *cwd;

	if (argc < 2 || !streq(argv[1], DUMP))
		return;
	cwd = getcwd(NULL, 0);
	qsort(envp, strv_len(envp), sizeof(*envp), compare);
	put_job(&out, argv, envp, cwd, umask(0));
	_exit(write_full(STDOUT_FILENO, out.data, out.len) < 0);
}

static char dir[] = "/tmp/test-script-XXXXXX";
static char *self;

static void setup(void)
{
	self = realpath("/proc/self/exe", NULL);
	cr_assert(self && mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
}

static void remove_all(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		_cleanup_free_ char *full = path_join(path, e->d_name);

		if (!streq(e->d_name, ".") && !streq(e->d_name, "..") && unlink(full) < 0)
			remove_all(full);
	}
	if (d)
		closedir(d);
	(void)rmdir(path); /* a leftover shows in /tmp */
}

static void teardown(void)
{
	remove_all(dir);
	free(self);
}

TestSuite(script, .init = setup, .fini = teardown);

/* Runs `shell FILE` in an environment and directory of its own; returns its stdout, and stderr in
 * the file "err". */
static void run(const char *shell, const char *path_var, struct buf *ret)
{
	_cleanup_free_ char *path_entry = xasprintf("PATH=%s", path_var);
	_cleanup_free_ char *file = path_join(dir, "job.sh");
	_cleanup_free_ char *err = path_join(dir, "err");
	char *argv[] = {(char *)shell, file, NULL};
	char *busybox[] = {(char *)shell, (char *)"sh", file, NULL};
	char *env[] = {path_entry, (char *)"DIRT=1", (char *)"PWD=/nowhere", NULL};
	int fds[2];
	int status;
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		dup2(open(err, O_CREAT | O_TRUNC | O_WRONLY, 0600), STDERR_FILENO);
		if (chdir("/") == 0)
			execve(shell, str_ends(shell, "busybox") ? busybox : argv, env);
		_exit(99);
	}
	close(fds[1]);
	do {
		n = read(fds[0], buf_grow(ret, 65536), 65536);
		cr_assert_geq(n, 0);
		ret->len = ret->len - 65536 + (size_t)n;
	} while (n > 0);
	close(fds[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0, "%s: wait status %#x", shell, status);
}

static bool stderr_has(const char *text)
{
	_cleanup_buf_ struct buf err = BUF_INIT;

	cr_assert_eq(read_file_at(AT_FDCWD, "err", 1 << 20, &err), 0);
	return text ? strstr(buf_cstr(&err), text) != NULL : err.len == 0;
}

struct job {
	char **argv;
	const char *exe;
	const char *cwd;
	char **env;
	unsigned mask;
	const char *outer_path; /* PATH of the shell that runs the script */
	const char *note;	/* expected on stderr; NULL: silence */
	const char *argv0;	/* expected; NULL: argv[0] */
};

static void check_in(const char *shell, const struct job *j)
{
	_cleanup_buf_ struct buf script = BUF_INIT;
	_cleanup_buf_ struct buf expected = BUF_INIT;
	_cleanup_buf_ struct buf got = BUF_INIT;
	_cleanup_strv_ char **env = job_env_filter(j->env, NULL, false);
	_cleanup_strv_ char **argv = strv_copy(j->argv);
	int fd;

	if (access(shell, X_OK) < 0)
		return;
	job_script(&script, j->argv, j->exe, j->cwd, j->env, j->mask);
	fd = open("job.sh", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write_full(fd, script.data, script.len), 0);
	close(fd);
	if (j->argv0) {
		free(argv[0]);
		argv[0] = xstrdup(j->argv0);
	}
	qsort(env, strv_len(env), sizeof(*env), compare);
	put_job(&expected, argv, env, j->cwd, j->mask);
	run(shell, j->outer_path ? j->outer_path : "/usr/bin:/bin", &got);
	cr_expect_eq(got.len, expected.len, "%s: %zu bytes, not %zu", shell, got.len, expected.len);
	cr_expect(got.len == expected.len && memcmp(got.data, expected.data, got.len) == 0,
		  "%s: another job", shell);
	cr_expect(stderr_has(j->note), "%s: unexpected messages, or none", shell);
}

/* /bin/sh is dash on Debian; the others are what it may be elsewhere. */
static void check(const struct job *j)
{
	static const char *const shells[] = {"/bin/sh", "/bin/dash", "/bin/bash", "/bin/busybox",
					     "/usr/bin/mksh"};

	for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
		check_in(shells[i], j);
}

static char **strings(const char *const *s)
{
	return strv_copy((char *const *)s);
}

/* Every byte there is, in every order that matters to a quoting bug. */
static char *every_byte(const char *prefix)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	buf_append(&b, prefix, strlen(prefix));
	for (int c = 1; c < 256; c++)
		buf_put_u8(&b, (uint8_t)c);
	for (int c = 255; c > 0; c--)
		buf_put_u8(&b, (uint8_t)c);
	return xstrdup(buf_cstr(&b));
}

static const char *const odd_args[] = {
	"",	    "-c",	 "a b",	  "'",	  "''",	  "\\", "\\'", "\n",
	"a\n",	    "\n\n'x'\n", "$HOME", "`id`", "*",	  "\"", "-o",  "caf\303\251/\346\227\245.c",
	"\377\376", "=",	 "x=y",	  "--",	  "!",	  "#",	"~",   ";",
	"&",	    "\t",	 "\r\n",  "EOF",  "%s%d", NULL,
};
static const char *const odd_env[] = {
	"A=",	     "A.B=1", "-x=1",	       "--=2",	 "caf\303\251=3",	"x y=4", "Q='\"\\",
	"NL=a\nb\n", "D=$A",  "PATH=/usr/bin", "PWD=/x", "SSH_AUTH_SOCK=/gone", NULL,
};

static char **odd_argv(const char *argv0)
{
	char **argv = NULL;

	strv_push(&argv, xstrdup(argv0));
	strv_push(&argv, xstrdup(DUMP));
	for (const char *const *a = odd_args; *a; a++)
		strv_push(&argv, xstrdup(*a));
	strv_push(&argv, every_byte(""));
	return argv;
}

static char **odd_environment(void)
{
	char **env = strings(odd_env);

	strv_push(&env, every_byte("BYTES="));
	return env;
}

Test(script, byte_for_byte)
{
	_cleanup_free_ char *cwd = path_join(dir, "we'ird\n d\303\251r $x");
	_cleanup_strv_ char **argv = odd_argv(self);
	_cleanup_strv_ char **env = odd_environment();
	struct job j = {.argv = argv, .exe = self, .cwd = cwd, .env = env, .mask = 027};

	cr_assert_eq(mkdir(cwd, 0700), 0);
	check(&j);
	j.exe = NULL;
	j.mask = 0;
	check(&j);
}

Test(script, nothing_but_a_name)
{
	const char *words[] = {self, DUMP, NULL};
	_cleanup_strv_ char **argv = strings(words);
	char *env[] = {NULL};
	struct job j = {.argv = argv, .exe = self, .cwd = dir, .env = env, .mask = 0777};

	check(&j);
}

/* The job's own PATH leads to the file: then its name is simply called. */
Test(script, name_in_path)
{
	_cleanup_free_ char *bin = path_join(dir, "b i'n");
	_cleanup_free_ char *exe = path_join(bin, "my-cc");
	_cleanup_free_ char *path_entry = xasprintf("PATH=/nowhere:%s:/usr/bin", bin);
	_cleanup_strv_ char **argv = odd_argv("my-cc");
	_cleanup_strv_ char **env = odd_environment();
	_cleanup_free_ char *tools = path_join(dir, "tools");
	_cleanup_free_ char *env_link = path_join(tools, "env");
	struct job j = {.argv = argv, .exe = exe, .cwd = dir, .env = env, .mask = 022};

	for (char **e = env; *e; e++) {
		if (str_starts(*e, "PATH=")) {
			free(*e);
			*e = steal_ptr(&path_entry);
		}
	}
	cr_assert_eq(mkdir(bin, 0700), 0);
	cr_assert_eq(symlink(self, exe), 0);
	check(&j);
	/* it needs env alone for that */
	cr_assert_eq(mkdir(tools, 0700), 0);
	cr_assert_eq(symlink("/usr/bin/env", env_link), 0);
	j.outer_path = tools;
	check(&j);
}

/* A name that leads nowhere, as after a masquerade directory. */
Test(script, name_of_its_own)
{
	static const char *const names[] = {"gcc", "other/name", "/no/such/gcc", "it's", "a=b",
					    "",	   "-x"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		_cleanup_strv_ char **argv = odd_argv(names[i]);
		_cleanup_strv_ char **env = odd_environment();
		struct job j = {.argv = argv, .exe = self, .cwd = dir, .env = env, .mask = 022};

		check(&j);
	}
}

/* env(1) takes a program with '=' in its path for a variable. */
Test(script, equals_sign_in_the_path)
{
	_cleanup_free_ char *exe = path_join(dir, "a=b");
	_cleanup_strv_ char **argv = odd_argv(exe);
	_cleanup_strv_ char **env = odd_environment();
	struct job j = {.argv = argv, .exe = exe, .cwd = dir, .env = env, .mask = 022};

	cr_assert_eq(symlink(self, exe), 0);
	check(&j);
	free(argv[0]);
	argv[0] = xstrdup("cc");
	check(&j);
}

/* Neither --argv0 nor perl: it runs under its file's name, and says so. */
Test(script, no_way_to_name_it)
{
	_cleanup_free_ char *tools = path_join(dir, "tools");
	_cleanup_free_ char *fake = path_join(tools, "env");
	_cleanup_strv_ char **argv = odd_argv("gcc");
	_cleanup_strv_ char **env = odd_environment();
	struct job j = {.argv = argv, .exe = self, .cwd = dir, .env = env, .mask = 022};
	static const char old_env[] = "#!/bin/sh\n"
				      "case $1 in --argv0=*) exit 125 ;; esac\n"
				      "exec /usr/bin/env \"$@\"\n";
	int fd;

	cr_assert_eq(mkdir(tools, 0700), 0);
	fd = open(fake, O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
	cr_assert_eq(write_full(fd, old_env, strlen(old_env)), 0);
	close(fd);
	j.outer_path = tools;
	j.note = "note: no perl here, so argv[0] is the file's name\n";
	j.argv0 = self;
	check(&j);
}

/* A directory that is gone ends the script before anything runs. */
Test(script, missing_directory)
{
	_cleanup_buf_ struct buf script = BUF_INIT;
	char *argv[] = {(char *)"/bin/echo", (char *)"ran", NULL};
	char *env[] = {NULL};
	FILE *f = fopen("job.sh", "w");
	int status;

	job_script(&script, argv, "/bin/echo", "/no/such/dir", env, 022);
	fwrite(script.data, 1, script.len, f);
	fclose(f);
	status = system("sh job.sh > out 2> err");
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 126);
	cr_assert_eq(access("out", F_OK), 0);
	buf_reset(&script);
	cr_assert_eq(read_file_at(AT_FDCWD, "out", 1024, &script), 0);
	cr_expect_eq(script.len, 0);
}
