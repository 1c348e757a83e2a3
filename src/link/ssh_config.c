/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "ssh_config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/io.h"
#include "concc/cleanup.h"
#include "concc/str.h"

#define SCHEME	     "ssh://"
#define FILES_MAX    64 /* of identities or known hosts; OpenSSH itself takes 100 identities */
#define HOST_LEN_MAX 255
#define PORT_MAX     65535

/* ---- addresses ---- */

/* What no host or user name has, but a shell or an option parser would take for its own. */
static bool name_is_sane(const char *s, size_t n)
{
	if (n == 0 || n > HOST_LEN_MAX || s[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isgraph((unsigned char)s[i]) || strchr("'\"`$\\;&|<>(){}*?!#/@[]", s[i]))
			return false;
	return true;
}

static int bad_address(const char *address, struct errmsg *msg)
{
	return errmsg_set(msg, CONCC_E_CONF,
			  "address \"%s\": expected ssh://[user@]host[:port] or local:", address);
}

/* The host's end, and where its port starts (NULL when none is given). */
static bool split_port(const char *host, const char **ret_start, size_t *ret_n,
		       const char **ret_port)
{
	const char *end;

	*ret_port = NULL;
	if (*host == '[') {
		end = strchr(host, ']');
		if (!end || (end[1] != '\0' && end[1] != ':'))
			return false;
		*ret_start = host + 1;
		*ret_n = (size_t)(end - host - 1);
		if (end[1] == ':')
			*ret_port = end + 2;
		return true;
	}
	end = strchr(host, ':');
	*ret_start = host;
	*ret_n = end ? (size_t)(end - host) : strlen(host);
	if (end)
		*ret_port = end + 1;
	return true;
}

int ssh_address_parse(const char *address, struct ssh_address *ret, struct errmsg *msg)
{
	const char *rest, *at, *host, *port;
	unsigned long long number = 0;
	size_t n_host, n_user = 0;

	if (!str_starts(address, SCHEME))
		return bad_address(address, msg);
	rest = address + strlen(SCHEME);
	at = strrchr(rest, '@');
	if (at) {
		n_user = (size_t)(at - rest);
		if (!name_is_sane(rest, n_user))
			return bad_address(address, msg);
	}
	if (!split_port(at ? at + 1 : rest, &host, &n_host, &port) || !name_is_sane(host, n_host))
		return bad_address(address, msg);
	if (port && (!str_to_u64(port, PORT_MAX, &number) || number == 0))
		return bad_address(address, msg);
	ret->user = at ? xstrndup(rest, n_user) : NULL;
	ret->host = xstrndup(host, n_host);
	ret->port = (unsigned)number;
	return 0;
}

void ssh_address_release(struct ssh_address *a)
{
	free(a->user);
	free(a->host);
	*a = (struct ssh_address){0};
}

char *ssh_address_words(const struct ssh_address *a)
{
	_cleanup_free_ char *port = a->port ? xasprintf("-p %u ", a->port) : xstrdup("");

	return xasprintf("%s%s%s%s", port, a->user ? a->user : "", a->user ? "@" : "", a->host);
}

/* ---- ssh -G ---- */

static void set(char **field, char *value)
{
	free(*field);
	*field = value;
}

static void unfit(struct ssh_config *c, const char *why)
{
	if (!c->unfit) /* one reason is enough, the first */
		c->unfit = xstrdup(why);
}

/* Files with %h, %u or ${VAR} are expanded by ssh itself only. */
static void add_file(struct ssh_config *c, char ***list, const char *path)
{
	if (streq(path, "none"))
		return;
	if (strchr(path, '%') || strstr(path, "${"))
		unfit(c, "a file name has % or ${} in it");
	else if (strv_len(*list) < FILES_MAX)
		strv_push(list, path_expand_login_home(path));
}

static void add_files(struct ssh_config *c, char ***list, char *value)
{
	char *save = NULL;

	for (char *w = strtok_r(value, " ", &save); w; w = strtok_r(NULL, " ", &save))
		add_file(c, list, w);
}

static bool list_has(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = list; at && *at;) {
		if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0'))
			return true;
		at = strchr(at, ',');
		if (at)
			at++;
	}
	return false;
}

/* A keyword that libssh2 has no answer to, unless its value is this one. */
static const struct {
	const char *key, *harmless, *why;
} unfit_keys[] = {
	{"proxyjump", "none", "ProxyJump is set"},
	{"proxycommand", "none", "ProxyCommand is set"},
	{"certificatefile", "none", "CertificateFile is set"},
	{"pkcs11provider", "none", "PKCS11Provider is set"},
	{"knownhostscommand", "none", "KnownHostsCommand is set"},
	{"pubkeyauthentication", "true", "PubkeyAuthentication is not plain yes"},
	{"hostbasedauthentication", "no", "HostbasedAuthentication is set"},
	{"bindaddress", "", "BindAddress is set"},
	{"bindinterface", "", "BindInterface is set"},
	{"nohostauthenticationforlocalhost", "no", "NoHostAuthenticationForLocalhost is set"},
	{"verifyhostkeydns", "false", "VerifyHostKeyDNS is set"},
	{"revokedhostkeys", "none", "RevokedHostKeys is set"},
};

static bool is_yes(const char *v)
{
	return streq(v, "yes") || streq(v, "true");
}

static void check_unfit(struct ssh_config *c, const char *key, const char *value)
{
	for (size_t i = 0; i < N_OF(unfit_keys); i++) {
		if (!streq(key, unfit_keys[i].key) || streq(value, unfit_keys[i].harmless))
			continue;
		/* ssh prints booleans as yes/no or true/false, by keyword and version. */
		if (streq(unfit_keys[i].harmless, "true")
			    ? is_yes(value)
			    : streq(value, "no") || streq(value, "false"))
			continue;
		unfit(c, unfit_keys[i].why);
	}
	if (streq(key, "preferredauthentications") && !list_has(value, "publickey"))
		unfit(c, "PreferredAuthentications has no publickey");
}

static void set_number(unsigned *field, const char *value)
{
	unsigned long long n;

	if (str_to_u64(value, PORT_MAX, &n))
		*field = (unsigned)n;
}

static void take_agent(struct ssh_config *c, const char *value)
{
	if (streq(value, "SSH_AUTH_SOCK"))
		set(&c->identity_agent, NULL);
	else if (value[0] == '$' || strchr(value, '%'))
		unfit(c, "IdentityAgent has % or $ in it");
	else
		set(&c->identity_agent, path_expand_login_home(value));
}

/* "ask" and "true" let a person or nobody decide. */
static void take_strictness(struct ssh_config *c, const char *value)
{
	c->takes_changed_keys = streq(value, "false") || streq(value, "no") || streq(value, "off");
	c->takes_new_keys = c->takes_changed_keys || streq(value, "accept-new");
}

static void take_line(struct ssh_config *c, const char *key, char *value)
{
	const struct {
		const char *key;
		char **field;
	} strings[] = {
		{"hostname", &c->hostname},
		{"user", &c->user},
		{"hostkeyalias", &c->host_key_alias},
		{"hostkeyalgorithms", &c->host_key_algorithms},
		{"kexalgorithms", &c->kex_algorithms},
		{"ciphers", &c->ciphers},
		{"macs", &c->macs},
		{"addressfamily", &c->address_family},
	};

	for (size_t i = 0; i < N_OF(strings); i++)
		if (streq(key, strings[i].key))
			set(strings[i].field, xstrdup(value));
	if (streq(key, "port"))
		set_number(&c->port, value);
	else if (streq(key, "identitiesonly"))
		c->identities_only = is_yes(value);
	else if (streq(key, "checkhostip"))
		c->checks_address = is_yes(value);
	else if (streq(key, "stricthostkeychecking"))
		take_strictness(c, value);
	else if (streq(key, "identityagent"))
		take_agent(c, value);
	else if (streq(key, "identityfile"))
		add_file(c, &c->identity_files, value);
	else if (streq(key, "userknownhostsfile") || streq(key, "globalknownhostsfile"))
		add_files(c, &c->known_hosts_files, value);
	else
		check_unfit(c, key, value);
}

void ssh_config_parse(const char *text, size_t n, struct ssh_config *ret)
{
	char *copy = xstrndup(text, n), *save = NULL;

	*ret = (struct ssh_config){.port = 22};
	for (char *line = strtok_r(copy, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save)) {
		char *space = strchr(line, ' ');

		if (!space)
			continue;
		*space = '\0';
		take_line(ret, line, space + 1);
	}
	free(copy);
}

void ssh_config_release(struct ssh_config *c)
{
	free(c->hostname);
	free(c->user);
	free(c->host_key_alias);
	free(c->identity_agent);
	strv_free(c->identity_files);
	strv_free(c->known_hosts_files);
	free(c->host_key_algorithms);
	free(c->kex_algorithms);
	free(c->ciphers);
	free(c->macs);
	free(c->address_family);
	free(c->unfit);
	*c = (struct ssh_config){0};
}

char *list_common(const char *ours, const char *theirs)
{
	char *copy = xstrdup(ours), *save = NULL, *out;
	struct buf b = BUF_INIT;

	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save))
		if (!theirs || list_has(theirs, w))
			buf_putf(&b, "%s%s", b.len ? "," : "", w);
	out = xstrdup(buf_cstr(&b));
	buf_release(&b);
	free(copy);
	return out;
}
