/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <ctype.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "preload.h"

/*
 * What a job does not get, and credentials below.  Everything else travels, for a
 * compiler may read any variable (SOURCE_DATE_EPOCH, CPATH, LANG, env!() in Rust).
 * A name that ends in '*' is a prefix.
 *
 * LD_LIBRARY_PATH stays in: cargo sets it for the crates a rustc loads, and
 * compilers outside the system's directories need it.  LD_PRELOAD: preload.h.
 */
static const char *const dropped[] = {
	/* the client's login, desktop and terminal */
	"SSH_*",
	"DBUS_*",
	"SUDO_*",
	"GPG_AGENT_INFO",
	"GPG_TTY",
	"GNOME_KEYRING*",
	"GNOME_DESKTOP_SESSION_ID",
	"GNOME_TERMINAL_*",
	"KRB5CCNAME",
	"DISPLAY",
	"WAYLAND_DISPLAY",
	"WAYLAND_SOCKET",
	"XAUTHORITY",
	"XDG_RUNTIME_DIR",
	"XDG_SESSION_*",
	"XDG_SEAT*",
	"XDG_VTNR",
	"XDG_CURRENT_DESKTOP",
	"DESKTOP_SESSION",
	"DESKTOP_STARTUP_ID",
	"SESSION_MANAGER",
	"TMUX",
	"TMUX_*",
	"STY",
	"WINDOWID",
	"TERM_SESSION_ID",
	"TERM_PROGRAM*",
	"VTE_VERSION",
	"KITTY_*",
	"ITERM_*",
	"WEZTERM_*",
	"ALACRITTY_*",
	"KONSOLE_*",
	"LS_COLORS",
	"LESSOPEN",
	"LESSCLOSE",
	"MAIL",
	/* the client's service manager: sockets and descriptors that a job hasn't got */
	"INVOCATION_ID",
	"JOURNAL_STREAM",
	"NOTIFY_SOCKET",
	"LISTEN_FDS",
	"LISTEN_FDNAMES",
	"LISTEN_PID",
	"MANAGERPID",
	"SYSTEMD_EXEC_PID",
	"WATCHDOG_PID",
	"WATCHDOG_USEC",
	/* descriptors and terminals of ccache, fakeroot, bear and make */
	"UNCACHED_ERR_FD",
	"FAKEROOTKEY",
	"FAKED_MODE",
	"INTERCEPT_*",
	"MAKE_TERMOUT",
	"MAKE_TERMERR",
	/* the shell's own; PWD stays, since it ends up in DW_AT_comp_dir; see of_shell */
	"_",
	"OLDPWD",
	"SHLVL",
	/* ours */
	"CONCC_*",
};

/*
 * What services of the network know the client by, none of which a job can reach: names that are
 * one of these words or end with one, as "TOKEN", "NPM_TOKEN" and "npm_config_//host/:_authToken"
 * do. In capitals or not; a '_' stands for any sign between words.  "KEY" alone is what sorts and
 * what is public, too.
 */
static const char *const credential_words[] = {
	"TOKEN",
	"ACCESSTOKEN",
	"AUTHTOKEN",
	"SECRET",
	"SECRETS",
	"SECRET_ID",
	"PASSWORD",
	"PASSWD",
	"PASSPHRASE",
	"CREDENTIAL",
	"CREDENTIALS",
	"APIKEY",
	"API_KEY",
	"ACCESS_KEY",
	"ACCESS_KEY_ID",
	"PRIVATE_KEY",
	"SECRET_KEY",
	"SECRET_KEY_BASE",
	"SIGNING_KEY",
	"ENCRYPTION_KEY",
	"STORAGE_KEY",
	"ACCOUNT_KEY",
	"DEPLOY_KEY",
	"SSH_KEY",
	"MASTER_KEY",
	"AUTH_KEY",
	"SAS_KEY",
	"AUTH_CONFIG",
	"CONNECTION_STRING",
	"WEBHOOK_URL",
	"SERVICE_ROLE_KEY",
};

/* Others, by their whole names or how they begin; of CI systems, registries and clouds. */
static const char *const credentials[] = {
	"ACTIONS_*", /* GitHub's: addresses that are signed */
	"AWS_CONTAINER_*",
	"AZURE_DEVOPS_EXT_PAT",
	"CARGO_REGISTRIES_*",
	"CI_JOB_JWT*",
	"COMPOSER_AUTH",
	"FASTLANE_SESSION",
	"GITHUB_PAT",
	"GPG_*",
	"MYSQL_PWD",
	"NETRC",
	"NPM_CONFIG__AUTH*",
	"PGPASSWORD",
	"POETRY_HTTP_BASIC_*",
	"POETRY_PYPI_TOKEN_*",
	"RCLONE_CONFIG_PASS",
	"REDISCLI_AUTH",
	"SSHPASS",
	"TF_TOKEN_*",
	"npm_config__auth*",
};

/* What build tools call so of what they build, and what is compiled into pages that all may read.
 */
static const char *const no_credentials[] = {
	"CARGO_FEATURE_*", "DEP_*",	  "npm_package_*", "CONFIG_*",
	"EXPO_PUBLIC_*",   "GATSBY_*",	  "NEXT_PUBLIC_*", "NUXT_PUBLIC_*",
	"PUBLIC_*",	   "REACT_APP_*", "VITE_*",	   "VUE_APP_*",
};

/* Of these no compiler makes anything, and they differ from call to call; other commands may. */
static const char *const of_shell[] = {"OLDPWD", "SHLVL"};
/*
 * Directories for temporary files: a job has a /tmp of its own, and another one need not exist
 * there. One in the job's own tree does, and what is made there is to be found there.
 */
static const char *const temp_dirs[] = {"TMPDIR", "TMP", "TEMP"};

#define NAMES_SHOWN 300 /* bytes of the names of what stays here */

/* Names that travel nevertheless. */
#define PASS_ENV "CONCC_PASS_ENV"

static bool matches(const char *pattern, const char *name, size_t len)
{
	size_t n = strlen(pattern);

	if (pattern[n - 1] == '*')
		return len >= n - 1 && memcmp(name, pattern, n - 1) == 0;
	return len == n && memcmp(name, pattern, n) == 0;
}

static bool is_one_of(const char *const *patterns, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (matches(patterns[i], name, len))
			return true;
	return false;
}

static bool ends_with_words(const char *name, size_t len, const char *words)
{
	size_t n = strlen(words);

	if (len < n || (len > n && isalnum((unsigned char)name[len - n - 1])))
		return false;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)name[len - n + i];

		if (words[i] == '_' ? isalnum(c) : toupper(c) != words[i])
			return false;
	}
	return true;
}

static bool is_called_credential(const char *name, size_t len)
{
	if (is_one_of(no_credentials, N_OF(no_credentials), name, len))
		return false;
	for (size_t i = 0; i < N_OF(credential_words); i++)
		if (ends_with_words(name, len, credential_words[i]))
			return true;
	return is_one_of(credentials, N_OF(credentials), name, len);
}

/* A URL with a password in it, whatever the variable is called: SCHEME://NAME:PASSWORD@HOST. */
static bool has_password(const char *value)
{
	for (const char *at = value; (at = strstr(at, "://"));) {
		size_t name = strcspn(at += 3, ":@/?# \t\n");
		const char *password = at + name + 1;

		if (at[name] == ':' && *password != '@' &&
		    password[strcspn(password, "@/?# \t\n")] == '@')
			return true;
	}
	return false;
}

/* Of an entry, whose name has so many bytes. */
static bool is_credential(const char *entry, size_t len)
{
	return is_called_credential(entry, len) || (entry[len] && has_password(entry + len + 1));
}

static bool is_dropped(const char *entry, size_t len)
{
	return is_one_of(dropped, N_OF(dropped), entry, len) || is_credential(entry, len);
}

/* ---- make's variables ---- */

static bool is_jobserver_word(const char *w, size_t n)
{
	static const char *const prefixes[] = {
		"--jobserver-auth=", "--jobserver-fds=", "--jobserver-style="};

	for (size_t i = 0; i < N_OF(prefixes); i++) {
		if (n >= strlen(prefixes[i]) && memcmp(w, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return false;
}

/* -j, -jN, --jobs, --jobs=N */
static bool is_jobs_word(const char *w, size_t n)
{
	if (n >= 2 && memcmp(w, "-j", 2) == 0)
		return strspn(w + 2, "0123456789") >= n - 2;
	return n >= 6 && memcmp(w, "--jobs", 6) == 0 && (n == 6 || w[6] == '=');
}

/* Where the options end: at " -- ", behind which variables are written with escaped blanks. */
static const char *end_of_options(const char *flags)
{
	const char *end = strstr(flags, " -- ");

	if (str_starts(flags, "-- "))
		return flags;
	return end ? end : flags + strlen(flags);
}

static bool has_jobserver(const char *flags, const char *end)
{
	for (const char *w = flags; w < end; w += strcspn(w, " ")) {
		w += strspn(w, " ");
		if (w < end && is_jobserver_word(w, strcspn(w, " ")))
			return true;
	}
	return false;
}

/*
 * A job can't take tokens from the client's job server: its pipe or fifo is
 * not there.  -jN beside it is make's note about that server; alone it was
 * asked for by a person and stays.
 */
static char *without_jobserver(const char *flags)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	const char *end = end_of_options(flags);

	if (!has_jobserver(flags, end))
		return xstrdup(flags);
	for (const char *w = flags; w < end;) {
		size_t blanks = strspn(w, " ");
		size_t n;

		if (w + blanks >= end) {
			buf_append(&out, w, (size_t)(end - w));
			break;
		}
		n = strcspn(w + blanks, " ");
		if (!is_jobserver_word(w + blanks, n) && !is_jobs_word(w + blanks, n))
			buf_append(&out, w, blanks + n);
		w += blanks + n;
	}
	buf_append(&out, end, strlen(end));
	return xstrdup(buf_cstr(&out));
}

/* ---- the filter ---- */

/* Is it one of those that the user lets travel?  list: names, with blanks, commas or colons. */
static bool is_passed(const char *list, const char *name, size_t len)
{
	static const char between[] = " ,:";

	while (list && *(list += strspn(list, between))) {
		size_t n = strcspn(list, between);

		if (n == len && memcmp(list, name, n) == 0)
			return true;
		list += n;
	}
	return false;
}

static bool names_temp_dir(const char *entry, size_t len)
{
	for (size_t i = 0; i < N_OF(temp_dirs); i++)
		if (len == strlen(temp_dirs[i]) && memcmp(entry, temp_dirs[i], len) == 0)
			return entry[len] == '=';
	return false;
}

/* Two directories have the first two names in common: one tree may hold both. */
static bool are_near(const char *a, const char *b)
{
	size_t n = 0;

	for (int names = 0; a[n] == b[n]; n++) {
		names += n > 0 && (a[n] == '/' || !a[n]);
		if (names == 2)
			return true;
		if (!a[n])
			return false;
	}
	/* One of them is an ancestor of the other. */
	return (!a[n] && b[n] == '/') || (!b[n] && a[n] == '/');
}

static bool is_temp_elsewhere(const char *entry, size_t len, const char *cwd)
{
	_cleanup_free_ char *path = NULL;

	if (!names_temp_dir(entry, len))
		return false;
	if (!cwd || entry[len + 1] != '/')
		return true;
	path = path_clean("/", entry + len + 1);
	return !are_near(path, cwd);
}

void job_env_drop_temp(char **env, char *const *trees)
{
	char **to = env;

	for (; *env; env++) {
		size_t len = strcspn(*env, "=");
		bool served = !names_temp_dir(*env, len);
		_cleanup_free_ char *path = served ? NULL : path_clean("/", *env + len + 1);

		for (char *const *t = trees; *t && !served; t++)
			served = path_is_below(path, *t);
		if (served)
			*to++ = *env;
	}
	*to = NULL;
}

/* What of one entry travels; NULL: nothing. */
static char *filter_entry(const char *entry, const char *passed, const char *cwd)
{
	static const char *const make_vars[] = {"MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS",
						"GNUMAKEFLAGS"};
	const char *eq = strchr(entry, '=');
	size_t len = eq ? (size_t)(eq - entry) : strlen(entry);

	if ((is_dropped(entry, len) || is_temp_elsewhere(entry, len, cwd)) &&
	    !is_passed(passed, entry, len))
		return NULL;
	if (!eq)
		return xstrdup(entry);
	for (size_t i = 0; i < N_OF(make_vars); i++) {
		if (len == strlen(make_vars[i]) && memcmp(entry, make_vars[i], len) == 0) {
			_cleanup_free_ char *rest = without_jobserver(eq + 1);

			return xasprintf("%s=%s", make_vars[i], rest);
		}
	}
	if (str_starts(entry, "LD_PRELOAD=")) {
		_cleanup_free_ char *rest = preload_rest(eq + 1);

		return rest ? xasprintf("LD_PRELOAD=%s", rest) : NULL;
	}
	return xstrdup(entry);
}

/* What CONCC_PASS_ENV says; NULL: nothing. */
static const char *passed_names(char *const *env)
{
	for (; *env; env++)
		if (str_starts(*env, PASS_ENV "="))
			return *env + strlen(PASS_ENV "=");
	return NULL;
}

char **job_env_credentials(char *const *env)
{
	const char *passed = passed_names(env);
	char **names = xcalloc(1, sizeof(*names));

	for (; *env; env++) {
		size_t len = strcspn(*env, "=");

		if (is_credential(*env, len) && !is_passed(passed, *env, len))
			strv_push(&names, xstrndup(*env, len));
	}
	return names;
}

char *job_env_kept_back(char *const *env)
{
	_cleanup_strv_ char **names = job_env_credentials(env);
	_cleanup_buf_ struct buf list = BUF_INIT;

	for (char **n = names; *n; n++)
		buf_putf(&list, "%s%s", n > names ? ", " : "", *n);
	return *names ? str_escape(list.data, list.len, NAMES_SHOWN) : NULL;
}

char **job_env_filter(char *const *env, const char *cwd, bool shells_own)
{
	char **ret = xcalloc(strv_len(env) + 1, sizeof(*ret));
	const char *passed = passed_names(env);
	size_t n = 0;

	for (; *env; env++) {
		if (shells_own && is_one_of(of_shell, N_OF(of_shell), *env, strcspn(*env, "=")))
			ret[n] = xstrdup(*env);
		else
			ret[n] = filter_entry(*env, passed, cwd);
		n += ret[n] != NULL;
	}
	return ret;
}
