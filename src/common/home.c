/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What asks the user database: apart, so that programs without it can be linked statically. */
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

static char *home_dir(void)
{
	const char *home = getenv("HOME");
	struct passwd *pw;

	if (home && *home == '/')
		return xstrdup(home);
	pw = getpwuid(getuid());
	return xstrdup(pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : "/");
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
	const struct passwd *pw = *path == '~' ? getpwuid(getuid()) : NULL;

	return pw && pw->pw_dir && *pw->pw_dir == '/' ? expand(path, pw->pw_dir)
						      : path_expand_home(path);
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
	{".aws", false},
	{".azure", false},
	{".cargo/credentials.toml", false},
	{".config/gcloud", false},
	{".config/gh", false},
	{".config/hub", false},
	{".docker", false},
	{".git-credentials", false},
	{".kube", false},
	{".local/share/keyrings", false},
	{".netrc", false},
	{".password-store", false},
	{".pgpass", false},
	{".pypirc", false},
	{".terraform.d", false},
	{".vault-token", false},
};

/* By another name, which a bind mount makes: is it path, or what that is in? */
static bool is_in_file(const char *path, const struct stat *file)
{
	_cleanup_free_ char *at = xstrdup(path);
	struct stat st;

	for (;;) {
		char *parent;

		if (stat(at, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino)
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
	_cleanup_free_ char *real_secret = realpath(secret, NULL);
	struct stat st;

	if (!always && lstat(secret, &st) < 0)
		return false;
	if (overlap(path, secret) || (real && real_secret && overlap(real, real_secret)))
		return true;
	return real && stat(secret, &st) == 0 && is_in_file(real, &st);
}

char *path_secret(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL), *home = home_dir();
	const struct passwd *pw = getpwuid(getuid());
	/* ssh takes the second, whatever HOME says. */
	const char *const homes[] = {home,
				     pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : home};

	for (size_t h = 0; h < 2; h++) {
		for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
			_cleanup_free_ char *secret = path_join(homes[h], secrets[i].path);
			_cleanup_free_ char *clean = path_clean("/", secret);

			if (shows(path, real, clean, secrets[i].always))
				return steal_ptr(&clean);
		}
	}
	return NULL;
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

	if (set && *set == '/')
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
