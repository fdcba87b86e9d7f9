"""Frozen parameters and parameter groups against torch's, and the divided optimizer, with ranks under mpirun."""
import json

import pytest

import harness
from test_parity import first_rows, live_peer

GROUPS = [{"pattern": "classifier.*", "learning_rate": 5e-3, "weight_decay": 0.1}, {"pattern": "*.layer.[0-0].*", "learning_rate": 2e-4}]
FREEZE = ["bert.embeddings.*", "*.layer.1.attention.*"]


def toml_groups(groups):
    return "[" + ", ".join("{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in group.items()) + " }" for group in groups) + "]"


def weights(path):
    """Name to bytes of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {name: data[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]]
            for name, entry in header.items() if name != "__metadata__"}


@pytest.mark.parametrize("ranks", [None, 2])
def test_freezing_and_groups_equal_the_peer(ranks, tmp_path, tiny_bert):
    training = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 20, "learning_rate": 1e-3,
                "weight_decay": 0.05, "warmup_steps": 3}
    data = first_rows(tmp_path)
    history, evaluation = live_peer(tmp_path, tiny_bert, data, training, freeze=FREEZE, groups=GROUPS)
    recipe = harness.recipe(tmp_path, tiny_bert, model={"dropout": 0}, data=data,
                            training=training | {"freeze": FREEZE, "eval_strategy": "epoch", "shard_optimizer": ranks is not None,
                                                 "per_device_train_batch_size": 4 if ranks else 8})
    outcome = harness.run(recipe, "--set", f"training.parameter_groups={toml_groups(GROUPS)}", ranks=ranks)
    assert outcome.code == 0, outcome.text
    ours = [record for record in harness.log_records(tmp_path / "out") if "loss" in record]
    theirs = [record for record in history if "loss" in record]
    assert len(ours) == len(theirs) == 20
    for mine, other in zip(ours, theirs):
        for key in ("loss", "grad_norm", "learning_rate"):
            assert mine[key] == pytest.approx(other[key], rel=1e-4, abs=1e-12), (other["step"], key)
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert results["eval_loss"] == pytest.approx(evaluation["eval_loss"], rel=1e-4)
    before, after = weights(tiny_bert / "model.safetensors"), weights(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    kept = {name for name in before if before[name] == after[name]}
    frozen = {name for name in before if name.startswith("bert.embeddings.") or ".layer.1.attention." in name}
    # What has no gradient: attention does not depend on its key bias.
    assert frozen <= kept and kept - frozen <= {name for name in before if name.endswith("key.bias")}, kept ^ frozen


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adafactor"])
def test_a_divided_optimizer_gives_the_same_files(optim, tmp_path, tiny_bert):
    """Over processes, and from a divided run into one that is not."""
    def train(name, ranks, **training):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = harness.recipe(folder, tiny_bert, training={"optim": optim, "weight_decay": 0.01, "max_steps": 4, "save_strategy": "steps",
                                                           "save_steps": 2, "per_device_train_batch_size": 2} | training)
        outcome = harness.run(path, ranks=ranks)
        assert outcome.code == 0, outcome.text
        return folder / "out"
    for ranks in (2, 4):
        whole = train(f"whole{ranks}", ranks)
        divided = train(f"divided{ranks}", ranks, shard_optimizer=True)
        for step in ("checkpoint-2", "checkpoint-4"):
            for file in ("model.safetensors", "optimizer.safetensors"):
                assert (whole / step / file).read_bytes() == (divided / step / file).read_bytes(), (ranks, step, file)
        mixed = train(f"mixed{ranks}", ranks, resume_from_checkpoint=str(divided / "checkpoint-2"))
        assert (mixed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_switches_for_gpus_change_nothing_on_the_cpu(tmp_path, tiny_bert):
    texts = []
    for name, training in (("plain", {}), ("switched", {"full_determinism": True, "torch_empty_cache_steps": 2})):
        folder = tmp_path / name
        folder.mkdir()
        outcome = harness.run(harness.recipe(folder, tiny_bert, training={"max_steps": 3} | training))
        assert outcome.code == 0, outcome.text
        texts.append(outcome.text)
    assert (tmp_path / "plain/out/model.safetensors").read_bytes() == (tmp_path / "switched/out/model.safetensors").read_bytes()
    assert "full_determinism" in texts[1] and "full_determinism" not in texts[0]
