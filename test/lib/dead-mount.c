/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Mounts a FUSE file system whose server dies at once: each look at it fails, with ENOTCONN. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char opts[64];

	if (argc != 2 || fd < 0)
		return 2;
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mount("dead", argv[1], "fuse", 0, opts) < 0) {
		perror(argv[1]);
		return 1;
	}
	return 0;
}
