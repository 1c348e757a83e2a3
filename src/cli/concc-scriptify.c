/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/* concc-scriptify: a job as a shell script.  See concc-scriptify(1). */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/str.h"

#define EXIT_USAGE	100
#define EXIT_FAILED	101
#define EXIT_NO_COMMAND 127 /* as a shell would say */

static const char usage_text[] =
	"usage: concc-scriptify [-hV] [--] COMMAND [ARGUMENT...]\n"
	"\n"
	"Prints a POSIX shell script that repeats the command as a job would run it:\n"
	"directory, umask, filtered environment and arguments, byte for byte.\n"
	"A concc-cc or concc-dispatch in front of the command is left out.\n"
	"\n"
	"  -h, --help     this text\n"
	"  -V, --version  the version\n"
	"\n"
	"The script holds the whole environment: keep it to yourself if that has secrets.\n"
	"See concc-scriptify(1).\n";

static bool is_wrapper_name(const char *path)
{
	const char *base = path_base(path);

	return streq(base, "concc-cc") || streq(base, "concc-dispatch");
}

/* For job_resolve(): true for what leads to one of our wrappers, by whatever name. */
static bool is_wrapper(const char *path, void *data)
{
	_cleanup_free_ char *real = realpath(path, NULL);

	return real && is_wrapper_name(real);
}

/* The umask can only be read by setting it; there is no other thread here. */
static mode_t current_umask(void)
{
	mode_t mask = umask(077);

	umask(mask);
	return mask;
}

/* The cwd as the shell calls it when that is the same directory, as a compiler would take it. */
static char *current_dir(void)
{
	const char *pwd = getenv("PWD");
	struct stat here, there;

	if (pwd && pwd[0] == '/' && stat(".", &here) == 0 && stat(pwd, &there) == 0 &&
	    stat_is_same_file(&here, &there))
		return xstrdup(pwd);
	return getcwd(NULL, 0);
}

static int print_script(char *const *argv)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_free_ char *cwd = current_dir();
	_cleanup_free_ char *found = NULL, *exe = NULL;
	int r;

	if (!cwd) {
		log_err("the current directory: %s", strerror(errno));
		return EXIT_FAILED;
	}
	found = job_resolve(argv[0], getenv("PATH"), cwd, is_wrapper, NULL);
	if (!found) {
		log_err("%s: %s; is it in PATH?", argv[0], strerror(errno));
		return EXIT_NO_COMMAND;
	}
	exe = strchr(found, '/') ? steal_ptr(&found) : path_join(".", found);
	job_script(&out, argv, exe, cwd, environ, current_umask());
	r = write_full(STDOUT_FILENO, out.data, out.len);
	if (r < 0) {
		log_err("standard output: %s", strerror(-r));
		return EXIT_FAILED;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL},
	};
	int c;

	fd_hold_stdio();
	log_init("concc-scriptify", LOG_LEVEL_INFO);
	while ((c = getopt_long(argc, argv, "+hV", options, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		case 'V':
			puts("concc-scriptify " CONCC_VERSION);
			return 0;
		default:
			fputs("Try concc-scriptify --help.\n", stderr);
			return EXIT_USAGE;
		}
	}
	argv += optind;
	while (argv[0] && argv[1] && is_wrapper_name(argv[0]))
		argv++;
	if (!argv[0]) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	return print_script(argv);
}
