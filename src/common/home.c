/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What asks the user database: apart, so that programs without it can be linked statically. */
#include <dirent.h>
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

bool path_is_too_wide(const char *dir)
{
	static const char *const dirs[] = {"/",	       "/tmp", "/var", "/var/tmp",
					   "/dev/shm", "/srv", "/mnt", "/media"};
	_cleanup_free_ char *home = path_expand_home("~");

	for (size_t i = 0; i < N_OF(dirs); i++)
		if (streq(dir, dirs[i]))
			return true;
	return !streq(home, "/") && path_is_below(home, dir);
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
	{".Xauthority", false},
	{".age", false},
	{".aliyun", false},
	{".ansible/vault", false},
	{".authinfo", false},
	{".authinfo.gpg", false},
	{".aws", false},
	{".azure", false},
	{".bitcoin", false},
	{".boto", false},
	{".bundle/config", false},
	{".cache/huggingface/token", false},
	{".cargo/credentials", false},
	{".cargo/credentials.toml", false},
	{".circleci", false},
	{".claude", false},
	{".claude.json", false},
	{".cloudflared", false},
	{".codex", false},
	{".composer/auth.json", false},
	{".condarc", false},
	{".config/BraveSoftware", false},
	{".config/age", false},
	{".config/anthropic", false},
	{".config/chromium", false},
	{".config/composer/auth.json", false},
	{".config/containers/auth.json", false},
	{".config/doctl", false},
	{".config/filezilla", false},
	{".config/gcloud", false},
	{".config/gh", false},
	{".config/git/credentials", false},
	{".config/github-copilot", false},
	{".config/glab-cli", false},
	{".config/gnupg", false},
	{".config/google-chrome", false},
	{".config/hcloud", false},
	{".config/helm", false},
	{".config/heroku", false},
	{".config/hub", false},
	{".config/linode-cli", false},
	{".config/microsoft-edge", false},
	{".config/ngrok", false},
	{".config/op", false},
	{".config/opera", false},
	{".config/pip/pip.conf", false},
	{".config/pulumi", false},
	{".config/pypoetry/auth.toml", false},
	{".config/rclone", false},
	{".config/remmina", false},
	{".config/scw", false},
	{".config/solana", false},
	{".config/sops", false},
	{".config/tea", false},
	{".config/vivaldi", false},
	{".config/wrangler", false},
	{".cvspass", false},
	{".databrickscfg", false},
	{".docker", false},
	{".electrum", false},
	{".ethereum", false},
	{".expo", false},
	{".fetchmailrc", false},
	{".fly", false},
	{".gem/credentials", false},
	{".git-credentials", false},
	{".globus", false},
	{".gradle/gradle.properties", false},
	{".hex/hex.config", false},
	{".huggingface", false},
	{".ivy2/.credentials", false},
	{".kaggle", false},
	{".krb5", false},
	{".kube", false},
	{".local/share/com.vercel.cli", false},
	{".local/share/gnupg", false},
	{".local/share/keyrings", false},
	{".local/share/kwalletd", false},
	{".local/share/password-store", false},
	{".local/share/remmina", false},
	{".m2/settings-security.xml", false},
	{".m2/settings.xml", false},
	{".mbsyncrc", false},
	{".minikube", false},
	{".mozilla", false},
	{".msmtprc", false},
	{".my.cnf", false},
	{".mylogin.cnf", false},
	{".netlify", false},
	{".netrc", false},
	{".npmrc", false},
	{".nuget/NuGet/NuGet.Config", false},
	{".oci", false},
	{".offlineimaprc", false},
	{".password-store", false},
	{".pgpass", false},
	{".pip/pip.conf", false},
	{".pki", false},
	{".pulumi", false},
	{".purple", false},
	{".putty", false},
	{".pypirc", false},
	{".s3cfg", false},
	{".sbt/.credentials", false},
	{".secrets", false},
	{".smbcredentials", false},
	{".snowsql", false},
	{".step", false},
	{".subversion/auth", false},
	{".terraform.d", false},
	{".terraformrc", false},
	{".thunderbird", false},
	{".vault-token", false},
	{".vnc/passwd", false},
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

/* Is it dir, or in it, by whatever name?  A bind mount makes further ones. */
static bool lies_in(const char *path, const char *dir)
{
	_cleanup_free_ char *at = xstrdup(path);
	struct stat st, there;

	if (stat(dir, &there) < 0)
		return false;
	for (;;) {
		char *parent;

		if (stat(at, &st) == 0 && stat_is_same_file(&st, &there))
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
	_cleanup_free_ char *real_secret = NULL, *there = NULL;
	struct stat st;

	if (!always && lstat(secret, &st) < 0)
		return false; /* most are not there: one call for each */
	real_secret = realpath(secret, NULL);
	if (overlap(path, secret) || (real && real_secret && overlap(real, real_secret)))
		return true;
	/* What is not there yet will be in its directory. */
	there = real_secret ? xstrdup(real_secret) : path_parent(secret);
	return real && (lies_in(real, secret) || lies_in(there, real));
}

/* A key that is kept in dir, and that a symlink among the keys leads to.  As ssh wants keys: what
 * others may read, like a list of hosts, is none. */
static char *linked_key(const char *keys, const char *dir)
{
	char *found = NULL;
	struct dirent *e;
	DIR *d = opendir(keys);

	while (d && !found && (e = readdir(d))) {
		_cleanup_free_ char *at = path_join(keys, e->d_name);
		_cleanup_free_ char *target = e->d_type == DT_LNK ? realpath(at, NULL) : NULL;
		struct stat st;

		if (target && path_is_below(target, dir) && stat(target, &st) == 0 &&
		    S_ISREG(st.st_mode) && !(st.st_mode & (S_IRWXG | S_IRWXO)))
			found = steal_ptr(&target);
	}
	if (d)
		(void)closedir(d);
	return found;
}

/* What makes a directory somebody's home, whoever's. */
static char *keys_in(const char *dir)
{
	for (size_t i = 0; i < N_OF(secrets); i++) {
		_cleanup_free_ char *at = secrets[i].always ? path_join(dir, secrets[i].path)
							    : NULL;
		struct stat st;

		if (at && stat(at, &st) == 0 && S_ISDIR(st.st_mode))
			return steal_ptr(&at);
	}
	return NULL;
}

/* A secret that path shows, of those of a home; or NULL. */
static char *home_secret(const char *path, const char *real, const char *home)
{
	for (size_t i = 0; i < N_OF(secrets); i++) {
		_cleanup_free_ char *secret = path_join(home, secrets[i].path);
		_cleanup_free_ char *clean = path_clean("/", secret);
		char *key;

		if (shows(path, real, clean, secrets[i].always))
			return steal_ptr(&clean);
		key = real && secrets[i].always ? linked_key(clean, real) : NULL;
		if (key)
			return key;
	}
	return NULL;
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

	char *found = real ? keys_in(real) : NULL;

	for (size_t h = 0; !found && h < (streq(homes[0], homes[1]) ? 1 : 2); h++)
		found = home_secret(path, real, homes[h]);
	return found ? found : moved_secret(path, real, home);
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

/* Who builds packages says by such a home that there is none, and some look whether it came up. */
static int check_home(struct errmsg *msg)
{
	_cleanup_free_ char *home = path_expand_home("~");
	struct stat st;

	if (stat(home, &st) == 0 || errno != ENOENT)
		return 0;
	return errmsg_set(msg, -ENOENT,
			  "there is no %s, the home, for a cache directory (set CONCC_CACHE_DIR?)",
			  home);
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
	else if ((r = check_home(msg)) < 0)
		return r;
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
