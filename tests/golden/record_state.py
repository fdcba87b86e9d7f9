#!/usr/bin/env python3
"""Records decisions and files of transformers' TrainerState, DefaultFlowCallback and save_metrics, for tests/unit/trainer.

    record_state.py [OUTPUT.json]             default: tests/data/golden/state.json (seconds)
    record_state.py --check trainer_state.json  loads a file that dtrain wrote with transformers, prints its main fields
"""
import json
import pathlib
import sys
import tempfile

import transformers
from transformers.trainer_callback import DefaultFlowCallback, TrainerControl, TrainerState

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "state.json"


def flow(log, evaluate, save, first, steps, total, delay=0):
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, use_cpu=True, logging_strategy=log, eval_strategy=evaluate, save_strategy=save,
            logging_first_step=first, eval_delay=delay, report_to="none")
    callback = DefaultFlowCallback()
    state = TrainerState(max_steps=total, logging_steps=steps[0], eval_steps=steps[1], save_steps=steps[2])
    rows = []
    for step in range(1, total + 1):
        control = TrainerControl()
        state.global_step = step
        callback.on_step_end(arguments, state, control)
        row = [control.should_log, control.should_evaluate, control.should_save, control.should_training_stop]
        control = TrainerControl()
        state.epoch = step / 4
        callback.on_epoch_end(arguments, state, control)
        rows.append(row + [control.should_log, control.should_evaluate, control.should_save])
    return {"logging_strategy": log, "eval_strategy": evaluate, "save_strategy": save, "logging_first_step": first,
            "eval_delay": delay, "steps": steps, "max_steps": total, "rows": rows}


def state_file():
    state = TrainerState(
        epoch=1.5, global_step=30, max_steps=60, logging_steps=10, eval_steps=15, save_steps=15, train_batch_size=8,
        num_train_epochs=3, total_flos=1234567890.0, best_metric=0.8125, best_global_step=15,
        best_model_checkpoint="results/checkpoint-15", stateful_callbacks=[TrainerControl(should_save=True)],
        log_history=[
            {"loss": 0.6931471824645996, "grad_norm": 2.125, "learning_rate": 4.2e-05, "epoch": 0.5, "step": 10},
            {"eval_loss": 0.5, "eval_accuracy": 0.8125, "eval_runtime": 1.25, "epoch": 0.75, "step": 15}])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trainer_state.json"
        state.save_to_json(str(path))
        return path.read_text(encoding="utf-8")


def results_files():
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=transformers.BertForSequenceClassification(transformers.BertConfig(
                vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)),
            args=transformers.TrainingArguments(output_dir=folder, use_cpu=True, report_to="none"))
        trainer.save_metrics("train", {"train_loss": 0.25, "epoch": 3.0, "train_runtime": 12.5})
        trainer.save_metrics("eval", {"eval_accuracy": 0.75, "epoch": 2.0})
        return {name: (pathlib.Path(folder) / name).read_text(encoding="utf-8")
                for name in ("train_results.json", "eval_results.json", "all_results.json")}


def check(path):
    state = TrainerState.load_from_json(path)
    print(json.dumps({"global_step": state.global_step, "best_metric": state.best_metric, "logs": len(state.log_history),
                      "callbacks": sorted(state.stateful_callbacks)}))


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        check(sys.argv[2])
        return
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    flows = [flow("steps", "steps", "steps", True, [3, 4, 5], 11), flow("steps", "no", "no", False, [1, 1, 1], 4),
             flow("epoch", "epoch", "epoch", False, [2, 2, 2], 5), flow("no", "steps", "best", True, [2, 3, 2], 7),
             flow("steps", "steps", "steps", False, [4, 4, 4], 8, delay=5),
             flow("epoch", "epoch", "steps", True, [4, 4, 100], 6, delay=1)]
    data = {"recorded_with": f"transformers {transformers.__version__}", "flows": flows, "trainer_state": state_file(),
            "results": results_files()}
    output.write_text(json.dumps(data) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
