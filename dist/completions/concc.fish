# SPDX-License-Identifier: Apache-2.0 OR MIT
# Completion of concc for fish.  Commands and options are those that `concc --help` tells of.

# Without a word the commands; with one its options, each with the name of its value, if it takes one.
function __concc_words
    concc --help 2>/dev/null | awk -v want="$argv[1]" '
        /^$/ { exit }
        /^usage: concc / || /^ +concc / { sub(/^usage:/, ""); command = $2 }
        want == "" { if (command ~ /^[a-z]/ && command != last) print command; last = command; next }
        command == want {
            while (match($0, /[[ |](-[A-Za-z]|--[a-z][a-z-]*)( [A-Z]+)?/)) {
                print substr($0, RSTART + 1, RLENGTH - 1)
                $0 = substr($0, RSTART + RLENGTH)
            }
        }'
end

# Of the configuration: what [worker NAME] there is.
function __concc_workers
    set -l file $HOME/.concc.ini
    set -q CONCC_CONFIG; and set file $CONCC_CONFIG
    sed -n 's/^[[:space:]]*\[[[:space:]]*worker[[:space:]]\{1,\}\([^]]*[^][:space:]]\)[[:space:]]*\].*/\1/p' $file 2>/dev/null
end

# The words of the line that are there already: the command, and what comes behind the options.
function __concc_arguments
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    if test (count $words) -eq 1
        __concc_words
        return
    end
    set -l options (__concc_words $words[2])
    set -l takes (string match -r '^\S+ \S+$' -- $options)
    set -l i 3
    while test $i -le (count $words)
        set -l word $words[$i]
        if test "$word" = --
            set i (math $i + 1)
            break
        end
        string match -q -- '-*' $word; or break
        set -l kind (string replace -rf '^'(string escape --style=regex -- $word)' (\S+)$' '$1' -- $takes)
        if test -n "$kind"
            if test $i -eq (count $words)
                switch $kind
                    case DIR
                        __fish_complete_directories $current
                    case FILE
                        __fish_complete_path $current
                    case WORKERS
                        __concc_workers
                end
                return
            end
            set i (math $i + 1)
        end
        set i (math $i + 1)
    end
    # What `run` runs has a completion of its own.
    if contains -- $words[2] run why
        if not string match -q -- '-*' $current; or test $i -le (count $words)
            set -l rest $words[$i..-1] $current
            test $i -gt (count $words); and set rest $current
            complete -C (string join ' ' -- $rest)
            return
        end
    end
    string match -q -- '-*' $current; and string split -f1 ' ' -- $options
    contains -- $words[2] doctor push; and __concc_workers
end

complete -c concc -f -a '(__concc_arguments)'
