"""Exactness: an interrupted run ends with the bits of one that never stopped, on 1, 2 and 4 ranks and when it moves between them;
numbers that are not finite enter no weights; a rank that has drifted is named."""
import itertools
import json
import random
import shutil

import pytest
from safetensors.numpy import load_file, save_file

import harness

STEPS = 200  # of the reproducible runs
TIMES = ("_runtime", "_per_second", "seconds")


def recipe(folder, model, **training):
    """Two examples a rank and micro-batch, dropout on, evaluations and logs that do not fall together."""
    options = {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "weight_decay": 0.01, "warmup_steps": 5, "logging_steps": 3,
               "eval_strategy": "steps", "eval_steps": 7, "save_strategy": "steps", "save_steps": 7, "save_total_limit": 2,
               "load_best_model_at_end": True, "metric_for_best_model": "loss", "resume_from_checkpoint": "latest"}
    folder.mkdir(exist_ok=True)
    return harness.recipe(folder, model, training=options | training)


def run(path, ranks, code=0, **environment):
    """Under mpirun also with one rank, whose memory layout then is as that of the others."""
    outcome = harness.run(path, ranks=ranks, **environment)
    assert code is None or outcome.code == code, outcome.text
    return outcome


def timeless(record):
    return {key: value for key, value in record.items() if not key.endswith(TIMES) and "_mem_" not in key}


def result(folder):
    """All that must be equal to the last bit: weights, optimizer, best choice, metrics and the log of steps."""
    out = folder / "out"
    last = max(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((out / "trainer_state.json").read_text())
    return {"model": harness.digest(out / "model.safetensors"), "last": last.name, "weights": harness.digest(last / "model.safetensors"),
            "optimizer": harness.digest(last / "optimizer.safetensors"), "best": [state["best_global_step"], state["best_metric"]],
            "history": [timeless(record) for record in state["log_history"]],
            "log": [timeless(record) for record in harness.log_records(out)]}


def assert_equal(actual, expected):
    for key, value in expected.items():
        assert actual[key] == value, key


def reproducible(folder, model, ranks, **training):
    return recipe(folder, model, reproducible=True, gradient_accumulation_steps=4 // ranks,
                  **({"max_steps": STEPS, "save_steps": 20, "eval_steps": 20, "logging_steps": 7} | training))


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("one_rank")
    run(reproducible(folder, tiny_bert, 1), 1)
    return result(folder)


# Seconds between evaluations and the ranks' own times are no part of it; what is of one rank alone is not either.
def without_ranks(outcome):
    return outcome | {"log": [{key: value for key, value in record.items() if key != "rank_seconds"} for record in outcome["log"]]}


@pytest.mark.row("F67", "1, 2 and 4 ranks, reproducible: one digest after 200 steps")
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_same_bits(row, ranks, tmp_path, tiny_bert, one_rank):
    for number in row.tries(sample=1, full=20):
        folder = tmp_path / str(number)
        run(reproducible(folder, tiny_bert, ranks), ranks)
        assert_equal(without_ranks(result(folder)), without_ranks(one_rank))
        row.passed()


@pytest.mark.row("F67", "killed on 1 rank, on 4, and finished on 2: the digest of the uninterrupted run")
def test_a_run_moves_between_ranks(row, tmp_path, tiny_bert, one_rank):
    for number in row.tries(sample=1, full=100, share=1 / 20):
        draw = random.Random(number)
        first = draw.randrange(25, STEPS - 60)
        second = draw.randrange(first + 25, STEPS)  # with a checkpoint in between, so that each move is from one to another
        folder = tmp_path / str(number)
        path = reproducible(folder, tiny_bert, 1)  # its accumulation is that of one rank: resuming adapts it
        run(path, 1, code=None, DTRAIN_FAULT=f"rank=0 point=step at={first} kind=kill")
        moved = run(path, 4, code=None, DTRAIN_FAULT=f"rank={draw.randrange(4)} point=step at={second} kind=kill")
        assert "resuming with 4 ranks (was 1): gradient_accumulation_steps = 1 (was 4)" in moved.text
        assert "resuming with 2 ranks (was 4): gradient_accumulation_steps = 2 (was 1)" in run(path, 2).text
        assert_equal(without_ranks(result(folder)), without_ranks(one_rank))
        row.passed()
        shutil.rmtree(folder)


@pytest.mark.row("F27", "a number of ranks with which a step cannot be divided")
def test_ranks_that_do_not_divide_a_step(row, tmp_path, tiny_bert):
    for _ in row.tries(sample=1, full=1):
        path = reproducible(tmp_path, tiny_bert, 4, max_steps=20)
        refused = run(path, 3, code=64)
        assert "3 micro-batches = 1 gradient_accumulation_steps x 3 ranks" in refused.text
        run(path, 2)
        refused = run(path, 3, code=64)
        assert "cannot go on with 3 ranks" in refused.text and "1 x 2 micro-batches cannot be divided among 3 ranks" in refused.text
        row.passed()


# Steps of an epoch of 64 examples: 16 on one rank without accumulation of two micro-batches; 10 is in the middle, 16 and 8 are borders.
MATRIX = list(itertools.product([1, 2, 4], [False, True], ["kill", "preempt"], [4, 8, 10, 16, 21]))
SAMPLE = [(2, True, "preempt", 8), (1, False, "kill", 21)]


@pytest.mark.row("P2", "interrupted and resumed: the bits of the uninterrupted run; every save point, precision and number of ranks")
def test_resume_is_exact(row, tmp_path, tiny_bert):
    whole = {}
    cases = SAMPLE + [case for case in MATRIX if case not in SAMPLE]
    for number in row.tries(sample=len(SAMPLE), full=len(cases), share=1 / 6):
        ranks, bf16, kind, step = cases[number]
        training = {"bf16": bf16, "gradient_accumulation_steps": 2, "max_steps": 24}
        if (ranks, bf16) not in whole:
            folder = tmp_path / f"whole-{ranks}-{bf16}"
            run(recipe(folder, tiny_bert, **training), ranks)
            whole[ranks, bf16] = result(folder)
        folder = tmp_path / f"{number}"
        path = recipe(folder, tiny_bert, **training)
        stopped = run(path, ranks, code=75 if kind == "preempt" else None,
                      DTRAIN_FAULT=f"rank={ranks - 1} point=step at={step} kind={kind}")
        assert stopped.code != 0
        run(path, ranks)
        assert_equal(without_ranks(result(folder)), without_ranks(whole[ranks, bf16]))
        row.passed()
        shutil.rmtree(folder)


@pytest.mark.row("F66", "the same run twice: identical digests and logs")
def test_two_runs_are_one(row, tmp_path, tiny_bert):
    first = None
    for number in row.tries(sample=2, full=100):
        folder = tmp_path / str(number)
        run(recipe(folder, tiny_bert, max_steps=14), 2)
        outcome = without_ranks(result(folder))
        first = first or outcome
        assert_equal(outcome, first)
        row.passed()
        shutil.rmtree(folder)


NOT_FINITE = list(itertools.product(["stop", "skip"], ["loss", "gradient"], ["nan", "inf"], [1, 2, 4]))


@pytest.mark.row("F60", "NaN or infinity in the loss or the gradient of one rank, at any step")
def test_numbers_that_are_not_finite(row, tmp_path, tiny_bert):
    for number in row.tries(sample=2, full=1000, share=1 / 20):
        draw = random.Random(number)
        policy, point, kind, ranks = draw.choice(NOT_FINITE) if number > 1 else [("stop", "loss", "nan", 2), ("skip", "gradient", "inf", 2)][number]
        step, rank = draw.randrange(2, 9), draw.randrange(ranks)
        folder = tmp_path / str(number)
        path = recipe(folder, tiny_bert, max_steps=9, save_steps=1, eval_steps=9, save_total_limit=None, load_best_model_at_end=False)
        outcome = harness.run(path, "--set", f"reliability.not_finite={policy}", ranks=ranks,
                              DTRAIN_FAULT=f"rank={rank} point={point} at={step} kind={kind}")
        assert outcome.code == (65 if policy == "stop" else 0), outcome.text
        assert f"step {step}: the {point} is not finite" in outcome.text and f"rank {rank}: " in outcome.text, outcome.text
        weights = {int(path.parent.name.split("-")[1]): harness.digest(path) for path in (folder / "out").glob("checkpoint-*/model.safetensors")}
        if policy == "stop":
            assert set(weights) == set(range(1, step))
        else:
            assert [later for later in range(2, 10) if weights[later] == weights[later - 1]] == [step]
            assert [record for record in harness.log_records(folder / "out") if "skipped_steps" in record][-1]["skipped_steps"] == 1
        row.passed()
        shutil.rmtree(folder)


@pytest.mark.row("F63", "a flipped bit in the weights, the optimizer or a reduced bucket of one rank")
def test_a_flipped_bit_is_noticed(row, tmp_path, tiny_bert):
    for number in row.tries(sample=1, full=1000, share=1 / 20):
        draw = random.Random(number)
        point, ranks, interval = draw.choice(["weights", "optimizer", "bucket"]), draw.choice([3, 4]), draw.randrange(1, 6)
        step, rank = draw.randrange(1, 12), draw.randrange(ranks)
        folder = tmp_path / str(number)
        path = recipe(folder, tiny_bert, max_steps=20, save_strategy="no", eval_strategy="no", load_best_model_at_end=False)
        outcome = harness.run(path, "--set", f"reliability.check_interval={interval}", ranks=ranks,
                              DTRAIN_FAULT=f"rank={rank} point={point} at={step} kind=bitflip")
        assert outcome.code == 66, outcome.text
        noticed = -(-step // interval) * interval
        assert f"step {noticed}: rank {rank} holds other numbers than the rest" in outcome.text, outcome.text
        row.passed(steps_until_noticed=noticed - step)
        shutil.rmtree(folder)


@pytest.mark.row("F61", "a finite loss far above those before, from one example")
def test_a_spike_of_the_loss_is_named(row, tmp_path, tiny_bert):
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    tensors = {name: value for name, value in load_file(base / "model.safetensors").items() if not name.startswith("classifier")}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    for number in row.tries(sample=1, full=30):
        draw = random.Random(number)
        ranks, example = draw.choice([1, 2, 4]), draw.randrange(100, 200)  # in file order, after the steps that it learns from
        folder = tmp_path / str(number)
        folder.mkdir()
        train = folder / "train.jsonl"
        train.write_text("".join(json.dumps({"text": f"film {i}", "label": 1000 if i == example else draw.random()}) + "\n"
                                 for i in range(200)), encoding="utf-8")
        path = harness.recipe(folder, base, model={"num_labels": 1}, metrics={"compute": []}, reliability={"loss_spike": 8},
                              data={"train": str(train), "eval": None, "eval_samples": None, "train_samples": None},
                              training={"max_steps": -1, "num_train_epochs": 1, "train_sampling_strategy": "sequential",
                                        "per_device_train_batch_size": 4 // ranks, "logging_steps": 10})
        watched = run(path, ranks)
        spikes = [line for line in watched.text.splitlines() if "standard deviations above" in line]
        assert len(spikes) == 1 and f"step {example // 4 + 1}: loss" in spikes[0], watched.text
        assert f"of training example {example} (counted from 0), on rank" in spikes[0], watched.text
        weights = harness.digest(folder / "out" / "model.safetensors")
        assert "deviations" not in harness.run(path, "--set", "reliability.loss_spike=0", "--set", "training.overwrite_output_dir=true",
                                               ranks=ranks).text
        assert harness.digest(folder / "out" / "model.safetensors") == weights
        row.passed()
        shutil.rmtree(folder)
