/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "assets.h"

/* The assembler reads the file; the Makefile says what is to be made anew when one changes. */
#define ASSET(name, path)                                                                          \
	__asm__(".pushsection .rodata\n"                                                           \
		".global " #name "\n"                                                              \
		".type " #name ", %object\n" #name ":\n"                                           \
		".incbin \"" path "\"\n"                                                           \
		".byte 0\n"                                                                        \
		".size " #name ", . - " #name "\n"                                                 \
		".popsection\n")

ASSET(asset_report_html, "src/view/report.html");
ASSET(asset_report_css, "src/view/report.css");
ASSET(asset_report_js, "src/view/report.js");
