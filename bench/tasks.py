#!/usr/bin/env python3
"""A recipe of configs/recipes on dtrain and on the Hugging Face Trainer, from the same start weights, on one process each.

    tasks.py --build BUILD RECIPE --train FILE --eval FILE [--model FOLDER] [--set KEY=VALUE ...]

Two comparisons: --steps (50) of them without dropout, step by step; and a whole run with dropout, whose final metric is set beside
those of --seeds (3) runs of the Trainer: of four equal runs one in two is the best or the worst, so that what counts is the
distance from their mean in their standard deviations. Heads that the model lacks are drawn by transformers and given to both.
With --random CONFIG.json the weights are drawn instead of read, for the vocabulary of --tokenizer. With --jobs the runs go on at
the same time.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

SEQ2SEQ = "seq2seq-lm"
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import task_peer  # noqa: E402
import transformers  # noqa: E402

# Settings that say where and when, not what.
OURS_ALONE = ("output_dir", "overwrite_output_dir", "save_strategy", "save_total_limit", "load_best_model_at_end", "eval_strategy",
              "metric_for_best_model", "logging_steps", "resume_from_checkpoint")


def write_start(options, recipe, folder):
    """Start weights and tokenizer, whole, as both sides read them."""
    transformers.set_seed(42)
    labels = recipe["data"].get("labels")
    extra = {"num_labels": len(labels)} if labels else {}
    task = recipe["model"]["task"]
    auto = transformers.AutoModelForSeq2SeqLM if task == SEQ2SEQ else task_peer.AUTO[task]
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.tokenizer or options.model)
    if options.random:
        extra["vocab_size"] = len(tokenizer)
        config = transformers.AutoConfig.for_model(**json.loads(options.random.read_text(encoding="utf-8")) | extra)
        model = auto.from_config(config)
    else:
        model = auto.from_pretrained(options.model, **extra)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def run_dtrain(options, folder, start, settings):
    line = [str(ROOT / options.build / "dtrain"), str(ROOT / "configs" / "recipes" / f"{options.recipe}.toml")]
    settings = {"model.path": str(start), "data.train": str(options.train), "data.eval": str(options.eval),
                "data.cache_dir": str(folder / "tokens"), "training.output_dir": str(folder / "dtrain"), "training.overwrite_output_dir": "true",
                "tokenizer.path": str(start), "model.random_init": "false", "training.use_cpu": "false" if options.gpu else "true",
                "training.save_strategy": "no", "training.load_best_model_at_end": "false",
                "training.disable_tqdm": "true", "training.logging_steps": "1"} | settings
    for key, value in settings.items():
        line += ["--set", f"{key}={value}"]
    for each in options.set:
        line += ["--set", each]
    begin = time.monotonic()
    printed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(options.threads)})
    if printed.returncode != 0:
        sys.exit(f"{' '.join(line)} failed with {printed.returncode}:\n{printed.stdout[-2000:]}{printed.stderr[-2000:]}")
    with open(folder / "dtrain" / "log.jsonl", encoding="utf-8") as lines:
        return [json.loads(each) for each in lines], time.monotonic() - begin


def case_of(options, recipe, start, training, dropout):
    """What task_peer.py wants to know."""
    arguments = {key: value for key, value in recipe["training"].items() if key not in OURS_ALONE}
    for each in options.set:
        key, value = each.split("=", 1)
        if key.startswith("training."):
            arguments[key.removeprefix("training.")] = json.loads(value)
    case = {"model": str(start), "task": recipe["model"]["task"], "train": str(options.train), "eval": str(options.eval),
            "max_length": options.max_length or recipe["tokenizer"]["max_length"], "training": arguments | training, "dropout": dropout}
    if recipe["data"].get("labels"):
        case["labels"] = recipe["data"]["labels"]
    case["gpu"] = options.gpu
    if recipe["model"]["task"] == SEQ2SEQ:
        case["lengths"] = [case["max_length"], recipe["tokenizer"].get("max_target_length", case["max_length"])]
        case["training"] = {key: value for key, value in case["training"].items() if key != "predict_with_generate"}
    averages = [metric.removeprefix("f1:") for metric in recipe["metrics"]["compute"] if metric.startswith(("f1:", "seqeval"))]
    return case | {"average": averages[0]} if averages else case


def run_trainer(options, case, folder, evaluate=True):
    """{"history", "evaluation"} of the Trainer in a process of its own, and its seconds."""
    folder.mkdir()
    case = case | {"evaluate": evaluate}
    begin = time.monotonic()
    result = folder / "result.json"
    if case["task"] == SEQ2SEQ:
        line = ["seq2seq_peer.py", "train", json.dumps(case | {"output_dir": str(folder)})]
    else:
        (folder / "cases.json").write_text(json.dumps({"case": case}), encoding="utf-8")
        line = ["task_peer.py", "train", str(folder / "cases.json"), str(result)]
    peers = ROOT / "tests" / "integration"
    printed = subprocess.run([sys.executable, str(peers / line[0]), *line[1:]], capture_output=True, text=True, cwd=folder,
                             env=os.environ | {"OMP_NUM_THREADS": str(options.threads)})
    if printed.returncode != 0:
        sys.exit(f"{line[0]} failed with {printed.returncode}:\n{printed.stderr[-2000:]}")
    if case["task"] == SEQ2SEQ:
        return json.loads(printed.stdout.splitlines()[-1]), time.monotonic() - begin
    return json.loads(result.read_text(encoding="utf-8"))["case"], time.monotonic() - begin


def largest(ours, theirs, key):
    return max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(ours, theirs, strict=True))


def losses(records):
    return [record for record in records if "loss" in record]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name in configs/recipes, without .toml")
    parser.add_argument("--build", default="build")
    parser.add_argument("--train", type=pathlib.Path, required=True)
    parser.add_argument("--eval", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / ".deps" / "minilm")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="default: the model's folder")
    parser.add_argument("--random", type=pathlib.Path, help="config.json of a model whose weights are drawn")
    parser.add_argument("--max-length", type=int, help="default: the recipe's")
    parser.add_argument("--steps", type=int, default=50, help="without dropout; 0: leave this comparison out")
    parser.add_argument("--seeds", type=int, default=3, help="runs of the Trainer with dropout; 0: leave this comparison out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for both sides; a value in JSON's notation")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--gpu", action="store_true", help="both on the GPU")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--dropout", type=float, help="of whole runs; default: what config.json says")
    parser.add_argument("--metric", help="that is compared after a whole run; default: bleu, loss of language models, else f1")
    options = parser.parse_args()
    options.train, options.eval = options.train.resolve(), options.eval.resolve()
    recipe = tomllib.loads((ROOT / "configs" / "recipes" / f"{options.recipe}.toml").read_text(encoding="utf-8"))
    task = recipe["model"]["task"]
    metric = "eval_" + (options.metric or ("bleu" if task == SEQ2SEQ else "loss" if task.endswith("lm") else "f1"))
    ours_only = {"tokenizer.max_length": str(options.max_length)} if options.max_length else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        start = folder / "start"
        parameters = write_start(options, recipe, start)
        print(f"{options.recipe}: {parameters} parameters, {options.threads} threads", flush=True)
        pool = concurrent.futures.ThreadPoolExecutor(options.jobs)
        if options.steps:
            training = {"max_steps": options.steps, "eval_strategy": "no"}
            our = pool.submit(run_dtrain, options, folder / "short", start,
                              ours_only | {"model.dropout": "0", "training.max_steps": str(options.steps), "training.eval_strategy": "no",
                                           "data.eval_samples": "64"})
            their = pool.submit(run_trainer, options, case_of(options, recipe, start, training, dropout=0.0), folder / "peer", evaluate=False)
        if options.seeds:
            dropout = {} if options.dropout is None else {"model.dropout": str(options.dropout)}
            our_whole = pool.submit(run_dtrain, options, folder / "whole", start, ours_only | {"training.eval_strategy": "epoch"} | dropout)
            their_whole = [pool.submit(run_trainer, options, case_of(options, recipe, start, {"seed": seed}, dropout=options.dropout),
                                       folder / f"peer-{seed}") for seed in range(42, 42 + options.seeds)]
        if options.steps:
            (records, seconds), (peer, peer_seconds) = our.result(), their.result()
            history, records = losses(peer["history"]), losses(records)
            print(f"{len(history)} steps without dropout: largest relative difference of the loss {largest(records, history, 'loss'):.1e}, "
                  f"of the gradient norm {largest(records, history, 'grad_norm'):.1e}; loss {history[0]['loss']:.4f} to {history[-1]['loss']:.4f}; "
                  f"{seconds:.0f} s and {peer_seconds:.0f} s", flush=True)
        if options.seeds:
            records, seconds = our_whole.result()
            mine = [record[metric] for record in records if metric in record][-1]
            print(f"whole run, {metric}: dtrain {mine:.4f} ({losses(records)[-1]['step']} steps, {seconds:.0f} s)", flush=True)
            theirs = []
            for seed, run in enumerate(their_whole, 42):
                peer, seconds = run.result()
                theirs.append(peer["evaluation"][metric])
                print(f"whole run, {metric}: Trainer {theirs[-1]:.4f} (seed {seed}, {seconds:.0f} s)", flush=True)
            deviation = statistics.stdev(theirs) if len(theirs) > 1 else float("nan")
            print(f"dtrain {mine:.4f}, Trainer {min(theirs):.4f} to {max(theirs):.4f}; "
                  f"{abs(mine - statistics.mean(theirs)) / deviation:.1f} standard deviations from their mean")


if __name__ == "__main__":
    main()
