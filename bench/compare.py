#!/usr/bin/env python3
"""dtrain and the Hugging Face Trainer side by side on this machine: same weights, reviews, batches and threads, A B A B.

Prints seconds per step (median, min, max), the ratio peer / dtrain, tokens per second, seconds to the end of the first step
(without and with a token store), evaluation reviews per second and peak memory; then for each part of dtrain's step the least time
that this machine could need for it, from ceilings measured in the same run. Times of steps are taken from outside: when a process
printed a line; parts of a step from dtrain's log.jsonl (on a GPU: of the host, which runs ahead). Machines are noisy: look at the spread before the median.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
IMDB = ROOT / "tests" / "data" / "imdb"
WARM_UP_STEPS = 2


class GpuMemory:
    """The most memory that the GPUs gave to anybody while it lives, beyond what was taken before; 0 without a GPU."""

    def __init__(self):
        self.before, self.peak, self.stop = self.used(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    @staticmethod
    def used():
        try:
            printed = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True)
        except FileNotFoundError:
            return 0
        return sum(int(line) for line in printed.stdout.split()) << 20 if printed.returncode == 0 else 0

    def watch(self):
        while not self.stop.wait(0.1):
            self.peak = max(self.peak, self.used() - self.before)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def run(line, options, environment):
    """Starts a process; returns (times at which steps ended, evaluation, peak bytes, seconds in all)."""
    start = time.monotonic()
    threads = options.threads // options.ranks
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} | environment)
    steps, evaluation, text = [], {}, []
    with GpuMemory() if options.gpu else contextlib.nullcontext() as memory:
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
    return {"steps": steps, "evaluation": evaluation, "peak": usage.ru_maxrss * 1024, "gpu_peak": memory.peak if memory else 0,
            "wall": time.monotonic() - start}


def run_dtrain(program, folder, options, environment=None):
    mpirun = ["mpirun", "--oversubscribe", "-np", str(options.ranks)] if options.ranks > 1 else []
    result = run(mpirun + [str(program), str(folder / "dtrain.toml")], options, environment or {})
    records = [json.loads(line) for line in (folder / "dtrain" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return result | {"evaluation": next(record for record in records if "eval_loss" in record),
                     "records": [record for record in records if "seconds" in record]}


def run_peer(folder, options):
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(options.ranks)] if options.ranks > 1 else []
    return run([sys.executable] + torchrun + [str(ROOT / "bench" / "peer.py"), str(folder / "peer.json")], options, {})


def ceilings(threads, sizes, gpu):
    """Best of 10 through LibTorch, as both programs use it: the model's widest products in GFLOP/s, and copying memory in GB/s."""
    device = "cuda" if gpu else "cpu"
    script = f"""
import json, torch, time
torch.set_num_threads({threads})
torch.set_default_device("{device}")
wait = torch.cuda.synchronize if "{device}" == "cuda" else lambda: None
def best(body, work):
    times = []
    for i in range(12):
        wait(); t = time.perf_counter(); body(); wait(); times.append(time.perf_counter() - t)
    return work / min(times[2:]) / 1e9
result = {{}}
hidden, inner = {sizes["hidden"]}, {sizes["inner"]}
for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
    result[name] = 0
    for rows in (32, 4096, 65536)[:3 if "{device}" == "cuda" else 2]:
        if rows > 32 and result[name] < 10: break  # emulated: more rows would take minutes and show the same
        for k, n in ((hidden, inner), (inner, hidden)):
            a, b = torch.randn(rows, k).to(kind), torch.randn(k, n).to(kind)
            result[name] = max(result[name], best(lambda: a @ b, 2 * rows * k * n))
a, b = torch.zeros(1 << 26), torch.zeros(1 << 26)
result["memory"] = best(lambda: a.copy_(b), 2 * 4 * (1 << 26))
print(json.dumps(result))
"""
    return json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


def model_sizes(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden = config.get("hidden_size") or config["n_embd"]
    return {"hidden": hidden, "inner": config.get("intermediate_size") or config.get("n_inner") or 4 * hidden,
            "layers": config.get("num_hidden_layers") or config["n_layer"],
            "outside": (config["vocab_size"] + (config.get("max_position_embeddings") or config["n_positions"])) * hidden}


def floors(sizes, tokens, batch, ranks, ceiling, precision):
    """The least seconds of each part of a step over `tokens` rows, of which the last block needs keys and values only."""
    hidden, inner, layers = sizes["hidden"], sizes["inner"], sizes["layers"]
    block = 4 * hidden * hidden + 2 * hidden * inner
    products = 2 * tokens * ((layers - 1) * block + 2 * hidden * hidden) + 2 * batch * (block - 2 * hidden * hidden)
    attention = 4 * (layers - 1) * tokens * tokens / batch * hidden  # at equal lengths, where the sum of squares is least
    forward = products / ceiling[precision] / 1e9 + attention / ceiling["fp32"] / 1e9
    parameters = layers * block + sizes["outside"]
    memory = ceiling["memory"] * 1e9
    return {"data": 0, "forward": forward, "backward": 2 * forward,  # with two ranks each reads both gradients and writes half
            "reduce": 0 if ranks == 1 else 4 * parameters * (ranks + 2) / memory,
            "optimizer": ranks * 4 * parameters * 8 / memory}  # the norm reads the gradient; AdamW reads four values, writes three


def warm_file_cache():
    """Both programs' libraries and weights into memory: the first start after a boot is not what is compared."""
    for folder in (".deps/libtorch", ".deps/oracle", ".deps/minilm"):
        for pattern in ("*.so*", "*.safetensors"):
            for path in (ROOT / folder).resolve().rglob(pattern):
                with open(path, "rb") as file:
                    while file.read(1 << 24):
                        pass


def write_recipes(folder, options):
    training = {"per_device_train_batch_size": options.batch // options.ranks, "per_device_eval_batch_size": 32, "learning_rate": 5e-5,
                "max_steps": options.steps, "seed": 42, "eval_strategy": "steps", "eval_steps": options.steps, "use_cpu": not options.gpu}
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
        "training": training | {"output_dir": str(folder / "dtrain"), "overwrite_output_dir": True,
                                "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True},
        "metrics": {"compute": ["accuracy"]}}
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]"] + [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    (folder / "dtrain.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def figures(runs):
    steps = [end - start for run_ in runs for start, end in zip(run_["steps"][WARM_UP_STEPS:], run_["steps"][WARM_UP_STEPS + 1:])]
    return {"step": (statistics.median(steps), min(steps), max(steps)),
            "first_cold": runs[0]["steps"][0],
            "first_warm": statistics.median(run_["steps"][0] for run_ in runs[1:] or runs),
            "eval": statistics.median(run_["evaluation"]["eval_samples_per_second"] for run_ in runs),
            "peak": max(run_["peak"] for run_ in runs), "gpu_peak": max(run_["gpu_peak"] for run_ in runs), "wall": statistics.median(run_["wall"] for run_ in runs)}


def measure(options):
    warm_file_cache()
    sizes = model_sizes(options.model)
    before = ceilings(options.threads, sizes, options.gpu)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_recipes(folder, options)
        runs = {"dtrain": [], "peer": []}
        for _ in range(options.repeats):
            runs["dtrain"].append(run_dtrain(ROOT / options.build / "dtrain", folder, options))
            runs["peer"].append(run_peer(folder, options))
        result = {name: figures(each) for name, each in runs.items()}
    after = ceilings(options.threads, sizes, options.gpu)
    result["ceiling"] = {name: max(value, after[name]) for name, value in before.items()}
    records = [record for run_ in runs["dtrain"] for record in run_["records"][WARM_UP_STEPS:]]
    result["tokens"] = statistics.mean(record["tokens"] for record in records)
    result["padded_tokens"] = statistics.mean(record["input_elements"] for record in records)
    computed = result["padded_tokens"] if options.padded else result["tokens"]
    # Where bf16 is slower than fp32 the CPU has no such arithmetic, and dtrain computes in fp32.
    faster = options.precision if result["ceiling"][options.precision] > result["ceiling"]["fp32"] else "fp32"
    least = floors(sizes, computed, options.batch, options.ranks, result["ceiling"], faster)
    result["parts"] = {part: {"seconds": statistics.median(record["seconds"][part] for record in records), "floor": floor}
                       for part, floor in least.items()}
    result["title"] = (f"{options.model.name}, {options.precision}, {options.batch} x {options.max_length}"
                       f"{', both padded' if options.padded else ''}, {options.ranks} x {options.threads // options.ranks} threads, "
                       f"{options.repeats} x {options.steps} steps, A B A B" + (", on the GPU" if options.gpu else ""))
    return result


def table(result):
    ours, theirs, ceiling = result["dtrain"], result["peer"], result["ceiling"]
    lines = [result["title"],
             f"this machine: products {ceiling['fp32']:.0f} GFLOP/s in fp32 and {ceiling['bf16']:.0f} in bf16, "
             f"copying memory {ceiling['memory']:.1f} GB/s",
             f"{'':38}{'dtrain':>22}{'Trainer':>22}{'ratio':>8}"]

    def row(name, get, shown="{:.2f}", higher_is_better=False):
        a, b = get(ours), get(theirs)
        lines.append(f"{name:38}{shown.format(a):>22}{shown.format(b):>22}{(a / b if higher_is_better else b / a):>8.2f}")
    lines.append(f"{'seconds per step (min-max)':38}" + "".join(
        f"{'{:.2f} ({:.2f}-{:.2f})'.format(*each['step']):>22}" for each in (ours, theirs)) +
        f"{theirs['step'][0] / ours['step'][0]:>8.2f}")
    row("real tokens per second", lambda each: result["tokens"] / each["step"][0], "{:.0f}", True)
    row("tokens per second, padding included", lambda each: result["padded_tokens"] / each["step"][0], "{:.0f}", True)
    row("evaluation, reviews per second", lambda each: each["eval"], "{:.1f}", True)
    row("end of step 1, s, no token store yet", lambda each: each["first_cold"])
    row("end of step 1, s, token store there", lambda each: each["first_warm"])
    row("peak memory of a rank, GB", lambda each: each["peak"] / 1e9)
    if ours["gpu_peak"] > 0:
        row("peak memory of the GPU, GB", lambda each: each["gpu_peak"] / 1e9)
    row("seconds in all", lambda each: each["wall"], "{:.1f}")
    lines.append(f"{'part of a step, seconds':38}{'dtrain':>22}{'floor here':>22}{'floor/achieved':>16}")
    parts = list(result["parts"].items())
    parts.append(("all", {key: sum(part[key] for _, part in parts) for key in ("seconds", "floor")}))
    for name, part in parts:
        reached = f"{part['floor'] / part['seconds']:.2f}" if part["floor"] > 0 else ""
        lines.append(f"{name:38}{part['seconds']:>22.4f}{part['floor']:>22.4f}{reached:>16}")
    return "\n".join(lines)


def arguments(line=None):
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
    parser.add_argument("--gpu", action="store_true", help="both on the GPU")
    parser.add_argument("--padded", action="store_true", help="let dtrain compute padding too")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    options = parser.parse_args(line)
    options.tokenizer = options.tokenizer or options.model
    return options


def main():
    options = arguments()
    result = measure(options)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
