/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_SPARE_H
#define CONCC_WRAPPER_SPARE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * May this machine do one more job of a build, beside `taken` that it has?  Not
 * when its cores are wanted by others, links to workers and build tools
 * included; when memory is short; or when it runs on a battery.  What can't be
 * told is no objection.  Reads a few files of the kernel's.
 */
bool spare_for(uint32_t taken);

#endif
