#compdef concc
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Completion of concc for zsh.  Commands and options are those that `concc --help` tells of.

# Without a word the commands; with one its options, each with the name of its value, if it takes one.
_concc_words() { # [COMMAND]
	concc --help 2>/dev/null | awk -v want="${1-}" '
		/^$/ { exit }
		/^usage: concc / || /^ +concc / { sub(/^usage:/, ""); command = $2 }
		want == "" { if (command ~ /^[a-z]/ && command != last) print command; last = command; next }
		command == want {
			while (match($0, /[[ |](-[A-Za-z]|--[a-z][a-z-]*)( [A-Z]+)?/)) {
				print substr($0, RSTART + 1, RLENGTH - 1)
				$0 = substr($0, RSTART + RLENGTH)
			}
		}'
}

# Of the configuration: what [worker NAME] there is.
_concc_workers() {
	local -a names
	names=(${(f)"$(sed -n 's/^[[:space:]]*\[[[:space:]]*worker[[:space:]]\{1,\}\([^]]*[^][:space:]]\)[[:space:]]*\].*/\1/p' \
		${CONCC_CONFIG:-$HOME/.concc.ini} 2>/dev/null)"})
	_describe worker names
}

_concc() {
	local command=$words[2] line option kind
	local -a names specs
	if ((CURRENT == 2)); then
		names=(${(f)"$(_concc_words)"})
		_describe command names
		return
	fi
	for line in ${(f)"$(_concc_words $command)"}; do
		option=${line%% *} kind=${line#* }
		case $kind in
		$line) specs+=("$option") ;;
		DIR) specs+=("$option:directory:_files -/") ;;
		FILE) specs+=("$option:file:_files") ;;
		WORKERS) specs+=("$option:workers:_concc_workers") ;;
		*) specs+=("$option:$kind: ") ;;
		esac
	done
	# What `run` runs has a completion of its own.
	case $command in
	run | why) specs+=('(-)1:command:_command_names -e' '*::argument:_normal') ;;
	doctor | push) specs+=('*:worker:_concc_workers') ;;
	esac
	shift words
	((CURRENT--))
	_arguments -S $specs
}

_concc "$@"
