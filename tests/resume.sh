#!/bin/sh
# Training is repeatable to the bit, also when it is interrupted: killed, stopped by Ctrl-C, or by a full disk.
# Usage: sh tests/resume.sh CSMOE      prints "ok - name" or "not ok - name" per case; exit status 1 if any failed.
set -u

case $1 in
/*) csmoe=$1 ;;
*) csmoe=$PWD/$1 ;;
esac
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
# Tensors are tiny: a CPU driver is fastest without worker threads.
export LP_NUM_THREADS=0
# And it compiles its kernels for longer than it runs them: a fifth is saved where it optimizes them less.
export GALLIVM_PERF=nopt
bad=0
last=step-00000024

# check NAME COMMAND...: the command must succeed.
check() {
    name=$1
    shift
    if "$@"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        sed 's/^/# /' output | tail -n 20
        bad=1
    fi
}

# train RUN OPTIONS...
train() {
    run=$1
    shift
    "$csmoe" train tiny.json --out "$run" "$@" >output 2>&1
}

# refuse PATTERN COMMAND...: the command must fail with status 1 and a line matching the pattern.
refuse() {
    pattern=$1
    shift
    "$@"
    [ $? = 1 ] && grep -qE -e "$pattern" output
}

# same RUN: the last checkpoint has the same bits as the uninterrupted run's.
same() {
    cmp "whole/$last/model.safetensors" "$1/$last/model.safetensors" >>output 2>&1 &&
        cmp "whole/$last/trainer.safetensors" "$1/$last/trainer.safetensors" >>output 2>&1
}

# every_step_once RUN: log.jsonl has the steps 1 to 24, each once and in order.
every_step_once() {
    sed 's/^{"step": \([0-9]*\),.*/\1/' "$1/log.jsonl" >steps
    seq 24 | cmp - steps >>output 2>&1
}

# begin RUN: trains in the background; returns when the run's log has 8 lines, $training the process.
begin() {
    "$csmoe" train tiny.json --out "$1" --set train.save_every=3 --set train.keep=100 >output 2>&1 &
    training=$!
    tries=0
    until [ "$(cat "$1/log.jsonl" 2>/dev/null | wc -l)" -ge 8 ]; do
        tries=$((tries + 1))
        kill -0 "$training" 2>/dev/null && [ "$tries" -lt 3000 ] || return 1
        sleep 0.02
    done
}

killed_in_the_middle() {
    begin killed || return 1
    kill -KILL "$training"
    wait "$training" 2>/dev/null
    [ -d killed/step-00000006 ] && [ ! -e "killed/$last" ]
}

stopped_by_ctrl_c() {
    begin stopped || return 1
    kill -INT "$training"
    wait "$training" || return 1
    grep -q -e "stopped and saved.*--resume" output && [ ! -e "stopped/$last" ]
}

# A limit on the size of files stands in for a full disk: the model fits, the optimizer's state does not.
full_disk() (
    trap '' XFSZ
    ulimit -f 400
    refuse "trainer.safetensors: cannot write: File too large" train full --resume
)

old_checkpoint_alone() {
    [ "$(ls full)" = "$(printf 'log.jsonl\nstep-00000006')" ]
}

cat >tiny.json <<'END'
{
  "seed": 3,
  "data": {"train": "data/train.json", "tokenizer": "tok.model", "turns": "isolated"},
  "vision": {
    "size": 16, "patch": 8, "width": 32, "layers": 1, "heads": 2, "hidden": 32,
    "moe": {"experts": 3, "top_k": 2, "hidden": 32}
  },
  "text": {
    "width": 32, "layers": 1, "heads": 2, "hidden": 48,
    "moe": {"experts": 3, "top_k": 2, "hidden": 24}
  },
  "competition": {"rate": 0.3, "warmup": 0.1},
  "train": {"steps": 24, "batch": 4, "accumulate": 2, "lr": 1e-2, "weight_decay": 0.1, "save_every": 6, "keep": 2}
}
END
make_data() {
    "$csmoe" synth --images 40 data >output 2>&1 &&
        "$csmoe" tokenizer train --vocabulary 120 data/train.json --out tok.model >>output 2>&1
}

check "the data is made" make_data

check "a run ends" train whole
check "the newest two checkpoints are kept" [ "$(ls whole)" = "$(printf 'log.jsonl\nstep-00000018\nstep-00000024')" ]
check "the log has every step once" every_step_once whole
check "the same seed again" train again
check "gives the same bits" same again
check "an existing run is not overwritten" refuse "whole: has checkpoints already.*--resume" train whole
check "resuming a finished run changes nothing" train whole --resume
check "and keeps its bits" same again
check "resuming with another configuration names the key" \
    refuse "train.lr is .*, not " train whole --resume --set train.lr=1e-3
check "resuming without checkpoint" refuse "nothing: has no checkpoint" train nothing --resume
check "leaves no folder behind" [ ! -e nothing ]
check "missing data" refuse "nowhere.json" train nothing --set data.train=nowhere.json
check "leaves no folder behind either" [ ! -e nothing ]
check "a file where the run should be" refuse "tiny.json: is a file" train tiny.json

# Of as many pieces, by fewer texts.
other_tokenizer() {
    head -n 12 data/train.json | sed '$s/,$/]/' >data/some.json
    cp tok.model kept.model
    "$csmoe" tokenizer train --vocabulary 120 data/some.json --out tok.model >output 2>&1
}
check "another tokenizer is made" other_tokenizer
check "resuming with it" refuse "tokenizer.model: this checkpoint was trained with another" train whole --resume
cp kept.model tok.model

# A picture that nobody looked at before its turn came.
cp data/images/train-000007.png kept.png
head -c 200 kept.png >data/images/train-000007.png
check "a broken picture ends the run" refuse "train-000007.png" train broken
cp kept.png data/images/train-000007.png
check "what was learned before is saved" grep -q -e "saved step" output
check "going on with the picture" train broken --resume
check "gives the same bits as with it from the start" same broken

check "a run is killed in the middle" killed_in_the_middle
mkdir killed/step-00000009.tmp-1
: >killed/step-00000009.tmp-1/model.safetensors
check "going on after the kill" train killed --resume --set train.save_every=3 --set train.keep=100
check "gives the same bits as never stopping" same killed
check "what the kill left is gone" [ ! -e killed/step-00000009.tmp-1 ]
check "the log of the killed run has every step once" every_step_once killed

check "Ctrl-C saves and says how to go on" stopped_by_ctrl_c
check "going on after Ctrl-C" train stopped --resume --set train.save_every=3 --set train.keep=100
check "gives the same bits as not stopping" same stopped
check "the log of the stopped run has every step once" every_step_once stopped

cp -r whole full
rm -r full/step-00000018 full/step-00000024
cp -r killed/step-00000006 full
cp whole/step-00000018/config.json full/step-00000006
check "a full disk is reported" full_disk
check "and leaves the old checkpoint alone" old_checkpoint_alone
check "going on with room" train full --resume
check "gives the same bits as on a large disk" same full

# In f16 the loss scale is part of what goes on; it is so large here that the first steps are skipped.
half="--set train.precision=f16 --set train.loss_scale=16777216 --set train.loss_scale_growth=7"
same_half() {
    cmp "half/$last/model.safetensors" "resumed/$last/model.safetensors" >>output 2>&1 &&
        cmp "half/$last/trainer.safetensors" "resumed/$last/trainer.safetensors" >>output 2>&1 &&
        grep -q '"skipped": true' half/log.jsonl
}
# shellcheck disable=SC2086
check "a run in f16 ends" train half $half
cp -r half resumed
rm -r "resumed/$last"
check "going on in f16" train resumed --resume $half
check "gives the same bits as never stopping" same_half

head -c 3000 "whole/$last/model.safetensors" >short
cp short "again/$last/model.safetensors"
check "a truncated model is refused" refuse "$last/model.safetensors: " train again --resume

exit $bad
