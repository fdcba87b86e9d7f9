#!/usr/bin/env python3
"""What checkpoints cost a training: MiniLM on film reviews, a save after every step, against no saves, A B C A B C.

For each way of saving it prints how long the steps stood still for checkpoints (from dtrain's own clock), as a share of the time of the
training, and the median time from step to step seen from outside, in which the writer's use of the cores and the disk shows too. The bound
is CheckFreq's (Mohan et al., FAST 2021): 3.5 %.
"""
import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import compare

ROOT = compare.ROOT
WAYS = {"no saves": {"training.save_strategy": "no"},
        "in the background": {"training.save_strategy": "steps"},
        "in the step": {"training.save_strategy": "steps", "reliability.save_in_background": "false"}}


def train(program, folder, options, settings):
    line = [str(program), str(ROOT / "configs" / "recipes" / "demo.toml")]
    common = {"training.output_dir": folder / "out", "training.max_steps": options.steps, "training.logging_steps": 1, "training.save_steps": 1,
              "training.save_total_limit": 2, "training.eval_strategy": "no", "training.bf16": "false", "data.train_samples": 640}
    for key, value in (common | settings).items():
        line += ["--set", f"{key}={value}"]
    if options.ranks > 1:
        line = ["mpirun", "--oversubscribe", "-np", str(options.ranks), *line]
    times, text = [], []
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for output in process.stdout:
        text.append(output)
        if re.search(r"\bstep +\d+/\d+ loss ", output):
            times.append(time.monotonic())
    if process.wait() != 0:
        sys.exit("".join(text[-30:]))
    text = "".join(text)
    held = re.search(r"held the steps up for ([\d.]+) s of ([\d.]+) s", text)
    return {"steps": [b - a for a, b in zip(times, times[1:])][compare.WARM_UP_STEPS:], "saved": text.count(" saved "),
            "stall": float(held.group(1)) / float(held.group(2)) if held else 0.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--folder", help="where checkpoints go, to measure that disk")
    options = parser.parse_args()
    program = (ROOT / options.build / "dtrain").resolve()
    runs = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way, settings in WAYS.items():
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                runs[way].append(train(program, pathlib.Path(folder), options, settings))
    print(f"{options.steps} steps, a save after each; {options.repeats} runs with {options.ranks} rank{'s' if options.ranks > 1 else ''}\n")
    print("| saves | written | steps held up | from step to step, median (least, most) |")
    print("| --- | --- | --- | --- |")
    for way, results in runs.items():
        steps = [step for result in results for step in result["steps"]]
        print(f"| {way} | {statistics.mean(result['saved'] for result in results):.0f} of {options.steps if way != 'no saves' else 0} | "
              f"{100 * max(result['stall'] for result in results):.2f} % | "
              f"{statistics.median(steps):.3f} s ({min(steps):.3f}, {max(steps):.3f}) |")


if __name__ == "__main__":
    main()
