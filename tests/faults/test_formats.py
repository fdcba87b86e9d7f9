"""Checkpoints that older versions wrote: they resume for ever, or the error says which version can read them."""
import json
import re
import shutil

import numpy
import pytest
from safetensors.numpy import load_file

import harness

KEPT = harness.ROOT / "tests" / "data" / "checkpoints"

pytestmark = pytest.mark.row("F41", "a checkpoint of an older, a newer version, or of another configuration")


@pytest.fixture(params=sorted(path.name for path in KEPT.iterdir()))
def old(request, tmp_path, row):
    """A folder as an older program left it."""
    folder = tmp_path / "old"
    shutil.copytree(KEPT / request.param, folder)
    row.count += 1
    return folder


def resume(folder, *options):
    return harness.run_line([str(harness.DTRAIN), "recipe.toml", "--set", "training.resume_from_checkpoint=latest", *options], cwd=folder)


def test_resumes_to_the_result_of_its_time(old, row):
    outcome = resume(old)
    assert outcome.code == 0 and "resuming from out/checkpoint-4" in outcome.text, outcome.text
    expected, got = load_file(old / "expected.safetensors"), load_file(old / "out" / "checkpoint-8" / "model.safetensors")
    start = load_file(old / "model" / "model.safetensors")
    assert expected.keys() == got.keys()
    moved = 0
    for name, values in expected.items():
        # Other processors round otherwise; steps of 0.01 are a thousand times that.
        numpy.testing.assert_allclose(got[name], values, rtol=0, atol=1e-5, err_msg=name)
        moved = max(moved, numpy.abs(values - start[name]).max()) if name in start else moved
    assert moved > 0.01
    row.passed()


def test_is_whole(old, row):
    outcome = harness.run("inspect", old / "out")
    assert outcome.code == 0, outcome.text
    row.passed()


def test_is_refused_by_a_changed_run_with_the_difference(old, row):
    outcome = resume(old, "--set", "training.seed=7")
    assert outcome.code == 66 and "training.seed" in outcome.error_lines()[0], outcome.text
    row.passed()


def test_of_a_newer_version_names_it(old, row):
    manifest = old / "out" / "checkpoint-4" / "manifest.json"
    version = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    text = re.sub(f'"version": *{version}', f'"version": {version + 1000}', manifest.read_text(encoding="utf-8"))
    manifest.write_text(text, encoding="utf-8")
    outcome = resume(old)
    assert outcome.code != 0 and len(outcome.error_lines()) == 1, outcome.text
    assert str(version + 1000) in outcome.text and not (old / "out" / "checkpoint-8").exists(), outcome.text
    row.passed()
