#!/usr/bin/env python3
"""Records optimizer numbers of torch and transformers for tests/unit/trainer: schedules, groups, optimizers, loss scaling.

    record_optim.py [OUTPUT.json]      default: tests/data/golden/optim.json (seconds)
"""
import fnmatch
import json
import pathlib
import sys
import tempfile

import torch
import transformers
from transformers.optimization import get_scheduler

OUTPUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden" / "optim.json"


def schedule(name, warmup, total, peak, kwargs):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = get_scheduler(name, optimizer, warmup, total, kwargs or None)
    factor = scheduler.lr_lambdas[0]
    steps = sorted({0, 1, max(0, warmup - 1), warmup, warmup + 1, total - 1, total, total + 1, total + 5}
                   | {round(total * part / 23) for part in range(24)})
    points = []
    for step in steps:
        try:
            points.append([step, float(factor(step))])
        except ZeroDivisionError:  # polynomial with warmup == total: the peer has no value there
            continue
    return {"name": name, "warmup": warmup, "total": total, "learning_rate": peak, "kwargs": kwargs, "points": points}


def schedules():
    lengths = [(0, 1), (0, 100), (1, 100), (10, 100), (37, 100), (99, 100), (100, 100), (120, 100), (500, 123457)]
    shapes = [("constant", {}), ("constant_with_warmup", {}), ("linear", {}), ("cosine", {}),
              ("cosine", {"num_cycles": 1.5}), ("cosine_with_restarts", {}), ("cosine_with_restarts", {"num_cycles": 3}),
              ("polynomial", {}), ("polynomial", {"lr_end": 1e-6, "power": 2.5}),
              ("inverse_sqrt", {}), ("inverse_sqrt", {"timescale": 250}), ("cosine_with_min_lr", {"min_lr": 1e-5}),
              ("cosine_with_min_lr", {"min_lr_rate": 0.2, "num_cycles": 1.5}), ("cosine_warmup_with_min_lr", {"min_lr": 3e-6}),
              ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.3, "num_cycles": 0.25}),
              ("warmup_stable_decay", {"num_decay_steps": 20}),
              ("warmup_stable_decay", {"num_decay_steps": 30, "num_stable_steps": 7, "warmup_type": "cosine", "decay_type": "1-sqrt",
                                       "min_lr_ratio": 0.1}),
              ("warmup_stable_decay", {"num_decay_steps": 11, "warmup_type": "1-sqrt", "decay_type": "linear", "min_lr_ratio": 0.05})]
    return [schedule(name, warmup, total, 3e-5, kwargs) for name, kwargs in shapes for warmup, total in lengths]


def metric_schedules():
    """Rates of two parameter groups, evaluation by evaluation; null is a metric that is not a number."""
    runs = [("reduce_lr_on_plateau", {}),
            ("reduce_lr_on_plateau", {"patience": 1, "factor": 0.5, "threshold": 1e-2, "cooldown": 2}),
            ("reduce_lr_on_plateau", {"patience": 0, "mode": "max", "threshold_mode": "abs", "threshold": 0.01, "min_lr": 2e-4, "factor": 0.3}),
            ("reduce_lr_on_plateau", {"patience": 2, "mode": "max", "factor": 0.7, "eps": 1e-4}),
            ("reduce_lr_on_plateau", {"patience": 1, "threshold_mode": "abs", "min_lr": 1e-4}),
            ("greedy", {"min_lr": 1e-5}),
            ("greedy", {"min_lr": 1e-5, "patience": 1, "cooldown": 3, "warmup": 1}),
            ("greedy", {"mode": "max", "patience": 0, "warmup": 2, "cooldown": 1, "max_lr": 3e-3, "min_lr": 1e-4, "factor": 0.5,
                        "threshold": 1e-3, "threshold_mode": "rel"}),
            ("greedy", {"patience": 0, "min_lr": 4e-4, "factor": 0.4, "reset_start": 2}),
            ("greedy", {"smooth": True, "window_size": 3, "patience": 0, "min_lr": 4e-4, "factor": 0.4, "reset_start": 2}),
            ("greedy", {"smooth": True, "mode": "max", "window_size": 5, "patience": 1, "min_lr": 1e-4, "max_lr": 0.5, "factor": 0.8})]
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand(70, generator=generator, dtype=torch.float64).tolist()
    # Falls, then stays about the same with more and with less noise, then falls again.
    metrics = [2.0 - 0.08 * min(i, 12) + (0.002 if i > 25 else 0.1) * noise[i] - 0.03 * max(0, i - 55) for i in range(70)]
    result = {"peaks": [5e-4, 2e-3], "runs": []}
    for name, kwargs in runs:
        values = list(metrics) if kwargs.get("mode") != "max" else [2.5 - value for value in metrics]
        if not kwargs.get("smooth"):
            values[20] = float("nan")
        optimizer = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak} for peak in result["peaks"]])
        scheduler = get_scheduler(name, optimizer, 0, 100, dict(kwargs))
        rates = []
        for value in values:
            scheduler.step(value)
            rates.append([group["lr"] for group in optimizer.param_groups])
        assert len({rate for rate, _ in rates}) > 1, (name, kwargs)
        result["runs"].append({"name": name, "kwargs": kwargs, "metrics": [None if value != value else value for value in values],
                               "rates": rates})
    return result


def parameter_groups():
    """20 steps with torch's parameter groups: rates and decay by name, a schedule over them."""
    torch.manual_seed(13)
    shapes = [("encoder.layer.0.weight", (7, 5)), ("encoder.layer.0.bias", (5,)), ("encoder.layer.1.weight", (4, 4)),
              ("encoder.layer.1.bias", (4,)), ("classifier.weight", (2, 5)), ("classifier.bias", (2,)), ("pooler.weight", (3, 3))]
    groups = [{"pattern": "classifier.*", "learning_rate": 3e-2, "weight_decay": 0.2}, {"pattern": "*.layer.[0-0].*", "learning_rate": 2e-3},
              {"pattern": "encoder.*", "weight_decay": 0.0}]
    base, decay = 1e-2, 0.05
    start = [torch.randn(shape) * 0.1 for _, shape in shapes]
    gradients = [[torch.randn(shape) for _, shape in shapes] for _ in range(20)]
    result = {"learning_rate": base, "weight_decay": decay, "groups": groups,
              "parameters": [{"name": n, "shape": list(s), "decay": n.endswith("weight"), "start": p.flatten().tolist()}
                             for p, (n, s) in zip(start, shapes)],
              "gradients": [[g.flatten().tolist() for g in step] for step in gradients], "runs": []}
    for name, kind, kwargs in [("adamw_torch", torch.optim.AdamW, {}), ("sgd", torch.optim.SGD, {})]:
        parameters = [torch.nn.Parameter(p.clone()) for p in start]
        torch_groups = []
        for parameter, (parameter_name, _) in zip(parameters, shapes):
            group = next((g for g in groups if fnmatch.fnmatchcase(parameter_name, g["pattern"])), {})
            torch_groups.append({"params": [parameter], "lr": group.get("learning_rate", base),
                                 "weight_decay": group.get("weight_decay", decay if parameter_name.endswith("weight") else 0.0)})
        optimizer = kind(torch_groups, lr=base, **kwargs)
        scheduler = get_scheduler("linear", optimizer, 4, 25)
        values = []
        for step in gradients:
            for parameter, gradient in zip(parameters, step):
                parameter.grad = gradient.clone()
            optimizer.step()
            scheduler.step()
            values.append([p.detach().flatten().tolist() for p in parameters])
        result["runs"].append({"name": name, "values": [values[0], values[1], values[6], values[19]], "steps": [0, 1, 6, 19]})
    return result


def decay_groups():
    models = {
        "bert": transformers.BertForSequenceClassification(transformers.BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)),
        "gpt2": transformers.GPT2ForSequenceClassification(transformers.GPT2Config(
            vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=8)),
    }
    result = {}
    for kind, model in models.items():
        layer_norm = {f"{prefix}.{name}" for prefix, module in model.named_modules()
                      if isinstance(module, torch.nn.LayerNorm) for name, _ in module.named_parameters(recurse=False)}
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(output_dir=folder, use_cpu=True, weight_decay=0.01, report_to="none")
            trainer = transformers.Trainer(model=model, args=arguments)
            decayed = set(trainer.get_decay_parameter_names(model))
            optimizer = trainer.create_optimizer()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        result[kind] = {
            "parameters": [{"name": name, "layer_norm": name in layer_norm, "decay": name in decayed}
                           for name, _ in model.named_parameters()],
            "optimizer_order": order,
        }
    odd = ["norm.weight", "a.norm.weight", "a.normal.weight", "a.q_norm.weight", "a.norm_q.weight", "a.RMSNorm.weight",
           "a.LayerNorm.scale", "a.unbiased.weight", "a.norm", "norm", "wte.weight", "a.post_norms.weight"]
    result["odd_names"] = []
    for name in odd:
        module = torch.nn.Module()
        inner = module
        *parts, last = name.split(".")
        for part in parts:
            child = torch.nn.Module()
            inner.add_module(part, child)
            inner = child
        inner.register_parameter(last, torch.nn.Parameter(torch.zeros(1)))
        forbidden = transformers.Trainer.get_decay_parameter_names(None, module)
        result["odd_names"].append({"name": name, "decay": name in forbidden})
    return result


def adamw():
    torch.manual_seed(7)
    shapes = [("dense.weight", (7, 5), True), ("dense.bias", (5,), False), ("norm.weight", (3,), False)]
    parameters = [torch.nn.Parameter(torch.randn(shape) * 0.1) for _, shape, _ in shapes]
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    beta1, beta2, epsilon, weight_decay, max_norm = 0.9, 0.98, 1e-7, 0.05, 1.0
    optimizer = torch.optim.AdamW(
        [{"params": [p for p, s in zip(parameters, shapes) if s[2]], "weight_decay": weight_decay},
         {"params": [p for p, s in zip(parameters, shapes) if not s[2]], "weight_decay": 0.0}, {"params": [frozen]}],
        lr=0.0, betas=(beta1, beta2), eps=epsilon, fused=False, foreach=False)
    result = {"options": {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": weight_decay},
              "max_norm": max_norm,
              "parameters": [{"name": n, "shape": list(s), "decay": d, "start": p.detach().flatten().tolist()}
                             for p, (n, s, d) in zip(parameters, shapes)],
              "steps": []}
    for step in range(20):
        rate = 1e-2 * min(step, 5) / 5 * (1 - step / 25)
        for index, parameter in enumerate(parameters):
            # The third has no gradient in two steps: it, its moments and its step count stay as they are.
            missing = index == 2 and step in (3, 4)
            parameter.grad = None if missing else torch.randn(parameter.shape) * (0.02 if step % 3 else 3.0)
        gradients = [None if p.grad is None else p.grad.flatten().tolist() for p in parameters]
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        result["steps"].append({"learning_rate": rate, "gradients": gradients, "grad_norm": norm.item(),
                                "values": [p.detach().flatten().tolist() for p in parameters]})
    result["end"] = [{"exp_avg": optimizer.state[p]["exp_avg"].flatten().tolist(),
                      "exp_avg_sq": optimizer.state[p]["exp_avg_sq"].flatten().tolist(),
                      "step": int(optimizer.state[p]["step"])} for p in parameters]
    return result


def other_optimizers():
    """20 steps of each optimizer on the same gradients, at a falling rate, with decay on some parameters."""
    runs = [("sgd", ""), ("sgd", "momentum=0.9"), ("sgd", "momentum=0.8,dampening=0.3"), ("sgd", "momentum=0.9,nesterov=true"),
            ("adagrad", ""), ("adagrad", "lr_decay=0.1,eps=1e-6"), ("rmsprop", ""),
            ("rmsprop", "alpha=0.9,momentum=0.5,centered=true,eps=1e-5"), ("rmsprop", "centered=True"), ("adafactor", "")]
    torch.manual_seed(11)
    shapes = [("dense.weight", (7, 5), True), ("dense.bias", (5,), False), ("stack.weight", (2, 3, 4), True)]
    start = [torch.randn(shape) * 0.1 for _, shape, _ in shapes]
    gradients = [[torch.randn(shape) * (0.02 if step % 3 else 3.0) for _, shape, _ in shapes] for step in range(20)]
    rates = [1e-2 * (1 - step / 25) for step in range(20)]
    weight_decay = 0.05
    result = {"weight_decay": weight_decay, "rates": rates, "runs": [],
              "parameters": [{"name": n, "shape": list(s), "decay": d, "start": p.flatten().tolist()}
                             for p, (n, s, d) in zip(start, shapes)],
              "gradients": [[g.flatten().tolist() for g in step] for step in gradients]}
    for name, text in runs:
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(output_dir=folder, use_cpu=True, optim=name, optim_args=text or None,
                                                       report_to="none")
            kind, kwargs = transformers.Trainer.get_optimizer_cls_and_kwargs(arguments)
        parameters = [torch.nn.Parameter(p.clone()) for p in start]
        optimizer = kind([{"params": [p for p, s in zip(parameters, shapes) if s[2]], "weight_decay": weight_decay},
                          {"params": [p for p, s in zip(parameters, shapes) if not s[2]], "weight_decay": 0.0}], **kwargs)
        values = []
        for step in range(20):
            for parameter, gradient in zip(parameters, gradients[step]):
                parameter.grad = gradient.clone()
            for group in optimizer.param_groups:
                group["lr"] = rates[step]
            optimizer.step()
            if step in (0, 1, 2, 9, 19):
                values.append([step, [p.detach().flatten().tolist() for p in parameters]])
        result["runs"].append({"name": name, "arguments": text, "values": values})
    return result


def grad_scaler():
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=4)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    outcomes = [1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    scales = []
    for good in outcomes:
        parameter.grad = torch.ones(1) if good else torch.full((1,), float("inf"))
        scaler.scale(torch.ones(1))
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return {"growth_interval": 4, "finite": outcomes, "scales": scales}


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    data = {"recorded_with": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "schedules": schedules(), "metric_schedules": metric_schedules(),
            "parameter_groups": parameter_groups(), "decay_groups": decay_groups(), "adamw": adamw(),
            "other_optimizers": other_optimizers(), "grad_scaler": grad_scaler()}
    output.write_text(json.dumps(data) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
