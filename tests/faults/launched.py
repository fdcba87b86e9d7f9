"""A training under `dtrain launch`, watched from outside: its processes, its files, the moments at which a test strikes."""
import json
import os
import pathlib
import random
import signal
import subprocess
import time

import harness

LIMIT = 120 * harness.SLOWNESS
STEPS = 30
OPTIONS = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 2, "eval_strategy": "steps",
           "eval_steps": 3, "logging_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "loss",
           "learning_rate": 1e-3, "gradient_accumulation_steps": 2}
MOMENTS = ("training", "evaluation", "saving", "pruning", "any")


def children(pid):
    try:
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid):
    """A zombie that nobody has waited for yet does nothing any more."""
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def record(out):
    try:
        return json.loads((out / "run.json").read_text())
    except FileNotFoundError:
        return {}


def steps_of(out):
    """Of the records in the log so far; the last line may be half written."""
    try:
        lines = (out / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line)["step"] for line in lines]


def names(out, prefix):
    try:
        return [name for name in os.listdir(out) if name.startswith(prefix)]
    except FileNotFoundError:
        return []


def result(out, steps=STEPS):
    """All that an interrupted and an uninterrupted run must have in common: weights, optimizer, log of steps, best choice."""
    timings = ("runtime", "per_second")
    log = [{key: value for key, value in entry.items() if not key.endswith(timings) and key not in ("seconds", "rank_seconds")}
           for entry in harness.log_records(out)]
    best = {key: record(out)[key] for key in ("state", "step", "best_step", "best_metric", "exit")}
    compared = ("model.safetensors", f"checkpoint-{steps}/model.safetensors", f"checkpoint-{steps}/optimizer.safetensors")
    return {"digests": {name: harness.digest(out / name) for name in compared}, "log": log, "best": best,
            "checkpoints": sorted(names(out, "checkpoint-")), "debris": names(out, ".stage") + names(out, ".dead")}


class Launched:
    """One `dtrain launch` in the background; leaving the block kills what is left of it."""

    def __init__(self, recipe, out, *arguments, ranks=2, **environment):
        self.out = out
        self.text_file = out.parent / f"{out.name}.text"
        line = [str(harness.DTRAIN), "launch", "--ranks", str(ranks), "--backoff", "0.1", "--launcher-args=--oversubscribe", str(recipe),
                "--set", f"training.output_dir={out}", *map(str, arguments)]
        if ranks == 1:
            line.remove("--launcher-args=--oversubscribe")
        self.ranks_wanted = ranks
        with open(self.text_file, "ab") as file:
            self.process = subprocess.Popen(line, cwd=harness.ROOT, env=harness.environment(OMP_NUM_THREADS="1", **environment),
                                            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.signal(signal.SIGKILL, [self.process.pid, *self.all_processes()])
            self.process.wait()

    def all_processes(self):
        found, new = [], children(self.process.pid)
        while new:
            found += new
            new = [child for pid in new for child in children(pid)]
        return found

    def text(self):
        return self.text_file.read_text(encoding="utf-8", errors="replace")

    def mpirun(self):
        """Process of mpirun in this attempt, None between two."""
        return next(iter(children(self.process.pid)), None)

    def ranks(self):
        """Processes of the ranks in this attempt, in no particular order of rank; [] while not all are there."""
        first = self.mpirun()
        if first is None:
            return []
        found = [first] if self.ranks_wanted == 1 else children(first)
        return found if len(found) == self.ranks_wanted else []

    def rank(self, number):
        for pid in self.ranks():
            try:
                variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"OMPI_COMM_WORLD_RANK={number}".encode() in variables or self.ranks_wanted == 1:
                return pid
        return None

    def signal(self, number, pids):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def until(self, condition, what, pause=0.002):
        """Polls finely; returns False when the run ends first."""
        end = time.monotonic() + LIMIT
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, f"not within {LIMIT} s: {what}\n{self.text()}"
            time.sleep(pause)
        return True

    def moment(self, name, after, rng):
        """Waits for a moment of that kind once `after` steps are logged; False when the run ends before it comes."""
        if not self.until(lambda: max(steps_of(self.out), default=0) >= after and self.ranks(), f"step {after}"):
            return False
        if name == "saving":
            return self.until(lambda: names(self.out, ".stage"), "a save", pause=0)
        if name == "pruning":
            return self.until(lambda: names(self.out, ".dead"), "a removal", pause=0)
        if name == "evaluation":
            # The record of the step is there, that of its evaluation is not.
            return self.until(lambda: (steps_of(self.out) or [1])[-1] % 3 == 0 and steps_of(self.out).count(steps_of(self.out)[-1]) == 1,
                              "an evaluation")
        if name == "any":
            # A random instant is what is tested here.
            time.sleep(rng.uniform(0, 0.3))
        return True

    def end(self):
        """The exit code of the supervisor, after which no process holds the folder and nothing half-written is left of a run
        that has ended."""
        code = self.process.wait(LIMIT)
        holders = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self.belongs(pid)]
        assert not holders, f"left: {holders}\n{self.text()}"
        return code

    def belongs(self, pid):
        """Whether it is a process of this run: its command line names the folder."""
        try:
            return f"training.output_dir={self.out}".encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") and is_alive(pid)
        except OSError:
            return False


def generator(number):
    """A printed seed makes a failing try repeatable in its choices, if not in its instants."""
    return random.Random(f"{os.environ.get('DTRAIN_FAULTS_SEED', '1')}-{number}")
