/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/front.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"
#include "concc/view.h"
#include "concc/wrapper.h"

static const char usage[] =
	"usage: concc run [-C DIR] [-w WORKERS] [-j N] [--report FILE.html] [--local] [--quiet]\n"
	"                 [--json FILE] [--require-remote PERCENT] [--] COMMAND [ARG...]\n"
	"       concc status [--json | --reset]\n"
	"       concc report [--json] [--list] [-o FILE.html] [--trace FILE.json] [BUILD]\n"
	"       concc top [--once]\n"
	"       concc doctor [--json] [WORKER|HOST...]\n"
	"       concc cache [clear]\n"
	"       concc why COMMAND [ARG...]\n"
	"       concc stop\n"
	"       concc push WORKER|HOST...\n"
	"       concc masquerade\n"
	"       concc -j\n"
	"\n"
	"  run     runs a build with its compilers on workers, then says where its jobs ran\n"
	"  status  shows the workers and what runs on them\n"
	"  report  tells of each job of the newest build, or of another: when, where, why, how long;\n"
	"          as JSON, as a page to look at (-o), as a trace for Perfetto (--trace)\n"
	"  top     shows workers and jobs as they come and go, until q\n"
	"  doctor  looks for what keeps builds from being distributed, and says what to do\n"
	"  cache   shows what is kept of former jobs, and of how much use it was; clear: keeps no more\n"
	"          of it\n"
	"  why     says whether the result of a compiler call is kept, or what has changed since\n"
	"  stop    stops the project server; the next concc-cc starts it again\n"
	"  push    puts concc-worker on machines that you can ssh to\n"
	"  masquerade  prints a directory of this machine's compilers for the front of PATH\n"
	"  -j      prints how many jobs can run at once: make -j$(concc -j)\n"
	"\n"
	"Workers are listed in ~/.concc.ini; without it, two on this machine are used.\n"
	"See concc(1) and concc.ini(5).\n";

/* One line: what is wrong would be lost above a page of all that there is. */
static int wrong(const char *what, const char *arg)
{
	err_say("%s%s%s; see `concc --help`", what, *arg ? " " : "", arg);
	return WRAPPER_EXIT_USAGE;
}

/* getopt(3) has said what. */
static int wrong_option(void)
{
	fputs("concc: see `concc --help`\n", stderr);
	return WRAPPER_EXIT_USAGE;
}

/* As it is meant here, before anybody goes elsewhere. */
static char *path_given(const char *path)
{
	_cleanup_free_ char *cwd = getcwd(NULL, 0);

	return streq(path, "-") || !cwd ? xstrdup(path) : path_clean(cwd, path);
}

static int cmd_run(int argc, char **argv)
{
	static const struct option longs[] = {
		{"directory", required_argument, NULL, 'C'},
		{"workers", required_argument, NULL, 'w'},
		{"jobs", required_argument, NULL, 'j'},
		{"report", required_argument, NULL, 'r'},
		{"local", no_argument, NULL, 'l'},
		{"quiet", no_argument, NULL, 'q'},
		{"json", required_argument, NULL, 'J'},
		{"require-remote", required_argument, NULL, 'R'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	_cleanup_free_ char *report = NULL;
	struct front_run o = {0};
	unsigned long long n;
	int c;

	while ((c = getopt_long(argc, argv, "+C:w:j:h", longs, NULL)) != -1) {
		switch (c) {
		case 'C':
			o.dir = optarg;
			break;
		case 'w':
			o.workers = optarg;
			break;
		case 'j':
			if (!str_to_u64(optarg, 1000000, &n) || !n)
				return wrong("-j takes a number of jobs, not", optarg);
			o.jobs = (uint32_t)n;
			break;
		case 'r':
			free(report);
			report = path_given(optarg);
			o.report = report;
			break;
		case 'l':
			o.local = true;
			break;
		case 'q':
			o.quiet = true;
			break;
		case 'J':
			o.json = optarg;
			break;
		case 'R':
			if (!str_to_u64(optarg, 100, &n))
				return wrong("--require-remote takes a percentage, not", optarg);
			o.require_remote = (unsigned)n;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			return wrong_option();
		}
	}
	if (optind >= argc)
		return wrong("run what?  A command is missing", "");
	if (o.local && o.report)
		return wrong("with --local no project server keeps what --report tells of", "");
	o.argv = argv + optind;
	return front_run(&o);
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (streq(argv[i], "--help") || streq(argv[i], "-h"))
			return true;
	}
	return false;
}

static int cmd_status(int argc, char **argv)
{
	if (argc == 1)
		return front_status(false);
	if (argc == 2 && streq(argv[1], "--json"))
		return front_status(true);
	if (argc == 2 && streq(argv[1], "--reset"))
		return front_reset();
	return wrong("status does not know", argv[1]);
}

static int cmd_report(int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'},
		{"list", no_argument, NULL, 'l'},
		{"output", required_argument, NULL, 'o'},
		{"trace", required_argument, NULL, 't'},
		{0},
	};
	struct view_report o = {0};
	int c;

	while ((c = getopt_long(argc, argv, "o:", longs, NULL)) != -1) {
		if (c == 'l') {
			o.list = true;
		} else if (c == 'o') {
			o.page = optarg;
		} else if (c == 't') {
			o.trace = optarg;
		} else if (c != 'j') {
			return wrong_option();
		}
	}
	if (argc - optind > 1)
		return wrong("report takes one build, not also", argv[optind + 1]);
	o.build = argv[optind];
	return view_report(&o);
}

static int cmd_top(int argc, char **argv)
{
	if (argc == 1)
		return view_top(false);
	if (argc == 2 && streq(argv[1], "--once"))
		return view_top(true);
	return wrong("top does not know", argv[1]);
}

static int cmd_cache(int argc, char **argv)
{
	if (argc == 1)
		return front_cache(false);
	if (argc == 2 && streq(argv[1], "clear"))
		return front_cache(true);
	return wrong("cache does not know", argv[1]);
}

static int cmd_why(int argc, char **argv)
{
	struct wrapper_options o = {.argv = argv + 1};

	if (argc > 1 && streq(path_base(argv[1]), "concc-dispatch"))
		wrapper_dispatch_options(argv + 2, &o);
	if (argc < 2 || !*o.argv)
		return wrong("why what?  A command is missing", "");
	return wrapper_why(&o);
}

static int cmd_stop(int argc, char **argv)
{
	return argc == 1 ? front_stop() : wrong("stop takes no argument:", argv[1]);
}

static int cmd_doctor(int argc, char **argv)
{
	bool json = argc > 1 && streq(argv[1], "--json");

	for (int i = 1 + json; i < argc; i++)
		if (*argv[i] == '-')
			return wrong("doctor takes --json, names of workers and hosts, not",
				     argv[i]);
	return front_doctor(argv + 1 + json, json);
}

static int cmd_push(int argc, char **argv)
{
	if (argc < 2)
		return wrong("push to whom?  Name workers, or hosts that you can ssh to", "");
	for (int i = 1; i < argc; i++)
		if (*argv[i] == '-')
			return wrong("push takes names of workers and hosts, not", argv[i]);
	return front_push(argv + 1);
}

static int cmd_masquerade(int argc, char **argv)
{
	return argc == 1 ? front_masquerade() : wrong("masquerade takes no argument:", argv[1]);
}

static int cmd_slots(int argc, char **argv)
{
	return argc == 1 ? front_slots() : wrong("-j takes no argument here:", argv[1]);
}

static int cmd_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	fputs(usage, stdout);
	return 0;
}

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("concc " CONCC_VERSION);
	return 0;
}

static const struct command {
	const char *name;
	int (*fn)(int argc, char **argv);
} commands[] = {
	{"push", cmd_push},	    {"report", cmd_report}, {"run", cmd_run},
	{"status", cmd_status},	    {"top", cmd_top},	    {"stop", cmd_stop},
	{"-j", cmd_slots},	    {"help", cmd_help},	    {"masquerade", cmd_masquerade},
	{"--help", cmd_help},	    {"-h", cmd_help},	    {"version", cmd_version},
	{"--version", cmd_version}, {"doctor", cmd_doctor}, {"cache", cmd_cache},
	{"why", cmd_why},
};

/* "concc run"; static. */
static char *full_name(const char *command)
{
	static char name[32];

	(void)snprintf(name, sizeof(name), "concc %s", command);
	return name;
}

/* An answer that nobody got is none. */
static int answered(int status)
{
	if (fflush(stdout) != EOF && !ferror(stdout))
		return status;
	err_say("can't write to standard output: %s", err_text(-errno));
	return status ? status : 1;
}

/* `concc make -j8` */
static bool is_program(const char *word)
{
	_cleanup_free_ char *path = job_resolve(word, getenv("PATH"), "/", NULL, NULL);

	return path && !strchr(word, '/');
}

static int no_command(char **argv, const char *near)
{
	bool dashes = streq(argv[1], "--");
	const char *word = dashes ? argv[2] : argv[1];

	if (word && (dashes || !near) && is_program(word))
		err_say("there is no command %s; did you mean `concc run -- %s`?", argv[1], word);
	else if (near && !dashes)
		err_say("there is no command %s; did you mean %s?", argv[1], near);
	else
		err_say("there is no command %s; see `concc --help`", argv[1]);
	return WRAPPER_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const char *names[sizeof(commands) / sizeof(*commands)];

	fd_hold_stdio();
	if (argc < 2) {
		fputs(usage, stderr);
		return WRAPPER_EXIT_USAGE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		names[i] = commands[i].name;
		if (!streq(argv[1], commands[i].name))
			continue;
		/* What follows the command of `run` or `why` is its own. */
		if (commands[i].fn != cmd_run &&
		    wants_help(commands[i].fn == cmd_why && argc > 2 ? 2 : argc - 1, argv + 1))
			return cmd_help(argc, argv);
		argv[1] = full_name(commands[i].name); /* getopt(3) complains by it */
		if (commands[i].fn == cmd_run)
			return cmd_run(argc - 1, argv + 1); /* its status is the build's */
		return answered(commands[i].fn(argc - 1, argv + 1));
	}
	return no_command(argv, str_nearest(argv[1], names, sizeof(names) / sizeof(*names)));
}
