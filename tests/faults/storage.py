"""What test_storage.py needs: system calls of a save as strace saw them, and a disk that forgets what was not synced."""
import dataclasses
import json
import random
import re
import shutil
import subprocess

import harness

TOOL = harness.BUILD / "tests" / "store_tool"
BYTES = 3000  # of the weights in a checkpoint of the tool


def save_line(folder, step, best=0, limit=0, size=BYTES):
    return [str(TOOL), "save", str(folder), str(step), str(size), str(best), str(limit)]


def save(folder, step, **options):
    """Publishes a checkpoint, not under strace."""
    printed = subprocess.run(save_line(folder, step, **options), capture_output=True, text=True, check=True)
    return json.loads(printed.stdout)


def store_with(folder, steps):
    for step in steps:
        save(folder, step)
    return folder


def ask_lines(words, lines):
    """One process answers all lines: a store_tool started for each would cost more than the test itself."""
    printed = subprocess.run([str(TOOL), *map(str, words)], input="".join(f"{line}\n" for line in lines), text=True,
                             errors="replace", capture_output=True, check=True)
    assert len(printed.stdout.splitlines()) == len(lines)
    return printed.stdout.splitlines()


def ask(words, folders):
    return [json.loads(line) for line in ask_lines(words, folders)]


def recover(folders, step, best=0, limit=0):
    """Pairs of reports: of each folder as it was found, and after the next run has cleared up and saved."""
    return ask(["recover", step, BYTES, best, limit], folders)


@dataclasses.dataclass(frozen=True)
class Call:
    """The `number`-th call of `name` by the traced process, counted from 1 as strace's inject counts."""
    name: str
    number: int


def traced(line, *options, timeout=60):
    """Runs `line` under strace; the lines of the trace of its main thread."""
    log = f"{line[2]}.trace"
    subprocess.run(["strace", "-o", log, *options, *line], capture_output=True, timeout=timeout * harness.SLOWNESS, check=False)
    with open(log, encoding="utf-8", errors="replace") as lines:
        return lines.read().splitlines()


def calls_between_markers(line):
    """Every system call that the tool makes for its save."""
    counts, found, inside = {}, [], False
    for text in traced(line):
        match = re.match(r"(\w+)\(", text)
        if not match:
            continue
        name = match.group(1)
        counts[name] = counts.get(name, 0) + 1
        if '"/marker"' in text:
            inside = not inside
        elif inside:
            found.append(Call(name, counts[name]))
    assert not inside and len(found) > 30, f"the trace was not understood: {found}"
    return found


def run_injected(line, call, what):
    """Runs `line` with strace's inject `what` at `call`; (exit code, output)."""
    done = subprocess.run(["strace", "-o", "/dev/null", "-e", f"inject={call.name}:{what}:when={call.number}", *line],
                          capture_output=True, text=True, timeout=60 * harness.SLOWNESS, check=False)
    return done.returncode, done.stdout


def copies(base, folder, number):
    """`number` fresh copies of a store."""
    for index in range(number):
        copy = folder / f"try-{index}"
        shutil.copytree(base, copy)
        yield copy


# A disk that forgets. Files keep what was synced and, of what was not, nothing, a part, zeros, or all; names keep what the
# sync of their folder saw and, of what came later, any operations whose predecessors on the same names were kept.

@dataclasses.dataclass
class File:
    data: bytes = b""
    synced: int = 0  # bytes that are safe


@dataclasses.dataclass
class Operation:
    names: tuple
    changes: dict  # name -> node or None


class Folder:
    def __init__(self):
        self.durable, self.now, self.pending = {}, {}, []

    def do(self, changes):
        self.pending.append(Operation(tuple(changes), dict(changes)))
        apply(self.now, changes)

    def sync(self):
        self.durable, self.pending = dict(self.now), []


def apply(entries, changes):
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def text_of(quoted):
    """The bytes of strace -xx's string."""
    return bytes(int(digits, 16) for digits in re.findall(r"\\x([0-9a-f]{2})", quoted))


class Disk:
    """Plays the trace of a process on a folder, whose first state is taken as safe."""

    def __init__(self, root):
        self.root_path = str(root)
        self.root = self._read(root)
        self.open = {}

    def _read(self, path):
        folder = Folder()
        for entry in sorted(path.iterdir()):
            if entry.is_dir():
                folder.now[entry.name] = self._read(entry)
            else:
                data = entry.read_bytes()
                folder.now[entry.name] = File(data, len(data))
        folder.sync()
        return folder

    def _find(self, path):
        """(folder, name, node) of a path below the root; None for others."""
        if not path.startswith(self.root_path):
            return None
        words = [word for word in path[len(self.root_path):].split("/") if word]
        folder, node = None, self.root
        for word in words:
            folder, node = node, node.now.get(word) if isinstance(node, Folder) else None
        return folder, words[-1] if words else "", node

    def play(self, line):
        """Plays one line of the trace; False for lines that change nothing."""
        match = re.match(r"(\w+)\((.*)\)\s+= (-?\d+|\?)", line)
        if not match or match.group(3).startswith("-") or match.group(3) == "?":
            return False
        name, arguments, result = match.group(1), match.group(2), int(match.group(3))
        paths = [text_of(quoted).decode(errors="replace") for quoted in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)[:2]]
        first = re.match(r"(\d+)", arguments)
        fd = int(first.group(1)) if first else -1
        if name == "openat":
            path = paths[0]
            if fd in self.open and isinstance(self.open[fd][1], str):
                path = f"{self.open[fd][1]}/{path}"
            found = self._find(path)
            if not found:
                return False
            folder, entry, node = found
            if node is None:
                assert "O_CREAT" in arguments, line
                node = File()
                folder.do({entry: node})
            elif "O_TRUNC" in arguments:
                raise AssertionError(f"a file is written over in place: {line}")
            self.open[result] = (node, path)
            return "O_CREAT" in arguments
        if name == "close":
            self.open.pop(fd, None)
            return False
        if name in ("write", "fsync", "fdatasync"):
            if fd not in self.open:
                return False
            node = self.open[fd][0]
            if name == "write":
                data = text_of(re.search(r'"((?:\\x[0-9a-f]{2})*)"', arguments).group(1))
                node.data += data[:result]
            elif isinstance(node, Folder):
                node.sync()
            else:
                node.synced = len(node.data)
            return True
        if name in ("mkdir", "mkdirat"):
            folder, entry, _ = self._find(paths[0])
            folder.do({entry: Folder()})
            return True
        if name in ("rename", "renameat", "renameat2"):
            (folder, old, node), (target, new, other) = self._find(paths[0]), self._find(paths[1])
            assert folder is target, f"a rename between folders: {line}"
            folder.do({old: other if "RENAME_EXCHANGE" in arguments else None, new: node})
            return True
        if name in ("unlink", "rmdir", "unlinkat"):
            path = paths[0]
            if name == "unlinkat" and fd in self.open:
                path = f"{self.open[fd][1]}/{path}"
            found = self._find(path)
            if not found:
                return False
            found[0].do({found[1]: None})
            return True
        assert name not in ("link", "linkat", "symlink", "truncate", "ftruncate", "pwrite64", "writev", "sendfile", "copy_file_range",
                            "rmdirat"), f"the model does not know {line}"
        return False

    def after_power_loss(self, rng):
        """What a disk may hold when the power goes now: {path: bytes} and the folders."""
        files, folders = {}, []
        keep = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])

        def visit(folder, prefix):
            entries, lost = dict(folder.durable), set()
            for operation in folder.pending:
                if rng.random() >= keep or lost.intersection(operation.names):
                    lost.update(operation.names)
                else:
                    apply(entries, operation.changes)
            for name, node in entries.items():
                if isinstance(node, Folder):
                    folders.append(prefix + name)
                    visit(node, f"{prefix}{name}/")
                else:
                    files[prefix + name] = torn(node, rng)

        visit(self.root, "")
        return files, folders


def torn(file, rng):
    safe, rest = file.data[:file.synced], file.data[file.synced:]
    if not rest:
        return safe
    choice = rng.randrange(4)
    if choice == 0:
        return safe
    if choice == 1:
        return safe + rest[:rng.randrange(len(rest) + 1)]
    if choice == 2:
        return safe + bytes(len(rest))
    return file.data


def materialise(state, folder):
    files, folders = state
    folder.mkdir()
    for name in folders:
        (folder / name).mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def power_losses(base, line, schedules, seed, forget=lambda text: False):
    """Distinct states that a power loss during the save `line` can leave in a store that looked like `base` before it, each with
    whether the save had returned by then. `line` works on a copy of `base`. `forget`: lines of the trace that never happened."""
    lines = traced(line, "-xx", "-s", "1000000", "-e", "trace=%file,%desc")
    marker = "".join(f"\\x{byte:02x}" for byte in b"/marker")
    lines = [text for text in lines if not forget(text)]
    begin, end = (number for number, text in enumerate(lines) if marker in text)
    rng, found = random.Random(seed), {}

    def fresh_disk():
        disk = Disk(base)
        disk.root_path = line[2]
        return disk

    # The power goes after a call that changed something, and once after the last.
    disk = fresh_disk()
    changed = [number for number, text in enumerate(lines) if disk.play(text) and begin < number < end] + [end]
    disk, played = fresh_disk(), 0
    for point in sorted(rng.choice(changed) for _ in range(schedules)):
        for text in lines[played:point + 1]:
            disk.play(text)
        played = point + 1
        state = disk.after_power_loss(rng)
        found[(frozenset(state[0].items()), frozenset(state[1]), point == end)] = (state, point == end)
    return list(found.values())
