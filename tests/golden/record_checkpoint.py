#!/usr/bin/env python3
"""Records a run of a tiny model for tests/faults/test_formats.py: checkpoints that every later dtrain must read.

    record_checkpoint.py PROGRAM [FOLDER]   FOLDER: tests/data/checkpoints/format-1

A folder is recorded once, with the program that first wrote that version of the manifest, and then never changed.
"""
import json
import pathlib
import shutil
import subprocess
import sys

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = """[model]
path = "model"
task = "sequence-classification"
num_labels = 2

[tokenizer]
max_length = 16

[data]
train = "train.jsonl"
eval = "train.jsonl"
text = "text"
label = "label"
cache_dir = "tokens"

[training]
output_dir = "out"
use_cpu = true
disable_tqdm = true
per_device_train_batch_size = 4
max_steps = 8
logging_steps = 1
learning_rate = 0.01
save_strategy = "steps"
save_steps = 4
eval_strategy = "steps"
eval_steps = 4
load_best_model_at_end = true
metric_for_best_model = "loss"
"""


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "tests" / "data" / "checkpoints" / "format-1")
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good", "bad", "dull", "bright", "very", "not", "and"]
    model = folder / "model"
    model.mkdir()
    (model / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                     max_position_embeddings=16)
    transformers.BertForSequenceClassification(config).save_pretrained(model)
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}\n', encoding="utf-8")
    texts = [(f"a {how}{what} film", int(what in ("good", "bright")) ^ int(how == "not "))
             for how in ("", "very ", "not ", "very very ") for what in ("good", "bad", "dull", "bright", "dull and bad")]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts), encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    subprocess.run([program, "recipe.toml"], cwd=folder, check=True)
    shutil.rmtree(folder / "tokens")
    # What the run ends with is the result to compare; the run that resumes has only the first checkpoint.
    shutil.copy(folder / "out" / "checkpoint-8" / "model.safetensors", folder / "expected.safetensors")
    for path in (folder / "out").iterdir():
        if path.name == "checkpoint-4":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
