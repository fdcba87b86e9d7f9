"""Rows of the fault matrix that tests of one layer show, most of them exhaustively: those tests, run again and counted.

For `./dev faults` alone: in `./dev test` the programs run by themselves.
"""
import json
import subprocess

import pytest

import harness

ROWS = [
    ("F22", "gradients that arrive in another order", "unit_dist", "Reducer.AThousandOrdersOfArrivalGiveOneSum"),
    ("F28", "a collective that never returns", "unit_dist", "WatchdogDeathTest.*"),
    ("F50", "settings: any byte changed, any nesting, any length", "unit_configs", "HostileToml.*"),
    ("F51", "safetensors: mutations, truncations, contradictions", "unit_safetensors", "SafetensorsTest.*:*DamagedSafetensors.*"),
    ("F52", "tokenizer files and texts of any bytes", "unit_tokenizers", "TokenizerFilesTest.*:Utf8Test.*:LongTextTest.*"),
    ("F53", "the manifest of a checkpoint: flipped bits, newer formats", "unit_checkpoint", "CheckpointStore.*"),
    ("F53", "the dump of the flight recorder: mutations, truncations", "unit_dist", "HangDump.*"),
    ("F54", "token stores: truncations, flipped bits, contradictions, killed writers", "unit_datasets", "TokenData.*"),
    ("F55", "examples that cannot be used", "unit_readers", "Readers.*:ReaderFiles.*:TaggedWords.*:Pairs.*"),
    ("F57", "0 to 50 examples, 1 to 4 ranks, micro-batches of 1 to 5, accumulation of 1 to 3", "unit_datasets",
     "Shard.EveryExampleCountsExactlyOnce"),
    ("F62", "overflow in the sum of the gradients", "unit_loop", "LoopNotFinite.OverflowOfTheSumIsNoticed"),
    ("F64", "each setting of the table differs on one rank", "unit_launcher", "Agreement.EachSettingThatDiffersIsNamed"),
    ("F68", "an evaluation of 1 to 200 examples on 1 to 4 ranks", "unit_loop", "LoopEvaluation.IsTheSameForEveryWorldSize"),
    ("F69", "ties and NaN in the metric of the best model", "unit_loop", "LoopCheckpoint.ATieKeepsTheEarlierAndNanIsNeverTheBest"),
]


@pytest.mark.parametrize(("name", "fault", "program", "tests"), [pytest.param(*row, marks=pytest.mark.row(*row[:2])) for row in ROWS])
def test_of_one_layer(name, fault, program, tests, row, tmp_path):
    report = tmp_path / "report.json"
    done = subprocess.run([harness.BUILD / "tests" / program, f"--gtest_filter={tests}", f"--gtest_output=json:{report}", "--gtest_brief=1"],
                          capture_output=True, text=True, env=harness.environment(OMP_NUM_THREADS="1"), check=False)
    cases = [case for suite in json.loads(report.read_text(encoding="utf-8"))["testsuites"] for case in suite["testsuite"]]
    assert cases, f"{program} has no test {tests}"
    for case in cases:
        row.count += 1
        if "failures" not in case and case["result"] == "COMPLETED":
            row.passed()
    assert done.returncode == 0 and row.held == row.count, done.stdout + done.stderr
