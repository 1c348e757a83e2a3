/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What asks the user database: apart, so that programs without it can be linked statically. */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

#define ROOM_MAX (1024 * 1024) /* for one entry of the user database */

/* By the user database, absolute, on the heap; NULL when it has none.  In any thread. */
static char *login_home(void)
{
	_cleanup_free_ char *room = NULL;
	struct passwd pw, *found = NULL;

	for (size_t size = 4096; size <= ROOM_MAX; size *= 2) {
		room = xrealloc(room, size);
		if (getpwuid_r(getuid(), &pw, room, size, &found) != ERANGE)
			break;
	}
	return found && pw.pw_dir && *pw.pw_dir == '/' ? xstrdup(pw.pw_dir) : NULL;
}

static char *home_dir(void)
{
	const char *home = getenv("HOME");
	char *login;

	if (home && *home == '/')
		return xstrdup(home);
	login = login_home();
	return login ? login : xstrdup("/");
}

static char *expand(const char *path, const char *home)
{
	if (*path != '~' || (path[1] != '\0' && path[1] != '/'))
		return xstrdup(path);
	return path[1] ? path_join(home, path + 2) : xstrdup(home);
}

char *path_expand_home(const char *path)
{
	_cleanup_free_ char *home = *path == '~' ? home_dir() : NULL;

	return expand(path, home);
}

char *path_expand_login_home(const char *path)
{
	_cleanup_free_ char *home = *path == '~' ? login_home() : NULL;

	return home ? expand(path, home) : path_expand_home(path);
}

static bool overlap(const char *a, const char *b)
{
	return path_is_below(a, b) || path_is_below(b, a);
}

/* What of a home lets who has it act as the user: those that are always meant, and those that
 * are when they are there. */
static const struct {
	const char *path;
	bool always;
} secrets[] = {
	{".ssh", true},
	{".gnupg", true},
	{".aliyun", false},
	{".authinfo", false},
	{".authinfo.gpg", false},
	{".aws", false},
	{".azure", false},
	{".boto", false},
	{".cargo/credentials", false},
	{".cargo/credentials.toml", false},
	{".cloudflared", false},
	{".composer/auth.json", false},
	{".config/chromium", false},
	{".config/composer/auth.json", false},
	{".config/containers/auth.json", false},
	{".config/doctl", false},
	{".config/gcloud", false},
	{".config/gh", false},
	{".config/git/credentials", false},
	{".config/glab-cli", false},
	{".config/google-chrome", false},
	{".config/hcloud", false},
	{".config/heroku", false},
	{".config/hub", false},
	{".config/op", false},
	{".config/pypoetry/auth.toml", false},
	{".config/rclone", false},
	{".config/sops", false},
	{".databrickscfg", false},
	{".docker", false},
	{".fly", false},
	{".gem/credentials", false},
	{".git-credentials", false},
	{".gradle/gradle.properties", false},
	{".kaggle", false},
	{".kube", false},
	{".local/share/keyrings", false},
	{".local/share/kwalletd", false},
	{".m2/settings-security.xml", false},
	{".m2/settings.xml", false},
	{".mozilla", false},
	{".my.cnf", false},
	{".mylogin.cnf", false},
	{".netrc", false},
	{".npmrc", false},
	{".oci", false},
	{".password-store", false},
	{".pgpass", false},
	{".pki", false},
	{".pypirc", false},
	{".s3cfg", false},
	{".step", false},
	{".terraform.d", false},
	{".terraformrc", false},
	{".thunderbird", false},
	{".vault-token", false},
	{".yarnrc.yml", false},
};

/* Where the same is when its user has put it elsewhere: beneath what a variable says. */
static const struct {
	const char *variable, *path;
} moved[] = {
	{"AZURE_CONFIG_DIR", ""}, {"CARGO_HOME", "credentials"}, {"CARGO_HOME", "credentials.toml"},
	{"CLOUDSDK_CONFIG", ""},  {"DOCKER_CONFIG", ""},	 {"GH_CONFIG_DIR", ""},
	{"GNUPGHOME", ""},	  {"PASSWORD_STORE_DIR", ""},
};

/* By another name, which a bind mount makes: is it path, or what that is in? */
static bool is_in_file(const char *path, const struct stat *file)
{
	_cleanup_free_ char *at = xstrdup(path);
	struct stat st;

	for (;;) {
		char *parent;

		if (stat(at, &st) == 0 && stat_is_same_file(&st, file))
			return true;
		if (streq(at, "/"))
			return false;
		parent = path_parent(at);
		free(at);
		at = parent;
	}
}

static bool shows(const char *path, const char *real, const char *secret, bool always)
{
	_cleanup_free_ char *real_secret = NULL;
	struct stat st;

	if (!always && lstat(secret, &st) < 0)
		return false; /* most are not there: one call for each */
	real_secret = realpath(secret, NULL);
	if (overlap(path, secret) || (real && real_secret && overlap(real, real_secret)))
		return true;
	return real && stat(secret, &st) == 0 && is_in_file(real, &st);
}

/* A secret that path shows, of those that are elsewhere than in a home; or NULL. */
static char *moved_secret(const char *path, const char *real, const char *home)
{
	const char *config = getenv("XDG_CONFIG_HOME");

	for (size_t i = 0; i < N_OF(moved); i++) {
		const char *dir = getenv(moved[i].variable);
		_cleanup_free_ char *at = dir && *dir == '/' ? path_clean(dir, moved[i].path)
							     : NULL;

		/* Who says so of a whole home means the files in it. */
		if (at && !streq(at, "/") && !streq(at, home) && shows(path, real, at, false))
			return steal_ptr(&at);
	}
	for (size_t i = 0; config && *config == '/' && i < N_OF(secrets); i++) {
		const char *rest = str_starts(secrets[i].path, ".config/")
					   ? secrets[i].path + strlen(".config/")
					   : NULL;
		_cleanup_free_ char *at = rest ? path_clean(config, rest) : NULL;

		if (at && shows(path, real, at, false))
			return steal_ptr(&at);
	}
	return NULL;
}

char *path_secret(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL), *home = home_dir();
	const struct passwd *pw = getpwuid(getuid());
	/* ssh takes the second, whatever HOME says. */
	const char *const homes[] = {home,
				     pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : home};

	for (size_t h = 0; h < (streq(homes[0], homes[1]) ? 1 : 2); h++) {
		for (size_t i = 0; i < N_OF(secrets); i++) {
			_cleanup_free_ char *secret = path_join(homes[h], secrets[i].path);
			_cleanup_free_ char *clean = path_clean("/", secret);

			if (shows(path, real, clean, secrets[i].always))
				return steal_ptr(&clean);
		}
	}
	return moved_secret(path, real, home);
}

static bool is_own_id(uid_t uid)
{
	if (uid == geteuid())
		return true;
	return geteuid() == 0 && (uid == SANDBOX_UID || uid == SANDBOX_UID_ALT);
}

static int check_cache(const char *path, struct errmsg *msg)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errmsg_set(msg, -errno, "can't use the cache directory %s: %s", path,
				  err_text(-errno));
	if (!S_ISDIR(st.st_mode) || !is_own_id(st.st_uid))
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "the cache directory %s is not ours: set CONCC_CACHE_DIR to one "
				  "that is",
				  path);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "others may write to the cache directory %s: chmod go-w %s", path,
				  path);
	return 0;
}

int cache_dir(char **ret_path, struct errmsg *msg)
{
	const char *set = getenv("CONCC_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME");
	_cleanup_free_ char *path = NULL;
	int r;

	if (set && *set && *set != '/')
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "CONCC_CACHE_DIR is %s; set it to an absolute path", set);
	if (set && *set)
		path = xstrdup(set);
	else if (xdg && *xdg == '/')
		path = path_join(xdg, "concc");
	else
		path = path_expand_home("~/.cache/concc");
	r = path_mkdirs(path, 0700);
	if (r < 0)
		return errmsg_set(msg, r,
				  "can't make the cache directory %s: %s (set CONCC_CACHE_DIR?)",
				  path, err_text(r));
	r = check_cache(path, msg);
	if (r == 0)
		*ret_path = steal_ptr(&path);
	return r;
}

char *cache_dir_of_workers(void)
{
	const char *set = getenv("CONCC_CACHE_DIR");
	_cleanup_free_ char *ours = NULL, *theirs = NULL;

	if (geteuid() != 0 || !set || !*set)
		return NULL;
	ours = xstrdup(set);
	theirs = xasprintf("%s-worker", set);
	return setenv("CONCC_CACHE_DIR", theirs, 1) < 0 ? NULL : steal_ptr(&ours);
}
