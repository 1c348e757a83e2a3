/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/conf.h"
#include "concc/pool.h"
#include "concc/str.h"
#include "conf/parse.h"

static char dir[] = "/tmp/test-conf-XXXXXX";
static char file[64];

static void setup(void)
{
	cr_assert(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/c.ini", dir);
	setenv("HOME", dir, 1);
	unsetenv("CONCC_CONFIG");
	unsetenv("CONCC_WORKERS");
	unsetenv("CONCC_WORKSPACE");
}

static void teardown(void)
{
	char path[64];

	unlink(file);
	snprintf(path, sizeof(path), "%s/.concc.ini", dir);
	unlink(path);
	rmdir(dir);
}

TestSuite(conf, .init = setup, .fini = teardown);

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	cr_assert(f);
	fputs(text, f);
	cr_assert_eq(fclose(f), 0);
}

static struct conf *load_ok(const char *text)
{
	struct conf *c = NULL;
	struct errmsg msg = {0};

	write_text(file, text);
	cr_assert_eq(conf_load(file, &c, &msg), 0, "%s", msg.text);
	return c;
}

Test(conf, everything)
{
	struct conf *c = load_ok("\xEF\xBB\xBF; a comment\n"
				 "# another\n"
				 "[concc] ; the general part\r\n"
				 "workspace = ~/src '/data/my code' \"/it's\" ~/src/ ; read-write\n"
				 "  toolchain = /usr /opt/../opt/gcc//\n"
				 "  local-slots = 2\n"
				 "idle-timeout=1h\n"
				 "straggler-after = 20s\n"
				 "connect-timeout : 5\n"
				 "store-size = 300M\n"
				 "cache = 5G\n"
				 "cache-url = http://cache.example/team/\n"
				 "cache-push = yes\n"
				 "\n"
				 "[worker build1]\n"
				 "address = ssh://me@build1:2222\n"
				 "slots = 32\n"
				 "ssh = openssh\n"
				 "program = /opt/concc/bin/concc-worker\n"
				 "root = worker\n"
				 "job-processes = 500\n"
				 "job-memory = 4G\n"
				 "job-time = 10m\n"
				 "[worker box.2]\n"
				 "command = docker -H ssh://b run \\\n"
				 "\t-i --rm img;x \\  ; more\n"
				 "\t \\\n"
				 "    concc-worker --stdio\n"
				 "[ worker  here ]\n"
				 "address = local:\n"
				 "program = ~/bin/concc-worker");
	const struct conf_worker *w = c->workers;
	char path[64];

	cr_assert_eq(strv_len(c->workspaces), 3);
	snprintf(path, sizeof(path), "%s/src", dir);
	cr_expect_str_eq(c->workspaces[0], path);
	cr_expect_str_eq(c->workspaces[1], "/data/my code");
	cr_expect_str_eq(c->workspaces[2], "/it's");
	cr_assert_eq(strv_len(c->toolchains), 2);
	cr_expect_str_eq(c->toolchains[1], "/opt/gcc");
	cr_expect_eq(c->local_slots, 2);
	cr_expect_eq(c->idle_timeout_s, 3600);
	cr_expect_eq(c->cache_max_bytes, 5ULL << 30);
	cr_expect_str_eq(c->cache_url, "http://cache.example/team");
	cr_expect(c->cache_push);
	cr_expect_eq(c->connect_timeout_s, 5);
	cr_expect_eq(c->straggler_after_s, 20);
	cr_expect_eq(c->store_max_bytes, 300u << 20);
	cr_expect_str_eq(c->path, file);
	cr_assert_eq(c->n_workers, 3);
	cr_assert_eq(c->n_known, 3);
	cr_expect_str_eq(w[0].name, "build1");
	cr_expect_str_eq(w[0].address, "ssh://me@build1:2222");
	cr_expect_eq(w[0].slots, 32);
	cr_expect_eq(w[0].ssh, SSH_OPENSSH);
	cr_expect_str_eq(w[0].worker_program, "/opt/concc/bin/concc-worker");
	cr_expect_eq(w[0].job_processes, 500);
	cr_expect_eq(w[0].job_memory, 4ull << 30);
	cr_expect_eq(w[0].job_time_s, 600);
	cr_expect_str_eq(w[1].name, "box.2");
	cr_expect_null(w[1].address);
	cr_expect_str_eq(w[1].command, "docker -H ssh://b run -i --rm img;x concc-worker --stdio");
	cr_expect_eq(w[1].ssh, SSH_AUTO);
	cr_expect_eq(w[1].root, ROOT_WORKER);
	cr_expect_str_eq(w[2].name, "here");
	snprintf(path, sizeof(path), "%s/bin/concc-worker", dir);
	cr_expect_str_eq(w[2].worker_program, path);
	conf_free(c);
}

/* Each text is wrong; the message is exactly this behind the file's name. */
static const struct {
	const char *text;
	const char *message;
} wrong[] = {
	{"[conc]\nlocal-slots = 1\n",
	 ":1: unknown section [conc]; [concc] and [worker NAME] are; did you mean 'concc'?"},
	{"\n[wroker x]\n",
	 ":2: unknown section [wroker x]; [concc] and [worker NAME] are; did you mean 'worker'?"},
	{"[concc x]\n",
	 ":1: unknown section [concc x]; [concc] and [worker NAME] are; did you mean 'concc'?"},
	{"[concc\n", ":1: a section's name is not closed with ']'"},
	{"[concc] local-slots = 1\n", ":1: text after the section's ']'; put it on the next line"},
	{"local-slots = 1\n",
	 ":1: a key before the first section; begin with [concc] or [worker NAME]"},
	{"[concc]\nlocal-slot = 1\n", ":2: unknown key 'local-slot'; did you mean 'local-slots'?"},
	{"[concc]\nxyzzyplugh = 1\n", ":2: unknown key 'xyzzyplugh'"},
	{"[concc]\nslots = 1\n[worker x]\n",
	 ":2: unknown key 'slots'; it belongs in [worker NAME]"},
	{"[worker x]\naddress = local:\ntoolchain = /opt\n",
	 ":3: unknown key 'toolchain'; it belongs in [concc]"},
	{"[worker x]\naddress = local:\ncache = 5G\n",
	 ":3: unknown key 'cache'; it belongs in [concc]"},
	{"[concc]\n= 1\n", ":2: unknown key ''"},
	{"[concc]\n\n\nlocal-slots\n", ":4: neither [section] nor key = value"},
	{"[concc]\nlocal-slots =\n",
	 ":2: local-slots has no value; remove the line to leave it at its default"},
	{"[concc]\nlocal-slots = ; none\n",
	 ":2: local-slots has no value; remove the line to leave it at its default"},
	{"[concc]\nlocal-slots = -1\n",
	 ":2: local-slots: '-1' is neither auto nor a number from 0 to 1024"},
	{"[concc]\nlocal-slots = 1025\n",
	 ":2: local-slots: '1025' is neither auto nor a number from 0 to 1024"},
	{"[concc]\nlocal-slots = two\n",
	 ":2: local-slots: 'two' is neither auto nor a number from 0 to 1024"},
	{"[concc]\nlocal-slots = 1\n[concc]\nlocal-slots = 2\n",
	 ":4: local-slots is given twice in this section"},
	{"[concc]\nidle-timeout = 15 minutes\n",
	 ":2: idle-timeout: 'minutes' is not a unit of time; s, m and h are (seconds, minutes, hours)"},
	{"[concc]\nidle-timeout = soon\n",
	 ":2: idle-timeout: 'soon' is not a duration; write a number with s, m or h, like 15m"},
	{"[concc]\nconnect-timeout = 0\n", ":2: connect-timeout: '0' is not between 1s and 1h"},
	{"[concc]\nconnect-timeout = 99999999999999999h\n",
	 ":2: connect-timeout: '99999999999999999h' is not between 1s and 1h"},
	{"[concc]\ncache = on\n",
	 ":2: cache: 'on' is not a size; write a number with K, M or G, like 20G"},
	{"[concc]\ncache-url = host/path\n",
	 ":2: cache-url: 'host/path' is no URL; write one like http://host/path, or off"},
	{"[concc]\ncache-url = http://me:secret@host/\n",
	 ":2: cache-url: the name and the password in the URL belong into ~/.netrc"},
	{"[concc]\nstore-size = 20\n",
	 ":2: store-size: 20 bytes is too small; did you mean '20G'?"},
	{"[concc]\ncache = 8M\n", ":2: cache: '8M' is too small; 16M is the least"},
	{"[concc]\nstore-size = 300 K\n", ":2: store-size: '300 K' is too small; 1M is the least"},
	{"[concc]\nstore-size = 20X\n",
	 ":2: store-size: 'X' is not a unit of size; K, M, G and T are (powers of 1024)"},
	{"[concc]\nstore-size = 18446744073709551615T\n",
	 ":2: store-size: '18446744073709551615T' is not a size; write a number with K, M or G, like 20G"},
	{"[concc]\nstore-size = 9000000T\n",
	 ":2: store-size: '9000000T' is larger than anything sensible"},
	{"[concc]\nworkspace = src\n",
	 ":2: workspace: 'src' is not an absolute path; begin it with / or ~/"},
	{"[concc]\nworkspace = /..\n",
	 ":2: workspace: '/..' is the whole file system; name the directories to serve"},
	{"[concc]\nworkspace = /a '/b\n", ":2: workspace: a quote is not closed: '/b"},
	{"[worker]\n", ":1: a worker needs a name: [worker NAME]"},
	{"[worker a b]\n",
	 ":1: 'a b' is no name for a worker; use letters, digits, '.', '_' and '-'"},
	{"[worker ..]\n", ":1: '..' is no name for a worker; begin it with a letter or digit"},
	{"[worker local]\n",
	 ":1: 'local' is this machine itself (see local-slots); choose another name"},
	{"[worker 1234567890123456789012345678901234567890123456789012345678901234]\n",
	 ":1: the worker's name is longer than 63 characters"},
	{"[worker x]\naddress = local:\n\n[worker x]\naddress = local:\n",
	 ":4: worker x has a section already; join them or rename one"},
	{"\n[worker x]\n\n",
	 ":2: worker x has neither address nor command; give it one, like address = ssh://x"},
	{"[worker x]\nslots = 1\n[concc]\n",
	 ":1: worker x has neither address nor command; give it one, like address = ssh://x"},
	{"[worker x]\naddress = local:\ncommand = y\n",
	 ":1: worker x has both address and command; remove one of them"},
	{"[worker x]\naddress local:\n", ":2: there is no '=' after 'address'"},
	{"[worker x]\naddress ssh://x\n", ":2: there is no '=' after 'address'"},
	{"[concc]\nworkspace  /a = 1\n", ":2: there is no '=' after 'workspace'"},
	{"[worker x]\naddress = local: # here\n",
	 ":2: address: 'local: # here' has blanks in it; '#' begins a comment only at the start of a "
	 "line, use ' ;'"},
	{"[concc]\nlocal-slots = 2 # two\n",
	 ":2: local-slots: '2 # two' is neither auto nor a number from 0 to 1024; '#' begins a comment only at the "
	 "start of a line, use ' ;'"},
	{"[worker x]\naddress = \"ssh://x\"\n",
	 ":2: address: '\"ssh://x\"' is no address; write it without quotes"},
	{"[worker x]\naddress = 'local:'\n",
	 ":2: address: ''local:'' is no address; write it without quotes"},
	{"[worker x]\naddress = local:\nslots = \"4\"\n",
	 ":3: slots: '\"4\"' is not a number from 1 to 1024; write it without quotes"},
	{"[concc]\nlocal-slots = '2'\n",
	 ":2: local-slots: ''2'' is neither auto nor a number from 0 to 1024; write it without quotes"},
	{"[worker x]\naddress = ssh:/x\n",
	 ":2: address: 'ssh:/x' is no address; did you mean 'ssh://x'?"},
	{"[worker x]\naddress = ssh:x\n",
	 ":2: address: 'ssh:x' is no address; did you mean 'ssh://x'?"},
	{"[worker x]\naddress = ssh:/\n", ":2: address: 'ssh:/' names no host"},
	{"[worker x]\naddress = ssh://x/path\n",
	 ":2: address: 'ssh://x/path' goes on after the host; remove '/path'"},
	{"[worker x]\naddress = ssh://x/\n",
	 ":2: address: 'ssh://x/' goes on after the host; remove '/'"},
	{"[worker x]\naddress = ssh://::1\n",
	 ":2: address: 'ssh://::1': an IPv6 address stands in brackets: ssh://[::1]"},
	{"[worker x]\naddress = ssh://u@::1\n",
	 ":2: address: 'ssh://u@::1': an IPv6 address stands in brackets: ssh://u@[::1]"},
	{"[worker x]\naddress = ssh://host:22:23\n",
	 ":2: address: 'ssh://host:22:23': a port is a number from 1 to 65535"},
	{"[concc]\nidle-timeout = 1000h\n", ":2: idle-timeout: '1000h' is not between 0s and 720h"},
	{"[worker x]\nadress = local:\n", ":2: unknown key 'adress'; did you mean 'address'?"},
	{"[worker x]\naddress = build1\n",
	 ":2: address: 'build1' is no address; did you mean 'ssh://build1'?"},
	{"[worker x]\naddress = local\n",
	 ":2: address: 'local' is no address; did you mean 'local:'?"},
	{"[worker x]\naddress = http://x\n",
	 ":2: address: 'http://x' is no address; ssh://[user@]host[:port] and local: are"},
	{"[worker x]\naddress = ssh://-oProxyCommand=x\n",
	 ":2: address: 'ssh://-oProxyCommand=x': a name can't begin with '-'"},
	{"[worker x]\naddress = ssh://me@-x\n",
	 ":2: address: 'ssh://me@-x': a name can't begin with '-'"},
	{"[worker x]\naddress = ssh://me:pw@x\n",
	 ":2: address: 'ssh://me:pw@x': before the '@' stands a user's name alone (passwords are never used)"},
	{"[worker x]\naddress = ssh://\n", ":2: address: 'ssh://' names no host"},
	{"[worker x]\naddress = ssh://x:0\n",
	 ":2: address: 'ssh://x:0': a port is a number from 1 to 65535"},
	{"[worker x]\naddress = ssh://x:99999\n",
	 ":2: address: 'ssh://x:99999': a port is a number from 1 to 65535"},
	{"[worker x]\naddress = ssh://:22\n", ":2: address: 'ssh://:22' names no host"},
	{"[worker x]\naddress = ssh://fe80::1\n",
	 ":2: address: 'ssh://fe80::1': an IPv6 address stands in brackets: ssh://[fe80::1]"},
	{"[worker x]\naddress = ssh://x/16\n",
	 ":2: address: 'ssh://x/16' goes on after the host; the number of slots has a key of its own: slots = 16"},
	{"[worker x]\naddress = ssh://x y\n",
	 ":2: address: 'ssh://x y' has blanks in it; a command goes to the key 'command'"},
	{"[worker x]\naddress = local:\nslots = 0\n",
	 ":3: slots: '0' is not a number from 1 to 1024"},
	{"[worker x]\naddress = local:\nssh = opensssh\n",
	 ":3: ssh: 'opensssh' is none of auto, libssh2, openssh; did you mean 'openssh'?"},
	{"[worker x]\naddress = ssh://x\nmirror = sshf\n",
	 ":3: mirror: 'sshf' is none of concc, sshfs, none; did you mean 'sshfs'?"},
	{"[worker x]\nmirror = sshfs\naddress = local:\n",
	 ":1: worker x: mirror = sshfs and mirror = none need an address like ssh://x, since their jobs "
	 "are run by ssh"},
	{"[worker x]\ncommand = run\nmirror = none\n",
	 ":1: worker x: mirror = sshfs and mirror = none need an address like ssh://x, since their jobs "
	 "are run by ssh"},
	{"[worker x]\naddress = ssh://x\ninstall = maybe\n",
	 ":3: install: 'maybe' is none of no, yes"},
	{"[worker x]\naddress = ssh://x\ninstall = yes\nprogram = y\n",
	 ":1: worker x: install = yes puts concc's own concc-worker on a host at an ssh:// address; "
	 "remove it, or program"},
	{"[worker x]\ncommand = y\ninstall = yes\n",
	 ":1: worker x: install = yes puts concc's own concc-worker on a host at an ssh:// address; "
	 "remove it, or command"},
	{"[worker x]\naddress = local:\nroot = clinet\n",
	 ":3: root: 'clinet' is none of worker, client; did you mean 'client'?"},
	{"[worker x]\naddress = local:\ncount = 0\n",
	 ":3: count: '0' is not a number from 1 to 255"},
	{"[worker x]\ncommand = y\ncount = 300\n",
	 ":3: count: '300' is not a number from 1 to 255"},
	{"[worker x]\ncommand = y\ncount = 200\n[worker z]\ncommand = y\ncount = 56\n",
	 ":4: more than 255 workers"},
	{"[worker x-2]\ncommand = y\n[worker x]\ncommand = y\ncount = 2\n",
	 ":3: count = 2 makes a worker x-2, and there is one already"},
	{"[worker x]\ncommand = y\ncount = 2\n[worker x-1]\ncommand = y\n",
	 ":4: worker x-1 has a section already; join them or rename one"},
	{"[worker x]\ncommand = y\ncount = 2\n[worker x]\ncommand = y\n",
	 ":4: worker x has a section already; join them or rename one"},
	{"[worker x]\ncommand = y\nidle-timeout = often\n",
	 ":3: idle-timeout: 'often' is not a duration; write a number with s, m or h, like 15m"},
	{"[worker x]\ncommand = y\nconnect-timeout = 0\n",
	 ":3: connect-timeout: '0' is not between 1s and 1h"},
	/* the first of two mistakes */
	{"[concc]\nidle-timeout = x\nnonsense\n",
	 ":2: idle-timeout: 'x' is not a duration; write a number with s, m or h, like 15m"},
	{"[concc]\nnonsense\nidle-timeout = x\n", ":2: neither [section] nor key = value"},
};

Test(conf, mistakes)
{
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct conf *c = NULL;
		struct errmsg msg = {0};
		char expected[512];
		int r;

		write_text(file, wrong[i].text);
		snprintf(expected, sizeof(expected), "%s%s", file, wrong[i].message);
		r = conf_load(file, &c, &msg);
		cr_expect_eq(r, CONCC_E_CONF, "accepted: %s", wrong[i].text);
		cr_expect_null(c);
		cr_expect_str_eq(msg.text, expected);
	}
}

Test(conf, long_lines)
{
	char text[600] = "[worker x]\ncommand = ";
	struct errmsg msg = {0};
	struct conf *c = NULL;
	size_t n = strlen(text);

	memset(text + n, 'x', 400);
	write_text(file, text);
	cr_expect_eq(conf_load(file, &c, &msg), CONCC_E_CONF);
	cr_expect(strstr(msg.text, ":2: the line is longer than "), "%s", msg.text);
	/* in three parts it is fine */
	memcpy(text + n + 130, "\\\n", 2);
	memcpy(text + n + 260, "\\\n", 2);
	c = load_ok(text);
	cr_expect_eq(strlen(c->workers[0].command), 130 + 1 + 128 + 1 + 138);
	conf_free(c);
}

Test(conf, nul_byte)
{
	static const char text[] = "[concc]\0x";
	struct conf *c = conf_new();
	struct errmsg msg = {0};

	cr_expect_eq(conf_parse_text(c, "f", text, sizeof(text), &msg), CONCC_E_CONF);
	cr_expect_str_eq(msg.text, "f: has a NUL byte in it, so it is not a text file");
	conf_free(c);
}

Test(conf, defaults_without_a_file)
{
	struct conf *c = NULL;
	struct errmsg msg = {0};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	cr_assert_eq(conf_load(NULL, &c, &msg), 0, "%s", msg.text);
	cr_expect_null(c->path);
	cr_expect_eq(strv_len(c->workspaces), 0);
	cr_expect_eq(c->local_slots, CONF_LOCAL_AUTO);
	cr_expect_eq(c->idle_timeout_s, 15 * 60);
	cr_expect_eq(c->connect_timeout_s, 10);
	cr_expect_eq(c->store_max_bytes, 20ULL << 30);
	cr_assert_eq(c->n_workers, 2);
	for (int i = 0; i < 2; i++) {
		cr_expect_str_eq(c->workers[i].name, i ? "local2" : "local1");
		cr_expect_str_eq(c->workers[i].address, "local:");
		cr_expect(c->workers[i].slots >= 1 && c->workers[i].slots <= (cores + 1) / 2);
	}
	conf_free(c);
}

Test(conf, which_file)
{
	struct conf *c = NULL;
	struct errmsg msg = {0};
	char home[64], text[128];

	snprintf(home, sizeof(home), "%s/.concc.ini", dir);
	write_text(home, "[concc]\nlocal-slots = 1\n");
	write_text(file, "[concc]\nlocal-slots = 2\n");
	cr_assert_eq(conf_load(NULL, &c, &msg), 0);
	cr_expect_eq(c->local_slots, 1);
	conf_free(c);
	setenv("CONCC_CONFIG", file, 1);
	cr_assert_eq(conf_load(NULL, &c, &msg), 0);
	cr_expect_eq(c->local_slots, 2);
	conf_free(c);
	cr_assert_eq(conf_load("~/.concc.ini", &c, &msg), 0);
	cr_expect_eq(c->local_slots, 1);
	conf_free(c);
	/* one that was named must be there */
	unlink(file);
	snprintf(text, sizeof(text), "%s: No such file or directory", file);
	cr_expect_eq(conf_load(NULL, &c, &msg), CONCC_E_CONF);
	cr_expect_str_eq(msg.text, text);
	cr_expect_eq(conf_load(dir, &c, &msg), CONCC_E_CONF);
	snprintf(text, sizeof(text), "%s: is a directory, not a file", dir);
	cr_expect_str_eq(msg.text, text);
}

/* Read-only or not: whoever sees the keys has them. */
Test(conf, nothing_shows_keys)
{
	static const char *const bad[] = {"~", "~/.ssh", "~/.ssh/bin", "~/link", "~/.gnupg"};
	static const char *const keys[] = {"toolchain", "workspace"};
	struct conf *c = NULL;
	struct errmsg msg = {0};
	char path[64], text[128];

	snprintf(path, sizeof(path), "%s/.ssh", dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/link", dir);
	cr_assert_eq(symlink(dir, path), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		for (size_t k = 0; k < 2; k++) {
			snprintf(text, sizeof(text), "[concc]\n%s = /usr %s\n", keys[k], bad[i]);
			write_text(file, text);
			cr_expect_eq(conf_load(file, &c, &msg), CONCC_E_CONF, "%s", bad[i]);
			snprintf(text, sizeof(text), ":2: %s: '", keys[k]);
			cr_expect(strstr(msg.text, text), "%s", msg.text);
			cr_expect(strstr(msg.text, " would show workers your keys in /"), "%s",
				  msg.text);
		}
	}
	setenv("CONCC_WORKSPACE", dir, 1);
	write_text(file, "[concc]\n");
	cr_expect_eq(conf_load(file, &c, &msg), CONCC_E_CONF);
	cr_expect(str_starts(msg.text, "CONCC_WORKSPACE: '"), "%s", msg.text);
	unsetenv("CONCC_WORKSPACE");
	setenv("CONCC_TOOLCHAIN", dir, 1);
	write_text(file, "[concc]\n");
	cr_expect_eq(conf_load(file, &c, &msg), CONCC_E_CONF);
	cr_expect(str_starts(msg.text, "CONCC_TOOLCHAIN: '"), "%s", msg.text);
	unsetenv("CONCC_TOOLCHAIN");
	c = load_ok("[concc]\ntoolchain = ~/.sshx ~/opt/gcc\n");
	cr_expect_eq(strv_len(c->toolchains), 2);
	conf_free(c);
}

Test(conf, install)
{
	struct conf *c = load_ok("[worker a]\naddress = ssh://a\n"
				 "[worker b]\naddress = ssh://b\ninstall = yes\n"
				 "[worker c]\naddress = ssh://c\ninstall = no\nprogram = x\n");

	cr_expect_not(c->workers[0].install);
	cr_expect(c->workers[1].install);
	cr_expect_not(c->workers[2].install);
	conf_free(c);
}

Test(conf, whose_root)
{
	struct conf *c = load_ok("[worker a]\naddress = ssh://a\n"
				 "[worker b]\nroot = worker\naddress = ssh://b\n"
				 "[worker c]\ncommand = x\n"
				 "[worker d]\nroot = client\ncommand = x\n"
				 "[worker e]\naddress = local:\n");
	static const enum conf_root want[] = {ROOT_CLIENT, ROOT_WORKER, ROOT_WORKER, ROOT_CLIENT,
					      ROOT_WORKER};
	struct errmsg msg = {0};

	for (size_t i = 0; i < 5; i++)
		cr_expect_eq(c->workers[i].root, want[i], "%s", c->workers[i].name);
	cr_assert_eq(conf_set_workers(c, "local: b other", &msg), 0);
	cr_expect_eq(c->workers[0].root, ROOT_WORKER);
	cr_expect_eq(c->workers[1].root, ROOT_WORKER);
	cr_expect_eq(c->workers[2].root, ROOT_CLIENT);
	conf_free(c);
}

Test(conf, writable_by_everyone)
{
	struct conf *c = NULL;
	struct errmsg msg = {0};

	write_text(file, "[concc]\n");
	cr_assert_eq(chmod(file, 0666), 0);
	cr_expect_eq(conf_load(file, &c, &msg), CONCC_E_CONF);
	cr_expect(strstr(msg.text, "chmod o-w"), "%s", msg.text);
	cr_assert_eq(chmod(file, 0664), 0);
	cr_expect_eq(conf_load(file, &c, &msg), 0);
	conf_free(c);
}

Test(conf, environment_overrides)
{
	struct conf *c;

	setenv("CONCC_WORKSPACE", "/a:~/b c:/a", 1);
	setenv("CONCC_TOOLCHAIN", "/usr:/opt/x", 1);
	setenv("CONCC_LOCAL_SLOTS", "3", 1);
	setenv("CONCC_IDLE_TIMEOUT", "0", 1);
	setenv("CONCC_CONNECT_TIMEOUT", "2m", 1);
	setenv("CONCC_STORE_SIZE", "", 1);
	c = load_ok("[concc]\nworkspace = /z\nlocal-slots = 1\nstore-size = 1G\n");
	cr_assert_eq(strv_len(c->workspaces), 2);
	cr_expect_str_eq(c->workspaces[0], "/a");
	cr_expect(str_ends(c->workspaces[1], "/b c"));
	cr_assert_eq(strv_len(c->toolchains), 2);
	cr_expect_eq(c->local_slots, 3);
	cr_expect_eq(c->idle_timeout_s, 0);
	cr_expect_eq(c->connect_timeout_s, 120);
	cr_expect_eq(c->store_max_bytes, 1ULL << 30, "an empty variable is none");
	conf_free(c);
}

/* The message is all that whoever runs a build sees of the server that did not start. */
Test(conf, a_workspace_that_is_none)
{
	struct errmsg msg = {0};
	char text[256];
	struct conf *c;

	snprintf(text, sizeof(text), "[concc]\nlocal-slots = 1\nworkspace = /usr %s/nope\n", dir);
	c = load_ok(text);
	cr_expect_eq(conf_check_workspaces(c, &msg), CONCC_E_CONF);
	snprintf(text, sizeof(text),
		 "%s:3: can't serve the workspace %s/nope: No such file or directory; make it, or "
		 "correct the list",
		 file, dir);
	cr_expect_str_eq(msg.text, text);
	conf_free(c);
	setenv("CONCC_WORKSPACE", file, 1);
	c = load_ok("[concc]\nworkspace = /nope\n");
	cr_expect_eq(conf_check_workspaces(c, &msg), CONCC_E_CONF);
	snprintf(text, sizeof(text),
		 "CONCC_WORKSPACE: can't serve the workspace %s: Not a directory; correct the list",
		 file);
	cr_expect_str_eq(msg.text, text);
	conf_free(c);
	setenv("CONCC_WORKSPACE", "/usr", 1);
	c = load_ok("[concc]\n");
	cr_expect_eq(conf_check_workspaces(c, &msg), 0);
	conf_free(c);
	unsetenv("CONCC_WORKSPACE");
	c = load_ok("[concc]\n");
	cr_expect_eq(conf_check_workspaces(c, &msg), 0);
	conf_free(c);
}

Test(conf, environment_mistakes)
{
	static const struct {
		const char *name, *value, *message;
	} t[] = {
		{"CONCC_LOCAL_SLOTS", "x",
		 "CONCC_LOCAL_SLOTS: 'x' is neither auto nor a number from 0 to 1024"},
		{"CONCC_WORKSPACE", "/a:b",
		 "CONCC_WORKSPACE: 'b' is not an absolute path; begin it with / or ~/"},
		{"CONCC_WORKERS", "ftp://x",
		 "CONCC_WORKERS: 'ftp://x' is no address; ssh://[user@]host[:port] and local: are"},
		{"CONCC_WORKERS", ", ,", "CONCC_WORKERS: the list names no worker"},
		{"CONCC_WORKERS", "a/0", "CONCC_WORKERS: '0' is not a number from 1 to 1024"},
		{"CONCC_WORKERS", "a/", "CONCC_WORKERS: 'a/' goes on after the host; remove '/'"},
		{"CONCC_WORKERS", "local",
		 "CONCC_WORKERS: 'local' is no address; did you mean 'local:'?"},
		{"CONCC_WORKERS", "a,a", "CONCC_WORKERS: 'a' is listed twice"},
		{"CONCC_WORKERS", "-oX", "CONCC_WORKERS: 'ssh://-oX': a name can't begin with '-'"},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct conf *c = NULL;
		struct errmsg msg = {0};

		setenv(t[i].name, t[i].value, 1);
		cr_expect_eq(conf_load(NULL, &c, &msg), CONCC_E_CONF, "%s", t[i].value);
		cr_expect_str_eq(msg.text, t[i].message);
		unsetenv(t[i].name);
	}
}

static void expect_worker(const struct conf_worker *w, const char *name, const char *address,
			  uint32_t slots)
{
	cr_expect_str_eq(w->name, name);
	cr_expect_str_eq(w->address, address);
	cr_expect_eq(w->slots, slots, "%s: %u", name, w->slots);
}

Test(conf, worker_lists)
{
	struct conf *c;
	struct errmsg msg = {0};

	setenv("CONCC_WORKERS", "local:/4, build1 me@build1:2222/16 ssh://u@h.x:22/8,ssh://[::1]/2",
	       1);
	c = load_ok("[worker build1]\naddress = ssh://real\nslots = 7\nssh = libssh2\n"
		    "[worker h.x]\naddress = local:\n");
	cr_assert_eq(c->n_workers, 5);
	expect_worker(&c->workers[0], "local1", "local:", 4);
	expect_worker(&c->workers[1], "build1", "ssh://real", 7);
	cr_expect_eq(c->workers[1].ssh, SSH_LIBSSH2);
	expect_worker(&c->workers[2], "build1-2", "ssh://me@build1:2222", 16);
	expect_worker(&c->workers[3], "h.x-2", "ssh://u@h.x:22", 8);
	expect_worker(&c->workers[4], "host---1", "ssh://[::1]", 2);

	/* replaces what was in use; the sections can still be named */
	cr_assert_eq(conf_set_workers(c, "build1/9", &msg), 0, "%s", msg.text);
	cr_assert_eq(c->n_workers, 1);
	expect_worker(&c->workers[0], "build1", "ssh://real", 9);
	cr_expect_eq(c->known[0].slots, 7);

	/* a failure leaves the workers alone */
	cr_expect_eq(conf_set_workers(c, "x y/0", &msg), CONCC_E_CONF);
	cr_expect_str_eq(msg.text, "worker list: '0' is not a number from 1 to 1024");
	cr_assert_eq(c->n_workers, 1);

	cr_expect_eq(conf_set_workers(c, "ssh://me@x:22/", &msg), CONCC_E_CONF);
	cr_expect_str_eq(msg.text,
			 "worker list: 'ssh://me@x:22/' goes on after the host; remove '/'");

	cr_assert_eq(conf_set_workers(c, "local:", &msg), 0);
	expect_worker(&c->workers[0], "local1", "local:", 0);
	cr_assert_eq(conf_set_workers(c, "somehost", &msg), 0);
	expect_worker(&c->workers[0], "somehost", "ssh://somehost", 0);
	conf_free(c);
}

Test(conf, many_of_one_section)
{
	struct errmsg msg = {0};
	struct conf *c = load_ok("[worker box]\ncommand = run --name=%n-%n x%n%%\ncount = 3\n"
				 "slots = 2\nidle-timeout = 5m\nconnect-timeout = 1m\n"
				 "[worker node]\naddress = ssh://node%n\ncount = 2\n"
				 "[worker one]\ncommand = date +%n\n");

	cr_assert_eq(c->n_workers, 6);
	cr_expect_str_eq(c->workers[0].name, "box-1");
	cr_expect_str_eq(c->workers[2].name, "box-3");
	cr_expect_str_eq(c->workers[2].command, "run --name=3-3 x3%%");
	cr_expect_eq(c->workers[2].index, 3);
	cr_expect_eq(c->workers[2].slots, 2);
	cr_expect_eq(c->workers[2].idle_timeout_s, 300);
	cr_expect_eq(c->workers[2].connect_timeout_s, 60);
	expect_worker(&c->workers[4], "node-2", "ssh://node2", 0);
	cr_expect_eq(c->workers[4].idle_timeout_s, 0);
	cr_expect_str_eq(c->workers[5].command, "date +%n");
	cr_expect_eq(c->workers[5].index, 0);

	cr_assert_eq(conf_set_workers(c, "box/7 one node-1", &msg), 0, "%s", msg.text);
	cr_assert_eq(c->n_workers, 5);
	cr_expect_str_eq(c->workers[1].name, "box-2");
	cr_expect_eq(c->workers[1].slots, 7);
	cr_expect_str_eq(c->workers[3].name, "one");
	cr_expect_str_eq(c->workers[4].name, "node-1");
	cr_expect_eq(conf_set_workers(c, "box-2 box", &msg), CONCC_E_CONF);
	cr_expect_str_eq(msg.text, "worker list: 'box-2' is listed twice");
	conf_free(c);
}

Test(conf, names_given_to_listed_workers_are_names)
{
	struct conf *c = load_ok("[worker local1]\naddress = local:\n");
	struct errmsg msg = {0};
	char text[200] = "u@";

	memset(text + 2, 'h', 100);
	cr_assert_eq(conf_set_workers(c, "local: me@local x_y@a_b u@[fe80::1%eth0]:22", &msg), 0,
		     "%s", msg.text);
	cr_expect_str_eq(c->workers[0].name, "local2");
	cr_expect_str_eq(c->workers[1].name, "host-local");
	cr_expect_str_eq(c->workers[2].name, "a_b");
	cr_expect_str_eq(c->workers[3].name, "fe80--1-eth0");
	cr_assert_eq(conf_set_workers(c, text, &msg), 0, "%s", msg.text);
	cr_expect(strlen(c->workers[0].name) <= POOL_NAME_MAX);
	conf_free(c);
}

Test(conf, too_many_workers)
{
	struct conf *c = conf_new();
	struct errmsg msg = {0};
	char list[8000] = "";

	for (int i = 0; i < POOL_MEMBERS_MAX - 1; i++)
		strcat(list, "local: ");
	cr_expect_eq(conf_set_workers(c, list, &msg), 0, "%s", msg.text);
	strcat(list, "local: ");
	cr_expect_eq(conf_set_workers(c, list, &msg), CONCC_E_CONF);
	cr_expect_str_eq(msg.text, "worker list: more than 255 workers");
	conf_free(c);
}
