#!/usr/bin/env python3
"""Records in which order the Trainer fires the events of its callbacks, and what its PrinterCallback prints, for
tests/unit/trainer/.

    record_events.py [OUTPUT.json]      default: tests/data/golden/events.json (seconds)
"""
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch
import transformers

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "events.json"
EVENTS = [name for name in vars(transformers.TrainerCallback) if name.startswith("on_")]

# Every scenario ends with an evaluation or has no evaluation data: the Trainer's scripts evaluate once more after train().
SCENARIOS = [
    {"gradient_accumulation_steps": 2, "num_train_epochs": 2, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 3,
     "save_strategy": "epoch"},
    {"max_steps": 7, "logging_steps": 3, "logging_first_step": True, "eval_strategy": "steps", "eval_steps": 4,
     "eval_on_start": True, "save_strategy": "steps", "save_steps": 2},
    {"gradient_accumulation_steps": 3, "num_train_epochs": 2, "logging_strategy": "epoch", "eval_strategy": "epoch",
     "save_strategy": "epoch", "load_best_model_at_end": True},
    {"gradient_accumulation_steps": 4, "num_train_epochs": 1.5, "logging_steps": 1, "save_strategy": "no"},
]
TRAIN, EVAL = 20, 9  # examples
RECORDS = [{"loss": 0.693147, "grad_norm": 12.3456, "learning_rate": 4.2e-05, "epoch": 0.4},
           {"eval_loss": 1234567.0, "eval_accuracy": 1.0, "eval_runtime": 0.0012, "epoch": 1e-07},
           {"train_runtime": 3.5, "total_flos": 1e15, "train_loss": float("nan"), "num_input_tokens_seen": 640, "epoch": 2.0}]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x=None, labels=None):
        logits = x.float().unsqueeze(1) * self.weight
        return {"loss": logits.mean(), "logits": logits}


class Data(torch.utils.data.Dataset):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"x": index, "labels": 0}


def scenario(options):
    fired = []

    def record(event):
        return lambda self, args, state, control, **kwargs: fired.append(f"{event} {state.global_step}")

    callback = type("Recorder", (transformers.TrainerCallback,), {event: record(event) for event in EVENTS})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=4, per_device_eval_batch_size=4, use_cpu=True, report_to="none",
            disable_tqdm=True, remove_unused_columns=False, **options)
        trainer = transformers.Trainer(Model(), arguments, train_dataset=Data(TRAIN),
                                       eval_dataset=Data(EVAL) if "eval_strategy" in options else None, callbacks=[callback()])
        trainer.train()
        trainer.predict(Data(EVAL))
    return {"options": options, "events": fired}


def printed(record):
    output = io.StringIO()
    state = transformers.TrainerState(is_local_process_zero=True)
    with contextlib.redirect_stdout(output):
        transformers.trainer_callback.PrinterCallback().on_log(None, state, None, logs=dict(record))
    return {"record": [[key, repr(value)] for key, value in record.items()], "line": output.getvalue()}


def main():
    recorded = {"transformers": transformers.__version__, "events": EVENTS, "examples": [TRAIN, EVAL],
                "scenarios": [scenario(options) for options in SCENARIOS], "printed": [printed(record) for record in RECORDS]}
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    output.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
