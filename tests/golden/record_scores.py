#!/usr/bin/env python3
"""Records what sacrebleu, rouge_score and seqeval say about random and degenerate texts and tags, for
tests/unit/trainer/text_metric_test.cpp and seqeval_test.cpp. tests/integration/test_scores.py draws more such cases.

    record_scores.py [OUTPUT.json]      default: tests/data/golden/scores.json (seconds)
"""
import importlib.metadata
import itertools
import json
import math
import pathlib
import random
import sys
import warnings

import numpy
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from seqeval import metrics as seqeval
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.v1 import _precision_recall_fscore_support
from seqeval.scheme import IOB2

warnings.filterwarnings("ignore")
OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "scores.json"
TEXT_METRICS = ["bleu", "bleu:none", "bleu:char", "bleu:lowercase", "rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"]
PACKAGES = ["sacrebleu", "rouge_score", "seqeval"]

WORDS = """the The THE a cat cats sat on mat . , ! ? ; : ' " ( ) [ ] { } - -- ... / \\ @ # $ % ^ & * _ + = < > ~ ` | 1 2 3.14 1,000 1,000.50
.5 5. ,7 7, 10-12 U.S. e-mail state-of-the-art don't 3rd a.b.c x,y &quot; &amp; &lt; &gt; &amp;lt; &amp;quot; <skipped> naïve café Straße
über 日本語 東京 は привет мир ΟΔΟΣ οδος Σ İstanbul \u212Aelvin e\u0301 \U0001F600 \U0001F44D\U0001F3FD « » — – “ ” … € ½ ² \u0661\u0662 \u00ad
\u200b \ufeff a_b x2 2x 10% $5 #1""".split()
SPACES = [" "] * 12 + ["", "  ", "\n", "-\n", "\t", "\r", "\x0b", "\x1c", "\x1f", "\x85", "\u00a0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f",
                       "\u3000"]
CHARACTERS = list("ab1 .,-\n&;<>\"'A/") + ["é", "中", "\u00a0", "Σ", "\U0001F600", "\u0301"]
FIXED_TEXTS = [
    ([""], [[""]]), (["", "", ""], [[""], ["a b c d"], [" "]]), (["a b c d e"], [[""]]), ([" \n\t"], [["\u3000"]]),
    (["."], [["."]]), (["word"], [["word"]]), (["a b c"], [["a b c"]]), (["a b c d"], [["a b c d"]]), (["a a a a a"], [["a a"]]),
    (["no match here at all"], [["something quite different indeed yes"]]), (["the same text of words"] * 3, [["the same text of words"]] * 3),
    (["The cat sat on the mat."], [["The cat sat on the mat.", "A cat was on the mat.", "There is a cat on the mat"]]),
    (["one two three four five"], [["one two three", "one two three four five six seven"]]),
    (["b a\na"], [["a b"]]),  # one of two longest common subsequences of the first line
    (["first line\nsecond line\n\nthird"], [["second line\nfirst line\nthird line"]]), (["\n\n"], [["\n"]]), (["--- !!! ..."], [["--- !!! ..."]]),
    (["2. 3. 4, 5 , .6"], [["2. 3 . 4, 5, . 6"]]), (["1-2 a-b 3--4 -5"], [["1 -2 a - b 3- -4 - 5"]]),
]


def random_text(draw):
    if draw.random() < 0.25:
        return "".join(draw.choices(CHARACTERS, k=draw.randrange(0, 30)))
    return "".join(draw.choice(WORDS) + draw.choice(SPACES) for _ in range(draw.randrange(0, 25)))


def changed(draw, text):
    """The text with a few of its words dropped, doubled, replaced or exchanged."""
    words = text.split(" ")
    for _ in range(draw.randrange(0, 6)):
        at = draw.randrange(len(words))
        words[at:at + 1] = draw.choice([[], [words[at]] * 2, [draw.choice(WORDS)], [words[at].swapcase()], [draw.choice(words)]])
        words = words or [draw.choice(WORDS)]
    return " ".join(words)


def random_texts(draw):
    count = draw.randrange(1, 7)
    references = [[random_text(draw) for _ in range(draw.choice([1, 1, 1, 2, 3]))] for _ in range(count)]
    predictions = [changed(draw, draw.choice(each)) if draw.random() < 0.85 else random_text(draw) for each in references]
    return predictions, references


def text_values(predictions, references):
    """{metric: value} of all text metrics."""
    columns = list(itertools.zip_longest(*references))
    values = {}
    for name, options in {"bleu": {}, "bleu:none": {"tokenize": "none"}, "bleu:char": {"tokenize": "char"}, "bleu:lowercase": {"lowercase": True}}.items():
        values[name] = BLEU(force=True, **options).corpus_score(predictions, columns).score
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=False)
    scores = [scorer.score_multi(each, prediction) for prediction, each in zip(predictions, references)]
    for name in names:
        values[name] = float(numpy.mean([score[name].fmeasure for score in scores]))
    values["exact_match"] = float(numpy.mean([prediction in each for prediction, each in zip(predictions, references)]))
    return values


# Whether seqeval may look at all sentences in one call, and whether IOB2 can read them. With labels of a single letter, with a
# type behind O, and with a full stop an entity may "begin" in an earlier sentence there; such sentences are given one by one.
LABEL_SETS = {
    "IOB": (["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], True, True),
    "IOBES": (["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC"], True, False),
    "one type": (["B", "I", "O"], True, True),
    "no prefix": (["PER", "LOC", "O", "NPER"], True, False),
    "generated": (["LABEL_0", "LABEL_1", "LABEL_2"], True, False),
    "hyphens": (["O", "B-a-b", "I-a-b", "B--b", "I--b", "Bb", "Ib", "B-", "I-", "I-b-"], True, True),
    "letters": (["É-PER", "B-PER", "I-PER", "日-PER", "日", "O"], False, False),
    "strange": (["O", "O-PER", "X", ".", ".-PER", "I", "E", "I-PER", "XPER", "S", "B"], False, False),
    "O with a type": (["O", "O-PER", "B-PER", "I-PER", "I", "B"], False, True),
}

# An entity goes on behind ".-PER", which neither begins nor ends one.
FIXED_TAGS = {"strange": [([[7, 7, 7]], [[0, 4, 7]]), ([[7, 4, 7]], [[7, 4, 7]]), ([[4, 7, 0]], [[7, 7, 0]])]}


def random_tags(draw, name):
    """Indices of labels: ([sentence of predictions], [sentence of truth])."""
    labels = len(LABEL_SETS[name][0])
    favourite = draw.random() * 0.8

    def tags(length):
        result = []
        for _ in range(length):
            result.append(result[-1] if result and draw.random() < favourite else draw.randrange(labels))
        return result

    truth = [tags(draw.choice([0, 1, 1, 2, 5, 12])) for _ in range(draw.randrange(1, 8))]
    keep = draw.choice([0, 0.5, 0.9, 1])
    return [[tag if draw.random() < keep else draw.randrange(labels) for tag in sentence] for sentence in truth], truth


def tag_values(name, predicted, truth):
    labels, together, iob2 = LABEL_SETS[name]
    predicted, truth = ([[labels[tag] for tag in sentence] for sentence in side] for side in (predicted, truth))

    def one_by_one(y_true, y_pred, *_):
        sides = [{(kind, number, begin, end) for number, sentence in enumerate(side) for kind, begin, end in get_entities(sentence)}
                 for side in (y_pred, y_true)]
        kinds = sorted({entity[0] for side in sides for entity in side})
        counts = [[sum(entity[0] == kind for entity in group) for kind in kinds] for group in (sides[0], sides[0] & sides[1], sides[1])]
        return tuple(numpy.array(count, dtype=numpy.int32) for count in counts)

    values = {}
    accuracy = seqeval.accuracy_score(truth, predicted) if any(truth) else math.nan
    for average in ["micro", "macro", "weighted"]:
        if together:
            scores = [score(truth, predicted, average=average) for score in (seqeval.precision_score, seqeval.recall_score, seqeval.f1_score)]
        else:
            scores = _precision_recall_fscore_support(truth, predicted, average=average, extract_tp_actual_correct=one_by_one)[:3]
        values["seqeval:" + average] = [float(score) for score in scores] + [accuracy]
    values["seqeval"] = values["seqeval:micro"]
    if iob2:
        scores = [score(truth, predicted, mode="strict", scheme=IOB2) for score in (seqeval.precision_score, seqeval.recall_score, seqeval.f1_score)]
        values["seqeval:strict"] = [float(score) for score in scores] + [accuracy]
    return values


def text_cases(draw, count):
    for predictions, references in FIXED_TEXTS + [random_texts(draw) for _ in range(count)]:
        yield {"predictions": predictions, "references": references, "expected": text_values(predictions, references)}


def tag_cases(draw, count):
    """`count` cases of each set of labels."""
    for name, (labels, _, _) in LABEL_SETS.items():
        sides = FIXED_TAGS.get(name, []) + [([[]], [[]]), ([[0]], [[0]]), ([[len(labels) - 1]], [[0]])]
        for predicted, truth in sides + [random_tags(draw, name) for _ in range(count)]:
            yield {"name": name, "labels": labels, "predicted": predicted, "truth": truth, "expected": tag_values(name, predicted, truth)}


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    draw = random.Random(20)
    text = json.dumps({"recorded_with": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
                       "texts": list(text_cases(draw, 40)), "tags": list(tag_cases(draw, 6))}).replace("NaN", '"nan"')
    output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
