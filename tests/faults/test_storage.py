"""Promise P1: at every instant the store holds a verified checkpoint or none was ever published. Rows F30 to F43, F69, F70."""
import json
import os
import pathlib
import random
import shutil
import signal
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


def calls_of_save(base, step, best=1):
    """The system calls of a save of `step` into a copy of `base`."""
    trial = base.parent / f"{base.name}-trial"
    shutil.copytree(base, trial)
    return storage.calls_between_markers(storage.save_line(trial, step, best=best, limit=2))


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
        calls = calls_of_save(base, step)
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
    calls = calls_of_save(base, 8, best=2)
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
    calls = [call for call in calls_of_save(base, 4)
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


@pytest.mark.row("F34", "interrupted system calls of a save")
def test_interrupted_calls(row, tmp_path):
    base = storage.store_with(tmp_path / "base", (1, 2, 3))
    calls = [call for call in calls_of_save(base, 4)
             if call.name in ("openat", "read", "write", "fsync", "close")]
    folders = list(storage.copies(base, tmp_path / "tries", len(calls)))
    for call, folder in counted(row, zip(calls, folders)):
        code, printed = storage.run_injected(storage.save_line(folder, 4, best=1, limit=2), call, "error=EINTR")
        assert code == 0, (call, printed)
        row.passed()
    for call, (found, after) in zip(calls, storage.recover(folders, 4, best=1, limit=2)):
        assert_sound(found, (4,), best=1)
        assert_recovered(after, [1, 4])


def disk(path, size):
    """A small disk of its own; its owner unmounts it."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    return path


@pytest.fixture
def small_disk(tmp_path):
    yield lambda size: disk(tmp_path / "disk", size)
    subprocess.run(["umount", "-l", tmp_path / "disk"], capture_output=True, check=False)


@pytest.mark.row("F35", "full disk")
def test_full_disk(row, tmp_path, small_disk):
    root = small_disk("8m")
    for _ in row.tries(sample=5, full=100):
        for step in (1, 2):
            assert storage.save(root, step, size=3_000_000)["code"] == 0
        # The tool's estimate of its need is too low by half: the third runs into the end of the disk while it writes.
        printed = subprocess.run(storage.save_line(root, 3, size=3_000_000), capture_output=True, text=True, check=False)
        assert printed.returncode == 74 and "No space left" in json.loads(printed.stdout)["error"]
        (report,) = storage.ask(["check"], [root])
        assert report["steps"] == [1, 2] and report["latest"] == 2 and not report["damaged"] and not report["left"], report
        row.passed()
        for each in root.iterdir():
            shutil.rmtree(each)


def test_full_disk_stops_the_run_or_not(tmp_path, tiny_bert, small_disk):
    # A checkpoint takes 12 MB: two fit, and the model at the end.
    root = small_disk("31m")
    options = {"output_dir": str(root / "out"), "max_steps": 6, "save_strategy": "steps", "save_steps": 1}
    recipe = harness.recipe(tmp_path, tiny_bert, training=options)
    outcome = harness.run(recipe, ranks=2)
    assert outcome.code == 74 and "checkpoint of step 3 needs" in outcome.error_lines()[0], outcome.text
    assert json.loads((root / "out" / "run.json").read_text())["exit"] == 74
    listed = harness.run("inspect", root / "out")
    assert listed.code == 0 and "2 checkpoints, 0 damaged" in listed.text and "left half-way" not in listed.text, listed.text
    recipe = harness.recipe(tmp_path, tiny_bert, training=options | {"overwrite_output_dir": True}, reliability={"save_error": "warn"})
    outcome = harness.run(recipe, ranks=2)
    assert outcome.code == 0, outcome.text
    assert outcome.text.count("is not published: checkpoint of step") == 4, outcome.text
    assert harness.run("inspect", root / "out").code == 0
    assert (root / "out" / "model.safetensors").exists()


class Running:
    """A run whose output is read while it goes on."""

    def __init__(self, *arguments, prefix=()):
        self.process = subprocess.Popen([*prefix, *harness.command(*arguments)], cwd=harness.ROOT, env=harness.environment(),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.text = ""

    def wait_for(self, words):
        for line in self.process.stdout:
            self.text += line
            if words in line:
                return
        raise AssertionError(f"{words!r} was not said:\n{self.text}")

    def end(self):
        self.text += self.process.communicate(timeout=120 * harness.SLOWNESS)[0]
        return self.process.returncode


@pytest.mark.row("F36", "full disk, then space again")
def test_space_returns(row, tmp_path, tiny_bert, small_disk):
    root = small_disk("60m")
    recipe = harness.recipe(tmp_path, tiny_bert, reliability={"save_error": "warn"}, training={
        "output_dir": str(root / "out"), "max_steps": 1_000_000, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1,
        "logging_steps": 1_000_000, "overwrite_output_dir": True})
    for _ in row.tries(sample=1, full=10):
        shutil.rmtree(root / "out", ignore_errors=True)
        (root / "filler").write_bytes(bytes(55_000_000))
        run = Running(recipe)
        run.wait_for("is not published")
        (root / "filler").unlink()
        run.wait_for(" saved ")
        run.process.send_signal(signal.SIGUSR2)
        assert run.end() == 75, run.text
        (report,) = storage.ask(["check"], [root / "out"])
        assert len(report["steps"]) == 1 and not report["damaged"] and not report["left"], report
        row.passed()


SLOW_SYNC = ("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=30000")


@pytest.mark.row("F37", "slow disk: a save takes longer than the interval")
def test_slow_disk(row, tmp_path, tiny_bert):
    # A sync takes 30 ms, so a save more than half a second, and a step some milliseconds.
    for _ in row.tries(sample=1, full=5):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        options = {"max_steps": 100, "save_strategy": "steps", "save_steps": 1, "logging_steps": 1000, "save_total_limit": 2}
        run = Running(harness.recipe(tmp_path, tiny_bert, training=options), prefix=SLOW_SYNC)
        assert run.end() == 0, run.text
        skipped, saved = run.text.count("no checkpoint, since"), run.text.count(" saved ")
        assert skipped + saved == 100 and skipped > 50 and f"({skipped} so far)" in run.text, run.text
        (report,) = storage.ask(["check"], [tmp_path / "out"])
        assert report["latest"] == 100 and len(report["steps"]) == 2 and not report["damaged"] and not report["left"], report
        row.passed(skipped=skipped)
    # Without a limit each checkpoint is wanted.
    shutil.rmtree(tmp_path / "out")
    run = Running(harness.recipe(tmp_path, tiny_bert, training=options | {"max_steps": 3, "save_total_limit": None}), prefix=SLOW_SYNC)
    assert run.end() == 0 and "no checkpoint" not in run.text, run.text
    (report,) = storage.ask(["check"], [tmp_path / "out"])
    assert report["steps"] == [1, 2, 3] and not report["damaged"], report


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_bert):
    """A run with the checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = harness.recipe(folder, tiny_bert, training={"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2,
                                                         "metric_for_best_model": "loss", "learning_rate": 1e-3})
    assert harness.run(recipe).code == 0
    return folder


def header_bytes(path):
    """Every byte of a safetensors header, or of a short file; none of other files."""
    if path.suffix == ".safetensors":
        with open(path, "rb") as file:
            return 8 + int.from_bytes(file.read(8), "little")
    return path.stat().st_size if path.stat().st_size < 4096 else 0


@pytest.mark.row("F38", "a flipped bit in any file of a checkpoint")
def test_flipped_bits(row, tmp_path, trained):
    shutil.copytree(trained / "out", tmp_path / "out")
    checkpoint = tmp_path / "out" / "checkpoint-6"
    files = sorted(checkpoint.iterdir())
    sizes = [path.stat().st_size for path in files]
    flips = [(random.choices(files, sizes)[0], None) for _ in range(10_000 if faults.MINUTES else 500)]
    stride = 1 if faults.MINUTES else 17  # all header bytes take minutes
    flips += [(path, byte) for path in files for byte in range(0, header_bytes(path), stride)]
    lines = []
    for path, byte in flips:
        byte = random.randrange(path.stat().st_size) if byte is None else byte
        lines.append(f"{path.name} {byte} {random.randrange(8)}")
    said = storage.ask_lines(["flip", checkpoint], lines)
    for line, damage in counted(row, zip(lines, said)):
        assert f"{line.split()[0]}: " in damage, (line, damage)
        row.passed()
    (report,) = storage.ask(["check"], [tmp_path / "out"])
    assert report["latest"] == 6 and not report["damaged"], "the flips were not undone"


@pytest.mark.row("F39", "a truncated file of a checkpoint")
def test_truncated_files(row, tmp_path, trained):
    shutil.copytree(trained / "out", tmp_path / "out")
    checkpoint = tmp_path / "out" / "checkpoint-6"
    for path in sorted(checkpoint.iterdir()):
        size, whole = path.stat().st_size, path.read_bytes()
        lengths = range(size) if size < 65536 else random.sample(range(size), 4000)
        if not faults.MINUTES:
            lengths = random.sample(lengths, min(len(lengths), 200))
        # The longest first: then each cut is made from the one before.
        lines = [f"{path.name} {length}" for length in sorted(lengths, reverse=True)]
        for line, damage in counted(row, zip(lines, storage.ask_lines(["cut", checkpoint], lines))):
            assert f"{path.name}: " in damage, (line, damage)
            row.passed()
        path.write_bytes(whole)


@pytest.mark.row("F38", "resuming from a run whose newest checkpoint is damaged")
def test_resume_falls_back_and_says_so(row, tmp_path, trained, tiny_bert):
    # Another output_dir is no other run.
    shutil.copytree(trained / "out", tmp_path / "out")
    path = tmp_path / "out" / "checkpoint-6" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    listed = harness.run("inspect", tmp_path / "out")
    assert listed.code == 65 and "DAMAGED: optimizer.safetensors: digest differs" in listed.text, listed.text
    assert 'resume_from_checkpoint = "latest" goes on from step 4' in listed.text
    recipe = harness.recipe(tmp_path, tiny_bert, training={
        "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss",
        "learning_rate": 1e-3, "resume_from_checkpoint": "latest"})
    for _ in row.tries(1, 1):
        outcome = harness.run(recipe)
        assert outcome.code == 0, outcome.text
        assert "checkpoint-6: optimizer.safetensors: digest differs" in outcome.text and "checkpoint-4" in outcome.text, outcome.text
        assert harness.digest(tmp_path / "out" / "model.safetensors") == harness.digest(trained / "out" / "model.safetensors")
        assert harness.run("inspect", tmp_path / "out").code == 0  # the damaged one was replaced
        row.passed()


@pytest.mark.row("F40", "the manifest of one checkpoint with files of another")
def test_swapped_manifest(row, tmp_path, trained):
    for number in row.tries(2, 2):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(trained / "out", tmp_path / "out")
        old, new = tmp_path / "out" / "checkpoint-4", tmp_path / "out" / "checkpoint-6"
        if number == 0:
            shutil.copy(old / "manifest.json", new)
        else:
            shutil.copy(old / "model.safetensors", new)
        (report,) = storage.ask(["check"], [tmp_path / "out"])
        assert report["latest"] == 4 and list(report["damaged"]) == ["6"], report
        row.passed()


@pytest.mark.row("F42", "the folder of the run is deleted under it")
def test_deleted_folder(row, tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training={"max_steps": 1_000_000, "save_strategy": "steps", "save_steps": 5,
                                                           "save_total_limit": 1, "logging_steps": 1_000_000})
    for _ in row.tries(sample=1, full=20):
        run = Running(recipe)
        run.wait_for(" saved ")
        (tmp_path / "out").rename(tmp_path / "gone")  # at once, where deleting takes a while
        shutil.rmtree(tmp_path / "gone")
        assert run.end() == 74, run.text
        errors = [line for line in run.text.splitlines() if line.startswith("error:")]
        assert len(errors) == 1 and str(tmp_path / "out") in errors[0], run.text
        row.passed()


@pytest.mark.row("F43", "odd names and a umask that takes everything")
def test_odd_names(row, tmp_path, tiny_bert):
    names = ["link", "with spaces and 'quotes'", "größe-日本語", "n" * 255]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    for number in row.tries(4, 4):
        out = tmp_path / names[number]
        options = {"output_dir": str(out), "max_steps": 2, "save_strategy": "steps", "save_steps": 1, "resume_from_checkpoint": "latest"}
        recipe = harness.recipe(tmp_path, tiny_bert, training=options)
        outcome = harness.run_line(["sh", "-c", 'umask 777; exec "$@"', "sh", *harness.command(recipe)])
        assert outcome.code == 0, outcome.text
        for path in (out, *out.rglob("*")):
            assert path.stat().st_mode & 0o600 == 0o600, path
        if number == 0:
            again = harness.run(recipe, "--set", "training.max_steps=4")
            assert again.code == 0 and "checkpoint-2" in again.text, again.text
        (report,) = storage.ask(["check"], [out])
        assert report["steps"][:2] == [1, 2] and not report["damaged"], report
        row.passed()


@pytest.mark.row("F30", "the program killed at a system call of its saves")
def test_killed_program_resumes(row, tmp_path, tiny_bert):
    options = {"max_steps": 12, "save_strategy": "steps", "save_total_limit": 2, "resume_from_checkpoint": "latest",
               "eval_strategy": "steps", "eval_steps": 4, "load_best_model_at_end": True, "save_steps": 4}
    recipe = harness.recipe(tmp_path, tiny_bert, training=options)
    assert harness.run(recipe).code == 0
    whole = harness.digest(tmp_path / "out" / "model.safetensors")
    most = {"fsync": 30, "rename": 6, "renameat2": 1, "mkdir": 4, "unlinkat": 12, "write": 60}
    for number in row.tries(sample=2, full=200, share=1 / 15):
        shutil.rmtree(tmp_path / "out")
        call = ("fsync", "rename", "write", "unlinkat", "mkdir")[number % 5]
        count = random.randint(1, most[call])
        inject = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                  f"inject={call}:signal=KILL:when={count}"]
        killed = harness.run_line([*inject, *harness.command(recipe)])
        if (tmp_path / "out").exists() and any((tmp_path / "out").iterdir()):
            (report,) = storage.ask(["check"], [tmp_path / "out"])
            assert not report["damaged"] and not report["error"], (call, count, report)
        resumed = harness.run(recipe)
        assert resumed.code == 0, (call, count, killed.text, resumed.text)
        assert harness.digest(tmp_path / "out" / "model.safetensors") == whole, (call, count)
        (report,) = storage.ask(["check"], [tmp_path / "out"])
        assert not report["left"] and not report["damaged"], (call, count, report)
        row.passed()


@pytest.mark.row("F70", "best and last with save_total_limit 1 to 4, the best at every position of eight saves")
def test_retention(row, tmp_path):
    folder = pathlib.Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    for limit in row.tries(4, 4):
        (report,) = storage.ask(["rotate", limit + 1], [folder / f"rotated-{os.getpid()}"])
        assert report == {"sequences": 9, "wrong": 0}, report
        row.passed()


def test_inspect_a_run(trained):
    out = trained / "out"
    state = json.loads((out / "run.json").read_text())
    listed = harness.run("inspect", out)
    assert listed.code == 0, listed.text
    rows = {line.split()[0]: line for line in listed.text.splitlines() if line.strip().startswith("checkpoint-")}
    assert list(rows) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    for name, row in rows.items():
        size = sum(path.stat().st_size for path in (out / name).iterdir()) / 1e6
        assert f" {size:.1f} MB" in row and "intact" in row and ("last" in row) == (name == "checkpoint-6"), row
        assert ("best" in row) == (name == f"checkpoint-{state['best_step']}"), row
    manifest = json.loads((out / "checkpoint-6" / "manifest.json").read_text())
    for words in ("done, step 6, exit code 0", f"best:           step {state['best_step']}", "ranks:          1",
                  manifest["facts"]["train_digest"], manifest["config_digest"], "3 checkpoints, 0 damaged", "goes on from step 6"):
        assert words in listed.text, listed.text
    assert manifest["facts"]["best_step"] == state["best_step"]


def test_inspect_a_checkpoint(tmp_path, trained):
    shutil.copytree(trained / "out" / "checkpoint-4", tmp_path / "checkpoint-4")
    listed = harness.run("inspect", f"{tmp_path / 'checkpoint-4'}/")
    manifest = json.loads((tmp_path / "checkpoint-4" / "manifest.json").read_text())
    assert listed.code == 0 and "checkpoint of step 4" in listed.text and "intact: every byte" in listed.text, listed.text
    for name, entry in manifest["files"].items():
        assert name in listed.text and entry["xxh3_128"] in listed.text
    (tmp_path / "checkpoint-4" / "config.json").write_text("{}")
    listed = harness.run("inspect", tmp_path / "checkpoint-4")
    assert listed.code == 65 and "DAMAGED: config.json: 2 bytes instead of" in listed.text, listed.text
    (tmp_path / "checkpoint-4" / "manifest.json").unlink()
    listed = harness.run("inspect", tmp_path / "checkpoint-4")
    assert listed.code == 65 and "DAMAGED: manifest.json: missing" in listed.text, listed.text


def test_inspect_says_what_it_cannot_do(tmp_path, trained):
    for arguments, words in ((["inspect"], "no folder"), (["inspect", tmp_path], "neither a run nor a checkpoint"),
                             (["inspect", tmp_path / "nowhere"], "there is no folder")):
        refused = harness.run(*arguments)
        assert refused.code == 64 and words in refused.error_lines()[0], refused.text
    (tmp_path / "out" / ".stage-7-123-1").mkdir(parents=True)
    shutil.copy(trained / "out" / "run.json", tmp_path / "out")
    listed = harness.run("inspect", tmp_path / "out")
    assert listed.code == 0 and ".stage-7-123-1" in listed.text and "checkpoints:    none" in listed.text, listed.text
    (tmp_path / "out" / "run.json").write_text("{")
    assert harness.run("inspect", tmp_path / "out").code == 65
    taught = harness.run("inspect", "--help")
    assert taught.code == 0 and "Exit codes" in taught.text and "left half-way" in taught.text and "Examples" in taught.text
