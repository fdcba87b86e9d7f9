"""What a run leaves: transformers loads it and computes the same, limits hold, an interrupted run goes on exactly."""
import json
import shutil
import subprocess

import pytest
import torch
import transformers

import harness


def logits_of(folder, rows):
    printed = subprocess.run([harness.BUILD / "tests" / "logits_of", folder, rows, "64"], check=True, capture_output=True, text=True)
    return json.loads(printed.stdout)


@pytest.mark.parametrize("kind", ["minilm", "gpt2"])
def test_transformers_loads_the_result_and_computes_the_same(kind, tmp_path, request):
    import torch
    import transformers
    start = request.getfixturevalue(f"{kind}_start")
    recipe = harness.recipe(tmp_path, start, tokenizer={"max_length": 64} | ({"pad_token": "eos"} if kind == "gpt2" else {}),
                            training={"max_steps": 8, "learning_rate": 1e-4, "eval_strategy": "steps", "eval_steps": 4,
                                      "save_strategy": "steps", "save_steps": 4, "save_total_limit": 1})
    outcome = harness.run(recipe, ranks=2)
    assert outcome.code == 0, outcome.text
    with open(harness.IMDB / "imdb-small-test.jsonl", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(100))]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": 0}) + "\n" for text in texts), encoding="utf-8")
    for folder in (tmp_path / "out", tmp_path / "out" / "checkpoint-8"):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ours = logits_of(folder, rows)
        for first in range(0, 100, 20):
            batch = tokenizer(texts[first:first + 20], truncation=True, max_length=64, padding=True, return_tensors="pt")
            with torch.no_grad():
                theirs = model(**batch).logits
            assert torch.allclose(torch.tensor(ours[first:first + 20]), theirs, rtol=0, atol=1e-5)
        # Trained, not merely copied.
        before = transformers.AutoModelForSequenceClassification.from_pretrained(start).state_dict()
        assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    state = transformers.TrainerState.load_from_json(str(tmp_path / "out" / "checkpoint-8" / "trainer_state.json"))
    assert state.global_step == 8 and any("eval_accuracy" in entry for entry in state.log_history)


def test_best_model_and_save_limit(tmp_path, tiny_bert):
    # The rate is so high that the model gets worse after a while: best and last differ.
    recipe = harness.recipe(tmp_path, tiny_bert, training={
        "max_steps": 12, "learning_rate": 0.05, "lr_scheduler_type": "constant", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps",
        "save_steps": 2, "save_total_limit": 2, "load_best_model_at_end": True, "metric_for_best_model": "loss"})
    outcome = harness.run(recipe, ranks=2)
    assert outcome.code == 0, outcome.text
    out = tmp_path / "out"
    losses = {record["step"]: record["eval_loss"] for record in harness.log_records(out) if "eval_loss" in record}
    best = min(losses, key=losses.get)
    assert best < 12, f"the model never got worse: {losses}"
    assert {path.name for path in out.glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-12"}
    assert harness.digest(out / "model.safetensors") == harness.digest(out / f"checkpoint-{best}" / "model.safetensors")
    state = json.loads((out / "run.json").read_text())
    assert state["exit"] == 0 and state["step"] == 12
    assert json.loads((out / "all_results.json").read_text())["eval_loss"] == pytest.approx(losses[best])


@pytest.mark.parametrize("ranks", [None, 2])
def test_resume_equals_the_uninterrupted_run(ranks, tmp_path, tiny_bert):
    options = {"max_steps": 40, "save_strategy": "steps", "save_steps": 7, "gradient_accumulation_steps": 2, "eval_strategy": "steps",
               "eval_steps": 7, "weight_decay": 0.01, "resume_from_checkpoint": "latest", "logging_steps": 3}
    # In the step: a save behind the steps may still be under way when the kill comes.
    whole = harness.recipe(tmp_path, tiny_bert, training=options, reliability={"save_in_background": False})
    assert harness.run(whole, ranks=ranks).code == 0
    straight = tmp_path / "straight"
    shutil.move(tmp_path / "out", straight)
    crashed = harness.run(whole, ranks=ranks, DTRAIN_FAULT="rank=0 point=step at=24 kind=kill")
    assert crashed.code != 0
    resumed = harness.run(whole, ranks=ranks)
    assert resumed.code == 0, resumed.text
    assert "checkpoint-21" in resumed.text
    for name in ("model.safetensors", "checkpoint-40/model.safetensors", "checkpoint-40/optimizer.safetensors"):
        assert harness.digest(tmp_path / "out" / name) == harness.digest(straight / name), name

    def comparable(folder):
        timings = ("runtime", "per_second")
        history = json.loads((folder / "checkpoint-40" / "trainer_state.json").read_text())["log_history"]
        return [{key: value for key, value in entry.items() if not key.endswith(timings)} for entry in history]
    assert comparable(tmp_path / "out") == comparable(straight)


def test_preemption_publishes_and_resumes(tmp_path, tiny_bert):
    # Rank 1 alone gets SIGUSR2 before step 5; both ranks stop at one step with a checkpoint.
    recipe = harness.recipe(tmp_path, tiny_bert, training={"max_steps": 9, "resume_from_checkpoint": "latest"})
    stopped = harness.run(recipe, ranks=2, DTRAIN_FAULT="rank=1 point=step at=5 kind=preempt")
    assert stopped.code == 75, stopped.text
    state = json.loads((tmp_path / "out" / "run.json").read_text())
    assert state["exit"] == 75 and state["step"] == 5
    resumed = harness.run(recipe, ranks=2)
    assert resumed.code == 0, resumed.text
    steps = [record["step"] for record in harness.log_records(tmp_path / "out") if "loss" in record]
    assert steps == list(range(1, 10))


def test_evaluate_and_predict_use_the_trained_model(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training={"eval_strategy": "epoch", "learning_rate": 1e-3})
    early = harness.run("evaluate", recipe)
    assert early.code == 64 and "holds no trained model" in early.text
    assert harness.run(recipe).code == 0
    trained = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    for ranks in (None, 2):
        (tmp_path / "out" / "eval_results.json").unlink()
        outcome = harness.run("evaluate", recipe, ranks=ranks)
        assert outcome.code == 0, outcome.text
        again = json.loads((tmp_path / "out" / "eval_results.json").read_text())
        for key in ("eval_loss", "eval_accuracy", "eval_f1", "eval_samples"):
            assert again[key] == pytest.approx(trained[key], rel=1e-6), key
        outcome = harness.run("predict", recipe, "--out", tmp_path / f"{ranks}.jsonl", ranks=ranks)
        assert outcome.code == 0, outcome.text
    rows = [json.loads(line) for line in (tmp_path / "None.jsonl").read_text().splitlines()]
    assert rows == [json.loads(line) for line in (tmp_path / "2.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(32))

    # The same texts without labels, and transformers' own opinion of them.
    with open(harness.IMDB / "imdb-small-test.jsonl", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(12))]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    outcome = harness.run("predict", recipe, "--data", tmp_path / "new.jsonl", "--unlabelled", "--out", tmp_path / "new-out.jsonl")
    assert outcome.code == 0, outcome.text
    rows = [json.loads(line) for line in (tmp_path / "new-out.jsonl").read_text().splitlines()]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    encoded = tokenizer(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**encoded).logits.softmax(-1)
    assert torch.allclose(torch.tensor([row["scores"] for row in rows]), expected, rtol=0, atol=1e-5)
    assert [row["label_id"] for row in rows] == expected.argmax(-1).tolist()
    assert rows[0]["label"] == model.config.id2label[rows[0]["label_id"]]

    untrained = harness.run("predict", recipe, "--model", harness.MINILM)
    assert untrained.code == 65 and "was not trained for this task" in untrained.text
    nowhere = harness.run("predict", recipe, "--out", tmp_path / "none" / "x.jsonl")
    assert nowhere.code == 64 and "there is no folder" in nowhere.text
    labelled = harness.run("predict", recipe, "--data", tmp_path / "new.jsonl")
    assert labelled.code == 65 and "label" in labelled.error_lines()[0]


def test_checkpoints_of_the_model_only(tmp_path, tiny_bert):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_only_model": True}
    recipe = harness.recipe(tmp_path, tiny_bert, training=options)
    assert harness.run(recipe).code == 0
    names = {path.name for path in (tmp_path / "out" / "checkpoint-2").iterdir()}
    assert "model.safetensors" in names and "optimizer.safetensors" not in names
    resumed = harness.run(recipe, "--set", "training.resume_from_checkpoint=latest", "--set", "training.max_steps=6")
    assert resumed.code == 64 and "save_only_model" in resumed.error_lines()[0]
    assert harness.run("evaluate", recipe, "--model", tmp_path / "out" / "checkpoint-2").code == 0
