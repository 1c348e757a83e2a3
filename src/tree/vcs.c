/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <string.h>

#include "concc/str.h"

static bool is_named(const char *name, size_t n, const char *const *names, size_t n_names)
{
	for (size_t i = 0; i < n_names; i++)
		if (strlen(names[i]) == n && strncasecmp(name, names[i], n) == 0)
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
	return is_named(name, n, control_files, sizeof(control_files) / sizeof(*control_files));
}

static bool is_control_dir(const char *name, size_t n)
{
	return is_named(name, n, control_dirs, sizeof(control_dirs) / sizeof(*control_dirs));
}

/* As bare repositories are called. */
static bool ends_in_git(const char *name, size_t n)
{
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
		if (is_part(dir, n_dir, pairs[i].dir) && is_part(at, n, pairs[i].name))
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
	if (!inside && !is_dir && strcasecmp(last, "HEAD") == 0)
		return true;
	return last_is_own && !is_dir;
}
