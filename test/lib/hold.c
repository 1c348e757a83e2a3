/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hold [CHILDREN]: prints "held" and then does nothing until it is killed: a
 * job that is in the middle of its work.  With a number it has children, and
 * children in sessions of their own, that do nothing either.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0;

	for (int i = 0; i < n; i++) {
		if (fork() == 0) {
			if (i % 2)
				setsid();
			for (;;)
				pause();
		}
	}
	puts("held");
	fflush(stdout);
	for (;;)
		pause();
}
