#!/usr/bin/env python3
"""BART in the Hugging Face libraries, for test_seq2seq.py.

  seq2seq_peer.py make FOLDER SEED     a small model with a tokenizer of its own, and pairs of sentences
  seq2seq_peer.py train RECIPE         Seq2SeqTrainer: {"history": [...], "evaluation": {...}}; the recipe is JSON: "model", "train", "eval",
                                       "training", "output_dir", where needed also "dropout" (of all kinds), "lengths" of both texts, "gpu"
  seq2seq_peer.py write MODEL ROWS OPTIONS   texts of generate() for each of a list of options, one example at a time

A program of its own: a test in the repository's root would see the folder datasets/ as the library of that name.
"""
import json
import pathlib
import random
import sys

import sacrebleu
import torch
import transformers

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "red": "rote", "blue": "blaue", "old": "alte", "small": "kleine", "house": "Häuser",
         "dog": "Hunde", "tree": "Bäume", "sees": "sieht", "and": "und", "near": "bei", "the": "die", "no": "keine", "child": "Kinder"}


def sentence(generator):
    """Words, and their translation with each pair of neighbours swapped."""
    words = generator.choices(list(WORDS), k=generator.randint(1, 9))
    other = [WORDS[word] for word in words]
    for i in range(0, len(other) - 1, 2):
        other[i], other[i + 1] = other[i + 1], other[i]
    return {"translation": {"en": " ".join(words) + ".", "de": " ".join(other) + "."}}


def make(folder, seed):
    folder = pathlib.Path(folder)
    generator = random.Random(seed)
    rows = [sentence(generator) for _ in range(240)]
    for name, part in (("train", rows[:200]), ("eval", rows[200:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part), encoding="utf-8")
    import tokenizers
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator([text for row in rows for text in row["translation"].values()], vocab_size=400, show_progress=False,
                            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe._tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>",
                                                     sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")
    tokenizer.save_pretrained(folder)
    transformers.set_seed(seed)
    config = transformers.BartConfig(vocab_size=len(tokenizer), d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                                     decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=96, max_position_embeddings=48,
                                     attention_dropout=0.1, activation_dropout=0.1, init_std=0.1, scale_embedding=seed % 2 == 0)
    model = transformers.BartForConditionalGeneration(config)
    # Biases and norms that are 0 or 1 would hide mistakes.
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def rows_of(path):
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row.get("translation", row) for row in rows]


def train(recipe):
    tokenizer = transformers.AutoTokenizer.from_pretrained(recipe["model"])
    transformers.set_seed(recipe["training"].get("seed", 42))
    dropout = recipe.get("dropout", 0.0)
    model = transformers.BartForConditionalGeneration.from_pretrained(
        recipe["model"], **({} if dropout is None else {f"{kind}dropout": dropout for kind in ("", "attention_", "activation_")}))
    longest, longest_target = recipe.get("lengths", [24, 16])

    def tokenised(path):
        return [{"input_ids": tokenizer(row["en"], truncation=True, max_length=longest)["input_ids"],
                 "labels": tokenizer(text_target=row["de"], truncation=True, max_length=longest_target)["input_ids"]} for row in rows_of(path)]

    def judge(prediction):
        texts, wanted = (tokenizer.batch_decode([[token if token != -100 else tokenizer.pad_token_id for token in row] for row in rows],
                                                skip_special_tokens=True) for rows in (prediction.predictions, prediction.label_ids))
        texts, wanted = [text.strip() for text in texts], [text.strip() for text in wanted]
        return {"bleu": sacrebleu.corpus_bleu(texts, [wanted]).score,
                "exact_match": sum(a == b for a, b in zip(texts, wanted)) / len(texts)}

    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=transformers.Seq2SeqTrainingArguments(output_dir=recipe["output_dir"], use_cpu=not recipe.get("gpu"), report_to="none",
                                                   logging_steps=1, save_strategy="no", disable_tqdm=True, predict_with_generate=True, **recipe["training"]),
        train_dataset=tokenised(recipe["train"]), eval_dataset=tokenised(recipe["eval"]),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, model=model), compute_metrics=judge, processing_class=tokenizer)
    trainer.train()
    history = list(trainer.state.log_history)
    print(json.dumps({"history": history, "evaluation": trainer.evaluate() if recipe.get("evaluate", True) else {}}))


def write(folder, rows, variants):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BartForConditionalGeneration.from_pretrained(folder).eval()
    inputs = [tokenizer(row["en"], truncation=True, max_length=24, return_tensors="pt") for row in rows_of(rows)]
    print(json.dumps([[tokenizer.decode(model.generate(**each, **options)[0], skip_special_tokens=True).strip() for each in inputs]
                      for options in variants]))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "train":
        train(json.loads(sys.argv[2]))
    else:
        write(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
