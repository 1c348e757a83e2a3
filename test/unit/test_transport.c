/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Addresses, what ssh and ssh-keygen print, spawned workers, and connections that do not come
 * about. test/integration/transport.sh goes on with a real sshd. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../link/echo.h"
#include "../link/reap.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "link/known_hosts.h"
#include "link/spawn.h"
#include "link/ssh_config.h"
#include "link/ssh_key.h"

#define WAIT_MS 60000 /* only ever reached by a failing test */
#define PEER	"CONCC_TEST_PEER=echo"

/* This program is its own far end, when it is started as one. */
__attribute__((constructor)) static void be_a_peer(void)
{
	if (getenv("CONCC_TEST_PEER"))
		_exit(echo_main());
}

static void self_path(char *buf, size_t n)
{
	ssize_t len = readlink("/proc/self/exe", buf, n - 1);

	cr_assert_gt(len, 0);
	buf[len] = '\0';
}

static int count_dir(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ---- addresses ---- */

static int parse(const char *address, const char *user, const char *host, unsigned port)
{
	struct ssh_address a;
	struct errmsg msg;

	if (ssh_address_parse(address, &a, &msg) < 0) {
		cr_assert(strstr(msg.text, "expected ssh://"), "%s", msg.text);
		return -1;
	}
	cr_assert_str_eq(a.host, host);
	cr_assert_eq(a.port, port);
	cr_assert((!user && !a.user) || (user && a.user && streq(a.user, user)));
	ssh_address_release(&a);
	return 0;
}

Test(transport, addresses)
{
	static const char *const bad[] = {
		"",
		"host",
		"http://host",
		"ssh://",
		"ssh://@host",
		"ssh://host:",
		"ssh://host:0",
		"ssh://h:65536",
		"ssh://h:22x",
		"ssh://-oX",
		"ssh://h/x",
		"ssh://a b",
		"ssh://-l@h",
		"ssh://[::1",
		"ssh://[::1]x",
		"ssh://[]:22",
		"ssh://$(id)",
		"ssh://a\nb",
		"ssh://u;x@h",
		"ssh://`x`",
		"ssh://a'b",
		"ssh://h:22:23",
		"ssh://\xc3\xa4",
		"ssh://user@@ho",
		"ssh://h#x",
	};

	cr_assert_eq(parse("ssh://build1", NULL, "build1", 0), 0);
	cr_assert_eq(parse("ssh://me@build1.example.org:2222", "me", "build1.example.org", 2222),
		     0);
	cr_assert_eq(parse("ssh://[fe80::1]:22", NULL, "fe80::1", 22), 0);
	cr_assert_eq(parse("ssh://u@[::1]", "u", "::1", 0), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(parse(bad[i], NULL, "", 0), -1, "%s", bad[i]);
}

static void expect_words(const char *address, const char *expected)
{
	struct ssh_address a;
	struct errmsg msg;
	char *words;

	cr_assert_eq(ssh_address_parse(address, &a, &msg), 0);
	words = ssh_address_words(&a);
	cr_expect_str_eq(words, expected);
	free(words);
	ssh_address_release(&a);
}

Test(transport, an_address_as_a_person_types_it)
{
	expect_words("ssh://build1", "build1");
	expect_words("ssh://root@127.0.0.1:28222", "-p 28222 root@127.0.0.1");
	expect_words("ssh://build1:22", "-p 22 build1");
	expect_words("ssh://u@[::1]", "u@::1");
}

/* ---- ssh -G ---- */

static const char plain_config[] = "host box\nuser me\nhostname 10.0.0.1\nport 2222\n"
				   "identitiesonly no\nproxyusefdpass no\n"
				   "pubkeyauthentication true\nhostbasedauthentication no\n"
				   "nohostauthenticationforlocalhost no\nverifyhostkeydns false\n"
				   "identityfile ~/.ssh/id_a\nidentityfile /keys/b\n"
				   "userknownhostsfile /k/1 /k/2\nglobalknownhostsfile /etc/k\n"
				   "ciphers aes128-ctr,aes256-ctr\ngssapiauthentication yes\n";

Test(transport, plain_ssh_config)
{
	const struct passwd *pw = getpwuid(getuid());
	_cleanup_free_ char *key = pw ? path_join(pw->pw_dir, ".ssh/id_a") : NULL;
	struct ssh_config c;

	/* ssh goes by the password file. */
	setenv("HOME", "/home/me", 1);
	cr_assert(key);
	ssh_config_parse(plain_config, strlen(plain_config), &c);
	cr_assert_str_eq(c.hostname, "10.0.0.1");
	cr_assert_str_eq(c.user, "me");
	cr_assert_eq(c.port, 2222);
	cr_assert_eq(strv_len(c.identity_files), 2);
	cr_assert_str_eq(c.identity_files[0], key);
	cr_assert_eq(strv_len(c.known_hosts_files), 3);
	cr_assert_str_eq(c.known_hosts_files[2], "/etc/k");
	cr_assert_null(c.unfit, "%s", c.unfit);
	cr_assert_not(c.identities_only);
	ssh_config_release(&c);
}

Test(transport, what_libssh2_can_not_do)
{
	static const char *const lines[] = {
		"proxyjump other",
		"proxycommand nc %h %p",
		"certificatefile ~/.ssh/x-cert.pub",
		"pkcs11provider /usr/lib/x.so",
		"pubkeyauthentication no",
		"pubkeyauthentication false",
		"hostbasedauthentication yes",
		"verifyhostkeydns true",
		"bindaddress 10.0.0.2",
		"knownhostscommand /usr/bin/x",
		"revokedhostkeys /etc/r",
		"identityfile ~/.ssh/%r",
		"userknownhostsfile ${X}/k",
		"preferredauthentications gssapi-with-mic",
		"identityagent $X",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		char *text = xasprintf("%s%s\n", plain_config, lines[i]);
		struct ssh_config c;

		ssh_config_parse(text, strlen(text), &c);
		cr_assert_not_null(c.unfit, "%s", lines[i]);
		ssh_config_release(&c);
		free(text);
	}
}

Test(transport, what_this_ssh_prints_by_default_is_fit)
{
	static const char *const argv[] = {"ssh", "-G", "-F", "/dev/null", "--", "somehost", NULL};
	int status, never[2];
	struct ssh_config c;
	struct buf out = BUF_INIT;

	cr_assert_eq(pipe2(never, O_CLOEXEC), 0);
	cr_assert_eq(spawn_capture((char *const *)argv, 1 << 20, now_ms() + WAIT_MS, never[0], &out,
				   &status),
		     0);
	cr_assert_eq(status, 0);
	ssh_config_parse(buf_cstr(&out), out.len, &c);
	cr_assert_str_eq(c.hostname, "somehost");
	cr_assert_null(c.unfit, "%s", c.unfit);
	cr_assert_gt(strv_len(c.identity_files), 0);
	ssh_config_release(&c);
	buf_release(&out);
}

Test(transport, lists_in_our_order)
{
	char *s = list_common("a,bb,c", "c,b,bb");

	cr_assert_str_eq(s, "bb,c");
	free(s);
	s = list_common("a", "");
	cr_assert_str_eq(s, "");
	free(s);
}

/* ---- keys and known hosts ---- */

Test(transport, base64_both_ways)
{
	static const char *const text[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE="};
	struct buf b = BUF_INIT, back = BUF_INIT;

	for (size_t i = 0; i < 6; i++) {
		buf_reset(&b);
		buf_reset(&back);
		base64_put(&b, "fooba", i);
		cr_assert_str_eq(buf_cstr(&b), text[i]);
		base64_get(&back, (const char *)b.data, b.len);
		cr_assert_eq(back.len, i);
		cr_assert(i == 0 || memcmp(back.data, "fooba", i) == 0);
	}
	buf_release(&b);
	buf_release(&back);
}

static void make_key(const char *path, const char *type, const char *pass)
{
	const char *const argv[] = {"ssh-keygen", "-q", "-t", type, "-N", pass, "-f", path, NULL};
	int status, never[2];
	struct buf out = BUF_INIT;

	cr_assert_eq(pipe2(never, O_CLOEXEC), 0);
	cr_assert_eq(spawn_capture((char *const *)argv, 1 << 20, now_ms() + WAIT_MS, never[0], &out,
				   &status),
		     0);
	cr_assert_eq(status, 0, "%s", buf_cstr(&out));
	buf_release(&out);
}

static void check_key(const char *dir, const char *type, const char *pass, const char *want)
{
	char *path = path_join(dir, "key"), *public = xasprintf("%s.pub", path);
	struct ssh_key_file k, again;

	make_key(path, type, pass);
	cr_assert_eq(ssh_key_look(path, &k), 0);
	cr_assert_str_eq(k.type, want);
	cr_assert_eq(k.encrypted, *pass != '\0');
	cr_assert_not_null(k.public);
	/* The private file says the same by itself. */
	cr_assert_eq(unlink(public), 0);
	cr_assert_eq(ssh_key_look(path, &again), 0);
	cr_assert_str_eq(again.public, k.public);
	unlink(path);
	ssh_key_file_release(&k);
	ssh_key_file_release(&again);
	free(path);
	free(public);
}

Test(transport, key_files_are_told_apart)
{
	char dir[] = "/tmp/concc-test-XXXXXX";
	struct ssh_key_file k;

	cr_assert_not_null(mkdtemp(dir));
	check_key(dir, "ed25519", "", "ssh-ed25519");
	check_key(dir, "rsa", "secret", "ssh-rsa");
	check_key(dir, "ecdsa", "", "ecdsa-sha2-nistp256");
	cr_assert_eq(ssh_key_look("/nonexistent", &k), -ENOENT);
	cr_assert_eq(rmdir(dir), 0);
}

static const char found[] = "# Host h found: line 7 \n"
			    "h ssh-ed25519 AAAA comment\n"
			    "# Host h found: line 9 CA\n"
			    "@cert-authority *.h ssh-rsa CCCC\n"
			    "# Host h found: line 12 REVOKED\n"
			    "@revoked h ssh-ed25519 RRRR\n"
			    "# Host h found: line 13 \n"
			    "|1|salt=|hash= ssh-rsa BBBB\n"
			    "# Host h found: line 14 \n"
			    "h ssh-rsa\n"
			    "# Host h found: line 15 \n"
			    "@odd h ssh-rsa DDDD\n";

Test(transport, known_hosts_decide)
{
	struct known_hosts k = {0};
	const struct known_key *e;
	struct buf algs = BUF_INIT;

	known_hosts_parse(&k, "/k", found, strlen(found));
	cr_assert_eq(k.n, 4);
	cr_assert_eq(known_hosts_check(&k, "ssh-ed25519", "AAAA", &e), KNOWN_OK);
	cr_assert_eq(known_hosts_check(&k, "ssh-rsa", "BBBB", &e), KNOWN_OK);
	cr_assert_eq(e->line, 13);
	cr_assert_eq(known_hosts_check(&k, "ssh-ed25519", "XXXX", &e), KNOWN_CHANGED);
	cr_assert_eq(e->line, 7);
	cr_assert_str_eq(e->file, "/k");
	cr_assert_eq(known_hosts_check(&k, "ssh-ed25519", "RRRR", &e), KNOWN_REVOKED);
	cr_assert_eq(e->line, 12);
	/* An authority's key is no host's key, and a key of another type is no match. */
	cr_assert_eq(known_hosts_check(&k, "ssh-rsa", "CCCC", &e), KNOWN_CHANGED);
	cr_assert_eq(known_hosts_check(&k, "ssh-rsa", "AAAA", &e), KNOWN_CHANGED);
	known_hosts_algorithms(&k, &algs);
	cr_assert_str_eq(buf_cstr(&algs), "ssh-ed25519,rsa-sha2-512,rsa-sha2-256,ssh-rsa");
	buf_release(&algs);
	known_hosts_release(&k);
	cr_assert_eq(known_hosts_check(&k, "ssh-rsa", "A", &e), KNOWN_UNKNOWN);
}

/* ---- connections ---- */

struct near {
	struct loop *loop;
	struct link *link;
	struct stream *stream; /* kept without a link */
	int connected, failed, closed, err;
	bool keep_stream;
	char how[256], text[1024];
	struct buf got;
};

static int near_message(void *data, uint8_t type, struct blob p)
{
	struct near *n = data;

	buf_append(&n->got, p.p, p.n);
	loop_quit(n->loop);
	return 0;
}

static void near_closed(void *data, int err, const char *text)
{
	struct near *n = data;

	n->closed++;
	n->err = err;
	snprintf(n->text, sizeof(n->text), "%s", text);
	loop_quit(n->loop);
}

static void near_connected(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	static const struct link_ops ops = {.message = near_message, .closed = near_closed};
	static const struct link_config conf = {.end = LINK_CLIENT};
	struct near *n = data;

	snprintf(n->how, sizeof(n->how), "%s", how);
	if (err < 0) {
		n->failed++;
		n->err = err;
		snprintf(n->text, sizeof(n->text), "%s", msg);
		loop_quit(n->loop);
		return;
	}
	n->connected++;
	if (n->keep_stream) {
		n->stream = s;
		loop_quit(n->loop);
		return;
	}
	n->link = link_new(n->loop, s, &conf, &ops, n);
	link_send(n->link, MSG_JOB, LINK_PRIO, "echo", 4);
}

static void too_late(void *data)
{
	fprintf(stderr, "the loop did not end in time\n");
	abort();
}

static void run(struct loop *l)
{
	struct loop_source *t = loop_add_timer(l, WAIT_MS, too_late, NULL);

	cr_assert_eq(loop_run(l), 0);
	loop_remove(t);
}

static void attempt(struct near *n, const struct transport_config *conf)
{
	if (!n->loop)
		cr_assert_eq(loop_new(&n->loop), 0);
	(void)transport_connect(n->loop, conf, near_connected, n);
	run(n->loop);
}

static void finish(struct near *n)
{
	link_free(n->link);
	stream_free(n->stream);
	reap_children(n->loop);
	loop_free(n->loop);
	buf_release(&n->got);
}

Test(transport, a_command_carries_a_link)
{
	char self[4096];
	struct near n = {0};
	int fds = count_dir("/proc/self/fd");
	char *command;

	self_path(self, sizeof(self));
	command = xasprintf("echo hello from a shell; echo warning >&2; " PEER " exec %s", self);
	attempt(&n, &(struct transport_config){.name = "w", .command = command});
	cr_assert_eq(n.connected, 1);
	cr_assert_eq(n.closed, 0, "%s", n.text);
	cr_assert_str_eq(n.how, "command");
	cr_assert_str_eq(buf_cstr(&n.got), "echo");
	finish(&n);
	cr_assert_eq(count_dir("/proc/self/fd"), fds);
	free(command);
}

Test(transport, local_starts_a_program)
{
	char self[4096];
	struct near n = {0};

	self_path(self, sizeof(self));
	setenv("CONCC_TEST_PEER", "echo", 1);
	attempt(&n, &(struct transport_config){
			    .name = "w", .address = "local:", .worker_program = self});
	cr_assert_str_eq(n.how, "local");
	cr_assert_str_eq(buf_cstr(&n.got), "echo", "%s", n.text);
	finish(&n);
}

Test(transport, what_does_not_start_fails)
{
	struct near n = {0};

	attempt(&n, &(struct transport_config){
			    .name = "w", .address = "local:", .worker_program = "/nonexistent/w"});
	cr_assert_eq(n.err, -ENOENT);
	cr_assert(strstr(n.text, "/nonexistent/w"), "%s", n.text);
	cr_assert(strstr(n.text, "; correct `program`"), "%s", n.text);
	attempt(&n, &(struct transport_config){.name = "w", .address = "ftp://x"});
	cr_assert_eq(n.err, CONCC_E_CONF);
	attempt(&n, &(struct transport_config){.name = "w"});
	cr_assert_eq(n.err, CONCC_E_CONF);
	attempt(&n, &(struct transport_config){
			    .name = "w", .address = "ssh://h", .ssh_program = "/nonexistent/ssh"});
	cr_assert_eq(n.err, -ENOENT);
	cr_assert(strstr(n.text, "/nonexistent/ssh"), "%s", n.text);
	cr_assert_eq(n.failed, 4);
	finish(&n);
}

Test(transport, how_a_command_ended_is_told)
{
	struct near n = {0};

	attempt(&n, &(struct transport_config){
			    .name = "w", .command = "printf 'a\\nb\\nc\\033\\r\\nd' >&2; exit 3"});
	cr_assert_eq(n.err, CONCC_E_CLOSED);
	cr_assert(strstr(n.text, "exit status 3: \"b; c\\x1b; d\""), "%s", n.text);
	finish(&n);
	n = (struct near){0};
	attempt(&n, &(struct transport_config){.name = "w", .command = "kill -9 $$"});
	cr_assert(strstr(n.text, "killed by signal 9"), "%s", n.text);
	finish(&n);
	n = (struct near){0};
	attempt(&n, &(struct transport_config){.name = "w", .command = "concc-none --stdio"});
	cr_assert(strstr(n.text, "exit status 127"), "%s", n.text);
	cr_assert(strstr(n.text, "install concc-worker"), "%s", n.text);
	finish(&n);
}

/* Its output ended, it lives on: the end is told without its status, and it is ended. */
Test(transport, a_command_that_only_closes_its_output)
{
	struct near n = {0};

	attempt(&n,
		&(struct transport_config){
			.name = "w",
			.command = "echo closing >&2; exec >&-; trap '' TERM; read x; read y <&2"});
	cr_assert_eq(n.closed, 1);
	cr_assert(strstr(n.text, "\"closing\""), "%s", n.text);
	cr_assert_not(strstr(n.text, "exit status"), "%s", n.text);
	finish(&n);
}

/* A stderr that nobody wants must not stop the work, nor grow. */
Test(transport, a_flood_on_stderr_is_drained)
{
	char self[4096];
	struct near n = {0};
	char *command;

	self_path(self, sizeof(self));
	command = xasprintf("head -c 3000000 /dev/zero | tr '\\0' x >&2; " PEER " exec %s", self);
	attempt(&n, &(struct transport_config){.name = "w", .command = command});
	cr_assert_str_eq(buf_cstr(&n.got), "echo", "%s", n.text);
	finish(&n);
	free(command);
}

/* Starts a command that says "up" on fd 3, frees its stream, and waits until no process of its
 * group holds fd 3 any more. */
static void check_all_gone(const char *script)
{
	struct near n = {.keep_stream = true};
	char dir[] = "/tmp/concc-test-XXXXXX";
	char *fifo, *never, *command;
	struct pollfd p = {.events = POLLIN};
	char text[16];
	ssize_t got;

	cr_assert_not_null(mkdtemp(dir));
	fifo = path_join(dir, "up");
	never = path_join(dir, "never");
	cr_assert_eq(mkfifo(fifo, 0600) + mkfifo(never, 0600), 0);
	p.fd = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	command = xasprintf("cd %s; exec 3>up; %s", dir, script);
	attempt(&n, &(struct transport_config){.name = "w", .command = command});
	cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
	cr_assert_eq(read(p.fd, text, 3), 3);
	finish(&n);
	do {
		cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
		got = read(p.fd, text, sizeof(text));
	} while (got > 0);
	cr_assert_eq(got, 0);
	close(p.fd);
	unlink(fifo);
	unlink(never);
	rmdir(dir);
	free(fifo);
	free(never);
	free(command);
}

Test(transport, a_freed_stream_takes_its_group_along)
{
	check_all_gone("(trap '' TERM; echo up >&3; read x <never) & read y <never");
}

Test(transport, what_ignores_to_be_ended_is_killed)
{
	check_all_gone("trap '' TERM; echo up >&3; read y <never");
}

Test(transport, children_inherit_nothing)
{
	struct near n = {0};
	int leak = open("/dev/null", O_RDONLY); /* without CLOEXEC, as a careless library would */
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* glibc itself ignores two signals of its own in what it spawns: 32 and 33.  The mask is
	 * read by what the shell becomes, since a shell that waits for a child has one of its own.
	 */
	attempt(&n, &(struct transport_config){
			    .name = "w",
			    .command = "ls /proc/$$/fd >&2; exec >&2; exec "
				       "sed -n 's/^Sig\\(Blk\\|Ign\\):.*\\(.......\\)$/\\1 \\2/p' "
				       "/proc/self/status"});
	cr_assert(strstr(n.text, "exit status 0: \"2; Blk 0000000; Ign 0000000\""), "%s", n.text);
	close(leak);
	finish(&n);
}

/* A port that accepts and says nothing. */
static int silent_port(char *address, size_t n)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(fd, (struct sockaddr *)&sin, len), 0);
	cr_assert_eq(listen(fd, 5), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	snprintf(address, n, "ssh://127.0.0.1:%u", ntohs(sin.sin_port));
	return fd;
}

Test(transport, a_silent_host_times_out)
{
	struct near n = {0};
	char address[64];
	int fd = silent_port(address, sizeof(address));

	attempt(&n,
		&(struct transport_config){.name = "w", .address = address, .timeout_ms = 1000});
	cr_assert_eq(n.failed, 1);
	cr_assert_eq(n.err, CONCC_E_TIMEOUT, "%s", n.text);
	cr_assert(strstr(n.text, address), "%s", n.text);
	close(fd);
	finish(&n);
}

static void never_connected(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	cr_assert_fail("called after cancel: %s", msg);
}

Test(transport, a_cancelled_attempt_calls_nobody)
{
	struct near n = {0};
	char address[64];
	int fd = silent_port(address, sizeof(address)), peer;
	struct connecting *c;
	struct pollfd p = {.events = POLLIN};
	char buf[256];
	ssize_t got;

	cr_assert_eq(loop_new(&n.loop), 0);
	c = transport_connect(n.loop, &(struct transport_config){.name = "w", .command = "exit 1"},
			      never_connected, NULL);
	transport_cancel(c);
	c = transport_connect(n.loop, &(struct transport_config){.name = "w", .address = address},
			      never_connected, NULL);
	loop_add_fd(n.loop, fd, LOOP_READ, (loop_fd_fn)(void (*)(void))loop_quit, n.loop);
	run(n.loop); /* until the thread has connected */
	peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(peer, 0);
	transport_cancel(c);
	/* The thread gives up at once, long before its time-out: its socket closes. */
	p.fd = peer;
	do {
		cr_assert_eq(poll(&p, 1, 20000), 1);
		got = read(peer, buf, sizeof(buf));
	} while (got > 0);
	close(peer);
	close(fd);
	reap_children(n.loop);
	loop_free(n.loop);
}
