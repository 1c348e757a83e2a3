/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * What ssh and ssh-keygen print, and addresses.  The first byte chooses: 0 an
 * answer of `ssh-keygen -F`, 1 of `ssh -G`, 2 an address, 3 two lists.
 */
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "link/known_hosts.h"
#include "link/ssh_config.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool is_word(const char *s)
{
	return *s && !strpbrk(s, " \t\r\n");
}

/* A key that is revoked is never accepted, one that only an authority has neither. */
static void check_verdicts(const struct known_hosts *k)
{
	for (size_t i = 0; i < k->n; i++) {
		const struct known_key *e = &k->keys[i], *by;
		enum known_verdict v = known_hosts_check(k, e->type, e->key, &by);

		CHECK(!e->revoked || v == KNOWN_REVOKED);
		CHECK(e->revoked || e->authority || v == KNOWN_OK || v == KNOWN_REVOKED);
		CHECK(v == KNOWN_UNKNOWN || v == KNOWN_AUTHORITY || by);
		CHECK(is_word(e->type) && is_word(e->key) && streq(e->file, "file"));
		CHECK(known_hosts_check(k, e->type, "no base64!", &by) != KNOWN_OK);
	}
}

static void known(const char *text, size_t n)
{
	_cleanup_buf_ struct buf algorithms = BUF_INIT;
	struct known_hosts k = {0};

	known_hosts_parse(&k, "file", text, n);
	known_hosts_parse(&k, "file", text, n);
	CHECK(k.n <= 256);
	check_verdicts(&k);
	known_hosts_algorithms(&k, &algorithms);
	CHECK(!strpbrk(buf_cstr(&algorithms), " \t\r\n"));
	known_hosts_release(&k);
}

static void config(const char *text, size_t n)
{
	struct ssh_config c;

	ssh_config_parse(text, n, &c);
	CHECK(c.port <= 65535);
	CHECK(strv_len(c.identity_files) <= 64 && strv_len(c.known_hosts_files) <= 64);
	for (char **f = c.known_hosts_files; f && *f; f++)
		CHECK(!strchr(*f, '%'));
	ssh_config_release(&c);
}

/* Whatever it is: nothing that a shell or an option parser would take for its own. */
static void address(const char *text)
{
	struct ssh_address a;
	struct errmsg msg = {0};

	if (ssh_address_parse(text, &a, &msg) < 0) {
		CHECK(*msg.text);
		return;
	}
	CHECK(a.host[0] && a.host[0] != '-' && !strpbrk(a.host, " '\"`$\\;&|<>()@/"));
	CHECK(!a.user || (a.user[0] && a.user[0] != '-' && !strpbrk(a.user, " '\"`$\\;&|<>()@/")));
	CHECK(a.port <= 65535);
	ssh_address_release(&a);
}

static void lists(const char *text)
{
	const char *half = text + strlen(text) / 2;
	_cleanup_free_ char *common = list_common(text, half), *all = list_common(text, NULL);

	CHECK(strlen(common) <= strlen(text) && strlen(all) <= strlen(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = NULL;

	if (n < 1)
		return 0;
	text = xstrndup((const char *)data + 1, n - 1);
	switch (data[0]) {
	case 0:
		known((const char *)data + 1, n - 1);
		break;
	case 1:
		config((const char *)data + 1, n - 1);
		break;
	case 2:
		address(text);
		break;
	case 3:
		lists(text);
		break;
	}
	return 0;
}
