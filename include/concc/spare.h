/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SPARE_H
#define CONCC_SPARE_H

#include <stdbool.h>

/*
 * May this machine do jobs of a build?  Not when memory is short, nor on a battery.  (That others
 * use its cores makes it slower, which is a matter of choosing the place.)  What can't be told is
 * no objection.  Reads a few files of the kernel's.
 */
bool spare_local(void);

#endif
