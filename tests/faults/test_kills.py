"""Processes that are killed, signalled, starved or crash: the supervisor goes on, and the result is that of a run without all that."""
import json
import shutil
import signal
import subprocess
import time

import pytest

import faults
import harness
import launched
from jobs import state_of
from launched import MOMENTS, Launched, generator, record, result, steps_of

PREEMPTED, USAGE, INTERNAL = 75, 64, 70


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_bert):
    return harness.recipe(tmp_path_factory.mktemp("kills"), tiny_bert, training=launched.OPTIONS)


@pytest.fixture(scope="module")
def whole(recipe):
    """What the uninterrupted run gives."""
    out = recipe.parent / "whole"
    outcome = harness.run(recipe, "--set", f"training.output_dir={out}", ranks=2, OMP_NUM_THREADS="1")
    assert outcome.code == 0, outcome.text
    return result(out)


def check_equal(job, whole):
    got = result(job.out)
    for part in whole:
        assert got[part] == whole[part], f"{part}\n{job.text()}"


def finish(job, code, recipe, whole):
    """Until the run is done, as a user or a scheduler would who starts it again with the same command."""
    for _ in range(3):
        if code == 0:
            break
        again = Launched(recipe, job.out, "--set", "training.resume_from_checkpoint=latest")
        with again:
            code = again.end()
    assert code == 0, job.text()
    check_equal(job, whole)


def strike_with_kill(job, target):
    mpirun, ranks = job.mpirun(), job.ranks()
    if target == "mpirun":
        victims = [mpirun]
    elif target == "all":
        victims = ranks
    else:
        victims = [job.rank(0 if target == "rank 0" else 1)]
    victims = [victim for victim in victims if victim]
    start = time.monotonic()
    job.signal(signal.SIGKILL, victims)
    job.until(lambda: not any(launched.is_alive(pid) for pid in [mpirun, *ranks] if pid), "the end of the attempt")
    return time.monotonic() - start


TOO_LATE = "runs that ended before the moment came"


def strikes(row, name, moment, recipe, full, share):
    """Number, draws, output folder and moment of each try. The sample is one, at `moment`; the others go through all of them."""
    first = MOMENTS.index(moment)
    for number in row.tries(sample=1, full=full, share=share):
        out = recipe.parent / f"{name} {number}".replace(" ", "-")
        yield number, generator(f"{name} {number}"), out, MOMENTS[(first + number) % len(MOMENTS)]
        shutil.rmtree(out)


def kills(row, target, moment, recipe, whole, full):
    for number, rng, out, moment in strikes(row, target, moment, recipe, full, share=full * 0.0012):
        # Steps of milliseconds are faster than the disk: in the background some intervals more may be lost.
        background = number % 2 == 1
        with Launched(recipe, out, "--max-restarts", "20", "--set", f"reliability.save_in_background={json.dumps(background)}") as job:
            if job.moment(moment, rng.randrange(1, launched.STEPS - 3), rng):
                at = max(steps_of(out), default=0)
                down = strike_with_kill(job, target)
                saved = max((int(name.split("-")[1]) for name in launched.names(out, "checkpoint-")), default=0)
                back = time.monotonic()
                job.until(lambda: "resuming from" in job.text(), "the next attempt")
                row.measured(**{"seconds until the next attempt resumes": time.monotonic() - back})
                if not background:
                    assert at - saved <= 2 * launched.OPTIONS["save_steps"], f"{at} {saved}\n{job.text()}"
                    row.measured(**{"steps lost": at - saved})
                row.measured(**{"seconds until all is down": down})
            else:
                row.counted(TOO_LATE)
            assert job.end() == 0, job.text()
            check_equal(job, whole)
        row.passed()


@pytest.mark.row("F01", "kill -9 of a rank, at random")
def test_kill_of_a_rank(row, recipe, whole):
    kills(row, "rank 1", "evaluation", recipe, whole, full=100)


@pytest.mark.row("F02", "kill -9 of rank 0, at random")
def test_kill_of_rank_0(row, recipe, whole):
    kills(row, "rank 0", "saving", recipe, whole, full=100)


@pytest.mark.row("F03", "kill -9 of mpirun, at random")
def test_kill_of_mpirun(row, recipe, whole):
    kills(row, "mpirun", "any", recipe, whole, full=50)


@pytest.mark.row("F04", "kill -9 of all ranks at once")
def test_kill_of_all_ranks(row, recipe, whole):
    kills(row, "all", "pruning", recipe, whole, full=50)


def signals(row, target, moment, recipe, whole, full):
    for _, rng, out, moment in strikes(row, f"signal {target}", moment, recipe, full, share=0.06):
        with Launched(recipe, out) as job:
            happened = job.moment(moment, rng.randrange(1, launched.STEPS - 3), rng)
            receiver = {"mpirun": job.mpirun, "rank": lambda: job.rank(rng.randrange(2)), "launch": lambda: job.process.pid}[target]()
            start = time.monotonic()
            if happened and receiver:
                job.signal(signal.SIGUSR2, [receiver])
            code = job.end()
            seconds = time.monotonic() - start
            state = record(out)
            if happened and receiver and state["state"] != "done":
                assert code == PREEMPTED and state["exit"] == PREEMPTED and state["state"] == "preempted", job.text()
                # No step is lost: the newest checkpoint is that of the last step.
                assert state["checkpoint"] == f"checkpoint-{state['step']}" and max(steps_of(out)) == state["step"], job.text()
                row.passed(**{"seconds until exit": seconds})
            else:
                assert code == 0, job.text()
                row.counted(TOO_LATE)
                row.passed()
            finish(job, code, recipe, whole)


@pytest.mark.row("F08", "SIGUSR2 to mpirun, at random")
def test_preemption_of_mpirun(row, recipe, whole):
    signals(row, "mpirun", "saving", recipe, whole, full=40)


@pytest.mark.row("F09", "SIGUSR2 to one rank, at random")
def test_preemption_of_one_rank(row, recipe, whole):
    signals(row, "rank", "training", recipe, whole, full=60)


@pytest.mark.row("F08", "SIGUSR2 to the supervisor, at random")
def test_preemption_of_the_supervisor(row, recipe, whole):
    signals(row, "launch", "any", recipe, whole, full=20)


@pytest.mark.row("F08", "SIGUSR2 in a long evaluation, which is left and repeated")
def test_preemption_in_a_long_evaluation(row, recipe, tmp_path_factory, tiny_bert):
    # 1000 examples one by one: the evaluation is longer than the training, and has 500 batches at which to stop.
    folder = tmp_path_factory.mktemp("long_evaluation")
    options = launched.OPTIONS | {"max_steps": 6, "per_device_eval_batch_size": 1}
    slow = harness.recipe(folder, tiny_bert, training=options, data={"eval_samples": 1000})
    outcome = harness.run(slow, "--set", f"training.output_dir={folder / 'whole'}", ranks=2, OMP_NUM_THREADS="1")
    assert outcome.code == 0, outcome.text
    for number in row.tries(sample=1, full=10):
        out = folder / f"left-{number}"
        with Launched(slow, out) as job:
            # The record of step 3 is written before its evaluation, which begins at once.
            assert job.until(lambda: 3 in steps_of(out) and job.ranks(), "step 3")
            start = time.monotonic()
            job.signal(signal.SIGUSR2, [job.rank(generator(f"long {number}").randrange(2))])
            code = job.end()
            seconds = time.monotonic() - start
            state = record(out)
            assert code == PREEMPTED and state["step"] == 3 and state["checkpoint"] == "checkpoint-3", job.text()
            assert not [entry for entry in harness.log_records(out) if "eval_loss" in entry], job.text()
            with Launched(slow, out, "--set", "training.resume_from_checkpoint=latest") as again:
                assert again.end() == 0, job.text()
            assert result(out, 6) == result(folder / "whole", 6), job.text()
        row.passed(**{"seconds until exit": seconds})
        shutil.rmtree(out)


@pytest.mark.row("F10", "SIGTERM to mpirun, which kills its ranks a second later")
def test_termination_of_mpirun(row, recipe, whole):
    for number in row.tries(sample=1, full=30):
        rng = generator(f"term {number}")
        out = recipe.parent / f"term-{number}"
        with Launched(recipe, out) as job:
            if job.moment("any", rng.randrange(1, 20), rng) and job.mpirun():
                job.signal(signal.SIGTERM, [job.mpirun()])
            code = job.end()
            assert code in (0, PREEMPTED), job.text()
            finish(job, code, recipe, whole)
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F12", "SIGTERM to a rank at each step of publishing and of removing a checkpoint")
def test_termination_while_publishing(row, recipe, whole):
    points = ("save", "publish", "published", "unpublished")
    last_only = ["--set", "training.load_best_model_at_end=false", "--set", "training.metric_for_best_model="]
    for number in row.tries(sample=1, full=40):
        point, step = points[number % len(points)], 3 * generator(f"publish {number}").randrange(2, 9)
        out = recipe.parent / f"publish-{number}"
        # What is removed at step 3 s is the checkpoint of an earlier step.
        at = step - 6 if point == "unpublished" else step
        # In the background a save may be left out when the disk is slower than the steps.
        with Launched(recipe, out, *last_only, "--set", "reliability.save_in_background=false",
                      DTRAIN_FAULT=f"rank=0 point={point} at={max(at, 3)} kind=stop") as job:
            assert job.until(lambda: job.rank(0) and state_of(job.rank(0)) == "T", "rank 0 stops itself"), job.text()
            rank = job.rank(0)
            job.signal(signal.SIGTERM, [rank])
            job.signal(signal.SIGCONT, [rank])
            code = job.end()
            assert code == PREEMPTED and record(out)["state"] == "preempted", job.text()
        inspected = harness.run("inspect", out)
        assert inspected.code == 0, inspected.text
        with Launched(recipe, out, *last_only, "--set", "training.resume_from_checkpoint=latest") as again:
            assert again.end() == 0, again.text()
        got, last = result(out), f"checkpoint-{launched.STEPS}/optimizer.safetensors"
        assert got["log"] == whole["log"], job.text()
        assert got["digests"][last] == whole["digests"][last], job.text()
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F11", "100 signals of three kinds to one rank")
def test_signal_storm(row, recipe, whole):
    for number in row.tries(sample=1, full=40):
        rng = generator(f"storm {number}")
        out = recipe.parent / f"storm-{number}"
        with Launched(recipe, out) as job:
            assert job.moment("any", rng.randrange(1, 10), rng)
            rank = job.rank(rng.randrange(2))
            # A second SIGINT ends a process at once: that is its meaning.
            storm = [signal.SIGINT] + [rng.choice([signal.SIGUSR2, signal.SIGTERM]) for _ in range(99)]
            rng.shuffle(storm)
            for each in storm:
                job.signal(each, [rank])
            code = job.end()
            assert code == PREEMPTED and record(out)["state"] == "preempted", job.text()
            assert job.text().count("a checkpoint of step") == 1, job.text()
            finish(job, code, recipe, whole)
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F13", "segmentation fault, abort, exception, exit(0) in one rank")
@pytest.mark.parametrize("kind", ["SEGV", "ABRT", "throw", "exit"])
def test_crash_of_one_rank(kind, row, recipe, whole):
    for number in row.tries(sample=1, full=10):
        rng = generator(f"{kind} {number}")
        out = recipe.parent / f"{kind}-{number}"
        rank, step = rng.randrange(2), rng.randrange(4, 25)
        plan = {"DTRAIN_FAULT": f"rank={rank} point=step at={step} kind={kind}"} if kind in ("throw", "exit") else {}
        with Launched(recipe, out, "--max-restarts", "1", **plan) as job:
            if not plan:
                assert job.moment("training", step, rng)
                job.signal(getattr(signal, f"SIG{kind}"), [job.rank(rank)])
                assert job.end() == 0, job.text()
                assert f"first to go: rank {rank};" in job.text(), job.text()
                check_equal(job, whole)
            else:
                # The plan holds for each attempt: the supervisor gives up, and nobody calls it a success.
                code = job.end()
                state = record(out)
                assert code not in (0, PREEMPTED) and state["state"] == "failed" and state["exit"] == code, job.text()
                assert "--max-restarts 1 reached" in job.text(), job.text()
                if kind == "throw":
                    assert code == INTERNAL and "fault point" in state["reason"], job.text()
                else:
                    assert state["suspects"] == [f"rank {rank}"] and f"first to go: rank {rank}" in state["reason"], job.text()
                with Launched(recipe, out, "--set", "training.resume_from_checkpoint=latest") as again:
                    assert again.end() == 0, job.text()
                check_equal(job, whole)
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F14", "one rank gets no more memory")
def test_out_of_memory(row, recipe, whole):
    for number in row.tries(sample=1, full=10):
        rng = generator(f"memory {number}")
        out = recipe.parent / f"memory-{number}"
        with Launched(recipe, out, "--max-restarts", "0") as job:
            rank = rng.randrange(2)
            assert job.moment("training", rng.randrange(1, 15), rng)
            subprocess.run(["prlimit", f"--pid={job.rank(rank)}", "--as=1000000"], check=True)
            code = job.end()
            state = record(out)
            if code == 0:
                row.counted(TOO_LATE)  # or it needed no more
                check_equal(job, whole)
                row.passed()
                shutil.rmtree(out)
                continue
            assert code == INTERNAL, job.text()
            # Without any memory the reason may reach the terminal alone; run.json then has the supervisor's.
            assert state["state"] == "failed" and ("memory" in state["reason"] or "exit code 70" in state["reason"]), job.text()
            error = next(line for line in job.text().splitlines() if line.startswith("error:"))
            assert f"rank {rank}" in error and "per_device_train_batch_size" in job.text(), job.text()
            finish(job, code, recipe, whole)
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F16", "crash in the same step again and again")
def test_crash_loop(row, recipe):
    for number in row.tries(sample=1, full=3):
        out = recipe.parent / f"loop-{number}"
        with Launched(recipe, out, "--max-restarts", "50", DTRAIN_FAULT="rank=1 point=step at=8 kind=kill") as job:
            code = job.end()
        # The first attempt publishes steps 3 and 6; three more bring nothing new.
        assert code == 137 and job.text().count("launch: attempt") == 4, job.text()
        assert "no progress" in job.text().splitlines()[-1], job.text()
        state = record(out)
        assert state["suspects"] == ["rank 1"] and state["state"] == "failed" and state["attempt"] == 4 and state["checkpoint"] == "checkpoint-6", state
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F17", "two jobs on one folder")
def test_two_jobs_on_one_folder(row, recipe, whole):
    for number in row.tries(sample=1, full=10):
        out = recipe.parent / f"two-{number}"
        with Launched(recipe, out) as first:
            assert first.until(lambda: 4 in steps_of(out) and first.ranks(), "step 4")
            holder = first.rank(0)
            first.signal(signal.SIGSTOP, [holder])
            second = harness.run("launch", "--ranks", "2", "--launcher-args=--oversubscribe", recipe, "--set",
                                 f"training.output_dir={out}", "--set", "training.resume_from_checkpoint=latest")
            assert second.code == USAGE and f"process {holder} on " in second.text, second.text
            assert second.text.count("launch: attempt") == 1, second.text
            # The holder dies without a word; its lock dies with it, and the supervisor's next attempt takes the folder.
            first.signal(signal.SIGKILL, [holder])
            assert first.end() == 0, first.text()
            check_equal(first, whole)
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F83", "a reader that asks for the newest checkpoint all the time, while the run saves, removes and is killed")
def test_reader_beside_the_run(row, recipe, whole):
    for number in row.tries(sample=1, full=20):
        rng = generator(f"reader {number}")
        out = recipe.parent / f"reader-{number}"
        out.mkdir()
        tool = [harness.BUILD / "tests" / "store_tool", "read", out]
        with subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as reader:
            try:
                with Launched(recipe, out, "--set", "training.eval_steps=1", "--set", "training.save_steps=1",
                              "--set", "reliability.save_in_background=false") as job:
                    if job.moment("saving", rng.randrange(5, 25), rng):
                        strike_with_kill(job, "all")
                    assert job.end() == 0, job.text()
            finally:
                (out / "stop").touch()
                text, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0 and "passing over" not in text, text
        read = json.loads(text.splitlines()[-1])
        assert read["step"] == launched.STEPS and read["reads"] > 20, text
        assert record(out)["state"] == "done", job.text()
        row.passed()
        row.figures["reads"] = row.figures.get("reads", 0) + read["reads"]
        shutil.rmtree(out)


@pytest.mark.row("F80", "all of these, one after the other, in one run")
def test_chaos(row, recipe, whole):
    rng = generator("chaos")
    out = recipe.parent / "chaos"
    most = 12 if faults.MINUTES else 3
    kinds = ("rank 1", "rank 0", "mpirun", "all", "preempt")
    for number in row.tries(sample=1, full=60, share=0.1):
        code = None
        struck = []
        for _ in range(40):
            with Launched(recipe, out, "--max-restarts", "100", "--set", "training.resume_from_checkpoint=latest") as job:
                while True:
                    reached = max(steps_of(out), default=0)
                    if len(struck) >= most or not job.moment(rng.choice(MOMENTS), min(reached + 1, launched.STEPS - 2), rng):
                        break
                    fault = rng.choice(kinds)
                    struck.append(fault)
                    if fault != "preempt":
                        strike_with_kill(job, fault)
                    elif receiver := rng.choice([job.mpirun(), job.process.pid, job.rank(0)]):
                        job.signal(signal.SIGUSR2, [receiver])
                        break
                code = job.end()
                # Struck three times before anything new was published: then somebody has to look, and starts it again.
                gave_up = "no progress: 3 attempts" in job.text().splitlines()[-1]
                assert code in (0, PREEMPTED) or gave_up, f"{struck}\n{job.text()}"
            if code == 0:
                break
        check_equal(job, whole)
        row.passed(faults=len(struck))
        shutil.rmtree(out)
        (recipe.parent / "chaos.text").unlink()
