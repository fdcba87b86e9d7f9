"""Every task of every model against the live Hugging Face Trainer, on small models that transformers drew and wrote."""
import gzip
import json
import os
import subprocess

import pytest

import harness

PEER = harness.ROOT / "tests" / "integration" / "task_peer.py"
WNUT = harness.ROOT / "tests" / "data" / "wnut17"
WIKITEXT = harness.ROOT / "tests" / "data" / "wikitext-2"
TAGS = json.loads((WNUT / "wnut17-labels.json").read_text(encoding="utf-8"))
LENGTH = 64
STEPS = 50
# The last batch of an epoch is short, and 50 steps cross the border of an epoch or two.
SIZES = {"reviews": (150, 32), "words": (150, 60), "text": (120, 60)}

# name: (kind of the start weights in task_peer.py, task, data, more)
CASES = {
    "bert-token": ("bert-token", "token-classification", "words", {}),
    "bert-masked": ("bert-masked", "masked-lm", "text", {}),
    "gpt2-causal": ("gpt2-causal", "causal-lm", "text", {}),
    "gpt2-sequence": ("gpt2-sequence", "sequence-classification", "reviews", {}),
    "gpt2-token": ("gpt2-token", "token-classification", "words", {"prefix_space": True}),
    "roberta-sequence": ("roberta-sequence", "sequence-classification", "reviews", {}),
    "roberta-token": ("roberta-token", "token-classification", "words", {"prefix_space": True}),
    "roberta-masked": ("roberta-masked", "masked-lm", "text", {"line_by_line": True}),
    "distilbert-sequence": ("distilbert-sequence", "sequence-classification", "reviews", {}),
    "distilbert-token": ("distilbert-token", "token-classification", "words", {}),
    "distilbert-masked": ("distilbert-masked", "masked-lm", "text", {"line_by_line": True}),
}


def peer(*arguments):
    printed = subprocess.run([harness.PYTHON, PEER, *map(str, arguments)], capture_output=True, text=True,
                             env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    assert printed.returncode == 0, printed.stderr


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    peer("start", folder)
    return folder


def first_lines(source, count, target):
    opened = gzip.open(source, "rt", encoding="utf-8") if source.suffix == ".gz" else open(source, encoding="utf-8")
    with opened as lines:
        target.write_text("".join(line for line, _ in zip(lines, range(count))), encoding="utf-8")
    return str(target)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """[data] of train and eval by kind."""
    folder = tmp_path_factory.mktemp("data")
    sources = {"reviews": (harness.IMDB / "imdb-small-train.jsonl", harness.IMDB / "imdb-small-test.jsonl", "jsonl"),
               "words": (WNUT / "wnut17-train.jsonl.gz", WNUT / "wnut17-dev.jsonl.gz", "jsonl"),
               "text": (WIKITEXT / "wikitext-2-valid.txt.gz", WIKITEXT / "wikitext-2-test.txt.gz", "txt")}
    return {kind: {"train": first_lines(train, SIZES[kind][0], folder / f"{kind}-train.{ending}"),
                   "eval": first_lines(evaluation, SIZES[kind][1], folder / f"{kind}-eval.{ending}")}
            for kind, (train, evaluation, ending) in sources.items()}


# One batch of evaluation: with several, the Trainer averages the means of batches.
TRAINING = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 256, "learning_rate": 2e-3, "max_steps": STEPS,
            "warmup_steps": 5, "weight_decay": 0.01}


def metrics(task):
    return ["perplexity", "accuracy"] if task.endswith("lm") else ["accuracy", "f1:weighted"]


def task_recipe(folder, weights, task, files, more=None, /, **changes):
    sections = {"model": {"task": task, "num_labels": None}, "tokenizer": {"max_length": LENGTH},
                "data": files | {"text": "text", "label": "label", "train_samples": None, "eval_samples": None},
                "training": TRAINING | {"eval_strategy": "epoch"}, "metrics": {"compute": metrics(task)}}
    if task == "token-classification":
        sections["data"]["labels"] = TAGS
    if (more or {}).get("line_by_line"):
        sections["data"]["line_by_line"] = True
    for section, keys in changes.items():
        sections[section] = sections[section] | keys
    return harness.recipe(folder, weights, **sections)


@pytest.fixture(scope="module")
def theirs(start, data, tmp_path_factory):
    """All cases in one process: starting it takes longer than most of them."""
    folder = tmp_path_factory.mktemp("theirs")
    cases = {name: data[kind] | more | {"model": str(start / weights), "task": task, "max_length": LENGTH, "training": TRAINING}
             | ({"labels": TAGS} if task == "token-classification" else {})
             for name, (weights, task, kind, more) in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    peer("train", folder / "cases.json", folder / "results.json")
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ours(start, data, tmp_path_factory):
    """{name: (folder of the run, outcome)}"""
    result = {}
    for name, (weights, task, kind, more) in CASES.items():
        folder = tmp_path_factory.mktemp(name)
        result[name] = folder, harness.run(task_recipe(folder, start / weights, task, data[kind], more, model={"dropout": 0}))
    return result


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps_equal_the_trainer(name, ours, theirs):
    folder, outcome = ours[name]
    assert outcome.code == 0, outcome.text
    records = harness.log_records(folder / "out")
    steps = [record for record in records if "loss" in record]
    expected = [record for record in theirs[name]["history"] if "loss" in record]
    assert len(steps) == len(expected) == STEPS
    assert steps[-1]["epoch"] > 1, "the order of the second epoch is not covered"
    for mine, other in zip(steps, expected):
        for key in ("loss", "grad_norm", "learning_rate", "epoch"):
            assert mine[key] == pytest.approx(other[key], rel=1e-4, abs=1e-12), (other["step"], key)
    if CASES[name][1] != "sequence-classification":  # reviews are too much for models of this size
        assert steps[-1]["loss"] < 0.85 * steps[0]["loss"], "it hardly learns anything"
    results, evaluation = json.loads((folder / "out" / "eval_results.json").read_text()), theirs[name]["evaluation"]
    assert results["eval_loss"] == pytest.approx(evaluation["eval_loss"], rel=1e-4)
    # A prediction at a tie may fall either way; these have none.
    assert results["eval_accuracy"] == pytest.approx(evaluation["eval_accuracy"], rel=1e-12)
    if "eval_f1" in evaluation:
        assert results["eval_f1"] == pytest.approx(evaluation["eval_f1"], rel=1e-12)


ARCHITECTURES = {"bert": "Bert", "gpt2": "GPT2", "roberta": "Roberta", "distilbert": "DistilBert"}
HEADS = {"sequence-classification": "ForSequenceClassification", "token-classification": "ForTokenClassification",
         "masked-lm": "ForMaskedLM", "causal-lm": "LMHeadModel"}
ROWS = [[3, 17, 401, 96, 1033, 7, 250], [12, 55], [900, 901, 902, 903, 904, 905, 906, 907, 908, 909, 910, 911, 20, 21, 22, 23]]


@pytest.fixture(scope="module")
def loaded(start, ours, tmp_path_factory):
    """What transformers says of the start weights, which it wrote, and of the results, which dtrain wrote."""
    folder = tmp_path_factory.mktemp("loaded")
    cases = {}
    for name, (weights, task, _, _) in CASES.items():
        for stage, path in (("start", start / weights), ("result", ours[name][0] / "out")):
            if (path / "config.json").is_file():
                cases[f"{stage} {name}"] = {"model": str(path), "task": task, "rows": ROWS, "text": "The weather in Paris, 1789!"}
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    peer("load", folder / "cases.json", folder / "results.json")
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def said_by_dtrain(folder, task, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in ROWS), encoding="utf-8")
    printed = subprocess.run([harness.BUILD / "tests" / "logits_of", folder, rows, str(LENGTH), task], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout)


@pytest.mark.parametrize("name", CASES)
def test_transformers_and_dtrain_say_the_same_of_the_same_weights(name, start, ours, loaded, tmp_path):
    weights, task, _, _ = CASES[name]
    before, after = loaded[f"start {name}"], loaded[f"result {name}"]
    for stage, folder in (("start", start / weights), ("result", ours[name][0] / "out")):
        result = loaded[f"{stage} {name}"]
        assert result["missing"] == result["unexpected"] == [], stage
        for mine, other in zip(said_by_dtrain(folder, task, tmp_path), result["said"], strict=True):
            assert mine == pytest.approx(other, rel=0, abs=1e-5), stage
    assert before["said"] != after["said"] and before["ids"] == after["ids"]
    assert after["class"] == ARCHITECTURES[name.split("-")[0]] + HEADS[task]
    if task == "token-classification":
        assert after["labels"] == {str(i): tag for i, tag in enumerate(TAGS)}
    # trainer_state.json, as TrainerState reads it
    state = after["state"]
    assert [record["step"] for record in state if "loss" in record] == list(range(1, STEPS + 1))
    results = json.loads((ours[name][0] / "out" / "eval_results.json").read_text())
    assert [record["eval_loss"] for record in state if "eval_loss" in record][-1] == results["eval_loss"]


# Random draws depend on seed, step and example alone.

BASE = {"ranks": None, "batch": 8}
SPLITS = {"ranks": {"ranks": 2, "batch": 4}, "accumulation": {"ranks": None, "batch": 4, "accumulation": 2},
          "padding": {"ranks": None, "batch": 8, "padded": True}}


def losses(folder, start, name, data, ranks, batch, accumulation=1, padded=False, **training):
    weights, task, kind, more = CASES[name]
    folder.mkdir()
    path = task_recipe(folder, start / weights, task, data[kind], more, model={"dropout": 0.1, "compute_padding": padded},
                       training={"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 8}
                       | training)
    outcome = harness.run(path, ranks=ranks)
    assert outcome.code == 0, outcome.text
    return [record["loss"] for record in harness.log_records(folder / "out") if "loss" in record]


@pytest.mark.parametrize("training", [{}, {"neftune_noise_alpha": 5.0}], ids=["dropout", "neftune"])
@pytest.mark.parametrize("name", ["bert-token", "distilbert-masked"])
def test_draws_do_not_depend_on_the_split(name, training, start, data, tmp_path):
    expected = losses(tmp_path / "base", start, name, data, **BASE, **training)
    assert len(set(expected)) == len(expected) == 8
    for split, options in SPLITS.items():
        assert losses(tmp_path / split, start, name, data, **options, **training) == pytest.approx(expected, rel=1e-5), split
    if training:
        assert losses(tmp_path / "without", start, name, data, **BASE) != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["bert-token", "gpt2-causal"])
def test_computing_activations_again_changes_nothing(name, start, data, tmp_path):
    kept, again = (losses(tmp_path / str(recompute), start, name, data, **BASE, gradient_checkpointing=recompute)
                   for recompute in (False, True))
    assert kept == again


def test_a_fraction_is_held_out_alike_in_every_world(start, data, tmp_path):
    weights, task, kind, more = CASES["bert-token"]
    files = {"train": data[kind]["train"], "eval": None, "eval_fraction": 0.2}
    counts, losses_seen = [], []
    for ranks in (None, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        outcome = harness.run(task_recipe(folder, start / weights, task, files, more, training={"max_steps": 2, "per_device_train_batch_size": 8 // (ranks or 1)}),
                              ranks=ranks)
        assert outcome.code == 0, outcome.text
        counts.append([line for line in outcome.text.splitlines() if "examples:" in line][0].split("examples:")[1])
        losses_seen.append(json.loads((folder / "out" / "eval_results.json").read_text())["eval_loss"])
    assert counts[0] == counts[1] and "120 for training, 30 for evaluation" in counts[0]
    assert losses_seen[0] == pytest.approx(losses_seen[1], rel=1e-6)


def test_predict_writes_a_tag_for_each_word(start, ours, data, tmp_path):
    folder, outcome = ours["bert-token"]
    assert outcome.code == 0, outcome.text
    path = tmp_path / "tags.jsonl"
    outcome = harness.run("predict", folder / "recipe.toml", "--out", path)
    assert outcome.code == 0, outcome.text
    with open(data["words"]["eval"], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    predicted = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [record["index"] for record in predicted] == list(range(len(rows)))
    right = total = 0
    for record, row in zip(predicted, rows):
        # What is cut off at max_length has no tag.
        assert set(record["tags"]) <= set(TAGS) and len(record["tags"]) == len(row["tokens"][:len(record["tags"])]), row
        assert len(record["tags"]) == len(row["tokens"]) or len(row["tokens"]) > 30, row
        right += sum(TAGS[tag] == mine for mine, tag in zip(record["tags"], row["ner_tags"]))
        total += len(record["tags"])
    results = json.loads((folder / "out" / "eval_results.json").read_text())
    assert right / total == pytest.approx(results["eval_accuracy"], rel=1e-12)


USAGE, BAD_DATA = 64, 65


@pytest.mark.parametrize("name,changes,code,words", [
    ("bert-token", {"model": {"task": "causal-lm"}, "metrics": {"compute": []}}, USAGE, ["bert", "does not write"]),
    ("gpt2-causal", {"model": {"task": "masked-lm"}}, USAGE, ["gpt2", "predicts the next token"]),
    ("roberta-sequence", {"model": {"task": "seq2seq-lm"}, "metrics": {"compute": []}}, USAGE, ["roberta", "does not write"]),
    ("bert-token", {"data": {"tags": "labels"}}, BAD_DATA, ["labels", "tokens, ner_tags"]),
    ("bert-token", {"data": {"labels": TAGS[:2]}}, BAD_DATA, ["label"]),
    ("bert-token", {"metrics": {"compute": ["perplexity"]}}, USAGE, ["perplexity"]),
    ("gpt2-causal", {"metrics": {"compute": ["f1:weighted"]}}, USAGE, ["f1"]),
    ("gpt2-causal", {"tokenizer": {"max_length": 4096}}, USAGE, ["4096", "80"]),
], ids=["bert writes", "gpt2 fills in", "roberta translates", "no tags", "more tags than labels", "perplexity of tags", "f1 of words", "too long"])
def test_what_does_not_fit_is_one_line(name, changes, code, words, start, data, tmp_path):
    weights, task, kind, more = CASES[name]
    outcome = harness.run(task_recipe(tmp_path, start / weights, task, data[kind], more, **changes))
    assert outcome.code == code, outcome.text
    lines = outcome.error_lines()
    assert len(lines) == 1, outcome.text
    for word in words:
        assert word in lines[0], outcome.text
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_words_without_a_tag_each_are_named(start, tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": [0, 1]}, {"tokens": ["a", "b"], "ner_tags": [0]}]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"train": str(tmp_path / "bad.jsonl"), "eval": str(tmp_path / "bad.jsonl")}
    outcome = harness.run(task_recipe(tmp_path, start / "bert-token", "token-classification", files))
    assert outcome.code == BAD_DATA, outcome.text
    assert len(outcome.error_lines()) == 1 and "bad.jsonl:2" in outcome.text, outcome.text


def test_named_tags_need_their_order(start, tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["O", "B-x"]}]
    (tmp_path / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"train": str(tmp_path / "named.jsonl"), "eval": None, "labels": []}
    recipe = task_recipe(tmp_path, start / "bert-token", "token-classification", files, training={"eval_strategy": "no"}, data=files)
    outcome = harness.run(recipe)
    assert outcome.code == BAD_DATA and len(outcome.error_lines()) == 1, outcome.text
    assert "data.labels" in outcome.text and "B-x" in outcome.text, outcome.text


def test_predict_of_a_language_model_says_what_to_use(ours):
    folder, outcome = ours["gpt2-causal"]
    assert outcome.code == 0, outcome.text
    outcome = harness.run("predict", folder / "recipe.toml")
    assert outcome.code == USAGE and "dtrain evaluate" in outcome.text, outcome.text


RECIPES = harness.ROOT / "configs" / "recipes"


def hub_cache(folder, data):
    """The Hub's cache with the data set that the recipes name, as `hf download` leaves it."""
    import pyarrow
    import pyarrow.parquet
    repository = folder / "datasets--Salesforce--wikitext"
    snapshot = repository / "snapshots" / "0123456789abcdef" / "wikitext-2-raw-v1"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.parent.name, encoding="utf-8")
    for name, split in (("train", "train"), ("eval", "validation")):
        with open(data["text"][name], encoding="utf-8") as lines:
            texts = [line.rstrip("\n") for line in lines]
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), snapshot / f"{split}-00000-of-00001.parquet")


# The models of the Hub are not here; the data is what the recipe names, but a sample of it.
@pytest.mark.parametrize("recipe,weights", [("wnut", None), ("wikitext-masked", "roberta-masked"), ("wikitext-causal", "gpt2-causal")])
def test_recipes_train(recipe, weights, start, data, tmp_path):
    hub_cache(tmp_path / "hub", data)
    settings = {"model.path": start / weights if weights else harness.MINILM, "training.output_dir": tmp_path / "out",
                "data.cache_dir": tmp_path / "tokens", "data.train_samples": 32, "data.eval_samples": 16, "tokenizer.max_length": LENGTH,
                "training.use_cpu": "true", "training.max_steps": 4, "training.per_device_train_batch_size": 4, "training.logging_steps": 1,
                "training.eval_strategy": "steps", "training.eval_steps": 4, "training.save_strategy": "steps", "training.save_steps": 4}
    line = [RECIPES / f"{recipe}.toml", *[word for key, value in settings.items() for word in ("--set", f"{key}={value}")]]
    outcome = harness.run(*line, ranks=2, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert outcome.code == 0, outcome.text
    records = harness.log_records(tmp_path / "out")
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4]
    assert any("eval_accuracy" in record for record in records)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    if weights:  # without the data: the command that fetches it
        outcome = harness.run(*line, "--set", "training.overwrite_output_dir=true", HF_HUB_CACHE=str(tmp_path / "empty"))
        assert outcome.code == USAGE and "hf download" in outcome.text and "Salesforce/wikitext" in outcome.text, outcome.text
