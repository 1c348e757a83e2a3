/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <fcntl.h>
#include <nss.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "concc/worker.h"

static const char usage[] =
	"usage: concc-worker --stdio\n"
	"       concc-worker --status [--json | --prometheus]\n"
	"       concc-worker --prune[=SIZE]\n"
	"The worker's end of a link: speaks to one client over its standard input and output,\n"
	"and runs the client's jobs in a sandbox.  It is started by a client, over ssh or by\n"
	"the command of its [worker] section: see concc.ini(5) and concc-worker(8).\n"
	"\n"
	"  --status  says what goes on on this host: slots, the jobs of each client, stores\n"
	"  --prune   removes what was used least from this user's store, until SIZE is left\n";

static int serve(void)
{
	struct errmsg msg = {0};
	int in, out, r = fd_take_stdio(&in, &out);

	if (r < 0) {
		fprintf(stderr, "concc-worker: its standard input and output must be open: %s\n",
			err_text(r));
		return EXIT_FAILURE;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* of our own login's limit: an error like a full disk */
	r = agent_run(in, out, &msg);
	if (r < 0)
		log_err("%s", *msg.text ? msg.text : err_text(r));
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int wrong(void)
{
	fputs(usage, stderr);
	return 100;
}

static int status(int argc, char **argv)
{
	if (argc == 2)
		return worker_status(WORKER_TEXT);
	if (argc == 3 && streq(argv[2], "--json"))
		return worker_status(WORKER_JSON);
	if (argc == 3 && streq(argv[2], "--prometheus"))
		return worker_status(WORKER_PROMETHEUS);
	return wrong();
}

/* "10G"; false when it is no size. */
static bool parse_size(const char *s, uint64_t *ret)
{
	static const char units[] = "KMGT";
	size_t digits = strspn(s, "0123456789");
	_cleanup_free_ char *number = xstrndup(s, digits);
	const char *unit = s[digits] ? strchr(units, s[digits]) : units;
	unsigned shift = s[digits] && unit ? 10 * (unsigned)(unit - units + 1) : 0;
	unsigned long long n;

	if (!unit || (s[digits] && s[digits + 1]) || !str_to_u64(number, UINT64_MAX >> shift, &n))
		return false;
	*ret = (uint64_t)n << shift;
	return true;
}

static int prune(const char *arg)
{
	uint64_t size = 0;

	if (*arg == '=' && !parse_size(arg + 1, &size)) {
		fprintf(stderr, "concc-worker: --prune takes a size like 10G, not %s\n", arg + 1);
		return 100;
	}
	return *arg && *arg != '=' ? wrong() : worker_prune(size);
}

int main(int argc, char **argv)
{
	fd_hold_stdio();
	/* Modules that a C library which was linked statically loads (systemd's) crash in it; a
	 * login that comes by another one has its HOME from what let it in. */
	(void)__nss_configure_lookup("passwd", "files");
	log_init("concc-worker", LOG_LEVEL_WARN);
	if (argc == 2 && streq(argv[1], "--stdio")) {
		if (isatty(0)) {
			fprintf(stderr,
				"concc-worker: --stdio speaks to a client, not to a terminal\n");
			return 100;
		}
		return serve();
	}
	if (argc == 2 && (streq(argv[1], "--help") || streq(argv[1], "-h"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc >= 2 && streq(argv[1], "--status"))
		return status(argc, argv);
	if (argc == 2 && str_starts(argv[1], "--prune"))
		return prune(argv[1] + strlen("--prune"));
	if (argc == 2 && streq(argv[1], "--version")) {
		puts("concc-worker " CONCC_VERSION);
		return 0;
	}
	return wrong();
}
