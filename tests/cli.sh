#!/bin/sh
# The command line as a user types it: exit status and messages, also for bad input.
# Usage: sh tests/cli.sh CSMOE      prints "ok - name" or "not ok - name" per case; exit status 1 if any failed.
set -u

csmoe=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
# shellcheck source=tests/case.sh
. "$(dirname "$0")/case.sh"

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
expect "selftest of one operator" 0 "^[1-9][0-9]* passed, 0 failed" selftest --op softmax
expect "selftest in f32 alone" 0 "^5 passed, 0 failed" selftest --op rms_norm --f32
expect "selftest, one share of two" 0 "^3 passed, 0 failed" selftest --op rms_norm --f32 --shard 1/2
expect "selftest, the other share" 0 "^2 passed, 0 failed" selftest --op rms_norm --f32 --shard 2/2
expect "selftest: no such share" 1 "must be I/N" selftest --op rms_norm --shard 3/2
expect "selftest: not a share" 1 "must be I/N" selftest --op rms_norm --shard 1/2x
expect "selftest: no such operator" 1 "there is no operator 'softmix'" selftest --op softmix
expect "bench of one operator" 0 "^softmax .* backward .*%" bench --quick --op softmax --json "$dir/bench.json"
check "... as JSON" grep -q '"operator": "softmax"' "$dir/bench.json"
expect "bench says which device it is" 0 "^memory copy .* [0-9.]+" bench --quick --part peaks --output "$dir/peaks.md"
check "... in Markdown too" grep -q "^\*\*.*Vulkan 1\." "$dir/peaks.md"
expect "bench of products and a layer of given shapes" 0 "^competing .*2,8,16,8,4,2 " \
    bench --quick --shape 16,8,24 --shape 2,8,16,8,4,2 --output "$dir/a.json" --output "$dir/a.html"
check "... on a page of its own" grep -q "<svg" "$dir/a.html"
expect "bench of training steps" 0 "^demo .* competing .* [0-9.]+ " bench --quick --part step --batch 1
expect "bench compare" 0 "^softmax .* ms" bench compare "$dir/bench.json" "$dir/a.json" --output "$dir/c.html" --output "$dir/c.csv"
check "... writes the page" grep -q "gemm NT" "$dir/c.html"
expect "bench compare: a file of something else" 1 "demo.json: not results of csmoe bench" \
    bench compare "$dir/a.json" "$(dirname "$0")/../examples/demo.json"
expect "bench: no such operator" 1 "^error: .*no operator 'softmix'" bench --op softmix
expect "bench: no such part" 1 "--part ips: must be peaks, ops, moe or step" bench --part ips
expect "bench: no such shape" 1 "--shape 3,4: must be M,N,K" bench --shape 3,4
expect "bench: no such format" 1 "x.txt: the ending says in which format" bench --op softmax --output x.txt
expect "bench: a file that cannot be written" 1 "/nonexistent/x.json: cannot write" \
    bench --quick --op softmax --json /nonexistent/x.json
expect "the reference of the configuration" 0 "^## train" train --describe-config
reference=$(dirname "$0")/../docs/configuration.md
"$csmoe" train --describe-config >"$dir/reference"
check "docs/configuration.md is current" diff "$dir/reference" "$reference"

without_driver() {
    (
        export VK_DRIVER_FILES=/nonexistent.json
        "$csmoe" "$@"
    )
}
expect_from without_driver "no Vulkan driver" 1 "^error: no Vulkan driver is installed" devices

"$csmoe" version >/dev/full 2>"$dir/output"
status=$?
check "output to a full disk fails" [ $status = 1 ]
"$csmoe" --help 2>"$dir/errors" | true
check "a reader that left early is no error" [ ! -s "$dir/errors" ]

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
expect "tokenizer encode" 0 "^[0-9]+( [0-9]+)*$" tokenizer encode "$dir/t.model" "Is there a ring?"
"$csmoe" tokenizer encode "$dir/t.model" "Is there a ring?" >"$dir/ids"
expect "tokenizer decode" 0 "^Is there a ring\?$" tokenizer decode "$dir/t.model" "$(cat "$dir/ids")"
expect "an id out of range" 1 "99999" tokenizer decode "$dir/t.model" 99999
expect "an id that is none" 1 "'x' is not an id" tokenizer decode "$dir/t.model" "1 x"
expect "a tokenizer that is none" 1 "train.json: not a SentencePiece model" tokenizer encode "$dir/set/train.json" a
expect "a missing text" 1 "nothing.txt: cannot open" tokenizer train "$dir/nothing.txt" --out "$dir/u.model"
expect "an unknown type of tokenizer" 2 "did you mean 'bpe'" tokenizer train "$dir/ids" --type brp
check "no model is left by a failure" [ ! -e "$dir/u.model" ]

# ---- data ----

data=$dir/data
expect "synth draws pictures" 0 "20 pictures to train on, 2 to test on" synth "$data" --images 20 --seed 3
"$csmoe" synth "$dir/again" --images 20 --seed 3 >/dev/null 2>&1
check "synth is deterministic" diff -rq "$data" "$dir/again"
"$csmoe" synth "$dir/other" --images 20 --seed 4 >/dev/null 2>&1
check "another seed draws other pictures" [ "$(cat "$data"/train.json)" != "$(cat "$dir/other/train.json")" ]
expect "synth: no pictures" 2 "--images 0: must be a whole number from 1" synth "$dir/none" --images 0
check "wrong usage makes no folder" [ ! -e "$dir/none" ]
echo "in the way" >"$dir/file"
expect "synth into a file" 1 "^error: .*$dir/file: .*[Nn]ot a directory" synth "$dir/file"
expect "synth into a folder that cannot be made" 1 "^error: .*/proc/none.*: cannot make the folder" synth /proc/none
expect "synth without a folder" 2 "DIR is missing" synth

expect "check-data: sound data" 0 "" check-data "$data/train.json"
expect "check-data: no such file" 1 "^error: .*$dir/absent.json: cannot open" check-data "$dir/absent.json"

# faulty NAME PATTERN JSON: check-data of this text must fail with a line matching PATTERN.
faulty() {
    printf '%s\n' "$3" >"$data/faulty.json"
    expect "check-data: $1" 1 "$2" check-data "$data/faulty.json"
}
picture=images/train-000000.png
turns='"conversations":[{"from":"human","value":"<image>\nWhat?"},{"from":"gpt","value":"yes"}]'
faulty "syntax error with line and column" "faulty.json:2:[0-9]+" "[
{\"id\": \"a\" \"image\": 3}]"
faulty "missing conversations, with the sample's index" "sample 1.*conversations" \
    "[{\"id\":\"a\",\"image\":\"$picture\",$turns},{\"id\":\"b\",\"image\":\"$picture\"}]"
faulty "<image> without a picture" "<image>" "[{\"id\":\"a\",$turns}]"
faulty "a picture without <image>" "<image>" \
    "[{\"id\":\"a\",\"image\":\"$picture\",\"conversations\":[{\"from\":\"human\",\"value\":\"x\"},{\"from\":\"gpt\",\"value\":\"y\"}]}]"
faulty "missing picture" "images/absent.png" "[{\"id\":\"a\",\"image\":\"images/absent.png\",$turns}]"
: >"$data/images/empty.png"
head -c 100 "$data/$picture" >"$data/images/truncated.png"
echo "this is no picture" >"$data/images/text.png"
faulty "empty picture" "empty.png: empty file" "[{\"id\":\"a\",\"image\":\"images/empty.png\",$turns}]"
faulty "truncated picture" "truncated.png: truncated picture" "[{\"id\":\"a\",\"image\":\"images/truncated.png\",$turns}]"
faulty "picture that is none" "text.png: not a PNG or JPEG" "[{\"id\":\"a\",\"image\":\"images/text.png\",$turns}]"
faulty "a folder as picture" "images: no such picture" "[{\"id\":\"a\",\"image\":\"images\",$turns}]"

expect "import: unknown kind" 2 "easy-vqq.*easy-vqa" import easy-vqq "$dir" "$dir/imported"
expect "import: no such source" 1 "^error: .*$dir/absent" import easy-vqa "$dir/absent" "$dir/imported"
check "a failed import leaves nothing" [ ! -e "$dir/imported" ]

# ---- tokenizer ----

model=$dir/tokenizer.model
expect "tokenizer train" 0 "" tokenizer train "$data/train.json" --vocabulary 120 --type unigram --out "$model"
cp "$data/train.json" "$dir/words.json"
expect "tokenizer train needs no pictures" 0 "" \
    tokenizer train "$dir/words.json" --vocabulary 80 --out "$dir/words.model"
text="Is there a cross?"
ids=$("$csmoe" tokenizer encode "$model" "$text")
expect "tokenizer decode reverses encode" 0 "^Is there a cross\?$" tokenizer decode "$model" "$ids"
expect "tokenizer: a file that is none" 1 "^error: .*$dir/file" tokenizer encode "$dir/file" "$text"
expect "tokenizer: no such file" 1 "^error: .*$dir/absent.model: cannot open" tokenizer encode "$dir/absent.model" "$text"
head -c 1000 "$model" >"$dir/truncated.model"
expect "tokenizer: truncated model" 1 "^error: .*truncated.model" tokenizer encode "$dir/truncated.model" "$text"
expect "tokenizer: ids that are none" 1 "^error: .*x7" tokenizer decode "$model" "5 x7"
expect "tokenizer: ids out of range" 1 "^error: .*999999" tokenizer decode "$model" "5 999999"
expect "tokenizer train: unknown type" 2 "bpee.*bpe" tokenizer train "$data/train.json" --type bpee
expect "tokenizer train: no such text" 1 "^error: .*absent.txt" tokenizer train "$dir/absent.txt" --out "$dir/absent.model"
check "a failed training leaves no model" [ ! -e "$dir/absent.model" ]

# ---- a model, hardly trained ----

# Tiny tensors: threads of the CPU driver would only wait for each other.
export LP_NUM_THREADS=0
cat >"$dir/tiny.json" <<JSON
{
  "data": {"train": "$data/train.json", "tokenizer": "$model", "turns": "isolated"},
  "vision": {"size": 32, "patch": 16, "width": 16, "layers": 1, "heads": 2, "hidden": 32},
  "projector": {"hidden": 16},
  "text": {"width": 16, "layers": 1, "heads": 2, "hidden": 32, "context": 256},
  "train": {"steps": 1, "batch": 4}
}
JSON
run=$dir/run
mkdir "$run" && cp "$dir/tiny.json" "$run/config.json"
expect "train: the configuration lies in the run's folder" 0 "" train "$run/config.json" --out "$run"
test=$data/test.json
expect "eval: ... which hides no checkpoint" 0 '"samples": 2,.*"loss": [0-9.]+,.*"skipped": 0,' \
    eval "$run" --data "$test" --json
expect "eval --limit" 0 '"samples": 1,' eval "$run" --data "$test" --json --limit 1
mv "$data/images/test-000000.png" "$dir/away.png"
expect "eval --skip-bad counts what it skips" 0 "test.json: 1 of 2 samples are skipped" \
    eval "$run" --data "$test" --skip-bad
mv "$dir/away.png" "$data/images/test-000000.png"

# The same text several times: draws go on from one to the next.
i=0
while [ $((i += 1)) -le 8 ]; do
    echo "Is there"
done >"$dir/prompts"
# continued OPTIONS...: how the model goes on with these texts.
continued() {
    "$csmoe" chat "$run" --raw --temperature 2 --max-tokens 6 "$@" <"$dir/prompts" 2>/dev/null
}
continued >"$dir/texts"
continued --ids >"$dir/ids"
start=$("$csmoe" tokenizer encode "$model" "Is there")
sed "s/^/$start /" "$dir/ids" | "$csmoe" tokenizer decode "$model" >"$dir/decoded"
check "chat: draws go on" [ "$(sort -u "$dir/texts" | wc -l)" = 8 ]
check "chat: the same seed draws the same conversation" [ "$(continued)" = "$(cat "$dir/texts")" ]
check "chat --raw: text is decoded as a whole" diff "$dir/texts" "$dir/decoded"

# The output layer stands at the end of the file; with all bits set, a float is no number.
weights=$run/step-00000001/model.safetensors
size=$(wc -c <"$weights")
truncate -s $((size - 8000)) "$weights"
head -c 8000 /dev/zero | tr '\0' '\377' >>"$weights"
expect "eval: a model that gives no numbers fails" 1 "^error: .*run: the loss is not finite" eval "$run" --data "$test"
expect "eval: ... in valid JSON" 1 '"loss": null,' eval "$run" --data "$test" --json

# ---- verify ----

mkdir "$dir/goldens"
echo "this is no tensor" >"$dir/goldens.txt"
expect "verify: nothing to verify" 2 "csmoe verify: .*DIR" verify
expect "verify: no such file" 1 "^FAIL $dir/absent: cannot open" verify "$dir/absent"
expect "verify: a file that is none" 1 "^FAIL $dir/goldens.txt: " verify "$dir/goldens.txt"
expect "verify: an empty folder" 1 "^error: $dir/goldens: no \*.safetensors" verify "$dir/goldens"
goldens=${CSMOE_SHARED:-$(dirname "$0")/../../shared}/goldens
if [ -d "$goldens" ]; then
    expect "verify: the authors' layer" 0 "^52 passed, 0 failed, 33 unsupported$" verify "$goldens"
fi

exit $bad
