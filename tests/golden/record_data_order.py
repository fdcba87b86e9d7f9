#!/usr/bin/env python3
"""Records the order, the sharding, the step counts, the shuffles and the padding of the Hugging Face libraries, for
tests/unit/datasets/.

    record_data_order.py [OUTPUT.json]      default: tests/data/golden/data_order.json (seconds)
"""
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import types

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import accelerate
import numpy
import torch
import transformers
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "data_order.json"


def trainer_order(size, batch_size, **seeds):
    """The batches of two epochs as the model of a real Trainer sees them."""
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, index=None, labels=None):
            seen.append(index.tolist())
            return {"loss": self.weight.sum() * 0}

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return size

        def __getitem__(self, index):
            return {"index": index, "labels": 0}

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=2, per_device_train_batch_size=batch_size, use_cpu=True, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False, **seeds)
        transformers.Trainer(Model(), arguments, train_dataset=Data()).train()
    return {"size": size, "batch_size": batch_size, "seed": seeds.get("data_seed", seeds.get("seed", 42)), "batches": seen}


def sampler_order(size, seed, epoch):
    sampler = SeedableRandomSampler(data_source=range(size), num_samples=size, data_seed=seed, generator=torch.Generator())
    sampler.set_epoch(epoch)
    return {"size": size, "seed": seed, "epoch": epoch, "order": list(sampler)}


def length_groups(size, longest, group, seed):
    """The order of a LengthGroupedSampler; the lengths are drawn, and many are equal."""
    lengths = torch.randint(1, longest + 1, (size,), generator=torch.Generator().manual_seed(size)).tolist()
    sampler = LengthGroupedSampler(group, lengths=lengths, generator=torch.Generator().manual_seed(seed))
    return {"lengths": lengths, "group": group, "seed": seed, "order": list(sampler)}


def batch_sampler(size, batch_size, drop_last):
    return torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(range(size)), batch_size, drop_last)


def shards(size, batch_size, ranks, drop_last, even):
    """What each rank gets of 0, 1, ...; a single rank's sampler is used as it is."""
    if ranks == 1:
        plans = [list(batch_sampler(size, batch_size, drop_last))]
    else:
        plans = [list(BatchSamplerShard(batch_sampler(size, batch_size, drop_last), ranks, rank, even_batches=even))
                 for rank in range(ranks)]
    return {"size": size, "batch_size": batch_size, "drop_last": drop_last, "even": even, "ranks": plans}


def steps(size, batch_size, ranks, drop_last, accumulation, epochs, max_steps):
    sampler = batch_sampler(size, batch_size, drop_last)
    loader = range(len(sampler) if ranks == 1 else len(BatchSamplerShard(sampler, ranks, 0)))
    peer = types.SimpleNamespace(get_total_train_batch_size=lambda _: batch_size * ranks * accumulation, get_sp_size=lambda: 1,
                                 num_examples=lambda _: size)
    arguments = types.SimpleNamespace(max_steps=max_steps, num_train_epochs=epochs, gradient_accumulation_steps=accumulation,
                                      per_device_train_batch_size=batch_size)
    values = transformers.Trainer.set_initial_training_values(peer, arguments, loader)
    return [size, batch_size, ranks, int(drop_last), accumulation, epochs, max_steps, len(loader), values[1], values[6], values[0]]


def padding():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"[PAD]": 0, "a": 1}, unk_token="a")),
                                                     pad_token="[PAD]")
    cases = []
    for rows, multiple in (([[5, 6, 7], [8], [9, 9]], None), ([[5, 6, 7], [8], [9, 9]], 8), ([[3]], None), ([[1] * 8, [2] * 3], 8)):
        collate = transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)
        batch = collate([{"input_ids": ids, "attention_mask": [1] * len(ids), "label": i} for i, ids in enumerate(rows)])
        cases.append({"rows": rows, "multiple": multiple or 1, "labels": batch["labels"].tolist(),
                      "input_ids": batch["input_ids"].tolist(), "attention_mask": batch["attention_mask"].tolist()})
    return cases


def main():
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "accelerate": accelerate.__version__,
                "numpy": numpy.__version__}
    recorded = {
        "versions": versions,
        "trainer": [trainer_order(11, 4), trainer_order(11, 4, seed=3), trainer_order(11, 4, data_seed=7)],
        "orders": [sampler_order(*case) for case in ((1, 42, 0), (2, 42, 1), (50, 42, 0), (50, 42, 2), (301, 2**40 + 7, 5))],
        "length_groups": [length_groups(*case) for case in ((1, 5, 4, 42), (7, 3, 4, 0), (50, 20, 4, 42), (333, 12, 8, 7),
                                                            (900, 100, 2, 2**40 + 7), (1000, 30, 3, 1))],
        "shards": [shards(n, b, r, drop, even) for n in range(1, 14) for b in (1, 2, 3, 4) for r in (1, 2, 3, 4)
                   for drop, even in ((False, True), (True, True), (False, False))],
        "steps": [steps(n, b, r, drop, g, e, m) for n in (5, 16, 33, 100) for b in (1, 4, 8) for r in (1, 2, 3)
                  for drop in (False, True) for g in (1, 3) for e, m in ((3.0, -1), (0.4, -1), (2.5, -1), (3.0, 7))
                  if n // b // r > 0],
        "permutations": [{"size": n, "seed": seed, "order": numpy.random.default_rng(seed).permutation(n).tolist()}
                         for n, seed in ((1, 42), (2, 0), (10, 42), (257, 0), (300, 2**40 + 5), (1000, 1234567))],
        # Longer than a list is worth: how the shuffle of IMDb's 25,000 rows begins, and a checksum of all of it.
        "imdb_shuffle": {"first": numpy.random.default_rng(42).permutation(25000)[:10].tolist(),
                         "weighted_sum": int((numpy.random.default_rng(42).permutation(25000) * numpy.arange(25000)).sum())},
        "padding": padding(),
    }
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    sections = ",\n".join(
        json.dumps(key) + ": " + ("[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) + "\n]"
                                  if isinstance(value, list) else json.dumps(value)) for key, value in recorded.items())
    output.write_text("{" + sections + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
