#!/usr/bin/env python3
"""The Hugging Face Trainer with the recipe that compare.py gives dtrain; prints one line per log as it happens."""
import argparse
import json
import os

parser = argparse.ArgumentParser()
parser.add_argument("recipe", help="JSON: model, tokenizer, train, eval, max_length, arguments")
options = parser.parse_args()
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets_light  # noqa: E402  (beside this file: JSONL rows without the datasets library)
import numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

with open(options.recipe, encoding="utf-8") as file:
    recipe = json.load(file)
torch.set_num_threads(recipe["threads"])


class PrintEachStep(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            print(f"bench step {state.global_step}", flush=True)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.is_world_process_zero:
            print("bench eval " + json.dumps(metrics), flush=True)


def compute_metrics(prediction):
    return {"accuracy": float((numpy.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}


tokenizer = transformers.AutoTokenizer.from_pretrained(recipe["tokenizer"])
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token or "<|endoftext|>"  # GPT-2; a bare tokenizer.json names no roles
if recipe["random_init"]:
    config = transformers.AutoConfig.from_pretrained(recipe["model"], num_labels=2)
    config.pad_token_id = tokenizer.pad_token_id
    model = transformers.AutoModelForSequenceClassification.from_config(config)
else:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(recipe["model"], num_labels=2)
trainer = transformers.Trainer(
    model=model,
    args=transformers.TrainingArguments(report_to="none", disable_tqdm=True, save_strategy="no",
                                        logging_steps=1, **recipe["arguments"]),
    data_collator=transformers.DataCollatorWithPadding(tokenizer),
    train_dataset=datasets_light.tokenised(recipe["train"], tokenizer, recipe["max_length"]),
    eval_dataset=datasets_light.tokenised(recipe["eval"], tokenizer, recipe["max_length"]),
    compute_metrics=compute_metrics, callbacks=[PrintEachStep()])
trainer.train()
