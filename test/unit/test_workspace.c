/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

/* ---- job_workspace ---- */

static const char *const *there;

static bool is_there(const char *path)
{
	cr_assert_eq(path[0], '/', "%s", path);
	for (const char *const *p = there; *p; p++) {
		if (streq(*p, path))
			return true;
	}
	return false;
}

static void expect_workspace(const char *cwd, const char *const *env, const char *expected)
{
	char *got = job_workspace(cwd, (char *const *)env, is_there);

	cr_expect_str_eq(got ? got : "none", expected, "%s: %s", cwd, got ? got : "none");
	free(got);
}

static const char *const env[] = {"HOME=/home/u", NULL};

Test(workspace, of_a_repository)
{
	static const char *const files[] = {"/home/u/p/.git", "/home/u/p/.git/HEAD", "/src/h/.hg",
					    NULL};

	there = files;
	expect_workspace("/home/u/p", env, "/home/u/p");
	expect_workspace("/home/u/p/a/b", env, "/home/u/p");
	expect_workspace("/src/h/x", env, "/src/h");
	expect_workspace("/home/u/q", env, "none");
	expect_workspace("/src", env, "none");
	expect_workspace("/", env, "none");
}

Test(workspace, of_other_version_control)
{
	static const char *const files[] = {"/s/j/.jj", "/s/v/.svn", "/s/v/sub/.svn", NULL};

	there = files;
	expect_workspace("/s/j/a", env, "/s/j");
	expect_workspace("/s/v/x", env, "/s/v");
}

Test(workspace, without_version_control)
{
	static const char *const files[] = {"/home/u/t/CMakeLists.txt",
					    "/home/u/t/src/CMakeLists.txt",
					    "/home/u/t/build/CMakeCache.txt",
					    "/home/u/out/CMakeCache.txt",
					    "/home/u/r/.git",
					    "/home/u/r/.git/HEAD",
					    "/home/u/r/x/Makefile",
					    "/home/u/Makefile",
					    "/home/u/target/CACHEDIR.TAG",
					    NULL};

	there = files;
	expect_workspace("/home/u/t/build/src", env, "/home/u/t");
	expect_workspace("/home/u/t/src/deep/er", env, "/home/u/t");
	expect_workspace("/home/u/out", env, "/home/u/out");
	expect_workspace("/home/u/r/x", env, "/home/u/r");
	expect_workspace("/home/u/target/debug/deps", env, "/home/u/target");
	expect_workspace("/home/u/q", env, "none");
}

Test(workspace, of_a_submodule_is_the_outer_repository)
{
	static const char *const files[] = {"/s/.git", "/s/.git/HEAD", "/s/sub/.git",
					    "/w/tree/.git", NULL};

	there = files;
	expect_workspace("/s/sub/x", env, "/s");
	/* a work tree on its own */
	expect_workspace("/w/tree/x", env, "/w/tree");
}

Test(workspace, never_home_by_itself)
{
	static const char *const files[] = {"/home/u/.git/HEAD", "/home/.git/HEAD", "/.git/HEAD",
					    "/home/v/.git/HEAD", NULL};
	static const char *const listed[] = {"HOME=/home/u/", "CONCC_WORKSPACE=~", NULL};
	static const char *const no_home[] = {"HOME=/", NULL};

	there = files;
	expect_workspace("/home/u/p", env, "none");
	expect_workspace("/home/u", env, "none");
	expect_workspace("/home/v/x", env, "/home/v");
	expect_workspace("/srv", env, "none");
	expect_workspace("/home/u/p", listed, "/home/u");
	expect_workspace("/home/u/p", no_home, "/home/u");
}

Test(workspace, listed)
{
	static const char *const files[] = {"/a/p/.git/HEAD", NULL};
	static const char *const list[] = {"HOME=/home/u",
					   "CONCC_WORKSPACE=:/b:/a//x/../p/:rel:/:~/s", NULL};
	static const char *const empty[] = {"CONCC_WORKSPACE=", NULL};

	there = files;
	expect_workspace("/a/p/q", list, "/a/p");
	expect_workspace("/home/u/s", list, "/home/u/s");
	expect_workspace("/bb", list, "none");
	expect_workspace("/rel", list, "none");
	expect_workspace("/a/p/q", empty, "/a/p");
}

/* ---- job_resolve ---- */

static char dir[] = "/tmp/test-resolve-XXXXXX";

static void touch(const char *name, mode_t mode)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(fchmod(fd, mode), 0);
	close(fd);
}

static void setup(void)
{
	cr_assert(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	cr_assert_eq(mkdir("masq", 0755), 0);
	cr_assert_eq(mkdir("bin", 0755), 0);
	cr_assert_eq(mkdir("bin2", 0755), 0);
	cr_assert_eq(mkdir("bin/tool", 0755), 0);
	touch("masq/cc", 0755);
	touch("bin/cc", 0755);
	touch("bin/plain", 0644);
	touch("bin2/cc", 0755);
	touch("bin2/tool", 0755);
	touch("bin2/plain", 0755);
	touch("here", 0755);
}

static void teardown(void)
{
	static const char *const names[] = {"masq/cc",	 "bin/cc",     "bin/plain", "bin2/cc",
					    "bin2/tool", "bin2/plain", "here",	    "bin/tool",
					    "masq",	 "bin",	       "bin2"};

	cr_assert_eq(chdir(dir), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		cr_expect_eq(remove(names[i]), 0, "%s", names[i]);
	cr_expect_eq(rmdir(dir), 0);
}

static bool in_masq(const char *path, void *data)
{
	++*(int *)data;
	return strstr(path, "/masq/") != NULL;
}

/* path_var and exe are relative to dir; path: what is executed. */
static void expect_exe(const char *argv0, const char *path_var, const char *path, const char *exe)
{
	char *full = path_join(dir, exe);
	int calls = 0;
	char *got = job_resolve(argv0, path_var, dir, in_masq, &calls);
	char *absolute = got ? job_exe(got, dir) : NULL;

	cr_expect_str_eq(got ? got : strerror(errno), path, "%s in %s: %s", argv0, path_var,
			 got ? got : strerror(errno));
	cr_expect_str_eq(absolute ? absolute : "none", full, "%s in %s: %s", argv0, path_var,
			 absolute ? absolute : "none");
	free(absolute);
	free(got);
	free(full);
}

/* What execvp(3) itself executes: a script that says so is to say the same as we. */
static void expect_as_execvp(const char *argv0, const char *path_var)
{
	_cleanup_free_ char *got = job_resolve(argv0, path_var, dir, NULL, NULL);
	char said[256] = "";
	int out[2];
	pid_t pid;

	cr_assert_eq(pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		setenv("PATH", path_var, 1);
		dup2(out[1], 1);
		execlp(argv0, argv0, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	cr_assert_geq(read(out[0], said, sizeof(said) - 1), 0);
	close(out[0]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_expect_str_eq(got ? got : "", said, "%s in %s: %s", argv0, path_var, said);
}

static void expect_none(const char *argv0, const char *path_var, int err)
{
	int calls = 0;
	char *got = job_resolve(argv0, path_var, dir, in_masq, &calls);
	int e = errno;

	cr_expect_null(got, "%s: %s", argv0, got);
	cr_expect_eq(e, err, "%s: %s", argv0, strerror(e));
	free(got);
}

Test(resolve, all, .init = setup, .fini = teardown)
{
	char *absolute = xasprintf("%s/masq:%s/bin:%s/bin2", dir, dir, dir);
	char *masq_cc = xasprintf("%s/masq/cc", dir), *bin_cc = xasprintf("%s/bin/cc", dir);
	char *got;

	expect_exe("cc", absolute, bin_cc, "bin/cc");
	expect_exe("cc", "nowhere:bin2:bin", "bin2/cc", "bin2/cc");
	/* a directory or a file without x is passed over */
	expect_exe("tool", "bin:bin2", "bin2/tool", "bin2/tool");
	expect_exe("plain", "bin:bin2", "bin2/plain", "bin2/plain");
	/* an empty entry is the cwd */
	expect_exe("here", ":bin", "here", "here");
	expect_exe("here", "bin:", "here", "here");
	expect_exe("here", "bin:.", "./here", "here");
	expect_exe("here", "bin::bin2", "here", "here");
	expect_exe("./here", "bin", "./here", "here");
	expect_exe(".//here", "bin", ".//here", "here");
	expect_exe("bin2/cc", "bin", "bin2/cc", "bin2/cc");
	/* no ".." and no "//", which no message carries; "link/.." is not "." */
	expect_exe("bin/../bin2/cc", "bin", "bin/../bin2/cc", "bin2/cc");
	expect_exe("bin//cc", "bin", "bin//cc", "bin/cc");
	expect_exe("cc", "bin/../bin2", "bin/../bin2/cc", "bin2/cc");
	expect_exe("cc", "bin2/", "bin2//cc", "bin2/cc");
	cr_assert_eq(symlink("/usr/bin", "link"), 0);
	got = job_exe("link/../bin/env", dir);
	cr_expect_str_eq(got, "/usr/bin/env");
	free(got);
	cr_assert_eq(unlink("link"), 0);
	/* a wrapper given by its path: the next of that name */
	expect_exe("masq/cc", absolute, bin_cc, "bin/cc");
	expect_exe(masq_cc, "masq:bin2", "bin2/cc", "bin2/cc");
	expect_none("cc", "masq", ENOENT);
	expect_none("nothing", absolute, ENOENT);
	expect_none("", absolute, ENOENT);
	expect_none("plain", "bin", EACCES);
	expect_none("bin/plain", "bin2", EACCES);
	expect_none("bin/tool", "bin2", EACCES);
	expect_none("./nothing", "bin2", ENOENT);

	/* without skip, and without PATH */
	got = job_resolve("cc", absolute, dir, NULL, NULL);
	cr_expect_str_eq(got, masq_cc);
	free(got);
	got = job_resolve("sh", NULL, dir, NULL, NULL);
	cr_expect_str_eq(got, "/bin/sh");
	free(got);
	free(absolute);
	free(masq_cc);
	free(bin_cc);
}

Test(resolve, as_execvp, .init = setup, .fini = teardown)
{
	static const char script[] = "#!/bin/sh\nprintf %s \"$0\"\n";
	static const char *const paths[] = {
		"bin",	"./bin", "bin/",	 "bin//:", "bin/../bin",
		":bin", "bin:",	 "nowhere::bin", ".:bin",  "bin2/../bin:."};
	static const char *const names[] = {"cc", "here"};
	int fd;

	for (size_t i = 0; i < 2; i++) {
		fd = open(i ? "here" : "bin/cc", O_WRONLY | O_CLOEXEC);
		cr_assert_eq(write(fd, script, sizeof(script) - 1), (ssize_t)sizeof(script) - 1);
		close(fd);
	}
	for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++)
		for (size_t n = 0; n < 2; n++)
			expect_as_execvp(names[n], paths[p]);
	expect_as_execvp("./here", "bin");
	expect_as_execvp("bin/../here", "bin");
	expect_as_execvp("bin//cc", "");
}

/* A script without "#!" is for sh, as execvp(3) has it. */
Test(resolve, exec_by_sh, .init = setup, .fini = teardown)
{
	char *argv[] = {(char *)"here", (char *)"a b", (char *)"c", NULL}, *env[] = {NULL};
	char said[64] = "";
	int out[2], fd = open("here", O_WRONLY | O_CLOEXEC);
	pid_t pid;

	cr_assert_eq(write(fd, "echo \"$0|$1|$#\"\n", 16), 16);
	close(fd);
	cr_assert_eq(pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		dup2(out[1], 1);
		_exit(-job_exec("./here", argv, env));
	}
	close(out[1]);
	cr_assert_gt(read(out[0], said, sizeof(said) - 1), 0);
	close(out[0]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_expect_str_eq(said, "./here|a b|2\n");
	cr_expect_eq(job_exec("nothing", argv, env), -ENOENT);
	cr_expect_eq(job_exec("bin/plain", argv, env), -EACCES);
}

/* ---- what arguments name ---- */

Test(workspace, work_directories)
{
	static const struct {
		const char *path, *dir;
	} cases[] = {
		{"/tmp/go-build123", "/tmp/go-build123"},
		{"/tmp/go-build123/b001/_pkg_.a", "/tmp/go-build123"},
		{"/home/u/t/go-build7/b001", "/home/u/t/go-build7"},
		{"/tmp/go-build", "none"},
		{"/tmp/go-build1x/b001", "none"},
		{"/tmp/my-go-build1", "none"},
		{"/tmp/x/y", "none"},
		{"/", "none"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *dir = job_work_dir(cases[i].path);

		cr_assert_str_eq(dir ? dir : "none", cases[i].dir, "%s", cases[i].path);
		free(dir);
	}
}

Test(workspace, files_that_arguments_name)
{
	static const struct {
		const char *arg, *file;
	} cases[] = {
		{"/x/y.c", "/x/y.c"},
		{"-I/x", "/x"},
		{"../a.c", "/w/a.c"},
		{"-I../inc", "/w/inc"},
		{"-I..", "/w"},
		{"..", "/w"},
		{"--sysroot=/s", "/s"},
		{"--out-dir=../o", "/w/o"},
		{"foo=/l/f.rlib", "/l/f.rlib"},
		{"@../args", "/w/args"},
		{"../../x", "/x"},
		{"/x/../y", "/y"},
		{"a.c", NULL},
		{"dir/a.c", NULL},
		{"-Idir/sub", NULL},
		{"-c", NULL},
		{"a..b", NULL},
		{"-DX=1", NULL},
		{"...", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *got = job_arg_file(cases[i].arg, "/w/b");

		cr_expect(got && cases[i].file ? streq(got, cases[i].file) : !got && !cases[i].file,
			  "%s: %s", cases[i].arg, got ? got : "none");
		free(got);
	}
	cr_expect(job_arg_is_text("-DDATA=/srv/x", NULL));
	cr_expect(job_arg_is_text("/srv/x", "-D"));
	cr_expect_not(job_arg_is_text("/srv/x", "-I"));
}
