/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/job.h"
#include "concc/str.h"

/* The filtered entries, one a line. */
static char *filter(const char *const *env)
{
	_cleanup_buf_ struct buf all = BUF_INIT;
	_cleanup_strv_ char **kept = job_env_filter((char *const *)env, NULL, false);

	for (char **p = kept; *p; p++)
		buf_putf(&all, "%s%s", p > kept ? "\n" : "", *p);
	return xstrdup(buf_cstr(&all));
}

static void expect_one(const char *entry, const char *expected)
{
	const char *env[] = {entry, NULL};
	char *got = filter(env);

	cr_expect_str_eq(got, expected, "'%s' gave '%s', not '%s'", entry, got, expected);
	free(got);
}

Test(env, session_stays)
{
	static const char *const entries[] = {
		"SSH_AUTH_SOCK=/x",
		"SSH_CONNECTION=1",
		"DBUS_SESSION_BUS_ADDRESS=x",
		"DISPLAY=:0",
		"WAYLAND_DISPLAY=w",
		"XAUTHORITY=/x",
		"XDG_RUNTIME_DIR=/run/user/1",
		"XDG_SESSION_ID=3",
		"GPG_AGENT_INFO=x",
		"GNOME_KEYRING_CONTROL=x",
		"SUDO_USER=u",
		"SUDO_COMMAND=x",
		"TMUX=/x",
		"TMUX_PANE=%1",
		"STY=1",
		"WINDOWID=7",
		"TERM_SESSION_ID=1",
		"LS_COLORS=x",
		"OLDPWD=/x",
		"_=/usr/bin/env",
		"SHLVL=2",
		"CONCC_DISABLE=1",
		"CONCC_WORKERS=x",
		"UNCACHED_ERR_FD=7",
		"TMPDIR=/t",
		"TMP=/t",
		"TEMP=/t",
		"KRB5CCNAME=/x",
		"JOURNAL_STREAM=1:2",
		"LISTEN_FDS=1",
		"MAKE_TERMOUT=/dev/pts/1",
		"FAKEROOTKEY=1",
	};

	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		expect_one(entries[i], "");
}

/* No job can use them, and who needs one as text says so. */
Test(env, tokens_stay_unless_asked_for)
{
	const char *env[] = {"AWS_SECRET_ACCESS_KEY=a",
			     "CARGO_REGISTRIES_MINE_TOKEN=c",
			     "CLOUDFLARE_API_TOKEN=c",
			     "POETRY_PYPI_TOKEN_MINE=p",
			     "npm_config__authToken=n",
			     "AWS_REGION=r",
			     "GITHUB_TOKEN=g",
			     "GITHUB_SHA=s",
			     "NPM_TOKEN=n",
			     "PGPASSWORD=p",
			     "TOKEN=t",
			     "TOKENS=t",
			     NULL};
	const char *asked[] = {"GITHUB_TOKEN=g",
			       "NPM_TOKEN=n",
			       "PGPASSWORD=p",
			       "SSH_TTY=x",
			       "CONCC_PASS_ENV=NPM_TOKEN, GITHUB_TOKE:GITHUB_TOKENS PGPASSWORD",
			       NULL};
	char **kept = job_env_filter((char **)env, NULL, false);

	cr_assert_eq(strv_len(kept), 3);
	cr_expect_str_eq(kept[0], "AWS_REGION=r");
	cr_expect_str_eq(kept[1], "GITHUB_SHA=s");
	cr_expect_str_eq(kept[2], "TOKENS=t");
	strv_free(kept);
	kept = job_env_filter((char **)asked, NULL, false);
	cr_assert_eq(strv_len(kept), 2);
	cr_expect_str_eq(kept[0], "NPM_TOKEN=n");
	cr_expect_str_eq(kept[1], "PGPASSWORD=p");
	strv_free(kept);
	kept = job_env_credentials((char **)asked);
	cr_assert_eq(strv_len(kept), 1);
	cr_expect_str_eq(kept[0], "GITHUB_TOKEN");
	strv_free(kept);
}

/* Whoever's service it is. */
Test(env, credentials_by_what_they_are_called)
{
	static const char *const kept[] = {
		"MY_SERVICE_TOKEN=x",
		"DEPLOY_SECRET=x",
		"OAUTH_CLIENT_SECRET=x",
		"APP_SECRET_KEY=x",
		"VAULT_SECRET_ID=x",
		"DB_PASSWORD=x",
		"SIGNING_PASSPHRASE=x",
		"MAPS_API_KEY=x",
		"MINIO_ACCESS_KEY=x",
		"GITHUB_APP_PRIVATE_KEY=",
		"AZURE_STORAGE_KEY=x",
		"COMPOSER_AUTH={}",
		"npm_config_//registry.npmjs.org/:_authToken=x",
		"npm_config_//registry.npmjs.org/:_password=x",
		/* by nothing but what it is, in capitals or not */
		"TOKEN=x",
		"token=x",
		"SECRET=x",
		"PASSWORD=x",
		"PASSWD=x",
		"PASSPHRASE=x",
		"API_KEY=x",
		"APIKEY=x",
		"PRIVATE_KEY=x",
		"CREDENTIALS=x",
		"my-service.token=x",
		/* of CI systems */
		"GITHUB_TOKEN=x",
		"GH_TOKEN=x",
		"ACTIONS_RUNTIME_TOKEN=x",
		"ACTIONS_ID_TOKEN_REQUEST_URL=x",
		"ACTIONS_RESULTS_URL=x",
		"CI_JOB_TOKEN=x",
		"CI_REGISTRY_PASSWORD=x",
		"CI_REPOSITORY_URL=https://gitlab-ci-token:x@host/a.git",
		"SYSTEM_ACCESSTOKEN=x",
		"BUILDKITE_AGENT_ACCESS_TOKEN=x",
		"NPM_TOKEN=x",
		"NODE_AUTH_TOKEN=x",
		"AWS_ACCESS_KEY_ID=x",
		"AWS_SECRET_ACCESS_KEY=x",
		"AWS_SESSION_TOKEN=x",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=x",
		"SSH_AUTH_SOCK=x",
		"SSH_PRIVATE_KEY=x",
		"GPG_PRIVATE_KEY=x",
		"GPG_KEY=x",
		"DOCKER_AUTH_CONFIG={}",
		"NETRC=x",
		"GOOGLE_APPLICATION_CREDENTIALS=x",
		"RAILS_MASTER_KEY=x",
		"SECRET_KEY_BASE=x",
		"SLACK_WEBHOOK_URL=x",
		/* whatever it is called */
		"DATABASE_URL=postgres://me:x@host/db",
		"PIP_INDEX_URL=https://me:x@host/simple",
		"GOPROXY=https://a,https://me:x@host",
		"http_proxy=http://me:x@host:3128",
	};
	static const char *const travelling[] = {
		"_TOKENS=x",
		"TOKEN_TYPE=x",
		"SECRETARY=x",
		"PUBLIC_KEY=x",
		"API_KEY_FILE=x",
		"PASSWORD_POLICY=x",
		"CARGO_FEATURE_A_TOKEN=1",
		"npm_package_config_token=x",
		"DEP_SSL_API_KEY=x",
		"KEY=x",
		"MONKEY=x",
		"STOKEN=x",
		"PATOKEN=x",
		"GITHUB_SHA=x",
		"AWS_REGION=x",
		"CI_COMMIT_SHA=x",
		"KEYBOARD_SECRET_SANTA=x",
		"CONFIG_MODULE_SIGNING_KEY=x",
		"VITE_MAPS_API_KEY=x",
		"NEXT_PUBLIC_TOKEN=x",
		"REACT_APP_API_KEY=x",
		/* no password in it */
		"http_proxy=http://host:3128",
		"GIT_URL=ssh://git@host:22/a",
		"A=https://host/a:b@c",
		"A=https://me:@host",
		"A=https://host:80/?to=me@host",
		"CFLAGS=-DURL=\\\"a://b\\\" -DX=a:b@c",
	};

	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		expect_one(kept[i], "");
	for (size_t i = 0; i < sizeof(travelling) / sizeof(*travelling); i++)
		expect_one(travelling[i], travelling[i]);
}

Test(env, the_rest_travels)
{
	static const char *const entries[] = {
		"PATH=/usr/bin",
		"PWD=/x",
		"HOME=/home/u",
		"USER=u",
		"LANG=C.UTF-8",
		"LC_ALL=C",
		"SOURCE_DATE_EPOCH=1",
		"CPATH=/i",
		"LD_LIBRARY_PATH=/l",
		"TERM=xterm",
		"COLORTERM=1",
		"CARGO_PKG_NAME=x",
		"OUT_DIR=/o",
		"TMPDIRS=x",
		"DISPLAYS=x",
		"XDG_CONFIG_HOME=/c",
		"__=x",
		"WAYLAND_SCANNER=/usr/bin/wayland-scanner",
		"EMPTY=",
		"A=b=c",
		"N=a\nb\nc=d",
		"CONCCX=1",
		"MAKELEVEL=1",
		"SSH=/usr/bin/ssh",
		"-x=1",
		"BASH_FUNC_x%%=() { :; }",
	};

	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		expect_one(entries[i], entries[i]);
}

static size_t kept_with(const char *entry, const char *cwd)
{
	const char *env[] = {entry, NULL};
	char **kept = job_env_filter((char **)env, cwd, false);
	size_t n = strv_len(kept);

	strv_free(kept);
	return n;
}

Test(env, temporary_directories_near_the_job)
{
	cr_expect_eq(kept_with("TMPDIR=/srv/ws/t", "/srv/ws"), 1);
	cr_expect_eq(kept_with("TMPDIR=/srv/ws", "/srv/ws/a/b"), 1);
	cr_expect_eq(kept_with("TMP=/srv/ws/x/../t/", "/srv/ws/b"), 1);
	cr_expect_eq(kept_with("TEMP=/w/t", "/w"), 1);
	cr_expect_eq(kept_with("TEMP=/w", "/w"), 0);
	cr_expect_eq(kept_with("TMPDIR=/srv/t", "/srv/ws"), 0);
	cr_expect_eq(kept_with("TMPDIR=/srv/wst/x", "/srv/ws"), 0);
	cr_expect_eq(kept_with("TMPDIR=/srv/ws/../../tmp", "/srv/ws"), 0);
	cr_expect_eq(kept_with("TMPDIR=/tmp", "/srv/ws"), 0);
	cr_expect_eq(kept_with("TMPDIR=t", "/srv/ws"), 0);
	cr_expect_eq(kept_with("TMPDIR=", "/srv/ws"), 0);
	cr_expect_eq(kept_with("TMPDIR=/srv/ws", NULL), 0);
}

Test(env, temporary_directories_in_no_tree)
{
	const char *env[] = {"A=1", "TMP=/w/t/..", "TMPDIR=/v/t", "TEMP=/ws", "Z=/x", NULL};
	const char *trees[] = {"/u", "/w", NULL}, *none[] = {NULL};

	job_env_drop_temp((char **)env, (char *const *)trees);
	cr_assert_eq(strv_len((char **)env), 3);
	cr_expect_str_eq(env[1], "TMP=/w/t/..");
	cr_expect_str_eq(env[2], "Z=/x");
	job_env_drop_temp((char **)env, (char *const *)none);
	cr_assert_eq(strv_len((char **)env), 2);
}

Test(env, as_it_is_in_its_order)
{
	const char *env[] = {"B=1", "AB=2", "A=", "B=4", "noname", "=5", "", "A0=7", NULL};
	const char *twice[] = {"NPM_TOKEN=1", "A=1", "NPM_TOKEN=2", "TMPDIR", "A_TOKEN", NULL};
	char *got = filter(env);

	cr_expect_str_eq(got, "B=1\nAB=2\nA=\nB=4\nnoname\n=5\n\nA0=7");
	free(got);
	got = filter(twice);
	cr_expect_str_eq(got, "A=1\nTMPDIR");
	free(got);
}

Test(env, the_shells_own_is_for_commands_that_may_print_it)
{
	const char *env[] = {"_=/bin/x", "SHLVL=2", "OLDPWD=/w", "PWD=/w/x", NULL};
	_cleanup_strv_ char **got = job_env_filter((char **)env, NULL, true);

	cr_assert_eq(strv_len(got), 3);
	cr_expect_str_eq(got[0], "SHLVL=2");
	cr_expect_str_eq(got[1], "OLDPWD=/w");
	cr_expect_str_eq(got[2], "PWD=/w/x");
}

Test(env, empty)
{
	const char *env[] = {NULL};
	char *got = filter(env);

	cr_expect_str_eq(got, "");
	free(got);
}

Test(env, job_server_leaves_make_flags)
{
	static const char *const t[][2] = {
		{"MAKEFLAGS= -j8 --jobserver-auth=3,4", "MAKEFLAGS="},
		{"MAKEFLAGS=ks -j8 --jobserver-auth=3,4 -- A=b", "MAKEFLAGS=ks -- A=b"},
		{"MAKEFLAGS= --jobserver-fds=3,4 -j -- CC=concc-cc\\ gcc",
		 "MAKEFLAGS= -- CC=concc-cc\\ gcc"},
		{"MAKEFLAGS=w -j --jobserver-auth=fifo:/tmp/GMfifo1 --jobserver-style=fifo -l4",
		 "MAKEFLAGS=w -l4"},
		{"MAKEFLAGS=w --jobs=8 --jobserver-auth=3,4 -I/inc", "MAKEFLAGS=w -I/inc"},
		/* asked for by a person */
		{"MAKEFLAGS=-j8", "MAKEFLAGS=-j8"},
		{"MAKEFLAGS=rR --no-print-directory", "MAKEFLAGS=rR --no-print-directory"},
		/* no option behind " -- " */
		{"MAKEFLAGS=-j2 -- X=--jobserver-auth=3,4",
		 "MAKEFLAGS=-j2 -- X=--jobserver-auth=3,4"},
		{"MAKEFLAGS=-- X=--jobserver-auth=3,4 -j",
		 "MAKEFLAGS=-- X=--jobserver-auth=3,4 -j"},
		{"MAKEFLAGS=--jobserver-auth=3,4 -- X=1 -j2", "MAKEFLAGS= -- X=1 -j2"},
		{"MAKEFLAGS=", "MAKEFLAGS="},
		{"MFLAGS=-w -j4 --jobserver-auth=3,4", "MFLAGS=-w"},
		{"CARGO_MAKEFLAGS=-j --jobserver-fds=8,9 --jobserver-auth=8,9", "CARGO_MAKEFLAGS="},
		{"MAKEFLAGSX=-j --jobserver-auth=8,9", "MAKEFLAGSX=-j --jobserver-auth=8,9"},
		{"MAKEFLAGS=w -jx --jobserver-auth=8,9  ", "MAKEFLAGS=w -jx  "},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		expect_one(t[i][0], t[i][1]);
}

Test(env, harmless_preloads_stay)
{
	expect_one("LD_PRELOAD=libfakeroot-sysv.so", "");
	expect_one("LD_PRELOAD=/usr/lib/libfakeroot/libfakeroot-sysv.so:/x/libfaketime.so.1",
		   "LD_PRELOAD=/x/libfaketime.so.1");
	expect_one("LD_PRELOAD=a.so libeatmydata.so b.so", "LD_PRELOAD=a.so:b.so");
	expect_one("LD_PRELOAD=", "");
}
