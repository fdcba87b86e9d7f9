#!/usr/bin/env python3
"""The Hugging Face Trainer on a small run, without dropout: prints {"history": [...], "evaluation": {...}} as its last line.

A program of its own: a test in the repository's root would see the folder datasets/ as the library of that name.
"""
import json
import sys

import transformers

recipe = json.loads(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(recipe["model"])


def tokenised(path):
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=32)
    return [{key: encoded[key][i] for key in encoded.keys()} | {"label": row["label"]} for i, row in enumerate(rows)]


callbacks = [transformers.EarlyStoppingCallback(*recipe["early_stopping"])] if recipe["early_stopping"] else []
trainer = transformers.Trainer(
    model=transformers.AutoModelForSequenceClassification.from_pretrained(
        recipe["model"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0),
    args=transformers.TrainingArguments(output_dir=recipe["output_dir"], use_cpu=True, report_to="none", logging_steps=1,
                                        save_strategy="no", disable_tqdm=True, **recipe["training"]),
    train_dataset=tokenised(recipe["train"]), eval_dataset=tokenised(recipe["eval"]),
    data_collator=transformers.DataCollatorWithPadding(tokenizer), callbacks=callbacks)
trainer.train()
history = list(trainer.state.log_history)
print(json.dumps({"history": history, "evaluation": trainer.evaluate()}))
