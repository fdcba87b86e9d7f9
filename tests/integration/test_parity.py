"""The same numbers as the Hugging Face Trainer, whatever the split of a step over ranks and micro-batches."""
import json
import subprocess

import pytest

import harness

# (ranks, per-device batch, accumulation): each makes the recorded global batch of 16.
SPLITS = [(None, 16, 1), (4, 4, 1), (2, 4, 2)]


def golden(kind):
    return json.loads((harness.ROOT / "tests" / "data" / "golden" / f"peer_{kind}.json").read_text(encoding="utf-8"))


def train(kind, start, folder, ranks, batch, accumulation, **training):
    recipe = golden(kind)["recipe"]
    path = harness.recipe(
        folder, start,
        tokenizer={"max_length": recipe["max_length"]} | ({"pad_token": "eos"} if kind == "gpt2" else {}),
        data={"train_samples": None, "eval_samples": None, "train": str(folder / "train.jsonl"),
              "eval": str(folder / "eval.jsonl")},
        training={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
                  "eval_strategy": "steps", "eval_steps": 25}
        | training
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
    """With dropout on, ranks, accumulation, padding, instruction set and shortcuts change a loss by rounding only."""
    base = {"ranks": None, "batch": 8}
    variants = [{"ranks": 2, "batch": 4}, {"ranks": 4, "batch": 2}, {"ranks": 2, "batch": 2, "accumulation": 2},
                {"ranks": None, "batch": 8, "padded": True}, {"ranks": 2, "batch": 4, "padded": True},
                {"ranks": None, "batch": 8, "kernels": "generic"},
                {"ranks": None, "batch": 8, "without": "attention,dense,read_tokens,block_cache"}]

    def losses(number, ranks, batch, accumulation=1, padded=False, kernels="", without=""):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = harness.recipe(folder, tiny_bert, model={"compute_padding": padded}, tokenizer={"max_length": 48},
                              training={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
                                        "max_steps": 8, "learning_rate": 1e-3})
        outcome = harness.run(path, ranks=ranks, DTRAIN_CPU_KERNELS=kernels, DTRAIN_WITHOUT=without)
        assert outcome.code == 0, outcome.text
        return [record["loss"] for record in harness.log_records(folder / "out") if "loss" in record]
    expected = losses("base", **base)
    assert len(set(expected)) == len(expected) == 8
    for number, variant in enumerate(variants):
        assert losses(number, **variant) == pytest.approx(expected, rel=1e-5), variant


def first_rows(folder):
    """[data] of the first 64 and 32 reviews, in files of their own."""
    for split, count in (("train", 64), ("test", 32)):
        with open(harness.IMDB / f"imdb-small-{split}.jsonl", encoding="utf-8") as lines:
            (folder / f"{split}.jsonl").write_text("".join(line for line, _ in zip(lines, range(count))), encoding="utf-8")
    return {"train_samples": None, "eval_samples": None, "train": str(folder / "train.jsonl"), "eval": str(folder / "test.jsonl")}


def live_peer(folder, model, data, training, early_stopping=None, **more):
    """The log records of the Trainer on the same files, and its evaluation at the end. `more`: freeze, groups."""
    recipe = {"model": str(model), "output_dir": str(folder / "peer"), "train": data["train"], "eval": data["eval"],
              "training": training, "early_stopping": early_stopping} | more
    printed = subprocess.run([harness.PYTHON, harness.ROOT / "tests" / "integration" / "live_peer.py", json.dumps(recipe)],
                             capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    result = json.loads(printed.stdout.splitlines()[-1])
    return result["history"], result["evaluation"]


@pytest.mark.parametrize("training", [
    {"label_smoothing_factor": 0.2, "learning_rate": 1e-3},
    {"optim": "adafactor", "learning_rate": 1e-3, "weight_decay": 0.01, "lr_scheduler_type": "inverse_sqrt", "warmup_steps": 3},
    {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true", "learning_rate": 0.05, "lr_scheduler_type": "cosine_with_min_lr",
     "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
    {"optim": "rmsprop", "learning_rate": 1e-4, "lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 2,
     "lr_scheduler_kwargs": {"num_decay_steps": 4, "decay_type": "linear"}},
    {"optim": "adagrad", "learning_rate": 1e-2, "lr_scheduler_type": "cosine_warmup_with_min_lr", "warmup_steps": 2,
     "lr_scheduler_kwargs": {"min_lr": 1e-3}},
], ids=lambda training: training.get("optim", "label_smoothing"))
def test_options_equal_the_peer(training, tmp_path, tiny_bert):
    training = training | {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 10, "seed": 3}
    ranks = 2 if "optim" in training else None
    data = first_rows(tmp_path)
    history, evaluation = live_peer(tmp_path, tiny_bert, data, training)
    steps = [record for record in history if "loss" in record]
    sections = {key: value for key, value in training.items() if key != "lr_scheduler_kwargs"}
    path = harness.recipe(tmp_path, tiny_bert, model={"dropout": 0}, training=sections | {"eval_strategy": "epoch", "per_device_train_batch_size": 4 if ranks else 8},
                          data=data)
    extra = [f"training.lr_scheduler_kwargs={{ {', '.join(f'{k} = {json.dumps(v)}' for k, v in training['lr_scheduler_kwargs'].items())} }}"
             ] if "lr_scheduler_kwargs" in training else []
    outcome = harness.run(path, *[word for each in extra for word in ("--set", each)], ranks=ranks)
    assert outcome.code == 0, outcome.text
    ours = [record for record in harness.log_records(tmp_path / "out") if "loss" in record]
    assert len(ours) == len(steps) == 10
    for mine, theirs in zip(ours, steps):
        for key in ("loss", "learning_rate"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-12), (theirs["step"], key)
    results = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert results["eval_loss"] == pytest.approx(evaluation["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("counted", ["all", "non_padding"])
def test_delayed_evaluation_and_tokens_seen_equal_the_peer(counted, tmp_path, tiny_bert):
    training = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 10, "eval_strategy": "steps",
                "eval_steps": 2, "eval_delay": 5, "eval_on_start": True, "include_num_input_tokens_seen": counted}
    data = first_rows(tmp_path)
    history, _ = live_peer(tmp_path, tiny_bert, data, training)
    outcome = harness.run(harness.recipe(tmp_path, tiny_bert, model={"dropout": 0}, training=training, data=data))
    assert outcome.code == 0, outcome.text

    def story(records):
        return [(record["step"], "loss" if "loss" in record else "eval", record["num_input_tokens_seen"]) for record in records
                if "loss" in record or "eval_loss" in record]
    ours = story(harness.log_records(tmp_path / "out"))
    assert ours == story(history)
    assert ours[0][:2] == (0, "eval") and ours[-1][2] > 0
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["num_input_tokens_seen"] == ours[-1][2]


@pytest.mark.parametrize("patience,threshold", [(1, 0.0), (2, 0.01)])
def test_early_stopping_equals_the_peer(patience, threshold, tmp_path, tiny_bert):
    # A rate at which the loss of the evaluation data soon rises.
    training = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "num_train_epochs": 30, "eval_strategy": "steps",
                "eval_steps": 4, "learning_rate": 5e-3, "metric_for_best_model": "loss"}
    data = first_rows(tmp_path)
    history, _ = live_peer(tmp_path, tiny_bert, data, training | {"greater_is_better": False}, [patience, threshold])
    recipe = harness.recipe(tmp_path, tiny_bert, model={"dropout": 0}, training=training | {"max_steps": None}, data=data,
                            callbacks={"early_stopping_patience": patience, "early_stopping_threshold": threshold})
    outcome = harness.run(recipe)
    assert outcome.code == 0, outcome.text
    stopped = max(record["step"] for record in history if "loss" in record)
    assert stopped < 240
    assert max(record["step"] for record in harness.log_records(tmp_path / "out") if "loss" in record) == stopped
    assert f"stopping early after step {stopped}" in outcome.text


@pytest.mark.parametrize("schedule,kwargs,ranks", [
    ("reduce_lr_on_plateau", {"patience": 0, "factor": 0.5, "threshold": 0.01}, None),
    ("greedy", {"patience": 0, "min_lr": 1e-4, "factor": 0.7, "threshold": 0.005, "cooldown": 1}, 2),
], ids=["plateau", "greedy"])
def test_schedules_that_follow_a_metric_equal_the_peer(schedule, kwargs, ranks, tmp_path, tiny_bert):
    training = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 24, "eval_strategy": "steps",
                "eval_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": schedule}
    data = first_rows(tmp_path)
    history, _ = live_peer(tmp_path, tiny_bert, data, training | {"lr_scheduler_kwargs": kwargs})
    recipe = harness.recipe(tmp_path, tiny_bert, model={"dropout": 0}, data=data,
                            training=training | {"lr_scheduler_kwargs": json.dumps(kwargs),
                                                 "per_device_train_batch_size": 4 if ranks else 8})
    outcome = harness.run(recipe, ranks=ranks)
    assert outcome.code == 0, outcome.text
    for key in ("loss", "eval_loss"):
        ours = [record for record in harness.log_records(tmp_path / "out") if key in record]
        theirs = [record for record in history if key in record]
        assert [record["step"] for record in ours] == [record["step"] for record in theirs]
        assert [record[key] for record in ours] == pytest.approx([record[key] for record in theirs], rel=1e-4), key
        if key == "loss":
            rates = [record["learning_rate"] for record in ours]
            assert rates == pytest.approx([record["learning_rate"] for record in theirs], rel=1e-12)
            assert len(set(rates)) > 2, "the rate hardly moved"
