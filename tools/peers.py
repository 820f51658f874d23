#!/usr/bin/python3
"""Times csmoe and PyTorch in turns on the same processor cores and prints how many times as fast csmoe is.

    tools/peers.py layer --bench ../shared/bench      the mixture-of-experts layer, forward and backward
    tools/peers.py step --bench ../shared/bench --data ../shared/data/easy-vqa
                                                      a training step of the easy-VQA model, dense and with 8 experts

The peers are torch_layer.py and torch_easyvqa.py in the folder --bench. On Debian 12: apt-get install python3-torch
python3-pil python3-numpy libopenblas0-pthread (without the last one PyTorch's matrix products are four times slower; this
script says so). Both sides run alone, one after the other, --rounds times; the table has the medians of the rounds.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = ["4,256,128,512,8,2", "4,512,256,1024,8,2", "4,512,512,2048,4,2", "8,512,264,264,16,2"]
MODELS = {  # name, overrides of examples/easy-vqa.json, options of torch_easyvqa.py (None: it has no such model)
    "dense": ("dense", ["vision.moe.experts=0"], []),
    "experts": ("8 experts of 256, 2 chosen", ["vision.moe.experts=8", "vision.moe.hidden=256"],
                ["--experts", "8", "--top-k", "2"]),
    "example": ("4 experts of 128, 2 chosen", [], None),
}
WARM_UP = 4  # training steps that are not counted


def run(command, folder=None):
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"peers: {' '.join(command)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def check_torch():
    """Says which PyTorch this is and whether its matrix products are fast."""
    code = ("import time, torch; torch.set_num_threads(%d); a = torch.randn(1024, 1024); t = []\n"
            "for _ in range(5): s = time.perf_counter(); a @ a; t.append(time.perf_counter() - s)\n"
            "maps = open('/proc/self/maps').read()\n"
            "print(torch.__version__, 'openblas' in maps or 'mkl' in maps, round(2 * 1024 ** 3 / min(t) / 1e9))" % arguments.threads)
    if subprocess.run([sys.executable, "-c", "import torch"], stderr=subprocess.DEVNULL).returncode:
        sys.exit(f"peers: {sys.executable} has no PyTorch; Debian 12's is run with /usr/bin/python3 after apt-get install "
                 "python3-torch python3-pil python3-numpy libopenblas0-pthread")
    version, fast, rate = run([sys.executable, "-c", code]).split()
    print(f"PyTorch {version}, {arguments.threads} threads, a product of 1024 x 1024 x 1024 at {rate} GFLOP/s")
    if fast != "True":
        print("*** PyTorch has neither OpenBLAS nor MKL: it is several times slower than it could be; "
              "apt-get install libopenblas0-pthread ***")


def print_table(heading, peer, rows):
    """rows: name, milliseconds of csmoe and of the peer, each a list of rounds."""
    if not rows:
        return
    print(f"\n{heading:40} {'csmoe ms':>10} {peer + ' ms':>11} {'times as fast':>14} {'rounds':>20}")
    for name, ours, theirs in rows:
        ratios = " ".join(f"{b / a:.2f}" for a, b in zip(ours, theirs))
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"{name:40} {a:10.1f} {b:11.1f} {b / a:14.2f} {ratios:>20}")


def csmoe_layer(shape, folder):
    path = os.path.join(folder, "layer.json")
    run([arguments.csmoe, "bench", "--quick", "--part", "moe", "--shape", shape, "--json", path])
    with open(path, encoding="utf-8") as file:
        return {row["operator"]: row["ms"] for row in json.load(file)[0]["results"]}


def torch_layer(shape):
    line = run([sys.executable, "torch_layer.py", "--threads", str(arguments.threads), "--reps", "7", "--shapes", shape],
               arguments.bench)
    return json.loads(line)


def compare_layers(folder):
    rows, own = [], []
    for shape in arguments.shapes:
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            ours.append(csmoe_layer(shape, folder))
            theirs.append(torch_layer(shape))
        for kind, peer in (("routed", "router_ms"), ("competing", "competition_ms"), ("dense", "dense_k_experts_ms")):
            rows.append((f"{shape} {kind}", [o[kind] for o in ours], [t[peer] for t in theirs]))
        e, k = map(int, shape.split(",")[4:])
        ms = {kind: statistics.median(o[kind] for o in ours) for kind in ours[0]}
        own.append(f"{shape:24} {100 * ms['dense'] / ms['routed']:8.0f}% {100 * ms['dense'] / ms['routed, Zipf']:8.0f}%"
                   f" {ms['competing'] / ms['routed']:10.2f} {e / k + 0.3:10.2f}")
    print_table("layer, forward and backward", "PyTorch", rows)
    print(f"\n{'speed beside equal arithmetic':24} {'routed':>9} {'Zipf':>9}   competing / routed, at most")
    print("\n".join(own))


def csmoe_step(binary, sets, folder):
    """Milliseconds of a step, read from the run's log: the median, because some steps are the first to need a kernel."""
    out = tempfile.mkdtemp(dir=folder)
    sets = [f"data.train={folder}/data/train.json", f"data.tokenizer={folder}/tokenizer.model", "train.batch=32",
            f"train.steps={arguments.steps + WARM_UP}", *sets]
    run([binary, "train", os.path.join(HERE, "..", "examples", "easy-vqa.json"), "--out", out,
         *[part for s in sets for part in ("--set", s)]])
    with open(os.path.join(out, "log.jsonl"), encoding="utf-8") as file:
        seconds = [json.loads(line)["seconds"] for line in file]
    return 1e3 * statistics.median(b - a for a, b in zip(seconds[WARM_UP - 1:], seconds[WARM_UP:]))


def torch_step(options):
    text = run([sys.executable, "torch_easyvqa.py", "--data", os.path.abspath(arguments.data), "--threads",
                str(arguments.threads), "--max-steps", str(arguments.steps), *options], arguments.bench)
    return json.loads(text.splitlines()[-1])["ms_per_step"]


def compare_steps(folder):
    run([arguments.csmoe, "import", "easy-vqa", arguments.data, f"{folder}/data"])
    run([arguments.csmoe, "tokenizer", "train", "--type", "word", "--vocabulary", "100", "--symbol", "\n", "--out",
         f"{folder}/tokenizer.model", f"{folder}/data/train.json"])
    rows, before = [], []
    for name, sets, options in (MODELS[model] for model in arguments.models):
        ours, theirs, old = [], [], []
        for _ in range(arguments.rounds):
            ours.append(csmoe_step(arguments.csmoe, sets, folder))
            if options is not None:
                theirs.append(torch_step(options))
            if arguments.before:
                old.append(csmoe_step(arguments.before, sets, folder))
        if theirs:
            rows.append((name, ours, theirs))
        if old:
            before.append((name, ours, old))
    print_table("training step of easy-VQA, batch 32", "PyTorch", rows)
    print_table("training step of easy-VQA, batch 32", "before", before)


def main():
    global arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["layer", "step"])
    parser.add_argument("--csmoe", default=os.path.join(HERE, "..", "build", "tools", "csmoe"), help="the program")
    parser.add_argument("--bench", default=os.path.join(HERE, "..", "..", "shared", "bench"), help="folder of the peers")
    parser.add_argument("--data", default=os.path.join(HERE, "..", "..", "shared", "data", "easy-vqa"),
                        help="easy-VQA's data")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="B,N,D,H,E,K")
    parser.add_argument("--models", nargs="+", default=["dense", "experts"], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="training steps a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--before", help="an older csmoe, timed as well in 'step'")
    arguments = parser.parse_args()
    arguments.csmoe = os.path.abspath(arguments.csmoe)
    check_torch()
    with tempfile.TemporaryDirectory() as folder:
        (compare_layers if arguments.what == "layer" else compare_steps)(folder)


if __name__ == "__main__":
    main()
