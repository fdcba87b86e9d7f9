#!/usr/bin/env python3
"""Runs the tests of a sanitizer build: run.py address|thread --build FOLDER [ARGUMENT OF CTEST ...]

A report of any process that a test starts, a rank of mpirun as well, goes to a file in FOLDER/sanitizer and fails the run, whatever the
test itself made of it. What cannot run is listed with its reason in address_not_run.txt and thread_not_run.txt.
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))  # before this folder, whose run.py this is

import run as test_run  # noqa: E402

EXIT_CODE = 97  # of a program with a report: none of dtrain's own
# What tests may take longer; ctest's own limits are multiplied in cmake/DtrainTargets.cmake.
SLOWNESS = 10


def environment(kind, reports, left_out):
    common = f"exitcode={EXIT_CODE}:log_path={reports}/{kind}"
    pytest_names = [name.replace(".", ".py::", 1) for name in left_out if re.match(r"test_\w+\.", name)]
    cases = [name for name in left_out if "." in name and not name.startswith("test_")]
    added = {"DTRAIN_TEST_SLOWNESS": str(SLOWNESS),
             "GTEST_FILTER": f"-{':'.join(cases)}" if cases else "*",
             "PYTEST_ADDOPTS": " ".join(f"--deselect={name}" for name in pytest_names)}
    if kind == "thread":
        # Of libraries without instrumentation only the locks are seen: what they read and write is not judged.
        added["TSAN_OPTIONS"] = (f"{common}:halt_on_error=1:second_deadlock_stack=1:ignore_noninstrumented_modules=1:"
                                 f"die_after_fork=0:suppressions={HERE}/thread.supp:print_suppressions=0")
        # The threads of libgomp meet at barriers that are not seen: no teams.
        added |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    else:
        added["ASAN_OPTIONS"] = (f"{common}:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:"
                                 "check_initialization_order=1:handle_abort=1:verify_asan_link_order=0")  # LD_PRELOAD of a test
        added["LSAN_OPTIONS"] = f"suppressions={HERE}/leak.supp:print_suppressions=0"
        # Beside that of addresses GCC's library for undefined behaviour cannot write to a file: what it finds goes to standard
        # error, and the abort after it makes the report. Its log_path is that of both.
        added["UBSAN_OPTIONS"] = f"{common}:halt_on_error=1:abort_on_error=1:print_stacktrace=1"
        # Of the projects that a test builds.
        added |= {"CXXFLAGS": "-fsanitize=address,undefined", "LDFLAGS": "-fsanitize=address,undefined"}
    return os.environ | added


def print_reports(reports):
    """Each kind of report once, in full; the number of all."""
    files = sorted(path for path in reports.iterdir() if path.is_file() and path.stat().st_size > 0)
    by_summary = collections.defaultdict(list)
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        summary = re.search(r"SUMMARY: .*|runtime error: .*", text)
        by_summary[summary.group(0) if summary else text[:200]].append((path, text))
    for found in by_summary.values():
        print(f"{len(found)} of these, the first is {found[0][0]}:\n{found[0][1]}")
    return len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["address", "thread"])
    parser.add_argument("--build", required=True)
    options, ctest_arguments = parser.parse_known_args()
    reports = (ROOT / options.build).resolve() / "sanitizer"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    # A name is a test of ctest's, a case of a GoogleTest program (Suite.Case) or one of pytest's (test_file.test_name).
    left_out = test_run.names_with_reasons(HERE / f"{options.kind}_not_run.txt")
    programs = [name for name in left_out if "." not in name]
    line = [sys.executable, str(ROOT / "tests" / "run.py"), "--build", options.build, *ctest_arguments]
    if options.kind == "thread":
        line += ["-L", "threads"]
    if programs:
        line += ["-E", f"^({'|'.join(programs)})$"]
    code = subprocess.run(line, env=environment(options.kind, reports, left_out), check=False).returncode
    count = print_reports(reports)
    for name, reason in left_out.items():
        print(f"not run under the {options.kind} sanitizer: {name}: {reason}")
    print(f"{count} reports of the {options.kind} sanitizer")
    return 1 if count or code else 0


if __name__ == "__main__":
    sys.exit(main())
