#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a warm job costs where jobs see the client's system: as much as on a worker's own (counts.sh).
# limit: 120
LAB_ROOT=client
. "${BASH_SOURCE[0]%/*}/counts.sh"
