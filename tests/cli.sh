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

expect "devices lists one and marks it" 0 "^\* [0-9]+  " devices
expect "devices as JSON" 0 '"max_storage_range": [0-9]+' devices --json
expect_without_driver() {
    VK_DRIVER_FILES=/nonexistent.json expect "$@"
}
expect_without_driver "no Vulkan driver" 1 "^error: .*[Vv]ulkan" devices

"$csmoe" version >/dev/full 2>"$dir/output"
check "output to a full disk fails" [ $? = 1 ]
"$csmoe" --help 2>"$dir/output" | true
check "a reader that left early is no error" [ ! -s "$dir/output" ]

cat >"$dir/bad.jsonl" <<'END'
{"id": 1, "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
{"id": 2, "image": "none.png", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a"}]}
{"id": 3, "conversations": [{"from": "human", "value": "hi"}]}
{"id": 4
END
head -n 1 "$dir/bad.jsonl" >"$dir/good.jsonl"
expect "check-data accepts good data" 0 "1 good samples with 1 turns and 0 pictures; 0 bad" check-data "$dir/good.jsonl"
expect "check-data names a missing picture" 1 "bad.jsonl:2: sample 1: .*none.png: no such picture" check-data "$dir/bad.jsonl"
expect "check-data goes on behind a fault" 1 "bad.jsonl:3: sample 2: .*has no answer" check-data "$dir/bad.jsonl"
expect "check-data names line and column" 1 "bad.jsonl:4:[0-9]+: syntax error" check-data "$dir/bad.jsonl"
expect "check-data counts" 1 "1 good samples .* 3 bad samples, 3 faults" check-data "$dir/bad.jsonl"
expect "check-data without a file" 1 "nowhere.json: cannot open" check-data "$dir/nowhere.json"
expect "import of an unknown kind" 2 "unknown KIND 'easyvqa'; did you mean 'easy-vqa'" import easyvqa "$dir" "$dir/made"
expect "import of a folder without the data" 1 "questions.json: cannot open" import easy-vqa "$dir" "$dir/made"
check "a failed import leaves nothing" [ -z "$(ls -d "$dir"/made* 2>/dev/null)" ]

expect "synth draws pictures" 0 "5 pictures to train on, 1 to test on" synth "$dir/set" --images 5
check "synth writes the pictures" [ -s "$dir/set/images/train-000004.png" ]
expect "synth replaces its own folder" 0 "6 pictures" synth "$dir/set" --images 6
mkdir "$dir/mine" && echo x >"$dir/mine/notes"
expect "synth spares another folder" 1 "mine: the folder holds something else" synth "$dir/mine"
check "nothing is left beside a refused folder" [ "$(find "$dir" -name '*.tmp-*' | wc -l)" = 0 ]
expect "synth wants a picture" 2 "images" synth "$dir/none" --images 0
expect "tokenizer train" 0 "t.model: [0-9]+ pieces" tokenizer train "$dir/set/train.json" --vocabulary 80 --out "$dir/t.model"
expect "tokenizer encode" 0 "^[0-9]+( [0-9]+)*$" tokenizer encode "$dir/t.model" "Is there a circle?"
"$csmoe" tokenizer encode "$dir/t.model" "Is there a circle?" >"$dir/ids"
expect "tokenizer decode" 0 "^Is there a circle\?$" tokenizer decode "$dir/t.model" "$(cat "$dir/ids")"
expect "an id out of range" 1 "99999" tokenizer decode "$dir/t.model" 99999
expect "an id that is none" 1 "'x' is not an id" tokenizer decode "$dir/t.model" "1 x"
expect "a tokenizer that is none" 1 "train.json: not a SentencePiece model" tokenizer encode "$dir/set/train.json" a
expect "a missing text" 1 "nothing.txt: cannot open" tokenizer train "$dir/nothing.txt" --out "$dir/u.model"
expect "an unknown type of tokenizer" 2 "did you mean 'bpe'" tokenizer train "$dir/ids" --type brp
check "no model is left by a failure" [ ! -e "$dir/u.model" ]

exit $bad
