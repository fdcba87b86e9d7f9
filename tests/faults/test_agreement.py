"""Ranks that differ do not start: exit 66 with the key, the values and the ranks, before anything is computed."""
import os
import re
import shutil
import subprocess

import pytest

import harness
from launched import generator

DISAGREE = 66
# What is promised, and what another test at the same time may cost.
SECONDS = (2 + 2) * harness.SLOWNESS


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_bert):
    return harness.recipe(tmp_path_factory.mktemp("agreement"), tiny_bert)


@pytest.fixture(scope="module")
def start_seconds():
    """What a job costs that ends before it begins, on this machine at this time."""
    return min(harness.run("--version", ranks=3).seconds for _ in range(2))


def with_odd_rank(recipe, odd, program=harness.DTRAIN, options=(), environment=(), ranks=3):
    """Ranks of which `odd` is started otherwise."""
    parts = []
    for rank in range(ranks):
        mine = rank == odd
        parts.append(["-np", "1", *(environment if mine else ()), str(program if mine else harness.DTRAIN), str(recipe),
                      *(options if mine else ())])
    line = ["mpirun", "--oversubscribe"]
    for number, part in enumerate(parts):
        line += [":"] * (number > 0) + part
    return harness.run_line(line)


def checkpoints(folder):
    return sorted(path.name for path in (folder / "out").glob("checkpoint-*"))


def check(outcome, start_seconds, *words):
    assert outcome.code == DISAGREE, outcome.text
    assert len(outcome.error_lines()) == 1, outcome.text
    for word in words:
        assert word in outcome.error_lines()[0], outcome.text
    assert outcome.seconds < start_seconds + SECONDS, f"{outcome.seconds} s\n{outcome.text}"
    return outcome.seconds - start_seconds


@pytest.mark.row("F64", "one setting differs on one rank")
def test_a_setting_differs(row, recipe, start_seconds):
    """Some of the table; all of it is the loop of the unit test Agreement.EachSettingThatDiffersIsNamed."""
    values = [("training.learning_rate", "1e-4"), ("training.seed", "7"), ("tokenizer.max_length", "31"), ("data.train_samples", "63"),
              ("reliability.check_interval", "9"), ("training.output_dir", "elsewhere"), ("metrics.compute", '["accuracy"]'),
              ("training.bf16", "true"), ("training.hub_private_repo", "true"), ("training.logging_steps", "5")]
    for number in row.tries(sample=2, full=len(values)):
        key, value = values[number]
        odd = generator(f"setting {number}").randrange(3)
        outcome = with_odd_rank(recipe, odd, options=["--set", f"{key}={value}"])
        row.passed(seconds=check(outcome, start_seconds, f"{key}: rank", f"rank {odd} has"))
        assert not (recipe.parent / "out").exists() and not os.path.exists(harness.ROOT / "elsewhere")


@pytest.mark.row("F65", "one rank runs another build")
def test_another_build(row, recipe, start_seconds, tmp_path):
    # The same program, but for one byte of the number that its linker gave it.
    other = tmp_path / "dtrain"
    notes = subprocess.run(["readelf", "-n", harness.DTRAIN], check=True, capture_output=True, text=True).stdout
    build_id = bytes.fromhex(re.search(r"Build ID: ([0-9a-f]+)", notes).group(1))
    content = harness.DTRAIN.read_bytes()
    assert content.count(build_id) == 1
    other.write_bytes(content.replace(build_id, bytes([build_id[0] ^ 1]) + build_id[1:]))
    other.chmod(0o755)
    (tmp_path / "lib").symlink_to(harness.BUILD / "lib")
    for number in row.tries(sample=1, full=3):
        outcome = with_odd_rank(recipe, number, program=other)
        row.passed(seconds=check(outcome, start_seconds, "the build: rank", f"rank {number} has"))


@pytest.mark.row("F65", "one rank has another number of threads")
def test_another_number_of_threads(row, recipe, start_seconds):
    threads = ["-x", "OMP_NUM_THREADS=3"]
    for number in row.tries(sample=1, full=3):
        outcome = with_odd_rank(recipe, number, environment=threads, options=[])
        assert outcome.code == 0 and "threads of a rank" in outcome.text and f"rank {number} has \"3\"" in outcome.text, outcome.text
        shutil.rmtree(recipe.parent / "out")
        exact = recipe.parent / "exact.toml"
        exact.write_text(recipe.read_text().replace("[training]\n", "[training]\nreproducible = true\n"), encoding="utf-8")
        outcome = with_odd_rank(exact, number, environment=threads, ranks=4)
        row.passed(seconds=check(outcome, start_seconds, "threads of a rank", f"rank {number} has"))
        shutil.rmtree(recipe.parent / "out", ignore_errors=True)


@pytest.mark.row("F56", "the training data changes between two attempts")
def test_data_that_changes(row, tmp_path, tiny_bert):
    lines = (harness.IMDB / "imdb-small-train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:64]
    changes = [lambda: lines + [lines[0]], lambda: lines[:-1], lambda: [*lines[1:], lines[0]],
               lambda: [lines[0].replace("a", "e", 1), *lines[1:]]]
    for number in row.tries(sample=1, full=len(changes)):
        folder = tmp_path / str(number)
        folder.mkdir()
        train = folder / "train.jsonl"
        train.write_text("".join(lines), encoding="utf-8")
        path = harness.recipe(folder, tiny_bert, data={"train": str(train), "train_samples": None},
                              reliability={"save_in_background": False},
                              training={"save_strategy": "steps", "save_steps": 3, "resume_from_checkpoint": "latest"})
        assert harness.run(path, DTRAIN_FAULT="rank=0 point=step at=5 kind=kill").code == -9
        kept = checkpoints(folder)
        train.write_text("".join(changes[number]()), encoding="utf-8")
        outcome = harness.run(path)
        assert outcome.code == DISAGREE and len(outcome.error_lines()) == 1, outcome.text
        assert "the training data, or how it is tokenised, has changed" in outcome.error_lines()[0], outcome.text
        assert kept == checkpoints(folder) == ["checkpoint-3"]
        row.passed()
