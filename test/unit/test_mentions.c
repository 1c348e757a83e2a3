/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>

#include "project/mentions.h"

#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"

TestSuite(mentions, .timeout = 300);

/* Each name with a space, those in quotes with them. */
static void expect(const char *text, const char *names)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct mentions m;

	mentions_find(text, strlen(text), &m);
	for (size_t i = 0; i < m.n_names; i++)
		buf_putf(&b, m.quoted[i] ? "\"%s\" " : "%s ", m.names[i]);
	cr_assert_str_eq(buf_cstr(&b), names, "%s", text);
	mentions_release(&m);
}

Test(mentions, finds_includes)
{
	expect("", "");
	expect("#include <a.h>\n#include \"b/c.h\"", "a.h \"b/c.h\" ");
	expect(" \t# \tinclude_next\t<a.h> // why\r\n", "a.h ");
	expect("#if 0\n#include <a>\n#endif\n", "a ");
	expect("#include \"../up.h\"\n", "\"../up.h\" ");
}

Test(mentions, takes_nothing_else)
{
	expect("// #include <a.h>\nint a; #include <b.h>\n", "");
	expect("#include\n#include <\n#include <>\n#include \"\"\n#include \"a.h\n#include <a.h\n",
	       "");
	expect("#include MACRO\n#includes <a.h>\n#define X <a.h>\n#\n#", "");
	expect("#include </etc/passwd>\n#include <dir/>\n", "");
}

Test(mentions, is_bounded)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct mentions m;

	for (int i = 0; i < 2000; i++)
		buf_putf(&b, "#include <h%d.h>\n", i);
	mentions_find((char *)b.data, b.len, &m);
	cr_assert_eq(m.n_names, 1000);
	mentions_release(&m);
	mentions_find("#include <a\0b>\n", 15, &m);
	cr_assert_eq(m.n_names, 0);
	mentions_release(&m);
}
