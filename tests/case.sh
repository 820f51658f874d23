# shellcheck shell=sh disable=SC2154
# Sourced by the command-line tests: cases that print "ok - name" or "not ok - name". Needs $csmoe and a folder $dir for
# scratch files; sets bad=1 when a case fails.
bad=0

# expect NAME STATUS PATTERN ARGUMENTS...: runs csmoe; its exit status must be STATUS and its output (both streams) must
# have a line matching the extended regular expression PATTERN.
expect() {
    expect_from "$csmoe" "$@"
}

# expect_from COMMAND NAME STATUS PATTERN ARGUMENTS...: the same for another command than csmoe.
expect_from() {
    command=$1 name=$2 wanted=$3 pattern=$4
    shift 4
    "$command" "$@" >"$dir/output" 2>&1 </dev/null
    status=$?
    if [ "$status" = "$wanted" ] && grep -qE -e "$pattern" "$dir/output"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        echo "# $command $*"
        echo "# exit status $status, wanted $wanted; no line matches: $pattern"
        sed 's/^/# /' "$dir/output" | head -n 20
        bad=1
    fi
}

# check NAME COMMAND...: the command must succeed.
check() {
    name=$1
    shift
    if "$@" >"$dir/output" 2>&1; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        echo "# $*"
        sed 's/^/# /' "$dir/output" | head -n 20
        bad=1
    fi
}
