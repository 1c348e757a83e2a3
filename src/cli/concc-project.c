/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/conf.h"
#include "concc/doctor.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/project.h"
#include "concc/str.h"

static const char usage[] =
	"usage: concc-project [--daemon] [--ready-fd=N] [--workers=LIST] [--config=FILE]\n"
	"       concc-project --push [--workers=LIST] [--config=FILE]\n"
	"       concc-project --doctor[=json|brief] [--workers=LIST] [--config=FILE]\n"
	"Serves this user's files to the workers and runs their jobs.  The first concc-cc\n"
	"starts it, and it leaves when idle: see concc-project(8).\n"
	"\n"
	"  --daemon        log to project.log in the runtime directory instead of stderr\n"
	"  --ready-fd=N    write \"ready\" or \"error: ...\" to this descriptor\n"
	"  --workers=LIST  instead of the configuration's workers\n"
	"  --config=FILE   instead of $CONCC_CONFIG or ~/.concc.ini\n"
	"  --push          only put concc-worker on the workers, as `concc push` does\n"
	"  --doctor        only say what may be wrong, as `concc doctor` does\n";

/* The runtime directory is often memory. */
#define LOG_BYTES_MAX (4 * 1024 * 1024)

/* A daemon's log is of this session only: it is for finding out what happened just now. */
static void log_to_file(void)
{
	_cleanup_free_ char *dir = NULL;
	_cleanup_close_ int dir_fd = -1;
	int fd;

	if (runtime_dir_open(&dir, &dir_fd, NULL) < 0)
		return;
	fd = openat(dir_fd, "project.log",
		    O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0)
		log_set_file(fd, LOG_BYTES_MAX); /* for the rest of this process's life */
	log_set_timestamps(1);
}

static int fail(int ready_fd, const char *text)
{
	log_err("%s", text);
	if (ready_fd >= 0)
		dprintf(ready_fd, "error: %s\n", text);
	return EXIT_FAILURE;
}

struct options {
	bool daemon, push, doctor;
	struct doctor_options look;
	int ready_fd;
	const char *workers, *config;
};

/* -1 to go on, else the status to exit with. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"daemon", no_argument, NULL, 'd'},
		{"ready-fd", required_argument, NULL, 'r'},
		{"workers", required_argument, NULL, 'w'},
		{"config", required_argument, NULL, 'c'},
		{"push", no_argument, NULL, 'p'},
		{"doctor", optional_argument, NULL, 'D'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	unsigned long long n;
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (c) {
		case 'd':
			o->daemon = true;
			break;
		case 'r':
			if (!str_to_u64(optarg, 1 << 20, &n)) {
				fprintf(stderr, "concc-project: --ready-fd takes a number\n");
				return 100;
			}
			o->ready_fd = (int)n;
			break;
		case 'w':
			o->workers = optarg;
			break;
		case 'c':
			o->config = optarg;
			break;
		case 'p':
			o->push = true;
			break;
		case 'D':
			o->doctor = true;
			o->look.json = optarg && streq(optarg, "json");
			o->look.brief = optarg && streq(optarg, "brief");
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("concc-project " CONCC_VERSION);
			return 0;
		default:
			fputs("concc-project: see `concc-project --help`\n", stderr);
			return 100;
		}
	}
	if (optind < argc) {
		fprintf(stderr,
			"concc-project: unexpected argument %s; see `concc-project --help`\n",
			argv[optind]);
		return 100;
	}
	return -1;
}

/* The exit status of --push. */
static int push(const struct conf *conf)
{
	int r = project_push(conf);

	if (r < 0)
		log_err("%s", err_text(r));
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct options o = {.ready_fd = -1};
	struct errmsg msg = {0};
	struct conf *conf;
	int r, status = EXIT_SUCCESS;

	fd_hold_stdio();
	r = parse(argc, argv, &o);
	if (r >= 0)
		return r;
	/* Like any other setting, and where it is seen: a daemon's warning would not be. */
	r = log_check(&msg);
	if (r < 0)
		return fail(o.ready_fd, msg.text);
	log_init("concc-project", LOG_LEVEL_INFO);
	if (o.daemon)
		log_to_file();
	if (o.ready_fd >= 0)
		(void)fd_set_cloexec(o.ready_fd,
				     true); /* workers' transports must not keep it open */
	/* Of the call that started us: each tells its own. */
	(void)unsetenv("CONCC_WORKSPACE");
	if (o.doctor) {
		o.look.config = o.config;
		o.look.workers = o.workers;
		return doctor_run(&o.look);
	}
	r = conf_load(o.config, &conf, &msg);
	if (r < 0)
		return fail(o.ready_fd, msg.text);
	if (o.workers)
		r = conf_set_workers(conf, o.workers, &msg);
	if (r >= 0 && o.push)
		status = push(conf);
	else if (r >= 0)
		r = conf_check_workspaces(conf, &msg);
	if (r >= 0 && !o.push)
		r = project_run(conf, o.ready_fd, &msg);
	conf_free(conf);
	return r < 0 ? fail(o.ready_fd, msg.text) : status;
}
