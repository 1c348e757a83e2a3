# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Completion of concc for bash.  Commands and options are those that `concc --help` tells of.

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
	sed -n 's/^[[:space:]]*\[[[:space:]]*worker[[:space:]]\{1,\}\([^]]*[^][:space:]]\)[[:space:]]*\].*/\1/p' \
		"${CONCC_CONFIG:-$HOME/.concc.ini}" 2>/dev/null
}

_concc_reply() { # WORDS CURRENT
	local IFS=$'\n'
	# shellcheck disable=SC2207 # a word in each line
	COMPREPLY=($(compgen -W "$1" -- "$2"))
}

_concc_value() { # KIND CURRENT
	case $1 in
	DIR)
		compopt -o filenames
		# shellcheck disable=SC2207
		COMPREPLY=($(IFS=$'\n' compgen -d -- "$2"))
		;;
	FILE)
		compopt -o filenames
		# shellcheck disable=SC2207
		COMPREPLY=($(IFS=$'\n' compgen -f -- "$2"))
		;;
	WORKERS) _concc_reply "$(_concc_workers)" "$2" ;;
	esac
}

# The value that the option takes, "" when it takes none.
_concc_kind() { # OPTION OPTIONS
	local option kind
	while read -r option kind; do
		[ "$option" != "$1" ] || { echo "$kind" && return; }
	done <<<"$2"
}

_concc() {
	local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} options kind i
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		_concc_reply "$(_concc_words)" "$current"
		return
	fi
	options=$(_concc_words "$command")
	for ((i = 2; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--) i=$((i + 1)) && break ;;
		-*)
			kind=$(_concc_kind "${COMP_WORDS[i]}" "$options")
			[ -n "$kind" ] || continue
			if [ $((i + 1)) -eq "$COMP_CWORD" ]; then
				_concc_value "$kind" "$current"
				return
			fi
			i=$((i + 1))
			;;
		*) break ;;
		esac
	done
	# What `run` runs has a completion of its own.
	if [[ $command = @(run|why) ]] && { [ "$i" -lt "$COMP_CWORD" ] || [[ ${COMP_WORDS[i - 1]} = -- || $current != -* ]]; }; then
		if declare -F _command_offset >/dev/null; then
			_command_offset "$i"
		else
			compopt -o filenames
			# shellcheck disable=SC2207
			COMPREPLY=($(IFS=$'\n' compgen -c -- "$current"))
		fi
		return
	fi
	case $current in
	-*) _concc_reply "$(cut -d' ' -f1 <<<"$options")" "$current" ;;
	*) case $command in doctor | push) _concc_reply "$(_concc_workers)" "$current" ;; esac ;;
	esac
}

complete -F _concc concc
