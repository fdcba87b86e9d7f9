"""Tokenised rows of a JSONL file as the list of dictionaries that the Trainer takes: tokenised in one batch, as map(batched=True)."""
import json


def tokenised(path, tokenizer, max_length):
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
    return [{key: encoded[key][i] for key in encoded.keys()} | {"label": row["label"]} for i, row in enumerate(rows)]
