/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * Texts of kernels, shells and tools.  The first byte chooses: 0 mountinfo and a path (between them
 * a NUL), 1 what comes between a session's marks, 2 digests of a compiler's files, 3 a compiler's
 * answer to the question where its part is (and PATH).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/mountinfo.h"
#include "concc/str.h"
#include "plain/marks.h"
#include "plain/plain.h"
#include "project/server.h"
#include "project/exe.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void mounts(const char *text, const char *path)
{
	_cleanup_free_ char *a = xstrdup(text), *b = xstrdup(text), *clean = path_clean("/", path);
	struct mount_line l;
	char *at = a, *end = a + strlen(a);
	bool automatic = false;

	while (mountinfo_next(&at, &l)) {
		CHECK(l.point >= a && l.point + strlen(l.point) <= end);
		CHECK(l.type >= a && l.type + strlen(l.type) <= end && !strpbrk(l.type, " \n"));
		automatic |= streq(l.type, "autofs");
	}
	CHECK(at == end);
	CHECK(!mountinfo_triggers(b, clean) || automatic);
}

/* In pieces of some size; what was taken. */
static int feed(const uint8_t *data, size_t n, size_t piece, struct buf *out)
{
	struct marks m;
	int r = 0;

	marks_init(&m, "0123456789abcdef");
	for (size_t at = 0; r == 0 && at < n; at += piece)
		r = marks_feed(&m, data + at, n - at < piece ? n - at : piece, out);
	CHECK(out->len <= n);
	CHECK(m.begun || out->len == 0);
	CHECK(!m.begun || (m.texts[0] && strlen(m.texts[0]) <= MARKS_TEXT_MAX));
	CHECK(!m.ended || (m.begun && m.texts[1]));
	if (r == 0 && m.ended)
		r = 1;
	marks_release(&m);
	return r;
}

/* However it is cut, it says the same. */
static void marks(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf whole = BUF_INIT, bytes = BUF_INIT, pieces = BUF_INIT;
	int r = feed(data, n, n ? n : 1, &whole);

	CHECK(feed(data, n, 1, &bytes) == r && feed(data, n, 7, &pieces) == r);
	if (r < 0)
		return;
	CHECK(bytes.len == whole.len && pieces.len == whole.len);
	CHECK(!whole.len || (memcmp(bytes.data, whole.data, whole.len) == 0 &&
			     memcmp(pieces.data, whole.data, whole.len) == 0));
}

static void digests(const char *text)
{
	struct exe_file files[3] = {
		{.path = (char *)"/a"}, {.path = (char *)"/b"}, {.path = (char *)"/c"}};
	struct msg_exe exe = {.files = files, .n_files = 3};
	_cleanup_free_ char *why = NULL;

	for (size_t i = 0; i < 3; i++)
		memset(&files[i].digest, (int)i, sizeof(files[i].digest));
	why = program_differs(&exe, text);
	/* The same only when all of them were named. */
	CHECK(why || strlen(text) >= (size_t)3 * (DIGEST_HEX - 1));
}

/* Nothing but an absolute path, said in one line, or found in PATH by the part's own name. */
static void part(const char *answer, const char *path)
{
	_cleanup_free_ char *found = exe_part("as", answer, path, "/");
	_cleanup_free_ char *clean = found ? path_clean("/", found) : NULL;

	if (!found)
		return;
	CHECK(*found == '/');
	/* With a name that is too long for a message there is no file. */
	CHECK(path_is_clean(clean) || access(clean, F_OK) < 0);
	CHECK(*answer == '/' ? !strchr(found, '\n') && str_starts(answer, found)
			     : str_starts(answer, "as") && streq(path_base(found), "as"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = NULL, *path = NULL;
	size_t len;

	if (n == 0)
		return 0;
	text = xstrndup((const char *)data + 1, n - 1);
	len = strlen(text);
	path = len + 2 < n ? xstrndup((const char *)data + len + 2, n - len - 2) : xstrdup("/");
	switch (data[0] % 4) {
	case 0:
		mounts(text, path);
		break;
	case 1:
		marks(data + 1, n - 1);
		break;
	case 2:
		digests(text);
		break;
	case 3:
		part(text, path);
		break;
	}
	return 0;
}
