"""Writes docs/faults.md from build/reports/faults.jsonl: the rows of the fault matrix, what was tried and what held."""
import argparse
import collections
import json
import pathlib
import sys

HEAD = """# The fault matrix

Written {by}. `./dev test` runs a sample of each row, `./dev faults --minutes N` as much as the time allows. Each try breaks something in a real run and then asserts exit code, `run.json`,
the checkpoints and, where a run goes on, that weights, optimizer, log of steps and choice of the best equal those of the uninterrupted run bit for bit.
`tests/faults/test_*.py` are the tests; a figure is the largest value over all tries.

| row | fault | tries | held | figures |
| --- | --- | ---: | ---: | --- |
"""


def merged(path):
    """Rows of one name and fault are added up: a test may be parametrised, or run twice."""
    rows = collections.OrderedDict()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        total = rows.setdefault((row["row"], row["fault"]), {"tries": 0, "held": 0, "figures": {}})
        total["tries"] += row["tries"]
        total["held"] += row["held"]
        for name, value in row["figures"].items():
            total["figures"][name] = max(value, total["figures"].get(name, value))
    return rows


def number(value):
    return f"{value:.2f}" if isinstance(value, float) and not value.is_integer() else f"{value:g}"


def page(rows, minutes):
    by = f"by `./dev faults --minutes {minutes:g}`" if minutes else "from the sample of one `./dev test`"
    text = HEAD.format(by=by)
    for (name, fault), row in sorted(rows.items()):
        figures = ", ".join(f"{key} {number(value)}" for key, value in sorted(row["figures"].items()))
        text += f"| {name} | {fault} | {row['tries']} | {row['held']} | {figures} |\n"
    tries, held = (sum(row[key] for row in rows.values()) for key in ("tries", "held"))
    return text + f"\n{tries} tries in {len(rows)} rows, {held} held, {tries - held} did not.\n", tries == held


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jsonl", type=pathlib.Path)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=0, help="of ./dev faults; 0: the rows are those of ./dev test")
    options = parser.parse_args()
    text, all_held = page(merged(options.jsonl), options.minutes)
    options.page.write_text(text, encoding="utf-8")
    print(text.splitlines()[-1])
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
