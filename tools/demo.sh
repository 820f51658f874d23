#!/bin/sh
# From nothing to a model that answers questions about pictures: draws the data, trains tokenizer and model, evaluates on
# held-out pictures, shows some of its answers.
# Usage: sh tools/demo.sh [options of csmoe train, as --set train.epochs=1]
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
work=$root/build/demo
csmoe=$work/tools/csmoe
data=runs/demo-data
run=runs/demo

# step NAME: says what begins, and the time since the start.
start=$(date +%s)
step() {
    printf '\n== %s (%s s)\n' "$1" "$(($(date +%s) - start))"
}

step "packages"
sh tools/setup.sh

step "build"
mkdir -p build
[ -f "$work/build.ninja" ] ||
    meson setup "$work" --buildtype=release -Dtests=disabled >build/demo-setup.log 2>&1 ||
    { tail -n 30 build/demo-setup.log; exit 1; }
ninja -C "$work" >build/demo-build.log 2>&1 || { tail -n 40 build/demo-build.log; exit 1; }
"$csmoe" devices

step "pictures and questions"
"$csmoe" synth "$data"
"$csmoe" check-data "$data/train.json"

step "tokenizer"
"$csmoe" tokenizer train "$data/train.json" --type bpe --vocabulary 1000 --out "$data/tokenizer.model"

step "training"
rm -rf "$run"
"$csmoe" train examples/demo.json --out "$run" "$@"

step "held-out pictures"
"$csmoe" eval "$run" --data "$data/test.json"

step "answers"
# meson runs on Python, so it is there to pick questions from the JSON file.
python3 - "$data/test.json" <<'PICK' >build/demo-questions
import json, sys
for sample in json.load(open(sys.argv[1]))[:3]:
    turns = sample["conversations"]
    for question, answer in list(zip(turns[::2], turns[1::2]))[:4]:
        print(sample["image"], question["value"].replace("<image>\n", ""), answer["value"], sep="\t")
PICK
shown=
tab=$(printf '\t')
while IFS=$tab read -r image question answer; do
    [ "$image" = "$shown" ] || echo "$data/$image"
    shown=$image
    said=$("$csmoe" chat "$run" --image "$data/$image" --prompt "$question" 2>/dev/null </dev/null)
    printf '    %s\n        model: %s    (drawn: %s)\n' "$question" "$said" "$answer"
done <build/demo-questions

step "done"
echo "talk to it: build/demo/tools/csmoe chat $run --image $data/images/test-000000.png"
