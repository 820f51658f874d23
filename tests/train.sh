#!/bin/sh
# Training as a user runs it, on a tiny model: the loss falls, the same seed gives the same bits, a killed run resumes to
# the same bits, faults are named. Usage: sh tests/train.sh CSMOE
set -u

csmoe=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
# Tiny tensors: threads of the CPU driver would only wait for each other.
export LP_NUM_THREADS=0
# shellcheck source=tests/case.sh
. "$(dirname "$0")/case.sh"

data=$dir/data
"$csmoe" synth "$data" --images 40 >/dev/null 2>&1
"$csmoe" tokenizer train "$data/train.json" --vocabulary 400 --out "$data/tokenizer.model" >/dev/null 2>&1
config=$dir/tiny.json
cat >"$config" <<JSON
{
  "data": {"train": "$data/train.json", "tokenizer": "$data/tokenizer.model", "turns": "isolated"},
  "vision": {"size": 32, "patch": 16, "width": 16, "layers": 2, "heads": 2, "hidden": 32,
    "moe": {"experts": 4, "top_k": 2, "hidden": 16}},
  "projector": {"hidden": 16},
  "text": {"width": 16, "layers": 1, "heads": 2, "hidden": 32, "context": 256},
  "competition": {"rate": 0.3, "warmup": 0.1},
  "train": {"steps": 200, "batch": 4, "lr": 1e-2, "save_every": 50}
}
JSON

# ---- a run ----

last=step-00000200
expect "training ends with a checkpoint" 0 "" train "$config" --out "$dir/a"
check "the checkpoint is whole" [ -s "$dir/a/$last/config.json" -a -s "$dir/a/$last/model.safetensors" \
    -a -s "$dir/a/$last/tokenizer.model" -a -s "$dir/a/$last/trainer.safetensors" ]
check "log.jsonl has a line per step" [ "$(wc -l <"$dir/a/log.jsonl")" = 200 ]
check "both kinds of step were trained" sh -c "grep -q '\"competed\": true' '$dir/a/log.jsonl' &&
    grep -q '\"competed\": false' '$dir/a/log.jsonl'"
# loss FIRST LAST: mean loss of these steps of the log.
loss() {
    sed -n "$1,$2s/.*\"loss\": \([0-9.e+-]*\).*/\1/p" "$dir/a/log.jsonl" | awk '{ s += $1 } END { print s / NR }'
}
check "the loss falls from above 3 to below 1" awk "BEGIN { exit !($(loss 1 10) > 3 && $(loss 191 200) < 1) }"
expect "eval" 0 "^exact match [0-9.]+% .*loss" eval "$dir/a" --data "$data/test.json"
expect "eval as JSON" 0 '"exact_match": 0\.[0-9]+' eval "$dir/a" --data "$data/test.json" --json

# ---- determinism ----

"$csmoe" train "$config" --out "$dir/b" >/dev/null 2>&1
check "the same seed gives the same weights" cmp "$dir/a/$last/model.safetensors" "$dir/b/$last/model.safetensors"
check "... and the same optimizer state" cmp "$dir/a/$last/trainer.safetensors" "$dir/b/$last/trainer.safetensors"
"$csmoe" train "$config" --out "$dir/seed" --set seed=2 --set train.steps=5 >/dev/null 2>&1
"$csmoe" train "$config" --out "$dir/seed1" --set train.steps=5 >/dev/null 2>&1
check "another seed gives other weights" sh -c \
    "! cmp -s '$dir/seed/step-00000005/model.safetensors' '$dir/seed1/step-00000005/model.safetensors'"

# wait_for FILE: until it exists, at most two minutes.
wait_for() {
    tries=0
    while [ ! -e "$1" ] && [ $tries -lt 1200 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

"$csmoe" train "$config" --out "$dir/c" >/dev/null 2>&1 &
wait_for "$dir/c/step-00000100"
kill -KILL $! 2>/dev/null
wait $! 2>/dev/null
check "the kill came before the end" [ ! -e "$dir/c/$last" ]
expect "resume after SIGKILL" 0 "" train "$config" --out "$dir/c" --resume
check "the resumed run ends with the same weights" cmp "$dir/a/$last/model.safetensors" "$dir/c/$last/model.safetensors"
check "... and the same optimizer state" cmp "$dir/a/$last/trainer.safetensors" "$dir/c/$last/trainer.safetensors"
check "... and a log without gaps or repeats" sh -c "sed 's/.*\"step\": \([0-9]*\),.*/\1/' '$dir/c/log.jsonl' |
    awk '\$1 != NR { exit 1 } END { exit NR != 200 }'"

"$csmoe" train "$config" --out "$dir/d" >"$dir/interrupted" 2>&1 &
wait_for "$dir/d/step-00000050"
kill -INT $! 2>/dev/null
wait $!
status=$?
check "an interrupted run ends in good order" [ $status = 0 ]
check "... and says how to go on" grep -q -- "--resume" "$dir/interrupted"
expect "resume after an interrupt" 0 "" train "$config" --out "$dir/d" --resume
check "the run interrupted in between ends with the same weights" \
    cmp "$dir/a/$last/model.safetensors" "$dir/d/$last/model.safetensors"

exit $bad
