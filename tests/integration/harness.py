"""Starts the built program as a user would and collects what it printed. Used by the tests of this folder."""
import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DTRAIN_BUILD_DIR", ROOT / "build"))
DTRAIN = BUILD / "dtrain"
IMDB = ROOT / "tests" / "data" / "imdb"
MODELS = ROOT / "tests" / "data" / "models"
MINILM = ROOT / ".deps" / "minilm"
PYTHON = sys.executable
# How many times as long as usual everything may take: with a sanitizer, or on a busy machine.
SLOWNESS = float(os.environ.get("DTRAIN_TEST_SLOWNESS", "1"))


@dataclasses.dataclass
class Outcome:
    code: int
    text: str  # standard output and standard error together
    seconds: float

    def error_lines(self):
        return [line for line in self.text.splitlines() if line.startswith("error:")]


def environment(**extra):
    """The environment of a run: root may use mpirun, nothing of the caller's MPI or Slurm job leaks in."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("OMPI_", "PMIX_", "PMI_", "SLURM_", "DTRAIN_"))}
    return kept | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} | extra


def command(*arguments, ranks=None):
    line = [str(DTRAIN), *map(str, arguments)]
    return ["mpirun", "--oversubscribe", "-np", str(ranks), *line] if ranks else line


def run(*arguments, ranks=None, timeout=300, **extra_environment):
    """Runs `dtrain arguments...`, under mpirun when `ranks` is given, in the root of the repository."""
    return run_line(command(*arguments, ranks=ranks), timeout, **extra_environment)


def run_line(line, timeout=300, cwd=ROOT, **extra_environment):
    before = shared_memory()
    start = time.monotonic()
    process = subprocess.Popen(line, cwd=cwd, env=environment(**extra_environment), stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, errors="replace")
    try:
        text, _ = process.communicate(timeout=timeout * SLOWNESS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        raise AssertionError(f"{line} ran longer than {timeout} s:\n{text}") from None
    left = {name for name in shared_memory() - before if "dtrain" in name}
    assert not left, f"left in /dev/shm: {left}"
    return Outcome(process.returncode, text, time.monotonic() - start)


def shared_memory():
    return set(os.listdir("/dev/shm"))


def write_toml(path, sections):
    """{section: {key: value}} as a TOML file; JSON's notation of scalars and lists is TOML's."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    pathlib.Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe(folder, model_folder, /, **changes):
    """A small run on the review sample; `changes` are {section: {key: value}}, None removes a key."""
    sections = {
        "model": {"path": str(model_folder), "task": "sequence-classification", "num_labels": 2},
        "tokenizer": {"max_length": 32},
        "data": {"train": str(IMDB / "imdb-small-train.jsonl"), "eval": str(IMDB / "imdb-small-test.jsonl"), "text": "text",
                 "label": "label", "train_samples": 64, "eval_samples": 32, "cache_dir": str(folder / "tokens")},
        "training": {"output_dir": str(folder / "out"), "use_cpu": True, "max_steps": 6, "per_device_train_batch_size": 4,
                     "per_device_eval_batch_size": 8, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True},
        "metrics": {"compute": ["accuracy", "f1:weighted"]},
    }
    for section, keys in changes.items():
        sections[section] = {key: value for key, value in (sections.get(section, {}) | keys).items() if value is not None}
    return write_toml(folder / "recipe.toml", sections)


def log_records(folder):
    with open(folder / "log.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
