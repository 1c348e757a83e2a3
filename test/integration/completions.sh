#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Completions in the real shells: what concc(1) has in its synopsis, and nothing else, which is also
# what `concc --help` tells.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need bash fish zsh python3
lab_enter "$@"
lab_start 0
DIST=$LAB_REPO/dist/completions
printf '[concc]\n[worker abc]\naddress = ssh://abc\n [ worker  def ]\naddress = ssh://d\n' >/srv/concc.ini

# "COMMAND OPTION" in each line, "COMMAND -" for the command itself.
synopsis() {
	awk '/^\.Sh DESC/ { exit } /^\.Sh SYN/ { on = 1 } !on { next }
		$1 == ".Cm" { command = $2; print command, "-" }
		/^\.(Op|Fl|Oo)/ && command {
			for (i = 2; i <= NF; i++) if ($i == "Fl") {
				o = $(i + 1) == "-" ? "" : "-" $(i + 1)
				if (o) print command, o
			}
			for (i = 2; i <= NF; i++) if ($i == "|" && $(i + 1) ~ /^-/) print command, "-" $(i + 1)
		}
		$1 == ".Nm" { command = "" }' "$LAB_REPO/man/concc.1" | sort -u
}

# The same of a shell's answer to "concc " and "concc COMMAND -".
of_bash() {
	# shellcheck disable=SC2016 # the other shell's
	bash -c '. "$1"; complete -p concc >/dev/null || exit 1
		ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _concc 2>/dev/null; }
		ask concc ""; commands=("${COMPREPLY[@]}")
		for c in "${commands[@]}"; do
			echo "$c -"
			ask concc "$c" -
			printf "$c %s\n" "${COMPREPLY[@]}"
		done' bash "$DIST/concc.bash" | sed '/ $/d' | sort -u
}

of_fish() {
	# shellcheck disable=SC2016 # the other shell's
	fish -c 'source $argv[1]
		for c in (complete -C "concc " | string split -f1 \t)
			echo $c -
			for o in (complete -C "concc $c -" | string split -f1 \t)
				echo $c $o
			end
		end' "$DIST/concc.fish" | sort -u
}

# There a word is typed but for its end.
zsh_types() {
	local lines=() command option
	mkdir -p "$LAB/zsh"
	cp "$DIST/concc.zsh" "$LAB/zsh/_concc"
	while read -r command option; do
		case $option in
		-) lines+=("concc ${command%?}") ;;
		--*) lines+=("concc $command ${option%?}") ;;
		esac
	done <"$LAB/synopsis"
	"$LAB_REPO/test/lib/type-tab" "$LAB/zsh" "${lines[@]}" >"$LAB/typed"
	grep -v -- ' -[A-Za-z]$' "$LAB/synopsis" | sed 's/^/concc /; s/ -$//' >"$LAB/wanted"
	diff "$LAB/wanted" "$LAB/typed" || fail "zsh completes otherwise"
	"$LAB_REPO/test/lib/type-tab" "$LAB/zsh" 'concc doctor ab' 'concc run -C /usr/inclu' 'concc run -- ech' >"$LAB/typed"
	expect_eq "values" "$(tr '\n' ';' <"$LAB/typed")" 'concc doctor abc;concc run -C /usr/include/;concc run -- echo;'
}

same() { # SHELL
	"of_$1" >"$LAB/$1"
	diff "$LAB/synopsis" "$LAB/$1" || fail "$1 offers something else than the manual has"
}

values() {
	# shellcheck disable=SC2016 # the other shell's
	expect_eq "bash: workers" "$(bash -c '. "$1"; COMP_WORDS=(concc doctor ""); COMP_CWORD=2; _concc; echo "${COMPREPLY[*]}"' \
		bash "$DIST/concc.bash")" 'abc def'
	# shellcheck disable=SC2016 # the other shell's
	expect_eq "fish: workers" "$(fish -c 'source $argv[1]; complete -C "concc run -w "; complete -C "concc push a"' \
		"$DIST/concc.fish" | tr '\n' ' ')" 'abc def abc '
	# shellcheck disable=SC2016 # the other shell's
	expect_grep '^false' <(fish -c 'source $argv[1]; complete -C "concc run --quiet fals"' "$DIST/concc.fish")
}

synopsis >"$LAB/synopsis"
cat "$LAB/synopsis"
expect_ge "in the manual" "$(wc -l <"$LAB/synopsis")" 15
check "bash" same bash
check "fish" same fish
check "zsh" zsh_types
check "workers, directories and commands" values
lab_stop
