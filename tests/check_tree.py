#!/usr/bin/env python3
"""Checks what the compiler does not: layers, sizes and a few habits. Reads the table of layers in CONTRIBUTING.md."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_LINES = 600


def layers():
    """{folder: folders it may include}, from the rows `| 2 | `dist/` | ... | core |`."""
    table = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        match = re.fullmatch(r"`(\w+)/`", cells[1]) if len(cells) == 4 else None
        if match:
            table[match.group(1)] = {name.strip(" `/") for name in cells[3].split(",")} | {match.group(1)}
    if len(table) < 6:
        sys.exit("check_tree: the table of layers in CONTRIBUTING.md was not understood")
    return table


def main():
    table = layers()
    problems = []
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True,
                           text=True).stdout.split("\n")
    for name in files:
        path = ROOT / name
        if path.suffix not in (".cpp", ".h", ".cu", ".py", ".sh") or not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > MAX_LINES and "do not edit" not in lines[0]:
            problems.append(f"{name}: {len(lines)} lines; {MAX_LINES} is the most")
        folder = name.split("/")[0]
        if path.suffix == ".h" and "#pragma once" not in lines and folder != "cmake" and "_template" not in name:
            problems.append(f"{name}: no #pragma once")
        for number, line in enumerate(lines, 1):
            include = re.match(r'#include "([\w]+)/', line)
            if include and folder in table and include.group(1) in table and include.group(1) not in table[folder]:
                problems.append(f"{name}:{number}: {folder} may not include {include.group(1)}")
            if re.search(r'#include <(torch/torch|ATen/ATen)\.h>', line):
                problems.append(f"{name}:{number}: include narrow LibTorch headers; this one costs half a minute")
            if folder == "dist" and path.suffix == ".h" and re.search(r"\bvoid\s*\*", line):
                problems.append(f"{name}:{number}: collectives take tensors or spans, not void*")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
