#!/usr/bin/env python3
"""Records what scikit-learn and scipy say about random and degenerate predictions, for tests/unit/trainer/metric_test.cpp.

    record_metrics.py [OUTPUT.json]      default: tests/data/golden/metrics.json (seconds)
"""
import json
import pathlib
import sys

import numpy
import scipy
import sklearn
from scipy import special, stats
from sklearn import metrics

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "metrics.json"
SCORES = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}


def expected(truth, predicted, averages):
    values = {"accuracy": float(metrics.accuracy_score(truth, predicted))}
    for name, function in SCORES.items():
        for average in averages:
            values[f"{name}:{average}"] = float(function(truth, predicted, average=average, zero_division=0))
    return values


def area(truth, scores):
    """NaN where one of the two kinds is missing."""
    truth = numpy.asarray(truth)
    if numpy.isnan(scores).any() or truth.min() == truth.max():
        return float("nan")
    return float(metrics.roc_auc_score(truth, scores))


def areas(truths, scores):
    """Columns of 0 and 1, and of scores."""
    each = [area(truths[:, k], scores[:, k]) for k in range(truths.shape[1])]
    weights = truths.sum(axis=0)
    result = {"roc_auc": float(numpy.mean(each)), "roc_auc:macro": float(numpy.mean(each))}
    result["roc_auc:weighted"] = float(numpy.average(each, weights=weights)) if weights.sum() > 0 else float("nan")
    if not numpy.isnan(each).any():  # then scikit-learn has one too
        assert abs(result["roc_auc"] - metrics.roc_auc_score(truths, scores, average="macro")) < 1e-12
        assert abs(result["roc_auc:weighted"] - metrics.roc_auc_score(truths, scores, average="weighted")) < 1e-12
    return result


def class_case(name, logits, labels, classes):
    logits = numpy.asarray(logits, dtype=numpy.float32)
    labels = numpy.asarray(labels)
    predicted = logits.argmax(axis=1)
    averages = ["micro", "macro", "weighted"]
    # scikit-learn refuses a binary average when two classes occur and neither is class 1; with two classes that cannot be.
    values = expected(labels, predicted, averages + (["binary"] if classes == 2 else []))
    wide = logits.astype(float)
    values["matthews_correlation"] = float(metrics.matthews_corrcoef(labels, predicted))
    if classes == 2:
        values["roc_auc"] = area(labels, wide[:, 1] - wide[:, 0])
    else:
        values |= areas((labels[:, None] == numpy.arange(classes)).astype(int), special.softmax(wide, axis=1))
    for score in SCORES:
        if classes == 2:
            values[score] = values[f"{score}:binary"]
    return {"name": name, "num_labels": classes, "multi_label": False, "logits": logits.tolist(), "labels": labels.tolist(),
            "expected": values}


def multi_case(name, logits, labels):
    logits = numpy.asarray(logits, dtype=numpy.float32)
    labels = numpy.asarray(labels)
    values = expected(labels, (logits > 0).astype(int), ["micro", "macro", "weighted"]) | areas(labels, logits.astype(float))
    return {"name": name, "num_labels": int(labels.shape[1]), "multi_label": True, "logits": logits.tolist(),
            "labels": labels.tolist(), "expected": values}


def regression_case(name, outputs, labels):
    outputs = numpy.asarray(outputs, dtype=numpy.float32)
    labels = numpy.asarray(labels, dtype=numpy.float32)
    wide = (labels.astype(float), outputs.astype(float))
    values = {"mse": float(metrics.mean_squared_error(*wide)), "mae": float(metrics.mean_absolute_error(*wide))}
    enough = len(labels) > 1
    values["pearsonr"] = float(stats.pearsonr(*wide).statistic) if enough else float("nan")
    values["spearmanr"] = float(stats.spearmanr(*wide).statistic) if enough else float("nan")
    return {"name": name, "num_labels": 1, "multi_label": False, "logits": outputs.reshape(-1, 1).tolist(),
            "labels": labels.tolist(), "expected": values}


def rounded(array):
    return numpy.round(array, 3)  # short in the file


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    random = numpy.random.default_rng(11)
    cases = []
    for classes, count in [(2, 61), (3, 83), (7, 50)]:
        cases.append(class_case(f"random {classes}", rounded(random.normal(size=(count, classes))),
                                random.integers(0, classes, count), classes))
    one, zero = [0.0, 1.0], [1.0, 0.0]
    cases.append(class_case("one example, right", [one], [1], 2))
    cases.append(class_case("one example, wrong", [one], [0], 2))
    cases.append(class_case("class 1 occurs nowhere", [zero, zero, zero], [0, 0, 0], 2))
    cases.append(class_case("class 1 only predicted", [one, one, one], [0, 0, 0], 2))
    cases.append(class_case("class 1 never predicted", [zero, zero, zero], [0, 1, 1], 2))
    cases.append(class_case("all are class 1", [one, one], [1, 1], 2))
    cases.append(class_case("ties go to the first", [[1, 1, 1], [0, 2, 2], [3, 3, 0]], [0, 2, 1], 3))
    cases.append(class_case("classes 2 and 4 occur nowhere", rounded(numpy.array(
        [[5, 1, 0, 2, 0], [0, 1, 0, 4, 0], [0, 7, 0, 1, 0], [0, 7, 0, 1, 0]])), [0, 3, 1, 0], 5))
    cases.append(class_case("a value that is no number is the largest", [[1.0, float("nan")], [float("nan"), 5.0]], [1, 1], 2))
    cases.append(multi_case("random multi-label", rounded(random.normal(size=(47, 5))), random.integers(0, 2, (47, 5))))
    cases.append(multi_case("no label holds", [[-1, -2], [-3, 0]], [[0, 0], [0, 0]]))
    cases.append(multi_case("no label holds, some predicted", [[1, -2, -1], [3, 4, -1]], [[0, 0, 0], [0, 0, 0]]))
    cases.append(multi_case("one column without anything", [[1, -2, -1], [3, 4, -1]], [[1, 0, 0], [0, 1, 0]]))
    cases.append(regression_case("random regression", rounded(random.normal(size=71) * 3), rounded(random.normal(size=71))))
    cases.append(regression_case("one value", [0.25], [0.5]))
    cases.append(regression_case("ties", [1, 1, 2, 2, 2, 3], [0.5, 0.25, 0.5, 1, 1, -1]))
    cases.append(regression_case("the same output for all", [2, 2, 2], [0.5, 0.25, 1]))
    cases.append(regression_case("far from zero", rounded(random.normal(size=40)) + 5000, rounded(random.normal(size=40)) - 700))
    text = json.dumps({"recorded_with": f"scikit-learn {sklearn.__version__}, scipy {scipy.__version__}", "cases": cases}).replace("NaN", '"nan"')
    output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
