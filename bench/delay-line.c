/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * delay-line RTT_US PID NAME: a cable with a length.  Makes a TUN device NAME in
 * this network namespace and one in that of PID, and carries packets between
 * them, each held for half of RTT_US.  Says "ready" on stdout when both devices
 * are there; addresses are the caller's business.  The devices go with the
 * process.
 *
 * The delay is the same for all packets, so each direction is a plain queue, and
 * one timer for the first packet that is due is enough.  Nothing is lost but
 * what comes when a queue is full, as on a real line.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX  2048   /* the devices' MTU is 1500 */
#define PACKETS_MAX 65536u /* in flight per direction: 100 MB, more than any TCP window */

struct packet {
	int64_t due_ns;
	size_t len;
	uint8_t bytes[];
};

/* What is on its way to one end: a ring, oldest packet first. */
struct queue {
	struct packet *ring[PACKETS_MAX];
	unsigned int first, n;
	int from, to;
};

static struct queue lines[2];
static int64_t delay_ns;

static void fail(const char *what)
{
	(void)fprintf(stderr, "delay-line: %s: %s\n", what, strerror(errno));
	exit(125);
}

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int make_tun(const char *name)
{
	struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		fail("/dev/net/tun");
	(void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &r) < 0)
		fail(name);
	return fd;
}

/* A TUN device belongs to the network namespace in which it was opened. */
static int make_tun_at(const char *pid, const char *name)
{
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), other, fd;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%.20s/ns/net", pid);
	other = open(path, O_RDONLY | O_CLOEXEC);
	if (own < 0 || other < 0 || setns(other, CLONE_NEWNET) < 0)
		fail(path);
	fd = make_tun(name);
	if (setns(own, CLONE_NEWNET) < 0)
		fail("setns");
	close(own);
	close(other);
	return fd;
}

static void take_in(struct queue *q)
{
	uint8_t bytes[PACKET_MAX];
	ssize_t len;

	while ((len = read(q->from, bytes, sizeof(bytes))) > 0) {
		struct packet *p;

		if (q->n == PACKETS_MAX)
			continue;
		p = malloc(sizeof(*p) + (size_t)len);
		if (!p)
			fail("malloc");
		p->due_ns = now_ns() + delay_ns;
		p->len = (size_t)len;
		memcpy(p->bytes, bytes, p->len);
		q->ring[(q->first + q->n++) % PACKETS_MAX] = p;
	}
	if (len < 0 && errno != EAGAIN)
		fail("read");
}

static void hand_out(struct queue *q)
{
	int64_t now = now_ns();

	while (q->n > 0 && q->ring[q->first]->due_ns <= now) {
		struct packet *p = q->ring[q->first];

		/* A device that refuses a packet loses it; TCP sends it again. */
		(void)!write(q->to, p->bytes, p->len);
		free(p);
		q->first = (q->first + 1) % PACKETS_MAX;
		q->n--;
	}
}

/* Sets the timer to the earliest packet of both queues. */
static void set_timer(int timer)
{
	struct itimerspec at = {0};
	int64_t due = INT64_MAX;

	for (int i = 0; i < 2; i++) {
		const struct queue *q = &lines[i];

		if (q->n > 0 && q->ring[q->first]->due_ns < due)
			due = q->ring[q->first]->due_ns;
	}
	if (due != INT64_MAX) {
		at.it_value.tv_sec = due / 1000000000;
		at.it_value.tv_nsec = due % 1000000000;
	}
	if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) < 0)
		fail("timerfd_settime");
}

static void carry(int here, int there, int timer)
{
	struct pollfd fds[] = {{here, POLLIN, 0}, {there, POLLIN, 0}, {timer, POLLIN, 0}};
	uint64_t expired;

	for (;;) {
		if (poll(fds, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			fail("poll");
		}
		if (fds[2].revents)
			(void)!read(timer, &expired, sizeof(expired));
		for (int i = 0; i < 2; i++) {
			take_in(&lines[i]);
			hand_out(&lines[i]);
		}
		set_timer(timer);
	}
}

int main(int argc, char **argv)
{
	int here, there, timer;

	if (argc != 4) {
		(void)fprintf(stderr, "usage: delay-line RTT_US PID NAME\n");
		return 125;
	}
	delay_ns = strtoll(argv[1], NULL, 10) * 1000 / 2;
	here = make_tun(argv[3]);
	there = make_tun_at(argv[2], argv[3]);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (timer < 0)
		fail("timerfd_create");
	lines[0].from = lines[1].to = here;
	lines[0].to = lines[1].from = there;
	if (write(1, "ready\n", 6) != 6)
		fail("stdout");
	carry(here, there, timer);
}
