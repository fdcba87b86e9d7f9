"""Whatever goes wrong ends within seconds with the right exit code, one clear line, a hint, and nothing left behind."""
import json
import os
import pathlib
import shutil
import struct
import subprocess

import pytest

import harness

USAGE, DATA, DISAGREE, INTERNAL, IO = 64, 65, 66, 70, 74
LIMIT_SECONDS = 5 * harness.SLOWNESS


def expect(outcome, code, *words):
    """The exit code, one error line with `words` in it, no other noise, in time."""
    assert outcome.code == code, outcome.text
    lines = outcome.error_lines()
    assert len(lines) == 1, outcome.text
    for word in words:
        assert word in lines[0], outcome.text
    for noise in ("MPI_ABORT", "Traceback", "terminate called", "*** Process received signal", "Segmentation"):
        assert noise not in outcome.text, outcome.text
    assert outcome.seconds < LIMIT_SECONDS, outcome.text


def both(path):
    """The same run with one rank and with two."""
    return [harness.run(path), harness.run(path, ranks=2)]


def copy_of(model, folder, name="model"):
    shutil.copytree(model, folder / name)
    return folder / name


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.startswith((".stage", ".dead")) or path.name.endswith(".tmp")]


def test_missing_configuration(tmp_path):
    expect(harness.run(tmp_path / "nowhere.toml"), USAGE, "nowhere.toml")


def test_missing_data_file(tmp_path, tiny_bert):
    for outcome in both(harness.recipe(tmp_path, tiny_bert, data={"train": str(tmp_path / "nowhere.jsonl")})):
        expect(outcome, USAGE, "nowhere.jsonl")


def test_unknown_key(tmp_path, tiny_bert):
    for outcome in both(harness.recipe(tmp_path, tiny_bert, training={"learnin_rate": 1e-3})):
        expect(outcome, USAGE, "recipe.toml:", "learnin_rate")
        assert 'did you mean "learning_rate"?' in outcome.text


def test_unknown_name_in_an_environment_variable(tmp_path, tiny_bert):
    path = harness.recipe(tmp_path, tiny_bert)
    expect(harness.run(path, DTRAIN_CPU_KERNELS="sse"), USAGE, "DTRAIN_CPU_KERNELS", "sse")
    expect(harness.run(path, DTRAIN_WITHOUT="dense,attntion"), USAGE, "DTRAIN_WITHOUT", "attntion")


def test_label_out_of_range(tmp_path, tiny_bert):
    rows = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}, {"text": "odd", "label": 7}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = harness.recipe(tmp_path, tiny_bert, data={"train": str(tmp_path / "rows.jsonl"), "train_samples": None})
    for outcome in both(recipe):
        expect(outcome, DATA, "rows.jsonl:3", "7")


def test_empty_data(tmp_path, tiny_bert):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    recipe = harness.recipe(tmp_path, tiny_bert, data={"train": str(tmp_path / "empty.jsonl"), "train_samples": None})
    for outcome in both(recipe):
        expect(outcome, DATA, "empty.jsonl")


def test_invalid_utf8(tmp_path, tiny_bert):
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "fine", "label": 0}\n{"text": "caf\xe9", "label": 1}\n')
    recipe = harness.recipe(tmp_path, tiny_bert, data={"train": str(tmp_path / "bad.jsonl"), "train_samples": None})
    for outcome in both(recipe):
        expect(outcome, DATA, "bad.jsonl:2", "UTF-8")


def test_truncated_safetensors(tmp_path, tiny_bert):
    model = copy_of(tiny_bert, tmp_path)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    for outcome in both(harness.recipe(tmp_path, model)):
        expect(outcome, DATA, "model.safetensors")


def test_wrong_shapes(tmp_path, tiny_bert):
    model = copy_of(tiny_bert, tmp_path)
    config = json.loads((model / "config.json").read_text())
    config["intermediate_size"] = 48
    (model / "config.json").write_text(json.dumps(config))
    for outcome in both(harness.recipe(tmp_path, model)):
        expect(outcome, DATA, "model.safetensors", "intermediate.dense", "shape [64]", "asks for [48]")


def test_tokenizer_of_another_model(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, tokenizer={
        "path": str(harness.ROOT / "tests" / "data" / "tokenizers" / "gpt2"), "pad_token": "eos"})
    for outcome in both(recipe):
        expect(outcome, DATA, "tokenizer", "50257", "30522")


def test_damaged_token_store_is_rebuilt(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert)
    first = harness.run(recipe, "--set", f"training.output_dir={tmp_path / 'first'}")
    assert first.code == 0, first.text
    stores = [path for path in (tmp_path / "tokens").rglob("*") if path.suffix in (".h5", ".hdf5")]
    assert len(stores) == 2
    for store in stores:
        content = bytearray(store.read_bytes())
        content[-9] ^= 1
        content[len(content) // 2] ^= 1
        store.write_bytes(content)
    second = harness.run(recipe, "--set", f"training.output_dir={tmp_path / 'second'}", ranks=2)
    assert second.code == 0, second.text
    assert "warning" in second.text and stores[0].name in second.text
    third = harness.run(recipe, "--set", f"training.output_dir={tmp_path / 'third'}")
    assert third.code == 0 and "warning" not in third.text, third.text
    losses = [[record["loss"] for record in harness.log_records(tmp_path / name) if "loss" in record]
              for name in ("first", "third")]
    assert losses[0] == losses[1]
    assert not leftovers(tmp_path)


def test_more_ranks_than_gpus(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training={"use_cpu": False})
    expect(harness.run(recipe, ranks=2, DTRAIN_ASSUME_GPUS="1"), USAGE, "2 ranks", "1 GPU")


def test_output_folder_not_empty(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert)
    assert harness.run(recipe).code == 0
    for outcome in both(recipe):
        expect(outcome, USAGE, str(tmp_path / "out"))
        assert "overwrite_output_dir" in outcome.text and "resume_from_checkpoint" in outcome.text


def test_output_folder_in_use(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert)
    # The first run stops itself in step 2, with the folder locked, and stays there until it is killed.
    first = subprocess.Popen(harness.command(recipe), cwd=harness.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=harness.environment(DTRAIN_FAULT="rank=0 point=step at=2 kind=stop"))
    try:
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        for outcome in both(recipe):
            expect(outcome, USAGE, str(tmp_path / "out"), str(first.pid))
    finally:
        first.kill()
        first.wait()
    # The lock ends with its holder; what the killed run left is refused or taken over like any earlier run.
    assert harness.run(recipe, "--set", "training.overwrite_output_dir=true").code == 0


def test_two_ranks_with_different_files(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert)
    other = tmp_path / "other.toml"
    other.write_text(recipe.read_text().replace("max_steps = 6", "max_steps = 7"), encoding="utf-8")
    line = ["mpirun", "--oversubscribe", "-np", "1", harness.DTRAIN, recipe, ":", "-np", "1", harness.DTRAIN, other]
    expect(harness.run_line([str(word) for word in line]), DISAGREE, "rank")


@pytest.mark.parametrize("ranks,rank", [(2, 1), (2, 0), (4, 2)])
def test_a_rank_that_throws_in_step_three(ranks, rank, tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert)
    outcome = harness.run(recipe, ranks=ranks, DTRAIN_FAULT=f"rank={rank} point=step at=3 kind=throw")
    expect(outcome, INTERNAL, f"rank {rank}", "step 3", "fault point")
    state = json.loads((tmp_path / "out" / "run.json").read_text())
    assert state["exit"] == INTERNAL and "fault point" in state["reason"]


@pytest.mark.parametrize("ranks", [None, 2])
def test_disk_full_while_saving(ranks, tmp_path, tiny_bert):
    disk = tmp_path / "disk"
    disk.mkdir()
    # One checkpoint of this model (weights and optimizer, 12 MB) fits, a second one does not.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=True)
    try:
        recipe = harness.recipe(tmp_path, tiny_bert, training={
            "output_dir": str(disk / "out"), "save_strategy": "steps", "save_steps": 2})
        outcome = harness.run(recipe, ranks=ranks)
        expect(outcome, IO, "step 4")
        assert "save_total_limit" in outcome.text
        checkpoints = sorted(path.name for path in (disk / "out").glob("checkpoint-*"))
        assert checkpoints == ["checkpoint-2"] and not leftovers(disk)
        size = struct.unpack("<Q", (disk / "out" / "checkpoint-2" / "model.safetensors").read_bytes()[:8])[0]
        assert 0 < size < 100_000
    finally:
        subprocess.run(["umount", disk], check=True)


def test_unknown_command_and_option():
    expect(harness.run("trian"), USAGE, "trian")
    expect(harness.run("config"), USAGE)
    expect(harness.run("--sett", "a=b", "x.toml"), USAGE, "--sett")


def test_not_a_number_stops_without_changing_weights(tmp_path, tiny_bert):
    from safetensors.torch import load_file, save_file
    model = copy_of(tiny_bert, tmp_path)
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    for outcome in both(harness.recipe(tmp_path, model)):
        expect(outcome, DATA, "step 1", "finite")
        assert not (tmp_path / "out" / "model.safetensors").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


assert pathlib.Path(harness.DTRAIN).exists(), f"{harness.DTRAIN} is missing: run ./dev build"
