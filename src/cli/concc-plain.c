/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/* concc-plain: a worker that has no concc.  See concc-plain(8). */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/log.h"
#include "concc/plain.h"
#include "concc/str.h"
#include "concc/worker_spec.h"

#define EXIT_USAGE 100

static const char usage[] =
	"usage: concc-plain --mirror sshfs|none [--slots N] [--user NAME] [--port N] HOST\n"
	"\n"
	"Stands for a machine that has no concc: does jobs there by ssh.  A project server\n"
	"starts it for a worker with `mirror = sshfs` or `mirror = none`, and speaks to it\n"
	"over its standard input and output: see concc.ini(5) and concc-plain(8).\n";

static int serve(const struct plain_config *c)
{
	struct errmsg msg = {0};
	int in, out, r = fd_take_stdio(&in, &out);

	if (r < 0) {
		fprintf(stderr, "concc-plain: its standard input and output must be open: %s\n",
			err_text(r));
		return EXIT_FAILURE;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	r = plain_run(c, in, out, &msg);
	if (r < 0)
		log_warn("%s", *msg.text ? msg.text : err_text(r));
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int usage_error(void)
{
	fputs(usage, stderr);
	return EXIT_USAGE;
}

static bool number(const char *s, unsigned long long max, uint32_t *ret)
{
	unsigned long long n;

	if (!str_to_u64(s, max, &n))
		return false;
	*ret = (uint32_t)n;
	return true;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"mirror", required_argument, NULL, 'm'},
		{"slots", required_argument, NULL, 's'},
		{"user", required_argument, NULL, 'u'},
		{"port", required_argument, NULL, 'p'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL},
	};
	struct plain_config c = {0};
	bool mirror = false, good = true;
	int o;

	fd_hold_stdio();
	log_init("concc-plain", LOG_LEVEL_WARN);
	while (good && (o = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
		switch (o) {
		case 'm':
			mirror = true;
			c.sshfs = streq(optarg, "sshfs");
			good = c.sshfs || streq(optarg, "none");
			break;
		case 's':
			good = number(optarg, POOL_SLOTS_MAX, &c.slots);
			break;
		case 'u':
			c.user = optarg;
			break;
		case 'p':
			good = number(optarg, 65535, &c.port);
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("concc-plain " CONCC_VERSION);
			return 0;
		default:
			good = false;
		}
	}
	if (!good || !mirror || optind + 1 != argc)
		return usage_error();
	c.host = argv[optind];
	return serve(&c);
}
