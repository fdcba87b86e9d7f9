#!/usr/bin/env python3
"""Runs the comparisons that docs/benchmarks.md shows, one after the other (about half an hour), and writes that file."""
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import compare

ROOT = compare.ROOT
GPT2 = ["--model", str(ROOT / "bench" / "models" / "gpt2-124m"), "--tokenizer", str(ROOT / "tests" / "data" / "tokenizers" / "gpt2"),
        "--random-init", "--eos", "--steps", "4", "--repeats", "1", "--eval-samples", "16"]
MINILM = ["--steps", "10", "--repeats", "2", "--eval-samples", "128"]
RUNS = [["--precision", "fp32"] + MINILM,
        ["--precision", "fp32", "--padded"] + MINILM,
        ["--precision", "fp32", "--ranks", "2"] + MINILM,
        ["--precision", "fp32", "--ranks", "2", "--padded"] + MINILM,
        ["--precision", "fp32", "--padded"] + GPT2,
        ["--precision", "fp32"] + GPT2,
        ["--precision", "bf16", "--steps", "4", "--repeats", "1", "--eval-samples", "16"]]
# What one lever is worth: dtrain alone, seconds per step with it and without, in turn.
LEVERS = [("no padding computed", {"compute_padding": True}),
          ("kernels for AVX2 or AVX-512, all", {"DTRAIN_CPU_KERNELS": "generic"}),
          ("those of attention", {"DTRAIN_WITHOUT": "attention"}),
          ("those of linear layers and GELU", {"DTRAIN_WITHOUT": "dense"}),
          ("the last block computes only what is read", {"DTRAIN_WITHOUT": "read_tokens"}),
          ("memory kept between steps", {"DTRAIN_WITHOUT": "block_cache"})]

HEAD = """# Speed

Written by `./dev bench report` on {date}. {machine}, {threads} threads, {memory:.0f} GiB. One run each, dtrain and the Hugging Face
Trainer (transformers {transformers}, torch {torch}) in turn on the same weights, token ids, batches and threads. Times are medians with least
and most; the machine is shared, so look at the spreads. A *floor* is the time that this machine could not go below: products at the best rate
LibTorch reached in the same run, memory at its copying speed.
{bf16}
"""
NO_BF16 = """
This CPU has no bfloat16 arithmetic: LibTorch converts element by element there, and dtrain, which says so, computes in fp32 instead. The bf16 row
says nothing about a CPU that has it.
"""


def versions():
    out = subprocess.run([sys.executable, "-c", "import torch, transformers; print(torch.__version__, transformers.__version__)"],
                         check=True, capture_output=True, text=True).stdout.split()
    return {"torch": out[0], "transformers": out[1]}


def cpu_name():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def lever(options, name, off):
    """Median seconds per step with the lever and without, A B A B."""
    environment = {key: value for key, value in off.items() if key.isupper()}
    steps = {True: [], False: []}
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(2):
            for on in (True, False):
                options.padded = not on and off.get("compute_padding", False)
                folder = pathlib.Path(temporary)
                compare.write_recipes(folder, options)
                run = compare.run_dtrain(ROOT / options.build / "dtrain", folder, options, {} if on else environment)
                ends = run["steps"][compare.WARM_UP_STEPS - 1:]
                steps[on] += [end - start for start, end in zip(ends, ends[1:])]
    on, without = statistics.median(steps[True]), statistics.median(steps[False])
    return f"| {name} | {on:.2f} | {without:.2f} | {without / on:.2f} |"


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else "build"
    tables, results = [], []
    for line in RUNS:
        result = compare.measure(compare.arguments(["--build", build] + line))
        results.append(result)
        tables.append(f"`./dev bench {' '.join(line).replace(str(ROOT) + '/', '')}`\n\n```\n{compare.table(result)}\n```\n")
        print(compare.table(result) + "\n", flush=True)
    rows = [lever(compare.arguments(["--build", build, "--precision", "fp32", "--steps", "8", "--eval-samples", "32"]), name, off)
            for name, off in LEVERS]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    slow_bf16 = all(result["ceiling"]["bf16"] < result["ceiling"]["fp32"] for result in results)
    head = HEAD.format(date=datetime.date.today(), machine=cpu_name(), threads=len(os.sched_getaffinity(0)), memory=memory,
                       bf16=NO_BF16 if slow_bf16 else "", **versions())
    levers = ("## Levers\n\nMiniLM, fp32, 16 x 256, one process, seconds per step, in turn.\n\n| lever | with | without | gain |\n|---|---|---|---|\n"
              + "\n".join(rows) + "\n")
    (ROOT / "docs" / "benchmarks.md").write_text(head + "\n" + "\n".join(tables) + "\n" + levers, encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
