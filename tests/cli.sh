#!/bin/sh
# The command line as a user types it: exit status and messages, also for bad input.
# Usage: sh tests/cli.sh CSMOE      prints "ok - name" or "not ok - name" per case; exit status 1 if any failed.
set -u

csmoe=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

# expect NAME STATUS PATTERN ARGUMENTS...: runs csmoe; its exit status must be STATUS and its output (both streams) must
# have a line matching the extended regular expression PATTERN.
expect() {
    name=$1 wanted=$2 pattern=$3
    shift 3
    "$csmoe" "$@" >"$dir/output" 2>&1 </dev/null
    status=$?
    if [ "$status" = "$wanted" ] && grep -qE -e "$pattern" "$dir/output"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        echo "# csmoe $*"
        echo "# exit status $status, wanted $wanted; no line matches: $pattern"
        sed 's/^/# /' "$dir/output" | head -n 20
        bad=1
    fi
}

# check NAME COMMAND...: the command must succeed.
check() {
    name=$1
    shift
    if "$@"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        bad=1
    fi
}

expect "no command lists the commands" 2 "^usage: csmoe COMMAND"
expect "--help lists the commands" 0 "^  version " --help
expect "help of a command" 0 "^usage: csmoe version" help version
expect "--version" 0 "^csmoe [0-9]+\.[0-9]+" --version
expect "unknown command names the nearest" 2 "unknown command 'versoin'; did you mean 'version'" versoin
expect "unknown command far from all" 2 "unknown command 'xyzzyxyzzy'; 'csmoe --help' lists" xyzzyxyzzy
expect "unknown option" 2 "csmoe version: unknown option '--frobnicate'" version --frobnicate
expect "unexpected argument" 2 "unexpected argument 'now'" version now

"$csmoe" version >/dev/full 2>"$dir/output"
check "output to a full disk fails" [ $? = 1 ]
"$csmoe" --help 2>"$dir/output" | true
check "a reader that left early is no error" [ ! -s "$dir/output" ]

exit $bad
