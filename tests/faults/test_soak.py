"""Running without a fault, for long, with tight deadlines and whatever else the machine does: no alarm, and nothing grows."""
import os
import pathlib
import re
import signal
import time

import pytest

import faults
import harness
import jobs

SHARE = 1 / 12


def resident(pid):
    """Megabytes of the process that are in memory."""
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")).group(1)) / 1024


def files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.row("F81", "none: running with deadlines of 3 s while other tests load the machine")
def test_nothing_happens(row, tmp_path, tiny_bert):
    training = {"max_steps": 100_000_000, "save_strategy": "steps", "save_steps": 100, "save_total_limit": 2, "eval_strategy": "steps",
                "eval_steps": 50, "logging_steps": 25, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    path = harness.recipe(tmp_path, tiny_bert, training=training,
                          reliability={"step_timeout": 3, "eval_timeout": 3, "check_interval": 20, "loss_spike": 0})
    log = tmp_path / "out" / "log.jsonl"

    def steps():
        return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    for _ in row.tries(sample=1, full=1):
        # The text goes to a file: a full pipe would stop the run.
        line = ["sh", "-c", f'exec "$@" > {tmp_path}/text 2>&1', "sh", *harness.command(path, ranks=2)]
        with jobs.Job(line, OMP_NUM_THREADS="1") as job:
            end = time.monotonic() + faults.MINUTES * 60 * SHARE
            jobs.until(lambda: steps() > 20 or job.process.poll() is not None, what="some hundred steps")
            ranks = job.pids()
            assert len(ranks) == 2, (tmp_path / "text").read_text(encoding="utf-8")
            before = {rank: (resident(pid), files(pid)) for rank, pid in ranks.items()}
            grown, more_files = 0.0, 0
            while time.monotonic() < end:
                assert job.process.poll() is None, (tmp_path / "text").read_text(encoding="utf-8")
                time.sleep(1)
                grown = max(resident(pid) - before[rank][0] for rank, pid in ranks.items())
                more_files = max(files(pid) - before[rank][1] for rank, pid in ranks.items())
            os.kill(ranks[0], signal.SIGUSR2)
            outcome = job.finish()
        text = (tmp_path / "text").read_text(encoding="utf-8")
        assert outcome.code == 75 and not re.search("stalled|error:", text), text
        # A checkpoint that is being written may hold a copy of everything, and a file or two.
        assert grown < 40 and more_files <= 4, (grown, more_files)
        row.passed(**{"minutes": round(faults.MINUTES * SHARE, 1), "steps": harness.log_records(tmp_path / "out")[-1]["step"],
                      "MB grown": round(grown, 1),
                      # No false ones: the machine is loaded, and not evenly.
                      "ranks that were slow": len(re.findall("is slow", text))})
