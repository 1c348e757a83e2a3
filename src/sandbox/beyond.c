/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "beyond.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "asker.h"
#include "concc/buf.h"
#include "concc/io.h"
#include "concc/str.h"

#define TABLE_MAX (16 * 1024 * 1024) /* of sockets: 100 000 */

/* ---- input ---- */

static bool is_input(const struct stat *input, const struct filter_call *c)
{
	struct stat st;
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/0", (int)c->pid);
	return stat(path, &st) == 0 && stat_is_same_file(&st, input);
}

static bool asks_for_position(const struct filter_call *c)
{
	return c->nr == SYS_lseek && c->args[1] == 0 && (int)c->args[2] == SEEK_CUR;
}

#define POLLED_MAX 64 /* the first of them: who waits for input waits for little else */

/* In poll(2): for descriptor 0 to be readable? */
static bool polls_input(const struct filter_call *c)
{
	struct pollfd fds[POLLED_MAX];
	size_t n = c->args[1] < POLLED_MAX ? (size_t)c->args[1] : POLLED_MAX;

	if (!n || peek(c->pid, c->args[0], fds, n * sizeof(*fds)) != (ssize_t)(n * sizeof(*fds)))
		return false;
	for (size_t i = 0; i < n; i++)
		if (fds[i].fd == STDIN_FILENO && fds[i].events & POLLIN)
			return true;
	return false;
}

static bool selects_input(const struct filter_call *c)
{
	fd_mask first;

	return c->args[0] && c->args[1] &&
	       peek(c->pid, c->args[1], &first, sizeof(first)) == sizeof(first) && first & 1;
}

/* ---- network ---- */

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

/* Calls line() with each line of a table of the process's network until it says true. */
static bool any_line(pid_t pid, const char *table, bool (*line)(const char *text, const void *data),
		     const void *data)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char path[64], *rest, *text;

	(void)snprintf(path, sizeof(path), "/proc/%d/net/%s", (int)pid, table);
	if (read_file_at(-1, path, TABLE_MAX, &b) < 0)
		return false;
	(void)buf_cstr(&b); /* it ends */
	rest = (char *)b.data;
	while ((text = strsep(&rest, "\n")))
		if (line(text, data))
			return true;
	return false;
}

/* "  0: 0100007F:1F90 00000000:0000 0A ...": is that port taken? */
static bool has_port(const char *line, const void *data)
{
	unsigned port;

	return sscanf(line, " %*u: %*[0-9A-Fa-f]:%x", &port) == 1 &&
	       port == *(const unsigned *)data;
}

static bool listens_at(const char *line, const void *data)
{
	unsigned state;

	return has_port(line, data) && sscanf(line, " %*u: %*s %*s %x", &state) == 1 &&
	       state == 0x0A; /* TCP_LISTEN */
}

/* Of either protocol: a call does not say of which its socket is. */
static bool is_served(pid_t pid, unsigned port)
{
	/* 0 is asked for by who wants to know by which way he would go. */
	return port == 0 || any_line(pid, "tcp", listens_at, &port) ||
	       any_line(pid, "tcp6", listens_at, &port) || any_line(pid, "udp", has_port, &port) ||
	       any_line(pid, "udp6", has_port, &port);
}

static bool is_loopback(in_addr_t host)
{
	return host == INADDR_ANY || host >> 24 == IN_LOOPBACKNET;
}

static bool is_loopback6(const struct in6_addr *a)
{
	if (IN6_IS_ADDR_V4MAPPED(a)) {
		in_addr_t net;

		memcpy(&net, a->s6_addr + 12, sizeof(net));
		return is_loopback(ntohl(net));
	}
	return IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a);
}

/* "...: 00000002 00000000 00010000 0001 01 12345 @name" */
static bool has_abstract_name(const char *line, const void *data)
{
	const char *at = strrchr(line, '@');

	return at && at > line && at[-1] == ' ' && streq(at + 1, data);
}

/*
 * Of a daemon of the client's: in /run, where a job has nothing, or of the log, which syslog(3)
 * does without when nobody is there.  Not those that the C library tries before it does without.
 */
static bool is_of_daemon(const char *path)
{
	static const char *const tried[] = {"nscd/", "systemd/", "dbus/"};
	const char *name = str_starts(path, "/var/run/") ? path + strlen("/var/run/")
			   : str_starts(path, "/run/")	 ? path + strlen("/run/")
							 : NULL;

	if (streq(path, "/dev/log") || (name && str_starts(name, "systemd/journal/")))
		return true;
	for (size_t i = 0; name && i < N_OF(tried); i++)
		if (str_starts(name, tried[i]))
			return false;
	return name;
}

/* A name that the kernel shows otherwise is not looked for: its NULs and blanks. */
static bool is_elsewhere(pid_t pid, const struct sockaddr_un *un, size_t len)
{
	size_t n = len - offsetof(struct sockaddr_un, sun_path);
	char name[sizeof(un->sun_path) + 1] = "";

	if (n < 2 || n > sizeof(un->sun_path))
		return false;
	if (un->sun_path[0]) {
		memcpy(name, un->sun_path, n);
		return is_of_daemon(name);
	}
	memcpy(name, un->sun_path + 1, n - 1);
	return strlen(name) == n - 1 && !strpbrk(name, " @\n") &&
	       !any_line(pid, "unix", has_abstract_name, name);
}

static bool leads_away(pid_t pid, unsigned long address, uint64_t size)
{
	union address a = {.sa.sa_family = AF_UNSPEC};
	size_t len = size < sizeof(a) ? (size_t)size : sizeof(a);

	if (peek(pid, address, &a, len) != (ssize_t)len)
		return false;
	if (a.sa.sa_family == AF_INET && len >= sizeof(a.in))
		return !is_loopback(ntohl(a.in.sin_addr.s_addr)) ||
		       !is_served(pid, ntohs(a.in.sin_port));
	if (a.sa.sa_family == AF_INET6 && len >= offsetof(struct sockaddr_in6, sin6_scope_id))
		return !is_loopback6(&a.in6.sin6_addr) || !is_served(pid, ntohs(a.in6.sin6_port));
	return a.sa.sa_family == AF_UNIX && is_elsewhere(pid, &a.un, len);
}

/* ---- signals ---- */

#define OUR_INIT 1

/* Numbers are given in order, and begin anew after the last there is. */
static bool is_of_job(pid_t first, pid_t number)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	pid_t last;

	if (read_file_at(-1, "/proc/sys/kernel/ns_last_pid", 32, &b) < 0)
		return number >= first;
	last = (pid_t)strtol(buf_cstr(&b), NULL, 10);
	return first <= last ? number >= first && number <= last
			     : number >= first || number <= last;
}

/* A group is called by its first process: ours is that of a job's processes, and what the caller's
 * group has elsewhere is not in it. */
static bool signals_others(pid_t first, const struct filter_call *c)
{
	bool only_asks = c->nr == SYS_pidfd_open || (int)c->args[1] == 0;
	pid_t to = (pid_t)c->args[0];

	if (to == 0)
		to = getpgid(c->pid);
	else if (to < 0 && to > INT32_MIN)
		to = -to;
	return to == OUR_INIT ? !only_asks : to > 0 && !is_of_job(first, to);
}

/* ---- */

bool beyond_ask(const void *beyond, const struct filter_call *c)
{
	const struct beyond *b = beyond;

	switch (c->nr) {
	case SYS_lseek:
	case SYS_pread64:
	case SYS_preadv:
		return b->seeks && !asks_for_position(c) && is_input(b->input, c);
	case SYS_read:
	case SYS_readv:
	case SYS_epoll_ctl:
		return b->reads && is_input(b->input, c);
#ifdef SYS_poll
	case SYS_poll:
		return b->reads && polls_input(c) && is_input(b->input, c);
#endif
#ifdef SYS_select
	case SYS_select:
#endif
	case SYS_pselect6:
		return b->reads && selects_input(c) && is_input(b->input, c);
	case SYS_connect:
		return leads_away(c->pid, c->args[1], c->args[2]);
	case SYS_sendto:
		return leads_away(c->pid, c->args[4], c->args[5]);
	case SYS_kill:
	case SYS_rt_sigqueueinfo:
	case SYS_pidfd_open:
		return signals_others(b->first, c);
	default:
		return moves_ask(&b->moves, c);
	}
}
