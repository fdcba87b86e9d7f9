"""A running job of dtrain: its ranks' processes, found without asking the job, and signals to them."""
import os
import pathlib
import signal
import subprocess
import time

import harness


def until(condition, seconds=60, what="condition", pause=0.01):
    """Polls; returns what `condition` returned, or fails with `what`: a text, or what makes one."""
    end = time.monotonic() + seconds * harness.SLOWNESS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")


def state_of(pid):
    """The letter of /proc/PID/stat (T: stopped), or "" for a process that is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def environment_of(pid):
    try:
        words = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(word.decode(errors="replace").partition("=")[::2] for word in words)


class Job:
    """`with Job(line) as job: ...`; leaves no process behind. A name in the environment marks the processes of the job."""

    def __init__(self, line, **extra):
        self.mark = f"{os.getpid()}.{time.monotonic_ns()}"
        self.start = time.monotonic()
        self.process = subprocess.Popen(line, cwd=harness.ROOT, env=harness.environment(DTRAIN_TEST_JOB=self.mark, **extra),
                                        stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE, errors="replace",
                                        stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # mpirun's daemon of another host, too: it would keep the pipe open.
        for pid in [*(pid for pid, _ in self.processes()), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.communicate()

    def processes(self):
        """[(pid, environment)] of all that belongs to the job and runs now."""
        found = [(int(entry), environment_of(entry)) for entry in os.listdir("/proc") if entry.isdigit()]
        return [(pid, words) for pid, words in found if words.get("DTRAIN_TEST_JOB") == self.mark]

    def has_ranks(self):
        """Whether anything runs as a rank, be it the program or a shell around it."""
        return any("OMPI_COMM_WORLD_RANK" in words for _, words in self.processes())

    def pids(self):
        """{rank: pid} of the ranks that run now."""
        found = {}
        for pid, words in self.processes():
            if "OMPI_COMM_WORLD_RANK" not in words:
                continue
            try:
                program = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if program == str(harness.DTRAIN.resolve()):
                found[int(words["OMPI_COMM_WORLD_RANK"])] = pid
        return found

    def wait_for_stop(self, rank):
        """Until the rank has stopped itself; returns (pid, time)."""
        def stopped():
            pid = self.pids().get(rank)
            return pid if pid and state_of(pid) == "T" else None
        pid = until(stopped, what=f"rank {rank} stops")
        return pid, time.monotonic()

    def finish(self, timeout=120):
        try:
            text, _ = self.process.communicate(timeout=timeout * harness.SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the job ran longer than {timeout} s") from None
        return harness.Outcome(self.process.returncode, text, time.monotonic() - self.start)
