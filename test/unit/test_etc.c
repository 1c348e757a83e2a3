/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>

#include "project/etc.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

Test(etc, rules)
{
	static char *const listed[] = {(char *)"foo/bar", (char *)"maven", NULL};
	static const struct {
		const char *path;
		enum etc_rule rule;
	} cases[] = {
		{"", ETC_ON_THE_WAY},
		{"ld.so.cache", ETC_SHOWN},
		{"ssl", ETC_ON_THE_WAY},
		{"ssl/openssl.cnf", ETC_SHOWN},
		{"ssl/certs", ETC_SHOWN},
		{"ssl/certs/java/cacerts", ETC_SHOWN},
		{"ssl/private", ETC_LEFT_OUT},
		{"ssl/openssl.cnf.bak", ETC_LEFT_OUT},
		{"pki", ETC_ON_THE_WAY},
		{"pki/tls", ETC_ON_THE_WAY},
		{"pki/tls/private", ETC_LEFT_OUT},
		{"pki/ca-trust/extracted/pem/tls-ca-bundle.pem", ETC_SHOWN},
		{"ImageMagick-6", ETC_SHOWN},
		{"ImageMagick-6/policy.xml", ETC_SHOWN},
		{"java-17-openjdk/security/java.security", ETC_SHOWN},
		{"python3.11", ETC_SHOWN},
		{"texmf/web2c/texmf.cnf", ETC_SHOWN},
		{"fonts/conf.d", ETC_SHOWN},
		{"terminfo", ETC_SHOWN},
		{"octaverc", ETC_SHOWN},
		{"lcovrc", ETC_SHOWN},
		{"ld-musl-x86_64.path", ETC_SHOWN},
		{"ld-musl-x86_64.d", ETC_LEFT_OUT},
		{"php", ETC_ON_THE_WAY},
		{"php/8.2", ETC_ON_THE_WAY},
		{"php/8.2/cli/php.ini", ETC_SHOWN},
		{"php/8.2/cli/conf.d", ETC_SHOWN},
		{"php/8.2/mods-available/opcache.ini", ETC_SHOWN},
		{"php/8.2/fpm", ETC_LEFT_OUT},
		{"xdg", ETC_ON_THE_WAY},
		{"xdg/QtProject.conf", ETC_SHOWN},
		{"xdg/pip", ETC_LEFT_OUT},
		/* what says who else is here, or may hold a password */
		{"passwd", ETC_LEFT_OUT},
		{"shadow", ETC_LEFT_OUT},
		{"group-", ETC_LEFT_OUT},
		{"machine-id", ETC_LEFT_OUT},
		{"ssh", ETC_LEFT_OUT},
		{"gitconfig", ETC_LEFT_OUT},
		{"npmrc", ETC_LEFT_OUT},
		{"pip.conf", ETC_LEFT_OUT},
		{"krb5.keytab", ETC_LEFT_OUT},
		/* the user's */
		{"maven", ETC_SHOWN},
		{"maven/settings.xml", ETC_SHOWN},
		{"foo", ETC_ON_THE_WAY},
		{"foo/bar/x", ETC_SHOWN},
		{"foo/other", ETC_LEFT_OUT},
		{"mavenx", ETC_LEFT_OUT},
	};

	for (size_t i = 0; i < N_OF(cases); i++)
		cr_assert_eq(etc_rule_of(cases[i].path, listed), cases[i].rule, "%s",
			     cases[i].path);
	cr_assert_eq(etc_rule_of("anything", (char *const[]){(char *)"", NULL}), ETC_SHOWN);
}

Test(etc, keys)
{
	static const struct {
		const char *name, *bytes;
		bool is_private;
	} cases[] = {
		{"a.pem", "-----BEGIN CERTIFICATE-----\n", false},
		{"a.pem", "-----BEGIN PRIVATE KEY-----\n", true},
		{"a.crt", "x\n-----BEGIN RSA PRIVATE KEY-----\n", true},
		{"a.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", true},
		{"id", "-----BEGIN OPENSSH PRIVATE KEY-----\n", true},
		{"site.key", "\1\2", true},
		{"SITE.KEY", "\1\2", true},
		{"a.p12", "\1\2", true},
		{"private", "", true},
		{"keyboard", "", false},
	};

	for (size_t i = 0; i < N_OF(cases); i++)
		cr_assert_eq(etc_is_private(cases[i].name, cases[i].bytes, strlen(cases[i].bytes)),
			     cases[i].is_private, "%s: %s", cases[i].name, cases[i].bytes);
}

/* ---- an /etc of our own ---- */

static char dir[] = "/tmp/concc-test-etc-XXXXXX";

static void put(const char *path, const char *text, mode_t mode)
{
	_cleanup_free_ char *parent = path_parent(path);
	FILE *f;

	cr_assert_eq(path_mkdirs(parent, 0755), 0);
	f = fopen(path, "w");
	cr_assert(f, "%s", path);
	fputs(text, f);
	fclose(f);
	cr_assert_eq(chmod(path, mode), 0);
}

static struct etc *begin(char *const *listed)
{
	struct errmsg msg = {0};
	struct etc *e;
	int fd;

	if (unshare(CLONE_NEWNS) < 0)
		cr_skip_test("needs a mount namespace");
	cr_assert(mkdtemp(dir));
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("etc", "/etc", "tmpfs", 0, NULL), 0);
	put("/etc/ssl/openssl.cnf", "conf", 0644);
	put("/etc/ssl/certs/a.pem", "-----BEGIN CERTIFICATE-----", 0644);
	put("/etc/ssl/private/a.pem", "secret", 0644);
	put("/etc/texmf/texmf.d/a.cnf", "a", 0644);
	put("/etc/texmf/mine", "secret", 0600);
	put("/etc/fonts/fonts.conf", "fonts", 0644);
	put("/etc/mine/a", "a", 0644);
	put("/etc/mine/b.pem", "-----BEGIN RSA PRIVATE KEY-----", 0644);
	put("/etc/nim/nim.cfg", "nim", 0644);
	put("/etc/ldc2.conf", "ldc", 0644);
	put("/etc/sbclrc", "lisp", 0644);
	put("/etc/dpkg/shlibs.default", "", 0644);
	put("/etc/dpkg/secret", "", 0644);
	put("/etc/gitconfig", "secret", 0644);
	put("/etc/passwd", "other:x:1:1::/:/bin/sh", 0644);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	cr_assert_eq(etc_new(dir, fd, listed, &e, &msg), 0, "%s", msg.text);
	close(fd);
	return e;
}

static void end(struct etc *e)
{
	etc_free(e);
	cr_assert_eq(path_remove_tree(AT_FDCWD, dir), 0);
}

static void refresh(struct etc *e)
{
	struct errmsg msg = {0};

	cr_assert_eq(etc_refresh(e, &msg), 0, "%s", msg.text);
}

Test(etc, copies_what_is_for_all)
{
	struct etc *e = begin(NULL);

	cr_assert(etc_shows(e, "/etc"));
	cr_assert(etc_shows(e, "/etc/ssl/openssl.cnf"));
	cr_assert(etc_shows(e, "/etc/ssl/certs/a.pem"));
	cr_assert_not(etc_shows(e, "/etc/ssl/private"));
	cr_assert_not(etc_shows(e, "/etc/gitconfig"));
	cr_assert_not(etc_shows(e, "/etc/mine"));
	/* Compilers' own, whoever they are. */
	cr_assert(etc_shows(e, "/etc/nim/nim.cfg"));
	cr_assert(etc_shows(e, "/etc/ldc2.conf"));
	cr_assert(etc_shows(e, "/etc/sbclrc"));
	cr_assert(etc_shows(e, "/etc/dpkg/shlibs.default"));
	cr_assert_not(etc_shows(e, "/etc/dpkg/secret"));
	cr_assert(etc_shows(e, "/etc/texmf/texmf.d/a.cnf"));
	cr_assert_not(etc_shows(e, "/etc/texmf/mine"));
	cr_assert(etc_shows(e, "/etc/passwd"));
	cr_assert(etc_shows(e, "/etc/ld.so.preload"));
	cr_assert(etc_is_partial(e, "/etc"));
	cr_assert(etc_is_partial(e, "/etc/ssl"));
	cr_assert(etc_is_partial(e, "/etc/texmf"));
	cr_assert_not(etc_is_partial(e, "/etc/ssl/certs"));
	cr_assert_not(etc_is_partial(e, "/etc/texmf/texmf.d"));
	cr_assert_not(etc_is_partial(e, "/etc/fonts"));
	end(e);
}

Test(etc, shows_what_is_listed)
{
	char *const listed[] = {(char *)"/usr/x", (char *)"/etc/mine", NULL};
	struct etc *e = begin(listed);

	cr_assert(etc_shows(e, "/etc/mine/a"));
	cr_assert_not(etc_shows(e, "/etc/mine/b.pem"));
	cr_assert(etc_is_partial(e, "/etc/mine"));
	cr_assert_not(etc_shows(e, "/etc/gitconfig"));
	end(e);
}

static ino_t inode_of(const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/etc/%s", dir, name);
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	return st.st_ino;
}

/* A directory that becomes partial is another one, so that whoever has listed it asks again. */
Test(etc, follows_changes)
{
	struct etc *e = begin(NULL);
	_cleanup_free_ char *held_path = xasprintf("%s/etc/ssl/certs", dir);
	_cleanup_close_ int held = open(held_path, O_PATH); /* so that its number stays taken */
	ino_t certs = inode_of("ssl/certs"), fonts = inode_of("fonts");

	cr_assert_geq(held, 0);
	refresh(e);
	put("/etc/ssl/certs/b.pem", "-----BEGIN PRIVATE KEY-----", 0644);
	put("/etc/fonts/more.conf", "more", 0644);
	refresh(e);
	cr_assert_not(etc_shows(e, "/etc/ssl/certs/b.pem"));
	cr_assert(etc_is_partial(e, "/etc/ssl/certs"));
	cr_assert_neq(inode_of("ssl/certs"), certs);
	cr_assert(etc_shows(e, "/etc/fonts/more.conf"));
	cr_assert_eq(inode_of("fonts"), fonts);
	cr_assert_eq(chmod("/etc/fonts/fonts.conf", 0600), 0);
	cr_assert_eq(unlink("/etc/ssl/certs/b.pem"), 0);
	refresh(e);
	cr_assert_not(etc_shows(e, "/etc/fonts/fonts.conf"));
	cr_assert(etc_is_partial(e, "/etc/fonts"));
	cr_assert_not(etc_is_partial(e, "/etc/ssl/certs"));
	end(e);
}
