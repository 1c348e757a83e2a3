/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "concc/err.h"
#include "concc/str.h"

Test(str, what_could_control_a_terminal)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {
		{"", ""},
		{"a b/c.o", "a b/c.o"},
		{"\033[31mred\033[0m", "?[31mred?[0m"},
		{"a\nb\r\t\a\b\177", "a?b?????"},
		{"gr\303\274n \342\202\254 \360\237\230\200",
		 "gr\303\274n \342\202\254 \360\237\230\200"},
		{"\233"
		 "31m",
		 "?31m"}, /* CSI, of one byte */
		{"\302\233"
		 "31m",
		 "??31m"},				   /* the same in UTF-8 */
		{"\302\240", "\302\240"},		   /* the first that is none */
		{"a\342\200\256c.tcejbo", "a???c.tcejbo"}, /* right to left from here */
		{"\342\201\246x\342\201\251", "???x???"},
		{"\342\200\250", "???"},
		{"\330\234", "??"},
		{"\342\200\234q\342\200\235 \330\247", "\342\200\234q\342\200\235 \330\247"},
		{"\303", "?"}, /* cut */
		{"\342\202", "??"},
		{"\360\237\230x", "???x"},
		{"\300\233", "??"}, /* overlong */
		{"\377\376", "??"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *s = xstrdup(cases[i].text);

		str_defuse(s);
		cr_expect_str_eq(s, cases[i].shown, "case %zu: %s", i, s);
		free(s);
	}
}

Test(str, lines_stay_lines)
{
	char s[] = "a\033[2J\nb\r\302\233\n";

	str_defuse_lines(s);
	cr_expect_str_eq(s, "a?[2J\nb???\n");
}

Test(str, no_message_controls_a_terminal)
{
	struct errmsg msg;

	errmsg_set(&msg, -1, "can't write %s", "a\033]0;title\a.o");
	cr_expect_str_eq(msg.text, "can't write a?]0;title?.o");
}
