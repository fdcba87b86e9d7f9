#!/usr/bin/env python3
"""The Hugging Face side of the tests and benchmarks of tasks.

    task_peer.py start FOLDER                  writes small models with their tokenizers, one folder for each of KINDS
    task_peer.py train CASES.json RESULT.json  trains each case with the Trainer; {name: {"history": [...], "evaluation": {...}}}
    task_peer.py load CASES.json RESULT.json   what the Auto classes make of the folders that dtrain wrote

A program of its own: a test in the repository's root would see the folder datasets/ as the library of that name. A case is
{"model", "task", "train", "eval", "max_length", "training"}, with "labels" (tags), "line_by_line", "prefix_space", "dropout" (of all kinds), "average" (of f1, or "seqeval") and "gpu" where needed.
"""
import gzip
import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy  # noqa: E402
import seqeval.metrics  # noqa: E402
import sklearn.metrics  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZERS = ROOT / "tests" / "data" / "tokenizers"
AUTO = {"sequence-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "masked-lm": transformers.AutoModelForMaskedLM, "causal-lm": transformers.AutoModelForCausalLM}
NO_LABEL = -100


# Small models with small vocabularies: the first words of BERT's, the first merges of GPT-2's.

def word_pieces(folder):
    words = (TOKENIZERS / "bert-base-uncased" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    single = [word for word in words if len(word) == 1 or len(word) == 3 and word.startswith("##")]
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + single
    kept += [word for word in words[1996:4500] if word not in set(kept)]
    vocabulary = {word: number for number, word in enumerate(kept)}
    transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True).save_pretrained(folder)
    return len(vocabulary)


def byte_pairs(folder, kind):
    words = json.loads((TOKENIZERS / "gpt2" / "vocab.json").read_text(encoding="utf-8"))
    words = sorted(words, key=words.get)[:256 + 2000]
    merges = (TOKENIZERS / "gpt2" / "merges.txt").read_text(encoding="utf-8").splitlines()[1:2001]
    merges = [tuple(merge.split()) for merge in merges]
    if kind == "gpt2":
        vocabulary = {word: number for number, word in enumerate(words + ["<|endoftext|>"])}
        transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges, pad_token="<|endoftext|>").save_pretrained(folder)
    else:
        words = ["<s>", "<pad>", "</s>", "<unk>"] + words + ["<mask>"]
        vocabulary = {word: number for number, word in enumerate(words)}
        transformers.RobertaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    return len(vocabulary)


def bert_config(vocab_size):
    return transformers.BertConfig(vocab_size=vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                                   max_position_embeddings=80, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def roberta_config(vocab_size):
    return transformers.RobertaConfig(vocab_size=vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      intermediate_size=128, max_position_embeddings=82, type_vocab_size=1, layer_norm_eps=1e-5,
                                      hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=1, bos_token_id=0,
                                      eos_token_id=2)


def distilbert_config(vocab_size):
    return transformers.DistilBertConfig(vocab_size=vocab_size, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=80,
                                         dropout=0.0, attention_dropout=0.0, qa_dropout=0.0, seq_classif_dropout=0.0)


def gpt2_config(vocab_size):
    return transformers.GPT2Config(vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=80, resid_pdrop=0.0, embd_pdrop=0.0,
                                   attn_pdrop=0.0, classifier_dropout=0.0, bos_token_id=vocab_size - 1, eos_token_id=vocab_size - 1,
                                   pad_token_id=vocab_size - 1)


KINDS = {
    "bert-token": (word_pieces, bert_config, "token-classification", 13),
    "bert-masked": (word_pieces, bert_config, "masked-lm", None),
    "gpt2-causal": (lambda folder: byte_pairs(folder, "gpt2"), gpt2_config, "causal-lm", None),
    "gpt2-sequence": (lambda folder: byte_pairs(folder, "gpt2"), gpt2_config, "sequence-classification", 2),
    "gpt2-token": (lambda folder: byte_pairs(folder, "gpt2"), gpt2_config, "token-classification", 13),
    "roberta-sequence": (lambda folder: byte_pairs(folder, "roberta"), roberta_config, "sequence-classification", 3),
    "roberta-token": (lambda folder: byte_pairs(folder, "roberta"), roberta_config, "token-classification", 13),
    "roberta-masked": (lambda folder: byte_pairs(folder, "roberta"), roberta_config, "masked-lm", None),
    "distilbert-sequence": (word_pieces, distilbert_config, "sequence-classification", 2),
    "distilbert-token": (word_pieces, distilbert_config, "token-classification", 13),
    "distilbert-masked": (word_pieces, distilbert_config, "masked-lm", None),
}


def start(folder):
    for number, (name, (write_tokenizer, make_config, task, num_labels)) in enumerate(KINDS.items()):
        transformers.set_seed(number)
        config = make_config(write_tokenizer(folder / name))
        if num_labels:
            config.num_labels = num_labels
        model = AUTO[task].from_config(config)
        with torch.no_grad():  # biases and norms too, so that none can be mistaken for another
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        model.save_pretrained(folder / name)


# Examples, as the scripts of transformers make them.

def lines_of(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if str(path).endswith(".gz") else open(path, encoding="utf-8", newline="\n")
    with opened as lines:
        return list(lines)


def words_and_tags(tokenizer, row, case):
    encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=case["max_length"])
    word = encoded.word_ids()
    labels = [NO_LABEL if each is None or i > 0 and word[i - 1] == each else row["ner_tags"][each] for i, each in enumerate(word)]
    return {"input_ids": encoded["input_ids"], "labels": labels}


def blocks(tokenizer, lines, case):
    length = case["max_length"]
    ids = [each for text in tokenizer([line if case["task"] == "causal-lm" else line.rstrip("\n") for line in lines])["input_ids"]
           for each in text]
    return [{"input_ids": ids[first:first + length]} for first in range(0, len(ids) - length + 1, length)]


def examples(tokenizer, path, case):
    lines = lines_of(path)
    if case["task"] == "token-classification":
        return [words_and_tags(tokenizer, json.loads(line), case) for line in lines]
    if case["task"] == "sequence-classification":
        rows = [json.loads(line) for line in lines]
        return [{"input_ids": tokenizer(row["text"], truncation=True, max_length=case["max_length"])["input_ids"], "labels": row["label"]}
                for row in rows]
    if case.get("line_by_line"):
        return [{"input_ids": tokenizer(line.rstrip("\n"), truncation=True, max_length=case["max_length"])["input_ids"]}
                for line in lines if line.strip()]
    return blocks(tokenizer, lines, case)


# dtrain's choice of the tokens to mask, from datasets/collators/token_collator.h.

MASKING = 0x6D61736B
WORD = 0xFFFFFFFF


def mix64(value):
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def philox(counter, key):
    """Philox4x32-10 of a list of four arrays of uint64 that hold 32 bits each."""
    counter, (a, b) = [numpy.asarray(each, dtype=numpy.uint64) for each in counter], key
    for _ in range(10):
        low, high = numpy.uint64(0xD2511F53) * counter[0], numpy.uint64(0xCD9E8D57) * counter[2]
        counter = [(high >> numpy.uint64(32)) ^ counter[1] ^ numpy.uint64(a), high & numpy.uint64(WORD),
                   (low >> numpy.uint64(32)) ^ counter[3] ^ numpy.uint64(b), low & numpy.uint64(WORD)]
        a, b = (a + 0x9E3779B9) & WORD, (b + 0xBB67AE85) & WORD
    return counter


def masked(ids, index, epoch, tokenizer, seed):
    mixed = mix64(mix64(seed) ^ (epoch + 1))
    zeros = numpy.zeros(len(ids), dtype=numpy.uint64)
    words = philox([numpy.arange(len(ids)), zeros + MASKING, zeros + (index & WORD), zeros + (index >> 32)], (mixed & WORD, mixed >> 32))
    ids = numpy.array(ids)
    special = numpy.isin(ids, tokenizer.all_special_ids)
    chosen = (words[0] / 2**32 < 0.15) & ~special
    fate = words[1] / 2**32
    labels = numpy.where(chosen, ids, NO_LABEL)
    ids = numpy.where(chosen & (fate < 0.8), tokenizer.mask_token_id, ids)
    random = (words[2] * numpy.uint64(len(tokenizer)) >> numpy.uint64(32)).astype(numpy.int64)
    ids = numpy.where(chosen & (fate >= 0.8) & (fate < 0.9), random, ids)
    return {"input_ids": ids.tolist(), "labels": labels.tolist()}


class Masked(torch.utils.data.Dataset):
    """Each example is asked for once an epoch, in evaluation as if before the first."""

    def __init__(self, rows, tokenizer, seed, evaluation):
        self.rows, self.tokenizer, self.seed, self.evaluation = rows, tokenizer, seed, evaluation
        self.epoch = [0] * len(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        epoch = -1 if self.evaluation else self.epoch[index]
        self.epoch[index] += 1
        return masked(self.rows[index]["input_ids"], index, epoch, self.tokenizer, self.seed)


# The Trainer.

def predicted_classes(logits, labels):
    return logits.argmax(-1)


def entity_scores(names, guess, labels):
    """Of the entities that the tags of the words spell, as the package seqeval has them."""
    def tags(rows):
        return [[names[tag] for tag, label in zip(row, wanted) if label != NO_LABEL] for row, wanted in zip(rows, labels)]
    wanted, found = tags(labels), tags(guess)
    return {name: getattr(seqeval.metrics, f"{name}_score")(wanted, found) for name in ("accuracy", "f1", "precision", "recall")}


def metrics_of(case):
    def compute(prediction):
        guess, labels = prediction.predictions, prediction.label_ids
        if case["task"] == "causal-lm":
            guess, labels = guess[:, :-1], labels[:, 1:]
        if case.get("average") == "seqeval":
            return entity_scores(case["labels"], guess, labels)
        kept = labels != NO_LABEL
        guess, labels = guess[kept], labels[kept]
        result = {"accuracy": sklearn.metrics.accuracy_score(labels, guess)}
        if case["task"].endswith("classification"):
            result["f1"] = sklearn.metrics.f1_score(labels, guess, average=case.get("average", "weighted"))
        return result
    return compute


def exact_clip(parameters, max_norm, norm_type=2):
    """torch's, with the sum of squares in double precision: over a vocabulary, float32 is off by 1e-4."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = float(sum(gradient.double().square().sum() for gradient in gradients).sqrt())
    if max_norm and norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / (norm + 1e-6))
    return torch.tensor(norm, dtype=torch.float64)


def make_model(case):
    config = transformers.AutoConfig.from_pretrained(case["model"])
    if case.get("labels"):
        config.num_labels = len(case["labels"])
    if case.get("dropout") is not None:
        for name, value in config.to_dict().items():
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(config, name, case["dropout"])
    return AUTO[case["task"]].from_pretrained(case["model"], config=config)


def train(case, output_dir):
    transformers.set_seed(case["training"].get("seed", 42))
    tokenizer = transformers.AutoTokenizer.from_pretrained(case["model"], **({"add_prefix_space": True} if case.get("prefix_space") else {}))
    seed = case["training"].get("seed", 42)
    sets = {name: examples(tokenizer, case[name], case) for name in ("train", "eval")}
    if case["task"] == "masked-lm":
        sets = {name: Masked(rows, tokenizer, seed, name == "eval") for name, rows in sets.items()}
    if case["task"] == "sequence-classification":
        collator = transformers.DataCollatorWithPadding(tokenizer)
    elif case["task"] == "causal-lm":
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    else:
        collator = transformers.DataCollatorForTokenClassification(tokenizer)
    model = make_model(case)
    trainer = transformers.Trainer(
        model=model, data_collator=collator, train_dataset=sets["train"], eval_dataset=sets["eval"],
        compute_metrics=metrics_of(case), preprocess_logits_for_metrics=predicted_classes,
        args=transformers.TrainingArguments(output_dir=output_dir, use_cpu=not case.get("gpu"), report_to="none", logging_steps=1, save_strategy="no",
                                            disable_tqdm=True, remove_unused_columns=False, **case["training"]))
    trainer.accelerator.clip_grad_norm_ = exact_clip
    # The model predicts all tokens but the first; in 5.17 the Trainer counts that one too unless told so.
    if case["task"] == "causal-lm":
        trainer._loss_shifts_labels = True
    trainer.train()
    history = list(trainer.state.log_history)
    return {"history": history, "evaluation": trainer.evaluate() if case.get("evaluate", True) else {}}


# What transformers reads.

def says(model, task, ids):
    """What tests/integration/logits_of.cpp prints of a row."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    if task.endswith("lm"):
        at = torch.arange(len(ids))
        asked = (torch.tensor(ids) * 7 + at) % logits.shape[-1]
        logits = torch.log_softmax(logits.double(), -1)[at, asked]
    return logits.flatten().tolist()


def load(case):
    model, report = AUTO[case["task"]].from_pretrained(case["model"], output_loading_info=True)
    model.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(case["model"])
    state = pathlib.Path(case["model"]) / "trainer_state.json"
    result = {"class": type(model).__name__, "missing": sorted(report["missing_keys"]), "unexpected": sorted(report["unexpected_keys"]),
              "said": [says(model, case["task"], ids) for ids in case["rows"]], "ids": tokenizer(case["text"])["input_ids"],
              "labels": {str(key): value for key, value in model.config.id2label.items()}}
    if state.is_file():
        result["state"] = transformers.TrainerState.load_from_json(str(state)).log_history
    return result


def main():
    command, source = sys.argv[1:3]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if command == "start":
        start(pathlib.Path(source))
        return
    cases = json.loads(pathlib.Path(source).read_text(encoding="utf-8"))
    target = pathlib.Path(sys.argv[3])
    results = {name: train(case, str(target.parent / "peer")) if command == "train" else load(case) for name, case in cases.items()}
    target.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
