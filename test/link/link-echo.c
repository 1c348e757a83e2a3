/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What an sshd starts in the place of concc-worker; its arguments are the worker's, and ignored. */
#include "echo.h"

int main(void)
{
	return echo_main();
}
