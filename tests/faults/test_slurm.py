"""dtrain in a real Slurm: two nodes, preemption, time limit. The Slurm is started for these tests and taken down with them."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

import harness
import slurm
from jobs import until

STEPS = 12

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start the daemons of Slurm")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    result = slurm.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        result.start()
        yield result
    finally:
        result.stop()


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_bert):
    """Folder of the jobs' recipe; each job names an output_dir of its own."""
    folder = tmp_path_factory.mktemp("jobs")
    harness.recipe(folder, tiny_bert, training={
        "max_steps": STEPS, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 6, "logging_steps": 1},
        reliability={"step_timeout": 600})
    return folder


@pytest.fixture(scope="module")
def whole(cluster, work):
    """The uninterrupted run on two nodes."""
    number, out = submit(cluster, work, "whole")
    state = finished(cluster, number)
    return {"state": state, "out": out, "log": log_of(work, number)}


def submit(cluster, work, name, *options, **environment):
    """Writes and submits the script as a user does; a plan of faults travels in the environment."""
    line = [harness.DTRAIN, "slurm", "recipe.toml", "--nodes", "2", "--ranks-per-node", "1", "--submit", "--job-name", name,
            "--out", f"{name}.sbatch", "--set", f"training.output_dir={work / name}", *options]
    done = subprocess.run(list(map(str, line)), cwd=work, env=cluster.environment | environment, capture_output=True, text=True,
                          check=False, timeout=60 * harness.SLOWNESS)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1]), work / name


def log_of(work, number):
    return "".join(path.read_text(encoding="utf-8") for path in work.glob(f"*-{number}.log"))


def finished(cluster, number):
    """Waits for the job's end. A requeued job waits two minutes by itself (Slurm's rule for each requeue): it need not."""
    def look():
        job = cluster.job(number)
        # Not before the nodes have cleared away what was there, and not within the same second: that is what the two minutes
        # are for (a node refuses a job that it was told to end, by the second).
        late = time.time() + 30 < time.mktime(time.strptime(job["StartTime"], "%Y-%m-%dT%H:%M:%S")) if "T" in job["StartTime"] else False
        if job["JobState"] == "PENDING" and job["Reason"] == "BeginTime" and late and set(cluster.states().values()) == {"idle"}:
            cluster.ask("scontrol", "update", f"JobId={number}", "StartTime=now+3", "TimeLimit=10", check=False)
        return job if job["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL") else None
    return until(look, 120, lambda: f"end of job {number}: {cluster.job(number)}\n{cluster.logs()}", slurm.PAUSE)


def stopped_rank(number):
    """The process of rank 0 of the job, once its plan of faults has stopped it."""
    for folder in pathlib.Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or "\nState:\tT" not in (folder / "status").read_text():
                continue
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURM_JOB_ID={number}".encode() in variables and b"SLURM_PROCID=0" in variables:
            return int(folder.name)
    return None


def is_signalled(process):
    """Whether a stopped process has SIGUSR2 or SIGTERM waiting for it, or is not stopped any more."""
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    waiting = int(fields["ShdPnd"], 16) | int(fields["SigPnd"], 16)
    return "T" not in fields["State"] or waiting & (1 << signal.SIGUSR2 - 1 | 1 << signal.SIGTERM - 1)


def check_resumed(cluster, number, work, out, whole, step):
    """The interrupted job was requeued once and has the result of the uninterrupted one, to the bit."""
    job = finished(cluster, number)
    log = log_of(work, number)
    assert job["JobState"] == "COMPLETED" and job["ExitCode"] == "0:0", f"{job}\n{log}"
    assert job["Restarts"] == "1", f"{job}\n{log}"
    # The signal reaches the ranks one after the other: they agree on this step or the next.
    published = int(re.search(r"a checkpoint of step (\d+) is published", log).group(1))
    assert published - step in (0, 1) and f"resuming from {out / f'checkpoint-{published}'}" in log, log
    for name in ("model.safetensors", f"checkpoint-{STEPS}/model.safetensors", f"checkpoint-{STEPS}/optimizer.safetensors"):
        assert harness.digest(out / name) == harness.digest(whole["out"] / name), name
    assert [record["loss"] for record in harness.log_records(out) if "loss" in record] == \
           [record["loss"] for record in harness.log_records(whole["out"]) if "loss" in record]
    assert json.loads((out / "run.json").read_text())["state"] == "done"


@pytest.mark.row("F08", "a job of Slurm on two nodes")
def test_a_job_on_two_nodes(row, cluster, whole):
    for _ in row.tries(sample=1, full=1):
        assert whole["state"]["JobState"] == "COMPLETED" and whole["state"]["ExitCode"] == "0:0", f"{whole['state']}\n{whole['log']}"
        assert whole["state"]["NodeList"] == "n[1-2]"
        assert f"step {STEPS}/{STEPS}" in whole["log"] and "gradients are summed by: mpi" in whole["log"], whole["log"]
        assert json.loads((whole["out"] / "run.json").read_text())["state"] == "done"
        # A plain srun in an allocation needs nothing else.
        out = whole["out"].parent / "plain"
        text = cluster.ask("srun", "--mpi=pmix", "-N2", "-n2", f"--chdir={out.parent}", str(harness.DTRAIN), "recipe.toml",
                           "--set", f"training.output_dir={out}")
        assert "model and results are in" in text
        assert harness.digest(out / "model.safetensors") == harness.digest(whole["out"] / "model.safetensors")
        row.passed()


@pytest.mark.row("F08", "preemption by a job of a higher partition in Slurm")
def test_a_preempted_job_goes_on(row, cluster, work, whole):
    for number in row.tries(sample=1, full=5):
        step = 5 + number
        job, out = submit(cluster, work, f"preempted{number}", DTRAIN_FAULT=f"rank=0 point=step at={step} kind=stop")
        until(lambda: stopped_rank(job), 60, lambda: f"rank 0 in step {step}\n{log_of(work, job)}\n{cluster.logs()}", slurm.PAUSE)
        # Slurm continues a stopped process before it sends SIGTERM.
        urgent = cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
        check_resumed(cluster, job, work, out, whole, step)
        assert "DUE TO PREEMPTION" in log_of(work, job)
        assert cluster.job(urgent)["JobState"] == "COMPLETED"
        row.passed()
        shutil.rmtree(out)


@pytest.mark.row("F08", "time limit in Slurm")
def test_a_job_over_its_time_limit_goes_on(row, cluster, work, whole):
    for number in row.tries(sample=1, full=3):
        step = 7 + number
        job, out = submit(cluster, work, f"late{number}", "--time", "10", DTRAIN_FAULT=f"rank=0 point=step at={step} kind=stop")
        rank = until(lambda: stopped_rank(job), 60, lambda: f"rank 0 in step {step}\n{log_of(work, job)}\n{cluster.logs()}", slurm.PAUSE)
        # Two minutes before the limit is now; Slurm looks after that twice a minute, and the run stands still until then.
        cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=2")
        until(lambda: is_signalled(rank), 100, lambda: f"the warning\n{log_of(work, job)}\n{cluster.logs()}", slurm.PAUSE)
        os.kill(rank, signal.SIGCONT)
        check_resumed(cluster, job, work, out, whole, step)
        assert "signal 12" in log_of(work, job) and "DUE TO TIME LIMIT" not in log_of(work, job)
        row.passed()
        shutil.rmtree(out)
