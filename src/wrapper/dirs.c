/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string.h>

#include "concc/str.h"
#include "concc/wrapper.h"

char **server_other_dirs(const char *mine)
{
	char **ret = NULL;
	glob_t g = {0};

	if (glob(RUN_DIR_PREFIX "*", 0, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc; i++) {
			struct stat st;

			if (lstat(g.gl_pathv[i], &st) == 0 && S_ISDIR(st.st_mode) &&
			    st.st_uid == geteuid() && !streq(g.gl_pathv[i], mine))
				strv_push(&ret, xstrdup(g.gl_pathv[i]));
		}
	}
	globfree(&g);
	return ret;
}
