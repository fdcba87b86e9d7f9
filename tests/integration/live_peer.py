#!/usr/bin/env python3
"""The Hugging Face Trainer on a small run, without dropout: prints {"history": [...], "evaluation": {...}} as its last line.

A program of its own: a test in the repository's root would see the folder datasets/ as the library of that name.
"""
import fnmatch
import json
import sys

import torch
import transformers

recipe = json.loads(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(recipe["model"])


def tokenised(path):
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=32)
    return [{key: encoded[key][i] for key in encoded.keys()} | {"label": row["label"]} for i, row in enumerate(rows)]


callbacks = [transformers.EarlyStoppingCallback(*recipe["early_stopping"])] if recipe["early_stopping"] else []
model = transformers.AutoModelForSequenceClassification.from_pretrained(
    recipe["model"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)
for name, parameter in model.named_parameters():
    parameter.requires_grad = not any(fnmatch.fnmatchcase(name, pattern) for pattern in recipe.get("freeze", []))


class SeededGroups(transformers.trainer.LengthGroupedSampler):
    """The Trainer's, which draws from the global generator, with one of its own for each epoch: seed + epoch."""
    epoch = 0

    def __iter__(self):
        self.generator = torch.Generator().manual_seed(recipe["training"].get("seed", 42) + self.epoch)
        self.epoch += 1
        return super().__iter__()


transformers.trainer.LengthGroupedSampler = SeededGroups
trainer = transformers.Trainer(
    model=model,
    args=transformers.TrainingArguments(output_dir=recipe["output_dir"], use_cpu=True, report_to="none", logging_steps=1,
                                        save_strategy="no", disable_tqdm=True, **recipe["training"]),
    train_dataset=tokenised(recipe["train"]), eval_dataset=tokenised(recipe["eval"]),
    data_collator=transformers.DataCollatorWithPadding(tokenizer), callbacks=callbacks)
if "groups" in recipe:
    # The parameters without a group first: the Trainer logs the rate of the first one.
    decayed = trainer.get_decay_parameter_names(model)
    groups = [[] for _ in range(len(recipe["groups"]) + 1)]
    for name, parameter in model.named_parameters():
        index = next((i + 1 for i, group in enumerate(recipe["groups"]) if fnmatch.fnmatchcase(name, group["pattern"])), 0)
        group = recipe["groups"][index - 1] if index else {}
        groups[index].append({"params": [parameter], "lr": group.get("learning_rate", trainer.args.learning_rate),
                              "weight_decay": group.get("weight_decay", trainer.args.weight_decay if name in decayed else 0.0)})
    trainer.optimizer = torch.optim.AdamW([entry for group in groups for entry in group], lr=trainer.args.learning_rate)
trainer.train()
history = list(trainer.state.log_history)
print(json.dumps({"history": history, "evaluation": trainer.evaluate()}))
