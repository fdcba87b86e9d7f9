#!/usr/bin/env python3
"""Records what the collators of transformers make of small batches, for tests/unit/datasets/collators_test.cpp.

    record_collators.py [OUTPUT.json]      default: tests/data/golden/collators.json (seconds)
"""
import json
import pathlib
import sys

import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests" / "data" / "golden" / "collators.json"
# The pad token of the first is an id of its own, 0; the second pads with its end-of-text token, 50256.
BERT = transformers.AutoTokenizer.from_pretrained(ROOT / "tests" / "data" / "tokenizers" / "bert-base-uncased", pad_token="[PAD]")
GPT2 = transformers.GPT2TokenizerFast.from_pretrained(ROOT / "tests" / "data" / "tokenizers" / "gpt2", pad_token="<|endoftext|>")

BATCHES = [
    {"rows": [[101, 7592, 2088, 102], [101, 102]], "tags": [[-100, 3, 1, -100], [-100, -100]]},
    {"rows": [[101, 2003, 102], [101, 4937, 3899, 2006, 1996, 102], [101, 1996, 102]],
     "tags": [[-100, 0, -100], [-100, 5, -100, 6, 0, -100], [-100, -100, -100]]},
    {"rows": [[101, 1037, 1038, 1039, 1040, 1041, 102]], "tags": [[0, 1, 2, 3, 4, 5, 6]]},
]


def recorded(kind, collator, batch, features):
    result = collator(features)
    return {"kind": kind, "multiple": collator.pad_to_multiple_of or 1, "pad": collator.tokenizer.pad_token_id, "rows": batch["rows"],
            "tags": batch["tags"]} | {key: result[key].tolist() for key in ("input_ids", "attention_mask", "labels")}


def main():
    cases = []
    for multiple in (None, 4, 8):
        for batch in BATCHES:
            collator = transformers.DataCollatorForTokenClassification(BERT, pad_to_multiple_of=multiple)
            cases.append(recorded("tokens", collator, batch, [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": tags}
                                                              for ids, tags in zip(batch["rows"], batch["tags"])]))
            for tokenizer in (BERT, GPT2):
                collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=multiple)
                cases.append(recorded("causal", collator, batch, [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in batch["rows"]]))
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    text = json.dumps({"recorded_with": {"transformers": transformers.__version__}, "cases": cases})
    output.write_text(text.replace('{"kind"', '\n{"kind"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
