"""dtrain export and dtrain prepare."""
import json
import re

import pytest
import torch
import transformers
from safetensors import safe_open

import harness


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("trained")
    recipe = harness.recipe(folder, tiny_bert, training={"save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-3})
    outcome = harness.run(recipe)
    assert outcome.code == 0, outcome.text
    return folder / "out"


def logits_of(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["A film of great beauty.", "Dull."], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("source", [".", "checkpoint-3"])
def test_an_export_computes_the_same(source, trained, tmp_path):
    outcome = harness.run("export", trained / source, "--out", tmp_path / "new" / "model")
    assert outcome.code == 0, outcome.text
    new = tmp_path / "new" / "model"
    kept = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    allowed = kept | {"README.md", "vocab.txt", "special_tokens_map.json"}
    assert kept <= names_in(new) <= allowed
    assert (new / "model.safetensors").read_bytes() == (trained / source / "model.safetensors").read_bytes()
    assert torch.equal(logits_of(new), logits_of(trained / source))
    assert names_in(tmp_path / "new") == {"model"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types(dtype, trained, tmp_path):
    outcome = harness.run("export", trained, "--out", tmp_path / "new", "--dtype", dtype)
    assert outcome.code == 0, outcome.text
    wanted = transformers.AutoModelForSequenceClassification.from_pretrained(trained).to(getattr(torch, dtype)).state_dict()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "new")
    assert model.dtype == getattr(torch, dtype) and json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == dtype
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    assert (tmp_path / "new" / "model.safetensors").stat().st_size < 0.51 * (trained / "model.safetensors").stat().st_size
    # And back: an export can be exported.
    assert harness.run("export", tmp_path / "new", "--out", tmp_path / "back", "--dtype", "float32").code == 0
    assert torch.equal(logits_of(tmp_path / "back"), logits_of(tmp_path / "new"))


def test_shards_are_cut_as_the_hub_cuts_them(trained, tmp_path):
    outcome = harness.run("export", trained, "--out", tmp_path / "new", "--max-shard-size", "20KB")
    assert outcome.code == 0, outcome.text
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    with safe_open(trained / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())
    assert set(index["weight_map"]) == set(stored)
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 3 and {f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))} == set(shards)
    for shard in shards:
        with safe_open(tmp_path / "new" / shard, "pt") as file:
            sizes = [stored[name].nbytes for name in file.keys()]
            assert {name for name, place in index["weight_map"].items() if place == shard} == set(file.keys())
            assert all(torch.equal(file.get_tensor(name), stored[name]) for name in file.keys())
        assert sum(sizes) <= 20_000 or len(sizes) == 1
    assert torch.equal(logits_of(tmp_path / "new"), logits_of(trained))
    # dtrain reads it too.
    assert harness.run("export", tmp_path / "new", "--out", tmp_path / "whole").code == 0
    assert torch.equal(logits_of(tmp_path / "whole"), logits_of(trained))


def test_what_export_refuses(trained, tmp_path):
    def refused(code, *arguments):
        outcome = harness.run("export", *arguments)
        assert outcome.code == code and len(outcome.error_lines()) == 1, outcome.text
        return outcome.text
    target = tmp_path / "new"
    (target).mkdir()
    (target / "mine.txt").write_text("keep")
    assert "exists already" in refused(64, trained, "--out", target)
    assert names_in(target) == {"mine.txt"}
    fresh = tmp_path / "fresh"
    assert "--out is missing" in refused(64, trained)
    assert "there is no folder" in refused(64, tmp_path / "none", "--out", fresh)
    assert "not a type of weights" in refused(64, trained, "--out", fresh, "--dtype", "int8")
    assert "not a size" in refused(64, trained, "--out", fresh, "--max-shard-size", "many")
    # A run that is under way, and a checkpoint with a changed byte.
    running = tmp_path / "running"
    (running / "checkpoint-7").mkdir(parents=True)
    assert f"export a checkpoint: {running}/checkpoint-7" in refused(64, running, "--out", fresh)
    for path in (trained / "checkpoint-3").iterdir():
        (running / "checkpoint-7" / path.name).write_bytes(path.read_bytes())
    weights = running / "checkpoint-7" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "is damaged" in refused(65, running / "checkpoint-7", "--out", fresh)
    # float16 ends at 65504.
    large = tmp_path / "large"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained)
    with torch.no_grad():
        model.classifier.bias.fill_(1e5)
    model.save_pretrained(large)
    assert "values that float16 does not hold" in refused(65, large, "--out", fresh, "--dtype", "float16")
    assert not fresh.exists() and names_in(tmp_path) == {"new", "running", "large"}


def table_rows(text):
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    start = next(i for i, cells in enumerate(lines) if cells[0] == "data")
    return {cells[0]: dict(zip(lines[start], cells)) for cells in lines[start + 1:] if len(cells) == len(lines[start])}


@pytest.mark.parametrize("ranks", [None, 2])
def test_prepare_tokenises_once_and_for_all(ranks, tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, data={"train_samples": None})
    outcome = harness.run("prepare", recipe, ranks=ranks)
    assert outcome.code == 0, outcome.text
    assert not (tmp_path / "out").exists()
    rows = table_rows(outcome.text)
    assert set(rows) == {"training", "evaluation"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    with open(harness.IMDB / "imdb-small-train.jsonl", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=32)["input_ids"]]
    full = 100 * sum(length == 32 for length in lengths) / len(lengths)
    row = rows["training"]
    assert (row["files"], row["examples"], row["tokens"], row["longest"]) == ("1", str(len(texts)), str(sum(lengths)), "32")
    assert row["of 32 tokens"] == f"{full:.1f} %" and float(row["seconds"]) > 0
    assert rows["evaluation"]["examples"] == "32"

    stores = sorted((tmp_path / "tokens").glob("*.h5"))
    assert {row["store"] for row in rows.values()} == {str(store) for store in stores}
    before = [(store.stat().st_ino, store.stat().st_mtime_ns) for store in stores]
    trained = harness.run(recipe, ranks=ranks)
    assert trained.code == 0 and "tokenizing" not in trained.text, trained.text
    again = harness.run("prepare", recipe, ranks=ranks)
    assert {row["seconds"] for row in table_rows(again.text).values()} == {"was there"}
    assert sorted((tmp_path / "tokens").glob("*.h5")) == stores
    assert [(store.stat().st_ino, store.stat().st_mtime_ns) for store in stores] == before


def test_prepare_says_what_is_wrong_as_a_run_would(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, data={"train": str(tmp_path / "none.jsonl")})
    outcome = harness.run("prepare", recipe)
    assert outcome.code != 0 and "none.jsonl" in outcome.error_lines()[0], outcome.text
