/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/front.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/view.h"
#include "concc/wrapper.h"

static const char usage[] =
	"usage: concc run [-C DIR] [-w WORKERS] [-j N] [--local] [--] COMMAND [ARG...]\n"
	"       concc status [--json]\n"
	"       concc report [--json] [--list] [BUILD]\n"
	"       concc cache [clear]\n"
	"       concc stop\n"
	"       concc push WORKER|HOST...\n"
	"       concc masquerade\n"
	"       concc -j\n"
	"\n"
	"  run     runs a build with its compilers on workers, then says where its jobs ran\n"
	"  status  shows the workers and what runs on them\n"
	"  report  tells of each job of the newest build, or of another: when, where, why, how long\n"
	"  cache   shows what is kept of former jobs, and of how much use it was; clear: keeps no more\n"
	"          of it\n"
	"  stop    stops the project server; the next concc-cc starts it again\n"
	"  push    puts concc-worker on machines that you can ssh to\n"
	"  masquerade  prints a directory of this machine's compilers for the front of PATH\n"
	"  -j      prints how many jobs can run at once: make -j$(concc -j)\n"
	"\n"
	"Workers are listed in ~/.concc.ini; without it, two on this machine are used.\n"
	"See concc(1) and concc.ini(5).\n";

static int wrong(const char *what, const char *arg)
{
	fprintf(stderr, "concc: %s%s%s\n%s", what, *arg ? " " : "", arg, usage);
	return WRAPPER_EXIT_USAGE;
}

static int cmd_run(int argc, char **argv)
{
	static const struct option longs[] = {
		{"directory", required_argument, NULL, 'C'},
		{"workers", required_argument, NULL, 'w'},
		{"jobs", required_argument, NULL, 'j'},
		{"local", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
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
		case 'l':
			o.local = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return WRAPPER_EXIT_USAGE;
		}
	}
	if (optind >= argc)
		return wrong("run what?  A command is missing", "");
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
	return wrong("status does not know", argv[1]);
}

static int cmd_report(int argc, char **argv)
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'}, {"list", no_argument, NULL, 'l'}, {0}};
	struct view_report o = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'l') {
			o.list = true;
		} else if (c != 'j') {
			fputs(usage, stderr);
			return WRAPPER_EXIT_USAGE;
		}
	}
	if (argc - optind > 1)
		return wrong("report takes one build, not also", argv[optind + 1]);
	o.build = argv[optind];
	return view_report(&o);
}

static int cmd_cache(int argc, char **argv)
{
	if (argc == 1)
		return front_cache(false);
	if (argc == 2 && streq(argv[1], "clear"))
		return front_cache(true);
	return wrong("cache does not know", argv[1]);
}

static int cmd_stop(int argc, char **argv)
{
	return argc == 1 ? front_stop() : wrong("stop takes no argument:", argv[1]);
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
	{"push", cmd_push},	    {"report", cmd_report}, {"cache", cmd_cache},
	{"run", cmd_run},	    {"status", cmd_status}, {"stop", cmd_stop},
	{"-j", cmd_slots},	    {"help", cmd_help},	    {"masquerade", cmd_masquerade},
	{"--help", cmd_help},	    {"-h", cmd_help},	    {"version", cmd_version},
	{"--version", cmd_version},
};

int main(int argc, char **argv)
{
	const char *names[sizeof(commands) / sizeof(*commands)];
	const char *near;

	fd_hold_stdio();
	if (argc < 2)
		return wrong("what should it do?", "");
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		names[i] = commands[i].name;
		if (!streq(argv[1], commands[i].name))
			continue;
		/* What follows the command of `run` is its own. */
		if (commands[i].fn != cmd_run && wants_help(argc - 1, argv + 1))
			return cmd_help(argc, argv);
		return commands[i].fn(argc - 1, argv + 1);
	}
	near = str_nearest(argv[1], names, sizeof(names) / sizeof(*names));
	fprintf(stderr, "concc: there is no command %s%s%s%s\n%s", argv[1],
		near ? "; did you mean " : "", near ? near : "", near ? "?" : "", usage);
	return WRAPPER_EXIT_USAGE;
}
