"""How the tests of faults count and report: rows of the fault matrix (docs/faults.md) with what was tried and what held.

Each test runs in two sizes. `./dev test` takes a sample; `./dev faults --minutes N` sets DTRAIN_FAULTS_MINUTES and every random row
goes on until its share of the time is spent or its full count is reached.
"""
import json
import os
import time

import harness

MINUTES = float(os.environ.get("DTRAIN_FAULTS_MINUTES", "0"))
REPORT = harness.BUILD / "reports" / "faults.jsonl"
SHARE = 1 / 60  # of the minutes, for a row that names none


class Row:
    """One row: `for number in row.tries(sample=5, full=300): ... row.passed()`; figures are what the row promises, measured."""

    def __init__(self, name, fault):
        self.name, self.fault = name, fault
        self.count, self.held, self.figures = 0, 0, {}

    def tries(self, sample, full, share=SHARE):
        """Numbers of tries: `sample` of them in ./dev test; in ./dev faults up to `full`, at least `sample`, for the share of the time."""
        end = time.monotonic() + MINUTES * 60 * share
        for number in range(full if MINUTES else sample):
            if MINUTES and number >= sample and time.monotonic() > end:
                break
            self.count += 1
            yield number

    def passed(self, **figures):
        """One try held. Figures (seconds and the like) are collected; the report shows the largest."""
        self.held += 1
        self.measured(**figures)

    def measured(self, **figures):
        """Figures of a try, whether it holds or not."""
        for name, value in figures.items():
            self.figures[name] = max(value, self.figures.get(name, value))

    def counted(self, name):
        """A figure that counts tries."""
        self.figures[name] = self.figures.get(name, 0) + 1

    def close(self):
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps({"row": self.name, "fault": self.fault, "tries": self.count, "held": self.held,
                                   "figures": self.figures}) + "\n")
