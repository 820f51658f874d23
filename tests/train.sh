#!/bin/sh
# Training as a user runs it, on a tiny model: the loss falls, the model can be evaluated, every fault of configuration, data,
# device and checkpoint is named. tests/resume.sh tests interrupted runs. Usage: sh tests/train.sh CSMOE
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

# ---- memory, before a run ----

expect "train --dry-run" 0 "^device memory at the highest +[0-9.]+ +[0-9.]+$" train "$config" --dry-run
expect "... warns of a tokenizer without the template's marks" 0 "no piece '<.end.>'" train "$config" --dry-run \
    --set data.template=phi3
expect "... writes nothing, given a folder or not" 0 "^staging" train "$config" --dry-run --out "$dir/dry"
check "... not even the folder" [ ! -e "$dir/dry" ]

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
picture=$data/images/test-000000.png
expect "chat: one question about a picture" 0 "^[a-z]+" chat "$dir/a" --image "$picture" --prompt "Is there a cross?"
printf 'How many objects are there?\nIs there a cross?\n' >"$dir/questions"
conversation() {
    "$csmoe" "$@" <"$dir/questions"
}
expect_from conversation "chat: a conversation on standard input" 0 "^[a-z]+" chat "$dir/a" --image "$picture"
answers() {
    "$csmoe" chat "$dir/a" --image "$picture" --prompt "Where is it?" --temperature 2 --seed "$1" 2>/dev/null
}
check "chat: the same seed draws the same answer" [ "$(answers 5)" = "$(answers 5)" ]
expect "chat: no such picture" 1 "absent.png: cannot open" chat "$dir/a" --image "$dir/absent.png" --prompt "x"
expect "chat: a picture that is none" 1 "tiny.json: not a PNG or JPEG" chat "$dir/a" --image "$config" --prompt "x"
expect "chat: no such run" 1 "absent" chat "$dir/absent" --prompt "x"
expect "chat: a temperature below zero" 2 "--temperature -1: must be" chat "$dir/a" --temperature -1

# ---- faults: named, and nothing is left behind ----

# refuse NAME PATTERN ARGUMENTS...: training with these arguments must fail with this message and make no run folder.
refuse() {
    name=$1 pattern=$2
    shift 2
    expect "train: $name" 1 "^error: .*$pattern" train "$config" --out "$dir/refused" "$@"
    check "... leaves no folder" [ ! -e "$dir/refused" ]
    rm -rf "$dir/refused"
}
printf '{\n  "train": {"steps": 1,\n    "lerning": 2}\n}\n' >"$dir/unknown.json"
printf '{\n  "train": {"steps": 1,,\n}\n' >"$dir/syntax.json"
expect "train: unknown key with file and line" 1 "unknown.json:3: unknown key 'train.lerning'" \
    train "$dir/unknown.json" --out "$dir/refused"
expect "train: syntax error with line and column" 1 "syntax.json:2:[0-9]+: not valid JSON" \
    train "$dir/syntax.json" --out "$dir/refused"
expect "train: no such configuration" 1 "absent.json: cannot open" train "$dir/absent.json" --out "$dir/refused"
expect "train: --out is missing" 2 "--out RUN is missing" train "$config"
expect "train: CONFIG.json is missing" 2 "CONFIG.json is missing" train --out "$dir/refused"
expect "train: unknown option names the nearest" 2 "unknown option '--resum'; did you mean '--resume'" \
    train "$config" --out "$dir/refused" --resum
refuse "unknown key names the nearest" "unknown key 'train.lrr'; did you mean 'lr'" --set train.lrr=1
refuse "wrong type" "'train.lr' must be a number, not a string" --set train.lr=abc
refuse "out of range" "'train.batch' is 0, but must be from 1" --set train.batch=0
refuse "unknown choice" "'train.schedule' is 'cosin', which is not known; did you mean 'cosine'" --set train.schedule=cosin
refuse "heads that do not divide" "vision.width 16 is not a multiple of vision.heads 3" --set vision.heads=3
refuse "patches that do not divide" "vision.size 32 is not a multiple of vision.patch 7" --set vision.patch=7
refuse "more winners than experts" "top_k is 5, but there are 4 experts" --set vision.moe.top_k=5
refuse "nothing to freeze" "train.freeze: no parameter's name begins with 'vison'" --set "train.freeze=text, vison"
refuse "a trace that cannot be written" "/nonexistent/x.json.*: cannot write" --trace /nonexistent/x.json
refuse "more figures than can be read back" "train.accumulate 20000 .*at most" --set train.accumulate=20000
refuse "nothing left to learn" "max_tokens 4" --set data.max_tokens=4
refuse "no such data" "absent.json: cannot open" --set data.train="$dir/absent.json"
refuse "a tokenizer that is none" "tiny.json: not a SentencePiece model" --set data.tokenizer="$config"
refuse "unknown template" "'llama9'.*known are" --set data.template=llama9
refuse "no such device by index" "device '77' does not exist; there are: 0: " --device 77
refuse "no such device by name" "device 'voodoo' matches none; there are: 0: " --device voodoo
refuse "a device out of memory" "out of device memory for .* wanted, .* available" \
    --set text.width=8192 --set text.heads=64 --set text.hidden=65536 --set text.layers=64
expect "train: a folder that cannot be made" 1 "/proc/none: cannot make the folder" train "$config" --out /proc/none

printf '[{"id":"a","image":"images/absent.png","conversations":[{"from":"human","value":"<image>\\nWhat?"},
 {"from":"gpt","value":"yes"}]},\n' >"$data/bad.json"
sed 1d "$data/train.json" >>"$data/bad.json"
refuse "a picture that is missing" "images/absent.png: no such picture" --set data.train="$data/bad.json"
expect "train: --skip-bad goes on without it" 0 "" train "$config" --out "$dir/skipped" --skip-bad \
    --set data.train="$data/bad.json" --set train.steps=2

# broken NAME FILE PATTERN COMMAND...: a copy of the run whose FILE went through COMMAND must be refused with this message.
broken() {
    name=$1 file=$2 pattern=$3
    shift 3
    rm -rf "$dir/broken"
    cp -r "$dir/a" "$dir/broken"
    "$@" "$dir/broken/$last/$file"
    expect "checkpoint: $name" 1 "$file.*$pattern" eval "$dir/broken" --data "$data/test.json"
}
broken "truncated weights" model.safetensors "" truncate -s 20000
broken "empty weights" model.safetensors "" truncate -s 0
broken "an empty tokenizer" tokenizer.model "empty file" truncate -s 0
broken "a configuration that is none" config.json "not valid JSON" truncate -s 50
rm -rf "$dir/broken"
cp -r "$dir/a" "$dir/broken"
sed -i 's/"width": 16/"width": 32/' "$dir/broken/$last/config.json"
expect "checkpoint: weights of another shape" 1 "model.safetensors.*shape is \[16, 768\], wanted \[32, 768\]" \
    eval "$dir/broken" --data "$data/test.json"
expect "eval: no such run" 1 "absent: there is no such run folder" eval "$dir/absent" --data "$data/test.json"
expect "eval: no such data" 1 "absent.json: cannot open" eval "$dir/a" --data "$data/absent.json"
expect "eval: --data is missing" 2 "--data FILE is missing" eval "$dir/a"

exit $bad
