/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/spare.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define SMALL 4096 /* bytes of a file of the kernel's */

/* Percent of the last ten seconds in which something waited for memory: then builds swap. */
#define PRESSURE_MAX 10

static bool read_small(const char *path, struct buf *b)
{
	b->len = 0;
	return read_file_at(AT_FDCWD, path, SMALL, b) == 0;
}

/* "some avg10=0.00 avg60=0.00 ...", where the kernel measures it (PSI, since Linux 4.20). */
static bool memory_is_short(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	unsigned percent;

	return read_small("/proc/pressure/memory", &b) &&
	       sscanf(buf_cstr(&b), "some avg10=%u", &percent) == 1 && percent >= PRESSURE_MAX;
}

#define SUPPLIES "/sys/class/power_supply"

static bool says(const char *supply, const char *file, const char *text)
{
	_cleanup_free_ char *path = xasprintf(SUPPLIES "/%s/%s", supply, file);
	_cleanup_buf_ struct buf b = BUF_INIT;

	return read_small(path, &b) && str_starts(buf_cstr(&b), text);
}

/* There is a mains supply, and none is plugged in: sysfs-class-power of the kernel's ABI. */
static bool on_battery(void)
{
	DIR *dir = opendir(SUPPLIES);
	bool plug = false, power = false;

	if (!dir)
		return false;
	for (struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.' || !says(e->d_name, "type", "Mains"))
			continue;
		plug = true;
		power |= says(e->d_name, "online", "1");
	}
	closedir(dir);
	return plug && !power;
}

bool spare_local(void)
{
	return !memory_is_short() && !on_battery();
}
