"""Scores of texts and of tags against the packages themselves: hundreds of random and degenerate inputs, however they are split."""
import gzip
import json
import math
import random
import subprocess
import sys

import pytest
from seqeval import metrics as seqeval

import harness

sys.path.insert(0, str(harness.ROOT / "tests" / "golden"))
import record_scores  # noqa: E402

# seqeval warns of every label that is no IOB tag.
pytestmark = pytest.mark.filterwarnings("ignore:.*seems not to be NE tag", "ignore::RuntimeWarning", "ignore:.*ill-defined")
WNUT = harness.ROOT / "tests" / "data" / "wnut17"


def scores_of(folder, cases):
    rows = folder / "cases.jsonl"
    rows.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    printed = subprocess.run([harness.BUILD / "tests" / "scores_of", rows], check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    assert len(lines) == len(cases)
    return lines


def near(ours, theirs):
    return ours is None if math.isnan(theirs) else ours is not None and abs(ours - theirs) <= 1e-9


def compare(folder, cases):
    for parts in range(1, 5):
        rows = [{"metrics": list(case["expected"]), "parts": parts} | {key: case[key] for key in case.keys() - {"expected"}} for case in cases]
        values = scores_of(folder, rows)
        if parts > 1:
            assert values == whole  # to the last bit
            continue
        whole = values
        for case, lists in zip(cases, values):
            for (metric, expected), ours in zip(case["expected"].items(), lists):
                theirs = expected if isinstance(expected, list) else [expected]
                assert len(ours) == len(theirs) and all(map(near, ours, theirs)), (metric, ours, case)


@pytest.mark.parametrize("seed", [1, 2])
def test_scores_of_texts_equal_the_packages(seed, tmp_path):
    cases = list(record_scores.text_cases(random.Random(seed), 250))
    assert sum(0 < case["expected"]["bleu"] < 100 for case in cases) > 150
    compare(tmp_path, cases)


@pytest.mark.parametrize("seed", [1, 2])
def test_scores_of_tags_equal_the_package(seed, tmp_path):
    cases = list(record_scores.tag_cases(random.Random(seed), 40))
    assert sum(0 < case["expected"]["seqeval"][2] < 1 for case in cases) > 120
    compare(tmp_path, cases)


@pytest.mark.parametrize("ranks", [None, 2])
def test_token_classification_logs_what_seqeval_says_of_its_predictions(ranks, tmp_path, tiny_bert):
    names = json.loads((WNUT / "wnut17-labels.json").read_text(encoding="utf-8"))
    with gzip.open(WNUT / "wnut17-train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if len(row["tokens"]) < 16 and len(set(row["ner_tags"])) > 1][:60]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = harness.recipe(
        tmp_path, tiny_bert, model={"task": "token-classification", "num_labels": None, "random_init": True}, tokenizer={"max_length": 64},
        data={"train": str(data), "eval": str(data), "words": "tokens", "tags": "ner_tags", "labels": names, "text": None, "label": None,
              "train_samples": None, "eval_samples": None},
        training={"max_steps": 100, "learning_rate": 3e-3, "eval_strategy": "steps", "eval_steps": 100, "save_strategy": "steps", "save_steps": 100,
                  "load_best_model_at_end": True, "metric_for_best_model": "f1"},
        metrics={"compute": ["seqeval"]})
    outcome = harness.run(recipe, ranks=ranks)
    assert outcome.code == 0, outcome.text
    logged = [record for record in harness.log_records(tmp_path / "out") if "eval_f1" in record][-1]
    outcome = harness.run("predict", recipe, "--out", tmp_path / "tags.jsonl", ranks=ranks)
    assert outcome.code == 0, outcome.text
    predicted = [json.loads(line)["tags"] for line in (tmp_path / "tags.jsonl").read_text(encoding="utf-8").splitlines()]
    truth = [[names[tag] for tag in row["ner_tags"]] for row in rows]
    for name, score in {"precision": seqeval.precision_score, "recall": seqeval.recall_score, "f1": seqeval.f1_score,
                        "accuracy": seqeval.accuracy_score}.items():
        assert logged[f"eval_{name}"] == pytest.approx(score(truth, predicted), abs=1e-12), name
    assert 0 < logged["eval_f1"] < 1
