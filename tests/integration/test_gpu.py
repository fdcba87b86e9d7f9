"""Training on a GPU: the numbers of the CPU, in every task; the same bits twice; precisions, memory, commands."""
import json
import os
import subprocess

import pytest

import harness
import test_parity
import test_seq2seq
from test_seq2seq import bart  # noqa: F401
from test_tasks import CASES, data, start, task_recipe  # noqa: F401

# DTRAIN_TEST_GPU=0 runs these tests on the CPU, to try the tests themselves.
GPU = os.environ.get("DTRAIN_TEST_GPU", "1") == "1"
pytestmark = pytest.mark.skipif(GPU and not os.path.exists("/dev/nvidiactl"), reason="this machine has no GPU")


def trained(recipe, *arguments, code=0, **environment):
    outcome = harness.run(recipe, *arguments, **environment)
    assert outcome.code == code, outcome.text
    return outcome


def both(make_recipe, tmp_path):
    """The log records of a run on the GPU and of the same on the CPU."""
    records = []
    for name, use_cpu in (("gpu", not GPU), ("cpu", True)):
        folder = tmp_path / name
        folder.mkdir()
        trained(make_recipe(folder), "--set", f"training.use_cpu={json.dumps(use_cpu)}")
        records.append(harness.log_records(folder / "out"))
    return records


def assert_near(mine, expected, key, rel, abs=1e-12):
    mine, expected = ([record[key] for record in records if key in record] for records in (mine, expected))
    assert expected
    assert mine == pytest.approx(expected, rel=rel, abs=abs), key


@pytest.mark.parametrize("name", CASES)
def test_every_task_equals_the_cpu(name, start, data, tmp_path):  # noqa: F811
    weights, task, kind, more = CASES[name]
    gpu, cpu = both(lambda folder: task_recipe(folder, start / weights, task, data[kind], more, model={"dropout": 0.1},
                                               training={"max_steps": 12}), tmp_path)
    assert_near(gpu, cpu, "loss", 1e-4)
    assert_near(gpu, cpu, "grad_norm", 1e-3)
    assert_near(gpu, cpu, "eval_loss", 1e-4)
    assert_near(gpu, cpu, "eval_accuracy", 0.02)


OPTIONS = {"recompute": {"gradient_checkpointing": True}, "neftune": {"neftune_noise_alpha": 5.0},
           "smoothing": {"label_smoothing_factor": 0.1, "train_sampling_strategy": "group_by_length"},
           "adafactor": {"optim": "adafactor"}, "lion": {"optim": "lion", "learning_rate": 1e-4}, "sgd": {"optim": "sgd"},
           "accumulation": {"gradient_accumulation_steps": 3, "dataloader_num_workers": 2, "torch_empty_cache_steps": 2},
           "sharded": {"shard_optimizer": True}, "deterministic": {"full_determinism": True}}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_the_cpu(name, start, data, tmp_path):  # noqa: F811
    gpu, cpu = both(lambda folder: task_recipe(folder, start / "bert-token", "token-classification", data["words"],
                                               model={"dropout": 0.1}, training={"max_steps": 8} | OPTIONS[name]), tmp_path)
    assert_near(gpu, cpu, "loss", 1e-4)
    assert_near(gpu, cpu, "eval_loss", 1e-4)


def test_bart_writes_the_texts_of_the_cpu(bart, tmp_path):  # noqa: F811
    gpu, cpu = both(lambda folder: test_seq2seq.recipe(folder, bart[1], model={"dropout": 0.1}, metrics={"compute": ["bleu", "perplexity"]},
                                                       training={"eval_strategy": "epoch", "predict_with_generate": True,
                                                                 "generation_num_beams": 3}), tmp_path)
    assert_near(gpu[:10], cpu[:10], "loss", 1e-4)
    assert_near(gpu, cpu, "loss", 2e-2)  # the rate is high: rounding grows
    assert_near(gpu, cpu, "eval_bleu", 0.1)


def test_fifty_steps_equal_the_trainer(gpt2_start, tmp_path):
    expected = test_parity.golden("gpt2")
    records = test_parity.train("gpt2", gpt2_start, tmp_path, None, 16, 1, use_cpu=not GPU)
    for ours, theirs in zip([record for record in records if "loss" in record], expected["train"], strict=True):
        for key in ("loss", "grad_norm", "learning_rate", "epoch"):
            assert ours[key] == pytest.approx(theirs[key], rel=2e-4, abs=1e-12), (theirs["step"], key)
    evaluations = [record for record in records if "eval_loss" in record]
    for ours, theirs in zip(evaluations, expected["eval"], strict=True):
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=2e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_precisions_learn_as_float32_does(precision, start, data, tmp_path):  # noqa: F811
    losses = {}
    for name, training in (("fp32", {}), (precision, {precision: True})):
        folder = tmp_path / name
        folder.mkdir()
        trained(task_recipe(folder, start / "bert-token", "token-classification", data["words"], model={"dropout": 0.1},
                            training={"max_steps": 30, "use_cpu": not GPU} | training))
        records = harness.log_records(folder / "out")
        losses[name] = [record["loss"] for record in records if "loss" in record]
        assert [record["eval_loss"] for record in records if "eval_loss" in record]
    assert losses[precision] != losses["fp32"]
    if precision != "fp16":  # whose first steps overflow and are skipped, until the scale of the loss fits
        assert losses[precision][:10] == pytest.approx(losses["fp32"][:10], rel=3e-2)
    assert sum(losses[precision][-10:]) == pytest.approx(sum(losses["fp32"][-10:]), rel=0.1 if precision == "fp16" else 5e-2)


@pytest.mark.parametrize("determinism", [True, False], ids=["deterministic", "default"])
def test_stopped_and_resumed_equals_uninterrupted(determinism, start, data, tmp_path):  # noqa: F811
    def recipe(name):
        folder = tmp_path / name
        folder.mkdir()
        return task_recipe(folder, start / "bert-token", "token-classification", data["words"], model={"dropout": 0.1},
                           training={"max_steps": 24, "use_cpu": not GPU, "full_determinism": determinism,
                                     "save_strategy": "steps", "save_steps": 12}), folder / "out"
    straight, straight_out = recipe("straight")
    trained(straight)
    stopped, out = recipe("stopped")
    trained(stopped, code=75, DTRAIN_FAULT="rank=0 point=step at=7 kind=preempt")
    trained(stopped, "--set", "training.resume_from_checkpoint=latest")
    for name in ("model.safetensors", "checkpoint-24/optimizer.safetensors"):
        assert harness.digest(out / name) == harness.digest(straight_out / name), name


def little_memory():
    """The environment of a process that gets 112 MiB of the GPU: a batch of 128 needs more; 1 needs 96, mostly for cuBLAS."""
    if not GPU:
        return {}
    printed = subprocess.run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"], check=True, capture_output=True,
                             text=True)
    return {"PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{112 / int(printed.stdout.split()[0]):.6f}"}


def test_memory_that_runs_out_makes_batches_smaller(start, data, tmp_path):  # noqa: F811
    recipe = task_recipe(tmp_path, start / "bert-token", "token-classification", data["words"],
                         training={"max_steps": 2, "use_cpu": not GPU, "auto_find_batch_size": True, "skip_memory_metrics": False,
                                   "per_device_train_batch_size": 128})
    outcome = trained(recipe, **little_memory())
    results = json.loads((tmp_path / "out" / "train_results.json").read_text())
    if GPU:
        assert "per_device_train_batch_size" in outcome.text and results["train_mem_gpu_peaked_delta"] > 0


def test_memory_that_runs_out_is_an_error_with_advice(start, data, tmp_path):  # noqa: F811
    if not GPU:
        return
    recipe = task_recipe(tmp_path, start / "bert-token", "token-classification", data["words"],
                         training={"max_steps": 2, "use_cpu": False, "per_device_train_batch_size": 128})
    outcome = trained(recipe, code=70, **little_memory())
    assert len(outcome.error_lines()) == 1 and "memory" in outcome.error_lines()[0] and "hint:" in outcome.text


def test_commands_equal_the_cpu(start, data, tmp_path):  # noqa: F811
    recipe = task_recipe(tmp_path, start / "bert-token", "token-classification", data["words"],
                         training={"max_steps": 4, "use_cpu": not GPU})
    trained(recipe)
    tags, metrics = [], []
    for use_cpu in (True, not GPU):
        path = tmp_path / f"tags-{use_cpu}.jsonl"
        setting = f"training.use_cpu={json.dumps(use_cpu)}"
        assert harness.run("predict", recipe, "--out", path, "--set", setting).code == 0
        tags.append([json.loads(line)["tags"] for line in path.read_text(encoding="utf-8").splitlines()])
        outcome = harness.run("evaluate", recipe, "--set", setting)
        assert outcome.code == 0, outcome.text
        metrics.append(outcome.text)
    same = sum(a == b for a, b in zip(*tags, strict=True))
    assert same >= 0.95 * len(tags[0]) and metrics[0]
    for precision in ("bf16_full_eval", "fp16_full_eval") if GPU else ():
        assert harness.run("evaluate", recipe, "--set", f"training.{precision}=true", "--set", "training.use_cpu=false").code == 0


def test_a_gpu_serves_one_rank(start, data, tmp_path):  # noqa: F811
    recipe = task_recipe(tmp_path, start / "bert-token", "token-classification", data["words"],
                         training={"max_steps": 2, "use_cpu": False})
    ranks = len([name for name in os.listdir("/dev") if name.removeprefix("nvidia").isdigit()]) + 1
    outcome = harness.run(recipe, ranks=ranks, OMPI_MCA_plm_rsh_agent="sh")  # mpirun wants one, and not every machine has ssh
    if GPU:
        assert outcome.code == 64 and len(outcome.error_lines()) == 1 and "a GPU serves one rank" in outcome.text, outcome.text


def test_doctor_names_the_gpu():
    outcome = harness.run("doctor")
    assert outcome.code == 0, outcome.text
    if GPU:
        assert "NVIDIA" in outcome.text
