"""dtrain sweep as a user starts it: trials, results, failures, interruption and going on."""
import csv
import json
import signal
import subprocess
import time

import pytest

import harness
from test_errors import DISAGREE, USAGE, expect

PREEMPTED = 75


def sweep_file(folder, model, space, training=None, **sweep):
    path = harness.recipe(folder, model, training={"max_steps": 3, "learning_rate": 1e-3} | (training or {}))
    lines = ["[sweep]"] + [f"{key} = {json.dumps(value)}" for key, value in sweep.items()]
    lines += [f'"{name}" = {text}' for name, text in space.items()]
    path.write_text(path.read_text() + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def record(folder):
    return json.loads((folder / "out" / "sweep.json").read_text())


def test_four_trials_of_which_one_fails(tmp_path, tiny_bert):
    """The model reads at most 64 tokens: the third trial is refused, and the others go on."""
    path = sweep_file(tmp_path, tiny_bert, {"tokenizer.max_length": "{ values = [16, 24, 65, 32] }"}, method="grid", metric="accuracy")
    first = harness.run("sweep", path, "--set", "sweep.trials=2")
    assert first.code == 0, first.text
    kept = {name: (tmp_path / "out" / f"trial-00{name}" / "run.json").stat().st_mtime_ns for name in (0, 1)}
    outcome = harness.run("sweep", path)
    assert outcome.code == 0, outcome.text
    assert "2 of 4 trials are finished already" in outcome.text
    for name, time_of in kept.items():
        assert (tmp_path / "out" / f"trial-00{name}" / "run.json").stat().st_mtime_ns == time_of, "a finished trial ran again"

    trials = record(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["done", "done", "failed", "done"]
    assert [trial["values"]["tokenizer.max_length"] for trial in trials] == [16, 24, 65, 32]
    assert trials[2]["exit"] == USAGE and "reads at most 64 tokens" in trials[2]["reason"]
    assert "failed with exit code 64" in outcome.text
    for trial in trials:
        if trial["state"] == "done":
            results = json.loads((tmp_path / "out" / trial["folder"] / "eval_results.json").read_text())
            assert trial["value"] == results["eval_accuracy"]
    best = max((trial for trial in trials if trial["state"] == "done"), key=lambda trial: (trial["value"], -trial["number"]))
    assert record(tmp_path)["best"] == best["number"]
    assert f"best: trial {best['number']}, eval_accuracy {best['value']:.4f}" in outcome.text
    with open(tmp_path / "out" / "sweep.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tokenizer.max_length"] for row in rows] == ["16", "24", "65", "32"]
    assert [row["eval_accuracy"] for row in rows if row["state"] == "done"] == [str(t["value"]) for t in trials if t["state"] == "done"]
    assert "reads at most 64 tokens" in rows[2]["reason"]

    # A trial is a run like any other: its file trains it again, with the same result.
    again = harness.run(tmp_path / "out" / "trial-001.toml", "--set", f"training.output_dir={tmp_path / 'again'}")
    assert again.code == 0, again.text
    assert json.loads((tmp_path / "again" / "eval_results.json").read_text())["eval_accuracy"] == trials[1]["value"]


def test_the_seed_decides(tmp_path, tiny_bert):
    points = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        path = sweep_file(tmp_path / name, tiny_bert, {"training.learning_rate": "{ low = 1e-5, high = 1e-1, log = true }",
                                                       "training.gradient_accumulation_steps": "{ low = 1, high = 3 }"},
                          {"max_steps": 1}, method="tpe", trials=3, seed=seed, startup_trials=2)
        outcome = harness.run("sweep", path)
        assert outcome.code == 0, outcome.text
        points.append([trial["values"] for trial in record(tmp_path / name)["trials"]])
    assert points[0] == points[1] and points[0] != points[2]
    assert len({json.dumps(point) for point in points[0]}) == 3


def test_trials_with_two_ranks(tmp_path, tiny_bert):
    path = sweep_file(tmp_path, tiny_bert, {"training.seed": "{ values = [3] }"}, method="grid")
    outcome = harness.run("sweep", path, "--ranks", 2, OMPI_MCA_rmaps_base_oversubscribe="1")
    assert outcome.code == 0, outcome.text
    assert "batch: 4 per device x 2 ranks" in (tmp_path / "out" / "trial-000.log").read_text()
    refused = harness.run("sweep", path, ranks=2)
    expect(refused, USAGE, "dtrain sweep starts its trials itself, and was started with 2 ranks")


@pytest.mark.parametrize("ranks", [None, 2])
def test_an_interrupted_sweep_goes_on(ranks, tmp_path, tiny_bert):
    """Ctrl-C: the running trial publishes a checkpoint and goes on from it; nothing finished is lost."""
    path = sweep_file(tmp_path, tiny_bert, {"training.seed": "{ values = [1, 2] }"}, {"max_steps": 4000, "logging_steps": 1},
                      method="grid")
    command = harness.command("sweep", path, *(["--ranks", ranks] if ranks else []))
    environment = harness.environment(OMPI_MCA_rmaps_base_oversubscribe="1")
    process = subprocess.Popen(command, cwd=harness.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "out" / "trial-000" / "log.jsonl"
    deadline = time.monotonic() + 60 * harness.SLOWNESS
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60 * harness.SLOWNESS)
    assert process.returncode == PREEMPTED, text
    assert "goes on with trial 0" in text
    run = json.loads((log.parent / "run.json").read_text())
    assert run["state"] == "preempted" and record(tmp_path)["trials"][0]["state"] == "running"

    # The rest is quick: both runs end a few steps after the checkpoint.
    steps = run["step"] + 3
    path.write_text(path.read_text().replace("max_steps = 4000", f"max_steps = {steps}"), encoding="utf-8")
    refused = harness.run("sweep", path)
    expect(refused, DISAGREE, "training.max_steps", "was 4000")
    (tmp_path / "out" / "sweep.toml").write_text((tmp_path / "out" / "sweep.toml").read_text().replace("max_steps = 4000", f"max_steps = {steps}"))
    outcome = harness.run("sweep", path, *(["--ranks", ranks] if ranks else []), OMPI_MCA_rmaps_base_oversubscribe="1")
    assert outcome.code == 0, outcome.text
    assert [trial["state"] for trial in record(tmp_path)["trials"]] == ["done", "done"]
    assert "resuming from" in (tmp_path / "out" / "trial-000.log").read_text()
    assert json.loads((log.parent / "run.json").read_text())["step"] == steps


def test_when_all_trials_fail(tmp_path, tiny_bert):
    path = sweep_file(tmp_path, tiny_bert, {"tokenizer.max_length": "{ values = [65, 66] }"}, method="grid")
    outcome = harness.run("sweep", path)
    assert outcome.code == USAGE, outcome.text
    assert len(outcome.error_lines()) == 1 and "all 2 trials failed; the first: " in outcome.error_lines()[0]


def test_another_sweep_is_not_continued(tmp_path, tiny_bert):
    path = sweep_file(tmp_path, tiny_bert, {"training.seed": "{ values = [1] }"}, method="grid")
    assert harness.run("sweep", path).code == 0
    path.write_text(path.read_text().replace("values = [1]", "values = [1, 2]"), encoding="utf-8")
    expect(harness.run("sweep", path), DISAGREE, "is of another sweep", "space")
    path = harness.recipe(tmp_path, tiny_bert)
    expect(harness.run("sweep", path), USAGE, "[sweep] names no setting to search")
