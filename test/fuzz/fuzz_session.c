/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * What a project server may say to a wrapper while its job runs: frames, one after the other, and
 * then the end.  The wrapper's output goes to /dev/null.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "concc/wrapper.h"
#include "scratch.h"
#include "wrapper/input.h"
#include "wrapper/output.h"
#include "wrapper/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);
void __sanitizer_set_report_fd(void *fd) __attribute__((weak));

#define INPUT_MAX (128 * 1024) /* below a socket's buffer: written at once */

static int null_fd, stderr_fd;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_init("fuzz", LOG_LEVEL_ERR);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	stderr_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
	CHECK(null_fd >= 0 && stderr_fd >= 0);
	CHECK(dup2(null_fd, 0) == 0 && dup2(null_fd, 1) == 1);
	if (__sanitizer_set_report_fd)
		__sanitizer_set_report_fd((void *)(intptr_t)stderr_fd);
	return 0;
}

static void check_end(const struct session_end *e, int r)
{
	if (r < 0)
		return;
	CHECK(e->what <= SESSION_OUTPUT);
	if (e->what == SESSION_FAIL)
		CHECK(e->fail.rule && e->fail.text);
	if (e->what == SESSION_EXIT)
		CHECK(e->worker && e->how <= EXIT_FAILED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf run = BUF_INIT;
	struct session_end end = {0};
	struct input in = INPUT_INIT;
	struct output out;
	struct conn c = {.fd = -1};
	int fds[2], r;

	if (n == 0 || n > INPUT_MAX)
		return 0;
	CHECK(dup2(null_fd, 2) == 2);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	CHECK(write_full(fds[1], data + 1, n - 1) == 0);
	CHECK(shutdown(fds[1], SHUT_WR) == 0);
	c.fd = fds[0];
	in.wanted = data[0] & 1;
	CHECK(input_open(&in) == 0);
	output_init(&out);
	buf_put_u32(&run, 0);
	r = session_run("/dev/null", &c, &run, &in, &out, &end);
	check_end(&end, r);
	conn_release(&c); /* after a miss it goes on */
	msg_run_fail_release(&end.fail);
	free(end.worker);
	if (in.kept_fd >= 0)
		(void)close(in.kept_fd);
	buf_release(&in.rest);
	shown_release(&out.shown);
	(void)close(fds[1]);
	CHECK(dup2(stderr_fd, 2) == 2);
	return 0;
}
