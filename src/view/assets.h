/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_ASSETS_H
#define CONCC_VIEW_ASSETS_H

/* Files of src/view that are part of the program as they are; NUL-terminated. */
extern const char asset_report_html[];
extern const char asset_report_css[];
extern const char asset_report_js[];

#endif
