#!/usr/bin/env python3
"""The whole fault matrix: each file of tests is a process of pytest, two of them at a time, since much of it is waiting.

`--minutes N` is about how long it takes; further arguments go to pytest. Writes the page when all is done.
"""
import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_FIRST = ["test_kills.py", "test_exact.py", "test_stalls.py", "test_storage.py", "test_soak.py", "test_slurm.py",
                 "test_agreement.py", "test_programs.py", "test_formats.py"]
NOTHING_CHOSEN = 5  # exit code of pytest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    options, chosen = parser.parse_known_args()
    reports = options.build / "reports"
    reports.mkdir(exist_ok=True)
    (reports / "faults.jsonl").unlink(missing_ok=True)
    environment = os.environ | {"DTRAIN_FAULTS_MINUTES": str(options.minutes), "DTRAIN_BUILD_DIR": str(options.build),
                                "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    files = {path.name for path in HERE.glob("test_*.py")}
    assert files == set(LONGEST_FIRST), files ^ set(LONGEST_FIRST)

    def run(name):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / name, *chosen], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        return name, done, time.monotonic() - start

    code = 0
    with concurrent.futures.ThreadPoolExecutor(2) as lanes:
        for ended in concurrent.futures.as_completed([lanes.submit(run, name) for name in LONGEST_FIRST]):
            name, done, seconds = ended.result()
            if done.returncode == NOTHING_CHOSEN:
                continue
            print(f"{name}: {seconds / 60:.1f} minutes\n{done.stdout}", flush=True)
            code = code or done.returncode
    # A part of the matrix leaves the page as it is.
    page = HERE.parents[1] / "docs" / "faults.md" if not chosen else reports / "faults.md"
    if (reports / "faults.jsonl").exists():
        code = subprocess.run([sys.executable, HERE / "report.py", reports / "faults.jsonl", page, "--minutes", str(options.minutes)],
                              check=False).returncode or code
        print(page)
    return code


if __name__ == "__main__":
    sys.exit(main())
