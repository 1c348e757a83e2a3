# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What belongs to which folder of src/, for test/lint and test/folders-of.

# The folder that a public header speaks for.
owner() { # NAME
	case $1 in
	buf | caller | cleanup | commit_mark | cores | cpu_share | err | io | log | map | mountinfo | offload | namespaces | process | spare | str | worker_spec) echo common ;;
	store) echo mirror ;;
	host_slots) echo pool ;;
	farm | project_conf) echo conf ;;
	cache_remote) echo cache ;;
	*) [ -d "src/$1" ] && echo "$1" || echo "?" ;;
	esac
}

includes() { # FILE: "LINE HEADER", with <> or ""
	awk 'match($0, /^[ \t]*#[ \t]*include[ \t]*[<"][^>"]+[>"]/) {
		header = substr($0, RSTART, RLENGTH)
		sub(/^[^<"]*/, "", header)
		print NR, header
	}' "$1"
}
