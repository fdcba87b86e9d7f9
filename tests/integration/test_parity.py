"""The same numbers as the Hugging Face Trainer, whatever the split of a step over ranks and micro-batches."""
import json

import pytest

import harness

# (ranks, per-device batch, accumulation): each makes the recorded global batch of 16.
SPLITS = [(None, 16, 1), (2, 8, 1), (4, 4, 1), (None, 8, 2), (2, 4, 2)]


def golden(kind):
    return json.loads((harness.ROOT / "tests" / "data" / "golden" / f"peer_{kind}.json").read_text(encoding="utf-8"))


def train(kind, start, folder, ranks, batch, accumulation):
    recipe = golden(kind)["recipe"]
    path = harness.recipe(
        folder, start,
        tokenizer={"max_length": recipe["max_length"]} | ({"pad_token": "eos"} if kind == "gpt2" else {}),
        data={"train_samples": None, "eval_samples": None, "train": str(folder / "train.jsonl"),
              "eval": str(folder / "eval.jsonl")},
        training={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
                  "eval_strategy": "steps", "eval_steps": 25}
        | {key: recipe[key] for key in ("per_device_eval_batch_size", "learning_rate", "max_steps", "warmup_steps",
                                        "weight_decay", "lr_scheduler_type", "max_grad_norm", "seed")})
    for name, split in (("train", "train"), ("eval", "test")):
        with open(harness.IMDB / f"imdb-small-{split}.jsonl", encoding="utf-8") as lines:
            rows = [line for line, _ in zip(lines, range(recipe[f"{name}_samples"]))]
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    outcome = harness.run(path, ranks=ranks)
    assert outcome.code == 0, outcome.text
    return harness.log_records(folder / "out")


@pytest.mark.parametrize("kind", ["minilm", "gpt2"])
@pytest.mark.parametrize("ranks,batch,accumulation", SPLITS)
def test_fifty_steps_equal_the_peer(kind, ranks, batch, accumulation, tmp_path, request):
    expected = golden(kind)
    records = train(kind, request.getfixturevalue(f"{kind}_start"), tmp_path, ranks, batch, accumulation)
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 51))
    for ours, theirs in zip(steps, expected["train"]):
        for key in ("loss", "grad_norm", "learning_rate", "epoch"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-12), (theirs["step"], key)
    evaluations = [record for record in records if "eval_loss" in record]
    assert len(evaluations) == len(expected["eval"])
    for ours, theirs in zip(evaluations, expected["eval"]):
        assert ours["step"] == theirs["step"]
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-4)
        assert ours["eval_accuracy"] == theirs["eval_accuracy"]
        assert ours["eval_f1"] == pytest.approx(theirs["eval_f1"], rel=1e-12)


def test_dropout_depends_on_nothing_but_the_step(tmp_path, tiny_bert):
    """With dropout on, ranks, accumulation, padding and instruction set change a loss by rounding only."""
    base = {"ranks": None, "batch": 8}
    variants = [{"ranks": 2, "batch": 4}, {"ranks": 4, "batch": 2}, {"ranks": 2, "batch": 2, "accumulation": 2},
                {"ranks": None, "batch": 8, "padded": True}, {"ranks": 2, "batch": 4, "padded": True},
                {"ranks": None, "batch": 8, "kernels": "generic"}]

    def losses(number, ranks, batch, accumulation=1, padded=False, kernels=""):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = harness.recipe(folder, tiny_bert, model={"compute_padding": padded}, tokenizer={"max_length": 48},
                              training={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
                                        "max_steps": 8, "learning_rate": 1e-3})
        outcome = harness.run(path, ranks=ranks, DTRAIN_CPU_KERNELS=kernels)
        assert outcome.code == 0, outcome.text
        return [record["loss"] for record in harness.log_records(folder / "out") if "loss" in record]
    expected = losses("base", **base)
    assert len(set(expected)) == len(expected) == 8
    for number, variant in enumerate(variants):
        assert losses(number, **variant) == pytest.approx(expected, rel=1e-5), variant
