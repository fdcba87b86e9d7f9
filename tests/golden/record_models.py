"""Records what transformers computes for two tiny random models: tests/data/models/tiny-bert and tiny-gpt2.

Each folder gets the model as transformers saves it, `golden.json` (inputs, logits, losses, and a summary of every gradient for
each case) and `gradients.safetensors` (the whole gradients of the first case). Run with transformers 5.17, torch 2.11:
    python tests/golden/record_models.py
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

ROOT = pathlib.Path(__file__).resolve().parent.parent / "data" / "models"
NUM_LABELS = 3
LENGTH = 11
REAL_TOKENS = [11, 7, 4]


def bert():
    return BertForSequenceClassification(BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=16, num_labels=NUM_LABELS))


def gpt2():
    return GPT2ForSequenceClassification(GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=16, num_labels=NUM_LABELS, pad_token_id=1,
        bos_token_id=2, eos_token_id=2))


def cases(model_type, pad):
    """Batches of three examples with padding on the right, on the left, with holes in the mask, or without any."""
    generator = torch.Generator().manual_seed(7)
    labels = {
        "single_label_classification": torch.tensor([2, 0, 1]),
        "multi_label_classification": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "regression": torch.tensor([0.5, -1.25, 2.0]),
    }
    wanted = [("right", "single_label_classification"), ("left", "single_label_classification"),
              ("right", "multi_label_classification"), ("right", "regression"), ("none", "single_label_classification")]
    if model_type == "bert":
        wanted.append(("holes", "single_label_classification"))
    for padding, problem in wanted:
        ids = torch.randint(3, 50, (3, LENGTH), generator=generator)
        types = torch.randint(0, 2, (3, LENGTH), generator=generator)
        mask = torch.ones_like(ids)
        for row, real in enumerate(REAL_TOKENS):
            if padding == "right":
                mask[row, real:] = 0
            elif padding == "left":
                mask[row, :LENGTH - real] = 0
            elif padding == "holes" and row > 0:
                mask[row, 2:2 + row] = 0
                mask[row, 9:] = 0
        ids[mask == 0] = pad
        batch = {"input_ids": ids}
        if padding != "none":
            batch["attention_mask"] = mask
            if model_type == "bert":
                batch["token_type_ids"] = types
        yield padding, problem, batch, labels[problem]


def record(model_type, make, pad):
    torch.manual_seed(1)
    model = make()
    with torch.no_grad():  # away from the values where mistakes cancel: zero biases, unit norms, tiny weights
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.eval()
    folder = ROOT / f"tiny-{model_type}"
    model.save_pretrained(folder)
    head = model.classifier if model_type == "bert" else model.score
    full_head = {name: value.detach().clone() for name, value in head.named_parameters()}
    golden = []
    for padding, problem, batch, labels in cases(model_type, pad):
        outputs = 1 if problem == "regression" else NUM_LABELS
        model.config.problem_type = problem
        model.config.num_labels = outputs
        model.num_labels = outputs
        for name, value in full_head.items():
            setattr(head, name, torch.nn.Parameter(value[:outputs].clone()))
        model.zero_grad()
        result = model(**batch, labels=labels)
        result.loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        if not golden:
            save_file({name: value.contiguous() for name, value in gradients.items()}, folder / "gradients.safetensors")
        golden.append({
            "padding": padding,
            "problem_type": problem,
            "batch": {name: value.tolist() for name, value in batch.items()},
            "labels": labels.tolist(),
            "logits": result.logits.tolist(),
            "loss": result.loss.item(),
            "gradients": {name: [value.sum().item(), value.norm().item(), value.flatten()[-1].item()]
                          for name, value in gradients.items()},
        })
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    record("bert", bert, 0)
    record("gpt2", gpt2, 1)
