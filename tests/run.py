#!/usr/bin/env python3
"""Runs every test through ctest and closes with one line of totals.

A skipped test fails the run unless tests/allowed_skips.txt lists it, so that a missing tool cannot turn into a green run.
Arguments after --build FOLDER go to ctest (-R PATTERN, -L LABEL, ...).
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]


def names_with_reasons(path):
    """Of lines `name  # reason`: {name: reason}."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, reason = line.partition("#")
        if name.strip():
            found[name.strip()] = reason.strip()
    return found


def cases_of_programs(reports):
    """(executed, skipped names) over the GoogleTest and pytest reports that the programs wrote."""
    executed, skipped = 0, []
    for report in reports.glob("*.json"):
        for suite in json.loads(report.read_text(encoding="utf-8"))["testsuites"]:
            for case in suite["testsuite"]:
                if case.get("result") == "SKIPPED":
                    skipped.append(f"{suite['name']}.{case['name']}")
                elif case.get("result") == "COMPLETED":
                    executed += 1
    for report in reports.glob("pytest_*.xml"):
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            if case.find("skipped") is not None:
                skipped.append(f"{case.get('classname')}.{case.get('name')}")
            else:
                executed += 1
    return executed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    options, ctest_arguments = parser.parse_known_args()
    build = (ROOT / options.build).resolve()
    reports = build / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    summary = reports / "ctest.xml"
    code = subprocess.run(["ctest", "--test-dir", str(build), "--output-on-failure", "-j", "2", "--no-tests=error",
                           "--output-junit", str(summary), *ctest_arguments], check=False).returncode
    passed, failed, skipped = 0, [], []
    for case in xml.etree.ElementTree.parse(summary).iter("testcase"):
        status = case.get("status")
        if status == "run":
            passed += 1
        elif status == "notrun":
            skipped.append(case.get("name"))
        else:
            failed.append(case.get("name"))
    executed, skipped_cases = cases_of_programs(reports)
    allowed = names_with_reasons(ROOT / "tests" / "allowed_skips.txt")
    for name in skipped + skipped_cases:
        print(f"skipped: {name}: {allowed.get(name, 'not on the list tests/allowed_skips.txt')}")
        if name not in allowed:
            failed.append(name)
    for name in failed:
        print(f"failed: {name}")
    print(f"{executed} test cases in {passed + len(failed)} programs and runs")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
