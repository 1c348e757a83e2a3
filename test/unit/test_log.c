/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/log.h"

#define MAX 4096

static FILE *file;

static void log_to_file(void)
{
	file = tmpfile();
	cr_assert_not_null(file);
	cr_assert_eq(fcntl(fileno(file), F_SETFL, O_APPEND), 0);
	log_init("test", LOG_LEVEL_INFO);
	log_set_file(fileno(file), MAX);
}

/* As a whole, from its begin. */
static char *text(void)
{
	static char buf[MAX + 1];
	ssize_t n = pread(fileno(file), buf, sizeof(buf), 0);

	cr_assert_geq(n, 0);
	cr_assert_leq(n, MAX, "%zd bytes", n);
	buf[n] = '\0';
	return buf;
}

/* Of the numbers up to `last` there are the last ones, each once. */
static unsigned count_of(unsigned last)
{
	unsigned number, n = 0, expected = 0;

	for (char *line = strtok(text(), "\n"); line; line = strtok(NULL, "\n")) {
		cr_assert_eq(sscanf(line, "test: number %u", &number), 1, "%s", line);
		cr_assert(!n || number == expected, "%u, %u expected", number, expected);
		expected = number + 1;
		n++;
	}
	cr_assert_eq(expected, last + 1);
	return n;
}

Test(log, the_last_of_a_file_stay, .init = log_to_file)
{
	for (unsigned i = 0; i < 5000; i++) {
		size_t line = (size_t)snprintf(NULL, 0, "test: number %u\n", i);

		log_info("number %u", i);
		if (i > MAX / line)
			cr_assert_geq(count_of(i), MAX / 2 / line - 1, "after %u", i);
	}
}

Test(log, one_long_line, .init = log_to_file)
{
	char *end;

	for (unsigned i = 0; i < 20; i++)
		log_info("%u %03000d", i, 0); /* cut at 2047 bytes */
	end = text();
	cr_assert_eq(strncmp(end + strlen(end) - 2047, "test: 19 000", 12), 0);
}

Test(log, a_file_that_somebody_emptied, .init = log_to_file)
{
	for (unsigned i = 0; i < 100; i++)
		log_info("number %u", i);
	cr_assert_eq(ftruncate(fileno(file), 0), 0);
	log_info("number %u", 100);
	cr_assert_eq(count_of(100), 1);
}
