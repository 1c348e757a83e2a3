/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What asks the user database: apart, so that programs without it can be linked statically. */
#include <pwd.h>
#include <stdlib.h>
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

char *path_secret(const char *path)
{
	static const char *const secrets[] = {".ssh", ".gnupg"};
	_cleanup_free_ char *real = realpath(path, NULL), *home = home_dir();
	const struct passwd *pw = getpwuid(getuid());
	/* ssh takes the second, whatever HOME says. */
	const char *const homes[] = {home,
				     pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : home};

	for (size_t i = 0; i < 4; i++) {
		_cleanup_free_ char *secret = path_join(homes[i / 2], secrets[i % 2]);
		_cleanup_free_ char *clean = path_clean("/", secret);
		_cleanup_free_ char *real_secret = realpath(secret, NULL);

		if (overlap(path, clean) || (real && real_secret && overlap(real, real_secret)))
			return steal_ptr(&clean);
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
