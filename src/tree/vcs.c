/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <ctype.h>
#include <string.h>

#include "concc/str.h"

/*
 * How much of a name such file systems look at: vfat leaves out dots at its end, a share of a
 * server of that kind blanks as well, and what follows a colon is a part of the same file to ntfs.
 */
static size_t as_found(const char *p, size_t n)
{
	const char *colon = n ? memchr(p, ':', n) : NULL;

	if (colon)
		n = (size_t)(colon - p);
	while (n && (p[n - 1] == '.' || p[n - 1] == ' '))
		n--;
	return n;
}

/*
 * Some file systems find a file by more names than its own: in whatever case, with characters that
 * nobody sees (U+200C), or others that are the same letter (those of directories that fold case).
 * Of what is no ASCII two are such letters, and all else is left out.
 */
static bool may_be(const char *p, size_t n, const char *name)
{
	n = as_found(p, n);
	for (const char *end = p + n; p < end; p++) {
		char c = *p;

		if (end - p > 2 && memcmp(p, "\342\204\252", 3) == 0)
			c = 'k'; /* kelvin */
		else if (end - p > 1 && memcmp(p, "\305\277", 2) == 0)
			c = 's'; /* long s */
		else if (c & 0x80)
			continue;
		if (!*name || tolower((unsigned char)c) != tolower((unsigned char)*name++))
			return false;
	}
	return !*name;
}

/*
 * GIT~1, or GI7EBA~1: the short name of whatever else, by which the file systems of other systems
 * (vfat, ntfs, the disks that WSL has of Windows) find it as well.
 */
static bool is_short(const char *p, size_t n)
{
	const char *dot, *tilde;
	size_t base;

	n = as_found(p, n);
	dot = memchr(p, '.', n);
	base = dot ? (size_t)(dot - p) : n;
	if (base > 8 || n - base > 4 || (dot && memchr(dot + 1, '.', n - base - 1)))
		return false;
	tilde = memchr(p, '~', base);
	return tilde && tilde > p && tilde + 1 < p + base &&
	       strspn(tilde + 1, "0123456789") >= (size_t)(p + base - tilde - 1);
}

static bool is_named(const char *name, size_t n, const char *const *names, size_t n_names)
{
	for (size_t i = 0; i < n_names; i++)
		if (may_be(name, n, names[i]))
			return true;
	return false;
}

/*
 * What has a version control run commands when its user asks for the state of things: below its
 * own directory, at any depth (git's modules have theirs), or another thing in that one's place.
 * Jobs that change it are rare, and run here.
 */
static const char *const control_dirs[] = {".git", ".hg",   ".jj",    ".sl",	".bzr",
					   "_MTN", ".repo", ".pijul", "_darcs", "CVS"};
static const char *const control_files[] = {
	"branch.conf",		"commondir",	"config",     "config.toml",
	"config.worktree",	"defaults",	"git_target", "hgrc",
	"hgrc-not-shared",	"hooks",	"location",   "monotonerc",
	"rebase-apply",		"rebase-merge", "sequencer",  "sharedpath",
	"workspace-config.toml"};
/* The same of those that have no such directory: they name a repository, or a server's command. */
static const char *const lone_files[] = {".fos", ".fslckout", ".p4config", "_FOSSIL_"};
/*
 * And those of one directory: what names another repository, repo's own program, which its launcher
 * runs from there, a repository's address, which may name a command to reach it by.
 */
static const struct {
	const char *dir, *name;
	bool may_be_dir; /* then it is none of these */
} pairs[] = {{".jj", "repo", true}, {".repo", "repo", false}, {"CVS", "Root", false}};

bool vcs_is_control_file(const char *name, size_t n)
{
	return is_short(name, n) ||
	       is_named(name, n, control_files, sizeof(control_files) / sizeof(*control_files));
}

static bool is_control_dir(const char *name, size_t n)
{
	return is_short(name, n) ||
	       is_named(name, n, control_dirs, sizeof(control_dirs) / sizeof(*control_dirs));
}

/* As bare repositories are called. */
static bool ends_in_git(const char *name, size_t n)
{
	n = as_found(name, n);
	return n > 4 && strncasecmp(name + n - 4, ".git", 4) == 0;
}

static bool is_part(const char *part, size_t n, const char *name)
{
	return is_named(part, n, &name, 1);
}

/* n bytes at `at`, in a directory of n_dir bytes; is_dir: it is one itself. */
static bool is_in_pairs(const char *dir, size_t n_dir, const char *at, size_t n, bool is_dir)
{
	for (size_t i = 0; i < N_OF(pairs); i++)
		if ((is_part(dir, n_dir, pairs[i].dir) || is_short(dir, n_dir)) &&
		    is_part(at, n, pairs[i].name))
			return !(is_dir && pairs[i].may_be_dir);
	return false;
}

bool vcs_runs(const char *path, bool is_dir)
{
	const char *at = path, *last = path;
	bool inside = false, last_is_own = false;
	size_t n_last = 0;

	while (*(at += strspn(at, "/"))) {
		size_t n = strcspn(at, "/");

		if (inside && vcs_is_control_file(at, n))
			return true;
		if (is_in_pairs(last, n_last, at, n, at[n] || is_dir))
			return true;
		last_is_own = is_control_dir(at, n);
		inside |= last_is_own || ends_in_git(at, n);
		last = at;
		n_last = n;
		at += n;
	}
	if (is_named(last, strlen(last), lone_files, sizeof(lone_files) / sizeof(*lone_files)))
		return true;
	/* A directory with one is a repository to git, whatever it is called. */
	if (!inside && !is_dir && may_be(last, n_last, "HEAD"))
		return true;
	return last_is_own && !is_dir;
}
