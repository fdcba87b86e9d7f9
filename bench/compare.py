#!/usr/bin/env python3
"""dtrain and the Hugging Face Trainer side by side on this machine: same weights, reviews, batches and threads, A B A B.

Prints seconds per step (median, min, max), the ratio peer / dtrain, seconds to the end of the first step, evaluation reviews per
second and peak memory, beside the machine's ceiling for the model's own matrix products measured in the same run. Each figure is
taken from outside: the time at which a process printed a line. Machines are noisy: look at the spread before the median.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
IMDB = ROOT / "tests" / "data" / "imdb"
WARM_UP_STEPS = 2


def run(line, threads, environment):
    """Starts a process; returns (times at which steps ended, evaluation, peak bytes, seconds in all)."""
    start = time.monotonic()
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} | environment)
    steps, evaluation, text = [], {}, []
    for output in process.stdout:
        text.append(output)
        if re.search(r"^bench step|\bstep +\d+/\d+ loss ", output):
            steps.append(time.monotonic() - start)
        match = re.match(r"bench eval (.*)", output)
        if match:
            evaluation = json.loads(match.group(1))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or len(steps) <= WARM_UP_STEPS:
        sys.exit(f"{line} failed with {process.returncode}:\n" + "".join(text[-30:]))
    return {"steps": steps, "evaluation": evaluation, "peak": usage.ru_maxrss * 1024, "wall": time.monotonic() - start}


def run_dtrain(program, folder, options):
    mpirun = ["mpirun", "--oversubscribe", "-np", str(options.ranks)] if options.ranks > 1 else []
    result = run(mpirun + [str(program), str(folder / "dtrain.toml")], options.threads // options.ranks, {})
    records = [json.loads(line) for line in (folder / "dtrain" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return result | {"evaluation": next(record for record in records if "eval_loss" in record)}


def run_peer(folder, options):
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(options.ranks)] if options.ranks > 1 else []
    return run([sys.executable] + torchrun + [str(ROOT / "bench" / "peer.py"), str(folder / "peer.json")],
               options.threads // options.ranks, {})


def gflops(threads, precision):
    """The model's largest products, best of 6, through LibTorch as both programs use it: this machine's ceiling."""
    script = f"""
import torch, time
torch.set_num_threads({threads})
kind = torch.{'bfloat16' if precision == 'bf16' else 'float32'}
best = 0
for m, k, n in ((4096, 384, 1536), (4096, 1536, 384)):
    a, b = torch.randn(m, k).to(kind), torch.randn(k, n).to(kind)
    for i in range(8):
        t = time.perf_counter(); a @ b; s = time.perf_counter() - t
        if i >= 2: best = max(best, 2 * m * k * n / s / 1e9)
print(best)
"""
    return float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


def write_recipes(folder, options):
    training = {"per_device_train_batch_size": options.batch // options.ranks, "per_device_eval_batch_size": 32, "learning_rate": 5e-5,
                "max_steps": options.steps, "seed": 42, "eval_strategy": "steps", "eval_steps": options.steps}
    if options.precision == "bf16":
        training["bf16"] = True
    evaluation = folder / "eval.jsonl"
    with open(IMDB / "imdb-small-test.jsonl", encoding="utf-8") as lines:
        evaluation.write_text("".join(line for line, _ in zip(lines, range(options.eval_samples))), encoding="utf-8")
    train = IMDB / "imdb-small-train.jsonl"
    peer = {"model": str(options.model), "tokenizer": str(options.tokenizer), "random_init": options.random_init,
            "train": str(train), "eval": str(evaluation), "max_length": options.max_length, "threads": options.threads // options.ranks,
            "arguments": training | {"output_dir": str(folder / "peer")}}
    (folder / "peer.json").write_text(json.dumps(peer), encoding="utf-8")
    sections = {
        "model": {"path": str(options.model), "num_labels": 2, "random_init": options.random_init,
                  "compute_padding": options.padded},
        "tokenizer": {"path": str(options.tokenizer), "max_length": options.max_length} | ({"pad_token": "eos"} if options.eos else {}),
        "data": {"train": str(train), "eval": str(evaluation), "text": "text", "label": "label", "cache_dir": str(folder / "tokens")},
        "training": training | {"output_dir": str(folder / "dtrain"), "overwrite_output_dir": True, "use_cpu": True,
                                "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True},
        "metrics": {"compute": ["accuracy"]}}
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]"] + [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    (folder / "dtrain.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def figures(runs):
    steps = [end - start for run_ in runs for start, end in zip(run_["steps"][WARM_UP_STEPS:], run_["steps"][WARM_UP_STEPS + 1:])]
    return {"step": (statistics.median(steps), min(steps), max(steps)),
            "first": statistics.median(run_["steps"][0] for run_ in runs),
            "eval": statistics.median(run_["evaluation"]["eval_samples_per_second"] for run_ in runs),
            "peak": max(run_["peak"] for run_ in runs), "wall": statistics.median(run_["wall"] for run_ in runs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / ".deps" / "minilm")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="default: the model's folder")
    parser.add_argument("--random-init", action="store_true", help="draw the weights instead of reading them")
    parser.add_argument("--eos", action="store_true", help="pad with the end-of-text token (GPT-2)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--eval-samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ranks", type=int, default=1, help="processes, which share the batch and the threads")
    parser.add_argument("--padded", action="store_true", help="let dtrain compute padding too")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    options = parser.parse_args()
    options.tokenizer = options.tokenizer or options.model
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_recipes(folder, options)
        runs = {"dtrain": [], "peer": []}
        for _ in range(options.repeats):
            runs["dtrain"].append(run_dtrain(ROOT / options.build / "dtrain", folder, options))
            runs["peer"].append(run_peer(folder, options))
        result = {name: figures(each) for name, each in runs.items()}
        result["ceiling_gflops"] = gflops(options.threads, options.precision)
    ours, theirs = result["dtrain"], result["peer"]
    print(f"{options.model.name}, {options.precision}, {options.batch} x {options.max_length}{', both padded' if options.padded else ''}, "
          f"{options.ranks} x {options.threads // options.ranks} threads, "
          f"{options.repeats} x {options.steps} steps, A B A B; products reach {result['ceiling_gflops']:.0f} GFLOP/s here")
    print(f"{'':34}{'dtrain':>22}{'Trainer':>22}{'ratio':>8}")

    def row(name, a, b, shown_a, shown_b):
        print(f"{name:34}{shown_a:>22}{shown_b:>22}{b / a:>8.2f}")
    row("seconds per step (min-max)", ours["step"][0], theirs["step"][0],
        "{:.2f} ({:.2f}-{:.2f})".format(*ours["step"]), "{:.2f} ({:.2f}-{:.2f})".format(*theirs["step"]))
    row("seconds to the end of step 1", ours["first"], theirs["first"], f"{ours['first']:.2f}", f"{theirs['first']:.2f}")
    row("evaluation, reviews per second", 1 / ours["eval"], 1 / theirs["eval"], f"{ours['eval']:.1f}", f"{theirs['eval']:.1f}")
    row("peak memory of a rank, GB", ours["peak"], theirs["peak"], f"{ours['peak'] / 1e9:.2f}", f"{theirs['peak'] / 1e9:.2f}")
    row("seconds in all", ours["wall"], theirs["wall"], f"{ours['wall']:.1f}", f"{theirs['wall']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
