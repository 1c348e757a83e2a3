/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"
#include "job/argfile.h"

#define CWD "/home/u/proj/build"
#define TOP "/home/u/proj"

static const char *const no_env[] = {NULL};

/* Splits at blanks; no test needs quoting. */
static char **words(const char *line)
{
	char **argv = NULL;

	while (*(line += strspn(line, " "))) {
		size_t n = strcspn(line, " ");

		strv_push(&argv, xstrndup(line, n));
		line += n;
	}
	return argv;
}

static struct policy_verdict decide(const char *line, const char *cwd, const char *workspace,
				    const char *const *env)
{
	_cleanup_strv_ char **argv = words(line);
	struct policy_input in = {
		.argv = argv, .cwd = cwd, .env = (char *const *)env, .workspace = workspace};
	struct policy_verdict v;

	policy_decide(&in, &v);
	return v;
}

static const struct {
	const char *rule;
	const char *line;
} table[] = {
	/* compilations travel, by whatever name the compiler goes */
	{"remote", "gcc -c a.c -o a.o"},
	{"remote", "cc -O2 -Wall -MD -MF .deps/a.d -MT a.o -c -o a.o ../a.c"},
	{"remote", "x86_64-linux-gnu-gcc-12 -c a.c"},
	{"remote", "/usr/bin/clang++-14 -std=c++20 -c a.cc"},
	{"remote", "g++ a.cc b.cc -o prog"},
	{"remote", "g++ a.cc b.o -lz -o prog"},
	{"remote", "gcc -x c - -c -o a.o"},
	{"remote", "gcc -E a.c"},
	/* an assembler seeks in what it writes, which is a pipe there */
	{"descriptor", "gcc -c -o /dev/stdout a.c"},
	{"descriptor", "gcc -c a.c -o/dev/stderr"},
	{"descriptor", "clang a.c -c -o /proc/self/fd/1"},
	{"descriptor", "as -o /dev/fd/1 a.s"},
	{"remote", "gcc -S -o /dev/stdout a.c"},
	{"remote", "gcc a.c -E -o /dev/fd/1"},
	{"remote", "gcc -M -o /dev/stdout a.c"},
	{"remote", "gcc -MD -MF /dev/stdout -c a.c -o a.o"},
	{"remote", "gcc -E -P -x c -"},
	{"remote", "gcc -v -c a.c"},
	{"remote", "gcc -M a.c"},
	{"remote", "gcc -S a.c -o -"},
	{"remote", "gcc -fsyntax-only a.c"},
	{"remote", "gcc -c crt.S"},
	{"remote", "gcc -x c++-header all.h -o all.h.gch"},
	{"remote", "gcc all.h"},
	{"remote", "gcc -c @args.rsp"},
	{"remote", "gcc @args.rsp"},
	{"remote", "gcc -o prog @args.rsp"},
	{"remote", "gcc -c -g -gsplit-dwarf -save-temps a.c"},
	{"remote", "gcc -c -x c generated.txt"},
	{"remote", "gcc -xc++ generated.txt -o prog"},
	{"remote", "gcc -c a.c -o --version"},
	{"remote", "gcc -include config.h -c a.c"},
	{"remote", "clang -cc1 -emit-obj a.c"},
	{"remote", "clang --precompile -x c++-module m.cppm -o m.pcm"},
	{"remote", "gfortran -c -J mods a.f90"},
	{"remote", "nvcc -c -arch=sm_80 k.cu -o k.o"},
	{"remote", "nvcc -dc k.cu"},
	{"remote", "nasm -f elf64 -o a.o a.asm"},
	{"remote", "ldc2 -c a.d -of=a.o"},
	{"link", "ldc2 a.o b.o -of=app"},
	{"query", "nasm -v"},
	{"remote", "as -o a.o a.s"},
	{"remote", "ccache gcc -c a.c"},
	{"remote", "rustc --crate-name x --edition=2021 src/lib.rs --emit=dep-info,metadata,link "
		   "-C opt-level=3 --out-dir /home/u/proj/target/debug/deps"},
	{"remote", "rustc --crate-type staticlib --print native-static-libs x.rs"},
	{"remote", "rustc --crate-type staticlib --print=native-static-libs x.rs"},
	{"remote", "clippy-driver /usr/bin/rustc --crate-name x src/lib.rs"},
	{"remote", "/usr/lib/go/pkg/tool/linux_amd64/compile -o $WORK/b001/_pkg_.a -p x x.go"},
	{"remote", "protoc --cpp_out=gen a.proto"},
	{"remote", "python3 gen.py"},
	{"remote", "zig cc -target x86_64-linux-gnu -c a.c"},

	/* query */
	{"probe", "cc -E /tmp/sccacheWgcMwV/testfile.c"},
	{"tmp-output", "cc -E /tmp/sccacheWgcMwV/other.c"},
	{"tmp-output", "cc -E /tmp/sccache/testfile.c"},
	{"query", "gcc --version"},
	{"query", "cc -dumpmachine"},
	{"query", "clang-14 -dumpversion"},
	{"query", "gcc -v"},
	{"query", "gcc -m32 -v"},
	{"query", "clang -### -c a.c"},
	{"query", "gcc -print-prog-name=ld"},
	{"query", "gcc -m32 --print-multiarch"},
	{"query", "gcc --help=warnings"},
	{"query", "gcc --target-help"},
	{"query", "gcc -dM -E -x c -"},
	{"query", "g++ -E -v -x c++ -"},
	{"query", "as --version"},
	{"query", "ccache gcc --version"},
	{"query", "rustc -vV"},
	{"query", "rustc --version"},
	{"query", "rustc - --crate-name ___ --print=file-names --crate-type bin"},
	{"query", "rustc --print cfg"},
	{"query", "/x/clippy-driver /usr/bin/rustc -vV"},
	{"query", "/usr/lib/go/pkg/tool/linux_amd64/compile -V=full"},
	{"query", "some-tool --version"},
	{"query", "zig version"},
	{"remote", "some-tool --version x"},
	{"remote", "gcc -Xlinker --version -c a.c"},

	/* probe */
	{"probe", "gcc -c -g -O2 conftest.c"},
	{"probe", "gcc -o conftest -g conftest.c -lm"},
	{"probe", "g++ -c conftest.cpp"},
	{"probe", "gcc -c -O3 ztest4711.c"},
	{"probe", "gcc -O3 -o ztest4711 ztest4711.c"},
	{"probe", "gcc -c -o /tmp/cgVs1Zbr/dummy.o /tmp/cgVs1Zbr/dummy.c"},
	{"probe", "gcc -E /var/tmp/cg12345-678/dummy.c"},
	{"probe", "gcc -o /tmp/cgVs1Zbr/dummy /tmp/cgVs1Zbr/dummy.c"},
	{"remote", "gcc -c src/cg/dummy.c"},
	{"remote", "gcc -c dummy.c"},
	{"remote", "gcc -c /dummy.c"},
	{"tmp-output", "gcc -c /tmp/cgVs1Zbr/dumm.c"},
	{"remote", "gcc -c ztest.c"},
	{"remote", "gcc -c ztest1x.c"},
	{"probe", "gcc -o CMakeFiles/cmTC_01234.dir/t.c.o -c /usr/share/cmake/t.c"},
	{"probe", "gcc -c " CWD "/CMakeFiles/CMakeScratch/TryCompile-x/src.c"},
	{"probe", "gcc " CWD "/meson-private/tmpx/testfile.c -o x.obj -c"},
	{"probe", "gcc -Werror -c -x c /dev/null -o .tmp_12/tmp"},
	{"probe", "gcc -Wa,--x -c -x assembler-with-cpp -o .tmp_4711/tmp -"},
	{"probe", "gcc -c -x c -o /dev/null -"},
	{"probe", "gcc -S -x c /dev/null -o -"},
	{"probe", "rustc --crate-name ___ --crate-type lib x.rs"},
	{"probe", "rustc --crate-name autocfg_1_0 --crate-type=lib --emit=llvm-ir -"},
	{"probe", "rustc --crate-type=lib --emit=metadata --out-dir o build/probe.rs"},
	{"remote", "gcc -c myconftest.c"},
	{"remote", "gcc -c .tmp_main.c"},
	{"remote", "gcc -c -DX=conftest.c a.c"},
	{"remote", "gcc -include big.h -x c -c /dev/null -o x.o"},
	{"remote", "gcc -c CMakeFiles/prog.dir/gen.c"},

	/* tmp-output */
	{"tmp-output", "gcc -c a.c -o /tmp/a.o"},
	{"tmp-output", "gcc -c /tmp/cgo-gcc-input-1.c"},
	{"tmp-output", "gcc -c a.c -o/tmp/a.o"},
	{"tmp-output", "gcc -c a.c -o ../../../../tmp/a.o"},
	{"tmp-output", "gcc -c a.c -o //tmp/./a.o"},
	{"tmp-output", "gcc -I/tmp/inc -c a.c"},
	{"tmp-output", "gcc -I /tmp/inc -c a.c"},
	{"tmp-output", "gcc -isystem /var/tmp/inc -c a.c"},
	{"tmp-output", "gcc --sysroot=/dev/shm/root -c a.c"},
	{"tmp-output", "gcc -MD -MF /run/user/1/a.d -c a.c"},
	{"tmp-output", "gcc -c @/tmp/args"},
	{"tmp-output", "gcc -c /proc/self/fd/12 -x c"},
	{"tmp-output", "gcc -x c -c /dev/fd/63"},
	{"tmp-output", "gcc -fplugin=/tmp/p.so -c a.c"},
	{"tmp-output", "gcc -Wp,-MD,/tmp/a.d -c a.c"},
	{"tmp-output", "rustc x.rs --extern a=/tmp/liba.rlib"},
	{"tmp-output", "rustc x.rs -L dependency=/tmp/deps"},
	{"tmp-output", "protoc --cpp_out=/tmp/gen a.proto"},
	{"remote", "gcc -c a.c -o /dev/null"},
	{"remote", "gcc -c -x c /dev/stdin -o a.o"},
	{"remote", "gcc -c -x c /proc/self/fd/0 -o a.o"},
	{"remote", "gcc -E a.c -o /dev/fd/1"},
	{"remote", "gcc -c /tmpfoo/a.c"},
	{"remote", "gcc -DP=/tmp/x -D Q=/tmp/y -c a.c"},
	{"remote", "gcc -MT /tmp/x -MD -c a.c"},
	{"remote", "gcc -ffile-prefix-map=/tmp/x=/src -c a.c"},
	{"remote", "gcc -Iinclude/sys -Isrc/run -Ilib/tmp/x -c a.c"},
	{"remote", "gcc -c " TOP "/tmp/a.c"},
	{"remote", "gcc -c ../tmp/a.c"},

	/* native */
	{"native", "gcc -O2 -march=native -c a.c"},
	{"native", "gcc -mtune=native -c a.c"},
	{"native", "clang -mcpu=native+crypto -c a.c"},
	{"native", "clang -Xclang -target-cpu -Xclang native -c a.c"},
	{"native", "clang -cc1 -target-cpu native a.c"},
	{"native", "nvcc -arch=native -c k.cu"},
	{"native", "nvcc -arch native -c k.cu"},
	{"native", "nvcc -Xcompiler=-O2,-march=native -c k.cu"},
	{"native", "nvcc -Xcompiler -march=native -c k.cu"},
	{"native", "icx -xHost -c a.c"},
	{"native", "rustc -C target-cpu=native x.rs"},
	{"native", "rustc -Ctarget-cpu=native x.rs"},
	{"native", "rustc --codegen=target-cpu=native x.rs"},
	{"native", "rustc --codegen target-cpu=native x.rs"},
	{"native", "ldc2 -mcpu=native -c a.d"},
	{"native", "zig cc -c a.c"},
	{"remote", "gcc -march=x86-64-v3 -c native.c"},
	{"remote", "gcc -DFLAGS=-march=native -c a.c"},
	{"remote", "gcc -march=nativex -c a.c"},
	{"remote", "rustc -C target-feature=+avx2 native"},

	/* incremental */
	{"incremental", "rustc x.rs -C incremental=/home/u/proj/target/inc"},
	{"incremental", "rustc x.rs -Cincremental=inc"},
	{"incremental", "rustc x.rs --codegen=incremental=inc"},
	{"incremental", "rustc x.rs --codegen incremental=inc"},
	{"remote", "rustc x.rs --cfg incremental=1"},

	/* link */
	{"link", "gcc a.o b.o -o prog"},
	{"link", "gcc -MMD -MP -O2 a.o b.o -lm -o prog"},
	{"link", "g++ -shared -Wl,-soname,libx.so.1 -o libx.so.1.0 a.o"},
	{"link", "cc -o prog a.o libx.a /usr/lib/libz.so.1"},
	{"link", "cc -o prog main.o @objects.rsp"},
	{"link", "cc -shared -o libx.so @objects.rsp"},
	{"link", "gcc -r -o all.o a.o b.o"},
	{"link", "gcc -flto=auto a.o -o prog"},
	{"link", "gcc -x c -x none a.o -o prog"},
	{"link", "gcc -MF a.c a.o -o prog"},
	{"link", "ld -r -o all.o a.o b.o"},
	{"link", "aarch64-linux-gnu-ld.bfd a.o"},
	{"link", "ld.lld-14 a.o"},
	{"link", "mold a.o"},
	{"link", "/usr/lib/gcc/x86_64-linux-gnu/12/collect2 a.o"},
	{"link", "gcc-ar rcs libx.a a.o"},
	{"link", "/usr/lib/go/pkg/tool/linux_amd64/link -o prog x.a"},
	{"remote", "gcc -c a.o"},
};

Test(policy, table)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct policy_verdict v = decide(table[i].line, CWD, TOP, no_env);

		cr_expect_str_eq(v.rule, table[i].rule, "%s: %s (%s), not %s", table[i].line,
				 v.rule, v.why, table[i].rule);
		cr_expect_eq(v.local, !streq(v.rule, "remote"));
	}
}

/* Each rule that can say local is in the table once at least, and each has its text. */
Test(policy, every_rule_is_described)
{
	for (size_t i = 0; i < policy_n_rules; i++) {
		size_t n = strlen(policy_rules[i].text);

		cr_expect(n > 20 && policy_rules[i].text[n - 1] == '.', "%s", policy_rules[i].name);
		for (size_t k = 0; k < i; k++)
			cr_expect_str_neq(policy_rules[i].name, policy_rules[k].name);
	}
}

static const char *rule_with(const char *line, const char *entry)
{
	const char *env[] = {"PATH=/usr/bin", entry, NULL};

	return decide(line, CWD, TOP, env).rule;
}

Test(policy, environment)
{
	cr_expect_str_eq(rule_with("gcc -c a.c", "CONCC_DISABLE=1"), "disabled");
	cr_expect_str_eq(rule_with("gcc -c a.c", "CONCC_DISABLE=0"), "remote");
	cr_expect_str_eq(rule_with("gcc -c a.c", "CONCC_DISABLE="), "remote");
	cr_expect_str_eq(rule_with("gcc -c a.c", "CONCC_WORKER=build1"), "on-worker");
	cr_expect_str_eq(rule_with("gcc a.o", "CONCC_REMOTE_LINK=1"), "remote");
	cr_expect_str_eq(rule_with("gcc a.o", "CONCC_REMOTE_LINK=0"), "link");
	cr_expect_str_eq(rule_with("ld a.o", "CONCC_REMOTE_LINK=1"), "remote");
	cr_expect_str_eq(rule_with("gcc -c a.c -o /scratch/x/a.o", "TMPDIR=/scratch/x"),
			 "tmp-output");
	cr_expect_str_eq(rule_with("gcc -c a.c -o /scratch/x/a.o", "TMPDIR=/scratch/xy"), "remote");
	cr_expect_str_eq(rule_with("gcc -c a.c -o a.o", "TMPDIR=/"), "remote");
	cr_expect_str_eq(rule_with("gcc -c " TOP "/t/a.c", "TMPDIR=" TOP "/t"), "remote");
	cr_expect_str_eq(rule_with("nvcc -c k.cu", "NVCC_APPEND_FLAGS=-arch=native"), "native");
	cr_expect_str_eq(rule_with("gcc -c a.c", "LD_PRELOAD=/usr/lib/faketime/libfaketime.so.1"),
			 "preload");
	cr_expect_str_eq(rule_with("gcc -c a.c", "LD_PRELOAD=libfakeroot-sysv.so:libeatmydata.so"),
			 "remote");
}

/* What ccache in front of us asks its compiler before it looks for a result. */
Test(policy, preprocessing_for_ccache)
{
	static const char *const env[] = {"UNCACHED_ERR_FD=2", NULL};
	static const char call[] = "gcc -Iinc -E -o /home/me/.cache/ccache/tmp/x.i a.c";

	cr_assert_str_eq(decide(call, "/w", "/w", env).rule, "query");
	cr_assert_str_eq(decide(call, "/w", "/w", no_env).rule, "remote");
	cr_assert_str_eq(decide("gcc -Iinc -c a.c", "/w", "/w", env).rule, "remote");
}

/* What lists of directories would not cure. */
Test(policy, ways_of_programs)
{
	cr_assert_str_eq(job_way("cargo"), job_way("/home/me/.cargo/bin/cargo"));
	cr_assert_str_eq(job_way("npm"), job_way("yarnpkg"));
	cr_assert_not_null(job_way("./gradlew"));
	cr_assert_null(job_way("git"));
	cr_assert_null(job_way("cargo-clippy"));
	cr_assert_null(job_way("n"));
}

Test(policy, build_script_of_cargo)
{
	const char *env[] = {"NUM_JOBS=8", "OUT_DIR=" TOP "/target/build/x/out", NULL};

	cr_expect_str_eq(
		decide("rustc --out-dir " TOP "/target/build/x/out t.rs", CWD, TOP, env).rule,
		"probe");
	/* a cargo started by a build script compiles real crates */
	cr_expect_str_eq(
		decide("rustc --out-dir " TOP "/target/wbuild/deps t.rs", CWD, TOP, env).rule,
		"remote");
	cr_expect_str_eq(
		decide("rustc --out-dir " TOP "/target/build/x/out t.rs", CWD, TOP, env + 1).rule,
		"remote");
}

Test(policy, cwd_of_a_probe)
{
	cr_expect_str_eq(decide("cc -c t.c", CWD "/CMakeFiles/CMakeTmp", TOP, no_env).rule,
			 "probe");
	cr_expect_str_eq(decide("cc t.c", CWD "/CMakeFiles/3.25.1/CompilerIdC", TOP, no_env).rule,
			 "probe");
	cr_expect_str_eq(decide("cc t.c -o t.exe", CWD "/meson-private", TOP, no_env).rule,
			 "probe");
}

Test(policy, workspace_beneath_tmp)
{
	cr_expect_str_eq(decide("cc -c /tmp/w/a.c", "/tmp/w/b", "/tmp/w", no_env).rule, "remote");
	cr_expect_str_eq(decide("cc -c a.c -o ../a.o", "/tmp/w/b", "/tmp/w", no_env).rule,
			 "remote");
	cr_expect_str_eq(decide("cc -c /tmp/v/a.c", "/tmp/w/b", "/tmp/w", no_env).rule,
			 "tmp-output");
	cr_expect_str_eq(decide("cc -c ../../v/a.c", "/tmp/w/b", "/tmp/w", no_env).rule,
			 "tmp-output");
	/* workspace unknown: where cwd is, the rest of that directory is taken to be */
	cr_expect_str_eq(decide("cc -c /tmp/v/a.c", "/tmp/w/b", NULL, no_env).rule, "remote");
	cr_expect_str_eq(decide("cc -c /tmp/v/a.c", CWD, NULL, no_env).rule, "tmp-output");
}

Test(policy, all_listed_workspaces_beneath_tmp)
{
	const char *env[] = {"HOME=/tmp/h", "CONCC_WORKSPACE=/tmp/w:/tmp/v/:~/x", NULL};
	const char *served[] = {"/tmp/w", NULL};
	_cleanup_strv_ char **argv = words("cc -I/tmp/v/src -c a.c");
	struct policy_input in = {.argv = argv,
				  .cwd = "/tmp/w/b",
				  .env = (char *const *)env,
				  .served = (char *const *)served};
	struct policy_verdict v;

	cr_expect_str_eq(decide("cc -I/tmp/v/src -c a.c", "/tmp/w/b", "/tmp/w", env).rule,
			 "remote");
	cr_expect_str_eq(decide("cc -I../../v/src -c a.c", "/tmp/w/b", "/tmp/w", env).rule,
			 "remote");
	cr_expect_str_eq(decide("cc -c /tmp/h/x/a.c", "/tmp/w/b", "/tmp/w", env).rule, "remote");
	cr_expect_str_eq(decide("cc -c /tmp/vv/a.c", "/tmp/w/b", "/tmp/w", env).rule, "tmp-output");
	cr_expect_str_eq(decide("cc -c /tmp/h/a.c", "/tmp/w/b", "/tmp/w", env).rule, "tmp-output");
	/* who knows what is served asks no list */
	cr_expect(policy_names_tmp(&in, &v));
	cr_expect_str_eq(v.rule, "tmp-output");
	cr_expect_str_eq(v.why, "-I/tmp/v/src");
	served[0] = "/tmp/v";
	cr_expect_not(policy_names_tmp(&in, &v));
}

Test(policy, variables_that_name_tmp)
{
	static const char *const vars[] = {
		"CPATH",	"C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH",
		"LIBRARY_PATH", "COMPILER_PATH",  "GCC_EXEC_PREFIX"};
	char var[80];

	for (size_t i = 0; i < sizeof(vars) / sizeof(*vars); i++) {
		snprintf(var, sizeof(var), "%s=/usr/x:/var/tmp/inc", vars[i]);
		cr_expect_str_eq(rule_with("gcc -c a.c", var), "tmp-output", "%s", var);
		snprintf(var, sizeof(var), "%s=:/usr/x:../inc:" TOP "/tmp:", vars[i]);
		cr_expect_str_eq(rule_with("gcc -c a.c", var), "remote", "%s", var);
	}
	cr_expect_str_eq(rule_with("gcc -c a.c", "CPATH=../../../../tmp/inc"), "tmp-output");
	cr_expect_str_eq(rule_with("gcc -c a.c", "LD_RUN_PATH=/tmp/x"), "remote");
}

Test(policy, dispatch_obeys_general_rules_only)
{
	_cleanup_strv_ char **argv = words("gcc --version");
	const char *worker[] = {"CONCC_WORKER=x", NULL};
	struct policy_input in = {.argv = argv,
				  .cwd = CWD,
				  .env = (char *const *)no_env,
				  .any_command = true,
				  .workspace = TOP};
	struct policy_verdict v;

	policy_decide(&in, &v);
	cr_expect_str_eq(v.rule, "remote");
	cr_expect_not(v.local);
	in.env = (char *const *)worker;
	policy_decide(&in, &v);
	cr_expect_str_eq(v.rule, "on-worker");
}

static const char *dispatched(const char *line)
{
	_cleanup_strv_ char **argv = words(line);
	struct policy_input in = {.argv = argv,
				  .cwd = CWD,
				  .env = (char *const *)no_env,
				  .any_command = true,
				  .workspace = TOP};
	static struct policy_verdict v;

	policy_decide(&in, &v);
	return v.rule;
}

Test(policy, dispatch_keeps_what_names_a_descriptor)
{
	static const char *const kept[] = {"cat /dev/fd/63", "sort -T. --files0-from=/dev/fd/12",
					   "gcc @/dev/fd/5", "tool -a,/proc/self/fd/3",
					   "sh /dev/fd/63 x"};
	static const char *const sent[] = {"cat /dev/fd/0", "tool -o /dev/fd/1", "tool /dev/fd/x",
					   "tool x/dev/fd/63", "tool --out=/dev/stdout"};

	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		cr_expect_str_eq(dispatched(kept[i]), "descriptor", "%s", kept[i]);
	for (size_t i = 0; i < sizeof(sent) / sizeof(*sent); i++)
		cr_expect_str_eq(dispatched(sent[i]), "remote", "%s", sent[i]);
}

Test(policy, what_follows_a_file_stays)
{
	static const char *const kept[] = {"tail -f log", "/usr/bin/tail -n3 -F a b",
					   "tail --follow=name x", "tail -5f x"};
	static const char *const sent[] = {"tail -n 3 f", "tail f", "tail -- -f", "tails -f x",
					   "cat -f"};

	for (size_t i = 0; i < N_OF(kept); i++)
		cr_expect_str_eq(dispatched(kept[i]), "follow", "%s", kept[i]);
	for (size_t i = 0; i < N_OF(sent); i++)
		cr_expect_str_eq(dispatched(sent[i]), "remote", "%s", sent[i]);
}

static bool only_error_is_a_file(int fd)
{
	return fd == 2;
}

Test(policy, what_opens_a_file_anew_stays)
{
	static const char *const kept[] = {"tee /dev/stderr", "tool --out=/dev/fd/2",
					   "sh -c x>/dev/stderr;y", "gcc -S -o /proc/self/fd/2 a.c",
					   "tool /dev/stdout,/dev/stderr"};
	static const char *const sent[] = {"tee /dev/stdout", "cat /dev/stdin /dev/fd/0",
					   "tool /dev/stderrs", "tool x/dev/stdou",
					   "gcc -c a.c -o a.o"};

	for (int any = 0; any < 2; any++) {
		for (size_t i = 0; i < N_OF(kept) + N_OF(sent); i++) {
			bool keeps = i < N_OF(kept);
			_cleanup_strv_ char **argv = words(keeps ? kept[i] : sent[i - N_OF(kept)]);
			struct policy_input in = {.argv = argv,
						  .cwd = CWD,
						  .env = (char *const *)no_env,
						  .workspace = TOP,
						  .any_command = any,
						  .is_no_pipe = only_error_is_a_file};
			struct policy_verdict v;

			policy_decide(&in, &v);
			cr_expect_str_eq(v.rule, keeps ? "descriptor" : "remote", "%d %zu: %s", any,
					 i, v.why);
		}
	}
}

static bool is_log(const char *path)
{
	return streq(path, "log");
}

Test(policy, what_reads_its_output_stays)
{
	_cleanup_strv_ char **reads = words("cat a log"), **other = words("cat a log.1 -log");
	struct policy_input in = {
		.cwd = CWD, .env = (char *const *)no_env, .any_command = true, .is_output = is_log};
	struct policy_verdict v;

	in.argv = reads;
	policy_decide(&in, &v);
	cr_expect_str_eq(v.rule, "descriptor");
	cr_expect_str_eq(v.why, "log");
	in.argv = other;
	policy_decide(&in, &v);
	cr_expect_str_eq(v.rule, "remote");
}

Test(policy, why_names_the_argument)
{
	char longest[600];
	struct policy_verdict v = decide("gcc -O2 -march=native -c a.c", CWD, TOP, no_env);

	cr_expect_str_eq(v.why, "-march=native");
	cr_expect_str_eq(decide("cc -c a.c -o /tmp/a.o", CWD, TOP, no_env).why, "/tmp/a.o");
	snprintf(longest, sizeof(longest), "cc -c /tmp/%0500d.c", 0);
	v = decide(longest, CWD, TOP, no_env);
	cr_expect_eq(strlen(v.why), sizeof(v.why) - 1);
}

/* ---- arguments in files ---- */

static const struct {
	const char *path;
	const char *text; /* NULL: no regular file */
} files[] = {
	{CWD "/plain", "-O2 -c a.c -o a.o\n"},
	{CWD "/stdin", "-O2 -x c -"},
	{CWD "/native", "-O2\n\t-march=native  -c"},
	{CWD "/nested", "-O2 @native"},
	{CWD "/nested-deep", "@sub/one"},
	{CWD "/sub/one", "@nested"},
	{CWD "/quoted", "'-march=native'"},
	{CWD "/half-quoted", "-mar\"ch=na\"tive"},
	{CWD "/escaped", "-m\\a\\rch=native"},
	{CWD "/in-quotes", "'-march=nat\\ive'"},
	{CWD "/text", "-DX='-march=native'"},
	{CWD "/no-native", "-DX=\"a -march=native\" -I'dir @native'"},
	{CWD "/last", "-c a.c -march"},
	{CWD "/loop", "-c @loop"},
	{CWD "/tmp", "-o /tmp/out.o"},
	{CWD "/hidden", "@/tmp/args"},
	{CWD "/missing", "@nowhere @/tmp/../nowhere"},
	{CWD "/empty", ""},
	{CWD "/backslash", "-O2 \\"},
	{"/etc/args", "@more"},
	{CWD "/more", "-mtune=native"},
	{CWD "/fifo", NULL},
	{CWD "/cfg/a.cfg", "# -march=native\n -O2 \\\n-march\\\n=native\n"},
	{CWD "/cfg/b.cfg", "-O2\n@c.cfg\n"},
	{CWD "/cfg/c.cfg", "-mcpu=native"},
	{CWD "/cfg/d.cfg", "# -march=native\n  # --march=native \\\n -march=native\n-O2\n"},
	{CWD "/c.cfg", "-O1"},
	{CWD "/rust", "--crate-name\nx\n-C\ntarget-cpu=native\n"},
	{CWD "/rust-plain", "--cfg\nfeature=\"a b\"\n@native\n"},
	{CWD "/rust-tmp", "--out-dir\r\n/tmp/x\r\n"},
	{CWD "/opts", "--gpu-architecture native"},
};

static int read_stub(const char *given, size_t max, struct buf *out)
{
	_cleanup_free_ char *path = path_clean("/", given);

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		size_t n;

		if (!streq(files[i].path, path))
			continue;
		if (!files[i].text)
			return -EINVAL;
		n = strlen(files[i].text);
		if (n > max)
			return CONCC_E_TOOBIG;
		buf_append(out, files[i].text, n);
		return 0;
	}
	if (streq(path, CWD "/huge") || streq(path, CWD "/half")) {
		size_t n = streq(path, CWD "/huge") ? ARGFILES_BYTES_MAX + 1
						    : ARGFILES_BYTES_MAX / 2 + 1;
		char *text = xmalloc(n);

		memset(text, ' ', n);
		if (n <= max)
			buf_append(out, text, n);
		free(text);
		return n <= max ? 0 : CONCC_E_TOOBIG;
	}
	if (streq(path, CWD "/utf16")) {
		buf_append(out, "\xff\xfe-\0m\0", 6);
		return 0;
	}
	return -ENOENT;
}

static bool reads(const char *line)
{
	_cleanup_strv_ char **argv = words(line);
	struct policy_input in = {
		.argv = argv, .cwd = CWD, .env = (char *const *)no_env, .read_file = read_stub};
	struct policy_verdict v;

	policy_decide(&in, &v);
	cr_assert_not(v.local, "%s: %s", line, v.rule);
	return v.reads_stdin;
}

Test(policy, reads_stdin)
{
	static const char *const do_read[] = {
		"gcc -x c -c -",
		"gcc -x c -c - -o -",
		"gcc -x c -c /dev/stdin",
		"gcc -x c -c /dev/fd/0",
		"gcc -x c -c /proc/self/fd/0",
		"gcc -include /dev/stdin -c a.c",
		"gcc -include/dev/stdin -c a.c",
		"gcc -imacros /dev/fd/0 -c a.c",
		"clang -Xclang -include -Xclang /dev/stdin -c a.c",
		"gcc -c @stdin",
		"as -o a.o",
		"x86_64-linux-gnu-as --64 -o a.o",
		"cpp -P",
		"ccache gcc -E -",
		/* who knows */
		"cat -n",
		"objcopy --add-section x=/dev/stdin a.o b.o",
		"patch -p1",
		"tools/compile a.c",
	};
	static const char *const do_not[] = {
		"gcc -c a.c -o -", "gcc -c a.c -MF -",
		"gcc -c a.c",	   "gcc @plain",
		"as -o a.o a.s",   "cpp a.c",
		"gcc -c a.c -I-",  "rustc --emit=metadata a.rs",
	};

	for (size_t i = 0; i < sizeof(do_read) / sizeof(*do_read); i++)
		cr_expect(reads(do_read[i]), "%s", do_read[i]);
	for (size_t i = 0; i < sizeof(do_not) / sizeof(*do_not); i++)
		cr_expect_not(reads(do_not[i]), "%s", do_not[i]);
}

static const struct {
	const char *rule;
	const char *line;
} file_table[] = {
	{"remote", "gcc @plain"},
	{"native", "gcc @native a.c"},
	{"native", "gcc @nested -c a.c"},
	{"native", "ccache gcc @nested-deep -c a.c"},
	{"native", "clang @quoted -c a.c"},
	{"native", "gcc @half-quoted -c a.c"},
	{"native", "gcc @escaped -c a.c"},
	{"native", "gcc @in-quotes -c a.c"},
	{"native", "gcc @last native"},
	{"native", "gcc -c a.c -march @native"},
	{"remote", "gcc @text -c a.c"},
	{"remote", "gcc @no-native -c a.c"},
	{"remote", "gcc @missing -c a.c"},
	{"remote", "gcc @empty -c a.c"},
	{"remote", "gcc @backslash -c a.c"},
	{"native", "gcc @/etc/args -c a.c"},
	{"tmp-output", "gcc @tmp -c a.c"},
	{"tmp-output", "gcc @hidden -c a.c"},
	{"tmp-output", "gcc @/tmp/args -c a.c"},
	/* what can't be told */
	{"args-file", "gcc @loop -c a.c"},
	{"args-file", "gcc @fifo -c a.c"},
	{"args-file", "gcc @huge -c a.c"},
	{"args-file", "gcc @half @half -c a.c"},
	{"args-file", "gcc @utf16 -c a.c"},
	/* clang's configuration, nvcc's options */
	{"native", "clang --config cfg/a.cfg -c a.c"},
	{"native", "clang --config=./cfg/b.cfg -c a.c"},
	{"remote", "clang --config cfg/d.cfg -c a.c"},
	{"remote", "clang --config ./c.cfg -c a.c"},
	{"remote", "clang --config ./nowhere.cfg -c a.c"},
	{"args-file", "clang --config some.cfg -c a.c"},
	{"args-file", "clang -c a.c --config=some"},
	{"native", "nvcc -optf opts -c a.cu"},
	{"native", "nvcc --options-file=opts -c a.cu"},
	{"args-file", "nvcc -optf opts,more -c a.cu"},
	/* rustc: lines, and nothing in them but arguments */
	{"native", "rustc @rust a.rs"},
	{"remote", "rustc @rust-plain a.rs"},
	{"tmp-output", "rustc @rust-tmp a.rs"},
};

Test(policy, arguments_in_files)
{
	for (size_t i = 0; i < sizeof(file_table) / sizeof(*file_table); i++) {
		_cleanup_strv_ char **argv = words(file_table[i].line);
		struct policy_input in = {.argv = argv,
					  .cwd = CWD,
					  .env = (char *const *)no_env,
					  .read_file = read_stub};
		struct policy_verdict v;

		policy_decide(&in, &v);
		cr_assert_str_eq(v.rule, file_table[i].rule, "%s: %s (%s)", file_table[i].line,
				 v.rule, v.why);
		/* Nor is one opened where nobody says how. */
		in.read_file = NULL;
		policy_decide(&in, &v);
		cr_assert(!streq(v.rule, "native") && !streq(v.rule, "args-file"), "%s: %s",
			  file_table[i].line, v.rule);
		in.any_command = true;
		in.read_file = read_stub;
		policy_decide(&in, &v);
		cr_assert_str_eq(v.rule, "remote", "%s", file_table[i].line);
	}
}

/* ---- what is compared ---- */

Test(policy, names_of_drivers)
{
	static const char *const are[] = {
		"gcc",
		"/usr/bin/cc",
		"g++-12",
		"x86_64-linux-gnu-gcc-12",
		"arm-none-eabi-c++",
		"clang-14",
		"clang++",
		"x86_64-w64-mingw32-g++-12-posix",
	};
	static const char *const are_not[] = {
		"",	   "account-sync", "gccgo",   "gcc-ar-12", "my_gcc",   "gcc.sh",
		"clangd",  "clang-format", "ccache",  "tcc",	   "c++filt",  "access",
		"gcc-12-", "concc-cc-x",   "success", "rustc",	   "gfortran", "cc1",
	};

	for (size_t i = 0; i < sizeof(are) / sizeof(*are); i++)
		cr_assert(job_is_driver_name(are[i]), "%s", are[i]);
	for (size_t i = 0; i < sizeof(are_not) / sizeof(*are_not); i++)
		cr_assert_not(job_is_driver_name(are_not[i]), "%s", are_not[i]);
}

Test(policy, names_of_compilers)
{
	static const char *const are[] = {"gcc",
					  "gcc-12",
					  "x86_64-linux-gnu-g++-12",
					  "clang++-19",
					  "/usr/bin/gfortran",
					  "c99",
					  "f95",
					  "gnatgcc",
					  "nvcc",
					  "x86_64-w64-mingw32-gcc-win32",
					  "mpicc",
					  "rustc",
					  "nasm",
					  "/usr/bin/yasm",
					  "ldc2",
					  "arm-none-eabi-gcc-13.2"};
	static const char *const are_not[] = {"gcc-ar",
					      "gcc-ranlib-12",
					      "clang-format",
					      "clang-tidy-14",
					      "clang-cpp-14",
					      "cpp",
					      "ld",
					      "as",
					      "cc1",
					      "cc1plus",
					      "sh",
					      "rustdoc",
					      "git-clang-format",
					      "ndisasm",
					      "ocamlopt",
					      "ghc",
					      ""};

	for (size_t i = 0; i < sizeof(are) / sizeof(*are); i++)
		cr_assert(job_is_compiler_name(are[i]), "%s", are[i]);
	for (size_t i = 0; i < sizeof(are_not) / sizeof(*are_not); i++)
		cr_assert_not(job_is_compiler_name(are_not[i]), "%s", are_not[i]);
}

Test(policy, families)
{
	static const struct {
		enum job_family family;
		const char *line;
	} cases[] = {
		{JOB_FAMILY_C, "gcc -c a.c"},
		{JOB_FAMILY_C, "ccache g++ -c a.cc"},
		{JOB_FAMILY_C, "nvcc -c a.cu"},
		{JOB_FAMILY_C, "cpp a.c"},
		{JOB_FAMILY_RUST, "rustc a.rs"},
		{JOB_FAMILY_RUST, "clippy-driver rustc a.rs"},
		{JOB_FAMILY_ALONE, "as a.s -o a.o"},
		{JOB_FAMILY_ALONE, "ld a.o"},
		{JOB_FAMILY_OTHER, "libtool gcc a.c"},
		{JOB_FAMILY_OTHER, "ldc2 -c a.d"},
		{JOB_FAMILY_OTHER, "sh -c gcc"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		_cleanup_strv_ char **argv = words(cases[i].line);

		cr_assert_eq(job_family(argv), cases[i].family, "%s", cases[i].line);
	}
}
