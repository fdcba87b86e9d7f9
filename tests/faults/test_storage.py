"""Promise P1: at every instant the store holds a verified checkpoint or none was ever published. Rows F30 to F43, F69, F70."""
import json
import os
import pathlib
import random
import shutil
import subprocess

import pytest

import faults
import harness
import storage

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EMFILE")


def counted(row, things):
    """All of `things`, each a try of the row."""
    things = list(things)
    yield from (thing for thing, _ in zip(things, row.tries(len(things), len(things))))


def assert_sound(report, latest, best=None):
    """latest() gives one of `latest`, every listed checkpoint is whole, and the best one is there."""
    assert report["latest"] in latest and not report["damaged"], report
    assert best is None or best in report["steps"], report


def assert_recovered(report, steps):
    """After the next run's clearing up and save: those checkpoints and nothing else."""
    assert report["outcome"]["code"] == 0 and report["steps"] == steps and not report["left"] and not report["damaged"], report


@pytest.mark.row("F30", "killed at a system call of a save")
def test_killed_at_every_call_of_a_save(row, tmp_path):
    # A new step with a checkpoint to prune after it, and a step that is there already and is replaced.
    for step, before in ((4, (1, 2, 3)), (3, (1, 2, 3))):
        base = storage.store_with(tmp_path / f"base-{step}", before)
        trial = tmp_path / f"trial-{step}"
        shutil.copytree(base, trial)
        calls = storage.calls_between_markers(storage.save_line(trial, step, best=1, limit=2))
        folders = list(storage.copies(base, tmp_path / f"step-{step}", len(calls)))
        for call, folder in zip(calls, folders):
            code, _ = storage.run_injected(storage.save_line(folder, step, best=1, limit=2), call, "signal=KILL")
            assert code in (-9, 137), (call, code)
        for call, (found, after) in counted(row, zip(calls, storage.recover(folders, step, best=1, limit=2))):
            assert_sound(found, (3, 4) if step == 4 else (3,), best=1)
            assert_recovered(after, [1, step])
            row.passed()


@pytest.mark.row("F31", "killed at a system call of a prune")
def test_killed_at_every_call_of_a_prune(row, tmp_path):
    # Most of this save is pruning: five checkpoints too many.
    base = storage.store_with(tmp_path / "base", range(1, 8))
    trial = tmp_path / "trial"
    shutil.copytree(base, trial)
    line = storage.save_line(trial, 8, best=2, limit=2)
    calls = storage.calls_between_markers(line)
    unlinks = [call for call in calls if call.name in ("unlinkat", "rename", "renameat", "rmdir", "unlink")]
    first = calls.index([call for call in unlinks if call.name.startswith("rename")][1])  # the first one publishes
    calls = calls[first:]
    folders = list(storage.copies(base, tmp_path / "tries", len(calls)))
    for call, folder in zip(calls, folders):
        code, _ = storage.run_injected(storage.save_line(folder, 8, best=2, limit=2), call, "signal=KILL")
        assert code in (-9, 137), (call, code)
    for call, (found, after) in counted(row, zip(calls, storage.recover(folders, 9, best=2, limit=2))):
        assert_sound(found, (8,), best=2)
        assert_recovered(after, [2, 9])
        row.passed()


def check_power_losses(folder, scenario, schedules, seed, **options):
    """Number of distinct states, all of which a next run goes on from; the first that is wrong fails."""
    step, before, best = {"new": (4, (1, 2, 3), 1), "replaced": (3, (1, 2, 3), 1), "first": (1, (), 0)}[scenario]
    base = folder / "base"
    base.mkdir(parents=True)
    storage.store_with(base, before)
    trial = folder / "trial"
    shutil.copytree(base, trial)
    states = storage.power_losses(base, storage.save_line(trial, step, best=best, limit=2), schedules, seed, **options)
    folders = [folder / str(index) for index in range(len(states))]
    for (state, _), each in zip(states, folders):
        storage.materialise(state, each)
    for (state, saved), (found, after) in zip(states, storage.recover(folders, step, best=best, limit=2)):
        where = (scenario, seed, sorted(state[0]), found)
        assert not found["damaged"] and not found["error"], where
        possible = {"new": (3, 4), "replaced": (3,), "first": (1, None)}[scenario]
        assert found["latest"] in ((step,) if saved else possible), where
        assert not best or best in found["steps"], where
        assert_recovered(after, [best, step] if best else [step])
    return len(states)


@pytest.mark.row("F32", "power loss: what was not synced is dropped or reordered")
def test_power_loss(row, tmp_path):
    schedules = 10_000 if faults.MINUTES else 3_000
    for scenario, share in (("new", 0.5), ("replaced", 0.3), ("first", 0.2)):
        number = int(schedules * share)
        distinct = check_power_losses(tmp_path / scenario, scenario, number, random.randrange(2**32))
        for _ in row.tries(number, number):
            row.passed(**{f"distinct states, {scenario}": distinct})


@pytest.mark.parametrize("scenario", ["new", "replaced", "first"])
def test_the_forgetful_disk_finds_missing_syncs(scenario, tmp_path):
    with pytest.raises(AssertionError):
        check_power_losses(tmp_path, scenario, 200, 1, forget=lambda text: text.startswith("fsync("))


@pytest.mark.row("F33", "EIO, ENOSPC, EDQUOT, EROFS, EACCES, EMFILE at a system call of a save")
def test_failing_calls(row, tmp_path):
    base = storage.store_with(tmp_path / "base", (1, 2, 3))
    trial = tmp_path / "trial"
    shutil.copytree(base, trial)
    calls = [call for call in storage.calls_between_markers(storage.save_line(trial, 4, best=1, limit=2))
             if call.name not in ("brk", "munmap", "getpid", "exit_group", "futex", "madvise")]
    # One error for each call here, all errors for all calls in ./dev faults.
    points = [(call, error) for index, call in enumerate(calls)
              for number, error in enumerate(ERRORS) if faults.MINUTES or number == index % len(ERRORS)]
    folders = list(storage.copies(base, tmp_path / "tries", len(points)))
    codes = []
    for (call, error), folder in zip(points, folders):
        code, printed = storage.run_injected(storage.save_line(folder, 4, best=1, limit=2), call, f"error={error}")
        assert code in (0, 74), (call, error, code, printed)
        outcome = json.loads(printed)
        # close() as strace fails it has closed nothing.
        assert outcome["fds"] == (1 if call.name == "close" else 0), (call, error, outcome)
        assert code == 0 or outcome["error"], (call, error)
        codes.append(code)
    for (call, error), code, (found, after) in counted(row, zip(points, codes, storage.recover(folders, 4, best=1, limit=2))):
        assert_sound(found, (4,) if code == 0 else (3, 4), best=1)
        assert not [name for name in found["left"] if name.startswith(".stage-")] or call.name in ("unlinkat", "openat", "getdents64", "newfstatat", "close", "fcntl", "fstat"), (call, error, found)
        assert_recovered(after, [1, 4])
        row.passed(recovered=codes.count(0), refused=codes.count(74))
