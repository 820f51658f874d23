#!/bin/sh
# Builds csmoe and runs every test. The last line is "N passed, N failed, N skipped"; exit status 0 if none failed.
# Usage: sh tools/test.sh
# Reference data (goldens/, data/) is taken from ../shared beside the checkout; what needs it is skipped without it.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
shared=$root/../shared
work=$root/build/test
logs=$root/build/test-logs
csmoe=$work/tools/csmoe
# Pipeline caches of the tests stay with the build.
export XDG_CACHE_HOME="$root/build/cache"

passed=0
failed=0
skipped=0

# What runs in the background, which an interrupt does not reach.
pids=
trap 'kill $pids 2>/dev/null; exit 130' INT TERM

# stage NAME: says what begins, after the time that the stage before took.
stage_name=
stage() {
    now=$(date +%s)
    [ -n "$stage_name" ] && echo "-- $stage_name: $((now - stage_start)) s"
    stage_name=$1
    stage_start=$now
    [ -z "$stage_name" ] || echo "== $stage_name"
}

finish() {
    stage ""
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
    exit
}

# Ends the whole run as failed: nothing further can work.
give_up() {
    echo "not ok - $1"
    failed=$((failed + 1))
    finish
}

# skip REASON: counts one skipped case.
skip() {
    echo "skipped: $1"
    skipped=$((skipped + 1))
}

# count_tap LOG STATUS: adds the cases of a TAP log ("ok", "not ok", "# SKIP"); a bad exit status without a failed case is
# one failure.
count_tap() {
    skips=$(grep -cE '^(not )?ok .*# SKIP' "$1")
    good=$(grep -E '^ok ' "$1" | grep -cvE '# SKIP')
    bad=$(grep -E '^not ok ' "$1" | grep -cvE '# SKIP')
    [ "$2" != 0 ] && [ "$bad" = 0 ] && bad=1
    passed=$((passed + good))
    failed=$((failed + bad))
    skipped=$((skipped + skips))
    grep -E '^not ok ' "$1" | grep -v '# SKIP'
    echo "$good passed, $bad failed, $skips skipped"
}

# count_summary LOG STATUS: adds what the last line of a log says, "N passed, N failed"; a bad exit status without a failed
# case is one failure. Failed cases, and everything after an error, are shown.
count_summary() {
    good=$(sed -n '$s/^\([0-9]*\) passed, [0-9]* failed.*/\1/p' "$1")
    bad=$(sed -n '$s/^[0-9]* passed, \([0-9]*\) failed.*/\1/p' "$1")
    [ -n "$good" ] || good=0 bad=1
    [ "$2" != 0 ] && [ "$bad" = 0 ] && bad=1
    passed=$((passed + good))
    failed=$((failed + bad))
    [ "$bad" = 0 ] || tail -n 60 "$1"
    echo "$good passed, $bad failed"
}

# selftest NAME [OPTIONS...]: a share of its cases on each core, as nearly all of its time goes into compiling kernels, which
# drivers do on one.
selftest() {
    name=$1 shards=$(nproc 2>/dev/null || echo 1) shard=0 pids=
    [ "$shards" -le 8 ] || shards=8
    shift
    rm -f "$logs/$name"-[0-9]*.log
    while [ "$shard" -lt "$shards" ]; do
        shard=$((shard + 1))
        LP_NUM_THREADS=0 "$csmoe" selftest "$@" --shard "$shard/$shards" >"$logs/$name-$shard.log" 2>&1 &
        pids="$pids $!"
    done
    shard=0
    for pid in $pids; do
        wait "$pid"
        status=$? shard=$((shard + 1))
        count_summary "$logs/$name-$shard.log" "$status"
    done
    pids=
}

# scripts NAME...: tests/NAME.sh side by side, as each mostly waits for one process that uses one core.
scripts() {
    pids=
    for name in "$@"; do
        sh "tests/$name.sh" "$csmoe" >"$logs/$name.log" 2>&1 &
        pids="$pids $!"
    done
    for pid in $pids; do
        wait "$pid"
        count_tap "$logs/$1.log" $?
        shift
    done
    pids=
}

# no_messages LOG...: one case, which fails if the validation layer said anything.
no_messages() {
    if cat "$@" | grep "Vulkan validation:" | sort | uniq -c | sort -rn | head -n 20 | grep .; then
        echo "not ok - the validation layer reports nothing"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
}

# build FOLDER MESON-OPTIONS...: configures once and builds.
build() {
    folder=$1
    shift
    if [ ! -f "$folder/build.ninja" ]; then
        meson setup "$folder" "$@" >"$logs/setup.log" 2>&1 || { tail -n 30 "$logs/setup.log"; return 1; }
    fi
    ninja -C "$folder" >"$logs/build.log" 2>&1 || { grep -vE '^\[' "$logs/build.log" | tail -n 60; return 1; }
}

# unit_tests FOLDER LOG [MESON-OPTIONS...]: runs the cmocka programs of a build; their cases are counted one by one.
unit_tests() {
    folder=$1 log=$2
    shift 2
    CMOCKA_MESSAGE_OUTPUT=TAP meson test -C "$folder" --no-rebuild --suite unit --logbase "$log" "$@" >"$logs/$log.log" 2>&1
    status=$?
    [ "$status" = 0 ] || cat "$logs/$log.log"
    count_tap "$folder/meson-logs/$log.txt" "$status"
}

mkdir -p "$logs"
[ -d "$shared" ] || echo "no reference data at $shared: the tests that need it are skipped"
stage "packages"
sh tools/setup.sh test || exit 1

stage "build (every warning is an error)"
build "$work" --buildtype=release -Dwerror=true || give_up "the build"

stage "unit tests"
unit_tests "$work" unit

stage "command line; training: the loss falls, faults are named, same seed, same bits, also when interrupted"
scripts cli train resume

stage "selftest: every operator on the default device"
selftest selftest

stage "goldens: the authors' layer, case by case"
if [ -d "$shared/goldens" ]; then
    LP_NUM_THREADS=0 "$csmoe" verify "$shared/goldens" >"$logs/verify.log" 2>&1
    count_summary "$logs/verify.log" $?
else
    skip "no goldens at $shared/goldens"
fi

# The Vulkan loader finds the second driver through its file; nothing else may notice.
swiftshader=$(sh tools/swiftshader.sh "$root/build/cache/swiftshader" 2>"$logs/swiftshader.log")
stage "SwiftShader: unit tests and selftest"
if [ -n "$swiftshader" ]; then
    export VK_DRIVER_FILES="$swiftshader"
    unit_tests "$work" unit-swiftshader --no-suite whole
    selftest selftest-swiftshader --f32
    unset VK_DRIVER_FILES
else
    skip "$(cat "$logs/swiftshader.log")"
fi

stage "Vulkan validation layer, core and synchronization: unit tests and selftest"
export CSMOE_VALIDATION=1
unit_tests "$work" unit-validation --no-suite training
selftest selftest-validation --f32
unset CSMOE_VALIDATION
no_messages "$work/meson-logs/unit-validation.txt" "$logs"/selftest-validation-*.log

stage "address and undefined-behaviour sanitizers: unit tests"
if build "$root/build/sanitize" --buildtype=debug -Doptimization=1 -Db_sanitize=address,undefined; then
    unit_tests "$root/build/sanitize" unit-sanitize
else
    failed=$((failed + 1))
fi

finish
