#!/usr/bin/env python3
"""Records what the Hugging Face Trainer logs for two short trainings, as the numbers dtrain must reproduce.

    record_peer.py minilm|gpt2 OUTPUT.json      trains with the Trainer and writes its log (minutes)
    record_peer.py --start minilm|gpt2 FOLDER   only writes the start weights and tokenizer, as the tests do

One rank, no accumulation, float32, dropout 0, seed 42: there the Trainer's loss is the plain mean of the batch. (With several
ranks or accumulation its classification heads scale the loss by their number, which dtrain does not copy.)
"""
import argparse
import hashlib
import json
import os
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMDB = ROOT / "tests" / "data" / "imdb"
MINILM = ROOT / ".deps" / "minilm"
GPT2_TOKENIZER = ROOT / "tests" / "data" / "tokenizers" / "gpt2"

# The recipe, in one place: the test writes its TOML from what is recorded here. 475 examples make 30 steps an epoch, the last
# of 11 examples, so 50 steps cross an epoch's border and a short batch.
RECIPE = {
    "max_length": 64, "train_samples": 475, "eval_samples": 200, "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32, "learning_rate": 5e-5, "max_steps": 50, "warmup_steps": 5, "weight_decay": 0.01,
    "lr_scheduler_type": "linear", "max_grad_norm": 1.0, "seed": 42,
}


def rows(name, count):
    with open(IMDB / name, encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count))]


def write_start(kind, folder):
    """Start weights, heads included, and tokenizer, drawn and written by transformers."""
    import transformers
    transformers.set_seed(RECIPE["seed"])
    if kind == "minilm":
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            MINILM, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    else:
        config = transformers.GPT2Config(
            n_layer=2, n_embd=128, n_head=4, n_positions=128, num_labels=2, pad_token_id=50256,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        model = transformers.GPT2ForSequenceClassification(config)
        tokenizer = transformers.GPT2TokenizerFast.from_pretrained(GPT2_TOKENIZER)
        tokenizer.pad_token = tokenizer.eos_token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def weights_digest(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def record(kind, output):
    import numpy
    import sklearn.metrics
    import torch
    import transformers
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        model, tokenizer = write_start(kind, temporary)
        start_digest = weights_digest(model)

        def encode(examples):
            encoded = [tokenizer(row["text"], truncation=True, max_length=RECIPE["max_length"]) for row in examples]
            return [dict(item, label=row["label"]) for item, row in zip(encoded, examples)]

        def compute_metrics(prediction):
            guess = numpy.argmax(prediction.predictions, axis=-1)
            return {"accuracy": sklearn.metrics.accuracy_score(prediction.label_ids, guess),
                    "f1": sklearn.metrics.f1_score(prediction.label_ids, guess, average="weighted")}

        arguments = transformers.TrainingArguments(
            output_dir=os.path.join(temporary, "out"), use_cpu=True, report_to="none", disable_tqdm=True,
            logging_steps=1, eval_strategy="steps", eval_steps=25, save_strategy="no",
            **{key: value for key, value in RECIPE.items() if key not in ("max_length", "train_samples", "eval_samples")})
        trainer = transformers.Trainer(
            model=model, args=arguments, data_collator=transformers.DataCollatorWithPadding(tokenizer),
            train_dataset=encode(rows("imdb-small-train.jsonl", RECIPE["train_samples"])),
            eval_dataset=encode(rows("imdb-small-test.jsonl", RECIPE["eval_samples"])),
            compute_metrics=compute_metrics)
        trainer.train()
        history = trainer.state.log_history
    train = [{key: entry[key] for key in ("step", "loss", "grad_norm", "learning_rate", "epoch")}
             for entry in history if "loss" in entry]
    evaluation = [{key: entry[key] for key in ("step", "eval_loss", "eval_accuracy", "eval_f1", "epoch")}
                  for entry in history if "eval_loss" in entry]
    result = {"recorded_with": {"torch": torch.__version__, "transformers": transformers.__version__},
              "kind": kind, "recipe": RECIPE, "start_digest": start_digest, "train": train, "eval": evaluation}
    pathlib.Path(output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", action="store_true")
    parser.add_argument("kind", choices=["minilm", "gpt2"])
    parser.add_argument("output")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.start:
        print(weights_digest(write_start(options.kind, options.output)[0]))
    else:
        record(options.kind, options.output)
